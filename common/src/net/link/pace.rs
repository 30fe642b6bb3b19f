//! How many buffers a writer may hand to QUIC per round trip.
//!
//! quinn finds the bytes of every packet by walking the stream's unacknowledged buffers from the oldest
//! one on (`SendBuffer::get` in quinn-proto 0.11.19), under the connection's lock. Ten thousand frames of
//! twenty bytes, each flushed on its own, make each packet cost milliseconds, starve the acknowledgements
//! that would shorten the list, and end in an idle timeout of a connection that is perfectly healthy
//! (seen on loopback). So whoever flushes tiny frames one by one is held to a number of buffers per round
//! trip; frames that are fed and flushed together share a buffer and never notice.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Buffers per round trip, about as many as are unacknowledged at a time: the walk then costs under a
/// microsecond. On a LAN this still is half a million flushes per second.
const BUFFERS_PER_TRIP: usize = 512;

/// Acknowledgements come no more often than this under load, and timers are no finer.
const TRIP_MIN: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Pace {
    left: usize,
    next_trip: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { left: BUFFERS_PER_TRIP, next_trip: Instant::now() + TRIP_MIN }
    }

    /// Waits until at least one buffer may be handed over.
    pub(super) async fn ready(&mut self, connection: &quinn::Connection) {
        if self.left > 0 {
            return;
        }
        sleep_until(self.next_trip).await;
        self.left = BUFFERS_PER_TRIP;
        self.next_trip = Instant::now() + connection.rtt().max(TRIP_MIN);
    }

    pub(super) fn handed_over(&mut self, buffers: usize) {
        self.left = self.left.saturating_sub(buffers);
    }
}
