//! Stories of the core: given these events, exactly these actions. One file a story; `support` has a
//! leader whose log is applied at once (or when the test says so) and workers without a network.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod blobs;
mod cancels;
mod changes;
mod delays;
mod detached;
mod equals;
mod fails;
mod graph;
mod graph_agent;
mod graph_calls;
mod graph_circles;
mod limits;
mod places;
mod records;
mod replicas;
mod rounds;
mod runs;
mod says;
mod support;
mod unfetched;
mod unplaceable;
mod views;
