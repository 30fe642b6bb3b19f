//! Who of the other coordinators does not answer, and when that is worth a word.
//!
//! Heartbeats are given 75 ms and come ten times a second: on a busy machine one is late now and then, and
//! while a cluster starts somebody is always not there yet. That is no silence.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use allhands_common::net::complaint::Complaint;

use crate::raft::transport::Lane;
use crate::raft::types::NodeId;

/// Who has not answered for so long is said to be silent: longer than an election, shorter than anybody looks.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who has not failed to answer for so long is there again.
const CALM: Duration = Duration::from_secs(2);

/// What is known of the others' silence.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// Since when nothing was answered on a lane.
    since: BTreeMap<(NodeId, Lane), Instant>,
    /// Who was complained of, and when he last failed to answer. Each lane has its own words for the same
    /// silence.
    told: BTreeMap<NodeId, (Complaint, Instant)>,
}

impl Silence {
    /// A call was answered; whether that is news.
    pub(crate) fn answered(&mut self, node: NodeId, lane: Lane, now: Instant) -> bool {
        self.since.remove(&(node, lane));
        match self.told.get(&node) {
            Some((_, failed)) if now - *failed > CALM => self.told.remove(&node).is_some(),
            _ => false,
        }
    }

    /// A call was not answered; whether that is to be said.
    pub(crate) fn failed(&mut self, node: NodeId, lane: Lane, now: Instant) -> bool {
        let since = *self.since.entry((node, lane)).or_insert(now);
        if let Some((_, failed)) = self.told.get_mut(&node) {
            *failed = now;
        }
        if now - since < PATIENCE {
            return false;
        }
        let (complaint, _) = self.told.entry(node).or_insert_with(|| (Complaint::default(), now));
        complaint.is_due("silent", now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds after `start`.
    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_late_answer_is_no_silence() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        for second in 0..100 {
            for ms in [0, 100, 900] {
                assert!(!silence.failed(1, Lane::Heartbeat, after(start, second * 1000 + ms)));
            }
            assert!(!silence.answered(1, Lane::Heartbeat, after(start, second * 1000 + 950)));
        }
    }

    #[test]
    fn silence_is_said_after_a_second_once_in_a_while_and_so_is_its_end() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let every = |silence: &mut Silence, from: u64, to: u64| -> Vec<u64> {
            let calls = (from..to).step_by(100);
            calls.filter(|ms| silence.failed(1, Lane::Heartbeat, after(start, *ms))).collect()
        };
        assert_eq!(every(&mut silence, 0, 40_000), [1000, 31_000]);
        assert!(
            !silence.answered(1, Lane::Heartbeat, after(start, 40_000)),
            "the next may fail again"
        );
        assert!(silence.answered(1, Lane::Heartbeat, after(start, 42_000)));
        assert!(!silence.answered(1, Lane::Heartbeat, after(start, 42_100)), "that is known");
        assert_eq!(every(&mut silence, 43_000, 45_000), [44_000], "it is new again");
    }

    #[test]
    fn one_lane_may_be_silent_while_another_is_not() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let mut said = Vec::new();
        for ms in (0..3000).step_by(100) {
            assert!(!silence.answered(1, Lane::Heartbeat, after(start, ms)));
            if silence.failed(1, Lane::Append, after(start, ms)) {
                said.push(ms);
            }
        }
        assert_eq!(said, [1000]);
        assert!(!silence.failed(2, Lane::Append, after(start, 3000)), "each for himself");
    }
}
