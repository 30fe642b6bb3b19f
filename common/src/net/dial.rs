//! Links to coordinators, dialled again and again, and any link served by a reader and a writer.
//!
//! Whoever uses a link is told what happens on it, and puts what it says into a channel, so that its loop
//! never waits for a peer: two ends that both wait to be read would wait for ever. What may pile up before
//! the writer is the user's to bound.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::access::{Purpose, Role};
use super::complaint::Complaint;
use super::connection::Connection;
use super::endpoint::{ConnectError, Endpoint, Expected};
use super::handshake::{OpenError, open_link};
use super::link::{Link, LinkError, LinkSender};
use super::place::Place;
use crate::bulk::Carries;
use crate::chain::chain;
use crate::frame::Message;
use crate::id::CoordinatorId;

/// How long one attempt to connect may take; a live coordinator takes a few milliseconds.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Waits between attempts: short at first, for a coordinator that is just starting.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a link may take to send its last words.
const FINISH_DEADLINE: Duration = Duration::from_millis(500);

/// What happens on a link.
#[derive(Debug)]
pub enum Event<Out, In> {
    /// It stands; what is put into `out` is sent.
    Up {
        /// Whom it was dialled to, if his certificate says it.
        coordinator: Option<CoordinatorId>,
        out: UnboundedSender<Out>,
    },
    /// A message has come.
    Said(In),
    /// There is none, or no longer.
    Down(Down),
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum Down {
    #[error("the other side ended the link: it is shutting down, or no longer leads")]
    Ended,
    #[error(transparent)]
    Lost(#[from] LinkError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Down {
    /// Whether a link to the same place may come to stand without anybody's doing.
    pub const fn retry_can_help(&self) -> bool {
        match self {
            // It stood before.
            Self::Ended | Self::Lost(_) => true,
            Self::Connect(error) => error.retry_can_help(),
            Self::Open(error) => error.retry_can_help(),
        }
    }
}

/// Dials one coordinator.
#[derive(Clone, Debug)]
pub struct Dialler {
    pub endpoint: Endpoint,
    pub place: Place,
    pub purpose: Purpose,
    /// Release of this process, for the other side's log.
    pub build: &'static str,
}

impl Dialler {
    /// One attempt. `Out` and `In` must be the messages of the purpose.
    ///
    /// # Errors
    /// Nobody answers in time, or somebody else, or the link is refused.
    pub async fn dial<Out: Message, In: Message>(
        &self,
    ) -> Result<(Link<Out, In>, Connection), Down> {
        let connection = connect(&self.endpoint, &self.place.addresses, CONNECT_DEADLINE).await?;
        let (link, _) = open_link(&connection, self.purpose, self.build).await?;
        Ok((link, connection))
    }

    /// Keeps a link for as long as somebody listens: `tell` says whether. Logs that there is none when
    /// that is new, see [`Complaint`], and when there is one again.
    pub async fn keep<Out, In, Told>(&self, tell: impl Fn(Event<Out, In>) -> Told)
    where
        Out: Message + Carries,
        In: Message + Carries,
        Told: Future<Output = bool>,
    {
        let name = &self.place.name;
        let mut complaint = Complaint::default();
        let mut pause = RETRY.0;
        loop {
            let down = match self.dial().await {
                Ok((link, connection)) => {
                    let coordinator = coordinator_of(&connection.peer().name);
                    drop(connection);
                    if complaint.settle() {
                        tracing::info!(coordinator = name, "a link stands again");
                    }
                    pause = RETRY.0;
                    match serve(link, coordinator, &tell).await {
                        Some(down) => down,
                        None => return,
                    }
                }
                Err(down) => down,
            };
            let cause = chain(&down);
            // A leader that lays its office down ends its links, and takes new ones at once.
            if !matches!(down, Down::Ended) && complaint.is_due(&cause, Instant::now()) {
                tracing::warn!(coordinator = name, cause, "no link");
            } else {
                tracing::debug!(coordinator = name, cause, "no link");
            }
            if !tell(Event::Down(down)).await {
                return;
            }
            sleep(pause).await;
            pause = (2 * pause).min(RETRY.1);
        }
    }
}

/// Connects to the coordinator at one of `addresses`, all of them dialled at once.
///
/// # Errors
/// Nobody answers in time, or somebody else. Who answers and is not wanted says more than who is silent.
pub async fn connect(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    deadline: Duration,
) -> Result<Connection, ConnectError> {
    let mut dialling = JoinSet::new();
    for address in addresses.iter().copied() {
        let endpoint = endpoint.clone();
        dialling.spawn(async move {
            let expected = Expected { role: Role::Coordinator, name: None };
            endpoint.connect(address, expected, deadline).await
        });
    }
    let weight = |error: &ConnectError| match error {
        // This machine cannot even try.
        ConnectError::Invalid { .. } => 0,
        error if error.retry_can_help() => 1,
        _ => 2,
    };
    let mut failed: Option<ConnectError> = None;
    while let Some(dialled) = dialling.join_next().await {
        // An attempt that panicked is one that has failed.
        let Ok(dialled) = dialled else { continue };
        match dialled {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                let heavier = |known: &ConnectError| weight(&error) > weight(known);
                if failed.as_ref().is_none_or(heavier) {
                    failed = Some(error);
                }
            }
        }
    }
    Err(failed.unwrap_or(ConnectError::Nowhere))
}

/// Reads and writes until the link has ended, and says why; `None` once nobody listens, and nothing can be
/// put in, any more: who stops to listen also drops what he puts into.
pub async fn serve<Out, In, Told>(
    link: Link<Out, In>,
    coordinator: Option<CoordinatorId>,
    tell: impl Fn(Event<Out, In>) -> Told,
) -> Option<Down>
where
    Out: Message + Carries,
    In: Message + Carries,
    Told: Future<Output = bool>,
{
    let (sender, mut receiver) = link.split();
    let (out, outgoing) = unbounded_channel();
    if !tell(Event::Up { coordinator, out }).await {
        return None;
    }
    let reading = async {
        loop {
            match receiver.hear().await {
                Ok(Some(message)) => {
                    if !tell(Event::Said(message)).await {
                        // What was put in before is still sent.
                        pending::<()>().await;
                    }
                }
                Ok(None) => return Some(Down::Ended),
                Err(error) => return Some(error.into()),
            }
        }
    };
    tokio::select! {
        ended = reading => ended,
        written = write(sender, outgoing) => written.err().map(Down::Lost),
    }
}

/// Sends what is put in, many messages to a flush, until nothing can be put in any more.
async fn write<Out: Message + Carries>(
    mut sender: LinkSender<Out>,
    mut outgoing: UnboundedReceiver<Out>,
) -> Result<(), LinkError> {
    while let Some(message) = outgoing.recv().await {
        sender.say(message).await?;
        while let Ok(message) = outgoing.try_recv() {
            sender.say(message).await?;
        }
        sender.flush().await?;
    }
    // A peer that does not read must not keep us.
    timeout(FINISH_DEADLINE, sender.finish()).await.unwrap_or(Ok(()))
}

/// The coordinator's id, in which its certificate's name ends: `coordinator-2`, or `2`.
fn coordinator_of(name: &str) -> Option<CoordinatorId> {
    let digits = name.rsplit(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinators_name_ends_in_its_id() {
        assert_eq!(coordinator_of("coordinator-12"), Some(CoordinatorId(12)));
        assert_eq!(coordinator_of("3"), Some(CoordinatorId(3)));
        assert_eq!(coordinator_of("main"), None);
    }
}
