//! One connection: dialled, secured, logged in.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::settings::{Server, Settings, roots};

/// Operations between callers and a connection. Behind them callers wait for a place, as long as for an answer.
const QUEUE_MAX: usize = 1024;

/// Makes connections to one server.
pub struct Dialer {
    server: Server,
    login: RedisConnectionInfo,
    tls: Option<TlsConnector>,
}

/// What works for a connection as long as it lasts.
pub type Driver = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Dialer {
    /// # Errors
    /// There is no authority to verify the server by.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let mut login = RedisConnectionInfo::default().set_db(settings.database).set_skip_set_lib_name();
        if let Some(user) = &settings.user {
            login = login.set_username(user);
        }
        if let Some(password) = &settings.password {
            login = login.set_password(password.expose());
        }
        let tls = match settings.server {
            Server::Tcp { tls: true, .. } => Some(connector(settings.ca.as_deref())?),
            _ => None,
        };
        Ok(Self { server: settings.server.clone(), login, tls })
    }

    /// Connects and logs in. The caller bounds how long that takes.
    ///
    /// # Errors
    /// What went wrong, in one line.
    pub async fn connect(&self) -> Result<(MultiplexedConnection, Driver), String> {
        match &self.server {
            Server::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| format!("cannot connect: {error}"))?;
                self.log_in(stream).await
            }
            Server::Tcp { host, port, .. } => {
                let dialled = TcpStream::connect((host.as_str(), *port)).await;
                let stream = dialled.map_err(|error| format!("cannot connect: {error}"))?;
                // Decisions are small and wait for nothing.
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                let Some(tls) = &self.tls else { return self.log_in(stream).await };
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                let stream = tls.connect(name, stream).await.map_err(|error| format!("TLS fails: {error}"))?;
                self.log_in(stream).await
            }
        }
    }

    async fn log_in<S>(&self, stream: S) -> Result<(MultiplexedConnection, Driver), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Callers bound their waiting by themselves: each kind of operation has its own bound.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE_MAX);
        let made = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (connection, driver) = made.map_err(|error| words(&error))?;
        Ok((connection, Box::pin(driver)))
    }
}

/// TLS 1.2 and 1.3, with the server's certificate verified.
fn connector(ca: Option<&[u8]>) -> Result<TlsConnector, String> {
    let roots = match ca {
        Some(pem) => roots(pem)?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Some of them may be odd; the others are as good.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("the system has no certificates of authorities; name a file in `ca`".to_owned());
    }
    Ok(roots)
}

/// An error as operators read it. It holds no key, no value and no password: the server quotes none of its own accord.
pub fn words(error: &RedisError) -> String {
    match error.code() {
        Some("MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN") => {
            "the server is a node of a cluster; name one that keeps all keys".to_owned()
        }
        Some(code) => format!("{code} {}", error.detail().unwrap_or_default()).trim_end().to_owned(),
        None => error.to_string(),
    }
}

/// Whether an answer says that the server cannot serve anybody now, or not on this connection.
pub fn is_of_the_server(error: &RedisError) -> bool {
    const CODES: [&str; 13] = [
        "LOADING",
        "READONLY",
        "OOM",
        "NOAUTH",
        "WRONGPASS",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "BUSY",
        "MOVED",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "UNBLOCKED",
    ];
    match error.code() {
        Some(code) => CODES.contains(&code),
        None => true,
    }
}

/// The pause before the `failures`th try to connect again: it doubles up to two seconds, and no two gateways keep time.
pub fn pause(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_secs(2);
    let pause = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LAST);
    pause.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}
