//! What workers are called, as the leader has told: people know a worker by its name, not by its number.

use std::collections::BTreeMap;

use allhands_common::id::WorkerId;

/// Workers whose names are remembered, also of those that have left: more than a cluster has. Of 64 bytes
/// each that is 10 MiB at most; whoever comes beyond is shown by number.
const WORKERS_MAX: usize = 1 << 16;

/// Names of workers.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    names: BTreeMap<WorkerId, String>,
    /// How many of them have a name.
    namesakes: BTreeMap<String, u32>,
}

impl Workers {
    /// These are called so from now on.
    pub(super) fn learn(&mut self, names: Vec<(WorkerId, String)>) {
        for (worker, name) in names {
            if self.names.get(&worker) == Some(&name) {
                continue;
            }
            if let Some(before) = self.names.remove(&worker)
                && let Some(count) = self.namesakes.get_mut(&before)
            {
                *count -= 1;
                if *count == 0 {
                    self.namesakes.remove(&before);
                }
            }
            if self.names.len() < WORKERS_MAX {
                *self.namesakes.entry(name.clone()).or_default() += 1;
                self.names.insert(worker, name);
            }
        }
    }

    /// What people call a worker: its name, and its number beside it where others had that name too.
    pub(crate) fn name(&self, worker: WorkerId) -> Option<String> {
        let name = self.names.get(&worker)?;
        Some(match self.namesakes.get(name) {
            Some(0 | 1) | None => name.clone(),
            Some(_) => format!("{name} ({worker})"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_two_workers_have_comes_with_the_number() {
        let mut workers = Workers::default();
        let name = |workers: &Workers, id| workers.name(WorkerId(id));
        assert_eq!(name(&workers, 1), None);
        workers.learn(vec![(WorkerId(1), "oak".into()), (WorkerId(2), "elm".into())]);
        assert_eq!(name(&workers, 1), Some("oak".into()));
        workers.learn(vec![(WorkerId(3), "oak".into()), (WorkerId(2), "elm".into())]);
        assert_eq!(name(&workers, 1), Some("oak (1)".into()));
        assert_eq!(name(&workers, 3), Some("oak (3)".into()));
        assert_eq!(name(&workers, 2), Some("elm".into()));
        workers.learn(vec![(WorkerId(3), "ash".into())]);
        assert_eq!(name(&workers, 1), Some("oak".into()));
        assert_eq!(name(&workers, 3), Some("ash".into()));
    }

    #[test]
    fn names_are_bounded() {
        let mut workers = Workers::default();
        let many = (0..WORKERS_MAX as u64 + 1).map(|id| (WorkerId(id), "oak".into()));
        workers.learn(many.collect());
        assert_eq!(workers.names.len(), WORKERS_MAX);
        assert_eq!(workers.name(WorkerId(WORKERS_MAX as u64)), None);
    }
}
