//! Puts the appends of a leader's pipeline in order and keeps several of them before the disk at once.
//!
//! One task per pipeline: it holds what came early, feeds openraft's `stream_append` in turn, and hands out the answers,
//! which openraft gives in the same order. A later pipeline of the same peer ends the one before; an idle one ends
//! itself. Nothing survives a crash.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::{mpsc, oneshot};

use super::machine::Machine;
use super::message::{PeerReply, Refusal, Turn};
use super::network::APPENDS_IN_FLIGHT_MAX;
use super::types::{NodeId, TypeConfig};

type Raft = openraft::Raft<TypeConfig, Machine>;
type Request = AppendEntriesRequest<TypeConfig>;

/// A pipeline without an append for this long ends; the sender's gives up far earlier.
const IDLE: Duration = Duration::from_secs(30);

/// The newest pipeline of each peer.
#[derive(Debug, Default)]
pub(crate) struct Pipelines {
    by_peer: Mutex<BTreeMap<NodeId, Known>>,
}

#[derive(Debug)]
struct Known {
    boot: u64,
    pipeline: u64,
    waiting: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    request: Request,
    answer: oneshot::Sender<PeerReply>,
}

impl Pipelines {
    /// Appends `request` when its turn has come.
    pub(crate) async fn append(
        &self,
        raft: &Raft,
        from: NodeId,
        turn: Turn,
        request: Request,
    ) -> PeerReply {
        let Some(pipeline) = self.find(raft, from, turn) else {
            return overtaken("a later pipeline");
        };
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { number: turn.number, request, answer };
        if pipeline.send(waiting).await.is_err() {
            return overtaken("the end of its pipeline");
        }
        answered.await.unwrap_or_else(|_| overtaken("the end of its pipeline"))
    }

    fn find(&self, raft: &Raft, from: NodeId, turn: Turn) -> Option<mpsc::Sender<Waiting>> {
        // One map operation under the lock: a panic cannot leave it half done.
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        // A late append of a process that has ended takes over for a moment; its successor then begins again.
        if let Some(known) = by_peer.get(&from).filter(|known| known.boot == turn.boot) {
            if known.pipeline == turn.pipeline {
                return Some(known.waiting.clone());
            }
            if known.pipeline > turn.pipeline {
                return None;
            }
        }
        let (waiting, turns) = mpsc::channel(APPENDS_IN_FLIGHT_MAX);
        let Turn { boot, pipeline, .. } = turn;
        by_peer.insert(from, Known { boot, pipeline, waiting: waiting.clone() });
        tokio::spawn(run(raft.clone(), turns));
        Some(waiting)
    }
}

/// The life of one pipeline.
async fn run(raft: Raft, mut turns: mpsc::Receiver<Waiting>) {
    let (requests, input) = mpsc::channel::<Request>(APPENDS_IN_FLIGHT_MAX);
    let input =
        stream::unfold(input, |mut input| async move { Some((input.recv().await?, input)) });
    let mut answers = pin!(raft.stream_append(input));
    let mut early: BTreeMap<u64, (Request, oneshot::Sender<PeerReply>)> = BTreeMap::new();
    let mut asked: VecDeque<oneshot::Sender<PeerReply>> = VecDeque::new();
    let mut next = 0;
    loop {
        tokio::select! {
            answer = answers.next(), if !asked.is_empty() => {
                let Some(asker) = asked.pop_front() else { return };
                let (reply, ends) = match answer {
                    Some(Ok(result)) => (PeerReply::Append(result.clone()), result.is_err()),
                    Some(Err(fatal)) => (PeerReply::Refused(Refusal::Stopped { cause: fatal.to_string() }), true),
                    None => (overtaken("the end of its pipeline"), true),
                };
                // The asker may have given up; the entries are appended all the same.
                drop(asker.send(reply));
                if ends {
                    return;
                }
            }
            waiting = tokio::time::timeout(IDLE, turns.recv()) => {
                let Ok(Some(Waiting { number, request, answer })) = waiting else { return };
                // A sender has no more in flight; more is a faulty one, and a turn that is over is a repeated one.
                if number < next || early.len() >= APPENDS_IN_FLIGHT_MAX {
                    drop(answer.send(overtaken("another append in its turn")));
                    continue;
                }
                early.insert(number, (request, answer));
                while let Some((request, answer)) = early.remove(&next) {
                    if requests.send(request).await.is_err() {
                        return;
                    }
                    asked.push_back(answer);
                    next += 1;
                }
            }
        }
    }
}

fn overtaken(by: &str) -> PeerReply {
    PeerReply::Refused(Refusal::Overtaken { what: by.to_owned() })
}
