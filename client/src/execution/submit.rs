//! How a call goes out: what it says of itself, and what is stored for it.

use std::sync::Arc;

use allhands_common::execution::Awaited;
use allhands_common::function::FunctionName;
use allhands_common::policy::{BatchSpec, Function, Policy};
use allhands_common::segment::argument_tag;
use serde::de::DeserializeOwned;

use super::Execution;
use super::home::{self, Home};
use super::named::Named;
use super::slot::{Beginning, Slot};
use crate::cluster::Cluster;
use crate::delayed::{Delayed, Patch, function_name};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Finished, Reason, Result, RunError, error_of_end};
use crate::parallel::lift::Lifting;
use crate::payload::Arguments;
use crate::session::Session;
use crate::session::core::Purpose;
use crate::session::needs::Parts;
use crate::session::submits::{Keeps, Key, Submission, Untaken};
use crate::shared::mention;

/// Bytes in the chunk store that count as one byte of arguments that are on their way, as for a batch.
const STORED_SHARE: usize = 64;

/// A longer argument is stored, once: as for a batch.
const LIFTED_BYTES_MIN: usize = 1 << 20;

/// A call as it is submitted, whatever it returns.
#[derive(Debug)]
pub(crate) struct Encoded<'a> {
    pub(crate) entry: &'static Entry,
    pub(crate) arguments: &'a Arguments,
    /// What is said at the call.
    pub(crate) patch: Option<&'a Patch>,
    /// Arrays that its arguments name.
    pub(crate) named: &'a [mention::Named],
    /// Executions that they name.
    pub(crate) needs: &'a [Named],
}

impl Encoded<'_> {
    /// What its function is called between processes.
    ///
    /// # Errors
    /// Other processes cannot find it.
    pub(crate) fn function(&self) -> Result<FunctionName> {
        let said = self.patch.map_or(Ok(()), Patch::check);
        said.map_err(|wrong| fail(Reason::Option(wrong)))?;
        function_name(self.entry, self.patch)
            .map_err(|source| fail(Reason::Function { index: 0, source }))
    }

    /// What its batch is.
    pub(crate) fn spec(&self, name: FunctionName) -> BatchSpec {
        let mut policy = Policy::default();
        if let Some(task) = self.entry.task() {
            task.policy.apply(&mut policy);
        }
        if let Some(patch) = self.patch {
            patch.apply(&mut policy);
        }
        let label = self.entry.label();
        let returns = self.entry.returns().to_owned();
        let functions = vec![Function { name, label: label.clone(), returns }];
        BatchSpec { name: label, functions, policy, env: Vec::new() }
    }
}

fn fail(reason: Reason) -> Error {
    RunError::new(reason, Finished::default()).into()
}

impl<R: DeserializeOwned> Delayed<R> {
    /// Submits the call to the cluster that calls go to which name none
    /// ([`Cluster::from_env`](crate::Cluster::from_env)), and goes on: what comes of it is in the [`Execution`].
    /// Waits only while many calls, or long ones, are on their way and not yet taken by the cluster.
    ///
    /// ```no_run
    /// # use allhands::delayed;
    /// # fn heavy(n: u64) -> u64 { n }
    /// let one = delayed(heavy)(1).submit()?;
    /// let other = delayed(heavy)(2).retries(3).submit()?;
    /// println!("{}", one.result()? + other.result()?);
    /// # Ok::<(), allhands::Error>(())
    /// ```
    ///
    /// # Errors
    /// The cluster cannot be had, or the call cannot be sent.
    pub fn submit(self) -> Result<Execution<R>> {
        submit(self, None)
    }
}

impl Cluster {
    /// Submits a call to this cluster, and goes on: [`Delayed::submit`].
    ///
    /// # Errors
    /// The session has ended, or the call cannot be sent.
    pub fn submit<R: DeserializeOwned>(&self, call: Delayed<R>) -> Result<Execution<R>> {
        submit(call, Some(self))
    }

    /// Cancels all calls of this session that are of the [`group`](Delayed::group) `name`, and all that its tasks have
    /// called in it, as far as they have not ended. What is submitted to the group after that runs. A call that others
    /// want too ([`memo`](Delayed::memo), [`defer`](Delayed::defer)) goes on for them.
    pub fn cancel_group(&self, name: &str) {
        self.session().cancel_group(name);
    }
}

