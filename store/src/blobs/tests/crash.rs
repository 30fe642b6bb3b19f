//! The machine stops at any step of a workload. Whatever of the unsynced had reached the disk: no wrong byte
//! is served, what was durable is there, and the store goes on. If only the process stopped, all that was
//! acknowledged is there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

use allhands_common::id::JobId;

use super::spy::{Spy, SpyDisk, Step, Verdict};
use super::support::*;
use crate::blobs::*;

/// What is written into an image at once.
const BLOCK: usize = 1 << 16;
/// Images with chance in them, at each step.
const SEEDS: u64 = 2;

/// What was done, and what the store had said by then.
#[derive(Debug)]
enum Record {
    Did(Step),
    /// This content is durable, with this owner's pin.
    Durable(usize, Option<Owner>),
    /// It is not promised any more: it is removed or evicted next.
    MayGo(usize),
    /// This chunk of it is not promised any more: the disk spoils it next.
    Spoilt(usize, u32),
    /// The store is quiet, and knows this.
    Quiet(Vec<BlobInfo>),
}

#[derive(Debug, Default)]
struct Recorder {
    records: Mutex<Vec<Record>>,
}

impl Recorder {
    fn note(&self, record: Record) {
        self.records.lock().unwrap().push(record);
    }
}

impl Spy for Recorder {
    fn see(&self, step: Step) -> Verdict {
        match step {
            Step::Open { .. } | Step::List { .. } | Step::Read { .. } | Step::Seal { .. } => {}
            step => self.note(Record::Did(step)),
        }
        Verdict::Go
    }
}

/// Nobody to whom it matters: the images' own disk need not sync.
#[derive(Debug)]
struct Nobody;

impl Spy for Nobody {
    fn see(&self, _: Step) -> Verdict {
        Verdict::Go
    }
}

/// What of the unsynced has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// All: only the process has stopped.
    Kept,
    Dropped,
    /// Some of it, and some of that in part.
    Chance(u64),
}

/// Numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }
}

/// What a disk is sure to have, and what it may have besides.
#[derive(Debug, Clone, Default)]
struct Platter {
    names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<Step>,
    files: BTreeMap<u64, Vec<u8>>,
    pending: BTreeMap<u64, Vec<Step>>,
}

