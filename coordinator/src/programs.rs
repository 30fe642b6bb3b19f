//! Programs on their way from a client to the workers.
//!
//! The leader asks the client for a program that it lacks, a chunk at a time, and keeps it by its
//! content address. A new leader asks again; what a crash leaves half written is written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use allhands_common::id::{SessionId, WorkerId};
use allhands_common::program::{Program, ProgramId};
use allhands_common::wire::client::ToClient;
use allhands_common::wire::worker::ToWorker;
use bytes::Bytes;

use crate::shell::Shell;

/// What is asked for, and sent, at once.
const CHUNK_BYTES: u32 = 1 << 20;

/// The programs of this coordinator.
#[derive(Debug)]
pub(crate) struct Programs {
    /// Where they are; `None` for a cluster in one process, whose worker has the program itself.
    dir: Option<PathBuf>,
    whole: BTreeSet<ProgramId>,
    coming: BTreeMap<ProgramId, Coming>,
    /// Workers that asked for what was not there: from which offset.
    waiting: BTreeMap<ProgramId, Vec<(WorkerId, u64)>>,
}

/// A program that is being received.
#[derive(Debug)]
struct Coming {
    program: Program,
    from: SessionId,
    file: File,
    place: PathBuf,
    hasher: Box<blake3::Hasher>,
    have: u64,
}

impl Programs {
    /// The programs in `dir`, as far as they are whole.
    pub(crate) fn open(dir: Option<PathBuf>) -> std::io::Result<Self> {
        let mut whole = BTreeSet::new();
        if let Some(dir) = &dir {
            std::fs::create_dir_all(dir)?;
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                let name = entry.file_name();
                match name.to_str().and_then(|name| blake3::Hash::from_hex(name).ok()) {
                    Some(hash) => {
                        whole.insert(ProgramId(*hash.as_bytes()));
                    }
                    None => std::fs::remove_file(entry.path())?,
                }
            }
        }
        Ok(Self { dir, whole, coming: BTreeMap::new(), waiting: BTreeMap::new() })
    }

    fn read(&self, dir: &Path, program: ProgramId, offset: u64) -> std::io::Result<Bytes> {
        let mut file = File::open(dir.join(program.to_string()))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut chunk = Vec::new();
        file.take(u64::from(CHUNK_BYTES)).read_to_end(&mut chunk)?;
        Ok(chunk.into())
    }
}

impl Shell {
    /// A client opens a job for `program`: its bytes are asked for, unless they are here.
    pub(crate) fn want_program(&mut self, session: SessionId, program: Program) {
        let Some(dir) = self.programs.dir.clone() else { return };
        let id = program.id;
        let still_coming =
            self.programs.coming.get(&id).is_some_and(|coming| self.attached_session(coming.from));
        if self.programs.whole.contains(&id) || still_coming {
            return;
        }
        let place = dir.join(format!("{id}.part"));
        let file = match File::create(&place) {
            Ok(file) => file,
            Err(error) => return self.refuse_program(session, &format!("{error}")),
        };
        let hasher = Box::default();
        let coming = Coming { program, from: session, file, place, hasher, have: 0 };
        self.programs.coming.insert(id, coming);
        self.ask(session, id, 0);
    }

    fn ask(&self, session: SessionId, program: ProgramId, offset: u64) {
        let message = ToClient::WantProgram { program, offset, bytes: CHUNK_BYTES };
        self.seats.tell(session, message);
    }

    fn refuse_program(&self, session: SessionId, cause: &str) {
        let reason = format!("the program cannot be stored on coordinator {}: {cause}", self.id);
        let message = ToClient::Refused { batch: None, request: None, reason };
        self.seats.tell(session, message);
    }

    /// A chunk of a program has come.
    pub(crate) fn take_chunk(&mut self, id: ProgramId, offset: u64, chunk: &Bytes) {
        let Some(coming) = self.programs.coming.get_mut(&id) else { return };
        if offset != coming.have || chunk.is_empty() {
            return;
        }
        let session = coming.from;
        if let Err(error) = coming.file.write_all(chunk) {
            self.programs.coming.remove(&id);
            return self.refuse_program(session, &format!("{error}"));
        }
        coming.hasher.update(chunk);
        coming.have += chunk.len() as u64;
        let have = coming.have;
        if have < coming.program.bytes {
            return self.ask(session, id, have);
        }
        let Some(coming) = self.programs.coming.remove(&id) else { return };
        let hash = coming.hasher.finalize();
        if *hash.as_bytes() != id.0 {
            let cause = format!("its bytes have the hash {hash}, it is named {id}");
            return self.refuse_program(session, &cause);
        }
        if let Err(error) = std::fs::rename(&coming.place, coming.place.with_extension("")) {
            return self.refuse_program(session, &format!("{error}"));
        }
        self.programs.whole.insert(id);
        for (worker, offset) in self.programs.waiting.remove(&id).unwrap_or_default() {
            self.serve_program(worker, id, offset);
        }
    }

    /// A worker wants a program's bytes from `offset` on.
    pub(crate) fn serve_program(&mut self, worker: WorkerId, program: ProgramId, offset: u64) {
        if !self.registered_worker(worker) {
            return;
        }
        if !self.programs.whole.contains(&program) {
            let job = self.state.jobs.values().find(|job| job.program.id == program);
            let source = job.map(|job| (job.session, job.program.clone()));
            match source.filter(|(session, _)| self.attached_session(*session)) {
                Some((session, program)) => {
                    let waiting = self.programs.waiting.entry(program.id).or_default();
                    waiting.push((worker, offset));
                    self.want_program(session, program);
                }
                None => self.seats.order(worker, ToWorker::ProgramUnknown { program }),
            }
            return;
        }
        let Some(dir) = &self.programs.dir else { return };
        let message = match self.programs.read(dir, program, offset) {
            Ok(chunk) => ToWorker::ProgramChunk { program, offset, chunk: chunk.into() },
            Err(error) => {
                tracing::error!(%error, %program, "a program cannot be read");
                ToWorker::ProgramUnknown { program }
            }
        };
        self.seats.order(worker, message);
    }
}
