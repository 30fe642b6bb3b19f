//! How often what breaks, drawn from the seed. Chances are per mille.

use super::rng::Rng;

/// Microseconds of a millisecond and of a second.
pub(super) const MS: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000_000;

/// What a seed's cluster has to bear.
#[derive(Debug, Clone)]
pub(super) struct Climate {
    /// When faults end and the liveness phase begins.
    pub(super) faults_end: u64,
    /// Longest delay of a message.
    pub(super) delay_max: u64,
    /// Longest time from proposal to commit.
    pub(super) commit_max: u64,
    /// Numbered messages of a worker's connection that vanish, come twice, or are overtaken.
    pub(super) lose: u32,
    pub(super) repeat: u32,
    pub(super) overtake: u32,
    /// Mean time between two faults of each kind; 0 = there are none.
    pub(super) every: [u64; FAULTS.len()],
    /// Chance that an executor dies before it is ready.
    pub(super) false_start: u32,
    /// Chance that tasks of a batch misbehave at all.
    pub(super) bad_tasks: u32,
}

/// What can go wrong besides messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A worker's process is killed and comes back later with a new boot id.
    WorkerCrash,
    /// A worker's process stands still for a while; its executors go on.
    WorkerPause,
    /// A worker's connection breaks; each side notices when it does.
    WorkerCut,
    /// A worker is told to stop; another comes in its place.
    WorkerDrain,
    /// Another coordinator becomes leader, with proposals in flight.
    LeaderChange,
    /// A client's connection breaks.
    ClientCut,
    /// A client is silent for longer than its lease, or for ever.
    ClientLeave,
    /// A follower is replaced by a leader's snapshot.
    Snapshot,
}

pub(super) const FAULTS: [Fault; 8] = [
    Fault::WorkerCrash,
    Fault::WorkerPause,
    Fault::WorkerCut,
    Fault::WorkerDrain,
    Fault::LeaderChange,
    Fault::ClientCut,
    Fault::ClientLeave,
    Fault::Snapshot,
];

impl Climate {
    pub(super) fn of(rng: &mut Rng) -> Self {
        // A quarter of the seeds are calm: what only holds without faults is checked there.
        let calm = rng.chance(250);
        let noisy = !calm && rng.chance(500);
        let mut every = [0; FAULTS.len()];
        for (fault, every) in FAULTS.iter().zip(&mut every) {
            let harmless = matches!(fault, Fault::Snapshot | Fault::ClientCut);
            if (harmless || !calm) && rng.chance(400) {
                *every = rng.skewed(300 * MS..8 * SECOND);
            }
        }
        Self {
            faults_end: rng.within(3 * SECOND..12 * SECOND),
            delay_max: rng.pick(&[MS, 5 * MS, 50 * MS, 200 * MS]),
            commit_max: rng.pick(&[MS, 5 * MS, 30 * MS, 150 * MS]),
            lose: if noisy { rng.within(0..100) as u32 } else { 0 },
            repeat: if noisy { rng.within(0..100) as u32 } else { 0 },
            overtake: if noisy { rng.within(0..100) as u32 } else { 0 },
            every,
            false_start: if calm { 0 } else { rng.pick(&[0, 0, 20, 100]) },
            bad_tasks: rng.pick(&[0, 300, 700]),
        }
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        FAULTS.iter().zip(self.every).any(|(kind, every)| *kind == fault && every > 0)
    }

    /// Whether workers, their links and the leader are left in peace.
    pub(super) fn is_calm(&self) -> bool {
        use Fault::{LeaderChange, WorkerCrash, WorkerCut, WorkerDrain, WorkerPause};
        let worse = [WorkerCrash, WorkerPause, WorkerCut, WorkerDrain, LeaderChange];
        !worse.iter().any(|fault| self.has(*fault)) && self.lose + self.repeat + self.overtake == 0
    }
}
