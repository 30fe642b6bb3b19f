//! Asking leaders for results.

use super::*;

#[test]
fn who_has_a_result_is_asked_of_each_leader_until_nobody_waits() {
    let mut bench = Bench::new();
    let blob = |number| BlobId([number; 32]);
    let want = |number| FromClient::WantBlob { blob: blob(number) };
    assert_eq!(bench.step(Event::Want { blob: blob(1) }), []);
    bench.step(Event::LinkUp { peer: LEADER, coordinator: Some(CoordinatorId(1)) });
    let attached = |term| ToClient::Attached { term: Term(term), batches: Vec::new(), slots: 2 };
    let actions = bench.hear(attached(1));
    assert!(actions.contains(&Action::AskedAnew));
    assert_eq!(said(&actions), [&want(1)]);
    assert_eq!(said(&bench.step(Event::Want { blob: blob(2) })), [&want(2)]);
    assert_eq!(said(&bench.step(Event::Want { blob: blob(2) })), [&want(2)], "and once more");
    let holders = |number| ToClient::Holders { blob: blob(number), holders: Vec::new() };
    let heard = Action::Holders { blob: blob(2), holders: Vec::new() };
    assert_eq!(bench.hear(holders(2)), [heard]);
    let unwant = FromClient::UnwantBlob { blob: blob(2) };
    assert_eq!(said(&bench.step(Event::Unwant { blob: blob(2) })), [&unwant]);
    assert_eq!(bench.step(Event::Unwant { blob: blob(2) }), []);
    assert_eq!(bench.hear(holders(2)), [], "too late");
    assert_eq!(said(&bench.hear(attached(2))), [&want(1)]);
    bench.step(Event::Unwant { blob: blob(1) });
    assert!(!bench.hear(attached(3)).contains(&Action::AskedAnew));
}
