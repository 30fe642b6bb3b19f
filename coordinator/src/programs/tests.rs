//! Programs that come, were there before, are not what their name says, or too large.

use std::fs;
use std::path::Path;

use allhands_common::id::{CoordinatorId, SessionId};
use allhands_common::program::Platform;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::raft::config::Durability;
use crate::seats::{ClientSeat, WorkerSeat};
use crate::segments::Segments;
use crate::shell::Log;

const BYTES: &[u8] = b"#!/bin/sh\n";
pub(crate) const CLIENT: SessionId = SessionId([1; 16]);
/// Links of clients.
const FIRST: SeatId = SeatId(1);
const OTHER: SeatId = SeatId(2);
const WORKER: WorkerId = WorkerId(7);

fn id_of(bytes: &[u8]) -> ProgramId {
    ProgramId(*blake3::hash(bytes).as_bytes())
}

pub(crate) fn program(bytes: &[u8]) -> Program {
    let platform = Platform { arch: "any".into(), os: "linux".into(), glibc: None };
    Program { id: id_of(bytes), bytes: bytes.len() as u64, platform, name: "app".into() }
}

/// A leader with its clients and one worker, who hear what it says.
pub(crate) struct Rig {
    pub(crate) shell: Shell,
    pub(crate) client: UnboundedReceiver<ToClient>,
    worker: UnboundedReceiver<ToWorker>,
    dir: TempDir,
}

fn programs(dir: &Path) -> PathBuf {
    dir.join("programs")
}

pub(crate) fn rig() -> Rig {
    rig_in(tempfile::tempdir().unwrap())
}

fn rig_in(dir: TempDir) -> Rig {
    let segments = Segments::open(&dir.path().join("s"), Durability::Process, 1 << 20).unwrap();
    let store = Programs::open(Some(programs(dir.path())), None).unwrap();
    let mut shell = Shell::new(CoordinatorId(1), segments, store, Log::Direct);
    shell.lead_alone();
    let (out, client) = unbounded_channel();
    for (seat_id, session) in [(FIRST, CLIENT), (OTHER, SessionId([2; 16]))] {
        let (out, owner) = (out.clone(), String::new());
        let seat = ClientSeat { owner, out, attach: None, session: Some(session), term: None };
        shell.seats.clients.insert(seat_id, seat);
        shell.seats.sessions.insert(session, seat_id);
    }
    let (out, worker) = unbounded_channel();
    let node = "worker-1".to_owned();
    let seat = WorkerSeat { node, out, register: None, worker: Some(WORKER), term: None };
    shell.seats.workers.insert(SeatId(3), seat);
    shell.seats.registered.insert(WORKER, SeatId(3));
    Rig { shell, client, worker, dir }
}

impl Rig {
    fn chunk(&mut self, from: SeatId, offset: u64, bytes: &'static [u8]) {
        self.shell.take_chunk(from, id_of(BYTES), offset, &Bytes::from_static(bytes));
    }

    /// Lets what is done beside the loop be done.
    async fn work(&mut self) {
        while let Some(done) = self.shell.programs.done().await {
            self.shell.program_done(done);
        }
    }

