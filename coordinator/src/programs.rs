//! Programs on their way from a client to the workers.
//!
//! The leader asks the client for a program that it lacks, a chunk at a time, and keeps it by its
//! content address in its [`store`]. A new leader asks again; what a crash leaves half written is written
//! anew. What takes long, to sync a file and to hash one, is done beside the loop; who wants the program
//! meanwhile waits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use allhands_common::id::{SessionId, WorkerId};
use allhands_common::program::{Program, ProgramId};
use allhands_common::wire::client::ToClient;
use allhands_common::wire::worker::ToWorker;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::seats::SeatId;
use crate::shell::Shell;

mod store;

use store::{STORE_BYTES_MAX, Store};

/// What is asked for, and sent, at once.
const CHUNK_BYTES: u32 = 1 << 20;

/// The largest program: several times what a debug build of a large one takes.
const PROGRAM_BYTES_MAX: u64 = 2 << 30;

/// The programs of this coordinator.
#[derive(Debug)]
pub(crate) struct Programs {
    /// `None` for a cluster in one process, whose worker has the program itself.
    store: Option<Store>,
    coming: BTreeMap<ProgramId, Coming>,
    /// Files that are being synced or hashed, and of which programs they are.
    work: JoinSet<Done>,
    busy: BTreeSet<ProgramId>,
    /// Workers that asked for what was not there: from which offset.
    waiting: BTreeMap<ProgramId, BTreeMap<WorkerId, u64>>,
}

/// A program that is being received.
#[derive(Debug)]
struct Coming {
    program: Program,
    /// Who was asked, and over which link.
    from: SessionId,
    seat: SeatId,
    file: File,
    place: PathBuf,
    hasher: Box<blake3::Hasher>,
    have: u64,
}

/// What was done beside the loop.
#[derive(Debug)]
pub(crate) enum Done {
    /// A program of so many bytes was stored.
    Stored { id: ProgramId, bytes: u64, from: SessionId, result: io::Result<()> },
    /// A file was hashed: whether it is the program.
    Checked { id: ProgramId, result: io::Result<bool> },
}

impl Programs {
    /// The programs in `dir`.
    pub(crate) fn open(dir: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            store: dir.map(|dir| Store::open(dir, STORE_BYTES_MAX)).transpose()?,
            coming: BTreeMap::new(),
            work: JoinSet::new(),
            busy: BTreeSet::new(),
            waiting: BTreeMap::new(),
        })
    }

    /// What was done beside the loop; `None` while nothing is. May be dropped while it waits.
    pub(crate) async fn done(&mut self) -> Option<Done> {
        // Neither piece of work panics.
        self.work.join_next().await?.ok()
    }

    fn start(&mut self, id: ProgramId, work: impl FnOnce() -> Done + Send + 'static) {
        self.busy.insert(id);
        self.work.spawn_blocking(work);
    }
}

impl Shell {
    /// A client opens a job for `program`: its bytes are asked for, unless they are here.
    pub(crate) fn want_program(&mut self, session: SessionId, program: Program) {
        let Some(store) = &self.programs.store else { return };
        let id = program.id;
        let coming = self.programs.coming.get(&id);
        let still_coming = coming
            .is_some_and(|coming| self.seats.sessions.get(&coming.from) == Some(&coming.seat));
        if store.has(id) || still_coming || self.programs.busy.contains(&id) {
            return;
        }
        let Some(seat) = self.seats.sessions.get(&session).copied() else { return };
        if program.bytes > PROGRAM_BYTES_MAX {
            let bytes = program.bytes;
            let cause = format!(
                "it has {bytes} bytes, and a program may have {PROGRAM_BYTES_MAX}: strip it of its \
                 debug information, or read large data from files"
            );
            return self.refuse_program(session, id, &cause);
        }
        let place = store.part(id);
        let file = match File::create(&place) {
            Ok(file) => file,
            Err(error) => return self.refuse_program(session, id, &error.to_string()),
        };
        let (from, hasher) = (session, Box::default());
        let coming = Coming { program, from, seat, file, place, hasher, have: 0 };
        self.programs.coming.insert(id, coming);
        self.ask(session, id, 0);
    }

    fn ask(&self, session: SessionId, program: ProgramId, offset: u64) {
        let message = ToClient::WantProgram { program, offset, bytes: CHUNK_BYTES };
        self.seats.tell(session, message);
    }

