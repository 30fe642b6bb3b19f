//! The replicated log: openraft with our log store, snapshots and network. It knows nothing of commands; an entry is
//! opaque bytes ([`types::Proposal`]).
//!
//! [`node::Node`] is the whole of it to the rest of the coordinator. The core loop proposes through it and is driven
//! by it ([`core::CoreRequest`]); the links drive [`node::Node::serve`] and implement [`transport::PeerTransport`].
//! What survives a crash is the data directory: identity, `log/`, `snapshots/`, and the segment files beside them.

mod bytes_in;
mod compaction;
pub mod config;
pub mod core;
pub mod error;
pub mod identity;
mod layout;
pub mod leadership;
pub mod log;
pub mod machine;
pub mod message;
pub mod network;
pub mod node;
pub(crate) mod nonce;
mod receive_append;
mod receive_snapshot;
mod send_snapshot;
mod serve;
pub mod snapshot;
pub mod transport;
pub mod types;
