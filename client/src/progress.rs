//! How far a call is, shown while it runs.

mod show;

pub(crate) use show::Display;

use std::time::Duration;

/// How far a call is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Tasks that have ended.
    pub done: u64,
    /// Of these, without a value.
    pub failed: u64,
    /// Tasks in all, where the iterator says how many come.
    pub total: Option<u64>,
    /// Since the call began.
    pub elapsed: Duration,
}

impl Progress {
    /// Tasks that ended per second, so far.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.done as f64 / seconds } else { 0.0 }
    }

    /// How long the rest takes at this rate, where that can be said.
    pub fn remaining(&self) -> Option<Duration> {
        let left = self.total?.saturating_sub(self.done) as f64;
        Duration::try_from_secs_f64(left / self.rate()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_rate_says() {
        let progress =
            Progress { done: 20, failed: 0, total: Some(50), elapsed: Duration::from_secs(2) };
        assert_eq!(progress.remaining(), Some(Duration::from_secs(3)));
        let nothing = Progress { done: 0, total: Some(5), ..progress };
        assert_eq!(nothing.remaining(), None);
    }
}
