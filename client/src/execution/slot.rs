//! Where the outcome of one task comes in, however many handles wait for it.
//!
//! Whoever is the [`Home`] of it puts it in, once; whoever waits leaves a [`Waiter`], and nobody polls. All handles
//! of this process on a task share a slot, or have slots that are asked for alike. With the last handle it is gone,
//! and its home is told.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use allhands_common::blob::BlobRef;
use allhands_common::execution::Awaited;
use allhands_common::id::ClusterId;
use allhands_common::segment::{ERROR, FAILED, Segment};
use allhands_store::blobs::Blob;
use bytes::Bytes;

use super::home::{self, Home};
use super::once::{Once, Waiter};
use crate::entry::Entry;
use crate::error::Error;
use crate::session::core::End;
use crate::session::holdings::Received;
use crate::shared::whole::Whole;

/// The outcome of one task, as far as this process knows it.
pub(crate) struct Slot {
    /// Which outcome.
    of: Awaited,
    /// Of which cluster; zero where nobody has said.
    cluster: ClusterId,
    home: Home,
    /// Whether the home counts it: it is of one of its own batches.
    counted: bool,
    /// What was called, if that was here.
    function: Option<&'static Entry>,
    /// The type that the function returns, if it is the cluster that says so.
    returns: Option<Arc<str>>,
    /// The execution in whose result this one was: the cluster keeps it no longer than that.
    origin: Option<Arc<Self>>,
    /// Whether an `Err` of that is none of its own results.
    flattens: bool,
    /// Whether it comes of itself, or was asked for.
    comes: AtomicBool,
    settled: Once<Settled>,
    /// The long result that the outcome only names, once somebody has asked for its value.
    fetched: OnceLock<Box<Once<Fetched>>>,
}

/// A long result, or why it cannot be had.
pub(crate) type Fetched = Result<Long, String>;

/// A long result that is here.
#[derive(Debug, Clone)]
pub(crate) enum Long {
    /// In the store of a worker in this process.
    Here(Blob),
    /// Fetched from another machine.
    Received(Arc<Received>),
    /// Lent to this executor by its worker.
    Lent(Arc<Whole>),
}

/// What came of a task.
#[derive(Debug, Clone)]
pub(crate) enum Settled {
    /// It has an outcome.
    Outcome(Outcome),
    /// Nothing more will come of it.
    Ended(End),
    /// Nobody knows how to ask for it.
    Homeless(Arc<Error>),
}

/// An outcome: one row of an outcome segment.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) tag: u16,
    pub(crate) codec: u8,
    pub(crate) bytes: Bytes,
    /// Where it has no value: the segment of its arguments, and its row there.
    pub(crate) arguments: Option<(Bytes, u32)>,
    /// Arrays that values of its segment hold handles on: kept until these are read.
    pub(crate) arrays: Arc<[Arc<Whole>]>,
}

impl Settled {
    /// Whether it is an error: the task's, or the function's own.
    pub(crate) const fn is_error(&self) -> bool {
        match self {
            Self::Outcome(outcome) => outcome.tag == ERROR || outcome.tag == FAILED,
            Self::Ended(_) | Self::Homeless(_) => true,
        }
    }
}

/// What a slot begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) of: Awaited,
    pub(crate) cluster: ClusterId,
    pub(crate) home: Home,
    pub(crate) function: Option<&'static Entry>,
    /// The type that it returns, if the function is not known here.
    pub(crate) returns: Option<Arc<str>>,
    pub(crate) origin: Option<Arc<Slot>>,
    /// It is what the execution leads to that its origin returns in an `Ok`.
    pub(crate) flattens: bool,
    /// Its home counts it.
    pub(crate) counted: bool,
    /// Its home puts the outcome in without being asked.
    pub(crate) comes: bool,
}

impl Slot {
    pub(crate) fn new(beginning: Beginning) -> Arc<Self> {
        let Beginning { of, cluster, home, function, returns, origin, flattens, counted, comes } =
            beginning;
        Arc::new(Self {
            of,
            cluster,
            home,
            counted,
            function,
            returns,
            origin,
            flattens,
            comes: AtomicBool::new(comes),
            settled: Once::default(),
            fetched: OnceLock::new(),
        })
    }