impl Platter {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Create { .. } | Step::Rename { .. } | Step::Remove { .. } => {
                self.pending_names.push(step.clone());
            }
            Step::Allocate { file, .. } | Step::Cut { file, .. } | Step::Write { file, .. } => {
                self.pending.entry(*file).or_default().push(step.clone());
            }
            Step::Sync { file } => {
                for step in self.pending.remove(file).unwrap_or_default() {
                    self.write(&step);
                }
            }
            Step::SyncDirectory { path } => {
                for step in std::mem::take(&mut self.pending_names) {
                    let here = |name: &PathBuf| name.parent() == Some(path);
                    let synced = match &step {
                        Step::Create { path, .. } | Step::Remove { path } => here(path),
                        Step::Rename { from, to, .. } => here(from) || here(to),
                        _ => false,
                    };
                    match synced {
                        true => self.name(&step),
                        false => self.pending_names.push(step),
                    }
                }
            }
            Step::Open { .. } | Step::List { .. } | Step::Read { .. } | Step::Seal { .. } => {}
        }
    }

    fn name(&mut self, step: &Step) {
        match step {
            Step::Create { file, path } => _ = self.names.insert(path.clone(), *file),
            Step::Rename { file, from, to } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *file);
            }
            Step::Remove { path } => _ = self.names.remove(path),
            step => panic!("{step:?} is about no name"),
        }
    }

    fn write(&mut self, step: &Step) {
        match step {
            Step::Allocate { file, bytes } => {
                let content = self.files.entry(*file).or_default();
                content.resize(content.len().max(*bytes as usize), 0);
            }
            Step::Cut { file, bytes } => {
                self.files.entry(*file).or_default().resize(*bytes as usize, 0);
            }
            Step::Write { file, offset, bytes } => {
                let content = self.files.entry(*file).or_default();
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                content.resize(content.len().max(end), 0);
                content[start..end].copy_from_slice(bytes);
            }
            step => panic!("{step:?} writes nothing"),
        }
    }

    /// What is in the directory of a store, all of it synced.
    fn of(dir: &Path, disk: &SpyDisk) -> Self {
        let mut platter = Self::default();
        let paths = ["", "blobs", "pins", "incoming"].map(|directory| dir.join(directory));
        for path in paths.iter().flat_map(|path| fs::read_dir(path).unwrap()) {
            let path = path.unwrap().path();
            if path.is_file() {
                let file = disk.number(&path);
                platter.files.insert(file, fs::read(&path).unwrap());
                platter.names.insert(path, file);
            }
        }
        platter
    }

    /// Writes what a crash leaves into `dir`, of a store that was in `original`.
    fn image(mut self, fate: Fate, original: &Path, dir: &Path) {
        let mut random = match fate {
            Fate::Chance(seed) => Random(seed),
            Fate::Kept | Fate::Dropped => Random(0),
        };
        let mut kept = |step: Step| match fate {
            Fate::Kept => Some(step),
            Fate::Dropped => None,
            Fate::Chance(_) => match (random.below(3), step) {
                (0, _) => None,
                (1, Step::Write { file, offset, mut bytes }) => {
                    // Sectors of it.
                    bytes.truncate(random.below(bytes.len() as u64 / 512 + 1) as usize * 512);
                    Some(Step::Write { file, offset, bytes })
                }
                (_, step) => Some(step),
            },
        };
        for step in std::mem::take(&mut self.pending_names) {
            if let Some(step) = kept(step) {
                self.name(&step);
            }
        }
        for step in std::mem::take(&mut self.pending).into_values().flatten() {
            if let Some(step) = kept(step) {
                self.write(&step);
            }
        }
        for directory in ["blobs", "pins", "incoming"] {
            fs::create_dir_all(dir.join(directory)).unwrap();
        }
        for (name, file) in &self.names {
            let content = self.files.get(file).map(Vec::as_slice).unwrap_or_default();
            let image = fs::File::create(dir.join(name.strip_prefix(original).unwrap())).unwrap();
            image.set_len(content.len() as u64).unwrap();
            // Most of a blob that is here in part is zeros, which need not be written.
            for (at, block) in (0..).step_by(BLOCK).zip(content.chunks(BLOCK)) {
                if block != &[0; BLOCK][..block.len()] {
                    image.write_all_at(block, at).unwrap();
                }
            }
        }
    }
}

const OWNER: Owner = Owner::Job(JobId(7));

/// What is stored, with its manifest: to hash it for each image takes longer than everything else.
type Contents = [(Vec<u8>, Manifest); 4];

fn contents() -> Contents {
    [content(1, CHUNK + 3000), content(2, CHUNK + 700), content(3, 5000), content(4, 9000)]
        .map(|content| (content.clone(), manifest(&content)))
}

