//! Who hears what tasks say: callbacks of the program, each in a thread of its own, so that a slow one keeps nobody
//! waiting. Where there is none, lines become events of `tracing`.

use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};

use allhands_common::wire::note::{Level, Line, Note, Said};

/// Notes that wait for a callback: what comes while so many do is not heard by it.
const WAITING_MAX: usize = 1024;

/// The callbacks of a session.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<Vec<SyncSender<Note>>>);

impl Listeners {
    /// Calls `hear` with all that is said from now on, until the session ends.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(crate) fn add(&self, mut hear: impl FnMut(Note) + Send + 'static) -> io::Result<()> {
        let (tell, told) = sync_channel::<Note>(WAITING_MAX);
        let listen = move || told.into_iter().for_each(&mut hear);
        std::thread::Builder::new().name("allhands-listen".into()).spawn(listen)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(tell);
        Ok(())
    }

    /// Tasks say this.
    pub(crate) fn tell(&self, notes: Vec<Note>) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return notes.iter().for_each(trace);
        }
        for note in notes {
            listeners.retain(|listener| {
                // One whose callback has panicked listens no more.
                let told = listener.try_send(note.clone());
                !matches!(told, Err(TrySendError::Disconnected(_)))
            });
        }
    }

    /// The session has ended.
    pub(crate) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn trace(note: &Note) {
    let task = note.task;
    match &note.said {
        Said::Line(line) => event(line, &format_args!("{task}: {line}")),
        Said::Dropped(lines) => {
            tracing::warn!(target: "allhands::task", "{task}: {lines} lines were left out");
        }
        Said::Progress { .. } => {}
    }
}

/// A line as an event of this process.
pub(crate) fn event(line: &Line, text: &std::fmt::Arguments<'_>) {
    match line.level {
        Level::Error => tracing::error!(target: "allhands::task", "{text}"),
        Level::Warn => tracing::warn!(target: "allhands::task", "{text}"),
        Level::Info => tracing::info!(target: "allhands::task", "{text}"),
        Level::Debug => tracing::debug!(target: "allhands::task", "{text}"),
        Level::Trace => tracing::trace!(target: "allhands::task", "{text}"),
    }
}
