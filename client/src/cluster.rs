//! The handle on a cluster: one session, however many clones.
//!
//! Where calls run that name no cluster is decided by the environment ([`Cluster::from_env`]):
//!
//! | variable | value |
//! |---|---|
//! | `ALLHANDS_CLUSTER` | addresses of all coordinators, `host:port,host:port,...`; or the directory that `allhands dev --dir DIR` or `allhands init DIR` wrote, which has them in its file `cluster`; unset: an embedded cluster |
//! | `ALLHANDS_IDENTITY` | the directory of the client's identity; unset: `client` in the directory that `ALLHANDS_CLUSTER` names |

mod embedded;

pub use embedded::EmbeddedBuilder;
pub(crate) use embedded::EmbeddedConfig;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use allhands_common::chain::chain;
use allhands_common::id::ClusterId;
use allhands_common::net::identity::Identity;
use allhands_common::net::place::{self, Place};
pub use allhands_common::net::place::{
    ADDRESSES_FILE, CLIENT as IDENTITY_FOLDER, CLUSTER_VARIABLE, IDENTITY_VARIABLE,
};
use allhands_common::wire::note::Note;

use crate::data::Data;
use crate::enter;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::session::core::Purpose;
use crate::session::thread::{Running, Source, Stay, start};

/// How long a call waits for a leader before it is given up: longer than any failover, shorter than a
/// user's own patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long the first contact may take: two attempts, and an election of a cluster that just starts.
const CONNECT_PATIENCE: Duration = Duration::from_secs(6);

/// The cluster of calls that name none.
static SHARED: Mutex<Option<Cluster>> = Mutex::new(None);

fn shared() -> MutexGuard<'static, Option<Cluster>> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sessions of this process.
static KNOWN: Mutex<Vec<Weak<Running>>> = Mutex::new(Vec::new());

fn known() -> MutexGuard<'static, Vec<Weak<Running>>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the cluster of calls that name none ([`Cluster::from_env`]): an embedded one ends its
/// executors and removes its files, a real one forgets this process and what it left there. Waits for
/// that, for a few seconds at most. The next such call starts another.
///
/// [`#[allhands::main]`](macro@crate::main) does it when `main` is left. A program that calls
/// [`init`](crate::init()) does well to call this last: else a real cluster keeps what it holds for
/// this process until its lease of 15 s has run out, and the files of an embedded one stay until the
/// next program starts one.
pub fn shutdown() {
    let ended = shared().take();
    if let Some(cluster) = ended {
        cluster.0.end();
    }
}

/// A cluster, as this process sees it. Cheap to clone; all clones are one session, which ends with
/// the last of them: what is still running then is cancelled.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Running>);

impl Cluster {
    /// A cluster inside this process: a coordinator, a worker, and executors of this program.
    ///
    /// ```no_run
    /// use allhands::{Cluster, Parallel};
    ///
    /// let cluster = Cluster::embedded().slots(2).start()?;
    /// let squares = Parallel::new().on(&cluster).map(0..100u64, |n| n * n)?;
    /// # Ok::<(), allhands::Error>(())
    /// ```
    pub fn embedded() -> EmbeddedBuilder {
        EmbeddedBuilder::default()
    }

    /// Joins the cluster whose coordinators are at `addresses` (`host:port,host:port,...`), as the
    /// holder of the identity in the directory `identity`, which `allhands init` made.
    ///
    /// # Errors
    /// No leader answers within a few seconds, no coordinator takes this program (which is said at once),
    /// the identity cannot be used, or `init()` was not called.
    pub fn connect(addresses: impl AsRef<str>, identity: impl AsRef<Path>) -> Result<Self> {
        Self::connect_patiently(addresses, identity, PATIENCE)
    }

