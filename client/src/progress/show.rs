//! A bar on a terminal, lines otherwise, or a function of the user.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Progress;
use crate::notice::notice;
use crate::parallel::{Callback, Options};

/// A bar is redrawn, and a function called, so often: the eye sees no more.
const REDRAW: Duration = Duration::from_millis(100);

/// Lines come so often at `verbose(1)`, and `n` times as often at `verbose(n)`.
const LINES: Duration = Duration::from_secs(10);

/// Shows the progress of one call.
pub(crate) struct Display {
    begun: Instant,
    shown: Instant,
    every: Duration,
    /// Tasks in all, where the iterator says it.
    total: Option<u64>,
    means: Means,
}

enum Means {
    Bar(ProgressBar),
    Lines,
    Function(Callback),
}

impl Display {
    /// What the options ask for; `None` if nothing is to be shown.
    pub(crate) fn of(options: &Options, total: Option<u64>) -> Option<Self> {
        let means = match &options.progress {
            Some(show) => Means::Function(Arc::clone(show)),
            None if options.verbose == 0 => return None,
            None if std::io::stderr().is_terminal() => Means::Bar(bar(options)),
            None => Means::Lines,
        };
        let every = match means {
            Means::Lines => (LINES / options.verbose).max(REDRAW),
            Means::Bar(_) | Means::Function(_) => REDRAW,
        };
        let now = Instant::now();
        Some(Self { begun: now, shown: now, every, total, means })
    }

    /// How long one may wait before it is time to show something.
    pub(crate) fn patience(&self) -> Duration {
        self.every.saturating_sub(self.shown.elapsed()).max(Duration::from_millis(1))
    }

    /// Shows how far the call is, if it is time.
    pub(crate) fn show(&mut self, done: u64, failed: u64) {
        let now = Instant::now();
        if now - self.shown >= self.every {
            self.shown = now;
            self.draw(done, failed, now - self.begun);
        }
    }

    /// Shows the end.
    pub(crate) fn finish(self, done: u64, failed: u64) {
        self.draw(done, failed, self.begun.elapsed());
        if let Means::Bar(bar) = &self.means {
            bar.abandon();
        }
    }

    fn draw(&self, done: u64, failed: u64, elapsed: Duration) {
        let progress = Progress { done, failed, total: self.total, elapsed };
        match &self.means {
            Means::Bar(bar) => {
                if let Some(total) = progress.total {
                    bar.set_length(total);
                }
                if progress.failed > 0 {
                    bar.set_message(format!(", {} failed", progress.failed));
                }
                bar.set_position(progress.done);
            }
            Means::Lines => notice(Line(&progress)),
            Means::Function(show) => show(&progress),
        }
    }
}

fn bar(options: &Options) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix}{bar:30} {human_pos}/{human_len} tasks{msg}, {per_sec}, {elapsed} gone, {eta} left",
    );
    let bar = ProgressBar::no_length();
    if let Ok(style) = style {
        bar.set_style(style);
    }
    if let Some(name) = &options.name {
        bar.set_prefix(format!("{name} "));
    }
    bar
}

/// Progress as one line.
struct Line<'a>(&'a Progress);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.0;
        write!(f, "{}", progress.done)?;
        if let Some(total) = progress.total {
            write!(f, " of {total}")?;
        }
        f.write_str(" tasks")?;
        if progress.failed > 0 {
            write!(f, ", {} failed", progress.failed)?;
        }
        write!(f, ", {:.1} s, {:.0} tasks/s", progress.elapsed.as_secs_f64(), progress.rate())?;
        match progress.remaining() {
            Some(left) if progress.total != Some(progress.done) => {
                write!(f, ", {:.0} s left", left.as_secs_f64())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let mut progress =
            Progress { done: 30, failed: 0, total: Some(90), elapsed: Duration::from_secs(3) };
        assert_eq!(Line(&progress).to_string(), "30 of 90 tasks, 3.0 s, 10 tasks/s, 6 s left");
        progress = Progress { total: None, failed: 2, ..progress };
        assert_eq!(Line(&progress).to_string(), "30 tasks, 2 failed, 3.0 s, 10 tasks/s");
    }
}
