//! The bounds and the patience of an exchange, each with the reason for its number.

use std::time::Duration;

/// Numbers that a test may want otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Any number that no other node has: it decides where in a blob this one starts, so that everybody
    /// asks the source for another part of it.
    pub place: u64,
    /// Chunks asked of one peer and not yet stored. Eight keep a connection busy while each is sent,
    /// verified and written; more only wait in line there.
    pub peer_chunks_max: u32,
    /// The same for all peers together: what one node may have to hold in memory, 64 MiB.
    pub total_chunks_max: u32,
    /// A peer that owes something and says nothing for so long is given up. A dead one is noticed by QUIC
    /// in 1.5 s; this is for one that lives and does not answer. Longer than `park`.
    pub silence: Duration,
    /// A single request that takes longer is made elsewhere, however busy its peer seems.
    pub reply: Duration,
    /// How long a chunk that nobody has may stay so: adverts and redirects are on their way.
    pub grace: Duration,
    /// First wait before a chunk that everybody failed to give is asked for again; doubles with each round.
    pub backoff: Duration,
    /// Rounds in which everybody fails to give a chunk before it counts as lost.
    pub rounds_max: u32,
    /// Times a holder that the leader named is dialled again after its link was lost.
    pub redials_max: u32,
    /// Times a chunk's request may be sent on before the last holder is told that it must serve.
    pub hops_max: u32,
    /// Holders of one blob that one node keeps an eye on.
    pub holders_max: usize,

    /// Who asks for a chunk within this time after it was served to somebody is sent there. Zero: nobody is.
    pub redirect: Duration,
    /// How long a request may wait for a chunk that is itself on its way here.
    pub park: Duration,
    /// Chunks being read and sent to one asker at a time.
    pub asker_sends_max: u32,
    /// The same for all askers together: 64 MiB.
    pub total_sends_max: u32,
    /// Requests of one asker that wait, be it in line or for a chunk on its way. Some times what an honest
    /// one asks for.
    pub asker_waiting_max: usize,
    /// News about what has come is collected for so long.
    pub tell: Duration,
    /// Blobs that one asker may follow.
    pub follows_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            place: 0,
            peer_chunks_max: 8,
            total_chunks_max: 64,
            silence: Duration::from_secs(5),
            reply: Duration::from_secs(30),
            grace: Duration::from_secs(2),
            backoff: Duration::from_millis(100),
            rounds_max: 4,
            redials_max: 2,
            hops_max: 4,
            holders_max: 32,
            redirect: Duration::from_secs(1),
            park: Duration::from_secs(2),
            asker_sends_max: 4,
            total_sends_max: 64,
            asker_waiting_max: 64,
            tell: Duration::from_millis(5),
            follows_max: 256,
        }
    }
}
