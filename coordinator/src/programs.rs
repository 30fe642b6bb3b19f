//! Programs on their way from a client to the workers.
//!
//! The leader asks the client for a program that it lacks, a chunk at a time, and keeps it by its
//! content address in its [`store`]. A new leader asks again, or [fetches](fetch) it from another coordinator: the
//! client of a job that goes on without it gives its program to all of them. What a crash leaves half written is
//! written anew. What takes long, to sync a file and to hash one, is done beside the loop; who wants the program
//! meanwhile waits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use allhands_common::id::WorkerId;
use allhands_common::program::{Program, ProgramId};
use allhands_common::wire::client::ToClient;
use allhands_common::wire::worker::ToWorker;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::seats::SeatId;
use crate::shell::Shell;

mod fetch;
mod store;

pub(crate) use fetch::Others;
pub(crate) use store::{CHUNK_BYTES, serve};
use store::{STORE_BYTES_MAX, Store};

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
    /// Clients that are to be told when a program is there.
    telling: BTreeMap<ProgramId, BTreeSet<SeatId>>,
    /// The other coordinators, of a cluster of several.
    others: Option<Arc<Others>>,
}

/// A program that is being received.
#[derive(Debug)]
struct Coming {
    program: Program,
    /// The link over which it comes.
    from: SeatId,
    file: File,
    place: PathBuf,
    hasher: Box<blake3::Hasher>,
    have: u64,
}

/// What was done beside the loop.
#[derive(Debug)]
pub(crate) enum Done {
    /// A program of so many bytes was stored.
    Stored { id: ProgramId, bytes: u64, from: SeatId, result: io::Result<()> },
    /// Another coordinator was asked for a program: its length, if one had it.
    Fetched { id: ProgramId, result: io::Result<Option<u64>> },
    /// A file was hashed: whether it is the program.
    Checked { id: ProgramId, result: io::Result<bool> },
}

