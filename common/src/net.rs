//! The half of `common` that has a socket: who a process is, and how two processes talk.
//!
//! From the bottom up:
//!
//! * [`authority`] makes certificates (`allhands init`), [`identity`] loads one, [`peer`] reads the other
//!   side's. A certificate carries cluster, role and name.
//! * [`endpoint`] is the one UDP socket of a process, [`connection`] one authenticated QUIC connection on
//!   it, [`cause`] the plain sentence for each way in which that fails.
//! * [`link`] carries frames of one [`Message`](crate::frame::Message) type each way, over a QUIC stream or,
//!   in the embedded cluster, over a channel in the process.
//! * [`handshake`] turns a fresh stream into a link after [`access`] has said that this role may open it.
//! * [`place`] is where a cluster is, as people write it; [`dial`] keeps links to it, and [`complaint`] says
//!   from time to time that there is none. [`random`] has the system's random bytes, [`local`] a thread's
//!   own runtime.
//!
//! **There is no insecure mode.** An [`endpoint::Endpoint`] cannot be made without an
//! [`identity::Identity`], so a process without certificates has no address on any network, not even on
//! loopback. The embedded cluster needs none: its links stay inside the process. A cluster for development
//! uses generated certificates.
//!
//! Nothing here survives a crash except the files of [`authority`] and [`identity`].

pub mod access;
pub mod authority;
pub mod cause;
pub mod complaint;
pub mod connection;
pub mod dial;
pub mod endpoint;
pub mod handshake;
pub mod identity;
pub mod link;
pub mod local;
pub mod peer;
pub mod place;
pub mod random;
mod reset;
mod tls;
mod transport;
