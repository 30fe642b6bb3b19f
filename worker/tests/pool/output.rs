//! What executors print.

use allhands::delayed;
use allhands_common::segment::DONE;
use allhands_worker::pool::output::Stream;

use crate::support::{calls, with_pool};

const LINE: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678";

#[expect(clippy::print_stdout, reason = "that is what is tested")]
fn flood(megabytes: usize) -> usize {
    let lines = megabytes * 1_000_000 / (LINE.len() + 1);
    (0..lines).for_each(|_| println!("{LINE}"));
    lines
}

fn ends(n: u32) -> u32 {
    n
}

/// The sink takes four pieces at a time: what is in flight is bounded by that and the pipe.
#[test]
fn a_flood_is_forwarded_in_whole_lines_and_never_piles_up() {
    with_pool("output::a_flood_is_forwarded_in_whole_lines_and_never_piles_up", async |rig| {
        let executor = rig.executor(1).await;
        let calls = calls([delayed(flood)(100)]);
        rig.load(executor, 1, &calls);
        let expected = 100_000_000 / (LINE.len() + 1);
        let mut lines = 0;
        while lines < expected {
            let written = rig.output.recv().await.unwrap();
            assert!(written.lines.len() <= 128 << 10, "{} bytes in a piece", written.lines.len());
            for line in written.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                // The test runner of the executor prints a little of its own.
                if line.starts_with(b"0123456789") {
                    assert_eq!(line, LINE.as_bytes());
                    assert_eq!((written.stream, written.executor), (Stream::Out, executor));
                    lines += 1;
                }
            }
        }
        assert_eq!(rig.finish(1).await[&0].0, DONE);
    });
}

/// Nobody takes what the first executor prints; the second one's tasks do not notice.
#[test]
fn a_sink_that_does_not_read_holds_up_only_who_prints() {
    with_pool("output::a_sink_that_does_not_read_holds_up_only_who_prints", async |rig| {
        let (loud, quiet) = (rig.executor(1).await, rig.executor(2).await);
        rig.load(loud, 1, &calls([delayed(flood)(100)]));
        rig.load(quiet, 2, &calls((0..100).map(delayed(ends))));
        assert_eq!(rig.finish(2).await.len(), 100);
    });
}