fn submit<R>(mut call: Delayed<R>, on: Option<&Cluster>) -> Result<Execution<R>> {
    if let Some(source) = call.take_error() {
        return Err(fail(Reason::Argument { index: 0, source }));
    }
    let encoded = Encoded {
        entry: call.entry(),
        arguments: call.encoded(),
        patch: call.patch(),
        named: call.named(),
        needs: call.needs(),
    };
    let (slot, ties) = home::submit(&encoded, on)?;
    Ok(Execution::new(slot, ties))
}

impl Session {
    /// Takes a call of this client.
    pub(super) fn submit(
        self: &Arc<Self>,
        cluster: &Cluster,
        call: &Encoded<'_>,
    ) -> Result<Arc<Slot>> {
        let data = cluster.data();
        for named in call.needs {
            let theirs = named.slot.cluster();
            if theirs != data.cluster() && theirs != Default::default() {
                let (execution, cluster) = (named.slot.of().task, theirs);
                return Err(Error::new(ErrorKind::OtherExecution { execution, cluster }));
            }
        }
        let is_held_here = !call.named.is_empty() || call.arguments.bytes() > LIFTED_BYTES_MIN;
        match self.purpose() {
            Purpose::Detached { .. } if is_held_here => {
                return Err(Error::new(ErrorKind::HeldHere { function: call.entry.label() }));
            }
            Purpose::Visit(job) => return Err(Error::new(ErrorKind::OthersJob { job })),
            Purpose::Attached | Purpose::Detached { .. } => {}
        }
        call.named.iter().try_for_each(|named| data.provide(&named.whole))?;
        let lifted = match call.arguments.bytes() > LIFTED_BYTES_MIN {
            true => {
                Some(Lifting::new(Some(LIFTED_BYTES_MIN)).lift(data, call.arguments, call.entry)?)
            }
            false => None,
        };
        let is_told = data.elsewhere().is_some() && (!call.named.is_empty() || lifted.is_some());
        let maps = is_told.then(|| {
            let references = lifted.iter().flat_map(|lifted| lifted.references());
            Parts::of(call.named, references)
        });
        let mut keeps: Keeps =
            call.named.iter().map(|named| Arc::clone(&named.whole) as _).collect();
        let (mut stand_ins, mut stored_bytes) = (call.arguments.stand_ins(), 0);
        let strings: Vec<&[u8]> = match &lifted {
            Some(lifted) => {
                keeps.extend(lifted.kept.iter().cloned());
                (stand_ins, stored_bytes) = (lifted.which, lifted.stored_bytes / STORED_SHARE);
                lifted.strings.iter().map(|string| &**string).collect()
            }
            None => call.arguments.iter().collect(),
        };
        let entry = call.entry;
        let name = call.function()?;
        let submission = Submission {
            key: Key { entry, patch: call.patch.cloned() },
            codec: call.arguments.codec(),
            tag: argument_tag(0, stand_ins),
            strings: &strings,
            needs: call.needs,
            maps,
            keeps,
            stored_bytes,
        };
        let (home, of_cluster) = (Home::Client(Arc::clone(self)), data.cluster());
        let make = |task| {
            Slot::new(Beginning {
                of: Awaited { task, follow: false },
                cluster: of_cluster,
                home,
                returns: None,
                function: Some(entry),
                origin: None,
                flattens: false,
                counted: true,
                comes: true,
            })
        };
        self.take_call(submission, || call.spec(name), make).map_err(|untaken| match untaken {
            Untaken::Ended(end) => {
                error_of_end(&end).unwrap_or_else(|| Error::new(ErrorKind::Closed))
            }
            Untaken::TooManyNamed { named, limit } => {
                Error::new(ErrorKind::TooManyNamed { function: entry.label(), named, limit })
            }
            Untaken::TooLong { bytes, limit } => {
                let what = format!("the call of {}: its arguments", entry.label());
                fail(Reason::TooLarge { what, bytes, limit })
            }
        })
    }
}
