//! What tasks say while they run, for people: how far they are, and lines of a log. Best effort: nothing waits for
//! it, and nothing of it is in the Raft log.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{AttemptId, TaskId};

/// Text of a line with its fields, in bytes: the rest is cut off.
pub const LINE_BYTES_MAX: usize = 4 << 10;

/// Fields of a line: the rest is left out.
pub const FIELDS_MAX: usize = 16;

/// Notes of one message, at most: with lines as long as they may be that is half of what a message holds.
pub const NOTES_MAX: usize = 128;

/// Something that a task says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Which task.
    pub task: TaskId,
    /// In which attempt.
    pub attempt: AttemptId,
    /// What.
    pub said: Said,
}

/// What a task says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// How far it is, in units of its own.
    Progress {
        /// How much is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// A line of a log.
    Line(Line),
    /// So many lines were left out: there were more than travel.
    Dropped(u32),
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// How grave it is.
    pub level: Level,
    /// For people.
    pub text: String,
    /// For programs: names and values.
    pub fields: Vec<(String, String)>,
}

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// It is wrong, and somebody has to know.
    Error,
    /// It may be wrong.
    Warn,
    /// It is as it should be.
    Info,
    /// For those who look closer.
    Debug,
    /// For those who look very close.
    Trace,
}

impl Level {
    /// In small letters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Line {
    /// A line that is cut to what may travel.
    pub fn new(level: Level, text: &str, fields: &[(&str, &dyn fmt::Display)]) -> Self {
        let mut room = LINE_BYTES_MAX;
        let mut fit = |text: &str| {
            let end = text.floor_char_boundary(room);
            room -= end;
            String::from(&text[..end])
        };
        let text = fit(text);
        let fields = fields.iter().take(FIELDS_MAX);
        let fields = fields.map(|(name, value)| (fit(name), fit(&alloc::format!("{value}"))));
        Self { level, text, fields: fields.collect() }
    }

    /// Whether it is cut to what may travel: whoever runs other people's code looks.
    pub fn fits(&self) -> bool {
        self.bytes() <= LINE_BYTES_MAX && self.fields.len() <= FIELDS_MAX
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| name.len() + value.len());
        self.text.len() + fields.sum::<usize>()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_what_travels() {
        let long = "é".repeat(LINE_BYTES_MAX);
        let line = Line::new(Level::Info, &long, &[("name", &7)]);
        assert_eq!((line.bytes(), line.text.len()), (LINE_BYTES_MAX, LINE_BYTES_MAX));
        assert!(line.fits() && !Line { text: long, ..line }.fits());
        let many: Vec<(&str, &dyn fmt::Display)> = (0..20).map(|_| ("n", &1 as _)).collect();
        assert_eq!(Line::new(Level::Warn, "x", &many).fields.len(), FIELDS_MAX);
        let line = Line::new(Level::Warn, "read", &[("rows", &3), ("of", &"file")]);
        assert_eq!(line.to_string(), "read rows=3 of=file");
    }
}
