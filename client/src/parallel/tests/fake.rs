//! A coordinator, its workers and executors in a few lines, on the session's own thread: it runs
//! every task at once, in chunks, and speaks the protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use allhands_common::codec;
use allhands_common::execution::{Awaited, Given, Mention, Need, StandIn};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{BatchId, JobId, TaskId, Term};
use allhands_common::net::link::Link;
use allhands_common::policy::BatchSpec;
use allhands_common::range::TaskRange;
use allhands_common::segment::{
    ARITY_MAX, DONE, ERROR, FAILED, FORWARDED, Segment, SegmentBuilder, split_argument_tag,
};
use allhands_common::wire::client::{Appended, DONE_WITH_BATCH, FromClient, ToClient};
use bytes::Bytes;

use crate::cluster::Cluster;
use crate::entry::{CallStatus, Entry};
use crate::execution::named;
use crate::executor::{context, panics};
use crate::payload::Codec;
use crate::session::thread::start_beside;

/// How it behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Tasks of an outcome segment.
    pub(crate) chunk: u32,
    /// Outcome segments go out in the reverse order of their tasks.
    pub(crate) backwards: bool,
    /// Before each batch's outcomes.
    pub(crate) delay: Duration,
    /// Tasks wait until as many as `batch_size` says are there, or all.
    pub(crate) whole: bool,
    /// No task ever ends.
    pub(crate) stuck: bool,
    /// Batches are refused.
    pub(crate) refuses: bool,
    /// The first batch is its end.
    pub(crate) ends: bool,
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
pub(crate) struct Told {
    /// The specifications of the batches that were opened, each with the tasks that it got.
    pub(crate) opened: Vec<(BatchSpec, u32)>,
    /// Longest argument segment, in bytes.
    pub(crate) longest: usize,
    /// Tasks that were cancelled while their batch goes on.
    pub(crate) called_off: Vec<TaskRange>,
    /// Of kept batches, those that were released.
    pub(crate) released: Vec<BatchId>,
    /// Outcomes that were asked for.
    pub(crate) awaited: Vec<Awaited>,
    /// What tasks named.
    pub(crate) mentions: Vec<Mention>,
}

/// A cluster of that manner.
pub(crate) fn cluster(manner: Manner) -> Cluster {
    watched(manner).0
}

