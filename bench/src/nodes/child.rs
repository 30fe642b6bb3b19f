//! A node, seen from inside: it does what its standard input says, and says on standard output what came of it.

use std::io::{BufRead as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use allhands_common::blob::CHUNK_BYTES;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::identity::{Identity, IdentityFiles};
use allhands_store::blobs::Store;
use allhands_transfer::exchange::Config;
use allhands_transfer::node::{Fetch, Options, Transfer};
use anyhow::{Context as _, bail};
use bytes::Bytes;

use super::{FETCH_MAX, Order, Reply, raw};
use crate::measure::complain;

/// Runs until its standard input ends.
pub(crate) fn be_node(words: &[String]) -> ExitCode {
    match run(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// One node: what it was started with.
struct Inside {
    store: Store,
    transfer: Transfer,
    files: IdentityFiles,
    ip: IpAddr,
    folder: PathBuf,
}

fn run(words: &[String]) -> anyhow::Result<()> {
    let [folder, name, ip] = words else { bail!("a node needs a folder, a name, an address") };
    let (folder, ip): (&Path, IpAddr) = (Path::new(folder), ip.parse()?);
    let authority = Authority::load(&folder.join("authority"))?;
    let files = issue(&authority, name)?;
    let store = Store::open(&folder.join(name), authority.cluster(), u64::MAX / 2)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let _inside = runtime.enter();
    let endpoint = bind(&files, ip)?;
    let address = endpoint.local_address()?;
    let place = name.bytes().fold(0, |place, byte| place * 31 + u64::from(byte));
    let config = Config { place, ..Config::default() };
    let options = Options { addresses: vec![address], config };
    let (transfer, _reports) = Transfer::start(endpoint, Arc::new(store.clone()), options);
    let inside = Arc::new(Inside { store, transfer, files, ip, folder: folder.into() });
    say(&Reply::Here { address })?;
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let inside = Arc::clone(&inside);
        runtime.spawn(async move {
            let reply = inside.obey(order).await;
            let failed = |error: anyhow::Error| Reply::Failed { error: format!("{error:#}") };
            // Whoever started this node has ended if it cannot be told.
            _ = say(&reply.unwrap_or_else(failed));
        });
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
fn issue(authority: &Authority, name: &str) -> anyhow::Result<IdentityFiles> {
    let validity = Validity::days(SystemTime::now(), 1);
    Ok(authority.issue(Role::Worker, name, validity, PathBuf::from(name))?)
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
fn bind(files: &IdentityFiles, ip: IpAddr) -> anyhow::Result<Endpoint> {
    let identity = Identity::verify(files, SystemTime::now())?;
    Ok(Endpoint::bind_bulk(identity, SocketAddr::new(ip, 0))?)
}

fn say(reply: &Reply) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, reply)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

impl Inside {
    async fn obey(&self, order: Order) -> anyhow::Result<Reply> {
        match order {
            Order::Put { bytes, changed } => {
                let store = self.store.clone();
                let put = move || store.put_bytes(&content(bytes, changed));
                let blob = tokio::task::spawn_blocking(put).await??;
                Ok(Reply::Put { blob: blob.id(), length: bytes })
            }
            Order::Fetch { blob, length, range, holders } => {
                let begun = Instant::now();
                let bytes = range.map(|(start, end)| start..end);
                let holders = holders.into_iter().map(|holder| (holder, true)).collect();
                let fetch = Fetch { blob, length, bytes, holders, within: FETCH_MAX };
                self.transfer.fetch(fetch).await?;
                Ok(Reply::Took { seconds: begun.elapsed().as_secs_f64() })
            }
            Order::Verify { blob, length, range, changed } => {
                let blob = self.store.get(&blob).context("the blob is not here")?;
                let (start, end) = range.unwrap_or((0, length));
                let map = blob.map(start..end)?;
                let put = content(length, changed);
                let wanted = &put[usize::try_from(start)?..usize::try_from(end)?];
                anyhow::ensure!(*map == *wanted, "a byte is wrong");
                Ok(Reply::Verified)
            }
            Order::Traffic => {
                let traffic = self.transfer.traffic();
                let (sent_bytes, received_bytes) = (traffic.sent_bytes, traffic.received_bytes);
                Ok(Reply::Traffic { sent_bytes, received_bytes })
            }
            Order::Serve { raw, bytes } => {
                let content = Bytes::from(content(bytes, 0));
                let address = match raw {
                    super::Raw::Quinn | super::Raw::Kept => {
                        raw::serve_quinn(bind(&self.files, self.ip)?, content)?
                    }
                    super::Raw::Tls => raw::serve_tls(&self.files, self.ip, content)?,
                };
                Ok(Reply::Here { address })
            }
            Order::Take { raw, address, bytes } => {
                let took = match raw {
                    super::Raw::Quinn => {
                        raw::take_quinn(bind(&self.files, self.ip)?, address, bytes).await?
                    }
                    super::Raw::Kept => {
                        let hashes = content(bytes, 0);
                        let hashes =
                            hashes.chunks(CHUNK_BYTES as usize).map(blake3::hash).collect();
                        let keeper = raw::Keeper::start(&self.folder, bytes, hashes)?;
                        raw::keep_quinn(bind(&self.files, self.ip)?, address, keeper).await?
                    }
                    super::Raw::Tls => {
                        let files = self.files.clone();
                        let take = move || raw::take_tls(&files, address, bytes);
                        tokio::task::spawn_blocking(take).await??
                    }
                };
                Ok(Reply::Took { seconds: took.as_secs_f64() })
            }
        }
    }
}

/// Bytes that differ from place to place, so that no two chunks are the same; every `changed`-th chunk of them
/// another one (0: none).
pub(crate) fn content(bytes: u64, changed: u64) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    for (at, word) in (0_u64..).zip(content.chunks_mut(8)) {
        let number = at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        word.copy_from_slice(&number[..word.len()]);
    }
    if let Some(step) = usize::try_from(changed).ok().filter(|step| *step > 0) {
        content.chunks_mut(CHUNK_BYTES as usize).step_by(step).for_each(|chunk| chunk[0] ^= 1);
    }
    content
}
