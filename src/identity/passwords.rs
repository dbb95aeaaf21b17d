//! Hashes of passwords: argon2id, and bcrypt for those that were made elsewhere.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bcrypt::HashParts;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// What bcrypt looks at, in bytes. A longer password is refused, as its end would mean nothing.
pub const BCRYPT_BYTES_MAX: usize = 72;
/// The costliest hashes that are taken: a login holds so much memory, and a thread for so long.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const BCRYPT_COST: std::ops::RangeInclusive<u32> = 4..=16;
const SALT_BYTES: usize = 16;
/// A shorter hash is one that others have too.
const OUTPUT_BYTES_MIN: usize = 16;

/// The hash of a password.
#[derive(Clone)]
pub struct Hash(Kind);

#[derive(Clone)]
enum Kind {
    Argon2id { argon2: Argon2<'static>, salt: Box<[u8]>, output: Box<[u8]> },
    Bcrypt(Box<str>),
}

impl Hash {
    /// Reads `$argon2id$…` (the PHC format) or `$2b$…` (bcrypt).
    ///
    /// # Errors
    /// Says what is wrong with it; the text holds nothing of the hash.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("$2") {
            return bcrypt(text);
        }
        if !text.starts_with("$argon2id$") {
            return Err("a hash begins with `$argon2id$`, or `$2b$`, `$2a$`, `$2y$` for bcrypt".to_owned());
        }
        let hash = PasswordHash::new(text).map_err(|error| format!("it is no PHC string: {error}"))?;
        let params = Params::try_from(&hash).map_err(|error| format!("its parameters are wrong: {error}"))?;
        if hash.version != Some(Version::V0x13.into()) {
            return Err("argon2 of version 19 (`v=19`) is read, and no other".to_owned());
        }
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX || params.p_cost() > LANES_MAX {
            return Err(format!("it costs too much: at most m={MEMORY_KIB_MAX}, t={PASSES_MAX}, p={LANES_MAX}"));
        }
        let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
            return Err("salt or hash is missing".to_owned());
        };
        if output.len() < OUTPUT_BYTES_MIN {
            return Err(format!("the hash has {} bytes, and {OUTPUT_BYTES_MIN} are the least", output.len()));
        }
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        Ok(Self(Kind::Argon2id { argon2, salt: salt.as_ref().into(), output: output.as_bytes().into() }))
    }

    /// A hash that no password has, for when there is no user whose hash could be taken.
    pub fn of_nobody() -> Self {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
        let (salt, output) = ([0; SALT_BYTES], [0; Params::DEFAULT_OUTPUT_LEN]);
        Self(Kind::Argon2id { argon2, salt: salt.into(), output: output.into() })
    }

    /// Whether it is the hash of `password`. Takes tens of milliseconds of a core, whatever the answer.
    pub fn matches(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Argon2id { argon2, salt, output } => {
                let mut made = vec![0; output.len()];
                let hashed = argon2.hash_password_into(password, salt, &mut made);
                hashed.is_ok() && bool::from(made.ct_eq(output))
            }
            Kind::Bcrypt(hash) => {
                // Hashed all the same: being refused at once would tell that there is such a user.
                let looked_at = password.get(..BCRYPT_BYTES_MAX).unwrap_or(password);
                let same = bcrypt::verify(looked_at, hash).unwrap_or(false);
                same && password.len() <= BCRYPT_BYTES_MAX
            }
        }
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn bcrypt(text: &str) -> Result<Hash, String> {
    let parts: HashParts = text.parse().map_err(|error| format!("it is no bcrypt hash: {error}"))?;
    if text.starts_with("$2x$") {
        return Err("`$2x$` marks hashes of a faulty implementation; set the password anew".to_owned());
    }
    if !BCRYPT_COST.contains(&parts.get_cost()) {
        return Err(format!("a cost of {} to {} is read", BCRYPT_COST.start(), BCRYPT_COST.end()));
    }
    Ok(Hash(Kind::Bcrypt(text.into())))
}

/// Makes the hash of a password: argon2id with the parameters that OWASP recommends (19 MiB, 2 passes, 1 lane).
///
/// # Errors
/// The system gives no random numbers.
pub fn hash(password: &[u8]) -> Result<String, String> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
    argon2.hash_password_with_salt(password, &salt).map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

/// 128 random bits as 22 characters.
///
/// # Errors
/// The system gives no random numbers.
pub fn random_id() -> Result<String, getrandom::Error> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits)?;
    Ok(URL_SAFE_NO_PAD.encode(bits))
}