    /// Which outcome.
    pub(crate) const fn of(&self) -> Awaited {
        self.of
    }

    pub(crate) const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Whose own `Err` is none of its results.
    pub(super) fn outer(&self) -> Option<&Arc<Self>> {
        self.origin.as_ref().filter(|_| self.flattens)
    }

    pub(crate) const fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) const fn function(&self) -> Option<&'static Entry> {
        self.function
    }

    /// The name of the type that its function returns, if it is known.
    pub(super) fn returns(&self) -> Option<&str> {
        self.function.map(Entry::result_type_name).or_else(|| self.returned_elsewhere())
    }

    /// The same, if another program has called the function.
    pub(super) fn returned_elsewhere(&self) -> Option<&str> {
        self.returns.as_deref().filter(|name| !name.is_empty())
    }

    /// What came of it, if it is here.
    #[inline]
    pub(crate) fn settled(&self) -> Option<&Settled> {
        self.settled.get()
    }

    /// It is here, and whoever waits is told. A second one is dropped.
    pub(crate) fn settle(&self, settled: Settled) {
        self.settled.put(settled);
    }

    /// Arrays that its value may hold handles on.
    pub(super) fn arrays(&self) -> &[Arc<Whole>] {
        match self.settled() {
            Some(Settled::Outcome(outcome)) => &outcome.arrays,
            Some(Settled::Ended(_) | Settled::Homeless(_)) | None => &[],
        }
    }

    /// Has its home bring the outcome, if it would not.
    pub(crate) fn ask(self: &Arc<Self>) {
        if self.settled().is_none() && !self.comes.swap(true, Ordering::Relaxed) {
            self.home.ask(self);
        }
    }

    /// Leaves `waiter` until the outcome is here, and has it come. What is left when it is, goes at once.
    pub(crate) fn tell(self: &Arc<Self>, waiter: Waiter) {
        self.settled.tell(waiter);
        self.ask();
    }

    /// What came of it; `waker` is left if it is not here.
    pub(crate) fn poll(self: &Arc<Self>, waker: &Waker) -> Option<&Settled> {
        if self.settled().is_none() {
            // Goes at once if it came meanwhile.
            self.tell(Waiter::Wake(waker.clone()));
        }
        self.settled()
    }
}

impl Slot {
    /// The long result `reference`, which is its outcome's; `waker` is left if it is not here. It is fetched by
    /// the first who asks.
    pub(super) fn poll_long(
        self: &Arc<Self>,
        reference: BlobRef,
        waker: &Waker,
    ) -> Option<&Fetched> {
        let mut first = false;
        let fetched = self.fetched.get_or_init(|| {
            first = true;
            Box::default()
        });
        if first {
            home::fetch(self, reference);
        }
        if fetched.get().is_none() {
            fetched.tell(Waiter::Wake(waker.clone()));
        }
        fetched.get()
    }

    /// A long result that somebody has asked for is here, or cannot be had.
    pub(crate) fn put_long(&self, long: Fetched) {
        self.fetched.get_or_init(Box::default).put(long);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let asked =
            !self.counted && self.comes.load(Ordering::Relaxed) && self.settled.get().is_none();
        if self.counted {
            self.home.let_go(self.of.task.batch);
        }
        if asked {
            self.home.forget(self.of);
        }
        // A long way of results in results is let go of step by step, not one inside the other.
        let mut origin = self.origin.take();
        while let Some(mut last) = origin.and_then(Arc::into_inner) {
            origin = last.origin.take();
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({}, {:?})", self.of.task, self.settled())
    }
}

/// What an outcome segment of one task says.
pub(crate) fn outcome_of(segment: &Bytes) -> Option<Outcome> {
    let segment = Segment::parse(segment.clone()).ok().filter(|segment| segment.tasks() == 1)?;
    let (tag, string) = segment.value(0)?;
    let bytes = segment.bytes().slice_ref(string);
    Some(Outcome { tag, codec: segment.codec(), bytes, arguments: None, arrays: Arc::default() })
}