/// Runs a workload in `dir` and says what was done.
fn workload(dir: &Path, contents: &Contents) -> Vec<Record> {
    let recorder = Arc::new(Recorder::default());
    let disk = Arc::new(SpyDisk::new(recorder.clone()));
    let quota = contents.iter().map(|(content, _)| taken(content.len())).sum::<u64>() - 4096;
    let store = Store::open_on(disk.clone(), dir, CLUSTER, quota).unwrap();
    let quiet = || recorder.note(Record::Quiet(store.list()));
    let durable = |which: usize, owner| {
        store.make_durable(&contents[which].1.id()).unwrap();
        recorder.note(Record::Durable(which, owner));
        quiet();
    };
    quiet();
    let [both, part, small, large] = contents.each_ref().map(|(content, _)| content);

    let blob = store.reserve(&manifest(both)).unwrap();
    write(&blob, both, [1]);
    quiet();
    write(&blob, both, [0]);
    store.pin(&blob.id(), OWNER).unwrap();
    durable(0, Some(OWNER));

    let partial = store.reserve(&manifest(part)).unwrap();
    write(&partial, part, [1]);
    quiet();
    store.put(&small[..]).unwrap();
    quiet();
    durable(2, None);

    // The disk spoils a chunk of a durable blob: the chunk is written again, and the blob made durable again.
    recorder.note(Record::Spoilt(0, 1));
    let bytes = Layout::new(dir).blob(&blob.id()).bytes;
    let file = disk.number(&bytes);
    flip(dir, &blob.id(), CHUNK as u64 + 1);
    let spoilt = vec![both[CHUNK + 1] ^ 1];
    recorder.note(Record::Did(Step::Write { file, offset: CHUNK as u64 + 1, bytes: spoilt }));
    recorder.note(Record::Did(Step::Sync { file }));
    assert!(blob.read_chunk(1).is_err());
    quiet();
    write(&blob, both, [1]);
    quiet();
    durable(0, Some(OWNER));

    // The partial blob and what was used least make room.
    drop(partial);
    recorder.note(Record::MayGo(2));
    store.get(&id(part)).unwrap();
    whole(&store.put_bytes(large).unwrap(), large);
    assert!(store.get(&id(small)).is_none());
    quiet();
    durable(3, None);

    recorder.note(Record::MayGo(0));
    drop(blob);
    assert_eq!(store.release_all(OWNER), 1);
    quiet();
    store.remove(&id(both)).unwrap();
    quiet();
    store.put(&both[..]).unwrap();
    durable(0, None);
    drop(store);
    std::mem::take(&mut recorder.records.lock().unwrap())
}

/// A content that is durable, with this pin, but for some of its chunks.
#[derive(Debug, Clone, Default)]
struct Durable {
    owner: Option<Owner>,
    spoilt: Vec<u32>,
}

/// What is known to be there at some step.
#[derive(Debug, Clone, Default)]
struct Promises {
    durable: BTreeMap<usize, Durable>,
    /// What the store knew, if it was quiet.
    quiet: Option<Vec<BlobInfo>>,
}

#[test]
fn a_crash_at_any_step_costs_nothing_that_was_promised() {
    let contents = contents();
    let original = tempfile::tempdir().unwrap();
    let records = workload(original.path(), &contents);
    let (mut platter, mut promises) = (Platter::default(), Promises::default());
    let (mut steps, mut steps_of_starts) = (0, 0);
    for record in &records {
        promises.quiet = None;
        match record {
            Record::Did(step) => {
                platter.take(step);
                steps += 1;
            }
            Record::Durable(which, owner) => {
                let durable = Durable { owner: *owner, spoilt: Vec::new() };
                promises.durable.insert(*which, durable);
            }
            Record::MayGo(which) => _ = promises.durable.remove(which),
            Record::Spoilt(which, index) => {
                promises.durable.get_mut(which).unwrap().spoilt.push(*index);
            }
            Record::Quiet(known) => promises.quiet = Some(known.clone()),
        }
        let chances = (0..SEEDS).map(|seed| Fate::Chance(seed << 32 | steps));
        for fate in [Fate::Kept, Fate::Dropped].into_iter().chain(chances) {
            let image = tempfile::tempdir().unwrap();
            platter.clone().image(fate, original.path(), image.path());
            if fate == Fate::Chance(steps) && steps % 8 == 0 {
                let again = tempfile::tempdir().unwrap();
                platter.clone().image(fate, original.path(), again.path());
                steps_of_starts += check_twice(again.path(), &contents, &promises)
                    .unwrap_or_else(|wrong| panic!("twice, {fate:?}, step {steps}: {wrong}"));
            }
            check(image.path(), &contents, &promises, fate)
                .unwrap_or_else(|wrong| panic!("{fate:?} after step {steps}, {record:?}: {wrong}"));
        }
    }
    assert!(steps > 80, "a workload of {steps} steps is none");
    assert!(steps_of_starts > 20, "{steps_of_starts} steps are too few starts");
}

