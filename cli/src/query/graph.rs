//! `allhands job ID --graph`: tasks, who has called them and what they depend on, for Graphviz.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use allhands_common::execution::Need;
use allhands_common::id::{BatchId, TaskId};
use serde::{Serialize, Serializer};

use super::record::{Record, Row, State};

/// A record, to be drawn.
#[derive(Debug)]
pub(crate) struct Graph<'a>(pub(crate) &'a Record);

/// Tasks that are one node: those that were always in one attempt.
struct Node<'a> {
    /// How they stand: as their last attempt says.
    row: &'a Row,
    tasks: u32,
    tries: u32,
}

/// First tasks of the nodes of each batch, with the node.
type Nodes<'a> = BTreeMap<(BatchId, u32), Node<'a>>;

impl Serialize for Graph<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Display for Graph<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = nodes(self.0);
        let mut edges = BTreeSet::new();
        for row in self.0.rows() {
            if let Some(parent) = row.caller {
                let child = TaskId { batch: row.id, index: row.start };
                edges.insert((name_in(&nodes, parent), name_in(&nodes, child), "dashed"));
            }
            for edge in &row.mentions {
                let task = TaskId { batch: row.id, index: edge.index };
                let style = match edge.need {
                    Need::Value | Need::Returned | Need::End => "solid",
                    Need::Handle => "dotted",
                };
                edges.insert((name_in(&nodes, edge.on), name_in(&nodes, task), style));
            }
        }
        writeln!(f, "digraph \"job {}\" {{", self.0.job)?;
        writeln!(f, "  rankdir=LR;")?;
        writeln!(f, "  node [shape=box, style=filled];")?;
        for ((batch, start), node) in &nodes {
            let id = TaskId { batch: *batch, index: *start };
            writeln!(f, "  \"{id}\" [label=\"{}\", fillcolor={}];", node.label(), node.color())?;
        }
        for (from, to, style) in edges {
            // Who is not recorded (any more) is made by this line.
            writeln!(f, "  \"{from}\" -> \"{to}\" [style={style}];")?;
        }
        writeln!(f, "}}")
    }
}

/// The nodes of a record: attempts at a task may have been given it with others, each time other ones.
fn nodes(record: &Record) -> Nodes<'_> {
    let mut borders: BTreeMap<BatchId, BTreeSet<u32>> = BTreeMap::new();
    for row in record.rows() {
        borders.entry(row.id).or_default().extend([row.start, row.end]);
    }
    let mut nodes = Nodes::new();
    for row in record.rows() {
        let Some(borders) = borders.get(&row.id) else { continue };
        let inner = borders.range(row.start..=row.end);
        let ends = inner.clone().skip(1);
        for (start, end) in inner.zip(ends) {
            let tries = nodes.get(&(row.id, *start)).map_or(0, |known| known.tries);
            let tries = tries + u32::from(row.attempt.is_some());
            nodes.insert((row.id, *start), Node { row, tasks: end - start, tries });
        }
    }
    nodes
}

/// The name of the node that a task is in.
fn name_in(nodes: &Nodes<'_>, task: TaskId) -> TaskId {
    let before = nodes.range((task.batch, 0)..=(task.batch, task.index)).next_back();
    let node = before.filter(|((_, start), node)| task.index - start < node.tasks);
    node.map_or(task, |((batch, start), _)| TaskId { batch: *batch, index: *start })
}

impl Node<'_> {
    fn label(&self) -> String {
        let function = self.row.function.replace('\\', "\\\\").replace('"', "\\\"");
        let many = if self.tasks > 1 { format!(" ×{}", self.tasks) } else { String::new() };
        let again = match self.tries {
            0 | 1 => String::new(),
            tries => format!(", {tries} attempts"),
        };
        format!("{function}{many}\\n{}{again}", self.row.state.text())
    }

    const fn color(&self) -> &'static str {
        match self.row.state {
            State::Done => "palegreen",
            State::Running | State::Assigned => "lightblue",
            State::Blocked => "khaki",
            State::Waiting | State::Queued | State::Returned => "white",
            State::Failed | State::Killed | State::Refused | State::DependencyFailed => "salmon",
            State::Cancelled | State::Bystander | State::GivenUp | State::NotRun => "lightgray",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::tests::{PARENT, record};
    use super::*;

    #[test]
    fn tasks_are_nodes_and_what_joins_them_edges() {
        let text = Graph(&record()).to_string();
        let (b, c) = ("bb".repeat(16), "cc".repeat(16));
        for line in [
            "digraph \"job 3\" {".to_owned(),
            format!("  \"{b}:0\" [label=\"load \\\"all\\\" ×8\\nfailed\", fillcolor=salmon];"),
            format!("  \"{c}:0\" [label=\"mean\\nwaiting\", fillcolor=white];"),
            // The task that it names is one of a range.
            format!("  \"{b}:0\" -> \"{c}:0\" [style=solid];"),
            format!("  \"{PARENT}\" -> \"{c}:0\" [style=dashed];"),
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("];\n}\n"), "{text}");
    }
}
