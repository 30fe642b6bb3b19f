//! Broadcasts, slices and faults in simulated time, over the exchanges that the shell drives too.
//!
//! A case is its seed: it decides bandwidths, latencies and faults. A failure prints it;
//! `SEED=n cargo test -p allhands-transfer --test sim` runs that one alone; `PROPTEST_RNG_SEED=n` draws
//! other seeds than the fixed ones. With 12589887055499032671 the source of a broadcast in which a holder
//! dies sends 1.266 copies, beyond the bound of 1.25: known, and not mended yet.

#![expect(clippy::print_stdout, reason = "figures are one of its products")]

mod world;

use std::time::Duration;

use allhands_transfer::exchange::{Config, Unfetched};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use world::{CHUNK, Faults, Setup, World};

const CHUNKS: u32 = 256;
const BLOB: u64 = CHUNKS as u64 * CHUNK;
const WORKERS: usize = 8;

/// Node 0 has the blob; `WORKERS` others want all of it.
fn broadcast(seed: u64, faults: Faults, config: Config) -> World {
    let setup = Setup { seed, nodes: WORKERS + 1, chunks: CHUNKS, faults, config };
    let mut world = World::new(setup);
    for worker in 1..=WORKERS {
        world.want(worker, None, &[0]);
    }
    world.run();
    world
}

fn assert_all_done(world: &World, but: &[usize]) {
    for worker in (1..=WORKERS).filter(|worker| !but.contains(worker)) {
        assert_eq!(world.results(worker), [Ok(())], "worker {worker}, seed {}", world.seed());
        assert_eq!(world.chunks_at(worker), CHUNKS);
    }
}

fn ratio(bytes: u64) -> f64 {
    bytes as f64 / BLOB as f64
}

fn seeds() -> impl Strategy<Value = u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => Just(seed).boxed(),
        None => any::<u64>().boxed(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 0, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Default::default() })]

    #[test]
    fn a_broadcast_leaves_its_source_about_once(seed in seeds()) {
        let world = broadcast(seed, Faults::default(), Config::default());
        assert_all_done(&world, &[]);
        let sent = ratio(world.sent(0));
        prop_assert!(sent <= 1.25, "the source sent {sent:.3} copies, seed {seed}");
        for worker in 1..=WORKERS {
            let received = ratio(world.received(worker));
            prop_assert!(received <= 1.02, "{worker} received {received:.3} copies, seed {seed}");
        }
    }

    #[test]
    fn a_holder_that_dies_in_mid_broadcast_is_replaced(seed in seeds()) {
        let faults = Faults { deaths: vec![(3, 0.4)], ..Faults::default() };
        let world = broadcast(seed, faults, Config::default());
        assert_all_done(&world, &[3]);
        prop_assert!(world.died(3), "nobody died, seed {seed}");
        let sent = ratio(world.sent(0));
        prop_assert!(sent <= 1.25, "the source sent {sent:.3} copies, seed {seed}");
        for worker in (1..=WORKERS).filter(|worker| *worker != 3) {
            let received = ratio(world.received(worker));
            prop_assert!(received <= 1.02, "{worker} received {received:.3} copies, seed {seed}");
        }
    }

    #[test]
    fn lost_requests_are_made_again(seed in seeds()) {
        let faults = Faults { loss: 0.02, ..Faults::default() };
        let world = broadcast(seed, faults, Config::default());
        assert_all_done(&world, &[]);
        let sent = ratio(world.sent(0));
        prop_assert!(sent <= 1.5, "the source sent {sent:.3} copies, seed {seed}");
        prop_assert!(world.lost() > 0, "nothing was lost, seed {seed}");
    }

    #[test]
    fn a_holder_of_wrong_bytes_is_reported_and_asked_no_more(seed in seeds()) {
        let faults = Faults { liars: vec![5], ..Faults::default() };
        let world = broadcast(seed, faults, Config::default());
        assert_all_done(&world, &[]);
        for worker in (1..=WORKERS).filter(|worker| *worker != 5) {
            let received = ratio(world.received(worker));
            // What it owed when the first wrong chunk came is wasted, and no more.
            let wasted = f64::from(Config::default().peer_chunks_max) / f64::from(CHUNKS);
            prop_assert!(received <= 1.02 + wasted, "{worker}: {received:.3}, seed {seed}");
            prop_assert!(world.reports(worker).iter().all(|peer| *peer == 5));
            prop_assert!(world.reports(worker).len() <= 1);
        }
        prop_assert!((1..=WORKERS).any(|worker| world.reports(worker) == [5]), "seed {seed}");
    }

    #[test]
    fn everything_at_once(seed in seeds()) {
        let faults = Faults {
            deaths: vec![(2, 0.2), (6, 0.7)],
            loss: 0.01,
            liars: vec![4],
            stalls: vec![7],
        };
        let world = broadcast(seed, faults, Config::default());
        assert_all_done(&world, &[2, 6]);
    }

    #[test]
    fn slices_travel_once(seed in seeds()) {
        let faults = Faults::default();
        let config = Config::default();
        let setup = Setup { seed, nodes: WORKERS + 1, chunks: CHUNKS, faults, config };
        let mut world = World::new(setup);
        let slice = BLOB / WORKERS as u64;
        for worker in 1..=WORKERS {
            let start = (worker as u64 - 1) * slice;
            // Not at the chunks' edges.
            world.want(worker, Some(start + 1..start + slice - 1), &[0]);
        }
        world.run();
        for worker in 1..=WORKERS {
            prop_assert_eq!(world.results(worker), [Ok(())], "seed {}", seed);
        }
        let total: u64 = (0..=WORKERS).map(|node| world.sent(node)).sum();
        prop_assert!(ratio(total) <= 1.05, "{:.3} copies travelled, seed {seed}", ratio(total));
    }

    #[test]
    fn a_late_comer_takes_it_from_everybody(seed in seeds()) {
        let faults = Faults::default();
        let config = Config::default();
        let setup = Setup { seed, nodes: 5, chunks: CHUNKS, faults, config };
        let mut world = World::new(setup);
        for holder in 1..4 {
            world.fill(holder);
        }
        world.want(4, None, &[0, 1, 2, 3]);
        world.run();
        prop_assert_eq!(world.results(4), [Ok(())]);
        for holder in 0..4 {
            let sent = ratio(world.sent(holder));
            prop_assert!((0.1..0.5).contains(&sent), "{holder} sent {sent:.3}, seed {seed}");
        }
    }

    #[test]
    fn without_a_holder_it_ends_and_says_so(seed in seeds()) {
        let faults = Faults { deaths: vec![(0, 0.3)], ..Faults::default() };
        let world = broadcast(seed, faults, Config::default());
        for worker in 1..=WORKERS {
            match world.results(worker) {
                [Ok(())] => prop_assert_eq!(world.chunks_at(worker), CHUNKS),
                [Err(Unfetched::Lost { holders })] => prop_assert!(!holders.is_empty()),
                other => prop_assert!(false, "{worker} ended {other:?}, seed {seed}"),
            }
        }
        // What was out there when the source died reached everybody.
        let have: Vec<u32> = (1..=WORKERS).map(|worker| world.chunks_at(worker)).collect();
        prop_assert!(have.iter().all(|chunks| *chunks == have[0]), "{have:?}, seed {seed}");
    }
}

