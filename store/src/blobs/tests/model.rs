//! Any row of operations, beside a model that has no files: what is here, who pins it, what goes when there is no
//! room.

use std::collections::{BTreeMap, BTreeSet};

use allhands_common::id::JobId;
use proptest::prelude::*;
use tempfile::TempDir;

use super::support::*;
use crate::blobs::*;

/// Lengths of the contents that the rows are about.
const SIZES: [usize; 6] = [0, 1, 5000, CHUNK, CHUNK + 3, 2 * CHUNK + 1];

#[derive(Debug, Clone)]
enum Operation {
    Reserve(usize),
    Write(usize, u32),
    WriteWrong(usize, u32),
    Put(usize),
    PutStream(usize),
    Read(usize, u32),
    Map(usize, u64, u64),
    Pin(usize, Owner),
    Release(usize, Owner),
    ReleaseAll(Owner),
    Hold(usize),
    LetGo(usize),
    Remove(usize),
    Spoil(usize, u32),
    Durable(usize),
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let which = 0..SIZES.len();
    let index = 0..4_u32;
    let owner = prop_oneof![
        Just(Owner::Job(JobId(1))),
        Just(Owner::Cache([2; 32])),
        Just(Owner::Lease(3)),
    ];
    let at = prop_oneof![0..2_u64 * CHUNK as u64 + 2, Just(CHUNK as u64)];
    prop_oneof![
        3 => which.clone().prop_map(Operation::Reserve),
        6 => (which.clone(), index.clone()).prop_map(|(a, b)| Operation::Write(a, b)),
        1 => (which.clone(), index.clone()).prop_map(|(a, b)| Operation::WriteWrong(a, b)),
        2 => which.clone().prop_map(Operation::Put),
        2 => which.clone().prop_map(Operation::PutStream),
        3 => (which.clone(), index.clone()).prop_map(|(a, b)| Operation::Read(a, b)),
        3 => (which.clone(), at.clone(), at).prop_map(|(a, b, c)| Operation::Map(a, b, c)),
        2 => (which.clone(), owner.clone()).prop_map(|(a, b)| Operation::Pin(a, b)),
        2 => (which.clone(), owner.clone()).prop_map(|(a, b)| Operation::Release(a, b)),
        1 => owner.prop_map(Operation::ReleaseAll),
        1 => which.clone().prop_map(Operation::Hold),
        1 => which.clone().prop_map(Operation::LetGo),
        1 => which.clone().prop_map(Operation::Remove),
        2 => (which.clone(), index).prop_map(|(a, b)| Operation::Spoil(a, b)),
        1 => which.prop_map(Operation::Durable),
        1 => Just(Operation::Reopen),
    ]
}

/// What the model knows of one blob.
#[derive(Debug, Clone, Default)]
struct Known {
    here: BTreeSet<u32>,
    /// Chunks that the disk has spoilt, and nobody has noticed.
    spoilt: BTreeSet<u32>,
    owners: BTreeSet<Owner>,
    used: u64,
}

struct Model {
    dir: TempDir,
    store: Option<Store>,
    quota: u64,
    contents: Vec<Vec<u8>>,
    known: BTreeMap<usize, Known>,
    handles: BTreeMap<usize, Blob>,
    clock: u64,
}

impl Model {
    fn new(quota: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let contents = (0..).zip(SIZES).map(|(seed, bytes)| content(seed, bytes)).collect();
        let mut model = Self {
            dir,
            store: None,
            quota,
            contents,
            known: BTreeMap::new(),
            handles: BTreeMap::new(),
            clock: 0,
        };
        model.reopen();
        model
    }

