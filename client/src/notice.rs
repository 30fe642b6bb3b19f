//! What a program's user is told beside its results: lines on the standard error.

use std::fmt::Display;
use std::io::Write;

/// Says it. A closed standard error is no reason to fail a call.
pub(crate) fn notice(text: impl Display) {
    _ = writeln!(std::io::stderr(), "allhands: {text}");
}
