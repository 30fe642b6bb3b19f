//! How fast one blob goes over one connection: a raw quinn stream and ours, between the same two endpoints.
//!
//! ```text
//! cargo run --release -p allhands-transfer --example throughput -- [MIB] [ROUNDS]
//! ```
//!
//! Prints one JSON line per system and round: `tcp` (plain, over loopback, for the scale), `quinn` (one
//! stream of the bulk settings, whose bytes are dropped), `quinn_default` (the same with quinn's own
//! settings), and `allhands` (every chunk verified and copied into memory); then the ratio of the medians of
//! `allhands` and `quinn`.
#![expect(clippy::print_stdout, reason = "figures are its product")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use allhands_common::blob::{BlobId, CHUNK_BYTES, Manifest};
use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::connection::Connection;
use allhands_common::net::endpoint::{Endpoint, Expected};
use allhands_common::net::identity::Identity;
use allhands_common::wire::data::{ChunkRange, ChunkSet, Holder, Node};
use allhands_transfer::node::{Fetch, Options, Transfer};
use allhands_transfer::store::{ChunkStore, StoreError, Verified};
use anyhow::Context as _;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DEADLINE: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
    let (mib, rounds) = (number(256)?, number(3)?);
    let content = Bytes::from_iter((0..mib * MIB).map(|at| (at / 7) as u8));
    // As between two processes: each side has its own runtime, and they share both cores.
    let (near, far) = (Runtime::new()?, Runtime::new()?);
    let mut speeds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (system, run) in [
            ("tcp", tcp as fn(&Runtime, &Runtime, &Bytes) -> anyhow::Result<Duration>),
            ("quinn_default", quinn_default),
            ("quinn", quinn_raw),
            ("allhands", allhands),
        ] {
            let seconds = run(&near, &far, &content)?.as_secs_f64();
            let speed = content.len() as f64 / seconds;
            println!(
                "{{\"workload\":\"transfer\",\"system\":\"{system}\",\"mib\":{mib},\"bytes_per_s\":{speed:.0}}}"
            );
            speeds.entry(system).or_default().push(speed);
        }
    }
    let median = |system: &str| {
        let mut all = speeds.get(system).cloned().unwrap_or_default();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    println!("{{\"ratio_to_quinn\":{:.3}}}", median("allhands") / median("quinn"));
    Ok(())
}

fn tcp(near: &Runtime, far: &Runtime, content: &Bytes) -> anyhow::Result<Duration> {
    let listener = far.block_on(tokio::net::TcpListener::bind(LOOPBACK))?;
    let address = listener.local_addr()?;
    let sent = content.clone();
    let sending = far.spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.write_all(&sent).await
    });
    let start = Instant::now();
    near.block_on(async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let mut buffer = vec![0; MIB];
        while stream.read(&mut buffer).await? > 0 {}
        anyhow::Ok(())
    })?;
    let took = start.elapsed();
    far.block_on(sending)??;
    Ok(took)
}

/// One stream with the settings of the bulk endpoint, over an established connection.
fn quinn_raw(near: &Runtime, far: &Runtime, content: &Bytes) -> anyhow::Result<Duration> {
    let pair = Pair::new(near, far)?;
    let address = pair.far.local_address()?;
    let (endpoint, sent) = (pair.far.clone(), content.clone());
    let sending = far.spawn(async move {
        let arriving = endpoint.accept().await.context("closed")?;
        send_raw(arriving.establish().await?, sent).await
    });
    let connection = near.block_on(pair.near.connect(address, EXPECTED, DEADLINE))?;
    let took = near.block_on(receive_raw(&connection, content.len()))?;
    far.block_on(sending)??;
    Ok(took)
}

async fn send_raw(connection: Connection, content: Bytes) -> anyhow::Result<()> {
    let mut stream = connection.open_raw().await?;
    let chunks = content.chunks(CHUNK_BYTES as usize);
    for chunk in chunks.map(|chunk| content.slice_ref(chunk)) {
        stream.write_chunk(chunk).await?;
    }
    stream.finish()?;
    stream.stopped().await?;
    Ok(())
}

async fn receive_raw(connection: &Connection, bytes: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut stream = connection.accept_raw().await?;
    anyhow::ensure!(drain(&mut stream).await? == bytes, "bytes are missing");
    Ok(start.elapsed())
}
