//! What tests of several crates share: the simulator of the core.

pub mod sim;
