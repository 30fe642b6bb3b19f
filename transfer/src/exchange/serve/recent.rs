//! Who got which chunk from here within the last second, or is about to.
//!
//! Those who ask for one chunk stand in the order in which they came. The first is served; the k-th is sent
//! to the one at (k − 1) / 2, which makes a binary tree: everybody passes a chunk on twice, and the last of
//! a thousand has it after ten hops. Who asks again, because that one failed, is only sent to somebody who
//! came before it, so that no two ever wait for each other.

use std::collections::{BTreeMap, VecDeque};

use allhands_common::time::Instant;

use super::super::Peer;
use super::Place;

/// Places that are remembered, at most: a second of 16 GiB/s. What is beyond it is served again.
const PLACES_MAX: usize = 1 << 14;

/// Askers of one place that are remembered, at most.
const ASKERS_MAX: usize = 1 << 10;

#[derive(Debug, Default)]
struct Line {
    askers: Vec<Peer>,
    /// Served, being served, or in line for it: as long as there are any, the line is good.
    pending: Vec<Peer>,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    lines: BTreeMap<Place, Line>,
    /// When which line may be over, oldest first.
    over: VecDeque<(Instant, Place)>,
}

impl Recent {
    /// To whom `peer` is to go for a chunk, if not here.
    pub(super) fn instead(
        &mut self,
        now: Instant,
        place: Place,
        peer: Peer,
        usable: &dyn Fn(Peer) -> bool,
    ) -> Option<Peer> {
        let line = self.lines.get_mut(&place)?;
        if line.pending.is_empty() && line.until <= now {
            return None;
        }
        if let Some(at) = line.askers.iter().position(|asker| *asker == peer) {
            return line.askers[..at].iter().rev().copied().find(|asker| usable(*asker));
        }
        let parents = (0..line.askers.len()).filter(|at| usable(line.askers[*at]));
        let wish = line.askers.len().saturating_sub(1) / 2;
        let to = parents.min_by_key(|at| at.abs_diff(wish)).map(|at| line.askers[at])?;
        if line.askers.len() < ASKERS_MAX {
            line.askers.push(peer);
        }
        Some(to)
    }

    /// `peer` is in line for a chunk.
    pub(super) fn accept(&mut self, place: Place, peer: Peer) {
        if self.lines.len() >= PLACES_MAX && !self.lines.contains_key(&place) {
            return;
        }
        let line = self.lines.entry(place).or_default();
        if line.pending.is_empty() && !line.askers.contains(&peer) {
            line.askers.insert(0, peer);
        } else if !line.askers.contains(&peer) && line.askers.len() < ASKERS_MAX {
            line.askers.push(peer);
        }
        line.pending.push(peer);
    }

    /// `peer` was served.
    pub(super) fn served(&mut self, place: Place, peer: Peer, until: Instant) {
        if let Some(line) = self.lines.get_mut(&place) {
            remove_one(&mut line.pending, peer);
            line.until = until;
            self.over.push_back((until, place));
        }
    }

    /// `peer` will not be served after all.
    pub(super) fn withdraw(&mut self, place: Place, peer: Peer) {
        let Some(line) = self.lines.get_mut(&place) else { return };
        remove_one(&mut line.pending, peer);
        line.askers.retain(|asker| *asker != peer);
        if line.pending.is_empty() && line.askers.is_empty() {
            self.lines.remove(&place);
        } else if line.pending.is_empty() {
            self.over.push_back((line.until, place));
        }
    }

    /// Forgets the lines that are over.
    pub(super) fn forget(&mut self, now: Instant) {
        while self.over.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, place)) = self.over.pop_front() else { return };
            if self
                .lines
                .get(&place)
                .is_some_and(|line| line.pending.is_empty() && line.until <= now)
            {
                self.lines.remove(&place);
            }
        }
    }
}

fn remove_one(peers: &mut Vec<Peer>, peer: Peer) {
    if let Some(at) = peers.iter().position(|other| *other == peer) {
        peers.swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use allhands_common::blob::BlobId;

    use super::*;

    const PLACE: Place = (BlobId([1; 32]), 7);

    fn line_of(askers: u32) -> Recent {
        let mut recent = Recent::default();
        recent.accept(PLACE, Peer(0));
        for asker in 1..askers {
            recent.instead(Instant(0), PLACE, Peer(asker), &|_| true);
        }
        recent
    }

    #[test]
    fn askers_become_a_binary_tree() {
        let mut recent = line_of(1);
        let to: Vec<_> = (1..7)
            .map(|asker| recent.instead(Instant(0), PLACE, Peer(asker), &|_| true).unwrap().0)
            .collect();
        assert_eq!(to, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn who_asks_again_is_sent_to_somebody_before_it_or_served() {
        let mut recent = line_of(5);
        let without = |failed: u32| move |peer: Peer| peer.0 != failed;
        let again = recent.instead(Instant(0), PLACE, Peer(3), &without(2));
        assert_eq!(again, Some(Peer(1)));
        assert_eq!(recent.instead(Instant(0), PLACE, Peer(1), &without(0)), None);
    }

    #[test]
    fn a_line_is_over_a_while_after_the_last_was_served() {
        let mut recent = line_of(1);
        recent.served(PLACE, Peer(0), Instant(10));
        recent.forget(Instant(9));
        assert_eq!(recent.instead(Instant(9), PLACE, Peer(1), &|_| true), Some(Peer(0)));
        recent.forget(Instant(10));
        assert_eq!(recent.instead(Instant(10), PLACE, Peer(2), &|_| true), None);
        assert!(recent.lines.is_empty() && recent.over.is_empty());
    }

    #[test]
    fn nobody_is_sent_to_one_who_withdrew() {
        let mut recent = line_of(1);
        recent.withdraw(PLACE, Peer(0));
        assert_eq!(recent.instead(Instant(0), PLACE, Peer(1), &|_| true), None);
        assert!(recent.lines.is_empty());
    }
}
