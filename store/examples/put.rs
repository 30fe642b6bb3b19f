//! How fast a put is, beside its limit: hashing, and writing to the page cache, each measured alone.
//!
//! ```text
//! cargo run --release -p allhands-store --example put -- [DIRECTORY] [MEBIBYTES]
//! ```
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use allhands_common::blob::{CHUNK_BYTES, Manifest};
use allhands_common::id::ClusterId;
use allhands_store::blobs::Store;
use allhands_store::disk::DiskFile as _;

/// Of so many rounds the best counts.
const ROUNDS: usize = 7;
const CHUNK: usize = CHUNK_BYTES as usize;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mebibytes: usize = arguments.next().map_or(Ok(512), |number| number.parse())?;
    let dir = dir.join(format!("allhands-put-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let measured = measure(&dir, mebibytes << 20);
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn measure(dir: &Path, bytes: usize) -> Result<()> {
    let mut content = vec![0_u8; bytes];
    for (at, word) in (0_u64..).zip(content.chunks_exact_mut(8)) {
        word.copy_from_slice(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    let content = &content[..];
    let path = dir.join("plain");
    let remove = || match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    };
    let hash = best(
        || Ok(()),
        || {
            black_box(Manifest::of(black_box(content))?);
            Ok(())
        },
    )?;
    let write = best(remove, || write_chunks(&File::create_new(&path)?, content))?;
    let allocated = best(remove, || {
        let file = File::create_new(&path)?;
        file.allocate(bytes as u64)?;
        write_chunks(&file, content)
    })?;
    remove()?;

    let store = Store::open(&dir.join("store"), ClusterId([1; 16]), u64::MAX / 2)?;
    let id = Manifest::of(content)?.id();
    let forget = || {
        store.remove(&id)?;
        Ok(())
    };
    let memory = best(forget, || {
        store.put_bytes(content)?;
        Ok(())
    })?;
    let stream = best(forget, || {
        store.put(content)?;
        Ok(())
    })?;
    let manifest = Manifest::of(content)?;
    let chunks = best(forget, || {
        let blob = store.reserve(&manifest)?;
        for (index, chunk) in (0..).zip(content.chunks(CHUNK)) {
            blob.write_chunk(index, chunk)?;
        }
        Ok(())
    })?;
    let read = best(
        || Ok(()),
        || {
            let blob = store.get(&id).ok_or("the blob is gone")?;
            for index in 0..manifest.chunks().len() as u32 {
                black_box(blob.read_chunk(index)?);
            }
            Ok(())
        },
    )?;
    let limit = hash + write;
    for (what, seconds) in [
        ("blake3", hash),
        ("write", write),
        ("allocate and write", allocated),
        ("limit: blake3 and write", limit),
        ("put_bytes", memory),
        ("put", stream),
        ("write_chunk, one thread", chunks),
        ("read_chunk, one thread", read),
    ] {
        let rate = bytes as f64 / seconds / 1e9;
        println!("{what:<26} {rate:5.2} GB/s  {:4.0} % of the limit", 100.0 * limit / seconds);
    }
    Ok(())
}

fn write_chunks(file: &File, content: &[u8]) -> Result<()> {
    for (index, chunk) in content.chunks(CHUNK).enumerate() {
        file.write_at(chunk, (index * CHUNK) as u64)?;
    }
    Ok(())
}

/// The seconds of the best round of `run`; `prepare` is not measured.
fn best(
    mut prepare: impl FnMut() -> Result<()>,
    mut run: impl FnMut() -> Result<()>,
) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        prepare()?;
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
