//! One blob from one process to W others at once, each with a store and an address of its own; counted are
//! the bytes of chunks and manifests on every node's links. Measures the crates `store` and `transfer` alone.
//!
//! With `--kill` one of the others is killed when it has a quarter: all others end with the right bytes, and
//! without fetching again what they have. `received_ratio_max` says so.

use std::time::Instant;

use anyhow::Context as _;

use crate::Arguments;
use crate::measure::Line;
use crate::nodes::{Node, Nodes, Traffic, chunks};

const MIB: u64 = 256;
const NODES: u32 = 8;

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bytes = arguments.mib.unwrap_or(MIB) << 20;
    let count = arguments.nodes.unwrap_or(NODES);
    let workload = if arguments.kill { "broadcast-kill" } else { "broadcast" };
    for rep in 0..arguments.repeats {
        let mut nodes = Nodes::new()?;
        let mut source = nodes.start()?;
        let mut others = (0..count).map(|_| nodes.start()).collect::<anyhow::Result<Vec<_>>>()?;
        let put = source.put(bytes, 0)?;
        let begun = Instant::now();
        for node in &mut others {
            node.begin_fetch(put, None, &[source.holder()])?;
        }
        if arguments.kill {
            let mut victim = others.pop().context("there is nobody to kill")?;
            while victim.traffic()?.received_bytes < bytes / 4 {}
            victim.kill()?;
        }
        for node in &mut others {
            node.took()?;
        }
        let took = begun.elapsed();
        let sent = source.traffic()?;
        let ratio = |part: u64| part as f64 / bytes as f64;
        let traffic = others.iter_mut().map(Node::traffic);
        let traffic: Vec<Traffic> = traffic.collect::<anyhow::Result<_>>()?;
        others.iter_mut().try_for_each(|node| node.verify(put, None))?;
        let each = traffic.iter().map(|traffic| ("node", traffic)).chain([("source", &sent)]);
        for (system, traffic) in each {
            let mut line = Line::new(system, workload, chunks(bytes), rep, took);
            line.sent_ratio = Some(ratio(traffic.sent_bytes));
            line.received_ratio = Some(ratio(traffic.received_bytes));
            line.print()?;
        }
        let most = traffic.iter().map(|traffic| traffic.received_bytes).max().unwrap_or(0);
        let mut line = Line::new("allhands", workload, chunks(bytes), rep, took);
        line.workers = Some(count);
        line.bytes_per_s = Some(bytes as f64 * others.len() as f64 / took.as_secs_f64());
        line.source_sent_ratio = Some(ratio(sent.sent_bytes));
        line.received_ratio_max = Some(ratio(most));
        line.print()?;
    }
    Ok(())
}
