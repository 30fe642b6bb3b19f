//! Writers without a cluster of other processes.

use super::*;

#[test]
fn a_writer_says_what_it_is() {
    assert_eq!(
        format!("{:?}", failed_before()),
        "a shared array cannot be had: it could not be written before"
    );
}