    /// A program will not come from this client: it is told why, and the workers that it will not.
    fn refuse_program(&mut self, session: SessionId, id: ProgramId, cause: &str) {
        self.programs.coming.remove(&id);
        let reason = format!("the program cannot be stored on coordinator {}: {cause}", self.id);
        let message = ToClient::Refused { batch: None, request: None, reason };
        self.seats.tell(session, message);
        for worker in self.programs.waiting.remove(&id).unwrap_or_default().into_keys() {
            self.seats.order(worker, ToWorker::ProgramUnknown { program: id });
        }
    }

    /// A chunk of a program has come from a client.
    pub(crate) fn take_chunk(
        &mut self,
        session: SessionId,
        id: ProgramId,
        offset: u64,
        chunk: &Bytes,
    ) {
        let Some(coming) = self.programs.coming.get_mut(&id) else { return };
        // Another client may have the same program, but what it says was not asked for.
        if coming.from != session || offset != coming.have || chunk.is_empty() {
            return;
        }
        if chunk.len() as u64 > coming.program.bytes - coming.have {
            let cause = format!("it is longer than the {} bytes announced", coming.program.bytes);
            return self.refuse_program(session, id, &cause);
        }
        if let Err(error) = coming.file.write_all(chunk) {
            return self.refuse_program(session, id, &error.to_string());
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
            return self.refuse_program(session, id, &cause);
        }
        let Coming { from, file, place, have: bytes, .. } = coming;
        self.programs.start(id, move || {
            let result = store::seal(&file, &place);
            Done::Stored { id, bytes, from, result }
        });
    }

    /// A worker wants a program's bytes from `offset` on.
    pub(crate) fn serve_program(&mut self, worker: WorkerId, program: ProgramId, offset: u64) {
        if !self.registered_worker(worker) {
            return;
        }
        let Some(store) = &mut self.programs.store else { return };
        let checked = store.is_checked(program);
        if checked == Some(true) {
            let message = match store.read(program, offset, CHUNK_BYTES) {
                Ok(chunk) => ToWorker::ProgramChunk { program, offset, chunk: chunk.into() },
                Err(error) => {
                    tracing::error!(%error, %program, "a program cannot be read");
                    ToWorker::ProgramUnknown { program }
                }
            };
            return self.seats.order(worker, message);
        }
        let place = store.place(program);
        let busy = self.programs.busy.contains(&program);
        let source = self.source_of(program);
        if checked.is_none() && !busy && source.is_none() {
            return self.seats.order(worker, ToWorker::ProgramUnknown { program });
        }
        self.programs.waiting.entry(program).or_default().insert(worker, offset);
        if busy {
            return;
        }
        match source {
            // It was here before the start.
            _ if checked.is_some() => self.programs.start(program, move || {
                let result = store::check(&place, program);
                Done::Checked { id: program, result }
            }),
            Some((session, program)) => self.want_program(session, program),
            None => {}
        }
    }

    /// The client that has a program.
    fn source_of(&self, program: ProgramId) -> Option<(SessionId, Program)> {
        let job = self.state.jobs.values().find(|job| job.program.id == program)?;
        self.attached_session(job.session).then(|| (job.session, job.program.clone()))
    }

    /// Something was done beside the loop.
    pub(crate) fn program_done(&mut self, done: Done) {
        let Some(store) = &mut self.programs.store else { return };
        let id = match done {
            Done::Stored { id, bytes, from, result } => {
                self.programs.busy.remove(&id);
                if let Err(error) = result {
                    return self.refuse_program(from, id, &error.to_string());
                }
                store.add(id, bytes);
                let live = self.state.jobs.values().map(|job| job.program.id).chain([id]);
                store.evict(&live.collect());
                id
            }
            Done::Checked { id, result } => {
                self.programs.busy.remove(&id);
                match result {
                    Ok(true) => store.confirm(id),
                    Ok(false) => {
                        tracing::error!(program = %id, "a program's file is damaged: it is fetched anew");
                        store.remove(id);
                    }
                    Err(error) => {
                        tracing::error!(%error, program = %id, "a program cannot be read");
                        store.remove(id);
                    }
                }
                id
            }
        };
        for (worker, offset) in self.programs.waiting.remove(&id).unwrap_or_default() {
            self.serve_program(worker, id, offset);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
