//! openraft's own suite for stores (44 cases), on our log store, state machine adapter and snapshots, on a real disk.
//! A core that remembers nothing but the last image stands in for the replicated state.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use allhands_coordinator::raft::config::Durability;
use allhands_coordinator::raft::core::{CORE_REQUESTS_MAX, CoreRequest, SnapshotImage};
use allhands_coordinator::raft::log::LogStore;
use allhands_coordinator::raft::machine::Machine;
use allhands_coordinator::raft::types::TypeConfig;
use allhands_coordinator::segments::Segments;
use bytes::Bytes;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::mpsc;

struct Builder {
    durability: Durability,
}

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { dir.path().join(name) };
        let log = LogStore::open(&at("log"), self.durability).unwrap();
        let segments = Segments::open(&at("segments"), self.durability, 1 << 20).unwrap();
        let (core, requests) = mpsc::channel(CORE_REQUESTS_MAX);
        tokio::spawn(forgetful_core(requests));
        let machine = Machine::open(core, segments, &at("snapshots"), self.durability).unwrap();
        Ok((dir, log, machine))
    }
}

async fn forgetful_core(mut requests: mpsc::Receiver<CoreRequest>) {
    let image = SnapshotImage { state: Bytes::from_static(b"state"), segments: Vec::new() };
    while let Some(request) = requests.recv().await {
        match request {
            CoreRequest::Apply { done, .. } | CoreRequest::Install { done, .. } => {
                done.send(()).ok();
            }
            CoreRequest::Snapshot { reply } => {
                reply.send(image.clone()).ok();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_passes_the_suite_of_openraft_synced() {
    let builder = Builder { durability: Durability::Disk };
    Suite::test_all(builder).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_passes_the_suite_of_openraft_unsynced() {
    Suite::test_all(Builder { durability: Durability::Process }).await.unwrap();
}
