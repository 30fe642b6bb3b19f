//! Clients that are named as holders: nobody can dial them, they come of themselves when the leader has told
//! them who wants what they have, which may be after the worker was told of them.

use allhands_common::net::access::Role;
use allhands_common::wire::data::{Holder, Node};

use super::Shell;
use crate::exchange::{Event, Peer};
use crate::node::peers::is_client;

/// Clients of one blob that are waited for, at most; those beyond are asked if they are there already.
const EXPECTED_MAX: usize = 16;

/// By name, and whether they have all of the blob.
#[derive(Debug, Default)]
pub(super) struct Expected(Vec<(String, bool)>);

impl Expected {
    /// Adds those of `holders` that are clients.
    pub(super) fn add(&mut self, holders: &[(Holder, bool)]) {
        for (holder, whole) in holders {
            match holder.node.role {
                Role::Coordinator | Role::Worker => continue,
                Role::Client | Role::Admin => {}
            }
            self.expect(&holder.node.name, *whole);
        }
    }

    /// Adds those of another list.
    pub(super) fn join(&mut self, other: Self) {
        other.0.iter().for_each(|(name, whole)| self.expect(name, *whole));
    }

    fn expect(&mut self, name: &str, whole: bool) {
        let full = self.0.len() >= EXPECTED_MAX;
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known |= whole,
            None if !full => self.0.push((name.to_owned(), whole)),
            None => {}
        }
    }
}

impl Shell {
    /// Somebody has come. Whoever waits for a blob that this client is said to have can ask it.
    pub(super) fn came(&mut self, peer: Peer) {
        let Some(node) = self.peers.node(peer) else { return };
        let expect = |expected: &Expected| {
            let of_name = expected.0.iter().find(|(name, _)| is_client(node, name));
            of_name.map(|(_, whole)| *whole)
        };
        let awaiting = self.blobs.iter();
        let awaiting: Vec<_> = awaiting
            .filter_map(|(blob, awaited)| Some((*blob, expect(&awaited.expected)?)))
            .collect();
        for (blob, whole) in awaiting {
            self.tell(Event::Holders { blob, holders: vec![(peer, whole)] });
        }
    }

    /// Those who were waited for and are not there.
    pub(super) fn unreached(&self, expected: &Expected) -> Vec<Node> {
        let holders =
            expected.0.iter().map(|(name, _)| Node { role: Role::Client, name: name.clone() });
        holders.filter(|node| !self.peers.is_there(node)).collect()
    }
}
