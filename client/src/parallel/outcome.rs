//! From encoded outcomes to values and errors. What a task that has a value costs is the decoding of
//! it; everything else is looked for when a task has none.

use allhands_common::codec;
use allhands_common::execution::TASK_ID_BYTES;
use allhands_common::failure::{Cause, Failed};
use allhands_common::segment::{
    ARITY_MAX, DONE, ERROR, FAILED, FORWARDED, STORED, Segment, split_argument_tag,
};
use bytes::Bytes;

use super::call::Call;
use crate::delayed::ResultDecoder;
use crate::error::{Error, TaskError, TaskErrorKind, error_of_end};
use crate::payload::Codec;
use crate::session::core::End;
use crate::session::inbox::{Arrived, KeptSegment};

/// Reads results.
pub(super) type Decoder<R> = ResultDecoder<R>;

impl<R> Call<R> {
    /// The outcome of a row of a segment: the call's `index`-th.
    #[inline]
    pub(super) fn outcome(
        &self,
        arrived: &Arrived,
        row: u32,
        index: usize,
    ) -> Result<R, TaskError> {
        let codec = Codec::from_byte(arrived.outcomes.codec());
        match (arrived.outcomes.value(row), codec, self.decoder) {
            (Some((DONE | FAILED, bytes)), Some(codec), Some(decoder)) => arrived
                .outcomes
                .reading(|| decoder.decode(codec, bytes))
                .map_err(|error| self.error(arrived, row, index, undecodable(&error))),
            (Some((FORWARDED, bytes)), Some(codec), Some(decoder)) => decoder
                .decode(codec, bytes.get(TASK_ID_BYTES..).unwrap_or_default())
                .map_err(|error| self.error(arrived, row, index, undecodable(&error))),
            (Some((STORED, reference)), Some(codec), Some(decoder)) => self
                .stored(arrived, codec, decoder, reference)
                .map_err(|kind| self.error(arrived, row, index, kind)),
            _ => Err(self.failure(arrived, row, index)),
        }
    }

    /// The long result that `reference` names.
    #[cold]
    fn stored(
        &self,
        arrived: &Arrived,
        codec: Codec,
        decoder: Decoder<R>,
        reference: &[u8],
    ) -> Result<R, TaskErrorKind> {
        let bytes = arrived.outcomes.stored(reference).map_err(|error| undecodable(&error))?;
        let decode = || decoder.decode(codec, &bytes);
        arrived.outcomes.reading(decode).map_err(|error| undecodable(&error))
    }

    /// The error of a row that has no value, or whose value is an error that counts as none.
    #[cold]
    pub(super) fn failure(&self, arrived: &Arrived, row: u32, index: usize) -> TaskError {
        let codec = Codec::from_byte(arrived.outcomes.codec());
        match (arrived.outcomes.value(row), codec) {
            (Some((ERROR, bytes)), _) => match codec::decode::<Failed>(bytes) {
                Ok(Failed { cause, worker, attempt, tries }) => self
                    .error(arrived, row, index, TaskErrorKind::Ended(cause))
                    .at(worker, attempt, tries)
                    .on(self.worker_name(worker)),
                Err(error) => self.error(arrived, row, index, undecodable(&error)),
            },
            (Some((FAILED, bytes)), Some(codec)) => {
                let bytes = Bytes::copy_from_slice(bytes);
                self.error(arrived, row, index, TaskErrorKind::failed(bytes, codec))
            }
            _ => {
                let damaged = "its outcome was damaged, or comes from another release of allhands";
                let kind = TaskErrorKind::Undecodable { message: damaged.into() };
                self.error(arrived, row, index, kind)
            }
        }
    }

    /// The first failure among what has come, in the order of the call: its error, the outcome that
    /// it is, and its row.
    pub(super) fn first_failure<'a>(
        &self,
        arrived: impl IntoIterator<Item = &'a Arrived>,
    ) -> Option<(TaskError, &'a Arrived, u32)> {
        let errors_count = self.inbox.rules().errors_count;
        let mut first: Option<(usize, &Arrived, u32)> = None;
        for arrived in arrived {
            for (tag, rows) in arrived.outcomes.runs() {
                let fails = tag == ERROR || (tag == FAILED && errors_count);
                let indices = &self.parts[arrived.part as usize].indices;
                let index = indices.index(arrived.range.start + rows.start);
                if fails && first.is_none_or(|(before, ..)| index < before) {
                    first = Some((index, arrived, rows.start));
                }
            }
        }
        first.map(|(index, arrived, row)| (self.failure(arrived, row, index), arrived, row))
    }

    #[cold]
    fn error(&self, arrived: &Arrived, row: u32, index: usize, kind: TaskErrorKind) -> TaskError {
        let task = arrived.range.start + row;
        let kept = arrived.arguments.iter().find(|kept| kept.range.contains(task));
        self.error_of(arrived.part, task, index, kept, kind)
    }

    /// The error of a task that has no outcome, in a part that is over.
    #[cold]
    pub(super) fn missing(&self, part: u32, task: u32) -> TaskError {
        let mail = self.inbox.mail();
        let end = mail.ends.iter().find(|(ended, _)| *ended == part).map(|(_, end)| end.clone());
        let kept = mail.kept.get(part as usize).and_then(|kept| kept.of(task));
        drop(mail);
        let index = self.parts[part as usize].indices.index(task);
        let failed = match end {
            Some(End::Complete { rest: Some(failed) }) => failed,
            _ => {
                let reason = "the call ended before it".to_owned();
                let cause = Cause::Cancelled { reason };
                Failed { cause, worker: None, attempt: None, tries: 0 }
            }
        };
        let Failed { cause, worker, attempt, tries } = failed;
        // A later part was given what was left of it.
        let cause = match (cause, self.deadline_ms()) {
            (Cause::DeadlinePassed { .. }, Some(limit_ms)) => Cause::DeadlinePassed { limit_ms },
            (cause, _) => cause,
        };
        self.error_of(part, task, index, kept.as_ref(), TaskErrorKind::Ended(cause))
            .at(worker, attempt, tries)
            .on(self.worker_name(worker))
    }

    fn error_of(
        &self,
        part: u32,
        task: u32,
        index: usize,
        kept: Option<&KeptSegment>,
        kind: TaskErrorKind,
    ) -> TaskError {
        let entries = &self.parts[part as usize].entries;
        let found = kept.and_then(|kept| {
            let segment = Segment::parse(kept.arguments.clone()).ok()?;
            let codec = Codec::from_byte(segment.codec())?;
            let mut strings = [&[][..]; ARITY_MAX];
            let (tag, arity) = segment.row(task - kept.range.start, &mut strings)?;
            let (function, stand_ins) = split_argument_tag(tag);
            let entry = *entries.get(usize::from(function))?;
            Some((self.label(entry), entry.text(codec, &strings[..arity], stand_ins)))
        });
        let (function, arguments) = found.unwrap_or_else(|| {
            let label = entries.first().map(|entry| self.label(entry)).unwrap_or_default();
            (label, "(arguments no longer at hand)".into())
        });
        TaskError::new(index, function, arguments, kind)
    }

    /// Why the call went wrong as a whole, if it did.
    pub(super) fn disorder(&self) -> Option<Error> {
        let mail = self.inbox.mail();
        mail.ends.iter().find_map(|(_, end)| error_of_end(end))
    }
}

fn undecodable(error: &dyn std::fmt::Display) -> TaskErrorKind {
    TaskErrorKind::Undecodable { message: error.to_string() }
}
