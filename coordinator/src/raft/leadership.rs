//! Who leads, for everybody in the process who has to know: the core loop, the sessions that push it to workers and
//! clients, the operator. Soft: derived from openraft's metrics, gone with the process.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use openraft::{Instant as _, ServerState};

use super::config::{ELECTION_MS, HEARTBEAT_MS};
use super::machine::Machine;
use super::types::{LeaderId, TypeConfig};

type Raft = openraft::Raft<TypeConfig, Machine>;

/// Who leads, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// The leader and its term: the fence for proposals. `None` during an election.
    pub leader: Option<LeaderId>,
    /// This node leads and has heard a quorum within an election timeout. Without a quorum a leader says that it is
    /// none; hearing it again within its term makes it one again.
    pub am_leader: bool,
}

impl Leadership {
    pub(crate) const NONE: Self = Self { leader: None, am_leader: false };
}

/// What openraft knows now, and whether it leads and only has to hear its quorum.
fn now(raft: &Raft) -> (Leadership, bool) {
    // In this order: openraft publishes in the other one.
    let server = raft.server_metrics().borrow_watched().clone();
    let acked = raft.data_metrics().borrow_watched().last_quorum_acked;
    // A committed vote is a leader that a quorum has elected.
    let elected = server.vote.committed && server.current_leader.is_some();
    let leader = elected.then_some(server.vote.leader_id);
    let leads = server.state == ServerState::Leader && leader.is_some();
    // A lone voter is its own quorum, and sends no heartbeat whose answer would say so.
    let alone = server.membership_config.membership().voter_ids().eq([server.id]);
    let heard =
        alone || acked.is_some_and(|at| at.elapsed() < Duration::from_millis(ELECTION_MS.1));
    (Leadership { leader, am_leader: leads && heard }, leads && !heard)
}

/// Keeps `leadership` true until openraft stops.
pub(crate) async fn follow(raft: Raft, leadership: watch::Sender<Leadership>) {
    // Not `metrics`, which are published, changed or not, at each turn of openraft's loop.
    let (mut server, mut data) = (raft.server_metrics(), raft.data_metrics());
    // A quorum that falls silent changes no metric.
    let mut tick = interval(Duration::from_millis(HEARTBEAT_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while raft.metrics().borrow_watched().running_state.is_ok() {
        let (seen, awaits_quorum) = now(&raft);
        leadership.send_if_modified(|known| std::mem::replace(known, seen) != seen);
        tokio::select! {
            changed = server.changed() => if changed.is_err() { break },
            changed = data.changed(), if awaits_quorum => if changed.is_err() { break },
            _ = tick.tick() => {}
        }
    }
    leadership.send_replace(Leadership::NONE);
}
