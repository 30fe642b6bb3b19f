//! (skeleton)

pub mod raft;
pub mod segments;
