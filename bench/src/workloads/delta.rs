//! A process that has an array fetches it again after one chunk in a hundred has changed: what travels, beside
//! its length. Measures the crates `store` and `transfer` alone.

use crate::Arguments;
use crate::measure::Line;
use crate::nodes::{Nodes, chunks};

const MIB: u64 = 256;

/// Every so many-th chunk has changed.
const CHANGED: u64 = 100;

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bytes = arguments.mib.unwrap_or(MIB) << 20;
    for rep in 0..arguments.repeats {
        let mut nodes = Nodes::new()?;
        let (mut source, mut sink) = (nodes.start()?, nodes.start()?);
        let (old, new) = (source.put(bytes, 0)?, source.put(bytes, CHANGED)?);
        sink.begin_fetch(old, None, &[source.holder()])?;
        sink.took()?;
        let before = sink.traffic()?.received_bytes;
        sink.begin_fetch(new, None, &[source.holder()])?;
        let took = sink.took()?;
        sink.verify(new, None)?;
        let travelled = sink.traffic()?.received_bytes - before;
        let mut line = Line::new("allhands", "delta", chunks(bytes), rep, took);
        line.changed_ratio = Some(chunks(bytes).div_ceil(CHANGED) as f64 / chunks(bytes) as f64);
        line.travelled_ratio = Some(travelled as f64 / bytes as f64);
        line.print()?;
    }
    Ok(())
}
