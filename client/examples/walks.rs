//! Arrays as results: each task writes a long walk and leaves it with its worker; other tasks look at all of it there,
//! and this program reads the end of one.
//!
//! ```text
//! cargo run --release --example walks
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use allhands::Failure;
use allhands::prelude::*;

/// Steps of a walk, of two numbers each: 8 MiB.
const STEPS: usize = 1 << 19;

/// Where a walk leads: one row a step, written as it goes.
fn walk(seed: u64) -> Result<Shared<[f64]>, Failure> {
    let mut places = ArrayWriter::of_rows(&[2])?;
    let (mut state, mut place) = (2 * seed + 1, [0.0f64; 2]);
    for _ in 0..STEPS {
        for axis in &mut place {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *axis += if state >> 63 == 0 { 1.0 } else { -1.0 };
        }
        places.push(&place)?;
    }
    Ok(places.finish()?)
}

/// How far away the walk ever was.
fn farthest(places: Shared<[f64]>) -> f64 {
    places.chunks(2).map(|place| place[0].hypot(place[1])).fold(0.0, f64::max)
}

#[allhands::main]
fn main() -> Result<(), Failure> {
    let walks = Parallel::new().try_run((0..16).map(delayed(walk))).map_err(Failure::msg)?;
    // The handles go out, a hundred bytes each. The walks lie where they were made.
    let ways = Parallel::new().run(walks.iter().cloned().map(delayed(farthest)))?;
    let (longest, way) = (0..).zip(&ways).max_by(|a, b| a.1.total_cmp(b.1)).unwrap_or((0, &0.0));
    println!("16 walks of {} MiB, the longest way: {way:.1}", (STEPS * 16) >> 20);
    // Of this one the last chunk comes here.
    println!("its last steps: {:?}", &walks[longest].rows(STEPS - 3..STEPS)[..]);
    Ok(())
}
