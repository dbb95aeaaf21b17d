//! Which server, as it is written and as it is used.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::IntoConnectionInfo as _;
use reqwest::Url;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::{Period, Secret};
use crate::yaml::{Located, Node, Place, Problem, decode};

const PREFIX: &str = "tollgate:";
const PREFIX_BYTES_MAX: usize = 64;
const CONNECTIONS: u16 = 2;
const CONNECTIONS_MAX: u16 = 64;
const TIMEOUT: Duration = Duration::from_millis(50);
const TIMEOUT_MAX: Duration = Duration::from_secs(5);
const PORT: u16 = 6379;
/// Largest file of certificates, in bytes.
const CA_BYTES_MAX: u64 = 1024 * 1024;
const URL_HINT: &str = "write redis://host:6379, rediss://host:6380/0 for TLS, or unix:///run/redis.sock";

/// A server that gateways share: its address, or a map.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "describes the format; never built")]
pub enum RedisForm {
    /// `redis://cache:6379`
    Short(String),
    Long(Box<RedisSettings>),
}

/// A Redis or Valkey server that gateways share.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RedisSettings {
    /// `redis://host:6379`, `rediss://host:6380/0` with TLS, `unix:///run/redis.sock`; with `user:password@` before the host
    /// and the number of a database behind it.
    pub url: Located<Secret>,
    /// The user of the server's ACL. Default: that of the URL, then the default user.
    pub user: Option<Located<String>>,
    /// Default: that of the URL. Here it stands as it is, where the URL wants `%40` for `@`.
    pub password: Option<Located<Secret>>,
    /// What every key begins with. Gateways with the same one share what they keep. Default `tollgate:`.
    pub prefix: Option<Located<String>>,
    /// Connections for what requests ask; there is one more for all else. Default 2, at most 64.
    pub connections: Option<Located<u16>>,
    /// How long a request waits for an answer. Default 50ms, at most 5s.
    pub timeout: Option<Located<Period>>,
    /// Certificates in PEM of the authorities that may have issued the server's, relative to gateway.yaml. Default: those of
    /// the system.
    pub ca: Option<Located<String>>,
}

/// Which server, and how it is used.
#[derive(Clone, Debug)]
pub struct Settings {
    pub server: Server,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: i64,
    pub prefix: String,
    /// Connections for decisions.
    pub connections: usize,
    /// How long a decision may take.
    pub timeout: Duration,
    /// PEM.
    pub ca: Option<Vec<u8>>,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    Tcp { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        let exposed = |settings: &Self| settings.password.as_ref().map(|secret| secret.expose().to_owned());
        let rest = |it: &Self| (it.user.clone(), it.database, it.prefix.clone(), it.connections, it.timeout);
        self.server == other.server
            && self.ca == other.ca
            && rest(self) == rest(other)
            && exposed(self) == exposed(other)
    }
}

impl Eq for Settings {}

impl Settings {
    /// Reads both forms; paths are relative to `base`. Mistakes go to `problems`.
    pub fn compile(written: &Node, base: &Path, problems: &mut Vec<Problem>) -> Option<Self> {
        let short = written.as_str().map(str::parse::<Secret>);
        let written = match short {
            Some(Ok(url)) => RedisSettings::new(Located::new(url, written.place)),
            Some(Err(_)) => {
                problems.push(Problem::new(written.place, "the address is empty").with_hint(URL_HINT));
                return None;
            }
            None => decode::<RedisSettings>(written).map_err(|found| problems.extend(found)).ok()?,
        };
        let before = problems.len();
        let mut report =
            |place, message: String, hint: &str| problems.push(Problem::new(place, message).with_hint(hint));
        let mut settings = match server(written.url.value.expose()) {
            Ok(settings) => settings,
            Err((message, hint)) => {
                report(written.url.place, message, hint);
                return None;
            }
        };
        settings.login(&written, &mut report);
        settings.bounds(&written, &mut report);
        settings.ca(&written, base, &mut report);
        (problems.len() == before).then_some(settings)
    }

    fn login(&mut self, written: &RedisSettings, report: &mut impl FnMut(Place, String, &str)) {
        if let Some(password) = &written.password {
            if self.password.is_some() {
                let message = "there is a password in the URL already".to_owned();
                report(password.place, message, "leave one of them out");
            }
            self.password = Some(password.value.clone());
        }
        if let Some(user) = &written.user {
            if self.user.is_some() {
                report(user.place, "there is a user in the URL already".to_owned(), "leave one of them out");
            }
            self.user = Some(user.value.clone());
            if self.password.is_none() {
                report(user.place, "a user needs a password".to_owned(), "give `password`");
            }
        }
    }

