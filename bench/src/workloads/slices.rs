//! W processes of which each needs another part of one blob: what travels, all together, beside its length.
//! Measures the crates `store` and `transfer` alone.

use std::time::Instant;

use crate::Arguments;
use crate::measure::Line;
use crate::nodes::{Nodes, chunks};

const MIB: u64 = 256;
const NODES: u32 = 8;

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bytes = arguments.mib.unwrap_or(MIB) << 20;
    let count = arguments.nodes.unwrap_or(NODES);
    for rep in 0..arguments.repeats {
        let mut nodes = Nodes::new()?;
        let mut source = nodes.start()?;
        let mut others = (0..count).map(|_| nodes.start()).collect::<anyhow::Result<Vec<_>>>()?;
        let put = source.put(bytes, 0)?;
        let part =
            |at: u64| Some((bytes * at / u64::from(count), bytes * (at + 1) / u64::from(count)));
        let begun = Instant::now();
        for (at, node) in (0..).zip(&mut others) {
            node.begin_fetch(put, part(at), &[source.holder()])?;
        }
        for node in &mut others {
            node.took()?;
        }
        let took = begun.elapsed();
        let mut received = 0;
        for (at, node) in (0..).zip(&mut others) {
            node.verify(put, part(at))?;
            received += node.traffic()?.received_bytes;
        }
        let mut line = Line::new("allhands", "slices", chunks(bytes), rep, took);
        line.workers = Some(count);
        line.bytes_per_s = Some(bytes as f64 / took.as_secs_f64());
        line.wire_ratio = Some(received as f64 / bytes as f64);
        line.print()?;
    }
    Ok(())
}
