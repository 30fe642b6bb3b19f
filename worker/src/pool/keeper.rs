//! The keeper of one executor: starts it, greets it, reads what it says, watches its time, and buries
//! it with all that it has started.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use allhands_common::execution::Awaited;
use allhands_common::id::{AttemptId, TaskId};
use allhands_common::range::TaskRange;
use allhands_common::segment::Segment;
use allhands_common::wire::executor::{
    Begun, FromExecutor, Outcomes, Part, Submitted, ToExecutor, VERSION, write_frame,
};
use allhands_common::wire::note::{NOTES_MAX, Note, Said};
use allhands_common::wire::worker::ChildCall;
use allhands_store::cell::monotonic_us;
use allhands_store::passing;
use allhands_store::scratch::Directory;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::{OwnedReadHalf, pipe};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::counter;
use super::inbox::{Inbox, Read};
use super::output::{self, Stream, Tail, Written};
use super::seat::{Doom, Seat, Suspended};
use super::spawner::Spawner;
use super::timeouts::{self, Look};
use super::{PoolConfig, postmortem};
use allhands_common::id::ExecutorId;
use allhands_scheduler::{ExecutorEvent, Spawn};

/// How long a program may take from its start to `init()`.
const START_MAX: Duration = Duration::from_secs(30);

/// How long an executor that has closed its socket may take to exit.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// How long the end of a dead executor's standard error is waited for: somebody else may hold it open.
const LAST_WORDS_MAX: Duration = Duration::from_millis(100);

/// The task that owns an executor.
pub(super) struct Keeper {
    pub(super) seat: Rc<Seat>,
    pub(super) spawner: Spawner,
    pub(super) config: Rc<PoolConfig>,
    pub(super) events: mpsc::Sender<(ExecutorId, ExecutorEvent)>,
}

/// A started process.
struct Process {
    child: Child,
    /// Becomes readable when it exits.
    exit: AsyncFd<OwnedFd>,
    tail: Rc<RefCell<Tail>>,
    stderr: Option<JoinHandle<()>>,
}

/// A [`Process`] without its handle.
type Watch = (AsyncFd<OwnedFd>, Rc<RefCell<Tail>>, Option<JoinHandle<()>>);

/// What woke the keeper.
enum Woken {
    Message(FromExecutor),
    SocketClosed,
    Exited,
    Damaged(String),
    Time,
}

impl Keeper {
    /// Keeps the executor from its start to its end, which it reports.
    pub(super) async fn keep(self, spawn: Spawn) {
        let name = self.config.directory.join(format!("x{}", self.seat.executor));
        let shared = matches!(self.config.launch, super::Launch::Stored(_));
        let scratch = Directory::make(name, shared);
        let (status, was_ready, last_words) = match &scratch {
            Err(error) => {
                self.refuse(format!("its scratch directory cannot be made: {error}"));
                (None, false, String::new())
            }
            Ok(scratch) => self.live(&spawn, scratch.path()).await,
        };
        let (running, culprit) = postmortem::running(&self.seat);
        let doom = self.seat.doom.take();
        let told = doom == Some(Doom::Told);
        let changed = || self.seat.lent.changed(&self.config.blobs);
        let cause = postmortem::cause(doom, status, was_ready, last_words, changed);
        if was_ready || told {
            tracing::debug!(executor = %self.seat.executor, %cause, "an executor has ended");
        } else {
            tracing::warn!(executor = %self.seat.executor, %cause, "an executor did not start");
        }
        self.tell(ExecutorEvent::Died { running, culprit, cause }).await;
        // A large scratch directory takes its time.
        tokio::task::spawn_blocking(move || drop(scratch));
    }

    async fn live(&self, spawn: &Spawn, scratch: &Path) -> (Option<ExitStatus>, bool, String) {
        let socket = scratch.join("socket");
        let (listener, mut process) = match self.start(spawn, scratch, &socket).await {
            Ok(started) => started,
            Err(error) => {
                self.refuse(format!("{} cannot be started: {error}", spawn.program.name));
                return (None, false, String::new());
            }
        };
        if self.seat.is_doomed() {
            self.seat.kill_group();
        }
        let mut was_ready = false;
        if let Some(mut stream) = self.greet(&listener, &process).await {
            drop(listener);
            _ = std::fs::remove_file(&socket);
            was_ready = self.serve(&mut stream, &process.exit).await;
        }
        self.seat.kill_group();
        _ = process.exit.readable().await;
        let status = process.child.wait().ok();
        self.seat.process.set(None);
        if let Some(stderr) = process.stderr.take() {
            _ = timeout(LAST_WORDS_MAX, stderr).await;
        }
        let last_words = process.tail.borrow().text();
        (status, was_ready, last_words)
    }

