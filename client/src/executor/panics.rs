//! Panics of tasks: where, what, and on which way.
//!
//! Only the hook sees a panic's place, so it notes what it sees for the thread; outside of tasks it
//! passes on to the hook that was there before, which prints.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use allhands_common::failure::Cause;

/// Panics of one process that get a backtrace: finding names takes a millisecond, and the backtrace
/// of the thousandth equal panic tells nobody anything.
const BACKTRACES_MAX: u32 = 32;

/// Kept length of a backtrace and of a message, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

static BACKTRACES: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
    static NOTED: RefCell<Option<Noted>> = const { RefCell::new(None) };
}

struct Noted {
    location: String,
    backtrace: String,
}

/// Puts the hook in place, once in a process.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(
            move |info| {
                if IN_TASK.get() { note(info) } else { before(info) }
            },
        ));
    });
}

/// Calls `task`; what it panicked with is the error.
#[inline]
pub(crate) fn catch<T>(task: impl FnOnce() -> T) -> Result<T, Cause> {
    // A task may itself run tasks inline.
    let outer = IN_TASK.replace(true);
    // What a panic leaves behind is the task's own: its buffer is cleared by the caller.
    let answer = catch_unwind(AssertUnwindSafe(task)).map_err(cause);
    IN_TASK.set(outer);
    answer
}

fn note(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = if BACKTRACES.fetch_add(1, Ordering::Relaxed) < BACKTRACES_MAX {
        shorten(&Backtrace::force_capture().to_string())
    } else {
        String::new()
    };
    NOTED.set(Some(Noted { location, backtrace }));
}

#[cold]
fn cause(payload: Box<dyn Any + Send>) -> Cause {
    let text = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".to_owned());
    // Its destructor is the user's and may panic in turn.
    _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    let noted = NOTED.take();
    let unknown = || "an unknown place (the program has replaced the panic hook)".to_owned();
    let (location, backtrace) =
        noted.map_or_else(|| (unknown(), String::new()), |noted| (noted.location, noted.backtrace));
    Cause::Panicked { message: cut(text), location, backtrace }
}

/// The frames between the panic's machinery and ours.
fn shorten(full: &str) -> String {
    let mut frames: Vec<String> = Vec::new();
    for line in full.lines() {
        match line.trim_start().split_once(": ") {
            Some((number, name)) if number.parse::<u32>().is_ok() => frames.push(name.to_owned()),
            _ => {
                if let Some(frame) = frames.last_mut() {
                    frame.push_str("\n    ");
                    frame.push_str(line.trim());
                }
            }
        }
    }
    let begins = |frame: &String| frame.contains("begin_unwind") || frame.contains("begin_panic");
    let machinery = |frame: &&String| {
        begins(frame) || frame.starts_with("core::panicking::") || frame.starts_with("std::panic")
    };
    // A release build names inlined frames without their path, but with their file.
    let ours = |frame: &&String| {
        let names = ["allhands::executor::", "allhands::entry::", "client/src/function.rs"];
        names.iter().any(|name| frame.contains(name))
    };
    let first = frames.iter().position(begins).unwrap_or(0);
    let users: Vec<&str> = frames[first..]
        .iter()
        .skip_while(machinery)
        .take_while(|frame| !ours(frame))
        .map(String::as_str)
        .collect();
    cut(users.join("\n"))
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_is_what_lies_between_the_panic_and_the_executor() {
        let full = "   0: std::backtrace::Backtrace::create\n   1: rust_begin_unwind\n   1: core::panicking::panic_fmt\n   \
                    2: app::inner\n             at src/main.rs:7:5\n   3: app::task\n   4: \
                    allhands::executor::call::run\n   5: main\n";
        assert_eq!(shorten(full), "app::inner\n    at src/main.rs:7:5\napp::task");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = cut("ä".repeat(TEXT_BYTES_MAX));
        assert!(text.len() <= TEXT_BYTES_MAX + 3 && text.ends_with('…'));
    }
}
