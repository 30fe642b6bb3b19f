//! The program store: executables by the blake3 of their bytes.
//!
//! A program comes from the leader in pieces of at most 1 MiB and grows as `HASH.part`. When it is
//! whole it is hashed, synced, made executable and renamed to `HASH`: a file of that name is whole,
//! whatever crashed. A part survives a restart and is gone on with from its length; should its tail be
//! damaged, the hash shows it and it is fetched once more from the start.

mod seal;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use allhands_common::failure::Cause;
use allhands_common::program::{Platform, Program, ProgramId};
use bytes::Bytes;

pub(crate) use seal::Seal;

/// Where `program` lies once it is whole.
pub(crate) fn file(directory: &Path, program: ProgramId) -> PathBuf {
    directory.join(program.to_string())
}

/// The programs of a worker.
#[derive(Debug)]
pub(crate) struct Programs {
    /// `None` where the only program is this process's own.
    directory: Option<PathBuf>,
    /// What this machine can run.
    platform: Platform,
    coming: BTreeMap<ProgramId, Coming>,
}

/// A program that is being fetched.
#[derive(Debug)]
struct Coming {
    program: Program,
    part: PathBuf,
    file: File,
    have: u64,
    /// Whether its bytes have been found damaged once.
    again: bool,
}

/// What is to be done next for a program.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Ask the leader for its bytes from here on.
    Want(ProgramId, u64),
    /// It is there.
    Ready(ProgramId),
    /// It cannot be had.
    Failed(ProgramId, Cause),
    /// All its bytes are there: to be checked, where blocking is allowed.
    Seal(Seal),
}

impl Programs {
    /// The store in `directory`, which is made; without one, every program is this process's own.
    pub(crate) fn open(directory: Option<PathBuf>, platform: Platform) -> io::Result<Self> {
        if let Some(directory) = &directory {
            std::fs::create_dir_all(directory)?;
        }
        Ok(Self { directory, platform, coming: BTreeMap::new() })
    }

    /// Has `program` in the store.
    pub(crate) fn fetch(&mut self, program: Program) -> Step {
        let id = program.id;
        let Some(directory) = &self.directory else {
            return Step::Ready(id);
        };
        if let Some(message) = program.platform.obstacle(&self.platform) {
            let message = format!("{} cannot run on this worker: {message}", program.name);
            return Step::Failed(id, Cause::Program { message });
        }
        let whole = file(directory, id);
        if std::fs::metadata(&whole).is_ok_and(|file| file.len() == program.bytes) {
            return Step::Ready(id);
        }
        let part = whole.with_extension("part");
        match open_part(&part, program.bytes) {
            Ok((file, have)) => {
                self.coming.insert(id, Coming { program, part, file, have, again: false });
                self.next(id)
            }
            Err(error) => failed(id, &program.name, &error),
        }
    }

    /// Takes bytes of a program.
    pub(crate) fn chunk(&mut self, id: ProgramId, offset: u64, chunk: &Bytes) -> Step {
        let Some(coming) = self.coming.get_mut(&id) else {
            return Step::Nothing;
        };
        if offset != coming.have {
            // The answer to a question that was asked again over another connection.
            return Step::Nothing;
        }
        let fits = coming.program.bytes - coming.have >= chunk.len() as u64;
        if chunk.is_empty() || !fits {
            return self.give_up(id, "the leader sends other bytes than were announced");
        }
        if let Err(error) = coming.file.write_all_at(chunk, offset) {
            let step = failed(id, &coming.program.name, &error);
            self.coming.remove(&id);
            return step;
        }
        coming.have += chunk.len() as u64;
        self.next(id)
    }

    /// No coordinator has it.
    pub(crate) fn unknown(&mut self, id: ProgramId) -> Step {
        self.give_up(id, "no coordinator has it any more: submit the call again from its client")
    }

    /// The questions to ask a leader that has just taken this worker: earlier ones may be lost.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (ProgramId, u64)> + '_ {
        let open = self.coming.values().filter(|coming| coming.have < coming.program.bytes);
        open.map(|coming| (coming.program.id, coming.have))
    }

    /// The bytes of a program were checked.
    pub(crate) fn sealed(&mut self, id: ProgramId, answer: io::Result<bool>) -> Step {
        let Some(coming) = self.coming.get_mut(&id) else {
            return Step::Nothing;
        };
        match answer {
            Ok(true) => {
                self.coming.remove(&id);
                Step::Ready(id)
            }
            Ok(false) if !coming.again && coming.file.set_len(0).is_ok() => {
                (coming.have, coming.again) = (0, true);
                self.next(id)
            }
            Ok(false) => self.give_up(
                id,
                "its bytes have another hash than its name says: they were damaged on the way, or a \
                 coordinator's copy is",
            ),
            Err(error) => {
                let step = failed(id, &coming.program.name, &error);
                self.coming.remove(&id);
                step
            }
        }
    }

    fn next(&self, id: ProgramId) -> Step {
        let Some(coming) = self.coming.get(&id) else {
            return Step::Nothing;
        };
        if coming.have < coming.program.bytes {
            return Step::Want(id, coming.have);
        }
        Step::Seal(Seal { program: id, part: coming.part.clone() })
    }

    fn give_up(&mut self, id: ProgramId, why: &str) -> Step {
        let Some(coming) = self.coming.remove(&id) else {
            return Step::Nothing;
        };
        _ = std::fs::remove_file(&coming.part);
        let message = format!("{} cannot be fetched: {why}", coming.program.name);
        Step::Failed(id, Cause::Program { message })
    }
}

fn open_part(part: &Path, bytes: u64) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(part)?;
    let have = file.metadata()?.len();
    if have > bytes {
        file.set_len(0)?;
        return Ok((file, 0));
    }
    Ok((file, have))
}

fn failed(id: ProgramId, name: &str, error: &io::Error) -> Step {
    let message = format!("{name} cannot be stored on this worker: {error}");
    Step::Failed(id, Cause::Program { message })
}

#[cfg(test)]
mod tests;
