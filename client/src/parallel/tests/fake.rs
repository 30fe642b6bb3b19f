//! A coordinator, its workers and executors in a few lines, on the session's own thread: it runs
//! every task at once, in chunks, and speaks the protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use allhands_common::codec;
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{BatchId, JobId, Term};
use allhands_common::net::link::Link;
use allhands_common::policy::BatchSpec;
use allhands_common::range::TaskRange;
use allhands_common::segment::{ARITY_MAX, DONE, ERROR, FAILED, Segment, SegmentBuilder};
use allhands_common::wire::client::{Appended, FromClient, ToClient};
use bytes::Bytes;

use crate::cluster::Cluster;
use crate::entry::{CallStatus, Entry};
use crate::executor::{context, panics};
use crate::payload::Codec;
use crate::session::thread::start_beside;

/// How it behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Tasks of an outcome segment.
    pub(super) chunk: u32,
    /// Outcome segments go out in the reverse order of their tasks.
    pub(super) backwards: bool,
    /// Before each batch's outcomes.
    pub(super) delay: Duration,
    /// Tasks wait until as many as `batch_size` says are there, or all.
    pub(super) whole: bool,
    /// No task ever ends.
    pub(super) stuck: bool,
    /// Batches are refused.
    pub(super) refuses: bool,
    /// The first batch is its end.
    pub(super) ends: bool,
}

impl Default for Manner {
    fn default() -> Self {
        let delay = Duration::ZERO;
        let (backwards, whole, stuck, refuses, ends) = (false, false, false, false, false);
        Self { chunk: 7, backwards, delay, whole, stuck, refuses, ends }
    }
}

/// What a cluster was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The specifications of the batches that were opened, each with the tasks that it got.
    pub(super) opened: Vec<(BatchSpec, u32)>,
    /// Longest argument segment, in bytes.
    pub(super) longest: usize,
    /// Tasks that were cancelled while their batch goes on.
    pub(super) called_off: Vec<TaskRange>,
}

/// A cluster of that manner.
pub(super) fn cluster(manner: Manner) -> Cluster {
    watched(manner).0
}

/// A cluster of that manner, and what it is told.
pub(super) fn watched(manner: Manner) -> (Cluster, Arc<Mutex<Told>>) {
    panics::install();
    let told = Arc::default();
    let hears = Arc::clone(&told);
    let running = start_beside(move |link| async move {
        let mut fake = Fake { manner, link, batches: BTreeMap::new(), told: hears };
        // The end of the link is the end of the test.
        while let Ok(Some(message)) = fake.hear().await {
            if manner.ends && matches!(message, FromClient::OpenBatch { .. }) {
                break;
            }
            fake.answer(message).await;
        }
    });
    let cluster = Cluster::of(running);
    cluster.session().wait_attached(Duration::from_secs(5)).unwrap();
    (cluster, told)
}

struct Fake {
    manner: Manner,
    link: Link<ToClient, FromClient>,
    batches: BTreeMap<BatchId, Batch>,
    told: Arc<Mutex<Told>>,
}

struct Batch {
    spec: BatchSpec,
    /// Its place in the list of those that were opened.
    place: usize,
    context: Bytes,
    tasks: u32,
    /// What has not run: first task and arguments.
    waiting: Vec<(u32, Bytes)>,
    segments: u32,
    failures: u32,
    sealed: bool,
    ended: bool,
}

impl Fake {
    async fn hear(&mut self) -> Result<Option<FromClient>, allhands_common::net::link::LinkError> {
        Ok(self.link.recv().await?.map(|(message, _)| message))
    }

    async fn say(&mut self, message: ToClient) {
        _ = self.link.send(message, Bytes::new()).await;
    }

    async fn answer(&mut self, message: FromClient) {
        match message {
            FromClient::Attach { .. } => {
                self.say(ToClient::Attached { term: Term(1), batches: Vec::new(), slots: 2 }).await;
            }
            FromClient::OpenJob { request, .. } => {
                self.say(ToClient::JobOpened { request, job: JobId(1) }).await;
            }
            FromClient::OpenBatch { batch, .. } if self.manner.refuses => {
                let reason = "no such thing".to_owned();
                self.say(ToClient::Refused { batch: Some(batch), request: None, reason }).await;
            }
            FromClient::OpenBatch { batch, spec, context, tasks, segment, sealed, .. } => {
                let context = context.bytes;
                let place = {
                    let opened = &mut self.told.lock().unwrap().opened;
                    opened.push(((*spec).clone(), 0));
                    opened.len() - 1
                };
                let opened = Batch {
                    spec: (*spec).clone(),
                    place,
                    context,
                    tasks: 0,
                    waiting: Vec::new(),
                    segments: 0,
                    failures: 0,
                    sealed: false,
                    ended: false,
                };
                self.batches.insert(batch, opened);
                if tasks > 0 {
                    self.append(batch, 0, tasks, segment.bytes).await;
                }
                if sealed {
                    self.seal(batch, tasks).await;
                }
            }
            FromClient::Append { batch, first, tasks, segment } => {
                self.append(batch, first, tasks, segment.bytes).await;
            }
            FromClient::Seal { batch, tasks } => self.seal(batch, tasks).await,
            FromClient::Cancel { batch, reason } => {
                let rest = Some(failed(Cause::Cancelled { reason }));
                self.end(batch, rest).await;
            }
            FromClient::CancelTasks { range, .. } => {
                self.told.lock().unwrap().called_off.push(range);
            }
            FromClient::Acknowledge(_)
            | FromClient::Alive
            | FromClient::Offer { .. }
            | FromClient::Withdraw { .. }
            | FromClient::WantBlob { .. }
            | FromClient::UnwantBlob { .. }
            | FromClient::Needs { .. }
            | FromClient::Detach => {}
            FromClient::ProgramChunk { .. } => unreachable!("nobody asked"),
        }
    }