/// Checks that may wait for their turn.
const WAITING_MAX: usize = 64;
/// How long one may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// Checks passwords on threads that may be held up, few at once.
pub struct Hashing {
    waiting: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

/// More passwords are to be checked than can be.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

impl Default for Hashing {
    /// As many at once as there are cores, four at most: each holds its memory and its core.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(cores.min(4), WAITING_MAX)
    }
}

impl Hashing {
    pub fn new(at_once: usize, waiting_max: usize) -> Self {
        Self {
            waiting: Arc::new(Semaphore::new(waiting_max.saturating_add(at_once))),
            working: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// Does `work` when it is its turn.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| Busy)?;
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.working).acquire_owned()).await;
        let turn = turn.map_err(|_| Busy)?.map_err(|_| Busy)?;
        // The permits go with the work: who stops waiting for it does not stop it.
        let worked = tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            work()
        });
        worked.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    use super::*;

    #[test]
    fn a_new_hash_matches_its_password_only() {
        let hash = hash(b"correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let hash = Hash::parse(&hash).unwrap();
        assert!(hash.matches(b"correct horse") && !hash.matches(b"correct horsf") && !hash.matches(b""));
        assert!(!Hash::of_nobody().matches(b""));
        assert_eq!(format!("{hash:?}"), "[redacted]");
    }

    #[test]
    fn bcrypt_is_read_and_never_truncates() {
        let long = [b'p'; 72];
        let made = bcrypt::hash(long, 4).unwrap();
        let hash = Hash::parse(&made).unwrap();
        assert!(hash.matches(&long));
        assert!(!hash.matches(&[b'p'; 73]), "bcrypt itself would take it for the same");
        assert!(!hash.matches(&[b'p'; 71]));
        assert!(bcrypt::verify([b'p'; 73], &made).unwrap(), "which is why");
        assert!(Hash::parse(&made.replacen("$2b$", "$2y$", 1)).unwrap().matches(&long));
    }

    #[test]
    fn what_is_no_hash_or_costs_too_much_is_refused() {
        let salt_and_hash = "c29tZXNhbHQxMjM0NTY$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let argon2 = |params: &str| Hash::parse(&format!("$argon2id$v=19${params}${salt_and_hash}"));
        assert!(argon2("m=262144,t=16,p=16").is_ok());
        for bad in ["m=262145,t=2,p=1", "m=19456,t=17,p=1", "m=19456,t=2,p=17", "m=1,t=1,p=1", "m=x"] {
            assert!(argon2(bad).is_err(), "{bad}");
        }
        let of = |version: &str, cost: &str| {
            Hash::parse(&bcrypt::hash(b"p", 4).unwrap().replacen("$2b$04", &format!("${version}${cost}"), 1))
        };
        assert!(of("2b", "16").is_ok() && of("2a", "04").is_ok());
        for (version, cost) in [("2x", "04"), ("2b", "17"), ("2b", "03"), ("2b", "31"), ("3b", "04")] {
            assert!(of(version, cost).is_err(), "{version} {cost}");
        }
        for bad in ["", "secret", "$argon2i$v=19$m=19456,t=2,p=1$x$y", "$argon2id$", "$2b$04$short", "$2"] {
            assert!(Hash::parse(bad).is_err(), "{bad}");
        }
        for version in ["$v=16", ""] {
            assert!(Hash::parse(&format!("$argon2id{version}$m=19456,t=2,p=1${salt_and_hash}")).is_err());
        }
        let long = |bytes: usize| STANDARD_NO_PAD.encode(vec![7; bytes]);
        let of = |bytes| Hash::parse(&format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", long(16), long(bytes)));
        assert!(of(16).is_ok() && of(15).is_err());
    }

    #[tokio::test]
    async fn more_than_can_wait_are_told_so() {
        let hashing = Arc::new(Hashing::new(1, 1));
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let hashing = Arc::clone(&hashing);
            async move {
                let work = move || {
                    started.send(()).unwrap();
                    ended.recv().unwrap();
                };
                hashing.run(work).await
            }
        });
        has_started.await.unwrap();
        let second = hashing.run(|| 2);
        let third = hashing.run(|| 3);
        tokio::pin!(second);
        // The second waits once it was polled; the third finds no place.
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        assert_eq!(third.await, Err(Busy));
        end.send(()).unwrap();
        assert_eq!(second.await, Ok(2));
        assert_eq!(first.await.unwrap(), Ok(()));
    }
}
