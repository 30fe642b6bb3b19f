//! How a worker gives and takes chunks: where it listens, what it announces, how much it keeps.
//!
//! ```text
//! DIR/blobs/    the chunk store: blobs by their hash
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::identity::Identity;
use allhands_common::net::place::{self, Place};
use allhands_common::wire::data::ADDRESSES_MAX;
use allhands_store::blobs::Store;
use allhands_worker::fetch::Bulk;
use anyhow::{Context, ensure};
use rustix::fs::statvfs;

use crate::args::Worker;
use crate::directory::{self, PRIVATE};

/// Must be called inside a tokio runtime.
pub(super) fn open(
    command: &Worker,
    identity: &Identity,
    coordinators: &[Place],
) -> anyhow::Result<Bulk> {
    let way = way_to(coordinators);
    let listen = match command.data_listen {
        Some(listen) => listen,
        None => SocketAddr::new(way.context("no way to any coordinator")?, 0),
    };
    let endpoint = Endpoint::bind_bulk(identity.clone(), listen)?;
    let bound = endpoint.local_address()?;
    let addresses = announced(&command.data_addresses, bound, way)?;
    let dir = command.dir.join("blobs");
    directory::make(&dir, PRIVATE)?;
    let quota_bytes = match command.store_bytes {
        Some(bytes) => bytes,
        None => half_of_what_is_free(&dir)?,
    };
    let store = Store::open(&dir, identity.own().cluster, quota_bytes)
        .with_context(|| format!("the chunk store {} cannot be opened", dir.display()))?;
    tracing::info!(listen = %bound, announced = ?addresses, quota_bytes, "serves chunks");
    Ok(Bulk { endpoint, addresses, store })
}

/// This machine's address on the way to the coordinators: that by which it is reached from there, as a rule.
fn way_to(coordinators: &[Place]) -> Option<IpAddr> {
    let addresses = coordinators.iter().flat_map(|place| &place.addresses);
    addresses.copied().find_map(|address| {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Nothing is sent: the system chooses the address from which it would be.
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(address).ok()?;
        socket.local_addr().ok().map(|own| own.ip())
    })
}

/// Where others are told to dial.
fn announced(
    given: &[String],
    bound: SocketAddr,
    way: Option<IpAddr>,
) -> anyhow::Result<Vec<SocketAddr>> {
    if given.is_empty() {
        let ip = match way {
            // Whoever listens on all addresses is reached at that of the way to the coordinators.
            Some(way) if bound.ip().is_unspecified() => way,
            Some(_) | None => bound.ip(),
        };
        ensure!(
            !ip.is_unspecified(),
            "--data-listen {bound} is no address that others could dial: give --data-address"
        );
        return Ok(vec![SocketAddr::new(ip, bound.port())]);
    }
    let places = place::resolve(&given.join(","))?;
    let addresses: Vec<_> = places.into_iter().flat_map(|place| place.addresses).collect();
    ensure!(
        addresses.len() <= ADDRESSES_MAX,
        "--data-address names {} addresses: at most {ADDRESSES_MAX} are announced",
        addresses.len()
    );
    Ok(addresses)
}

/// Half of the bytes of the disk that are free, or that the store has taken already: a worker that starts
/// again does not get less each time.
fn half_of_what_is_free(dir: &Path) -> anyhow::Result<u64> {
    let unknown = || format!("how much is free in {} is not known", dir.display());
    let disk = statvfs(dir).with_context(unknown)?;
    let taken = taken(dir).with_context(unknown)?;
    Ok((disk.f_bavail.saturating_mul(disk.f_frsize)).saturating_add(taken) / 2)
}

fn taken(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => taken(&entry.path())?,
            false => entry.metadata()?.blocks() * 512,
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinators_on_loopback_are_reached_from_there() {
        let places = |list| place::resolve(list).unwrap();
        assert_eq!(way_to(&places("127.0.0.1:7100")), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(way_to(&[]), None);
    }

    #[test]
    fn what_is_announced_can_be_dialled() {
        let way = Some(IpAddr::from([10, 0, 0, 7]));
        let bound = |text: &str| text.parse().unwrap();
        let one = announced(&[], bound("10.0.0.5:71"), way).unwrap();
        assert_eq!(one, [bound("10.0.0.5:71")]);
        let one = announced(&[], bound("0.0.0.0:71"), way).unwrap();
        assert_eq!(one, [bound("10.0.0.7:71")]);
        let error = announced(&[], bound("0.0.0.0:71"), None).unwrap_err().to_string();
        assert!(error.contains("--data-address"), "{error}");
        let given = ["10.0.0.8:72".to_owned(), "127.0.0.1:73".to_owned()];
        let two = announced(&given, bound("0.0.0.0:71"), way).unwrap();
        assert_eq!(two, [bound("10.0.0.8:72"), bound("127.0.0.1:73")]);
        let many: Vec<String> = (1..=9).map(|port| format!("127.0.0.1:{port}")).collect();
        let error = announced(&many, bound("127.0.0.1:71"), way).unwrap_err().to_string();
        assert!(error.contains("names 9 addresses"), "{error}");
    }

    #[test]
    fn what_the_store_has_taken_counts_as_free() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("blobs")).unwrap();
        std::fs::write(dir.path().join("blobs/one"), vec![1; 1 << 20]).unwrap();
        assert!(taken(dir.path()).unwrap() >= 1 << 20);
        assert!(half_of_what_is_free(dir.path()).unwrap() >= 1 << 19);
    }
}
