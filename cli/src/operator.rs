//! Asks a cluster: all its coordinators at once, again and again, until the leader answers.
//!
//! Only the leader answers; the others say who leads. To ask all of them costs three packets and waits
//! for nobody who is dead. Every order that can be given is the same given twice.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use allhands_common::chain::chain;
use allhands_common::id::{ClusterId, CoordinatorId};
use allhands_common::net::access::Purpose;
use allhands_common::net::cause::CloseCode;
use allhands_common::net::dial::{self, Dialler, Down};
use allhands_common::net::endpoint::{BindError, ConnectError, Endpoint};
use allhands_common::net::identity::Identity;
use allhands_common::net::link::Link;
use allhands_common::net::place::Place;
use allhands_common::wire::admin::{Answer, Question};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

const BUILD: &str = concat!("allhands ", env!("CARGO_PKG_VERSION"));

/// How long a coordinator may take to answer once it has the question.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(50);

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(100);

/// Whoever may ask.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    endpoint: Endpoint,
    coordinators: Vec<Place>,
    patience: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("no coordinator answered as the leader{}{tried}", Waited(*waited))]
    NoLeader { waited: Duration, tried: Tried },
    #[error("{what}")]
    Unknown { what: String },
    #[error("the leader gave an answer to another question; run the same release on both sides")]
    Unexpected,
}

/// What was tried, and what became of it: one line each.
#[derive(Debug, Default)]
pub(crate) struct Tried(BTreeMap<String, String>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, cause)| write!(f, "\n  {name}: {cause}"))
    }
}

struct Waited(Duration);

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " within {:.1} s:", self.0.as_secs_f64())
    }
}

/// Why one coordinator gave no answer.
#[derive(Debug, thiserror::Error)]
enum OneError {
    #[error(transparent)]
    Down(#[from] Down),
    #[error("it did not answer in time")]
    Silent,
    #[error("it does not lead{}", Leads(*leader))]
    Follows { leader: Option<CoordinatorId> },
}

struct Leads(Option<CoordinatorId>);

impl fmt::Display for Leads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => {
                write!(f, ": coordinator {id} does, as far as it knows; is its address given?")
            }
            None => f.write_str(" and knows no leader: is a majority of the coordinators running?"),
        }
    }
}

impl OneError {
    /// The error with its causes, in one line that need not name the address.
    fn text(&self) -> String {
        match self {
            Self::Down(Down::Connect(ConnectError::Failed { source, .. })) => source.to_string(),
            error => chain(error),
        }
    }

    const fn retry_can_help(&self) -> bool {
        match self {
            Self::Down(error) => error.retry_can_help(),
            Self::Silent | Self::Follows { .. } => true,
        }
    }
}

impl Operator {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(
        identity: Identity,
        coordinators: Vec<Place>,
        patience: Duration,
    ) -> Result<Self, BindError> {
        let endpoint = Endpoint::bind_to_dial(identity, &coordinators)?;
        Ok(Self { endpoint, coordinators, patience })
    }

    /// Tells the coordinators that all is said, so that they need not find out.
    pub(crate) async fn close(&self) {
        // Who is dead cannot be told.
        let _ = timeout(FAREWELL, self.endpoint.close("all is said")).await;
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.endpoint.identity().own().cluster
    }

    /// The leader's answer. One that says that there is no such thing is an error.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Answer, AskError> {
        let start = Instant::now();
        let deadline = start + self.patience;
        let mut tried = Tried::default();
        loop {
            let mut hopeless = true;
            let mut asking = JoinSet::new();
            for place in &self.coordinators {
                let (endpoint, place) = (self.endpoint.clone(), place.clone());
                let (name, question) = (place.name.clone(), question.clone());
                asking.spawn(async move { (name, ask_one(endpoint, place, question).await) });
            }
            while let Ok(Some(Ok((name, answer)))) = timeout_at(deadline, asking.join_next()).await
            {
                match answer {
                    Ok(Answer::Unknown(what)) => return Err(AskError::Unknown { what }),
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        hopeless &= !error.retry_can_help();
                        tried.0.insert(name, error.text());
                    }
                }
            }
            if !asking.is_empty() {
                for place in &self.coordinators {
                    let late = || "nothing answers".into();
                    tried.0.entry(place.name.clone()).or_insert_with(late);
                }
            }
            if hopeless && asking.is_empty() || Instant::now() + PAUSE >= deadline {
                return Err(AskError::NoLeader { waited: start.elapsed(), tried });
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether a coordinator of the cluster answers at `address`.
    pub(crate) async fn reaches(&self, address: SocketAddr, within: Duration) -> bool {
        reaches(&self.endpoint, &[address], within).await
    }
}

/// Whether a coordinator of the cluster answers at one of `addresses`.
pub(crate) async fn reaches(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    within: Duration,
) -> bool {
    let connected = dial::connect(endpoint, addresses, within).await;
    connected.map(|connection| connection.close(CloseCode::Done, "")).is_ok()
}

async fn ask_one(endpoint: Endpoint, place: Place, question: Question) -> Result<Answer, OneError> {
    let dialler = Dialler { endpoint, place, purpose: Purpose::Admin, build: BUILD };
    let (link, connection): (Link<Question, Answer>, _) = dialler.dial().await?;
    let (mut sender, mut receiver) = link.split();
    let exchange = async {
        sender.say(question).await?;
        sender.flush().await?;
        receiver.hear().await?.ok_or(Down::Ended)
    };
    let answer = timeout(ANSWER_DEADLINE, exchange).await.map_err(|_| OneError::Silent)??;
    connection.close(CloseCode::Done, "");
    match answer {
        Answer::NotLeader { leader } => Err(OneError::Follows { leader }),
        answer => Ok(answer),
    }
}
