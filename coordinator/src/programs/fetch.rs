//! Getting a program from another coordinator, where its client has gone.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use allhands_common::chain::chain;
use allhands_common::program::ProgramId;
use tokio::task::spawn_blocking;

use super::store;
use crate::peers::QuicPeers;
use crate::raft::types::NodeId;

/// The other coordinators of a cluster.
#[derive(Debug)]
pub(crate) struct Others {
    peers: Arc<QuicPeers>,
    nodes: Vec<NodeId>,
}

impl Others {
    pub(crate) const fn new(peers: Arc<QuicPeers>, nodes: Vec<NodeId>) -> Self {
        Self { peers, nodes }
    }

    /// Gets a program from the first that has it, by way of the file `part`; how long it is, or `None` if nobody has it
    /// who answers.
    ///
    /// # Errors
    /// It cannot be stored.
    pub(super) async fn fetch(&self, id: ProgramId, part: PathBuf) -> io::Result<Option<u64>> {
        for node in &self.nodes {
            if let Some(bytes) = self.fetch_from(*node, id, part.clone()).await? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    async fn fetch_from(
        &self,
        node: NodeId,
        id: ProgramId,
        part: PathBuf,
    ) -> io::Result<Option<u64>> {
        let place = part.clone();
        let mut file = blocking(move || File::create(&place)).await?;
        let (mut hasher, mut have) = (blake3::Hasher::new(), 0);
        loop {
            let chunk = match self.peers.program(node, id, have).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(None),
                Err(error) => {
                    let cause = chain(&error);
                    tracing::warn!(coordinator = node, program = %id, cause, "a program does not come");
                    return Ok(None);
                }
            };
            if chunk.is_empty() {
                break;
            }
            hasher.update(&chunk);
            have += chunk.len() as u64;
            file = blocking(move || {
                file.write_all(&chunk)?;
                Ok(file)
            })
            .await?;
        }
        if *hasher.finalize().as_bytes() != id.0 {
            tracing::warn!(coordinator = node, program = %id, "a program came damaged");
            return Ok(None);
        }
        blocking(move || store::seal(&file, &part)).await?;
        Ok(Some(have))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    // It does not panic, and is not aborted.
    spawn_blocking(work).await.map_err(io::Error::other)?
}
