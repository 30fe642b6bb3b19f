//! The store through restarts, crashes at any point, a disk that fails, damage, and many threads.

mod basic;
mod crash;

mod damage;
mod eviction;
mod faults;
mod gather;
mod model;

mod put;
mod spy;
mod support;
mod threads;
