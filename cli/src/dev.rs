//! `allhands dev`: a whole cluster on this machine, every part a process of its own.
//!
//! [`home`] is what stays on disk from run to run, [`family`] the processes of this run. They end with
//! this process, however it ends; nothing that ends before is started again.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use allhands_common::id::CoordinatorId;
use allhands_common::net::identity::Identity;
use allhands_common::net::place::{self, ADMIN};
use allhands_common::wire::admin::{Answer, Question};
use anyhow::{Context, bail, ensure};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::args::Dev;
use crate::operator::Operator;
use crate::own::Own;
use crate::{output, shutdown};

mod family;
mod home;
mod ports;

use family::Family;
use home::Home;

/// How long the cluster may take until a leader is elected and the workers are registered.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at whether the workers are there.
const LOOK: Duration = Duration::from_millis(50);

/// The children are tied to the thread that starts them, so all of it runs on the main one.
pub(crate) fn run(command: &Dev, own: &Own) -> anyhow::Result<()> {
    command.tether.tie()?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let shutdown = shutdown::on_signals()?;
        let home = Home::open(command)?;
        let mut family = Family::new(own.clone())?;
        let served = serve(&home, &mut family, shutdown).await;
        family.end().await;
        home.leave();
        served
    })
}

async fn serve(
    home: &Home,
    family: &mut Family,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    for part in home.parts() {
        family.start(part)?;
    }
    home.publish(family)?;
    let mut shutdown = std::pin::pin!(shutdown);
    let leader = tokio::select! {
        () = &mut shutdown => return Ok(()),
        ready = ready(home, family) => ready?,
    };
    for member in family.members() {
        output::say(member);
    }
    output::say(format_args!(
        "ready: coordinator {leader} leads. In another terminal, for programs and for `allhands status`:"
    ));
    output::line(format_args!("export ALLHANDS_CLUSTER={}", quoted(home.dir())))?;
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            ended = family.next_end() => output::say(ended),
        }
    }
}

async fn ready(home: &Home, family: &mut Family) -> anyhow::Result<CoordinatorId> {
    let identity =
        Identity::load(&home.dir().join(ADMIN)).context("the identity cannot be used")?;
    let coordinators = place::resolve(&home.addresses().join(","))?;
    let operator = Operator::new(identity, coordinators, READY_DEADLINE)?;
    let names: BTreeSet<String> = home.worker_names().collect();
    let leader = tokio::select! {
        up = up(&operator, &names) => {
            up.with_context(|| format!("the cluster is not ready; see {}", home.logs().display()))?
        }
        ended = family.next_end() => bail!("{ended}\n{}", ended.last_words()),
    };
    operator.close().await;
    Ok(leader)
}

/// Waits for a leader that knows all `workers`.
async fn up(operator: &Operator, workers: &BTreeSet<String>) -> anyhow::Result<CoordinatorId> {
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        if let Answer::Status(status) = operator.ask(&Question::Status).await? {
            let there = status.workers.into_iter().filter(|worker| worker.present);
            let there: BTreeSet<String> = there.map(|worker| worker.name).collect();
            let missing: Vec<&str> = workers.difference(&there).map(String::as_str).collect();
            if missing.is_empty() {
                return Ok(status.leader);
            }
            ensure!(
                Instant::now() < deadline,
                "coordinator {} leads, and after {} s it has not heard of {}",
                status.leader,
                READY_DEADLINE.as_secs(),
                missing.join(" and ")
            );
        }
        sleep(LOOK).await;
    }
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// A word as a shell reads it.
fn quote(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:=,@+".contains(letter);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_is_quoted() {
        assert_eq!(quote("/tmp/a-b_1"), "/tmp/a-b_1");
        assert_eq!(quote("/tmp/a b"), "'/tmp/a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
