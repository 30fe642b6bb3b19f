//! What a caller may say about one call.

use std::time::{Duration, SystemTime};

use allhands_common::policy::EqualCalls;
use allhands_common::resources::Resources;

use super::{Delayed, ResultDecoder, millis};
use crate::entry;
use crate::judge::{Recurs, RetryWhen};
use crate::payload::decode_received;

impl<R> Delayed<R> {
    /// Runs it again this many times after it panicked, timed out or returned `Err`.
    pub fn retries(self, retries: u32) -> Self {
        self.patched(|patch| patch.retries = Some(retries))
    }

    /// Waits this long before the first retry, twice as long before each further one, up to `max`.
    pub fn backoff(self, first: Duration, max: Duration) -> Self {
        self.patched(|patch| patch.set_backoff(first, max))
    }

    /// Fails it once it has run this long.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.patched(|patch| patch.timeout_ms = Some(millis(timeout)))
    }

    /// Fails it once it has waited this long for a slot. What it waits for before, others and its
    /// [`delay`](Self::delay), does not count.
    pub fn queue_timeout(self, timeout: Duration) -> Self {
        self.patched(|patch| patch.queue_timeout_ms = Some(millis(timeout)))
    }

    /// Starts it so long after its submit at the earliest.
    ///
    /// In a [recurrent](Self::recurrent) call it is also the pause before each further round.
    pub fn delay(self, delay: Duration) -> Self {
        self.patched(|patch| patch.delay_ms = Some(millis(delay)))
    }

    /// Starts it at `time` at the earliest; at once, if that is past. The wait is computed here, by this machine's clock,
    /// and counts from the submit: submit it soon.
    #[expect(
        clippy::disallowed_methods,
        reason = "the moment is one of the caller's clock on the wall"
    )]
    pub fn start_at(self, time: SystemTime) -> Self {
        match time.duration_since(SystemTime::now()) {
            Ok(delay) => self.delay(delay),
            Err(_) => self.patched(|patch| patch.delay_ms = Some(0)),
        }
    }

    /// Ends it once it has taken so long since its submit, with all that it waits for, its tries and its rounds. (That
    /// of a whole [`Parallel`](crate::Parallel::deadline) counts from its beginning.)
    pub fn deadline(self, deadline: Duration) -> Self {
        self.patched(|patch| patch.deadline_ms = Some(millis(deadline)))
    }

    /// Runs it again, as often as [`retries`](Self::retries) says, only after those failures that `predicate` says
    /// `true` of: a `fn(&E) -> bool` on the error that the function returns, or a `fn(&str) -> bool` on the text of that
    /// error or of a panic. See [`RetryWhen`].
    ///
    /// ```
    /// # use allhands::delayed;
    /// fn fetch(id: u32) -> Result<String, String> {
    ///     Err(format!("{id}: busy"))
    /// }
    /// let call = delayed(fetch)(7).retries(3).retry_when(|text: &str| text.ends_with("busy"));
    /// # let _ = call;
    /// ```
    ///
    /// The predicate runs in the executor: it captures nothing. One that panics says no.
    pub fn retry_when<K>(self, predicate: impl RetryWhen<R, K>) -> Self {
        let judge = entry::judge_of::<R, _, K>(&predicate);
        self.patched(|patch| patch.retry_when = Some(judge))
    }

    /// Runs it again and again until it returns `Some`: what comes of the call is what is in that. After an `Err`, a
    /// panic or a timeout it goes on only as [`retries`](Self::retries) says; they count anew in each round.
    ///
    /// Between two rounds it waits for as long as its [`delay`](Self::delay) says, 100 ms if there is none, and occupies
    /// nothing. Say a [`deadline`](Self::deadline) if it may be that it never returns `Some`: without one it goes on
    /// until somebody cancels it. What it submits in a round is submitted anew in the next, and goes on beside it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use allhands::{Delayed, delayed};
    /// fn look(path: String) -> Option<u64> {
    ///     std::fs::metadata(path).ok().map(|file| file.len())
    /// }
    /// let pause = Duration::from_secs(2);
    /// let bytes: Delayed<u64> = delayed(look)("ready.csv".into()).delay(pause).recurrent();
    /// # let _ = bytes.deadline(Duration::from_secs(3600));
    /// ```
    pub fn recurrent(self) -> Delayed<R::Value>
    where
        R: Recurs,
    {
        let Self { entry, arguments, extra, .. } =
            self.patched(|patch| patch.recurs = Some(entry::of_recurrence::<R>()));
        Delayed { entry, arguments, decode: ResultDecoder(decode_received::<R::Value>), extra }
    }

    /// Runs it once for all calls of the same function with the same arguments that say so too, in this session and in
    /// the tasks that it runs: those that come later are the first of them, as long as that has not failed and somebody
    /// has a handle on one of them. Of calls that are submitted; an execution among the arguments is the same if it is
    /// the same execution.
    ///
    /// Cancelling one of them ends the call when all others are cancelled too.
    pub fn memo(self) -> Self {
        self.patched(|patch| patch.equal_calls = Some(EqualCalls::Memo))
    }

    /// Lets a newer call of the same function with the same key take its place for as long as it was not begun: of many
    /// in a row only the last one runs, and whoever waits for the others gets what that returns. Usually with a
    /// [`delay`](Self::delay), as a pause in which a newer one may come. Of calls that are submitted, in this session
    /// and in the tasks that it runs.
    ///
    /// Cancelling one of them ends the last when all others are cancelled too.
    pub fn defer(self, key: impl AsRef<[u8]>) -> Self {
        let hash = blake3::derive_key("allhands 2026 key of a deferred call", key.as_ref());
        let (key, _) = hash.split_at(16);
        let key = key.try_into().ok();
        self.patched(|patch| patch.equal_calls = Some(EqualCalls::Defer { key }))
    }

    /// The group that it is of: for people, who see it beside its batch, and for
    /// [`cancel_group`](crate::Cluster::cancel_group). At most 128 bytes.
    pub fn group(self, name: impl Into<String>) -> Self {
        self.patched(|patch| patch.group = Some(name.into()))
    }

    /// Runs it before calls of lower priority; the default is 0.
    pub fn priority(self, priority: i16) -> Self {
        self.patched(|patch| patch.priority = Some(priority))
    }

    /// What it needs while it runs; the default is one slot.
    pub fn resources(self, resources: Resources) -> Self {
        self.patched(|patch| patch.resources = Some(resources))
    }
}
