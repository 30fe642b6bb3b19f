//! `allhands worker`: arguments into a configuration, and a worker until it has drained.

use crate::args::Worker;

pub(crate) fn run(command: &Worker) -> anyhow::Result<()> {
    command.tether.tie()?;
    anyhow::bail!("not yet")
}