    /// [`connect`](Self::connect), and calls wait for a leader for as long as `patience` (30 s
    /// otherwise) before they are given up.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_patiently(
        addresses: impl AsRef<str>,
        identity: impl AsRef<Path>,
        patience: Duration,
    ) -> Result<Self> {
        enter::check()?;
        let places = resolve(addresses.as_ref())?;
        let directory = identity.as_ref();
        let identity = Identity::load(directory).map_err(|error| {
            Error::caused(ErrorKind::Identity { directory: directory.display().to_string() }, error)
        })?;
        let names: Vec<String> = places.iter().map(|place| place.name.clone()).collect();
        let running = start(Source::Remote { identity, places, stay: Stay::ATTACHED }, patience)?;
        running.session.wait_attached(CONNECT_PATIENCE).map_err(|causes| {
            let causes = names.into_iter().zip(causes).collect();
            Error::new(ErrorKind::NoCluster { causes })
        })?;
        Ok(Self::of(running))
    }

    /// The cluster that the environment names, or an embedded one. There is one in a process; it is
    /// started when it is first asked for and stays warm until [`shutdown`].
    ///
    /// `ALLHANDS_CLUSTER` is `host:port,host:port,...` (all coordinators), or the directory that
    /// `allhands dev` or `allhands init` wrote; unset means an embedded cluster.
    /// `ALLHANDS_IDENTITY` is the directory of the client's identity; unset it is `client` in that
    /// directory.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); the next call tries again.
    pub fn from_env() -> Result<Self> {
        let mut shared = shared();
        if let Some(cluster) = shared.as_ref().filter(|cluster| !cluster.session().has_ended()) {
            return Ok(cluster.clone());
        }
        let cluster = match place(std::env::var_os(CLUSTER_VARIABLE), identity_variable())? {
            Some((addresses, identity)) => Self::connect(addresses, identity)?,
            None => Self::embedded().start()?,
        };
        *shared = Some(cluster.clone());
        Ok(cluster)
    }

    /// Another session with the same cluster, whose job is this.
    ///
    /// # Errors
    /// It is an embedded one, which has one session; or a session cannot be had.
    pub(crate) fn again(&self, name: Option<String>, purpose: Purpose) -> Result<Self> {
        let Some(giving) = self.data().giving() else {
            return Err(Error::new(ErrorKind::EmbeddedJob));
        };
        let (identity, places) = giving.place();
        let stay = Stay { name, purpose };
        Ok(Self::of(start(Source::Remote { identity, places, stay }, PATIENCE)?))
    }

    /// The handle on a session that has begun.
    pub(crate) fn of(running: Running) -> Self {
        let running = Arc::new(running);
        let mut known = known();
        known.retain(|other| other.strong_count() > 0);
        known.push(Arc::downgrade(&running));
        drop(known);
        Self(running)
    }

    /// The cluster of this id, if this process has a session with it; of none (zero), the only one.
    pub(crate) fn known(id: ClusterId) -> Option<Self> {
        // The last handle of another one may be dropped meanwhile: not under the lock.
        let all: Vec<Self> = known().iter().filter_map(Weak::upgrade).map(Self).collect();
        if id == ClusterId::default() {
            // A task does not know what its cluster is called. Where there is one, it is that.
            let mut clusters = all.iter().map(|known| known.data().cluster());
            let first = clusters.next();
            return all.first().filter(|_| clusters.all(|other| Some(other) == first)).cloned();
        }
        all.into_iter().find(|cluster| cluster.data().cluster() == id)
    }

    /// Whether this process has a session with any cluster.
    pub(crate) fn any_known() -> bool {
        known().iter().any(|running| running.strong_count() > 0)
    }

    /// How many tasks of one slot can run at once, as last heard.
    pub fn slots(&self) -> u32 {
        self.0.session.slots()
    }

    /// Calls `hear` with what tasks of this program say while they run ([`Context::log`](crate::Context::log),
    /// [`Context::progress`](crate::Context::progress)), from now on, in a thread of its own. What comes faster than
    /// it hears, or than travels, is left out: of lines it is told how many, most of the time.
    ///
    /// Without a listener, lines become events of `tracing`, with the target `allhands::task`.
    ///
    /// ```no_run
    /// use allhands::{Cluster, Said};
    ///
    /// let cluster = Cluster::embedded().start()?;
    /// cluster.listen(|note| match note.said {
    ///     Said::Progress { done, total } => println!("{}: {done} of {total}", note.task),
    ///     Said::Line(line) => println!("{} {}: {line}", line.level, note.task),
    ///     Said::Dropped(lines) => println!("{lines} lines were left out"),
    /// })?;
    /// # Ok::<(), allhands::Error>(())
    /// ```
    ///
    /// # Errors
    /// No thread can be started.
    pub fn listen(&self, hear: impl FnMut(Note) + Send + 'static) -> Result<()> {
        self.0.session.listeners.add(hear).map_err(Error::thread)
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0.session
    }

    pub(crate) fn data(&self) -> &Data {
        &self.0.data
    }
}