impl Programs {
    /// The programs in `dir`.
    pub(crate) fn open(dir: Option<PathBuf>, others: Option<Others>) -> io::Result<Self> {
        Ok(Self {
            store: dir.map(|dir| Store::open(dir, STORE_BYTES_MAX)).transpose()?,
            coming: BTreeMap::new(),
            work: JoinSet::new(),
            busy: BTreeSet::new(),
            waiting: BTreeMap::new(),
            telling: BTreeMap::new(),
            others: others.map(Arc::new),
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
    /// A client has a program, and wants to know when it is here as well.
    pub(crate) fn offered_program(&mut self, seat: SeatId, program: Program) {
        let Some(store) = &mut self.programs.store else { return };
        let id = program.id;
        self.programs.telling.entry(id).or_default().insert(seat);
        match store.is_checked(id) {
            Some(true) => self.tell_holders(id),
            Some(false) if !self.programs.busy.contains(&id) => self.check_program(id),
            Some(false) => {}
            None => self.want_program(seat, program),
        }
    }

    fn tell_holders(&mut self, id: ProgramId) {
        for seat in self.programs.telling.remove(&id).unwrap_or_default() {
            self.seats.say(seat, ToClient::HasProgram(id));
        }
    }

    /// A client opens a job for `program`: its bytes are asked for, unless they are here.
    pub(crate) fn want_program(&mut self, seat: SeatId, program: Program) {
        let Some(store) = &self.programs.store else { return };
        let id = program.id;
        let coming = self.programs.coming.get(&id);
        let still_coming = coming.is_some_and(|c| self.seats.clients.contains_key(&c.from));
        if store.has(id) || still_coming || self.programs.busy.contains(&id) {
            return;
        }
        if program.bytes > PROGRAM_BYTES_MAX {
            let bytes = program.bytes;
            let cause = format!(
                "it has {bytes} bytes, and a program may have {PROGRAM_BYTES_MAX}: strip it of its \
                 debug information, or read large data from files"
            );
            return self.refuse_program(seat, id, &cause);
        }
        let place = store.part(id);
        let file = match File::create(&place) {
            Ok(file) => file,
            Err(error) => return self.refuse_program(seat, id, &error.to_string()),
        };
        let (from, hasher) = (seat, Box::default());
        let coming = Coming { program, from, file, place, hasher, have: 0 };
        self.programs.coming.insert(id, coming);
        self.ask(seat, id, 0);
    }

    fn ask(&self, seat: SeatId, program: ProgramId, offset: u64) {
        let message = ToClient::WantProgram { program, offset, bytes: CHUNK_BYTES };
        self.seats.say(seat, message);
    }

    /// A program will not come from this client: it is told why, and the workers that it will not.
    fn refuse_program(&mut self, seat: SeatId, id: ProgramId, cause: &str) {
        self.programs.coming.remove(&id);
        let reason = format!("the program cannot be stored on coordinator {}: {cause}", self.id);
        let message = ToClient::Refused { batch: None, request: None, reason };
        self.seats.say(seat, message);
        self.programs.telling.remove(&id);
        self.unknown_program(id);
    }

    /// Workers that wait for a program are told that nobody has it.
    fn unknown_program(&mut self, id: ProgramId) {
        for worker in self.programs.waiting.remove(&id).unwrap_or_default().into_keys() {
            self.seats.order(worker, ToWorker::ProgramUnknown { program: id });
        }
    }

    /// A chunk of a program has come from a client.
    pub(crate) fn take_chunk(&mut self, seat: SeatId, id: ProgramId, offset: u64, chunk: &Bytes) {
        let Some(coming) = self.programs.coming.get_mut(&id) else { return };
        // Another client may have the same program, but what it says was not asked for.
        if coming.from != seat || offset != coming.have || chunk.is_empty() {
            return;
        }
        if chunk.len() as u64 > coming.program.bytes - coming.have {
            let cause = format!("it is longer than the {} bytes announced", coming.program.bytes);
            return self.refuse_program(seat, id, &cause);
        }
        if let Err(error) = coming.file.write_all(chunk) {
            return self.refuse_program(seat, id, &error.to_string());
        }
        coming.hasher.update(chunk);
        coming.have += chunk.len() as u64;
        let have = coming.have;
        if have < coming.program.bytes {
            return self.ask(seat, id, have);
        }
        let Some(coming) = self.programs.coming.remove(&id) else { return };
        let hash = coming.hasher.finalize();
        if *hash.as_bytes() != id.0 {
            let cause = format!("its bytes have the hash {hash}, it is named {id}");
            return self.refuse_program(seat, id, &cause);
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
        self.programs.waiting.entry(program).or_default().insert(worker, offset);
        if self.programs.busy.contains(&program) {
            return;
        }
        match self.source_of(program) {
            // It was here before the start.
            _ if checked.is_some() => self.check_program(program),
            Some((seat, program)) => self.want_program(seat, program),
            None => self.fetch_program(program),
        }
    }

    /// Looks whether what was here before the start is the program.
    fn check_program(&mut self, id: ProgramId) {
        let Some(store) = &self.programs.store else { return };
        let place = store.place(id);
        self.programs.start(id, move || {
            let result = store::check(&place, id);
            Done::Checked { id, result }
        });
    }

    /// Gets a program from another coordinator, if one has it.
    fn fetch_program(&mut self, id: ProgramId) {
        let (Some(store), Some(others)) = (&self.programs.store, &self.programs.others) else {
            return self.unknown_program(id);
        };
        let (others, place) = (Arc::clone(others), store.part(id));
        self.programs.busy.insert(id);
        self.programs.work.spawn(async move {
            let result = others.fetch(id, place).await;
            Done::Fetched { id, result }
        });
    }

    /// The client that has a program.
    fn source_of(&self, program: ProgramId) -> Option<(SeatId, Program)> {
        let mut jobs = self.state.jobs.values().filter(|job| job.program.id == program);
        jobs.find_map(|job| {
            // Who has attached to another's job has not its program.
            let opener = !job.is_visited();
            let seat = self.seats.sessions.get(&job.session).filter(|_| opener)?;
            Some((*seat, job.program.clone()))
        })
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
                self.evict_programs(id);
                id
            }
            Done::Fetched { id, result } => {
                self.programs.busy.remove(&id);
                match result {
                    Ok(Some(bytes)) => {
                        store.add(id, bytes);
                        self.evict_programs(id);
                    }
                    Ok(None) => return self.unknown_program(id),
                    Err(error) => {
                        tracing::error!(%error, program = %id, "a program cannot be stored");
                        return self.unknown_program(id);
                    }
                }
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
        if self.programs.store.as_mut().and_then(|store| store.is_checked(id)) == Some(true) {
            self.tell_holders(id);
        }
        for (worker, offset) in self.programs.waiting.remove(&id).unwrap_or_default() {
            self.serve_program(worker, id, offset);
        }
    }

    /// Makes room for a program that has come.
    fn evict_programs(&mut self, id: ProgramId) {
        let live = self.state.jobs.values().map(|job| job.program.id).chain([id]).collect();
        if let Some(store) = &mut self.programs.store {
            store.evict(&live);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
