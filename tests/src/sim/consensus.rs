//! The log: what a leader proposes is committed after a while, in order; every replica applies it in
//! its own time. A change of leader decides at that moment what becomes of proposals in flight: a
//! first part of them is committed by the next leader, the rest is lost, and nobody is told which.

use std::collections::BTreeMap;

use allhands_common::id::{CoordinatorId, LogIndex, SegmentId, Term};
use allhands_common::limit::ENTRY_BYTES_MAX;
use allhands_common::time::Instant;
use allhands_scheduler::{Config, Dispatcher, Effect, Entry, Event, State};
use bytes::Bytes;

use super::Violation;
use super::climate::{MS, SECOND};
use super::leader::Leader;
use super::world::{Happening, REPLICAS, World};

/// Entries after which a replica's digest is compared.
const DIGEST_EVERY: u64 = 16;

/// A replica: the state, and the bytes that it names.
#[derive(Debug, Default)]
pub(super) struct Replica {
    pub(super) state: State,
    pub(super) segments: BTreeMap<SegmentId, Bytes>,
    /// Whether it is cut off: with a deposed leader that does not know.
    pub(super) frozen: bool,
}

impl World {
    /// The replica that has applied most.
    pub(super) fn newest(&self) -> &Replica {
        let newest = self.replicas.iter().max_by_key(|replica| replica.state.applied);
        newest.unwrap_or(&self.replicas[0])
    }

    fn current(&self) -> Option<&Leader> {
        self.leaders.last().filter(|leader| leader.alive && !leader.deposed)
    }

    /// The present leader proposes `entry`.
    pub(super) fn propose(&mut self, term: Term, entry: Entry) {
        self.stats.count("entries");
        let delay = self.rng.skewed(50..self.climate.commit_max);
        self.last_commit = (self.last_commit + 1).max(self.now + delay);
        self.in_flight.push_back(entry);
        self.plan(self.last_commit, Happening::Committed(term));
    }

    pub(super) fn committed(&mut self, term: Term) -> Result<(), Violation> {
        let Some(replica) = self.current().filter(|leader| leader.term == term).map(|l| l.replica)
        else {
            return Ok(());
        };
        let Some(entry) = self.in_flight.pop_front() else { return Ok(()) };
        self.log.push(entry);
        let effects = self.apply_next(replica)?;
        for other in (0..REPLICAS).filter(|other| *other != replica) {
            let at = self.now + self.rng.skewed(100..2 * SECOND);
            self.plan(at, Happening::Apply(other));
        }
        self.leaders[term.0 as usize - 1].in_flight -= 1;
        self.lead(term, Event::Applied(effects))
    }

    /// A replica applies everything there is.
    pub(super) fn catch_up(&mut self, replica: usize) -> Result<(), Violation> {
        if self.replicas[replica].frozen {
            return Ok(());
        }
        while (self.replicas[replica].state.applied.0 as usize) < self.log.len() {
            self.apply_next(replica)?;
        }
        Ok(())
    }

    /// A replica applies its next entry.
    fn apply_next(&mut self, number: usize) -> Result<Vec<Effect>, Violation> {
        let replica = &mut self.replicas[number];
        let at = replica.state.applied.0 as usize;
        let mut effects = Vec::new();
        let entry = self.log[at].clone();
        let first = self.oracle.applied < at + 1;
        if first {
            self.oracle.applied = at + 1;
        }
        replica.state.apply(LogIndex(at as u64 + 1), entry, &mut effects);
        for effect in &effects {
            match effect {
                Effect::Keep { segment, bytes } if bytes.len() > ENTRY_BYTES_MAX => {
                    let what = format!("segment {segment} has {} bytes", bytes.len());
                    return Err(Violation { rule: "what is kept can be stored", what });
                }
                Effect::Keep { segment, bytes } => {
                    replica.segments.insert(*segment, bytes.clone());
                }
                Effect::Drop { segment } if replica.segments.remove(segment).is_none() => {
                    let what = format!("segment {segment} at index {}", at + 1);
                    return Err(Violation { rule: "bytes are dropped once", what });
                }
                _ => {}
            }
        }
        if first {
            replica.state.check().map_err(|violation| Violation {
                rule: violation.rule,
                what: format!("{} at index {}", violation.what, at + 1),
            })?;
            self.oracle.learn(self.now, &effects, &replica.state, self.climate.is_calm())?;
        }
        if (at as u64 + 1).is_multiple_of(DIGEST_EVERY) {
            self.check_digest(number)?;
        }
        Ok(effects)
    }

