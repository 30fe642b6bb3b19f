//! What the task on this thread has to do with shared arrays: which files in place it uses, which of its arguments
//! are blobs, and why one of its handles was not found.

use std::cell::RefCell;
use std::sync::Arc;

use allhands_common::blob::Content;
use allhands_common::failure::Cause;

use super::mention;
use super::whole::Whole;
use crate::executor::context;

#[derive(Debug, Default)]
struct Task {
    /// Files in place that it uses: to be looked at again when it has ended.
    in_place: Vec<Arc<Whole>>,
    /// Its arguments that are blobs.
    lent: Vec<Arc<Whole>>,
    /// Why a handle was not found, or is not what it was.
    failure: Option<Cause>,
    /// It ends of that, whatever it says itself.
    refused: bool,
}

thread_local! {
    static TASK: RefCell<Task> = const {
        RefCell::new(Task { in_place: Vec::new(), lent: Vec::new(), failure: None, refused: false })
    };
}

/// Runs a task of which the arguments `lent` are blobs. `is_refused` says of what came of it whether one of its
/// arguments was.
///
/// # Errors
/// Why a handle was not found, if the task was refused for that; or a file in place that it used was changed: what
/// was computed from that is worth nothing.
#[inline]
pub(crate) fn run<R>(
    lent: Vec<Arc<Whole>>,
    run: impl FnOnce() -> R,
    is_refused: impl FnOnce(&R) -> bool,
) -> Result<R, Cause> {
    // A task may itself run tasks, inline: each has its own. One call of `run`, so that it is part of its caller.
    let outer = mention::is_needed().then(|| TASK.replace(Task { lent, ..Task::default() }));
    let ran = run();
    match outer {
        Some(outer) => end(TASK.replace(outer), ran, is_refused),
        None if mention::is_needed() => end(TASK.take(), ran, is_refused),
        // As a rule it has had no handle either.
        None => Ok(ran),
    }
}

fn end<R>(task: Task, ran: R, is_refused: impl FnOnce(&R) -> bool) -> Result<R, Cause> {
    if let Some(failure) = task.failure
        && (task.refused || is_refused(&ran))
    {
        return Err(failure);
    }
    task.in_place.iter().try_for_each(|file| file.check())?;
    Ok(ran)
}

/// What a task that goes from thread to thread has to do with shared arrays.
#[derive(Debug)]
pub(crate) struct Carried(Task);

impl Carried {
    /// Of a task of which the arguments `lent` are blobs.
    pub(crate) fn new(lent: Vec<Arc<Whole>>) -> Self {
        Self(Task { lent, ..Task::default() })
    }

    /// Runs a part of the task on this thread.
    pub(crate) fn during<R>(&mut self, run: impl FnOnce() -> R) -> R {
        let outer = TASK.replace(std::mem::take(&mut self.0));
        let ran = run();
        self.0 = TASK.replace(outer);
        ran
    }

    /// The task has ended: as [`run`].
    ///
    /// # Errors
    /// As [`run`].
    pub(crate) fn end<R>(
        &mut self,
        ran: R,
        is_refused: impl FnOnce(&R) -> bool,
    ) -> Result<R, Cause> {
        end(std::mem::take(&mut self.0), ran, is_refused)
    }
}

/// A handle was looked for.
pub(super) fn note(found: &Result<Arc<Whole>, Cause>) {
    // Elsewhere nobody would ask again.
    if !context::is_set() {
        return;
    }
    TASK.with_borrow_mut(|task| match found {
        Err(cause) => task.failure = Some(cause.clone()),
        Ok(whole) => task.uses(whole),
    });
}

impl Task {
    fn uses(&mut self, whole: &Arc<Whole>) {
        if whole.is_in_place() && !self.in_place.iter().any(|file| Arc::ptr_eq(file, whole)) {
            self.in_place.push(Arc::clone(whole));
        }
    }
}

/// Runs `read`, which decodes something for this task and those after it; with the files in place in it.
pub(crate) fn reading<R>(read: impl FnOnce() -> R) -> (R, Vec<Arc<Whole>>) {
    let before = TASK.with_borrow_mut(|task| std::mem::take(&mut task.in_place));
    let value = read();
    TASK.with_borrow_mut(|task| {
        let read = std::mem::replace(&mut task.in_place, before);
        read.iter().for_each(|whole| task.uses(whole));
        (value, read)
    })
}

/// The task uses what was read before it.
///
/// # Errors
/// A file in place is not what it was.
pub(crate) fn uses_again(files: &[Arc<Whole>]) -> Result<(), Cause> {
    files.iter().try_for_each(|file| file.check())?;
    TASK.with_borrow_mut(|task| files.iter().for_each(|file| task.uses(file)));
    Ok(())
}

/// The task cannot go on: it ends of the handle that was not found, or of `cause`.
pub(crate) fn refuse(cause: Option<Cause>) {
    TASK.with_borrow_mut(|task| {
        task.refused = true;
        if cause.is_some() {
            task.failure = cause;
        }
    });
}

/// What an argument is a blob of, if it is one.
#[inline]
pub(crate) fn lent_at(bytes: &[u8]) -> Option<Content> {
    if !mention::is_needed() {
        return None;
    }
    TASK.with_borrow(|task| {
        let is_it = |whole: &&Arc<Whole>| std::ptr::eq(bytes, whole.all());
        task.lent.iter().find(is_it).map(|whole| whole.content())
    })
}
