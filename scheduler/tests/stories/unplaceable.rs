//! Work that no worker can hold.

use allhands_common::failure::Cause;
use allhands_common::id::{JobId, RequestId};
use allhands_common::policy::Policy;
use allhands_common::program::{Platform, Program, ProgramId};
use allhands_common::resources::Resources;
use allhands_common::wire::client::FromClient;

use crate::support::*;

fn needs_a_gpu() -> Policy {
    let resources = Resources::cpus(1).with("gpu", 1);
    Policy { resources, batch_size: Some(1), ..Policy::default() }
}

/// What a task of batch 0 ended of, which no worker can hold.
fn lacks(leader: &Leader, index: u32) -> String {
    match leader.failure(0, index).cause {
        Cause::Unplaceable { message } => message,
        other => panic!("{other}"),
    }
}

#[test]
fn what_no_worker_can_hold_ends_soon_and_says_what_is_missing() {
    let mut leader = Leader::with_workers(2, 1);
    leader.submit(0, 3, needs_a_gpu());
    assert_eq!(delivered(&leader.live(&[1, 2], 4900)), []);
    assert_eq!(delivered(&leader.live(&[1, 2], 200)), [(0, range(0, 3))]);
    assert_eq!(
        lacks(&leader, 2),
        "worker host1: needs 1 gpu, has 0; worker host2: needs 1 gpu, has 0"
    );
    assert!(leader.state.batches[&batch(0)].over());
    leader.submit(1, 1, needs_a_gpu());
    assert_eq!(delivered(&leader.live(&[1, 2], 5100)), [(0, range(0, 1))], "the next one as well");
}

#[test]
fn a_program_for_another_platform_ends_soon() {
    let mut leader = Leader::with_workers(1, 1);
    let platform = Platform { arch: "aarch64".into(), os: "linux".into(), glibc: None };
    let foreign = Program { id: ProgramId([8; 32]), platform, ..program() };
    let (request, name) = (RequestId(1), "job".into());
    leader.client(FromClient::OpenJob { request, program: foreign, name, detached: None });
    leader.submit_in(JobId(1), 0, 1, Policy::default());
    leader.live(&[1], 5100);
    assert!(lacks(&leader, 0).contains("built for aarch64-linux"), "{}", lacks(&leader, 0));
}

#[test]
fn a_worker_that_joins_meanwhile_takes_it() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, needs_a_gpu());
    leader.live(&[1], 3000);
    let actions = leader.register(2, Resources::cpus(1).with("gpu", 1), Vec::new());
    assert_eq!(runs(&actions), [(2, attempt(0), range(0, 1))]);
    assert_eq!(delivered(&leader.live(&[1, 2], 9000)), []);
}

#[test]
fn without_any_worker_it_waits() {
    let mut leader = Leader::with_workers(0, 0);
    leader.submit(0, 1, needs_a_gpu());
    assert_eq!(delivered(&leader.wait(14_000)), []);
    leader.client(FromClient::Alive);
    leader.register(1, Resources::cpus(1), Vec::new());
    assert_eq!(delivered(&leader.live(&[1], 4900)), [], "the grace begins with a worker");
    assert_eq!(delivered(&leader.live(&[1], 200)), [(0, range(0, 1))]);
}

#[test]
fn what_can_be_held_is_not_touched() {
    let mut leader = Leader::with_workers(1, 1);
    leader.register(2, Resources::cpus(1).with("gpu", 1), Vec::new());
    leader.submit(0, 9, needs_a_gpu());
    assert_eq!(delivered(&leader.live(&[1, 2], 9000)), [], "the others wait for the one gpu");
}