    fn reopen(&mut self) {
        self.handles.clear();
        self.store = None;
        self.store = Some(Store::open(self.dir.path(), CLUSTER, self.quota).unwrap());
        for known in self.known.values_mut() {
            known.owners.remove(&Owner::Lease(3));
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn id(&self, which: usize) -> BlobId {
        id(&self.contents[which])
    }

    fn chunks(which: usize) -> u32 {
        SIZES[which].div_ceil(CHUNK) as u32
    }

    fn touch(&mut self, which: usize) {
        self.clock += 1;
        if let Some(known) = self.known.get_mut(&which) {
            known.used = self.clock;
        }
    }

    fn held(&self) -> u64 {
        self.known.keys().map(|which| taken(SIZES[*which])).sum()
    }

    /// Evicts as the store should; whether there is room then. Nothing goes in vain.
    fn make_room(&mut self, bytes: u64) -> bool {
        let may_go = |which: &usize, known: &Known| {
            known.owners.is_empty() && !self.handles.contains_key(which)
        };
        let mut order: Vec<_> =
            self.known.iter().filter(|(which, known)| may_go(which, known)).collect();
        order.sort_by_key(|(_, known)| known.used);
        let order: Vec<_> = order.into_iter().map(|(which, _)| *which).collect();
        let free: u64 = order.iter().map(|which| taken(SIZES[*which])).sum();
        if self.held() - free + bytes > self.quota {
            return false;
        }
        for which in order {
            if self.held() + bytes <= self.quota {
                break;
            }
            self.known.remove(&which);
        }
        true
    }

    /// The model's half of a reservation: whether there is room.
    fn reserved(&mut self, which: usize) -> bool {
        if self.known.contains_key(&which) {
            self.touch(which);
            return true;
        }
        let room = self.make_room(taken(SIZES[which]));
        if room {
            self.known.insert(which, Known::default());
            self.touch(which);
        }
        room
    }

    fn get(&mut self, which: usize) -> Option<Blob> {
        let blob = self.store().get(&self.id(which));
        assert_eq!(blob.is_some(), self.known.contains_key(&which));
        self.touch(which);
        blob
    }

    /// What a look at these chunks has to say, and what it makes known.
    fn look(&mut self, which: usize, chunks: Range<u32>, result: Result<&[u8], &ReadError>) {
        let known = self.known.get_mut(&which).unwrap();
        let mut wanted = chunks.clone();
        match result {
            Ok(_) => assert!(wanted.all(|index| known.here.contains(&index))),
            Err(ReadError::Missing { index, .. }) => {
                assert_eq!(wanted.find(|index| !known.here.contains(index)), Some(*index));
            }
            Err(ReadError::Damaged { index, .. }) => {
                assert!(chunks.contains(index) && known.spoilt.remove(index));
                assert!(known.here.remove(index));
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn run(&mut self, operation: &Operation) {
        match *operation {
            Operation::Reserve(which) => {
                let manifest = manifest(&self.contents[which]);
                let reserved = self.store().reserve(&manifest);
                match self.reserved(which) {
                    true => _ = reserved.unwrap(),
                    false => assert!(matches!(reserved, Err(ReserveError::Full(_)))),
                }
            }
            Operation::Write(which, index) => {
                let Some(blob) = self.get(which) else { return };
                if index >= Self::chunks(which) {
                    return;
                }
                let written = blob.write_chunk(index, chunk(&self.contents[which], index)).unwrap();
                let known = self.known.get_mut(&which).unwrap();
                match written {
                    Written::Now => {
                        let here = !known.here.insert(index);
                        // What was found at a start is looked at before it is believed.
                        assert!(!here || known.spoilt.remove(&index));
                        known.spoilt.remove(&index);
                    }
                    Written::Before => assert!(known.here.contains(&index)),
                }
                self.forget_copied(which, &blob);
            }
            Operation::WriteWrong(which, index) => {
                let Some(blob) = self.get(which) else { return };
                let wrong = blob.write_chunk(index, b"wrong");
                assert!(matches!(
                    wrong,
                    Err(WriteError::Mismatch { .. } | WriteError::Beyond { .. })
                ));
            }
            Operation::Put(which) => {
                let put = self.store().put_bytes(&self.contents[which]);
                self.was_put(which, put);
            }
            Operation::PutStream(which) => {
                // Its name is not known before its room is taken, so it may push out what it is.
                let before = self.store().list();
                let put = self.store().put(&self.contents[which][..]);
                let after = self.store().list();
                match put {
                    Ok(blob) => {
                        assert_eq!(blob.id(), self.id(which));
                        self.known.entry(which).or_default();
                        self.touch(which);
                        let gone = before
                            .iter()
                            .filter(|info| after.iter().all(|other| other.id != info.id));
                        let gone: BTreeSet<_> = gone.map(|info| info.id).collect();
                        let pinned = |known: &Known| !known.owners.is_empty();
                        let ids: Vec<_> = (0..SIZES.len()).map(|which| self.id(which)).collect();
                        self.known.retain(|which, known| {
                            let went = gone.contains(&ids[*which]);
                            assert!(!went || !pinned(known) && !self.handles.contains_key(which));
                            !went
                        });
                        self.put_whole(which, &blob);
                    }
                    Err(PutError::Full(_)) => self.resync(&after),
                    Err(error) => panic!("{error:?}"),
                }
            }
            Operation::Read(which, index) => {
                let Some(blob) = self.get(which) else { return };
                if index < Self::chunks(which) {
                    let read = blob.read_chunk(index);
                    if let Ok(bytes) = &read {
                        assert!(bytes == chunk(&self.contents[which], index));
                        let spoilt = &self.known[&which].spoilt;
                        assert!(!spoilt.contains(&index), "a spoilt chunk was served");
                    }
                    self.look(which, index..index + 1, read.as_deref());
                }
            }
            Operation::Map(which, start, end) => {
                let Some(blob) = self.get(which) else { return };
                let (start, end) = (start.min(end), start.max(end));
                if end as usize <= SIZES[which] {
                    let mapped = blob.map(start..end);
                    let spoilt = !self.known[&which].spoilt.is_empty();
                    if let Ok(map) = &mapped {
                        // What is spoilt under a map after it was proven shows there.
                        let right = &self.contents[which][start as usize..end as usize];
                        assert!(spoilt || **map == *right);
                    }
                    let chunks = blob.manifest().chunks_of(start..end);
                    self.look(which, chunks, mapped.as_deref());
                }
            }
            Operation::Pin(which, owner) => {
                let pinned = self.store().pin(&self.id(which), owner);
                match self.known.get_mut(&which) {
                    Some(known) => {
                        pinned.unwrap();
                        known.owners.insert(owner);
                    }
                    None => assert!(matches!(pinned, Err(PinError::Unknown { .. }))),
                }
            }
            Operation::Release(which, owner) => {
                let released = self.store().release(&self.id(which), owner);
                let known = self.known.get_mut(&which);
                assert_eq!(released, known.is_some_and(|known| known.owners.remove(&owner)));
            }
            Operation::ReleaseAll(owner) => {
                let released = self.store().release_all(owner);
                let known = self.known.values_mut();
                assert_eq!(released, known.filter_map(|known| known.owners.take(&owner)).count());
            }
            Operation::Hold(which) => {
                if let Some(blob) = self.get(which) {
                    self.handles.insert(which, blob);
                }
            }
            Operation::LetGo(which) => _ = self.handles.remove(&which),
            Operation::Remove(which) => {
                let removed = self.store().remove(&self.id(which));
                match self.known.get(&which) {
                    None => assert!(!removed.unwrap()),
                    Some(known) if known.owners.is_empty() => {
                        assert!(removed.unwrap());
                        self.known.remove(&which);
                        self.handles.remove(&which);
                    }
                    Some(_) => assert!(matches!(removed, Err(PinError::Pinned { .. }))),
                }
            }
            Operation::Spoil(which, index) => {
                let id = self.id(which);
                let Some(known) = self.known.get_mut(&which) else { return };
                // Twice would be not at all.
                if known.here.contains(&index) && known.spoilt.insert(index) {
                    flip(self.dir.path(), &id, u64::from(index) * CHUNK as u64);
                }
            }
            Operation::Durable(which) => {
                let durable = self.store().make_durable(&self.id(which));
                let Some(known) = self.known.get(&which) else {
                    assert!(durable.is_err());
                    return;
                };
                let complete = known.here.len() as u32 == Self::chunks(which);
                self.touch(which);
                match durable {
                    Ok(()) => assert!(complete),
                    Err(SyncError::Incomplete { source, .. }) => {
                        self.look(which, 0..Self::chunks(which), Err(&source));
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            Operation::Reopen => self.reopen(),
        }
    }

    /// A spoilt chunk that was written into a new file takes its spoilt neighbours out of use.
    fn forget_copied(&mut self, which: usize, blob: &Blob) {
        let here: BTreeSet<u32> = blob.present().into_iter().flatten().collect();
        let known = self.known.get_mut(&which).unwrap();
        known.here.retain(|index| here.contains(index) || !known.spoilt.remove(index));
    }

    fn was_put(&mut self, which: usize, put: Result<Blob, PutError>) {
        if !self.reserved(which) {
            assert!(matches!(put, Err(PutError::Full(_))));
            return;
        }
        self.put_whole(which, &put.unwrap());
    }

    /// After a put all is here; what was spoilt and proven before may still be so.
    fn put_whole(&mut self, which: usize, blob: &Blob) {
        let before = self.known[&which].here.clone();
        let known = self.known.get_mut(&which).unwrap();
        known.here = (0..Self::chunks(which)).collect();
        known.spoilt.retain(|index| before.contains(index));
        assert!(blob.is_complete());
        // Look at all of it, so that the model knows again.
        for index in 0..Self::chunks(which) {
            match blob.read_chunk(index) {
                Ok(bytes) => {
                    assert!(bytes == chunk(&self.contents[which], index));
                    self.known.get_mut(&which).unwrap().spoilt.remove(&index);
                }
                Err(error) => self.look(which, index..index + 1, Err(&error)),
            }
        }
    }

    /// Takes over what has gone for a stream that found no room in the end.
    fn resync(&mut self, after: &[BlobInfo]) {
        let ids: Vec<_> = (0..SIZES.len()).map(|which| self.id(which)).collect();
        self.known.retain(|which, known| {
            let stays = after.iter().any(|info| info.id == ids[*which]);
            assert!(stays || known.owners.is_empty() && !self.handles.contains_key(which));
            stays
        });
    }

    fn agree(&self) {
        let list = self.store().list();
        assert_eq!(list.len(), self.known.len());
        for (which, known) in &self.known {
            let info = list.iter().find(|info| info.id == self.id(*which)).unwrap();
            let here: BTreeSet<u32> = info.present.iter().cloned().flatten().collect();
            assert_eq!(here, known.here, "content {which}");
            assert_eq!(info.owners, known.owners.iter().copied().collect::<Vec<_>>());
        }
        let usage = self.store().usage();
        assert_eq!(usage.held_bytes, self.held());
        assert!(usage.held_bytes <= self.quota);
        let stays = |(which, known): &(&usize, &Known)| {
            !known.owners.is_empty() || self.handles.contains_key(which)
        };
        let pinned = self.known.iter().filter(stays).map(|(which, _)| taken(SIZES[*which]));
        assert_eq!(usage.pinned_bytes, pinned.sum::<u64>());
        assert_eq!(names(self.dir.path(), "blobs").len(), 2 * list.len());
        assert_eq!(names(self.dir.path(), "incoming"), [] as [String; 0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_row_of_operations_does_what_the_model_does(
        chunks in 2..6_u64,
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let mut model = Model::new(chunks * CHUNK as u64 + 50_000);
        for operation in &operations {
            model.run(operation);
            model.agree();
        }
        model.reopen();
        model.agree();
    }
}
