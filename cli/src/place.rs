//! Where a cluster is and who asks it: addresses and identity, from what was typed and the environment.
//!
//! `ALLHANDS_CLUSTER` and `ALLHANDS_IDENTITY` mean what they mean to a program; but a program's identity
//! is a client's, and questions need an admin's. So the identity is the first of
//!
//! 1. `--identity`;
//! 2. `admin` in the cluster's directory, where `--cluster` or `ALLHANDS_CLUSTER` is one;
//! 3. `ALLHANDS_IDENTITY`, if it is an admin's;
//! 4. `admin` beside `ALLHANDS_IDENTITY`.

use std::path::{Path, PathBuf};

use allhands_common::net::access::Role;
use allhands_common::net::identity::Identity;
use allhands_common::net::place::{ADDRESSES_FILE, ADMIN, IDENTITY_VARIABLE, resolve};
use anyhow::{Context, bail, ensure};

use crate::args::Query;
use crate::operator::Operator;

impl Query {
    /// Whom to ask, as whom. Must be called inside a tokio runtime.
    pub(crate) fn operator(&self) -> anyhow::Result<Operator> {
        let directory = Path::new(&self.cluster);
        let in_directory = directory.is_dir();
        let addresses = if in_directory {
            let file = directory.join(ADDRESSES_FILE);
            std::fs::read_to_string(&file).with_context(|| {
                format!(
                    "{} cannot be read: write the coordinators' addresses there, \
                     HOST:PORT,HOST:PORT,…, or give them as --cluster",
                    file.display()
                )
            })?
        } else {
            let text = self.cluster.to_string_lossy();
            ensure!(
                !text.contains('/'),
                "--cluster {text} is neither a directory nor HOST:PORT,HOST:PORT,…"
            );
            text.into_owned()
        };
        let identity = match &self.identity {
            Some(folder) => folder.clone(),
            None if in_directory => directory.join(ADMIN),
            None => admin_of_environment()?,
        };
        let identity = admin(&identity)?;
        Ok(Operator::new(identity, resolve(&addresses)?, self.patience)?)
    }
}

fn admin_of_environment() -> anyhow::Result<PathBuf> {
    let Some(folder) = std::env::var_os(IDENTITY_VARIABLE).filter(|value| !value.is_empty()) else {
        bail!(
            "no identity is given: use --identity DIR with the folder of an admin, or name the \
             cluster's directory as --cluster or ALLHANDS_CLUSTER"
        );
    };
    let folder = PathBuf::from(folder);
    let beside = folder.canonicalize().ok().and_then(|path| Some(path.parent()?.join(ADMIN)));
    match (Identity::load(&folder), beside) {
        (Ok(identity), Some(beside)) if identity.own().role != Role::Admin && beside.is_dir() => {
            Ok(beside)
        }
        (Ok(_) | Err(_), _) => Ok(folder),
    }
}

fn admin(folder: &Path) -> anyhow::Result<Identity> {
    let identity = Identity::load(folder).context("the identity cannot be used")?;
    let own = identity.own();
    ensure!(
        own.role == Role::Admin,
        "{} is the identity of {own}, and only an admin may ask: give the folder `admin` that \
         `allhands init` made as --identity",
        folder.display()
    );
    Ok(identity)
}
