//! The worker: the daemon of one machine. It runs tasks in executor processes of users' programs.

pub mod helper;
pub mod pool;
mod programs;
