//! Free ports that stay free: outside the range from which the system gives ports to everybody who
//! asks for any, so that a coordinator that is started again finds its own.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use allhands_common::net::random;
use anyhow::Context;

/// Where the search begins, at the earliest.
const LOWEST: u16 = 20_000;

/// The system's own range, if it does not say.
const EPHEMERAL: u16 = 32_768;

/// `count` free UDP ports on loopback.
pub(crate) fn free(count: u32) -> anyhow::Result<Vec<SocketAddr>> {
    let end = ephemeral().max(LOWEST + 1_000);
    let span = end - LOWEST;
    let start = u16::from_le_bytes(random::bytes().context("the system gives no random bytes")?);
    let candidates = (0..span).map(|step| LOWEST + start.wrapping_add(step) % span);
    // All are held until the last is found.
    let held: Vec<UdpSocket> = candidates
        .filter_map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .take(count as usize)
        .collect();
    anyhow::ensure!(held.len() == count as usize, "no {count} UDP ports are free on loopback");
    held.iter().map(|socket| socket.local_addr().context("a bound socket has no address")).collect()
}

fn ephemeral() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let ports = free(5).unwrap();
        let mut distinct = ports.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 5);
    }
}
