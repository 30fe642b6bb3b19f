//! The store through restarts, crashes at any point, a disk that fails, damage, and many threads.

mod basic;

mod damage;
mod eviction;

mod put;
mod support;
mod threads;