fn identity_variable() -> Option<PathBuf> {
    std::env::var_os(IDENTITY_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Addresses and identity; `None` for an embedded cluster.
fn place(
    cluster: Option<OsString>,
    identity: Option<PathBuf>,
) -> Result<Option<(String, PathBuf)>> {
    let wrong = |cause: String| Error::new(ErrorKind::Environment { cause });
    let Some(value) = cluster else {
        return Ok(None);
    };
    let directory = Path::new(&value);
    if !directory.is_dir() {
        let value = value.to_str().ok_or_else(|| {
            wrong(format!("{} is no directory and no list of addresses", directory.display()))
        })?;
        if value.trim().is_empty() {
            return Err(wrong("it is empty: unset it to run on an embedded cluster".into()));
        }
        if value.contains('/') || value.split(',').any(|place| !place.contains(':')) {
            let known = "neither a directory that `allhands init` or `allhands dev` has made, nor a \
                         list of HOST:PORT";
            return Err(wrong(format!("{value} is {known}")));
        }
        let identity = identity.ok_or_else(|| {
            wrong("ALLHANDS_IDENTITY is not: set it to the directory of a client identity".into())
        })?;
        return Ok(Some((value.to_owned(), identity)));
    }
    let file = directory.join(ADDRESSES_FILE);
    let addresses = std::fs::read_to_string(&file).map_err(|error| {
        wrong(format!("{} cannot be read: {error}; `allhands init` writes it", file.display()))
    })?;
    if addresses.trim().is_empty() {
        return Err(wrong(format!("{} is empty; `allhands init` writes it", file.display())));
    }
    let identity = identity.unwrap_or_else(|| directory.join(IDENTITY_FOLDER));
    Ok(Some((addresses.trim().to_owned(), identity)))
}

/// The places of a list.
fn resolve(list: &str) -> Result<Vec<Place>> {
    place::resolve(list).map_err(|error| {
        Error::new(ErrorKind::Address { text: list.to_owned(), cause: chain(&error) })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn the_environment_names_a_cluster_in_two_ways() {
        assert_eq!(place(None, None).unwrap(), None);
        let both = place(Some("a:1,b:2".into()), Some("id".into())).unwrap();
        assert_eq!(both, Some(("a:1,b:2".into(), "id".into())));

        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().to_str().unwrap().to_owned();
        let error = place(Some(name.clone().into()), None).unwrap_err().to_string();
        assert!(
            error.contains("cluster cannot be read") && error.contains("allhands init"),
            "{error}"
        );
        std::fs::write(directory.path().join(ADDRESSES_FILE), " \n").unwrap();
        let error = place(Some(name.clone().into()), None).unwrap_err().to_string();
        assert!(error.contains("cluster is empty"), "{error}");
        std::fs::write(directory.path().join(ADDRESSES_FILE), "c:3\n").unwrap();
        let found = place(Some(name.into()), None).unwrap();
        assert_eq!(found, Some(("c:3".into(), directory.path().join("client"))));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = place(Some("a:1".into()), None).unwrap_err().to_string();
        assert!(error.contains("ALLHANDS_IDENTITY"), "{error}");
        for (value, says) in [
            (OsString::from("/no/such"), "but /no/such is neither a directory"),
            (OsString::from("clustre"), "but clustre is neither a directory"),
            (OsString::from_vec(vec![b'a', 0xff]), "but a\u{fffd} is no directory"),
            (OsString::from(" "), "but it is empty: unset it"),
        ] {
            let error = place(Some(value), None).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn addresses_are_resolved_or_named() {
        let found = resolve("127.0.0.1:7001, localhost:7002").unwrap();
        assert_eq!(found[0].name, "127.0.0.1:7001");
        assert!(found[1].addresses.iter().all(|address| address.port() == 7002));
        for wrong in ["", "nowhere", "127.0.0.1:x"] {
            let error = resolve(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("host:port"), "{error}");
        }
    }
}
