//! Links on which others ask this node: accepted, read and written by a task for each connection.

use allhands_common::chain::chain;
use allhands_common::net::access::Purpose;
use allhands_common::net::connection::Connection;
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::handshake::{Applicant, Refusal, accept_link};
use allhands_common::net::link::{Link, LinkError, LinkReceiver, LinkSender};
use allhands_common::wire::data::{Answer, Ask};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::BUILD;
use super::shell::Input;
use super::traffic::Counter;
use crate::exchange::{Event, Peer, Ticket};

/// Answers that wait for one link, at most. Chunks are bounded by the exchange; news, redirects and refusals
/// come on top. Who reads so slowly that so many wait is not served any more.
pub(super) const ANSWERS_MAX: usize = 1024;

/// Links that one connection may ask on at a time: one, and the one that takes its place.
const LINKS_MAX: usize = 2;

/// An answer on its way out, and the request for a chunk that it settles.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) answer: Answer,
    pub(super) settles: Option<Ticket>,
}

/// Lets peers in until the endpoint is closed.
pub(super) async fn accept(endpoint: Endpoint, inputs: mpsc::Sender<Input>) {
    let mut arriving = JoinSet::new();
    loop {
        tokio::select! {
            next = endpoint.accept() => {
                let Some(next) = next else { return };
                arriving.spawn(next.establish());
            }
            Some(established) = arriving.join_next() => match established {
                Ok(Ok(connection)) => {
                    if inputs.send(Input::Connected(connection)).await.is_err() {
                        return;
                    }
                }
                Ok(Err(error)) => tracing::debug!(error = chain(&error), "a peer was not let in"),
                Err(panic) => tracing::error!(%panic, "a handshake ended in an unexpected way"),
            },
        }
    }
}

/// Serves every link that `peer` opens on a connection, until that ends.
pub(super) async fn connection(
    peer: Peer,
    connection: Connection,
    counter: Counter,
    inputs: mpsc::Sender<Input>,
) {
    let mut links = JoinSet::new();
    loop {
        match accept_link(&connection).await {
            Ok(Some(applicant)) => {
                while links.try_join_next().is_some() {}
                if applicant.hello().purpose != Purpose::Chunks || links.len() >= LINKS_MAX {
                    let error = applicant.refuse(Refusal::Busy).await;
                    tracing::debug!(error = chain(&error), "a link was not accepted");
                    continue;
                }
                let (counter, inputs) = (counter.clone(), inputs.clone());
                links.spawn(async move {
                    if let Err(error) = link(peer, applicant, &counter, &inputs).await {
                        tracing::debug!(error = chain(&*error), "a link of an asker has ended");
                    }
                });
            }
            Ok(None) => break,
            Err(error) if error.connection_is_gone() => break,
            Err(error) => tracing::debug!(error = chain(&error), "a link was not accepted"),
        }
    }
    drop(links);
    // A loop that has ended has no use for it.
    let _ = inputs.send(Input::Disconnected(peer)).await;
}

async fn link(
    peer: Peer,
    applicant: Applicant,
    counter: &Counter,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let link: Link<Answer, Ask> = applicant.welcome(BUILD).await?;
    let (sender, receiver) = link.split();
    let (answers, queue) = mpsc::channel(ANSWERS_MAX);
    // The queue is the link's name: no two are the same while either is held.
    let held = answers.clone();
    let ended = tokio::select! {
        ended = write(sender, queue, counter, inputs) => ended,
        ended = read(peer, receiver, answers, inputs) => ended,
    };
    // A loop that has ended has no use for it.
    let _ = inputs.send(Input::AskerEnded { peer, answers: held }).await;
    ended.map_err(Into::into)
}

async fn read(
    peer: Peer,
    mut receiver: LinkReceiver<Ask>,
    answers: mpsc::Sender<Outgoing>,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), LinkError> {
    while let Some(ask) = receiver.hear().await? {
        let answers = answers.clone();
        if inputs.send(Input::Asked { peer, ask, answers }).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn write(
    mut sender: LinkSender<Answer>,
    mut queue: mpsc::Receiver<Outgoing>,
    counter: &Counter,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), LinkError> {
    while let Some(Outgoing { answer, settles }) = queue.recv().await {
        counter.sent(&answer);
        sender.say(answer).await?;
        if queue.is_empty() || settles.is_some() {
            sender.flush().await?;
        }
        if let Some(ticket) = settles {
            let served = Input::Happened(Event::Served { ticket, found: true });
            if inputs.send(served).await.is_err() {
                break;
            }
        }
    }
    Ok(())
}
