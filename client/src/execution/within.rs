//! Executions inside a task: the executor's worker takes the calls and brings the outcomes.
//!
//! An outcome comes while the task waits for it, and what one task has waited for another of the same process does
//! not have to ask for again while somebody has the handle.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use allhands_common::execution::Awaited;
use allhands_common::id::{ClusterId, TaskId};
use allhands_common::limit::MENTIONS_MAX;
use allhands_common::segment::{SegmentBuilder, argument_tag};

use super::Encoded;
use super::home::Home;
use super::signal::Signal;
use super::slot::{Beginning, Settled, Slot, outcome_of};
use crate::error::{Error, ErrorKind, Finished, Reason, Result, RunError};
use crate::executor::tasks::{self, NotHere};
use crate::session::submits::{CALL_BYTES_MAX, MENTION_BYTES};

/// How long a task that only looks whether an outcome is there waits for the cluster to say so: the way there and
/// back, on a busy network.
const GLANCE: Duration = Duration::from_millis(50);

/// Calls a function from the task of this thread.
pub(super) fn submit(call: &Encoded<'_>) -> Result<Arc<Slot>> {
    let name = call.function()?;
    let label = call.entry.label();
    let bytes = call.arguments.bytes() + call.needs.len() * MENTION_BYTES;
    if call.needs.len() > MENTIONS_MAX {
        let (named, limit) = (call.needs.len(), MENTIONS_MAX);
        return Err(Error::new(ErrorKind::TooManyNamed { function: label, named, limit }));
    }
    if bytes > CALL_BYTES_MAX {
        let what = format!("the call of {label} from a task: its arguments");
        let reason = Reason::TooLarge { what, bytes, limit: CALL_BYTES_MAX };
        return Err(RunError::new(reason, Finished::default()).into());
    }
    let mut builder = SegmentBuilder::new(call.arguments.codec().byte());
    builder.push(argument_tag(0, call.arguments.stand_ins()), call.arguments.iter());
    let segment = builder.finish();
    let mut hasher = blake3::Hasher::new_derive_key("allhands 2026 call of a task");
    hasher.update(&name.module.to_le_bytes());
    hasher.update(&name.offset.to_le_bytes());
    hasher.update(&segment);
    let mentions = call.needs.iter().map(|named| named.mention(0)).collect();
    let hash = *hasher.finalize().as_bytes();
    let batch = tasks::submit(hash, call.spec(name), segment, mentions).map_err(not_here)?;
    Ok(Slot::new(Beginning {
        of: Awaited { task: TaskId { batch, index: 0 }, follow: false },
        cluster: ClusterId::default(),
        home: Home::Task,
        returns: None,
        function: Some(call.entry),
        origin: None,
        flattens: false,
        counted: false,
        comes: false,
    }))
}

/// Has the outcome of `slot` put into it when it comes.
pub(super) fn ask(slot: &Arc<Slot>) {
    let slot: Weak<Slot> = Arc::downgrade(slot);
    let of = slot.upgrade().map(|slot| slot.of());
    let told = move |segment: bytes::Bytes| {
        if let (Some(slot), Some(outcome)) = (slot.upgrade(), outcome_of(&segment)) {
            slot.settle(Settled::Outcome(outcome));
        }
    };
    if let Some(of) = of {
        tasks::ask(of, Box::new(told));
    }
}

/// Waits in the task of this thread, which lets go of its slot, until `signal` is given, for one of `on`.
///
/// # Errors
/// It cannot wait, or was cancelled meanwhile.
pub(super) fn park(
    signal: &Arc<Signal>,
    on: Vec<Awaited>,
    deadline: Option<Instant>,
) -> std::result::Result<bool, NotHere> {
    let wakes = Arc::clone(signal);
    tasks::block(on, Box::new(move || wakes.give()), || signal.wait(deadline))
}

/// Waits a moment for the outcome of `slot`, if it is not here.
pub(super) fn glance(slot: &Arc<Slot>) {
    if slot.settled().is_some() {
        return;
    }
    let deadline = Instant::now() + GLANCE;
    Signal::with_own(|signal, waker| {
        if slot.poll(waker).is_none() {
            // Where it cannot wait it does not know.
            _ = park(signal, vec![slot.of()], Some(deadline));
        }
    });
}

/// Why a task cannot call another.
pub(super) fn not_here(error: NotHere) -> Error {
    Error::new(ErrorKind::InTask(error))
}