    /// Equal index, equal state; and its bytes are just those that it names.
    pub(super) fn check_digest(&mut self, number: usize) -> Result<(), Violation> {
        let replica = &self.replicas[number];
        let (index, digest) = (replica.state.applied.0, replica.state.digest());
        let first = *self.digests.entry(index).or_insert(digest);
        self.trace.mix(&[index, u64::from(digest[0])]);
        if first != digest {
            let what = format!("replica {number} at index {index}");
            return Err(Violation { rule: "replicas that applied the same are the same", what });
        }
        let named = replica.state.segments().collect::<std::collections::BTreeSet<_>>();
        if !named.iter().eq(replica.segments.keys()) {
            let what = format!("replica {number} at index {index}: names {named:?}");
            return Err(Violation { rule: "the bytes kept are those named", what });
        }
        Ok(())
    }

    /// The leader loses its term; it may not know for a while.
    pub(super) fn depose(&mut self) {
        let Some(leader) = self.leaders.last_mut().filter(|leader| leader.alive && !leader.deposed)
        else {
            return;
        };
        self.stats.count("fault: leader changes");
        let (term, replica) = (leader.term, leader.replica);
        leader.deposed = true;
        let survive = self.rng.within(0..self.in_flight.len() as u64 + 1) as usize;
        self.stats.add(
            "fault: proposals lost with their leader",
            (self.in_flight.len() - survive) as u64,
        );
        self.stats.add("fault: proposals committed by the next leader", survive as u64);
        self.log.extend(self.in_flight.drain(..).take(survive));
        let whole = self.replicas.iter().all(|replica| !replica.frozen);
        if whole && self.rng.chance(500) {
            self.replicas[replica].frozen = true;
            let at = self.now + self.rng.skewed(MS..3 * SECOND);
            self.plan(at, Happening::Notice(term));
            self.stats.count("fault: deposed leaders that do not know");
        } else {
            self.stop_leader(term);
        }
        let at = self.now + self.rng.skewed(10 * MS..2 * SECOND);
        self.plan(at, Happening::Elect);
    }

    /// Another coordinator leads: it has everything that was committed, and says so in its own term.
    pub(super) fn elect(&mut self) -> Result<(), Violation> {
        let thawed: Vec<usize> =
            (0..REPLICAS).filter(|replica| !self.replicas[*replica].frozen).collect();
        let replica = self.rng.pick(&thawed);
        let term = Term(self.leaders.len() as u64 + 1);
        let at = self.log.last().map(|entry| entry.at).unwrap_or_default();
        self.log.push(Entry { at, commands: Vec::new() });
        self.catch_up(replica)?;
        self.last_commit = self.now;
        // Each leader's own clock starts somewhere else.
        let clock = self.rng.within(0..1000) * SECOND;
        let config = Config::new(CoordinatorId(replica as u64), term);
        let now = Instant(clock);
        let dispatcher = Dispatcher::resume(config, now, &self.replicas[replica].state);
        self.leaders.push(Leader::new(term, replica, dispatcher, self.now, clock));
        self.trace.say(self.now, format_args!("coordinator {replica} leads term {term}"));
        for worker in 0..self.workers.len() {
            let at = self.now + self.rng.skewed(100..SECOND);
            self.plan(at, Happening::TellWorker(worker, term));
        }
        for client in 0..self.clients.len() {
            let at = self.now + self.rng.skewed(100..SECOND);
            self.plan(at, Happening::TellClient(client, term));
        }
        self.schedule_leader(term);
        Ok(())
    }

    /// A replica that is behind gets a snapshot of the newest instead of the log.
    pub(super) fn install_snapshot(&mut self) -> Result<(), Violation> {
        let leading = self.leaders.last().map(|leader| leader.replica);
        let replica = self.rng.within(0..REPLICAS as u64) as usize;
        if Some(replica) == leading || self.replicas[replica].frozen {
            return Ok(());
        }
        self.stats.count("fault: snapshots installed");
        let newest = self.newest();
        let (bytes, segments) = (newest.state.to_snapshot(), newest.segments.clone());
        let state = State::from_snapshot(&bytes).map_err(|error| Violation {
            rule: "a snapshot can be read",
            what: error.to_string(),
        })?;
        self.replicas[replica] = Replica { state, segments, frozen: false };
        self.check_digest(replica)
    }
}