    /// Starts the process.
    async fn start(
        &self,
        spawn: &Spawn,
        scratch: &Path,
        socket: &Path,
    ) -> io::Result<(UnixListener, Process)> {
        let listener = UnixListener::bind(socket)?;
        // Who may come this far is decided by the directory, who is heard by the process id.
        std::fs::set_permissions(socket, PermissionsExt::from_mode(0o666))?;
        if let super::Launch::Stored(super::Stored { user: Some((user, group)), .. }) =
            &self.config.launch
        {
            std::os::unix::fs::chown(scratch, Some(*user), Some(*group))?;
        }
        let command = self.config.launch.command(spawn, socket, scratch);
        let mut child = self.spawner.spawn(command).await?;
        self.seat.process.set(Some(Pid::from_child(&child)));
        match self.watch(&mut child) {
            Ok((exit, tail, stderr)) => Ok((listener, Process { child, exit, tail, stderr })),
            Err(error) => {
                // No descriptor is left to watch it with: it runs unwatched, and would stay a zombie.
                self.seat.kill_group();
                self.seat.process.set(None);
                tokio::task::spawn_blocking(move || child.wait());
                Err(error)
            }
        }
    }

    /// What tells of the end of a process, and what takes its words.
    fn watch(&self, child: &mut Child) -> io::Result<Watch> {
        let exit = pidfd_open(Pid::from_child(child), PidfdFlags::NONBLOCK)?;
        let tail = Rc::new(RefCell::new(Tail::default()));
        if let Some(pipe) = child.stdout.take() {
            self.forward(pipe::Receiver::from_owned_fd(pipe.into())?, Stream::Out, None);
        }
        let stderr = match child.stderr.take() {
            Some(pipe) => {
                let pipe = pipe::Receiver::from_owned_fd(pipe.into())?;
                Some(self.forward(pipe, Stream::Err, Some(Rc::clone(&tail))))
            }
            None => None,
        };
        #[expect(deprecated, reason = "its successor is unsafe, for types that are not an OwnedFd")]
        let exit = AsyncFd::with_interest(exit, Interest::READABLE)?;
        Ok((exit, tail, stderr))
    }

    fn forward(
        &self,
        pipe: pipe::Receiver,
        stream: Stream,
        tail: Option<Rc<RefCell<Tail>>>,
    ) -> JoinHandle<()> {
        let seat = Rc::clone(&self.seat);
        let written = move |lines| {
            let (executor, batch) = (seat.executor, seat.batch());
            Written { executor, batch, stream, lines }
        };
        let sink = self.config.output.clone();
        tokio::task::spawn_local(output::forward(pipe, written, tail, sink))
    }

