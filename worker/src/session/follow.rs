//! Which link leads to the leader.

use std::collections::BTreeMap;

use allhands_common::id::{CoordinatorId, Term};

use super::Peer;

/// What is known of links and leader. No I/O: events in, a turn out.
#[derive(Debug, Default)]
pub(super) struct Follow {
    /// Links that stand, and whom they lead to; `None` = whoever leads (there is but one).
    up: BTreeMap<Peer, Option<CoordinatorId>>,
    /// Of the highest term that was heard of.
    leader: Option<(Term, CoordinatorId)>,
    /// The link that the worker registered over, and the term in which.
    current: Option<(Peer, Term)>,
}

/// A change of leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The leader of this term can be talked to: register.
    Connected(Term),
    /// There is nobody to talk to.
    Disconnected,
}

impl Follow {
    /// The link to the leader.
    pub(super) fn current(&self) -> Option<Peer> {
        self.current.map(|(peer, _)| peer)
    }

    pub(super) fn up(&mut self, peer: Peer, coordinator: Option<CoordinatorId>) -> Option<Turn> {
        self.up.insert(peer, coordinator);
        // A link that came up again is another link: the registration went with the old one.
        self.current = self.current.filter(|(current, _)| *current != peer);
        self.choose()
    }

    pub(super) fn down(&mut self, peer: Peer) -> Option<Turn> {
        self.up.remove(&peer);
        if self.current() != Some(peer) {
            return None;
        }
        self.current = None;
        Some(Turn::Disconnected)
    }

    pub(super) fn leader(&mut self, term: Term, leader: CoordinatorId) -> Option<Turn> {
        if self.leader.is_some_and(|(known, _)| term <= known) {
            return None;
        }
        self.leader = Some((term, leader));
        self.choose()
    }

    fn choose(&mut self) -> Option<Turn> {
        let (term, leader) = self.leader?;
        let is_it = |coordinator: &Option<CoordinatorId>| coordinator.is_none_or(|id| id == leader);
        let chosen = self.up.iter().find(|(_, coordinator)| is_it(coordinator));
        let chosen = chosen.map(|(peer, _)| (*peer, term));
        if chosen == self.current {
            return None;
        }
        let had = std::mem::replace(&mut self.current, chosen);
        match chosen {
            Some(_) => Some(Turn::Connected(term)),
            None => had.map(|_| Turn::Disconnected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(number: u64) -> CoordinatorId {
        CoordinatorId(number)
    }

    #[test]
    fn it_registers_with_the_leader_of_the_highest_term() {
        let mut follow = Follow::default();
        assert_eq!(follow.up(Peer(0), Some(id(1))), None);
        assert_eq!(follow.leader(Term(3), id(2)), None, "no link to it yet");
        assert_eq!(follow.up(Peer(1), Some(id(2))), Some(Turn::Connected(Term(3))));
        assert_eq!(follow.leader(Term(2), id(1)), None, "old news");
        assert_eq!(follow.leader(Term(4), id(1)), Some(Turn::Connected(Term(4))));
        assert_eq!(follow.current(), Some(Peer(0)));
        assert_eq!(follow.leader(Term(5), id(1)), Some(Turn::Connected(Term(5))), "a new term");
    }

    #[test]
    fn a_lost_link_is_noticed_and_a_new_one_taken() {
        let mut follow = Follow::default();
        follow.up(Peer(0), Some(id(1)));
        follow.up(Peer(1), Some(id(2)));
        follow.leader(Term(1), id(1));
        assert_eq!(follow.down(Peer(1)), None);
        assert_eq!(follow.down(Peer(0)), Some(Turn::Disconnected));
        assert_eq!(follow.current(), None);
        assert_eq!(follow.up(Peer(0), Some(id(1))), Some(Turn::Connected(Term(1))));
        assert_eq!(follow.up(Peer(0), Some(id(1))), Some(Turn::Connected(Term(1))), "again");
    }

    #[test]
    fn a_leader_that_cannot_be_reached_is_no_reason_to_keep_the_old_one() {
        let mut follow = Follow::default();
        follow.up(Peer(0), Some(id(1)));
        follow.leader(Term(1), id(1));
        assert_eq!(follow.leader(Term(2), id(2)), Some(Turn::Disconnected));
    }

    #[test]
    fn in_one_process_whoever_leads_is_at_the_other_end() {
        let mut follow = Follow::default();
        follow.up(Peer(0), None);
        assert_eq!(follow.leader(Term(1), id(1)), Some(Turn::Connected(Term(1))));
    }
}