    async fn append(&mut self, batch: BatchId, first: u32, tasks: u32, segment: Bytes) {
        let Some(known) = self.batches.get_mut(&batch).filter(|known| !known.ended) else {
            return;
        };
        assert_eq!(known.tasks, first);
        known.tasks += tasks;
        let size = known.spec.policy.batch_size.filter(|_| self.manner.whole).unwrap_or(1);
        known.waiting.push((first, segment.clone()));
        let ready = known.tasks - known.waiting[0].0 >= size;
        {
            let mut told = self.told.lock().unwrap();
            told.opened[known.place].1 = known.tasks;
            told.longest = told.longest.max(segment.len());
        }
        let appended = Appended { batch, tasks: first + tasks, sealed: false };
        self.say(ToClient::Appended(vec![appended])).await;
        if !self.manner.stuck && ready {
            self.run_waiting(batch).await;
        }
    }

    async fn run_waiting(&mut self, batch: BatchId) {
        let Some(known) = self.batches.get_mut(&batch) else {
            return;
        };
        for (first, segment) in std::mem::take(&mut known.waiting) {
            self.run(batch, first, Segment::parse(segment).unwrap()).await;
        }
    }

    async fn seal(&mut self, batch: BatchId, tasks: u32) {
        let Some(known) = self.batches.get_mut(&batch) else {
            return;
        };
        known.sealed = true;
        let appended = Appended { batch, tasks, sealed: true };
        self.say(ToClient::Appended(vec![appended])).await;
        if !self.manner.stuck {
            self.run_waiting(batch).await;
        }
        self.end(batch, None).await;
    }

    async fn end(&mut self, batch: BatchId, rest: Option<Failed>) {
        let Some(known) = self.batches.get_mut(&batch).filter(|known| !known.ended) else {
            return;
        };
        known.ended = true;
        let segments = known.segments;
        self.say(ToClient::Ended { batch, segments, rest }).await;
    }

    async fn run(&mut self, batch: BatchId, first: u32, arguments: Segment) {
        if !self.manner.delay.is_zero() {
            tokio::time::sleep(self.manner.delay).await;
        }
        let Some(known) = self.batches.get_mut(&batch) else {
            return;
        };
        let mut chunks = Vec::new();
        let mut start = 0;
        while start < arguments.tasks() {
            let end = (start + self.manner.chunk).min(arguments.tasks());
            let (segment, failures) = known.outcomes(batch, &arguments, start..end);
            chunks.push((TaskRange::new(first + start, first + end), segment, failures));
            start = end;
        }
        if self.manner.backwards {
            chunks.reverse();
        }
        for (range, segment, failures) in chunks {
            let Some(known) = self.batches.get_mut(&batch).filter(|known| !known.ended) else {
                return;
            };
            let sequence = known.segments;
            known.segments += 1;
            known.failures += failures;
            let stopped = known.spec.policy.fail_after.is_some_and(|most| known.failures >= most);
            let (segment, last) = (segment.into(), false);
            self.say(ToClient::Outcomes { batch, sequence, range, segment, last }).await;
            if stopped {
                let cause = Cause::Cancelled { reason: "too many failures".into() };
                self.end(batch, Some(failed(cause))).await;
            }
        }
    }
}

impl Batch {
    /// The outcomes of these tasks, and how many of them are failures.
    fn outcomes(
        &self,
        batch: BatchId,
        arguments: &Segment,
        rows: std::ops::Range<u32>,
    ) -> (Bytes, u32) {
        let mut failures = 0;
        let codec = Codec::from_byte(arguments.codec()).unwrap();
        let mut builder = SegmentBuilder::new(arguments.codec());
        let before = context::swap(Some((self.context.clone(), batch)));
        for row in rows {
            let mut strings = [&[][..]; ARITY_MAX];
            let (tag, arity) = arguments.row(row, &mut strings).unwrap();
            let function = &self.spec.functions[usize::from(tag)];
            let call = Entry::resolve(function.name).unwrap().call();
            let mut out = Vec::new();
            let tag = match panics::catch(|| call(codec, &strings[..arity], &mut out)) {
                Ok(CallStatus::Done) => DONE,
                Ok(CallStatus::Failed) => {
                    failures += u32::from(self.spec.policy.errors_count);
                    FAILED
                }
                Ok(other) => panic!("{other:?}"),
                Err(cause) => {
                    failures += 1;
                    out.clear();
                    codec::encode(&failed(cause), &mut out).unwrap();
                    ERROR
                }
            };
            builder.push(tag, std::iter::once(&out[..]));
        }
        context::swap(before);
        (builder.finish(), failures)
    }
}

fn failed(cause: Cause) -> Failed {
    Failed { cause, worker: None, attempt: None, tries: 1 }
}