    /// Waits for the program to enter, and hands it the cell. `None` when it will not.
    async fn greet(&self, listener: &UnixListener, process: &Process) -> Option<OwnedReadHalf> {
        let arrival = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) if self.is_ours(&stream) => return Ok(stream),
                    Ok(_) => tracing::warn!("another process knocked at an executor's socket"),
                    Err(error) => return Err(error),
                }
            }
        };
        let arrived = tokio::select! {
            biased;
            arrived = timeout(START_MAX, arrival) => arrived,
            _ = process.exit.readable() => return None,
        };
        let refused = match arrived {
            Ok(Ok(stream)) => match self.welcome(&stream) {
                Ok(()) => {
                    let (reading, writing) = stream.into_split();
                    self.seat.outbox.connect(writing);
                    return Some(reading);
                }
                Err(error) => format!("it cannot be welcomed: {error}"),
            },
            Ok(Err(error)) => format!("its socket cannot be accepted: {error}"),
            Err(_) => format!(
                "it did not enter the executor within {} s: call allhands::init() first in main, \
                 before anything that takes long",
                START_MAX.as_secs()
            ),
        };
        self.refuse(refused);
        None
    }

    fn is_ours(&self, stream: &UnixStream) -> bool {
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(Pid::from_raw);
        peer.is_some() && peer == self.seat.process.get()
    }

    /// The first frame, with the descriptors of cell and counter. A fresh socket takes it whole. The counter
    /// is open from now on.
    fn welcome(&self, stream: &UnixStream) -> io::Result<()> {
        let (mut head, mut bulk) = (Vec::new(), Vec::new());
        let (worker, lanes) = (self.config.worker, self.seat.lanes);
        let mut message = ToExecutor::Welcome { version: VERSION, worker, lanes };
        write_frame(&mut message, &mut head, &mut bulk).map_err(io::Error::other)?;
        let (counter, theirs) = passing::pair()?;
        let files = [self.seat.cell.as_fd(), theirs.as_fd()];
        if passing::send(stream, &head, &files)? != head.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let (seat, blobs) = (Rc::clone(&self.seat), self.config.blobs.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = counter::serve(counter, blobs, &seat).await {
                seat.kill(Doom::Broken(format!("what it asks to borrow is damaged: {error}")));
            }
        });
        Ok(())
    }

    /// Serves a connected executor until it is to be buried; whether it was ever ready.
    async fn serve(&self, stream: &mut OwnedReadHalf, exit: &AsyncFd<OwnedFd>) -> bool {
        let mut inbox = Inbox::default();
        let (mut ready, mut closed) = (false, false);
        loop {
            let look = if self.seat.is_doomed() {
                Look::Untimed
            } else {
                timeouts::look(&self.seat, monotonic_us())
            };
            let next = match look {
                Look::Overdue(doom) => {
                    self.seat.kill(doom);
                    None
                }
                Look::In(left) => Some(Instant::now() + left),
                Look::Untimed => None,
            };
            let next = next.into_iter().chain(self.seat.stop_by.get()).min();
            let woken = tokio::select! {
                biased;
                message = inbox.next(stream), if !closed => match message {
                    Ok(Some(message)) => Woken::Message(message),
                    Ok(None) => Woken::SocketClosed,
                    Err(error) => Woken::Damaged(format!("it sent damage: {error}")),
                },
                _ = exit.readable() => Woken::Exited,
                () = self.seat.outbox.drain() => Woken::Time,
                () = self.seat.changed.notified() => Woken::Time,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => Woken::Time,
            };
            match woken {
                Woken::Message(message) => {
                    if let Err(words) = self.hear(message, &mut ready).await {
                        self.refuse(words);
                    }
                }
                Woken::SocketClosed => {
                    closed = true;
                    self.seat.stop_by.set(Some(Instant::now() + EXIT_GRACE));
                }
                Woken::Damaged(words) => {
                    closed = true;
                    self.refuse(words);
                }
                Woken::Exited => break,
                Woken::Time => {
                    if self.seat.stop_by.get().is_some_and(|by| by <= Instant::now()) {
                        self.seat.stop_by.set(None);
                        self.refuse("it did not exit in time".to_owned());
                    }
                }
            }
        }
        self.salvage(&mut inbox, stream, &mut ready).await;
        ready
    }

    /// Takes the outcomes that a dead executor had sent in full.
    async fn salvage(&self, inbox: &mut Inbox, stream: &OwnedReadHalf, ready: &mut bool) {
        loop {
            while let Ok(Some(message)) = inbox.take() {
                if self.hear(message, ready).await.is_err() {
                    return;
                }
            }
            match inbox.read(stream) {
                Read::Some => {}
                Read::NothingNow | Read::End => return,
            }
        }
    }

    /// # Errors
    /// When it says what no executor says.
    async fn hear(&self, message: FromExecutor, ready: &mut bool) -> Result<(), String> {
        match message {
            FromExecutor::Hello { version, release } => {
                if version != VERSION {
                    return Err(format!(
                        "its program was built with allhands {release} (executor protocol {version}; \
                         this worker speaks {VERSION}): build it with the worker's release"
                    ));
                }
                *ready = true;
                self.tell(ExecutorEvent::Ready).await;
            }
            FromExecutor::Outcomes(loads) => {
                for Outcomes { sequence, parts, finished } in loads {
                    let attempt = self.note(sequence, &parts, finished)?;
                    for part in parts {
                        self.tell(outcomes(attempt, part)).await;
                    }
                    if finished {
                        self.tell(ExecutorEvent::Finished { attempt }).await;
                    }
                }
            }
            FromExecutor::Blocked { task, on, run_us } => {
                let event = self.block(task, on, run_us)?;
                self.tell(event).await;
            }
            FromExecutor::Resumed { task } => {
                let Suspended { attempt, task, .. } = self.begun(task)?;
                self.tell(ExecutorEvent::Resumed { attempt, index: task.index }).await;
                // It may have a timeout.
                self.seat.changed.notify_one();
            }
            FromExecutor::Late { task, part } => {
                let Suspended { attempt, task: TaskId { index, .. }, .. } = self.begun(task)?;
                let tasks = Segment::parse(part.segment.bytes.clone()).map(|part| part.tasks());
                if part.range != TaskRange::new(index, index + 1) || tasks != Ok(1) {
                    return Err(format!("it sent an outcome that is not that of task {index}"));
                }
                self.seat.begun.borrow_mut().remove(&task);
                self.tell(outcomes(attempt, part)).await;
            }
            FromExecutor::Said(said) => {
                let fits = |said: &Said| match said {
                    Said::Line(line) => line.fits(),
                    Said::Progress { .. } | Said::Dropped(_) => true,
                };
                let said = said.into_iter().filter(|(_, said)| fits(said));
                let notes = said.filter_map(|(task, said)| {
                    let Suspended { attempt, task, .. } = self.seat.find(task)?;
                    Some(Note { task, attempt, said })
                });
                let mut notes = notes.take(NOTES_MAX).peekable();
                if notes.peek().is_some() {
                    self.tell(ExecutorEvent::Said(notes.collect())).await;
                }
            }
            FromExecutor::Cancel { task } => self.tell(ExecutorEvent::Cancels { task }).await,
            FromExecutor::Submit(submitted) => {
                let Submitted { parent, batch, spec, segment, mentions } = *submitted;
                let Suspended { attempt, task: parent, .. } = self
                    .seat
                    .find(parent)
                    .ok_or("it sent a call of a task that it does not run")?;
                let spec = Arc::new(spec);
                let child = ChildCall { parent, attempt, batch, spec, segment, mentions };
                self.tell(ExecutorEvent::Called(child)).await;
            }
        }
        Ok(())
    }

    /// A task waits for others: it leaves its load, of which nothing more is begun.
    fn block(
        &self,
        task: Begun,
        on: Vec<Awaited>,
        run_us: Option<u64>,
    ) -> Result<ExecutorEvent, String> {
        let words = || format!("it sent word of a task {} that it does not run", task.place);
        let known = self.seat.find(task).ok_or_else(words)?;
        let Suspended { attempt, task: TaskId { index, .. }, .. } = known;
        let mut returned = TaskRange::default();
        if self.seat.begun.borrow_mut().insert(task, known).is_none() {
            let mut loads = self.seat.loads.borrow_mut();
            if let Some(load) = loads.iter_mut().find(|load| load.sequence == task.sequence) {
                load.ended.insert(TaskRange::new(index, index + 1));
                let (_, limit) = self.seat.cell.taken(task.sequence);
                let (start, window) = (load.range.start, load.window.get());
                returned = TaskRange::new(start + limit.min(window), start + window);
                load.window.set(limit.min(window));
            }
        }
        Ok(ExecutorEvent::Blocked { attempt, index, on, returned, run_us })
    }

    /// A task that has waited for others and has not ended.
    fn begun(&self, task: Begun) -> Result<Suspended, String> {
        let known = self.seat.begun.borrow().get(&task).copied();
        known.ok_or_else(|| format!("it sent word of a task {} that did not wait", task.place))
    }

    /// Checks outcomes against what is outstanding.
    fn note(&self, sequence: u32, parts: &[Part], finished: bool) -> Result<AttemptId, String> {
        let mut loads = self.seat.loads.borrow_mut();
        let at = loads.iter().position(|load| load.sequence == sequence).ok_or_else(|| {
            format!("it sent outcomes of a load {sequence} that it does not have")
        })?;
        let load = &mut loads[at];
        for Part { range, segment, .. } in parts {
            let tasks = Segment::parse(segment.bytes.clone()).map(|segment| segment.tasks());
            let fresh = load.ended.intersection(*range).next().is_none();
            if tasks != Ok(range.len()) || !load.range.covers(*range) || !fresh {
                return Err(format!("it sent outcomes that are not those of tasks {range}"));
            }
            load.ended.insert(*range);
        }
        let attempt = load.attempt;
        if finished {
            let (taken, limit) = self.seat.cell.taken(sequence);
            let whole = TaskRange::new(load.range.start, load.range.start.saturating_add(limit));
            if taken != limit || !load.ended.covers(whole) {
                return Err(format!("it ended a load of tasks {whole} with some of them missing"));
            }
            loads.remove(at);
        }
        Ok(attempt)
    }

    fn refuse(&self, words: String) {
        self.seat.kill(Doom::Broken(words));
    }

    async fn tell(&self, event: ExecutorEvent) {
        // A loop that has ended listens to nobody; the executor is being killed.
        _ = self.events.send((self.seat.executor, event)).await;
    }
}

/// What an executor has said of a part's tasks.
fn outcomes(attempt: AttemptId, part: Part) -> ExecutorEvent {
    let Part { range, segment, run_us, mentions } = part;
    ExecutorEvent::Outcomes { attempt, range, segment: segment.bytes, run_us, mentions }
}
