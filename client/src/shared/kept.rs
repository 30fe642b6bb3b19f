//! Maps that an executor keeps for tasks that may follow. Those that were used least recently go first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::whole::Whole;

/// How many: each holds an open file.
const MAPS_MAX: usize = 128;

/// How long they are together, in bytes: what a store has let go of keeps its place on the disk as long as a map.
const BYTES_MAX: u64 = 8 << 30;

static KEPT: Mutex<Vec<Arc<Whole>>> = Mutex::new(Vec::new());

/// When a map was used last, in uses of all of them.
#[derive(Debug, Default)]
pub(super) struct Used(AtomicU64);

impl Used {
    pub(super) fn now(&self) {
        static USES: AtomicU64 = AtomicU64::new(1);
        self.0.store(USES.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn at(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps `whole`, and lets go of others for it if need be.
pub(super) fn keep(whole: &Arc<Whole>) {
    let mut gone = Vec::new();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    while !kept.is_empty() && (kept.len() >= MAPS_MAX || bytes(&kept) + whole.len() > BYTES_MAX) {
        let oldest = (0..kept.len()).min_by_key(|at| kept[*at].used().at()).unwrap_or(0);
        gone.push(kept.swap_remove(oldest));
    }
    kept.push(Arc::clone(whole));
    drop(kept);
    drop(gone);
}

fn bytes(kept: &[Arc<Whole>]) -> u64 {
    kept.iter().map(|whole| whole.len()).sum()
}
