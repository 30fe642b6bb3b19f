//! When to end: the first SIGTERM or Ctrl-C asks for it, the second ends the process at once.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit;

/// Completes at the first signal. Must be called inside a tokio runtime.
pub(crate) fn on_signals() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (said, mut asked) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if said.send_replace(true) {
                at_once();
            }
        }
    });
    Ok(async move {
        // It fails when the task above is gone, and the runtime with it.
        let _ = asked.wait_for(|asked| *asked).await;
    })
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "asked twice: whoever waits for an orderly end has lost patience with it"
)]
fn at_once() -> ! {
    std::process::exit(exit::INTERRUPTED.into())
}
