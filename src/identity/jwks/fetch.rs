//! One fetch of a key set: bounded in time and size, and every failure in words.

use std::time::Duration;

use reqwest::header::{ACCEPT, CACHE_CONTROL};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use sha2::{Digest as _, Sha256};

use super::SET_BYTES_MAX;
use crate::identity::keyset::KeySet;
use crate::sources::failure;

/// What a provider sent.
pub struct Fetched {
    pub keys: KeySet,
    /// SHA-256 of the body.
    pub digest: [u8; 32],
    /// `max-age` of `Cache-Control`.
    pub max_age: Option<Duration>,
}

/// A client for this address alone.
pub fn client(url: &Url, timeout: Duration) -> Result<Client, String> {
    let mut builder = Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout)
        // Whoever can redirect could send us anywhere; providers publish the address itself.
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
    if url.scheme() == "http" {
        // On loopback, and never in plain text to a proxy.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| words(&error))
}

/// # Errors
/// What went wrong, in one line.
pub async fn fetch(client: &Client, url: &Url) -> Result<Fetched, String> {
    let accept = "application/jwk-set+json, application/json";
    let mut answer = client.get(url.clone()).header(ACCEPT, accept).send().await.map_err(|error| words(&error))?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(format!("it answers {status}, and redirects are not followed"));
    }
    if status != reqwest::StatusCode::OK {
        return Err(format!("it answers {status}"));
    }
    let max_age = max_age(&answer);
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| words(&error))? {
        if body.len().saturating_add(chunk.len()) > SET_BYTES_MAX {
            return Err("it is larger than 1 MiB".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    let keys = KeySet::jwks(&body)?;
    Ok(Fetched { keys, digest: Sha256::digest(&body).into(), max_age })
}

fn max_age(answer: &Response) -> Option<Duration> {
    let values = answer.headers().get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(','));
    let seconds = directives.find_map(|directive| directive.trim().strip_prefix("max-age="))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

fn words(error: &reqwest::Error) -> String {
    failure(error, ["it took too long", "cannot connect", "the exchange failed"])
}
