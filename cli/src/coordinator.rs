//! `allhands coordinator`: arguments into a configuration, and a coordinator until somebody ends it.

use std::future::Future;

use allhands_common::net::identity::Identity;
use allhands_coordinator::Config;
use anyhow::Context;
use tokio::runtime::Builder;

use crate::args::Coordinator;
use crate::{output, place, shutdown};

pub(crate) fn run(command: &Coordinator) -> anyhow::Result<()> {
    command.tether.tie()?;
    let config = config(command)?;
    // One loop, one thread. A proposal passes through some twenty tasks that each do a few microseconds of
    // work: to hand them from thread to thread costs more than the work. What waits for a disk has threads
    // of its own.
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let shutdown = shutdown::on_signals()?;
        serve(config, shutdown).await
    })
}

fn config(command: &Coordinator) -> anyhow::Result<Config> {
    let identity = Identity::load(&command.identity).context("the identity cannot be used")?;
    let members = command
        .members
        .iter()
        .map(|(id, name)| Ok((*id, place::address(name)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(
        members.iter().any(|(id, _)| *id == command.id),
        "--members does not name coordinator {} itself",
        command.id
    );
    std::fs::create_dir_all(&command.dir)
        .with_context(|| format!("{} cannot be made", command.dir.display()))?;
    Ok(Config {
        id: command.id,
        identity,
        listen: command.listen,
        dir: command.dir.clone(),
        members,
        durability: command.durability.into(),
    })
}

async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let id = config.id;
    let coordinator = allhands_coordinator::run(config).await?;
    output::line(format_args!("coordinator {id} is ready at {}", coordinator.address()))?;
    tokio::select! {
        () = shutdown => {
            coordinator.stop().await;
            Ok(())
        }
        error = coordinator.stopped() => Err(error.into()),
    }
}
