//! Putting an array into a chunk store, beside its limit: hashing it, and writing it to the page cache, each
//! measured alone by one thread in the same run. Measures the crate `store` alone.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use allhands_common::blob::{CHUNK_BYTES, Manifest};
use allhands_common::id::ClusterId;
use allhands_store::blobs::Store;

use crate::Arguments;
use crate::measure::Line;
use crate::nodes::content;

const MIB: u64 = 512;

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bytes = arguments.mib.unwrap_or(MIB) << 20;
    let content = content(bytes, 0);
    let folder = tempfile::tempdir()?;
    let store = Store::open(&folder.path().join("store"), ClusterId([1; 16]), u64::MAX / 2)?;
    for rep in 0..arguments.repeats {
        let print = |system: &str, took: Duration| {
            let mut line = Line::new(system, "put", bytes >> 20, rep, took);
            line.bytes_per_s = Some(bytes as f64 / took.as_secs_f64());
            line.print()
        };
        let begun = Instant::now();
        let id = black_box(Manifest::of(black_box(&content))?).id();
        let hash = begun.elapsed();
        let path = folder.path().join("plain");
        let begun = Instant::now();
        let mut file = File::create_new(&path)?;
        for chunk in content.chunks(CHUNK_BYTES as usize) {
            file.write_all(chunk)?;
        }
        let write = begun.elapsed();
        drop(file);
        std::fs::remove_file(&path)?;

        let begun = Instant::now();
        let blob = store.put_bytes(&content)?;
        let memory = begun.elapsed();
        anyhow::ensure!(blob.id() == id, "another blob was put");
        drop(blob);
        store.remove(&id)?;
        let begun = Instant::now();
        let blob = store.put(&content[..])?;
        let stream = begun.elapsed();
        anyhow::ensure!(blob.id() == id, "another blob was put");
        drop(blob);
        store.remove(&id)?;

        print("blake3", hash)?;
        print("write", write)?;
        print("limit", hash + write)?;
        print("allhands", memory)?;
        print("allhands-stream", stream)?;
    }
    Ok(())
}
