//! The QUIC transport settings of a cluster, each with the reason for its number.
//!
//! Measured by `tests/net/throughput.rs` (2 vCPUs shared with other builds, loopback, echo of 4 MiB bulks
//! through one link, worst to best of three runs; small: 100,000 frames of 17 bytes there and back):
//!
//! | | 8 MiB, fresh connection | 32 MiB | 256 MiB | small |
//! |---|---|---|---|---|
//! | quinn's windows, window start and MTU | 33–60 ms | 103–160 ms | 215–294 MiB/s | 0.42–0.72 s |
//! | MTU up to 6,500 | 22–74 ms | 72–84 ms | 565–713 MiB/s | 0.41–0.49 s |
//! | and congestion window from 256 KiB: **this** | 21–32 ms | 57–73 ms | 574–675 MiB/s | 0.41–0.64 s |
//! | the same with windows 1 / 4 / 4 MiB | 31–35 ms | 70–89 ms | 455–598 MiB/s | 0.46–0.66 s |
//! | the same with windows 16 / 32 / 32 MiB | 26–28 ms | 67–86 ms | 503–534 MiB/s | 0.41–0.58 s |
//! | MTU up to 8,952 | 975 ms | connection lost | | |
//!
//! An acknowledgement every 10 packets instead of quinn's rule made fresh connections slower (60 against
//! 31 ms for 8 MiB): every third it is, see `UNACKNOWLEDGED_PACKETS`. A small frame makes its round trip in
//! 75–110 µs (p99 150–180 µs).

use core::time::Duration;
use std::sync::Arc;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, MtuDiscoveryConfig, TransportConfig, VarInt};

/// Interval of keep-alives, so that an idle connection is known to be alive.
const KEEP_ALIVE: Duration = Duration::from_millis(200);

/// A connection silent for so long is dead (quinn: or 3 × PTO, if that is longer; on a LAN it is not). The
/// leader's death is noticed by push and sooner than this, see DETAILS B.
const IDLE_MILLIS: u32 = 1_500;

/// Before the first sample. quinn's 333 ms make the loss of a first packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// Received and unread bytes of one link: half of the largest frame keeps a sender busy, see above.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The same for all links of a connection: what one peer that is not read can cost us.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Sent and unacknowledged bytes of a connection: one frame of the largest size.
const SEND_WINDOW_BYTES: u64 = 8 << 20;

/// Enough for a bundle of a few thousand small tasks at once, and no more than a switch port can buffer.
const CONGESTION_WINDOW_START_BYTES: u64 = 256 << 10;

/// So many packets may be received without an acknowledgement of their own, one more than by quinn's rule. An
/// exchange here is an order, its answer, and the news that the answer is settled: two packets in a row one way,
/// of which the second would be acknowledged at once, before the order in it is looked at, and although the answer
/// takes the acknowledgement along.
const UNACKNOWLEDGED_PACKETS: u32 = 2;

/// A packet out of order is acknowledged at once, as by quinn's rule.
const REORDERED_PACKETS: u32 = 1;

/// Links that a peer may hold open on one connection; a worker needs a handful, chunk requests some dozens.
const LINKS_MAX: u32 = 128;

/// Largest UDP payload; discovery finds what the path carries (1,472 on plain Ethernet). It decides the
/// speed of bulk. Not more: quinn hands ten packets at a time to the kernel as one datagram of at most
/// 65,507 bytes, and quinn-udp takes the refusal of a longer one for a lost probe, so that all ten are
/// lost, again and again. Not 65,507 either because each endpoint reserves 2,048 times this for receiving.
pub(super) const UDP_PAYLOAD_BYTES_MAX: u16 = 6_500;

const QUINN_PACKETS_PER_SEND: u32 = 10;
const _: () = assert!(UDP_PAYLOAD_BYTES_MAX as u32 * QUINN_PACKETS_PER_SEND <= 65_507);

/// What a connection is for, and so how much may be on the way on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    Control,
    Bulk,
}

/// For chunks: as [`STREAM_WINDOW_BYTES`]. Sixteen chunks of one link. On loopback windows make no difference
/// that can be told from the noise (`throughput` of `allhands-transfer`, medians of two times five rounds in
/// GB/s, bare stream / chunks): these 1.31 / 0.97; 4, 16 and 8 MiB 1.21 / 0.96; quinn's own 1.22 / 0.93. On a
/// LAN with some delay only these let one stream fill the line.
const BULK_STREAM_WINDOW_BYTES: u32 = 16 << 20;

/// For chunks: as [`CONNECTION_WINDOW_BYTES`]. Chunks flow both ways, on a link each.
const BULK_CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// For chunks: as [`SEND_WINDOW_BYTES`]. 10 Gbit/s over 10 ms are 12 MiB.
const BULK_SEND_WINDOW_BYTES: u64 = 16 << 20;

pub(super) fn config(traffic: Traffic) -> Arc<TransportConfig> {
    let (stream, connection, send) = match traffic {
        Traffic::Control => (STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES, SEND_WINDOW_BYTES),
        Traffic::Bulk => {
            (BULK_STREAM_WINDOW_BYTES, BULK_CONNECTION_WINDOW_BYTES, BULK_SEND_WINDOW_BYTES)
        }
    };
    let mut cubic = CubicConfig::default();
    cubic.initial_window(CONGESTION_WINDOW_START_BYTES);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_BYTES_MAX);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED_PACKETS))
        .reordering_threshold(VarInt::from_u32(REORDERED_PACKETS));
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MILLIS).into()))
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(VarInt::from_u32(stream))
        .receive_window(VarInt::from_u32(connection))
        .send_window(send)
        .congestion_controller_factory(Arc::new(cubic))
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .max_concurrent_bidi_streams(VarInt::from_u32(LINKS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    Arc::new(config)
}
