//! Entering the executor, and knowing whether that was done.
//!
//! A worker starts the user's program again to be an executor. What makes the difference is the first
//! statement of `main` (or of a test): it never returns in a process that a worker started. Whoever
//! forgets it would start a copy of the whole program for each slot; so the client looks at a flag
//! before it lets anything be started.

use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result};
use crate::executor;

/// Arguments with which this program, started again, comes to the statement that enters.
static ENTERED: OnceLock<Vec<String>> = OnceLock::new();

/// Becomes an executor, and never returns, if a worker started this process to be one. To be called
/// first in `main`; [`#[allhands::main]`](macro@crate::main) does it, and calls
/// [`shutdown`](crate::shutdown) last.
pub fn init() {
    executor::enter_if_executor();
    ENTERED.get_or_init(Vec::new);
}

/// The same for the whole of `main`.
pub fn enter_main() -> Entered {
    init();
    Entered
}

/// Ends what calls have started when `main` is left, with whatever result.
#[derive(Debug)]
#[must_use = "`main` is left when this is dropped"]
pub struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        crate::shutdown();
    }
}

/// The same for the test `path`, whose binary runs that test alone if it is told so.
pub fn enter_test(path: &str) {
    executor::enter_if_executor();
    ENTERED.get_or_init(|| test_arguments(path));
}

/// The path of a test begins with its crate, which the harness leaves out.
fn test_arguments(path: &str) -> Vec<String> {
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    let flags = ["--include-ignored", "--nocapture", "--quiet", "--test-threads=1"];
    ["--exact", name].into_iter().chain(flags).map(str::to_owned).collect()
}

/// Whether executors of this program would enter; the arguments with which they do.
///
/// # Errors
/// They would not, or this process is one.
pub(crate) fn check() -> Result<Vec<String>> {
    executor::refuse_cluster_api();
    if executor::is_executor() {
        return Err(Error::new(ErrorKind::InExecutor));
    }
    ENTERED.get().cloned().ok_or_else(|| Error::new(ErrorKind::NotInitialised))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_as_its_harness_names_it() {
        let arguments = test_arguments("my_crate::tests::inner::works");
        assert_eq!(arguments[..2], ["--exact", "tests::inner::works"]);
    }

    #[test]
    fn forgotten_it_is_said_before_anything_starts() {
        let error = check().unwrap_err().to_string();
        assert!(error.contains("allhands::init() was not called"), "{error}");
        assert!(
            error.contains("#[allhands::main]") && error.contains("#[allhands::test]"),
            "{error}"
        );
    }
}
