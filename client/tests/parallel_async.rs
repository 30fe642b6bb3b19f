//! Async code and several threads on one embedded cluster.

use allhands::prelude::*;
use futures_util::StreamExt;

fn square(n: u64) -> u64 {
    n * n
}

#[allhands::test]
#[tokio::main(flavor = "current_thread")]
async fn a_batch_is_a_future_and_a_stream() {
    let squares = Parallel::new().start((0..1000).map(delayed(square))).unwrap().await.unwrap();
    assert_eq!(squares[999], 998_001);
    let mut batch = Parallel::new().start((0..1000).map(delayed(square))).unwrap();
    let mut seen = vec![false; 1000];
    while let Some((place, result)) = batch.next().await {
        assert_eq!(result.unwrap(), square(place as u64));
        assert!(!std::mem::replace(&mut seen[place], true), "{place} came twice");
    }
    assert!(seen.into_iter().all(|seen| seen));
    // Blocking calls work inside of a runtime.
    assert_eq!(Parallel::new().run([delayed(square)(4)]).unwrap(), [16]);
}

#[allhands::test]
fn many_small_batches_on_their_way_at_once() {
    let parallel = Parallel::new();
    let batches: Vec<_> =
        (0..500u64).map(|n| parallel.start([delayed(square)(n)]).unwrap()).collect();
    for (n, batch) in (0..).zip(batches) {
        assert_eq!(batch.wait().unwrap(), [square(n)]);
    }
}

#[allhands::test]
fn threads_share_the_cluster_and_do_not_disturb_each_other() {
    let parallel = Parallel::new();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let parallel = &parallel;
            scope.spawn(move || {
                for round in 0..10 {
                    let from = thread * 1000 + round;
                    let squares = parallel.run((from..from + 100).map(delayed(square))).unwrap();
                    assert_eq!(squares[7], square(from + 7));
                }
            });
        }
    });
}