    fn asked(&mut self) -> Option<u64> {
        match self.client.try_recv().ok()? {
            ToClient::WantProgram { offset, .. } => Some(offset),
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self) -> String {
        match self.client.try_recv() {
            Ok(ToClient::Refused { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn served(&mut self) -> Option<Bytes> {
        match self.worker.try_recv().ok()? {
            ToWorker::ProgramChunk { chunk, .. } => Some(chunk.bytes),
            ToWorker::ProgramUnknown { .. } => None,
            other => panic!("{other:?}"),
        }
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(programs(self.dir.path())).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[tokio::test]
async fn a_program_comes_from_whom_it_was_asked_of_and_is_served_once_it_is_on_disk() {
    let mut rig = rig();
    rig.shell.want_program(FIRST, program(BYTES));
    assert_eq!(rig.asked(), Some(0));
    rig.shell.want_program(OTHER, program(BYTES));
    assert_eq!(rig.asked(), None, "it is coming already");
    rig.chunk(OTHER, 0, b"XXXX");
    rig.chunk(FIRST, 0, &BYTES[..4]);
    assert_eq!(rig.asked(), Some(4));
    rig.chunk(FIRST, 4, &BYTES[4..]);
    rig.shell.serve_program(WORKER, id_of(BYTES), 0);
    assert!(rig.worker.try_recv().is_err(), "its name is not on the disk yet");
    rig.work().await;
    assert_eq!(rig.served().unwrap(), BYTES);
    assert_eq!(rig.files(), [id_of(BYTES).to_string()]);
}

#[tokio::test]
async fn who_comes_back_over_another_link_is_asked_again() {
    let mut rig = rig();
    rig.shell.want_program(FIRST, program(BYTES));
    rig.chunk(FIRST, 0, &BYTES[..4]);
    assert_eq!([rig.asked(), rig.asked()], [Some(0), Some(4)]);
    let seat = rig.shell.seats.clients.remove(&SeatId(1)).unwrap();
    rig.shell.seats.clients.insert(SeatId(9), seat);
    rig.shell.seats.sessions.insert(CLIENT, SeatId(9));
    rig.shell.want_program(SeatId(9), program(BYTES));
    assert_eq!(rig.asked(), Some(0));
}

#[tokio::test]
async fn what_was_there_before_is_served_only_if_it_is_what_its_name_says() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(programs(dir.path())).unwrap();
    let torn = id_of(b"another program");
    fs::write(programs(dir.path()).join(id_of(BYTES).to_string()), BYTES).unwrap();
    fs::write(programs(dir.path()).join(torn.to_string()), b"another").unwrap();
    fs::write(programs(dir.path()).join("left.part"), b"x").unwrap();
    let mut rig = rig_in(dir);
    for id in [id_of(BYTES), torn] {
        rig.shell.serve_program(WORKER, id, 0);
        assert!(rig.worker.try_recv().is_err(), "it is not checked yet");
        rig.work().await;
        let expected = (id != torn).then_some(BYTES);
        assert_eq!(rig.served().as_deref(), expected);
    }
    assert_eq!(rig.files(), [id_of(BYTES).to_string()]);
    rig.shell.serve_program(WORKER, id_of(BYTES), 4);
    assert_eq!(rig.served().unwrap(), BYTES[4..], "it is checked once");
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let mut rig = rig();
    let bytes = PROGRAM_BYTES_MAX + 1;
    rig.shell.want_program(FIRST, Program { bytes, ..program(BYTES) });
    let reason = rig.refused();
    assert!(reason.contains(&bytes.to_string()) && reason.contains("strip"), "{reason}");

    rig.shell.want_program(FIRST, Program { bytes: 3, ..program(BYTES) });
    assert_eq!(rig.asked(), Some(0));
    rig.chunk(FIRST, 0, b"1234");
    let reason = rig.refused();
    assert!(reason.contains("longer than the 3 bytes announced"), "{reason}");
}

#[test]
fn what_was_not_used_for_longest_makes_room_unless_a_job_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().to_owned(), 25).unwrap();
    let ids = [1, 2, 3, 4].map(|n| ProgramId([n; 32]));
    for id in ids {
        fs::write(store.place(id), [0; 10]).unwrap();
        store.add(id, 10);
    }
    store.is_checked(ids[0]);
    store.evict(&BTreeSet::from([ids[1]]));
    assert_eq!(ids.map(|id| store.has(id)), [true, true, false, false]);
    assert_eq!(ids.map(|id| store.place(id).exists()), [true, true, false, false]);
    store.evict(&ids.into());
    assert!(store.has(ids[0]), "what fits stays");
}

#[tokio::test]
async fn who_gives_its_program_to_all_is_told_when_it_is_on_the_disk() {
    let mut rig = rig();
    // Whoever leads.
    rig.shell.dispatcher = None;
    let told = |rig: &mut Rig| match rig.client.try_recv() {
        Ok(ToClient::HasProgram(id)) => Some(id),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    };
    rig.shell.offered_program(FIRST, program(BYTES));
    assert_eq!(rig.asked(), Some(0));
    rig.chunk(FIRST, 0, BYTES);
    assert_eq!(told(&mut rig), None, "it is not on the disk yet");
    rig.shell.offered_program(OTHER, program(BYTES));
    rig.work().await;
    let both = [told(&mut rig), told(&mut rig)];
    assert_eq!(both, [Some(id_of(BYTES)); 2]);
    rig.shell.offered_program(OTHER, program(BYTES));
    assert_eq!(told(&mut rig), Some(id_of(BYTES)), "it is there");
    // After a start it is looked at first.
    let mut rig = rig_in(rig.dir);
    rig.shell.offered_program(FIRST, program(BYTES));
    assert_eq!(told(&mut rig), None);
    rig.work().await;
    assert_eq!(told(&mut rig), Some(id_of(BYTES)));
}
