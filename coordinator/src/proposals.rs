//! From commands to log entries: everything that arrives while entries are in flight becomes the next
//! one, within the bounds of `common::limit`.
//!
//! Nobody waits for an acknowledgement: it goes along with whatever comes next, or after a while.

use std::collections::VecDeque;
use std::time::Duration;

use allhands_common::bulk::{self, Carries};
use allhands_common::codec::{self, DecodeError, EncodeError};
use allhands_common::limit::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX};
use allhands_common::time::{ClusterTime, Instant};
use allhands_common::wire::worker::ChildCall;
use allhands_scheduler::{Command, Entry};
use bytes::{BufMut, Bytes, BytesMut};

/// What a command of ids and numbers costs in an entry besides its bulk, at most.
const COMMAND_BYTES: usize = 64;

/// What a batch costs in an acknowledgement: its id and a number.
const ACKNOWLEDGED_BYTES: usize = 24;

/// A mention: two ids and a need.
const MENTION_BYTES: usize = 32;

/// What an opened batch costs besides words: ids, policy, counts.
const SPEC_BYTES: usize = 256;

/// What an entry costs besides its commands.
const ENTRY_HEAD_BYTES: usize = 64;

/// Bytes that are no entry of this version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    /// The entry is shorter than it says.
    #[error("an entry of {0} bytes is cut short")]
    Short(usize),
    /// Its head is of another version.
    #[error("an entry cannot be read: it was written by a newer version, upgrade this coordinator")]
    Head(#[from] DecodeError),
    /// Head and bulk do not fit.
    #[error("an entry's bulk does not fit it")]
    Bulk(#[from] bulk::BulkMismatch),
}

/// How long commands that nobody waits for may wait for company.
const PATIENCE: Duration = Duration::from_millis(20);

/// Commands that wait for their entry.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    waiting: VecDeque<(Command, usize)>,
    /// Whether somebody waits for one of them.
    awaited: bool,
    /// When they go all the same.
    due: Option<Instant>,
}

impl Proposals {
    /// Puts a command behind the others.
    ///
    /// # Errors
    /// The command, when no entry can hold it.
    pub(crate) fn push(&mut self, now: Instant, mut command: Command) -> Result<(), Oversized> {
        let mut bytes = head_bytes(&command);
        command.each_bulk(&mut |bulk| bytes += bulk.bytes.len());
        if bytes > ENTRY_BYTES_MAX - ENTRY_HEAD_BYTES {
            return Err(Oversized { command: Box::new(command), bytes });
        }
        self.awaited |= !matches!(command, Command::Acknowledge(_));
        self.due.get_or_insert(now + PATIENCE);
        self.waiting.push_back((command, bytes));
        Ok(())
    }

    /// Whether an entry should be made now.
    pub(crate) fn pressing(&self, now: Instant) -> bool {
        self.awaited
            || self.waiting.len() >= ENTRY_COMMANDS_MAX
            || self.due.is_some_and(|due| due <= now)
    }

    /// When an entry should be made, if nothing else comes.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next entry, as much as fits into one.
    pub(crate) fn take(&mut self, at: ClusterTime) -> Option<Entry> {
        let (mut commands, mut bytes) = (Vec::new(), 0);
        while let Some((_, more)) = self.waiting.front() {
            let full = bytes + more > ENTRY_BYTES_MAX - ENTRY_HEAD_BYTES
                || commands.len() >= ENTRY_COMMANDS_MAX;
            if full && !commands.is_empty() {
                break;
            }
            let Some((command, more)) = self.waiting.pop_front() else { break };
            bytes += more;
            commands.push(command);
        }
        if self.waiting.is_empty() {
            (self.awaited, self.due) = (false, None);
            // After a burst the room is worth more than what waits here in a quiet hour.
            self.waiting.shrink_to(ENTRY_COMMANDS_MAX / 4);
        }
        (!commands.is_empty()).then_some(Entry { at, commands })
    }
}

/// A command that no entry can hold.
#[derive(Debug)]
pub(crate) struct Oversized {
    pub(crate) command: Box<Command>,
    /// How long it is.
    pub(crate) bytes: usize,
}

/// What a command costs in an entry besides its bulk, at most. Where somebody's words are in it and it is
/// rare, it is encoded to know.
fn head_bytes(command: &Command) -> usize {
    match command {
        Command::Acknowledge(batches) => COMMAND_BYTES + ACKNOWLEDGED_BYTES * batches.len(),
        Command::Append { mentions, .. } | Command::Finish { mentions, .. } => {
            COMMAND_BYTES + MENTION_BYTES * mentions.len()
        }
        Command::Seal { .. }
        | Command::Charge { .. }
        | Command::Start { .. }
        | Command::CloseSession { .. }
        | Command::AttachJob { .. }
        | Command::Forward { .. }
        | Command::ExpireJob { .. }
        | Command::LeaveWorker { .. } => COMMAND_BYTES,
        Command::OpenBatch { spec, mentions, .. }
        | Command::Call { child: ChildCall { spec, mentions, .. }, .. } => {
            let functions: usize = spec.functions.iter().map(|f| 16 + f.label.len()).sum();
            let env: usize =
                spec.env.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
            let custom = spec.policy.resources.custom.keys().map(|name| 8 + name.len());
            let mentions = MENTION_BYTES * mentions.len();
            let group = spec.policy.group.as_ref().map_or(0, String::len);
            SPEC_BYTES
                + group
                + spec.name.len()
                + functions
                + env
                + custom.sum::<usize>()
                + mentions
        }
        Command::OpenSession { .. }
        | Command::OpenJob { .. }
        | Command::Stop { .. }
        | Command::StopJob { .. }
        | Command::Fail { .. }
        | Command::CancelTasks { .. }
        | Command::CancelGroup { .. }
        | Command::JoinWorker { .. } => {
            let mut head = Vec::new();
            codec::encode(command, &mut head).map_or(usize::MAX / 2, |()| head.len())
        }
    }
}

