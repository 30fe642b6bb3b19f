//! What workers' daemons hold, who sees it, and who gets it from them.

use std::path::{Path, PathBuf};

use allhands_common::id::{BlobId, BootId, ClusterId, WorkerId};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::identity::Identity;
use allhands_common::net::{local, place};
use allhands_common::resources::Resources;
use allhands_scheduler::AgentConfig;
use allhands_store::blobs::Store;
use allhands_worker::blobs::Blobs;
use allhands_worker::fetch::{self, Bulk};
use allhands_worker::pool::{Launch, Stored, output as printed};
use allhands_worker::{Config, Coordinators, platform};
use serde_json::Value;

use crate::support::{Dev, allhands, eventually, kill_9, output};

/// More than nothing, less than a disk.
const QUOTA_BYTES: u64 = 1 << 30;

fn blobs(dev: &Dev) -> Value {
    serde_json::from_str(&output(&mut dev.ask(["blobs", "--json"]))).unwrap()
}

fn holders(dev: &Dev, blob: &str) -> Option<Vec<(String, bool)>> {
    let all = blobs(dev);
    let known = all["blobs"].as_array().unwrap().iter().find(|known| known["blob"] == blob)?;
    let holder = |one: &Value| (one["name"].as_str().unwrap().into(), one["whole"] == true);
    Some(known["workers"].as_array().unwrap().iter().map(holder).collect())
}

/// Puts a blob into the store of a worker that does not run.
fn put(dev: &Dev, worker: &str, bytes: &[u8]) -> BlobId {
    let cluster: ClusterId = dev.status().unwrap()["cluster"].as_str().unwrap().parse().unwrap();
    let dir = dev.dir().join("data").join(worker).join("blobs");
    // The kernel frees the lock of a process that was killed a moment after that.
    let store = eventually("the store is free", || Store::open(&dir, cluster, QUOTA_BYTES).ok());
    store.put_bytes(bytes).unwrap().id()
}

#[test]
fn a_daemon_gives_what_it_holds_to_another_worker() {
    let dev = Dev::start(&["--coordinators", "3", "--workers", "2"]);
    assert_eq!(output(&mut dev.ask(["blobs", "--json"])), "{\"blobs\":[],\"more\":0}\n");
    let content: Vec<u8> = (0..5_000_000u32).flat_map(u32::to_le_bytes).collect();
    for worker in ["worker-1", "worker-2"] {
        kill_9(dev.pid(worker));
    }
    let blob = put(&dev, "worker-1", &content);
    assert_eq!(put(&dev, "worker-2", &content), blob);
    let one = dev.start_again("worker-1");
    let two = dev.start_again("worker-2");
    let id = blob.to_string();
    let both = [("worker-1".to_owned(), true), ("worker-2".to_owned(), true)];
    eventually("both are known to hold it", || {
        let mut holders = holders(&dev, &id)?;
        holders.sort();
        (holders == both).then_some(())
    });
    let people = output(&mut dev.ask(["blobs"]));
    assert!(people.contains(&id) && people.contains("worker-1"), "{people}");

    // One of those that the leader names is dead, and the leader does not know.
    drop(one);
    output(allhands(["init"]).arg(dev.dir()).args(["--add", "worker:extra"]));
    let dir = dev.dir().to_owned();
    let length = content.len();
    let got = std::thread::spawn(move || fetch_as_extra(&dir, blob, length)).join().unwrap();
    assert!(got == content);
    drop(two);
}

/// Takes part as a third worker, and fetches a blob; its bytes.
fn fetch_as_extra(dir: &Path, blob: BlobId, length: usize) -> Vec<u8> {
    let identity = Identity::load(&dir.join("extra")).unwrap();
    let own = dir.join("data").join("extra");
    for part in ["programs", "blobs", "scratch"] {
        std::fs::create_dir_all(own.join(part)).unwrap();
    }
    let places = std::fs::read_to_string(dir.join("cluster")).unwrap();
    let places = place::resolve(places.trim()).unwrap();
    let store = Store::open(&own.join("blobs"), identity.own().cluster, QUOTA_BYTES).unwrap();
    local::run(async move {
        let endpoint = Endpoint::bind_bulk(identity.clone(), ([127, 0, 0, 1], 0).into()).unwrap();
        let addresses = vec![endpoint.local_address().unwrap()];
        let bulk = Bulk { endpoint, addresses, store: store.clone() };
        let (fetcher, plane) = fetch::start(bulk);
        let blobs = Blobs::of_worker(store.clone(), fetcher.clone());
        let endpoint = Endpoint::bind_to_dial(identity, &places).unwrap();
        let coordinators = Coordinators::Remote { endpoint, places };
        let work =
            allhands_worker::run(config(&own, blobs, plane), coordinators, std::future::pending());
        let fetched = tokio::select! {
            run = work => panic!("the worker has ended: {run:?}"),
            fetched = fetcher.fetch(blob, length as u64, 0..length as u64) => fetched,
        };
        let _hold = fetched.unwrap();
        let blob = store.get(&blob).unwrap();
        blob.map(0..length as u64).unwrap().to_vec()
    })
    .unwrap()
}

fn config(dir: &Path, blobs: Blobs, plane: fetch::Plane) -> Config {
    Config {
        agent: AgentConfig {
            worker: WorkerId(77),
            boot: BootId([7; 16]),
            name: "extra".into(),
            resources: Resources::cpus(1),
            platform: platform::of_this_machine(),
        },
        launch: Launch::Stored(Stored {
            programs: dir.join("programs"),
            helper: PathBuf::from("/proc/self/exe"),
            user: None,
            variables: Vec::new(),
        }),
        scratch: dir.join("scratch").join("x"),
        output: printed::to_own().unwrap(),
        blobs,
        plane: Some(plane),
    }
}

#[test]
fn a_worker_says_what_is_wrong_with_where_it_gives_chunks() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("x");
    output(allhands(["init"]).arg(&dir).args(["--coordinators", "1"]));
    let worker = |words: &[&str]| {
        let mut command = allhands(["worker", "--coordinators", "127.0.0.1:9"]);
        command.arg("--identity").arg(dir.join("worker-1")).arg("--dir").arg(dir.join("data"));
        command.args(words);
        crate::support::run(&mut command)
    };
    let (code, _, error) = worker(&["--store-bytes", "0"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("as in 40GiB"), "{error}");
    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let (code, _, error) = worker(&["--data-listen", &taken]);
    assert_eq!(code, Some(1));
    assert!(error.contains(&taken) && error.contains("another process"), "{error}");
    let many = ["--data-address", "127.0.0.1:1"].repeat(9);
    let (code, _, error) = worker(&many);
    assert_eq!(code, Some(1));
    assert!(error.contains("--data-address names 9 addresses"), "{error}");
}
