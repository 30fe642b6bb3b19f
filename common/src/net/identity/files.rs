//! The four files of an identity, as bytes: read, written, not judged.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::IdentityError;

pub(super) const CERT: &str = "cert.pem";
pub(super) const KEY: &str = "key.pem";
pub(super) const CA: &str = "ca.pem";
const RESET: &str = "reset.key";

/// Contents of an identity's folder.
#[derive(Clone)]
pub struct IdentityFiles {
    /// Where they lie or shall lie; error messages name it.
    pub place: PathBuf,
    pub cert_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
    pub ca_pem: Vec<u8>,
    pub reset_key: [u8; 32],
}

impl core::fmt::Debug for IdentityFiles {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "IdentityFiles({})", self.place.display())
    }
}

impl IdentityFiles {
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|source| IdentityError::Unreadable { path, source })
        };
        let reset = read(RESET)?;
        Ok(Self {
            place: folder.to_owned(),
            cert_pem: read(CERT)?,
            key_pem: read(KEY)?,
            ca_pem: read(CA)?,
            reset_key: reset.as_slice().try_into().map_err(|_| IdentityError::ResetKey {
                path: folder.join(RESET),
                bytes: reset.len(),
            })?,
        })
    }

    /// Writes the folder (mode 0700, secrets 0600). It must not exist yet: identities are not overwritten.
    pub fn save(&self) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.place)?;
        write_new(&self.place.join(CERT), &self.cert_pem, 0o644)?;
        write_new(&self.place.join(KEY), &self.key_pem, 0o600)?;
        write_new(&self.place.join(CA), &self.ca_pem, 0o644)?;
        write_new(&self.place.join(RESET), &self.reset_key, 0o600)
    }
}

/// Creates a file that must not exist yet, and syncs it.
pub(in crate::net) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
