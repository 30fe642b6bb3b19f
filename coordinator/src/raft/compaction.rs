//! Keeps the log short: takes a snapshot after so much log, then purges what lies far enough behind it; moves live
//! segments out of mostly dead files. All soft: whatever was not done before a crash is done after it.

use std::io;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::config::Compaction;
use super::log::LogStore;
use super::machine::Machine;
use super::types::TypeConfig;
use crate::segments::Segments;

type Raft = openraft::Raft<TypeConfig, Machine>;

/// How often the sizes are looked at: at 1 GiB/s of log, a snapshot is late by a fifth of its distance.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Compactor {
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) segments: Segments,
    pub(crate) bounds: Compaction,
}

impl Compactor {
    /// Runs until openraft stops.
    pub(crate) async fn run(self) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What was asked for last: openraft is asked once for each.
        let (mut asked, mut purged) = (None, None);
        // A file that cannot be rewritten stays as it is until the next start.
        let mut rewriting = true;
        loop {
            tick.tick().await;
            let done = self.look(&mut asked, &mut purged).await;
            if let Err(error) = done {
                tracing::info!(%error, "compaction ends");
                return;
            }
            if rewriting && self.segments.wants_rewrite() {
                rewriting = self.rewrite().await;
            }
        }
    }

    async fn look(&self, asked: &mut Option<u64>, purged: &mut Option<u64>) -> io::Result<()> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        metrics.running_state.map_err(io::Error::other)?;
        let snapshot = metrics.snapshot.map(|id| id.index);
        if *asked <= snapshot {
            *asked = None;
        }
        let Some(applied) = metrics.last_applied.map(|id| id.index) else {
            return Ok(());
        };
        let entries = applied.saturating_sub(snapshot.unwrap_or(0));
        let bytes = self.log.bytes_between(snapshot, applied)?;
        let due =
            bytes >= self.bounds.snapshot_log_bytes || entries >= self.bounds.snapshot_log_entries;
        if due && asked.is_none() && Some(applied) > snapshot {
            *asked = Some(applied);
            self.raft.trigger().snapshot().await.map_err(io::Error::other)?;
        }
        if let Some(snapshot) = snapshot
            && let Some(upto) = self.log.purgeable(snapshot, self.bounds.kept_log_bytes_max)?
            && Some(upto) > *purged
        {
            *purged = Some(upto);
            self.raft.trigger().purge_log(upto).await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Whether it is worth going on.
    async fn rewrite(&self) -> bool {
        let segments = self.segments.clone();
        let done = spawn_blocking(move || segments.rewrite().and_then(|()| segments.sync())).await;
        match done {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "segments are not moved any more"
                );
                false
            }
            Err(_) => false,
        }
    }
}
