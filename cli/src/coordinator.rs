//! `allhands coordinator`: arguments into a configuration, and a coordinator until somebody ends it.
//!
//! Two lines go to standard output: that it serves, and, once that is known for certain, whom it follows.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use allhands_common::id::CoordinatorId;
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::identity::Identity;
use allhands_common::net::place;
use allhands_coordinator::raft::leadership::Leadership;
use allhands_coordinator::{Config, Coordinator as Running};
use anyhow::{Context, ensure};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::args::Coordinator;
use crate::directory::{self, PRIVATE};
use crate::{operator, output, shutdown};

/// Longer than an election, and than it takes to notice that a leader is gone: what was true for so long
/// is not left over from before a restart.
const SETTLED: Duration = Duration::from_secs(2);

/// How long another coordinator may take to show that it is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

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
    check(&command.members)?;
    let identity = Identity::load(&command.identity).context("the identity cannot be used")?;
    let members = command
        .members
        .iter()
        .map(|(id, name)| Ok((*id, address(name, command.listen)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(
        members.iter().any(|(id, _)| *id == command.id),
        "--members does not name coordinator {} itself",
        command.id
    );
    directory::make(&command.dir, PRIVATE)?;
    // Also where the directory was there before, and is anybody's to read.
    for inner in ["raft", "segments", "programs"] {
        directory::make(&command.dir.join(inner), PRIVATE)?;
    }
    Ok(Config {
        id: command.id,
        identity,
        listen: command.listen,
        dir: command.dir.clone(),
        members,
        durability: command.durability.into(),
    })
}

/// Whether these can be the coordinators of a cluster.
fn check(members: &[(CoordinatorId, String)]) -> anyhow::Result<()> {
    let ids: BTreeSet<_> = members.iter().map(|(id, _)| id).collect();
    let places: BTreeSet<_> = members.iter().map(|(_, place)| place).collect();
    ensure!(ids.len() == members.len(), "--members names a coordinator twice");
    ensure!(places.len() == members.len(), "--members names an address twice");
    let count = members.len();
    ensure!(
        matches!(count, 1 | 3 | 5),
        "--members names {count} coordinators: a cluster has 1, 3 or 5"
    );
    Ok(())
}

/// What `name` means to somebody who listens on `listen`, and dials from there.
fn address(name: &str, listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    let places = place::resolve(name)?;
    let found = places.iter().find_map(|place| place.reached_from(listen.ip()));
    found.with_context(|| format!("{name} has no address that can be reached from {listen}"))
}

async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let coordinator = allhands_coordinator::run(config.clone()).await?;
    let announced = async {
        check_members(&config, &coordinator).await?;
        let address = coordinator.address();
        output::line(format_args!("coordinator {} is ready at {address}", config.id))?;
        announce(&config, &coordinator).await?;
        std::future::pending::<anyhow::Result<()>>().await
    };
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        error = coordinator.stopped() => return Err(error.into()),
        failed = announced => failed,
    };
    coordinator.stop().await;
    ended
}

/// Compares `--members` with what the log says, which alone decides who the coordinators are.
async fn check_members(config: &Config, coordinator: &Running) -> anyhow::Result<()> {
    let known = coordinator.members().await?;
    let given: Vec<_> = config.members.iter().map(|(id, at)| (*id, vec![*at])).collect();
    let ids = |members: &[(CoordinatorId, Vec<SocketAddr>)]| -> BTreeSet<CoordinatorId> {
        members.iter().map(|(id, _)| *id).collect()
    };
    ensure!(
        ids(&known) == ids(&given),
        "--members is {}, but the cluster of {} has {}: --members makes a cluster, once, and does not \
         change it",
        Members(&given),
        config.dir.display(),
        Members(&known)
    );
    if !given.iter().all(|member| known.contains(member)) {
        tracing::warn!(
            "--members is {}, the cluster was made with {}: the addresses of --members are dialled",
            Members(&given),
            Members(&known)
        );
    }
    Ok(())
}

struct Members<'a>(&'a [(CoordinatorId, Vec<SocketAddr>)]);

impl Display for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (id, addresses)) in self.0.iter().enumerate() {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{id}={}", addresses.join("|"))?;
        }
        Ok(())
    }
}

/// Says who leads, once that has settled; before, once, that nobody does.
async fn announce(config: &Config, coordinator: &Running) -> anyhow::Result<()> {
    let own = config.id;
    let mut leadership = coordinator.leadership();
    let mut waits = false;
    loop {
        let Leadership { leader, am_leader } = *leadership.borrow_and_update();
        // Who has heard a majority leads. All else may be out of date.
        if !am_leader && let Ok(changed) = timeout(SETTLED, leadership.changed()).await {
            changed.context("the coordinator has ended")?;
            continue;
        }
        match leader.map(|leader| CoordinatorId(leader.node_id)) {
            Some(_) if am_leader => return output::line(format_args!("coordinator {own} leads")),
            Some(leader) if leader != own => {
                return output::line(format_args!(
                    "coordinator {own} follows coordinator {leader}"
                ));
            }
            Some(_) | None if !waits => {
                waits = true;
                let (answer, all) = (answering(config).await?, config.members.len());
                output::line(format_args!(
                    "coordinator {own} is waiting for a majority: {answer} of {all} answer"
                ))?;
            }
            Some(_) | None => leadership.changed().await.context("the coordinator has ended")?,
        }
    }
}

/// How many coordinators answer, this one included.
async fn answering(config: &Config) -> anyhow::Result<usize> {
    let any = SocketAddr::new(config.listen.ip(), 0);
    let endpoint = Endpoint::bind(config.identity.clone(), any)?;
    let mut looking = JoinSet::new();
    for (_, address) in config.members.iter().filter(|(id, _)| *id != config.id) {
        let (endpoint, address) = (endpoint.clone(), *address);
        looking.spawn(async move { operator::reaches(&endpoint, &[address], SIGN_OF_LIFE).await });
    }
    Ok(1 + looking.join_all().await.into_iter().filter(|answers| *answers).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_an_odd_number_of_coordinators_and_each_once() {
        let members = |given: &[(u64, &str)]| -> Vec<(CoordinatorId, String)> {
            given.iter().map(|(id, at)| (CoordinatorId(*id), (*at).to_owned())).collect()
        };
        check(&members(&[(1, "a:1"), (2, "b:1"), (3, "c:1")])).unwrap();
        for (wrong, why) in [
            (vec![(1, "a:1"), (2, "b:1")], "2 coordinators"),
            (vec![(1, "a:1"), (1, "b:1"), (3, "c:1")], "a coordinator twice"),
            (vec![(1, "a:1"), (2, "a:1"), (3, "c:1")], "an address twice"),
        ] {
            let error = check(&members(&wrong)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
