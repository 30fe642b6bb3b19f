//! Measures, does not judge: how fast bulk and small frames go over loopback. Run it with
//! `cargo test -p allhands-common --features net --test net throughput -- --ignored --nocapture`.
#![expect(clippy::print_stdout, reason = "figures are its product")]

use std::time::Instant;

use crate::support::*;
use allhands_common::net::access::Role;
use allhands_common::net::link::Link;
use bytes::Bytes;

async fn connected() -> (Link<Up, Down>, impl Sized) {
    let ca = authority(1);
    let server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Client, "alice"));
    let connection = dial(&endpoint, server.address).await.unwrap();
    (open(&connection).await.unwrap(), (server, endpoint, connection))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn bulk_and_small_frames() {
    let bulk = Bytes::from(vec![7; 4 << 20]);
    for frames in [2, 8, 64] {
        let (link, _alive) = connected().await;
        let (mut sender, mut receiver) = link.split();
        let start = Instant::now();
        let sending = async {
            for _ in 0..frames {
                sender.send(Up(String::new()), bulk.clone()).await.unwrap();
            }
        };
        let receiving = async {
            for _ in 0..frames {
                receiver.recv().await.unwrap().unwrap();
            }
        };
        tokio::join!(sending, receiving);
        let seconds = start.elapsed().as_secs_f64();
        let megabytes = f64::from(frames) * 4.0;
        println!(
            "{megabytes} MiB there and back on a fresh connection: {:.0} ms, {:.0} MiB/s each way",
            seconds * 1e3,
            megabytes / seconds
        );
    }

    let (mut link, _alive) = connected().await;
    let mut times: Vec<_> = Vec::new();
    for _ in 0..2_000 {
        let start = Instant::now();
        assert_echoes(&mut link, "ping", Bytes::new()).await;
        times.push(start.elapsed());
    }
    times.sort();
    println!("round trip of a small frame: p50 {:?}, p99 {:?}", times[1_000], times[1_980]);

    let start = Instant::now();
    let (mut sender, mut receiver) = link.split();
    let feeding = async {
        for number in 0..100_000 {
            sender.feed(Up(String::new()), Bytes::new()).await.unwrap();
            if number % 100 == 99 {
                sender.flush().await.unwrap();
            }
        }
    };
    let receiving = async {
        for _ in 0..100_000 {
            receiver.recv().await.unwrap().unwrap();
        }
    };
    tokio::join!(feeding, receiving);
    println!("100,000 small frames in flushes of 100, echoed one by one: {:?}", start.elapsed());
}
