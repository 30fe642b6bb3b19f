//! One blob from one process to another, each with a store on disk; beside it the same bytes from memory as
//! one stream, dropped where they arrive: `quinn` between endpoints with the same settings, `tcp_tls` over TCP. `limit`
//! is `quinn` with what keeping the bytes takes at the least: each chunk hashed, compared, and written to a file.
//! Measures the crates `store` and `transfer` alone.

use std::time::Duration;

use crate::Arguments;
use crate::measure::Line;
use crate::nodes::{Nodes, Raw};

const MIB: u64 = 256;

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bytes = arguments.mib.unwrap_or(MIB) << 20;
    for rep in 0..arguments.repeats {
        let mut nodes = Nodes::new()?;
        let (mut source, mut sink) = (nodes.start()?, nodes.start()?);
        let print = |system: &str, took: Duration| {
            let mut line = Line::new(system, "transfer", bytes >> 20, rep, took);
            line.bytes_per_s = Some(bytes as f64 / took.as_secs_f64());
            line.print()
        };
        print("quinn", source.stream(Raw::Quinn, bytes, &mut sink)?)?;
        print("limit", source.stream(Raw::Kept, bytes, &mut sink)?)?;
        print("tcp_tls", source.stream(Raw::Tls, bytes, &mut sink)?)?;
        // A small one first: the handshake of the others is not counted either.
        let (small, put) = (source.put(1, 0)?, source.put(bytes, 0)?);
        sink.begin_fetch(small, None, &[source.holder()])?;
        sink.took()?;
        sink.begin_fetch(put, None, &[source.holder()])?;
        let took = sink.took()?;
        sink.verify(put, None)?;
        print("allhands", took)?;
    }
    Ok(())
}
