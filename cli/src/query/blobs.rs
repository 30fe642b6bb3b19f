//! `allhands blobs`, as it is printed.

use std::fmt::{self, Display};

use allhands_common::wire::admin;
use serde::Serialize;

use crate::output::Table;

/// What the leader knows of blobs.
#[derive(Debug, Serialize)]
pub(crate) struct BlobsView {
    blobs: Vec<BlobView>,
    /// Blobs that are not listed.
    more: u64,
}

#[derive(Debug, Serialize)]
struct BlobView {
    blob: String,
    /// A few of the workers that hold it.
    workers: Vec<HolderView>,
    workers_count: u32,
    /// Owners of a few of the programs that offer it.
    clients: Vec<String>,
    clients_count: u32,
    /// Workers that wait for it.
    wanted_by: u32,
    /// How long it is, where the leader knows: of those that are kept.
    bytes: Option<u64>,
    /// Programs that have handles on it.
    kept_for: u32,
    /// Workers that keep it for them: it is in no danger of being evicted there.
    kept_by: u32,
}

#[derive(Debug, Serialize)]
struct HolderView {
    name: String,
    /// Whether it holds all of the blob.
    whole: bool,
}

impl BlobsView {
    pub(crate) fn new(blobs: admin::Blobs) -> Self {
        Self { blobs: blobs.blobs.into_iter().map(BlobView::new).collect(), more: blobs.more }
    }
}

impl BlobView {
    fn new(blob: admin::BlobView) -> Self {
        let holder = |(name, whole)| HolderView { name, whole };
        Self {
            blob: blob.blob.to_string(),
            workers: blob.workers.into_iter().map(holder).collect(),
            workers_count: blob.workers_count,
            clients: blob.clients,
            clients_count: blob.clients_count,
            wanted_by: blob.wanted_by,
            bytes: blob.bytes,
            kept_for: blob.kept_for,
            kept_by: blob.kept_by,
        }
    }

    fn workers(&self) -> String {
        let name = |one: &HolderView| match one.whole {
            true => one.name.clone(),
            false => format!("{} (part)", one.name),
        };
        listed(self.workers.iter().map(name).collect(), self.workers_count)
    }
}

/// Names, and how many there are besides.
fn listed(mut names: Vec<String>, count: u32) -> String {
    let more = (count as usize).saturating_sub(names.len());
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    if names.is_empty() { "-".into() } else { names.join(", ") }
}

impl Display for BlobsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "blob",
            "bytes",
            "handles",
            "kept by",
            "wanted by",
            "offered by",
            "workers",
        ]);
        for blob in &self.blobs {
            table.row([
                blob.blob.clone(),
                blob.bytes.map_or_else(|| "-".into(), |bytes| bytes.to_string()),
                blob.kept_for.to_string(),
                blob.kept_by.to_string(),
                blob.wanted_by.to_string(),
                listed(blob.clients.clone(), blob.clients_count),
                blob.workers(),
            ]);
        }
        write!(f, "{table}")?;
        if self.more > 0 { writeln!(f, "and {} more", self.more) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use allhands_common::id::BlobId;

    use super::*;

    #[test]
    fn holders_are_named_and_those_beyond_are_counted() {
        let view = BlobsView::new(admin::Blobs {
            blobs: vec![admin::BlobView {
                blob: BlobId([0xab; 32]),
                workers: vec![("worker-1".into(), true), ("worker-2".into(), false)],
                workers_count: 5,
                clients: Vec::new(),
                clients_count: 0,
                wanted_by: 3,
                bytes: Some(1 << 20),
                kept_for: 1,
                kept_by: 2,
            }],
            more: 7,
        });
        let text = view.to_string();
        let last = "1048576  1        2        3          -           worker-1, worker-2 (part), and 3 more\nand 7 more\n";
        assert!(text.ends_with(last), "{text}");
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["blobs"][0]["workers"][1]["whole"], false);
        assert_eq!(json["blobs"][0]["blob"], "ab".repeat(32));
    }
}