/// The machine stops again, while the store is put in order.
fn check_twice(dir: &Path, contents: &Contents, promises: &Promises) -> Result<usize, String> {
    // What the process knew counts only if nothing was lost before.
    let promises = &Promises { quiet: None, ..promises.clone() };
    let recorder = Arc::new(Recorder::default());
    let disk = Arc::new(SpyDisk::new(recorder.clone()));
    let mut platter = Platter::of(dir, &disk);
    Store::open_on(disk, dir, CLUSTER, AMPLE).map_err(|error| error.to_string())?;
    let records = std::mem::take(&mut *recorder.records.lock().unwrap());
    for record in &records {
        let Record::Did(step) = record else { continue };
        platter.take(step);
        for fate in [Fate::Kept, Fate::Dropped] {
            let image = tempfile::tempdir().unwrap();
            platter.clone().image(fate, dir, image.path());
            check(image.path(), contents, promises, fate)?;
        }
    }
    Ok(records.len())
}

fn check(dir: &Path, contents: &Contents, promises: &Promises, fate: Fate) -> Result<(), String> {
    let disk = Arc::new(SpyDisk::new(Arc::new(Nobody)));
    let store = Store::open_on(disk, dir, CLUSTER, AMPLE).map_err(|error| error.to_string())?;
    if let (Fate::Kept, Some(known)) = (fate, &promises.quiet) {
        let forget = |info: &BlobInfo| BlobInfo { used: 0, ..info.clone() };
        let now: Vec<_> = store.list().iter().map(forget).collect();
        let then: Vec<_> = known.iter().map(forget).collect();
        if now != then {
            return Err(format!("a stopped process has lost something: {then:?} became {now:?}"));
        }
    }
    let held: u64 = store.list().iter().map(|info| taken(info.bytes as usize)).sum();
    if store.usage().held_bytes != held || names(dir, "blobs").len() != 2 * store.usage().blobs {
        return Err("files and index differ".to_owned());
    }
    for (which, (content, manifest)) in contents.iter().enumerate() {
        let id = manifest.id();
        let info = store.list().into_iter().find(|info| info.id == id);
        let blob = store.get(&id);
        if let Some(Durable { owner, spoilt }) = promises.durable.get(&which) {
            let owners = info.ok_or_else(|| format!("durable content {which} is lost"))?.owners;
            if owner.is_some_and(|owner| !owners.contains(&owner)) {
                return Err(format!("the pin of durable content {which} is lost"));
            }
            let blob = blob.as_ref().ok_or("it is gone")?;
            let chunks = 0..content.len().div_ceil(CHUNK) as u32;
            for index in chunks.filter(|index| !spoilt.contains(index)) {
                let read = blob.read_chunk(index);
                read.map_err(|error| format!("durable content {which}: {error}"))?;
            }
        }
        let Some(blob) = blob else { continue };
        for index in 0..content.len().div_ceil(CHUNK) as u32 {
            let served = blob.map(blob.manifest().range_of(index).unwrap());
            if served.is_ok_and(|map| *map != *chunk(content, index)) {
                return Err(format!("wrong bytes of content {which} are mapped"));
            }
            let served = blob.read_chunk(index);
            if served.is_ok_and(|bytes| bytes != chunk(content, index)) {
                return Err(format!("wrong bytes of content {which} are served"));
            }
        }
    }
    if matches!(fate, Fate::Chance(_)) {
        for (content, manifest) in contents {
            let blob = store.reserve(manifest).unwrap();
            write(&blob, content, 0..manifest.chunks().len() as u32);
            whole(&blob, content);
        }
    }
    Ok(())
}
