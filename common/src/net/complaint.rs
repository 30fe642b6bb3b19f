//! What goes wrong again and again is said when it is new, and then from time to time.

use std::time::{Duration, Instant};

/// After so long the same is said again: whoever looks at a log that has been cut off sees it.
const AGAIN: Duration = Duration::from_secs(30);

/// What was last complained of.
#[derive(Debug, Default)]
pub struct Complaint(Option<(String, Instant)>);

impl Complaint {
    /// Whether `cause` is to be said now: it is another than before, or was not said for a while.
    pub fn is_due(&mut self, cause: &str, now: Instant) -> bool {
        let known = |(said, at): &(String, Instant)| said == cause && now - *at < AGAIN;
        if self.0.as_ref().is_some_and(known) {
            return false;
        }
        self.0 = Some((cause.to_owned(), now));
        true
    }

    /// All is well again; whether there had been a complaint.
    pub fn settle(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while_and_news_at_once() {
        let now = Instant::now();
        let mut complaint = Complaint::default();
        assert!(!complaint.settle());
        assert!(complaint.is_due("a", now) && !complaint.is_due("a", now));
        assert!(complaint.is_due("b", now) && complaint.is_due("a", now));
        let later = now + AGAIN;
        assert!(complaint.is_due("a", later) && !complaint.is_due("a", later));
        assert!(complaint.settle());
        assert!(complaint.is_due("a", later));
    }
}
