//! What may be said about the embedded cluster.

use allhands_common::id::ClusterId;

use super::{Cluster, PATIENCE};
use crate::enter;
use crate::error::{Error, Result};
use crate::session::thread::{Source, random_id, start};

/// Says how an embedded cluster is to be; [`start`](Self::start) starts it.
#[derive(Debug, Clone, Default)]
#[must_use = "it does nothing until `start`"]
pub struct EmbeddedBuilder {
    slots: Option<u32>,
}

/// What an embedded cluster needs to know.
#[derive(Debug)]
#[cfg_attr(not(feature = "embedded"), expect(dead_code, reason = "nobody starts one"))]
pub(crate) struct EmbeddedConfig {
    /// Its name: 128 random bits.
    pub(crate) cluster: ClusterId,
    /// Tasks at once.
    pub(crate) slots: u32,
    /// Arguments with which this program becomes an executor: none, or those that make a test binary
    /// run just the test that enters.
    pub(crate) arguments: Vec<String>,
}

impl EmbeddedBuilder {
    /// How many tasks run at once; the default is the number of cores that this process may use.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = Some(slots.max(1));
        self
    }

    /// Starts it. Executors are started with the first call.
    ///
    /// # Errors
    /// It cannot be started, or `init()` was not called.
    pub fn start(self) -> Result<Cluster> {
        let arguments = enter::check()?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let slots = self.slots.unwrap_or_else(|| u32::try_from(cores()).unwrap_or(u32::MAX));
        let cluster = ClusterId(random_id().map_err(Error::thread)?);
        let config = EmbeddedConfig { cluster, slots, arguments };
        let running = start(Source::Embedded(config), PATIENCE)?;
        // It leads from the beginning; this waits for its first word, which says the slots.
        _ = running.session.wait_attached(PATIENCE);
        Ok(Cluster::of(running))
    }
}
