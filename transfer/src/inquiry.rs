//! Asking the leader who has a blob: what it has said, how long it is waited for, and when it is asked again.
//!
//! Whoever speaks with the leader holds the [`Inquiry`] and tells it what comes; whoever waits for the blob has an
//! [`Answers`] of it. A worker and a program ask over different links and wait alike. Nothing survives a crash.

use std::time::Duration;

use allhands_common::limit::BLOB_PATIENCE_MS;
use allhands_common::wire::data::Holder;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long somebody may take to have what nobody has: who has it says so at once, and again to a new leader.
pub const PATIENCE: Duration = Duration::from_millis(BLOB_PATIENCE_MS);

/// How long a leader may take to answer: longer than any failover.
pub const LEADERLESS_MAX: Duration = Duration::from_secs(30);

/// How long one fetch may take, however much still comes: a blob of 1 TiB over 10 Gbit/s takes 15 minutes.
pub const WITHIN: Duration = Duration::from_secs(3600);

/// Times that the leader is asked for other holders after those that it had named did not help.
pub const ROUNDS_MAX: u32 = 3;

/// Between two questions. The leader says of itself when somebody has it; this is for a question that was lost, and
/// for a leader that thinks that nobody waits any more.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What the leader has said.
#[derive(Debug, Clone)]
struct News {
    /// Nothing yet, to the question that was asked last.
    unanswered: bool,
    holders: Vec<(Holder, bool)>,
}

/// A question about one blob, as whoever speaks with the leader has it.
#[derive(Debug)]
pub struct Inquiry(watch::Sender<News>);

/// What comes of a question, for one who waits.
#[derive(Debug)]
pub struct Answers {
    news: watch::Receiver<News>,
    /// What was said last did not help: only what is said after it counts.
    stale: bool,
    /// Since when it is as it is: nobody answers, or nobody has it.
    since: (bool, Instant),
    ask_at: Instant,
}

/// What one who waits is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Fetch it from these; whether each has all of it.
    Holders(Vec<(Holder, bool)>),
    /// Ask once more, and go on waiting.
    AskAgain,
}

/// Why nobody is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnamed {
    /// No leader has answered for so long.
    Leaderless(Duration),
    /// Nobody had it for so long.
    NobodyHasIt(Duration),
    /// Nobody speaks with the leader any more.
    Stopped,
}

impl Default for Inquiry {
    /// One that is about to be asked.
    fn default() -> Self {
        Self(watch::Sender::new(News { unanswered: true, holders: Vec::new() }))
    }
}

impl Inquiry {
    /// For one more who waits.
    pub fn answers(&self) -> Answers {
        let now = Instant::now();
        Answers {
            news: self.0.subscribe(),
            stale: false,
            since: (true, now),
            ask_at: now + ASK_AGAIN,
        }
    }

    /// The leader has answered.
    pub fn answered(&self, holders: Vec<(Holder, bool)>) {
        self.0.send_replace(News { unanswered: false, holders });
    }

    /// A new leader is asked, who has answered nothing.
    pub fn asked_anew(&self) {
        self.0.send_modify(|news| news.unanswered = true);
    }
}

impl Answers {
    /// Those who were named did not help: it is asked again, and what was said before counts no more.
    pub fn anew(&mut self) {
        let now = Instant::now();
        self.news.borrow_and_update();
        (self.stale, self.since, self.ask_at) = (true, (true, now), now + ASK_AGAIN);
    }

    /// Waits until somebody is named, or it is time to ask again.
    ///
    /// # Errors
    /// It was waited for long enough.
    pub async fn next(&mut self) -> Result<Heard, Unnamed> {
        loop {
            self.stale &= !self.news.has_changed().unwrap_or(false);
            let News { unanswered, holders } = self.news.borrow_and_update().clone();
            let unanswered = unanswered || self.stale;
            if !unanswered && !holders.is_empty() {
                return Ok(Heard::Holders(holders));
            }
            if self.since.0 != unanswered {
                self.since = (unanswered, Instant::now());
            }
            let waited = if unanswered { LEADERLESS_MAX } else { PATIENCE };
            tokio::select! {
                changed = self.news.changed() => {
                    changed.map_err(|_| Unnamed::Stopped)?;
                    self.stale = false;
                }
                () = sleep_until(self.since.1 + waited) => return Err(match unanswered {
                    true => Unnamed::Leaderless(waited),
                    false => Unnamed::NobodyHasIt(waited),
                }),
                () = sleep_until(self.ask_at) => {
                    self.ask_at = Instant::now() + ASK_AGAIN;
                    return Ok(Heard::AskAgain);
                }
            }
        }
    }

    /// Waits for another answer that names somebody, while the blob is fetched from those of the last one.
    pub async fn more(&mut self) -> Vec<(Holder, bool)> {
        loop {
            if self.news.changed().await.is_err() {
                // Whoever has the other end ends the fetch as well.
                std::future::pending().await
            }
            let News { unanswered, holders } = self.news.borrow_and_update().clone();
            if !unanswered && !holders.is_empty() {
                return holders;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use allhands_common::net::access::Role;
    use allhands_common::wire::data::Node;

    use super::*;

    fn holders() -> Vec<(Holder, bool)> {
        let node = Node { role: Role::Worker, name: "w".into() };
        vec![(Holder { node, addresses: Vec::new() }, true)]
    }

    #[tokio::test]
    async fn it_is_asked_again_until_somebody_is_named() {
        let inquiry = Inquiry::default();
        let mut answers = inquiry.answers();
        assert_eq!(answers.next().await, Ok(Heard::AskAgain), "also while nobody has answered");
        inquiry.answered(Vec::new());
        assert_eq!(answers.next().await, Ok(Heard::AskAgain));
        inquiry.answered(holders());
        assert_eq!(answers.next().await, Ok(Heard::Holders(holders())));
        assert_eq!(
            inquiry.answers().next().await,
            Ok(Heard::Holders(holders())),
            "who comes later"
        );
        drop(inquiry);
        answers.anew();
        assert_eq!(answers.next().await, Err(Unnamed::Stopped));
    }

    #[tokio::test]
    async fn after_those_who_did_not_help_only_another_answer_counts() {
        let inquiry = Inquiry::default();
        inquiry.answered(holders());
        let mut answers = inquiry.answers();
        assert_eq!(answers.next().await, Ok(Heard::Holders(holders())));
        answers.anew();
        assert_eq!(answers.next().await, Ok(Heard::AskAgain), "what was said before is not enough");
        // The same again is an answer: they may have it now.
        inquiry.answered(holders());
        assert_eq!(answers.next().await, Ok(Heard::Holders(holders())));
        inquiry.answered(holders());
        answers.anew();
        inquiry.answered(holders());
        assert_eq!(answers.next().await, Ok(Heard::Holders(holders())), "it came in between");
    }

    #[tokio::test]
    async fn more_is_what_comes_after_the_last_answer() {
        let inquiry = Inquiry::default();
        inquiry.answered(Vec::new());
        let mut answers = inquiry.answers();
        inquiry.asked_anew();
        inquiry.answered(holders());
        assert_eq!(answers.more().await, holders());
    }
}
