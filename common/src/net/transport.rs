//! The QUIC transport settings of a cluster, each with the reason for its number.

use core::time::Duration;
use std::sync::Arc;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, MtuDiscoveryConfig, TransportConfig, VarInt};

/// Interval of keep-alives, so that an idle connection is known to be alive.
const KEEP_ALIVE: Duration = Duration::from_millis(200);

/// A silent connection is dead after this (quinn: at least 3 × PTO, a few ms on a LAN). The leader's death
/// is noticed by push, sooner than this; see DETAILS B.
const IDLE_MILLIS: u32 = 1_500;

/// Before the first sample. quinn's 333 ms make the loss of a first packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);

const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const SEND_WINDOW_BYTES: u64 = 32 << 20;

/// Links that a peer may hold open on one connection; a worker needs a handful, chunk requests a few dozen.
const LINKS_MAX: u32 = 128;

/// Largest UDP payload: Ethernet jumbo frames less IP and UDP. Discovery finds what the path carries.
pub(super) const UDP_PAYLOAD_BYTES_MAX: u16 = 8_972;
const MTU_UPPER_BOUND: u16 = 8_952;

/// Enough for one full bundle at once; CUBIC's default of some 14 kB makes each first burst wait for acks.
const INITIAL_CONGESTION_WINDOW_BYTES: u64 = 1 << 20;

/// One acknowledgement for so many packets, instead of for every second one.
const ACK_EVERY_PACKETS: u32 = 10;

pub(super) fn config() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MILLIS).into()))
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(LINKS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_CONGESTION_WINDOW_BYTES);
    config.congestion_controller_factory(Arc::new(cubic));
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_UPPER_BOUND);
    config.mtu_discovery_config(Some(mtu));
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY_PACKETS));
    config.ack_frequency_config(Some(acks));
    Arc::new(config)
}
