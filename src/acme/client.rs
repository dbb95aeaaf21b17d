//! HTTP to the authority: bounded in time and size, and with an eye on when it wants to be asked again.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};

use super::Settings;
use crate::clock;

/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const BYTES_MAX: usize = 1024 * 1024;

/// What was seen of the authority while a certificate was ordered.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    /// It answered at all.
    any: bool,
    /// Of the last answer that was a refusal.
    retry_after: Option<Duration>,
}

impl Seen {
    pub fn any(&self) -> bool {
        self.lock().any
    }

    pub fn retry_after(&self) -> Option<Duration> {
        self.lock().retry_after
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client of one order.
pub struct Http {
    client: Client,
    seen: Seen,
}

impl Http {
    /// # Errors
    /// In words: there are no certificates to trust, or none that can be read.
    pub fn new(settings: &Settings, seen: Seen) -> Result<Self, String> {
        let builder = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            // What is signed names the address it is for; another one would refuse it.
            .redirect(Policy::none())
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
        let builder = match &settings.roots {
            None => builder,
            Some(pem) => {
                let roots = Certificate::from_pem_bundle(pem).map_err(|error| format!("`acme.ca`: {error}"))?;
                builder.tls_certs_only(roots)
            }
        };
        let client = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { client, seen })
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (client, seen) = (self.client.clone(), self.seen.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(other)?.to_bytes();
            let builder = client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
            let mut answer = builder.send().await.map_err(other)?;
            let status = answer.status();
            let refused = status.is_client_error() || status.is_server_error();
            let after = answer.headers().get(RETRY_AFTER).filter(|_| refused).and_then(pause);
            *seen.lock() = Answers { any: true, retry_after: after };
            let mut response = Response::new(());
            *response.status_mut() = status;
            *response.headers_mut() = std::mem::take(answer.headers_mut());
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(other)? {
                if body.len().saturating_add(chunk.len()) > BYTES_MAX {
                    return Err(Error::Other("an answer is larger than 1 MiB".into()));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(BytesResponse { parts: response.into_parts().0, body: Box::new(Bytes::from(body)) })
        })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn pause(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(SystemTime::from(date.timestamp()).duration_since(clock::wall()).unwrap_or_default())
}