/// An entry as the log has it: length of the head, head, bulk.
pub(crate) fn encode(mut entry: Entry) -> Result<Bytes, EncodeError> {
    let mut parts = Vec::new();
    entry.each_bulk(&mut |bulk| parts.push(bulk.bytes.clone()));
    let mut head = Vec::new();
    codec::encode(&entry, &mut head)?;
    let length = 4 + head.len() + parts.iter().map(Bytes::len).sum::<usize>();
    let mut bytes = BytesMut::with_capacity(length);
    bytes.put_u32_le(u32::try_from(head.len()).unwrap_or(u32::MAX));
    bytes.put_slice(&head);
    parts.iter().for_each(|part| bytes.put_slice(part));
    Ok(bytes.freeze())
}

/// The entry that `bytes` hold; its bulk shares them.
pub(crate) fn decode(mut bytes: Bytes) -> Result<Entry, EntryError> {
    let whole = bytes.len();
    let Some(length) = bytes.get(..4).and_then(|four| four.try_into().ok()) else {
        return Err(EntryError::Short(whole));
    };
    let length = u32::from_le_bytes(length) as usize;
    if bytes.len() < 4 + length {
        return Err(EntryError::Short(whole));
    }
    let head = bytes.split_to(4 + length);
    let mut entry: Entry = codec::decode(&head[4..])?;
    bulk::attach(&mut entry, bytes)?;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use allhands_common::id::{BatchId, JobId, SessionId};
    use allhands_common::policy::{BatchSpec, Policy};

    use super::*;

    fn append(bytes: usize) -> Command {
        let segment = Bytes::from(vec![7; bytes]).into();
        Command::Append {
            batch: BatchId([1; 16]),
            first: 0,
            tasks: 1,
            segment,
            mentions: Vec::new(),
        }
    }

    #[test]
    fn an_entry_comes_back_with_its_bulk() {
        let commands = vec![append(5), Command::Seal { batch: BatchId([1; 16]), tasks: 1 }];
        let entry = Entry { at: ClusterTime(9), commands };
        let bytes = encode(entry.clone()).unwrap();
        let again = decode(bytes.clone()).unwrap();
        let (mut sent, mut got) = (entry, again);
        assert_eq!(bulk::gather(&mut sent), bulk::gather(&mut got));
        assert_eq!((got.at, got.commands.len()), (ClusterTime(9), 2));
        assert!(matches!(decode(bytes.slice(..3)), Err(EntryError::Short(3))));
        assert!(matches!(decode(bytes.slice(..bytes.len() - 1)), Err(EntryError::Bulk(_))));
    }

    #[test]
    fn an_acknowledgement_waits_for_company() {
        let mut proposals = Proposals::default();
        let acknowledge = Command::Acknowledge(vec![(BatchId([1; 16]), 1)]);
        proposals.push(Instant(0), acknowledge).unwrap();
        assert!(!proposals.pressing(Instant(0)));
        assert!(proposals.pressing(Instant(0) + PATIENCE));
        proposals.push(Instant(0), append(1)).unwrap();
        assert!(proposals.pressing(Instant(0)));
        assert_eq!(proposals.take(ClusterTime(0)).map(|entry| entry.commands.len()), Some(2));
        assert!(!proposals.pressing(Instant(u64::MAX)));
    }

    #[test]
    fn entries_stay_within_their_bounds() {
        let mut proposals = Proposals::default();
        for _ in 0..3 {
            proposals.push(Instant(0), append(2 << 20)).unwrap();
        }
        for _ in 0..ENTRY_COMMANDS_MAX + 1 {
            proposals.push(Instant(0), append(0)).unwrap();
        }
        let mut sizes = Vec::new();
        while let Some(entry) = proposals.take(ClusterTime(0)) {
            sizes.push(entry.commands.len());
            assert!(encode(entry).unwrap().len() <= ENTRY_BYTES_MAX);
        }
        assert_eq!(sizes.iter().sum::<usize>(), ENTRY_COMMANDS_MAX + 4);
        assert!(sizes.iter().all(|size| *size <= ENTRY_COMMANDS_MAX), "{sizes:?}");
    }

    #[test]
    fn words_count_and_what_no_entry_can_hold_is_given_back() {
        let open = |context: usize, env: usize| Command::OpenBatch {
            session: SessionId([1; 16]),
            batch: BatchId([1; 16]),
            sequence: 0,
            call: 0,
            job: JobId(1),
            spec: BatchSpec {
                name: "call".into(),
                functions: Vec::new(),
                policy: Policy::default(),
                env: vec![("X".into(), "x".repeat(env))],
            }
            .into(),
            context: Bytes::from(vec![7; context]).into(),
            tasks: 0,
            segment: Bytes::new().into(),
            sealed: false,
            kept: false,
            mentions: Vec::new(),
        };
        let mut proposals = Proposals::default();
        for _ in 0..3 {
            proposals.push(Instant(0), open(1 << 20, 1 << 20)).unwrap();
        }
        while let Some(entry) = proposals.take(ClusterTime(0)) {
            assert_eq!(entry.commands.len(), 1);
            assert!(encode(entry).unwrap().len() <= ENTRY_BYTES_MAX);
        }
        let refused = proposals.push(Instant(0), open(3 << 20, 1 << 20)).unwrap_err();
        assert!(refused.bytes > 4 << 20);
        assert!(!proposals.pressing(Instant(u64::MAX)));
    }
}