/// A cluster of that manner, and what it is told.
pub(crate) fn watched(manner: Manner) -> (Cluster, Arc<Mutex<Told>>) {
    panics::install();
    let told = Arc::default();
    let hears = Arc::clone(&told);
    let running = start_beside(move |link| async move {
        let (batches, outcomes) = (BTreeMap::new(), BTreeMap::new());
        let mut fake = Fake { manner, link, batches, outcomes, told: hears };
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
    /// What came of tasks: tag, codec, string.
    outcomes: Outcomes,
    told: Arc<Mutex<Told>>,
}

type Outcomes = BTreeMap<TaskId, (u16, u8, Vec<u8>)>;

struct Batch {
    spec: BatchSpec,
    /// Its place in the list of those that were opened.
    place: usize,
    context: Bytes,
    tasks: u32,
    /// What has not run: first task and arguments.
    waiting: Vec<(u32, Bytes)>,
    mentions: Vec<Mention>,
    kept: bool,
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
            FromClient::OpenBatch {
                batch,
                spec,
                context,
                tasks,
                segment,
                sealed,
                kept,
                mentions,
                ..
            } => {
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
                    mentions: Vec::new(),
                    kept,
                    segments: 0,
                    failures: 0,
                    sealed: false,
                    ended: false,
                };
                self.batches.insert(batch, opened);
                if tasks > 0 {
                    self.append(batch, (0, tasks), segment.bytes, mentions).await;
                }
                if sealed {
                    self.seal(batch, tasks).await;
                }
            }
            FromClient::Append { batch, first, tasks, segment, mentions } => {
                self.append(batch, (first, tasks), segment.bytes, mentions).await;
            }
            FromClient::Seal { batch, tasks } => self.seal(batch, tasks).await,
            FromClient::Cancel { batch, reason } => {
                let rest = Some(failed(Cause::Cancelled { reason }));
                self.end(batch, rest).await;
            }
            FromClient::CancelTasks { batch, range } => {
                self.told.lock().unwrap().called_off.push(range);
                if self.batches.get(&batch).is_some_and(|known| known.kept) {
                    self.call_off(batch, range).await;
                }
            }
            FromClient::Acknowledge(batches) => {
                let done = batches.into_iter().filter(|(_, segments)| *segments == DONE_WITH_BATCH);
                let kept =
                    |batch: &BatchId| self.batches.get(batch).is_some_and(|known| known.kept);
                let released = done.map(|(batch, _)| batch).filter(kept);
                self.told.lock().unwrap().released.extend(released);
            }
            FromClient::Await(awaited) => {
                self.told.lock().unwrap().awaited.extend(&awaited);
                let given =
                    awaited.into_iter().map(|of| Given { of, outcome: self.given(of).into() });
                self.say(ToClient::Given(given.collect())).await;
            }
            FromClient::Alive
            | FromClient::Unawait(_)
            | FromClient::Offer { .. }
            | FromClient::Withdraw { .. }
            | FromClient::WantBlob { .. }
            | FromClient::UnwantBlob { .. }
            | FromClient::Keep { .. }
            | FromClient::LetGo { .. }
            | FromClient::Fetched { .. }
            | FromClient::Needs { .. }
            | FromClient::Detach => {}
            FromClient::AttachJob { .. }
            | FromClient::Read(_)
            | FromClient::LookAtJob(_)
            | FromClient::CancelJob { .. } => {
                unreachable!("the job is the session's own")
            }
            FromClient::ProgramChunk { .. } => unreachable!("nobody asked"),
        }
    }

    /// The outcome of a task, as a segment of its own.
    fn given(&self, of: Awaited) -> Bytes {
        let found = match of.follow {
            true => lead(&self.outcomes, of.task),
            false => self.outcomes.get(&of.task),
        };
        let (tag, codec, string) = found.cloned().unwrap_or_else(|| {
            let mut string = Vec::new();
            let message = format!("nobody knows {}", of.task);
            codec::encode(&failed(Cause::Expired { message }), &mut string).unwrap();
            (ERROR, 0, string)
        });
        let mut builder = SegmentBuilder::new(codec);
        builder.push(tag, std::iter::once(&string[..]));
        builder.finish()
    }

    /// Ends tasks that never run.
    async fn call_off(&mut self, batch: BatchId, range: TaskRange) {
        let mut string = Vec::new();
        let reason = "its caller wants no more of it".to_owned();
        codec::encode(&failed(Cause::Cancelled { reason }), &mut string).unwrap();
        let segment = SegmentBuilder::repeated(0, ERROR, &string, range.len()).into();
        let known = self.batches.get_mut(&batch).unwrap();
        let sequence = known.segments;
        known.segments += 1;
        self.say(ToClient::Outcomes { batch, sequence, range, segment, last: false }).await;
    }

    async fn append(
        &mut self,
        batch: BatchId,
        (first, tasks): (u32, u32),
        segment: Bytes,
        mentions: Vec<Mention>,
    ) {
        let Some(known) = self.batches.get_mut(&batch).filter(|known| !known.ended) else {
            return;
        };
        assert_eq!(known.tasks, first);
        known.tasks += tasks;
        known.mentions.extend(&mentions);
        let size = known.spec.policy.batch_size.filter(|_| self.manner.whole).unwrap_or(1);
        known.waiting.push((first, segment.clone()));
        let ready = known.tasks - known.waiting[0].0 >= size;
        {
            let mut told = self.told.lock().unwrap();
            told.opened[known.place].1 = known.tasks;
            told.longest = told.longest.max(segment.len());
            told.mentions.extend(mentions);
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
            let (segment, failures) =
                known.outcomes(batch, first, &arguments, start..end, &mut self.outcomes);
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
        first: u32,
        arguments: &Segment,
        rows: std::ops::Range<u32>,
        outcomes: &mut Outcomes,
    ) -> (Bytes, u32) {
        let mut failures = 0;
        let codec = Codec::from_byte(arguments.codec()).unwrap();
        let mut builder = SegmentBuilder::new(arguments.codec());
        let before = context::swap(Some((self.context.clone(), batch)));
        for row in rows {
            let mut strings = [&[][..]; ARITY_MAX];
            let (tag, arity) = arguments.row(row, &mut strings).unwrap();
            let (function, stand_ins) = split_argument_tag(tag);
            let function = &self.spec.functions[usize::from(function)];
            let task = TaskId { batch, index: first + row };
            let call = Entry::resolve(function.name).unwrap().call();
            let mut out = Vec::new();
            let mentions: Vec<&Mention> =
                self.mentions.iter().filter(|mention| mention.index == task.index).collect();
            let ran = filled(&strings[..arity], stand_ins, codec, &mentions, outcomes);
            let ran = ran.and_then(|strings| {
                let strings: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
                let (ran, _) = named::gather(|| panics::catch(|| call(codec, &strings, &mut out)));
                ran
            });
            let tag = match ran {
                Ok(CallStatus::Done) => DONE,
                Ok(CallStatus::Failed) => {
                    failures += u32::from(self.spec.policy.errors_count);
                    FAILED
                }
                Ok(CallStatus::Forwarded(to)) => {
                    out.splice(..0, to.to_bytes());
                    FORWARDED
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
            outcomes.insert(task, (tag, codec.byte(), out));
        }
        context::swap(before);
        (builder.finish(), failures)
    }
}

/// Where a task leads to.
fn lead(outcomes: &Outcomes, task: TaskId) -> Option<&(u16, u8, Vec<u8>)> {
    match outcomes.get(&task)? {
        (FORWARDED, _, string) => {
            lead(outcomes, TaskId::from_bytes(*string.first_chunk().unwrap()))
        }
        other => Some(other),
    }
}

/// The arguments of a task, with what stands in made of outcomes: all that it names has run before it.
fn filled(
    strings: &[&[u8]],
    stand_ins: u8,
    codec: Codec,
    mentions: &[&Mention],
    outcomes: &Outcomes,
) -> Result<Vec<Vec<u8>>, Cause> {
    let mut all = Vec::new();
    for (place, string) in strings.iter().enumerate() {
        if stand_ins & 1 << place == 0 {
            all.push(string.to_vec());
            continue;
        }
        let Some(StandIn::Outcomes(filling)) = StandIn::from_bytes(string) else { panic!() };
        let mut given = Vec::new();
        for task in filling.of {
            let is_it = |mention: &&&Mention| mention.on == task && mention.need.takes();
            let takes_errors = mentions.iter().rfind(is_it).unwrap().need == Need::Returned;
            match lead(outcomes, task).unwrap() {
                (ERROR, ..) => {
                    let message = "has no value".into();
                    return Err(Cause::DependencyFailed { root: task, message });
                }
                (FAILED, ..) if !takes_errors => {
                    let message = "returned an error".into();
                    return Err(Cause::DependencyFailed { root: task, message });
                }
                (_, codec, string) => given.push([&[*codec], &string[..]].concat()),
            }
        }
        let given: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        let status = Entry::resolve(filling.made_by).unwrap().call()(codec, &given, &mut out);
        assert_eq!(status, CallStatus::Done);
        all.push(out);
    }
    Ok(all)
}

fn failed(cause: Cause) -> Failed {
    Failed { cause, worker: None, attempt: None, tries: 1 }
}
