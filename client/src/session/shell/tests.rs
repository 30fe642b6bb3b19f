//! A session's loop without a cluster: when who waits is told, and that it sleeps otherwise.

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::unbounded_channel;

use super::*;
use crate::session::thread::{Stay, config};

/// A session that is about to begin with `peers` coordinators, and what it hears of its links.
fn beginning(peers: usize) -> (Beginning, UnboundedSender<LinkEvent>) {
    let (events, links) = unbounded_channel();
    let cluster = allhands_common::id::ClusterId([9; 16]);
    let (config, executable) =
        config(cluster, Stay::ATTACHED, Duration::from_secs(30), Executable::hashed()).unwrap();
    (Beginning { config, executable, data: Data::Nowhere(cluster), peers, links }, events)
}

fn down(peer: usize, retry_can_help: bool) -> LinkEvent {
    let why = NoLink { cause: format!("cause {peer}"), retry_can_help };
    LinkEvent::Down { peer: Peer(peer), why }
}

/// Tells a session of its links while somebody waits for as long as `patience`; what he learns.
fn waited(patience: Duration, events: Vec<LinkEvent>) -> Vec<Option<NoLink>> {
    let (beginning, sender) = beginning(2);
    let session = Arc::new(Session::default());
    let own = Arc::clone(&session);
    let lives = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(own, beginning));
    });
    events.into_iter().for_each(|event| sender.send(event).unwrap());
    let causes = session.wait_attached(patience).unwrap_err();
    session.close();
    lives.join().unwrap();
    causes
}

/// Far longer than it takes to be told.
const FOR_EVER: Duration = Duration::from_secs(60);

#[test]
fn who_is_refused_everywhere_does_not_wait() {
    let begun = std::time::Instant::now();
    // The first was silent before it refused, the second the other way round, and refused again.
    let events = vec![down(0, true), down(1, false), down(1, true), down(0, false), down(1, false)];
    let causes = waited(FOR_EVER, events);
    assert!(causes.iter().flatten().all(|cause| !cause.retry_can_help), "{causes:?}");
    assert!(begun.elapsed() < FOR_EVER);
}

#[test]
fn who_is_refused_by_some_waits_for_the_others() {
    let patience = Duration::from_millis(200);
    for events in [vec![down(0, false)], vec![down(0, false), down(1, true)]] {
        let begun = std::time::Instant::now();
        waited(patience, events);
        assert!(begun.elapsed() >= patience);
    }
}

#[test]
fn a_link_that_stands_is_no_refusal() {
    let patience = Duration::from_millis(200);
    let begun = std::time::Instant::now();
    let (out, _heard) = unbounded_channel();
    let up = LinkEvent::Up { peer: Peer(0), coordinator: None, out };
    let causes = waited(patience, vec![down(0, false), up, down(1, false)]);
    let first = causes.first().and_then(Option::as_ref);
    assert!(begun.elapsed() >= patience && first.is_none(), "{causes:?}");
}

#[test]
fn who_waits_for_nothing_does_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (beginning, _events) = beginning(1);
    let waits = run(Arc::default(), beginning);
    let used = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let before = used();
    let ended =
        runtime.block_on(async { tokio::time::timeout(Duration::from_millis(300), waits).await });
    assert!(ended.is_err());
    let used = used() - before;
    assert!(used < Duration::from_millis(100), "{used:?} of a core in 300 ms");
}
