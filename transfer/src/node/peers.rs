//! Everybody this node has heard of, under the numbers that the exchange uses.
//!
//! A worker or coordinator keeps its number for as long as this process lives: there are as many as the
//! cluster ever had machines. Several clients may have one name, and none can be dialled: each is known by
//! its connection and forgotten with it, and who names a client means all of that name.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use allhands_common::net::access::Role;
use allhands_common::net::connection::Connection;
use allhands_common::wire::data::{ADDRESSES_MAX, Holder, Node};

use crate::exchange::Peer;

#[derive(Debug)]
struct Known {
    node: Node,
    addresses: Vec<SocketAddr>,
    connection: Option<Connection>,
}

/// Whether `node` is a client of this name. An operator's program is one, as whoever names it may not know.
pub(super) fn is_client(node: &Node, name: &str) -> bool {
    matches!(node.role, Role::Client | Role::Admin) && node.name == name
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<Peer, Known>,
    by_node: BTreeMap<Node, Peer>,
    next: u32,
}

impl Peers {
    /// Those whom another has named: one node, or every connected client of that name.
    pub(super) fn of_holder(&mut self, holder: Holder) -> Vec<Peer> {
        match holder.node.role {
            Role::Coordinator | Role::Worker => {}
            Role::Client | Role::Admin => {
                let named = self
                    .known
                    .iter()
                    .filter(|(_, known)| is_client(&known.node, &holder.node.name));
                return named.map(|(peer, _)| *peer).collect();
            }
        }
        let peer = self.of_node(holder.node);
        if let Some(known) = self.known.get_mut(&peer)
            && !holder.addresses.is_empty()
        {
            known.addresses = holder.addresses;
            known.addresses.truncate(ADDRESSES_MAX);
        }
        vec![peer]
    }

    /// Somebody who is connected. A newer connection takes the place of the one before.
    pub(super) fn of_connection(&mut self, connection: &Connection) -> Peer {
        let certified = connection.peer();
        let node = Node { role: certified.role, name: certified.name.clone() };
        let peer = match node.role {
            Role::Coordinator | Role::Worker => self.of_node(node),
            Role::Client | Role::Admin => self.add(node),
        };
        if let Some(known) = self.known.get_mut(&peer) {
            known.connection = Some(connection.clone());
        }
        peer
    }

    /// Whether a client of that name is connected.
    pub(super) fn is_there(&self, client: &Node) -> bool {
        self.known.values().any(|known| is_client(&known.node, &client.name))
    }

    fn of_node(&mut self, node: Node) -> Peer {
        if let Some(peer) = self.by_node.get(&node) {
            return *peer;
        }
        let peer = self.add(node.clone());
        self.by_node.insert(node, peer);
        peer
    }

    fn add(&mut self, node: Node) -> Peer {
        let peer = Peer(self.next);
        self.next += 1;
        self.known.insert(peer, Known { node, addresses: Vec::new(), connection: None });
        peer
    }

    /// A connection has ended.
    pub(super) fn disconnected(&mut self, peer: Peer) {
        if let Some(known) = self.known.get_mut(&peer)
            && known.connection.as_ref().is_some_and(|held| held.close_cause().is_some())
        {
            known.connection = None;
            match known.node.role {
                Role::Coordinator | Role::Worker => {}
                Role::Client | Role::Admin => {
                    self.known.remove(&peer);
                }
            }
        }
    }

    /// It said where it may be dialled.
    pub(super) fn may_be_dialled(&mut self, peer: Peer, mut addresses: Vec<SocketAddr>) {
        if let Some(known) = self.known.get_mut(&peer) {
            addresses.truncate(ADDRESSES_MAX);
            known.addresses = addresses;
        }
    }

    /// The number of a node, if it ever got one.
    pub(super) fn numbered(&self, node: &Node) -> Option<Peer> {
        self.by_node.get(node).copied()
    }

    pub(super) fn node(&self, peer: Peer) -> Option<&Node> {
        self.known.get(&peer).map(|known| &known.node)
    }

    /// It, wherever it may be reached: to be given back to [`Self::of_holder`].
    pub(super) fn named(&self, peer: Peer) -> Option<Holder> {
        let known = self.known.get(&peer)?;
        Some(Holder { node: known.node.clone(), addresses: known.addresses.clone() })
    }

    /// How others may reach it.
    pub(super) fn holder(&self, peer: Peer) -> Option<Holder> {
        let known = self.known.get(&peer)?;
        let addresses = known.addresses.clone();
        (!addresses.is_empty()).then(|| Holder { node: known.node.clone(), addresses })
    }

    /// Where to ask it: whom to dial, where, and the connection that there may be.
    pub(super) fn way_to(&self, peer: Peer) -> Option<(Node, Vec<SocketAddr>, Option<Connection>)> {
        let known = self.known.get(&peer)?;
        let alive = known.connection.clone().filter(|held| held.close_cause().is_none());
        Some((known.node.clone(), known.addresses.clone(), alive))
    }
}
