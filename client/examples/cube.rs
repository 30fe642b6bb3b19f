//! The mean of each image of a cube that lies on disk: (N, 1024, 1024) bytes, one task an image.
//!
//! ```text
//! cargo run --release --example cube -- 512
//! ```
//! The cube is opened where it is. Nothing of it is copied: each task gets a handle on its own image, and
//! reads it from the pages that the system has in memory for everybody.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use allhands::prelude::*;

const SIDE: usize = 1024;

/// An image is one row of the cube, of the shape (1, 1024, 1024).
fn mean(image: Shared<[u8]>) -> f64 {
    image.iter().map(|pixel| u64::from(*pixel)).sum::<u64>() as f64 / image.len() as f64
}

/// Image `n` is of the grey `n`, with some noise.
fn write_cube(path: &Path, images: usize) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for n in 0..images {
        let image: Vec<u8> = (0..SIDE * SIDE).map(|at| (n + at % 3) as u8).collect();
        file.write_all(&image)?;
    }
    file.flush()
}

#[allhands::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let images: usize = std::env::args().nth(1).map_or(Ok(64), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("cube");
    write_cube(&path, images)?;

    let started = Instant::now();
    let cube = Shared::<[u8]>::open(&path)?.reshape(&[images, SIDE, SIDE])?;
    let rows = (0..images).map(|n| cube.rows(n..n + 1));
    let means = Parallel::new().run(rows.map(delayed(mean)))?;
    let elapsed = started.elapsed();

    println!("the first three means: {:.3?}", &means[..means.len().min(3)]);
    println!("{images} images of 1 MiB in {elapsed:.2?}, from the file where it lies");
    Ok(())
}