    fn bounds(&mut self, written: &RedisSettings, report: &mut impl FnMut(Place, String, &str)) {
        if let Some(prefix) = &written.prefix {
            let fits = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
            if prefix.len() > PREFIX_BYTES_MAX || prefix.is_empty() || !prefix.chars().all(fits) {
                let message = format!("the prefix must be 1 to {PREFIX_BYTES_MAX} letters, digits and `_-.:/`");
                report(prefix.place, message, "such as `tollgate:` or `shop/gateway:`");
            }
            self.prefix.clone_from(&prefix.value);
        }
        if let Some(connections) = &written.connections {
            if !(1..=CONNECTIONS_MAX).contains(&connections.value) {
                let message = format!("`connections` must be 1 to {CONNECTIONS_MAX}");
                report(connections.place, message, "many requests share a connection; 2 are enough for most");
            }
            self.connections = usize::from(connections.value);
        }
        if let Some(timeout) = &written.timeout {
            if timeout.value.0 < Duration::from_millis(1) || timeout.value.0 > TIMEOUT_MAX {
                let hint = "requests wait for so long when the server hangs; 50ms is the default";
                report(timeout.place, "`timeout` must be 1ms to 5s".to_owned(), hint);
            }
            self.timeout = timeout.value.0;
        }
    }

    fn ca(&mut self, written: &RedisSettings, base: &Path, report: &mut impl FnMut(Place, String, &str)) {
        let Some(ca) = &written.ca else { return };
        if !matches!(self.server, Server::Tcp { tls: true, .. }) {
            report(ca.place, "`ca` is of no use without TLS".to_owned(), "write rediss:// in the URL");
        }
        let read = read(&base.join(&ca.value));
        match read.and_then(|pem| roots(&pem).map(|_| pem)) {
            Ok(pem) => self.ca = Some(pem),
            Err(why) => report(ca.place, format!("the certificates cannot be used: {why}"), "a file in PEM"),
        }
    }
}

impl RedisSettings {
    fn new(url: Located<Secret>) -> Self {
        Self { url, user: None, password: None, prefix: None, connections: None, timeout: None, ca: None }
    }
}

/// The authorities in a PEM file.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a certificate in it is none of an authority: {error}"))?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(roots) }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(CA_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= CA_BYTES_MAX);
    if fits { Ok(bytes) } else { Err("it is larger than 1 MiB".to_owned()) }
}

/// What the address says. A mistake is told without the address: it may hold a password.
fn server(text: &str) -> Result<Settings, (String, &'static str)> {
    const ENCODE: &str = "in a password write %40 for @, %2F for /, %23 for #; or give it as `password`";
    let url = Url::parse(text).map_err(|error| (format!("this is no address of a server: {error}"), URL_HINT))?;
    let tls = match url.scheme() {
        "redis" | "valkey" | "unix" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(("this is no address of a Redis server".to_owned(), URL_HINT)),
    };
    let unix = url.scheme() == "unix";
    if let Some(fragment) = url.fragment() {
        let message = match fragment {
            "insecure" => "the certificate of the server is always verified: `#insecure` is not taken".to_owned(),
            _ => "an address has no `#`".to_owned(),
        };
        return Err((message, if tls { "give `ca` for one of your own authority" } else { ENCODE }));
    }
    if url.query_pairs().any(|(name, _)| !unix || name != "db") {
        return Err(("an address has no `?`".to_owned(), ENCODE));
    }
    let mut plain = url.clone();
    // TLS is ours; the crate is built without it and would refuse the scheme.
    let _ = tls.then(|| plain.set_scheme("redis"));
    let info = plain.into_connection_info();
    let info = info.map_err(|error| (format!("this is no address of a Redis server: {error}"), URL_HINT))?;
    let login = info.redis_settings();
    if !(0..=i64::from(u16::MAX)).contains(&login.db()) {
        return Err(("a database has a number from 0 on".to_owned(), URL_HINT));
    }
    let server = match info.addr() {
        redis::ConnectionAddr::Unix(path) => Server::Unix(path.clone()),
        redis::ConnectionAddr::Tcp(host, _) => {
            Server::Tcp { host: host.clone(), port: url.port().unwrap_or(PORT), tls }
        }
        _ => return Err(("this is no address of a Redis server".to_owned(), URL_HINT)),
    };
    let user = login.username().map(str::to_owned);
    let password = login.password().and_then(|password| password.parse().ok());
    if user.is_some() && password.is_none() {
        return Err(("there is a user without a password".to_owned(), "write user:password@, or give both as keys"));
    }
    Ok(Settings {
        server,
        user,
        password,
        database: login.db(),
        prefix: PREFIX.to_owned(),
        connections: usize::from(CONNECTIONS),
        timeout: TIMEOUT,
        ca: None,
    })
}
