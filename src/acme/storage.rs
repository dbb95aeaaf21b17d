//! The folder where the account and the certificates are kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::{Managed, Settings};
use crate::types::hex;

/// Largest file that is read.
const BYTES_MAX: u64 = 1024 * 1024;

/// The folder. Nobody else can read what is in it.
pub struct Storage {
    folder: PathBuf,
    account: PathBuf,
}

/// As long as it is held no other gateway orders a certificate with this folder.
pub struct Lock(#[expect(dead_code, reason = "its end is what counts")] File);

impl Storage {
    pub fn new(settings: &Settings) -> Self {
        let digest: String = hex(&Sha256::digest(&settings.directory)).chars().take(16).collect();
        let folder = settings.storage.clone();
        Self { account: folder.join(format!("account-{digest}.json")), folder }
    }

    /// Takes the lock. `None`: another gateway has it.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let file = private().create(true).truncate(false).open(self.folder.join("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The key and the chain that are stored. `None`: nothing is.
    pub fn certificate(&self, managed: &Managed) -> io::Result<Option<Vec<u8>>> {
        read(&self.path(managed))
    }

    pub fn save_certificate(&self, managed: &Managed, pem: &[u8]) -> io::Result<()> {
        self.write(&self.path(managed), pem)
    }

    /// The account. One that cannot be read is put aside: a new one costs nothing, and the file may still tell somebody something.
    pub fn account(&self) -> io::Result<Option<AccountCredentials>> {
        let Some(bytes) = read(&self.account)? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(credentials) => Ok(Some(credentials)),
            Err(_) => {
                self.forget_account("it cannot be read")?;
                Ok(None)
            }
        }
    }

    pub fn save_account(&self, credentials: &AccountCredentials) -> io::Result<()> {
        self.write(&self.account, &serde_json::to_vec(credentials).map_err(io::Error::other)?)
    }

    /// Puts the account aside.
    pub fn forget_account(&self, why: &str) -> io::Result<()> {
        let aside = self.account.with_extension("broken");
        warn!(file = %self.account.display(), aside = %aside.display(), why, "the ACME account is put aside; a new one is made");
        fs::rename(&self.account, aside)
    }

    fn path(&self, managed: &Managed) -> PathBuf {
        self.folder.join(format!("{}.pem", managed.stem))
    }

    /// Whole or not at all, whatever happens meanwhile. Whoever writes has the lock.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("new");
        // One that was left behind may have been made by somebody else, with other rights.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().create_new(true).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.folder)?.sync_all()
    }
}

/// Files of the owner alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
