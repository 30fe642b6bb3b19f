//! From links to the loop and back: a reader and a writer each, so that the loop waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use allhands_common::bulk::Carries;
use allhands_common::chain::chain;
use allhands_common::frame::Message;
use allhands_common::net::access::Purpose;
use allhands_common::net::connection::Connection;
use allhands_common::net::dial::{self, Down, Event};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::handshake::{Applicant, accept_link};
use allhands_common::net::link::Link;
use allhands_common::wire::admin::{Answer, Question};
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::worker::{FromWorker, ToWorker};
use tokio::sync::{mpsc, oneshot};

use crate::peers::{Desk, PeerFrame, PeerFrameBack};
use crate::seats::SeatId;
use crate::shell::News;

/// Release of this coordinator, for the other side's log.
pub(crate) const BUILD: &str = concat!("allhands ", env!("CARGO_PKG_VERSION"));

/// The way in: hands links to the loop.
#[derive(Debug, Clone)]
pub struct Entrance {
    news: mpsc::Sender<News>,
    seats: Arc<AtomicU64>,
}

impl Entrance {
    pub(crate) fn new(news: mpsc::Sender<News>) -> Self {
        Self { news, seats: Arc::default() }
    }

    /// Serves a client until its link ends.
    pub async fn client(self, owner: String, link: Link<ToClient, FromClient>) {
        let news = |seat, event| match event {
            Event::Up { out, .. } => News::ClientUp { seat, owner: owner.clone(), out },
            Event::Said(message) => News::Client { seat, message },
            Event::Down(_) => News::Down { seat },
        };
        self.serve_seat(link, news).await;
    }

    /// Serves a worker of this process until its link ends.
    pub async fn worker(self, link: Link<ToWorker, FromWorker>) {
        self.worker_of("", link).await;
    }

    /// Serves the worker of this name until its link ends.
    async fn worker_of(self, node: &str, link: Link<ToWorker, FromWorker>) {
        let news = |seat, event| match event {
            Event::Up { out, .. } => News::WorkerUp { seat, node: node.to_owned(), out },
            Event::Said(message) => News::Worker { seat, message },
            Event::Down(_) => News::Down { seat },
        };
        self.serve_seat(link, news).await;
    }

    async fn serve_seat<Out: Message + Carries, In: Message + Carries>(
        &self,
        link: Link<Out, In>,
        news: impl Fn(SeatId, Event<Out, In>) -> News,
    ) {
        let seat = SeatId(self.seats.fetch_add(1, Ordering::Relaxed));
        let tell = |event| {
            let news = news(seat, event);
            async { self.news.send(news).await.is_ok() }
        };
        let down = match dial::serve(link, None, tell).await {
            Some(down) => down,
            // The loop has let the seat go.
            None => Down::Ended,
        };
        match &down {
            Down::Lost(error) if !error.retry_can_help() => {
                tracing::warn!(
                    cause = chain(&down),
                    "a link ended: what the other side says cannot be read"
                );
            }
            _ => tracing::debug!(cause = chain(&down), "a link ended"),
        }
        // The loop is gone when this fails, and with it the seat.
        tell(Event::Down(down)).await;
    }

    /// Answers an operator until its link ends.
    async fn admin(self, name: String, link: Link<Answer, Question>) {
        let (mut sender, mut receiver) = link.split();
        while let Ok(Some(question)) = receiver.hear().await {
            let (answer, reply) = oneshot::channel();
            let name = name.clone();
            if self.news.send(News::Ask { name, question, answer }).await.is_err() {
                return;
            }
            let Ok(answer) = reply.await else { return };
            if sender.say(answer).await.is_err() || sender.flush().await.is_err() {
                return;
            }
        }
    }

    /// Takes connections, and on them links, until the endpoint is closed.
    pub(crate) async fn serve(self, endpoint: Endpoint, desk: Desk) {
        while let Some(arriving) = endpoint.accept().await {
            let (entrance, desk) = (self.clone(), desk.clone());
            tokio::spawn(async move {
                match arriving.establish().await {
                    Ok(connection) => entrance.serve_connection(connection, desk).await,
                    Err(error) => tracing::info!(error = chain(&error), "a newcomer was refused"),
                }
            });
        }
    }

    async fn serve_connection(self, connection: Connection, desk: Desk) {
        loop {
            match accept_link(&connection).await {
                Ok(Some(applicant)) => {
                    let (entrance, desk) = (self.clone(), desk.clone());
                    tokio::spawn(entrance.serve_link(applicant, desk));
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::info!(error = chain(&error), "a link was refused");
                    if error.connection_is_gone() {
                        return;
                    }
                }
            }
        }
    }

    async fn serve_link(self, applicant: Applicant, desk: Desk) {
        let peer = applicant.connection().peer().clone();
        let served = match applicant.hello().purpose {
            Purpose::Client => match applicant.welcome(BUILD).await {
                Ok(link) => {
                    self.client(peer.name, link).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Purpose::Worker => match applicant.welcome(BUILD).await {
                Ok(link) => {
                    self.worker_of(&peer.name, link).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Purpose::Admin => match applicant.welcome(BUILD).await {
                Ok(link) => {
                    self.admin(peer.name, link).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Purpose::Peer => match applicant.welcome::<PeerFrameBack, PeerFrame>(BUILD).await {
                Ok(link) => {
                    desk.answer(link, &peer.name).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Purpose::Chunks => {
                let refusal = allhands_common::net::handshake::Refusal::Busy;
                Err(applicant.refuse(refusal).await)
            }
        };
        if let Err(error) = served {
            tracing::info!(error = chain(&error), "a link was not opened");
        }
    }
}
