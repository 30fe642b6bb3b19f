//! The bytes of log ids, votes and memberships, as the log and the snapshots store them.
//!
//! ```text
//! log id      term u64 · node u64 · index u64                                     (all little-endian)
//! vote        term u64 · node u64 · committed u8
//! membership  configs u16 · { voters u16 · { node u64 } }
//!             nodes u16 · { node u64 · name (u16 · UTF-8) · addresses u16 · { (u16 · text) } }
//! ```
//!
//! The file that holds them carries version and checksum; golden bytes are in the tests below.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::bytes_in::BytesIn;
use super::types::{LeaderId, LogId, Member, Membership, Vote};

pub(crate) const LOG_ID_BYTES: usize = 24;
pub(crate) const VOTE_BYTES: usize = 17;

pub(crate) fn put_log_id(id: &LogId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.leader_id.term.to_le_bytes());
    out.extend_from_slice(&id.leader_id.node_id.to_le_bytes());
    out.extend_from_slice(&id.index.to_le_bytes());
}

pub(crate) fn log_id(bytes: &mut BytesIn<'_>) -> io::Result<LogId> {
    let leader_id = LeaderId { term: bytes.u64()?, node_id: bytes.u64()? };
    Ok(LogId { leader_id, index: bytes.u64()? })
}

pub(crate) fn put_vote(vote: &Vote, out: &mut Vec<u8>) {
    out.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    out.extend_from_slice(&vote.leader_id.node_id.to_le_bytes());
    out.push(u8::from(vote.committed));
}

pub(crate) fn vote(bytes: &mut BytesIn<'_>) -> io::Result<Vote> {
    let leader_id = LeaderId { term: bytes.u64()?, node_id: bytes.u64()? };
    Ok(Vote { leader_id, committed: bytes.u8()? != 0 })
}

pub(crate) fn put_membership(membership: &Membership, out: &mut Vec<u8>) -> io::Result<()> {
    let configs = membership.get_joint_config();
    put_count(configs.len(), out)?;
    for voters in configs {
        put_count(voters.len(), out)?;
        for node in voters {
            out.extend_from_slice(&node.to_le_bytes());
        }
    }
    put_count(membership.nodes().count(), out)?;
    for (node, member) in membership.nodes() {
        out.extend_from_slice(&node.to_le_bytes());
        put_text(&member.name, out)?;
        put_count(member.addresses.len(), out)?;
        for address in &member.addresses {
            put_text(&address.to_string(), out)?;
        }
    }
    Ok(())
}

pub(crate) fn membership(bytes: &mut BytesIn<'_>) -> io::Result<Membership> {
    let mut configs = Vec::new();
    for _ in 0..bytes.u16()? {
        let voters = bytes.u16()?;
        configs.push((0..voters).map(|_| bytes.u64()).collect::<io::Result<BTreeSet<_>>>()?);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..bytes.u16()? {
        let node = bytes.u64()?;
        let name = text(bytes)?.to_owned();
        let count = bytes.u16()?;
        let addresses = (0..count)
            .map(|_| {
                text(bytes)?
                    .parse()
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            })
            .collect::<io::Result<_>>()?;
        nodes.insert(node, Member { name, addresses });
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn put_count(count: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let count =
        u16::try_from(count).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    out.extend_from_slice(&count.to_le_bytes());
    Ok(())
}

fn put_text(text: &str, out: &mut Vec<u8>) -> io::Result<()> {
    put_count(text.len(), out)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn text<'a>(bytes: &mut BytesIn<'a>) -> io::Result<&'a str> {
    let length = bytes.u16()?;
    std::str::from_utf8(bytes.take(usize::from(length))?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_keeps_its_golden_bytes() {
        let member = Member { name: "ab".into(), addresses: vec!["127.0.0.1:9".parse().unwrap()] };
        let given =
            Membership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, member)])).unwrap();
        let mut out = Vec::new();
        put_membership(&given, &mut out).unwrap();
        let golden = b"\x01\0\x01\0\x07\0\0\0\0\0\0\0\x01\0\x07\0\0\0\0\0\0\0\x02\0ab\x01\0\x0b\x00127.0.0.1:9";
        assert_eq!(out, golden);
        let mut bytes = BytesIn(&out);
        assert_eq!(membership(&mut bytes).unwrap(), given);
        bytes.end().unwrap();
        assert!(membership(&mut BytesIn(&out[..out.len() - 1])).is_err());
    }

    #[test]
    fn a_vote_and_a_log_id_keep_their_golden_bytes() {
        let leader_id = LeaderId { term: 1, node_id: 2 };
        let mut out = Vec::new();
        put_vote(&Vote { leader_id, committed: true }, &mut out);
        assert_eq!(out, b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01");
        assert_eq!(vote(&mut BytesIn(&out)).unwrap(), Vote { leader_id, committed: true });
        out.clear();
        put_log_id(&LogId { leader_id, index: 3 }, &mut out);
        assert_eq!(out, b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        assert_eq!(log_id(&mut BytesIn(&out)).unwrap(), LogId { leader_id, index: 3 });
    }
}
