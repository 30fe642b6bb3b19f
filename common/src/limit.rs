//! The cluster's bounds that two crates must agree on: unit last in the name, and why that number.

/// Longest log entry, in bytes: one replicated in a few milliseconds, and four of them in flight fit
/// a control connection's window.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Most commands in one entry: what one apply step may cost.
pub const ENTRY_COMMANDS_MAX: usize = 4096;

/// Entries of the leader that may wait for their quorum at once: one on the wire, one on each disk,
/// one being made, one to spare.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4;

/// A client cuts its argument segments about here. Small enough that the first tasks of a batch start
/// while the rest is still encoded, large enough that a segment's own cost (~1 µs) vanishes.
pub const SEGMENT_BYTES_TARGET: usize = 256 << 10;

/// Longest segment that travels inside a log entry: an entry, less room for its commands.
pub const SEGMENT_BYTES_MAX: usize = ENTRY_BYTES_MAX - (64 << 10);

/// Most tasks of a segment.
pub const SEGMENT_TASKS_MAX: u32 = 1 << 20;

/// Submitted and not yet committed bytes of one session: what a leader holds for a client in memory.
pub const SUBMIT_BYTES_MAX: usize = 16 << 20;

/// Outcome bytes that are delivered to a client and not yet acknowledged, per batch.
pub const DELIVER_BYTES_MAX: usize = 16 << 20;

/// Outcome bytes of a batch that its client has not read; above it no new range is dispatched.
pub const UNREAD_BYTES_MAX: u64 = 256 << 20;

/// Bytes of arguments or outcomes of one message between a coordinator and a worker, as a rule: what is
/// made of several is cut here. One that is longer by itself goes alone.
pub const BUNDLE_BYTES_MAX: usize = 4 << 20;

/// Remembered replies of a session above its low-water mark.
pub const SESSION_REPLIES_MAX: usize = 1024;

/// How long an attached client may be away before its jobs are cancelled, in milliseconds.
pub const CLIENT_LEASE_MS: u64 = 15_000;

/// How long a worker may be silent before its attempts count as lost, in milliseconds.
pub const WORKER_LOST_MS: u64 = 2_000;

/// How often a worker says what it holds, in milliseconds.
pub const HEARTBEAT_MS: u64 = 250;

/// Attempts that a range may lose to dying workers before its tasks fail as lost.
pub const SYSTEM_RETRIES: u8 = 3;

/// Executors that a task may kill before it fails alone.
pub const EXECUTOR_DEATHS_MAX: u8 = 3;

/// Kept end of an executor's standard error, in bytes, for the error of a task that killed it.
pub const STDERR_TAIL_BYTES_MAX: usize = 4 << 10;

/// Blobs that a worker says it holds, those last used first: 33 bytes each in its registration, which has
/// room for 1 MiB. What is beyond it is found by nobody, and fetched from where it came from.
pub const WORKER_BLOBS_MAX: usize = 8192;

/// Blobs in one message that says what has come, gone, is offered or withdrawn: 33 KiB.
pub const BLOB_NEWS_MAX: usize = 1024;

/// Blobs that a session may offer at a time: with those of all its messages, 2 MiB at the leader.
pub const SESSION_OFFERS_MAX: usize = 1 << 16;

/// Holders of one blob that a worker is told of: more than it asks at once, with two or three to spare.
pub const HOLDERS_NAMED_MAX: usize = 8;

/// Blobs that one worker may want at a time; those beyond are asked for again.
pub const WORKER_WANTS_MAX: usize = 1024;

/// Blobs that one session may want at a time: sixteen times what it fetches at once.
pub const SESSION_WANTS_MAX: usize = 1024;

/// Batches of whose tasks a worker says in its registration that it keeps results: 16 bytes each.
pub const WORKER_RESULTS_MAX: usize = 8192;

/// Results of tasks that one session may have kept for it at a time, by its handles: with those of all its messages,
/// some 6 MiB at the leader.
pub const SESSION_KEEPS_MAX: usize = 1 << 16;

/// Workers that may be asked to keep one blob: more copies than anybody needs.
pub const REPLICAS_MAX: u8 = 8;

/// How long a worker keeps, in milliseconds, what an earlier leader has told it to keep and this one has not: longer
/// than a client may take to come back and say so.
pub const KEEP_GRACE_MS: u64 = CLIENT_LEASE_MS + 5_000;

/// Bytes of long results of one batch that its client has not fetched; above it no new range is dispatched. They lie
/// in the stores of the workers that made them.
pub const UNFETCHED_BYTES_MAX: u64 = 1 << 30;

/// How long a worker that was told to stop waits, in milliseconds, until what only it has is elsewhere.
pub const DRAIN_MOVES_MS: u64 = 30_000;

/// How long a worker waits for somebody to have a blob that nobody has, in milliseconds: what makes one known
/// (an offer, a worker that registers again with a new leader) is on its way for less than a second.
pub const BLOB_PATIENCE_MS: u64 = 5_000;

/// Other tasks that those of one segment name, at most: 25 bytes each, in a command of the log.
pub const MENTIONS_MAX: usize = 1 << 16;

/// Batches of another's job that a client reads at a time: each may have [`DELIVER_BYTES_MAX`] on its way.
pub const READING_MAX: usize = 16;

/// Outcomes that one client or one blocked task waits for at a time: 21 bytes each.
pub const AWAITED_MAX: usize = 1 << 16;

/// Executions that a forwarded one is followed through before it counts as one without an end.
pub const FORWARDS_MAX: usize = 1 << 20;

const _: () = assert!(SEGMENT_BYTES_TARGET < SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX < ENTRY_BYTES_MAX);