/// Two that want the same chunk of one node share a request, and two that want it of one source share its
/// copy.
#[test]
fn waiters_share_requests() {
    let (faults, config) = (Faults::default(), Config::default());
    let mut world = World::new(Setup { seed: 1, nodes: 2, chunks: 16, faults, config });
    world.want(1, Some(0..10 * CHUNK), &[0]);
    world.want(1, Some(5 * CHUNK..16 * CHUNK), &[0]);
    world.want(1, Some(3..3), &[0]);
    world.run();
    assert_eq!(world.results(1), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(world.received(1), 16 * CHUNK);
}

#[test]
fn a_want_has_a_deadline() {
    let (faults, config) = (Faults { stalls: vec![0], ..Faults::default() }, Config::default());
    let mut world = World::new(Setup { seed: 1, nodes: 2, chunks: 16, faults, config });
    world.want_within(1, None, &[0], Duration::from_millis(700));
    world.run();
    assert_eq!(world.results(1), [Err(Unfetched::Late { missing: None })]);
}

#[test]
fn a_source_that_never_answers_is_given_up() {
    let (faults, config) = (Faults { stalls: vec![0], ..Faults::default() }, Config::default());
    let mut world = World::new(Setup { seed: 1, nodes: 2, chunks: 16, faults, config });
    world.want(1, None, &[0]);
    world.run();
    assert!(matches!(world.results(1), [Err(Unfetched::Lost { .. })]), "{:?}", world.results(1));
}

/// The sanity check: a pipelined broadcast takes about as long as one copy, a naive one as many as there are
/// workers.
#[test]
fn a_broadcast_is_several_times_as_fast_as_from_the_source_alone() {
    for seed in [1, 2, 3] {
        let ours = broadcast(seed, Faults::default(), Config::default());
        let alone = Config { redirect: Duration::ZERO, holders_max: 1, ..Config::default() };
        let naive = broadcast(seed, Faults::default(), alone);
        assert_all_done(&naive, &[]);
        assert!(ratio(naive.sent(0)) > 7.9);
        println!(
            "seed {seed}: {} steps, the source sent {:.3} copies",
            ours.steps(),
            ratio(ours.sent(0))
        );
        let (ours, naive) = (ours.now().as_secs_f64(), naive.now().as_secs_f64());
        println!("seed {seed}: {ours:.2} s, from the source alone {naive:.2} s");
        assert!(ours * 3.0 < naive, "{ours} s, from the source alone {naive} s, seed {seed}");
    }
}

/// A run is a function of its seed.
#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let faults = Faults { loss: 0.02, deaths: vec![(1, 0.5)], ..Faults::default() };
        let world = broadcast(42, faults, Config::default());
        (0..=WORKERS).map(|node| (world.sent(node), world.received(node))).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
