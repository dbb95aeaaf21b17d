//! Users that another service knows: it is asked about passwords.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, redirect};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::users::{NAME_BYTES_MAX, Person};
use crate::caller::{CallerFields, Scopes};
use crate::types::Period;
use crate::yaml::{Located, Problem};

/// How long the service may take when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(5);
/// And at most.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A service that knows the users.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct VerifySettings {
    /// Asked with `POST {"username", "password"}`. 2xx with `{"name": "…", "roles": […], "scopes": […]}` lets in, each
    /// of them optional; 401, 403 and 404 do not.
    pub url: Located<String>,
    /// Asked with `POST {"username"}` when a token is refreshed, with the same answers. Without it no refresh tokens are
    /// given out.
    pub lookup: Option<Located<String>>,
    /// How long an answer may take. Default 5s, at most 30s.
    pub timeout: Option<Located<Period>>,
    /// Passwords may travel to another host without TLS: only inside a network that nobody listens to.
    #[serde(default)]
    pub allow_http: bool,
}

/// The compiled form of it.
#[derive(Debug)]
pub struct Verify {
    url: Url,
    lookup: Option<Url>,
    timeout: Duration,
}

/// Connections to such services, of all snapshots.
#[derive(Default)]
pub struct Clients(OnceLock<Result<Client, String>>);

impl Clients {
    fn get(&self) -> Result<&Client, String> {
        let made = self.0.get_or_init(|| {
            // The first one that is installed stays; any is as good as this one.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            // A password does not follow wherever it is told to go.
            let builder = Client::builder().redirect(redirect::Policy::none()).no_proxy().pool_max_idle_per_host(16);
            builder.build().map_err(|error| error.to_string())
        });
        made.as_ref().map_err(Clone::clone)
    }
}

impl Verify {
    pub fn compile(settings: &VerifySettings, problems: &mut Vec<Problem>) -> Option<Self> {
        let url = url(&settings.url, settings.allow_http, problems);
        let lookup = settings.lookup.as_ref().map(|lookup| self::url(lookup, settings.allow_http, problems));
        let timeout = settings.timeout.as_ref().map_or(TIMEOUT, |timeout| timeout.value.0);
        if let Some(written) = settings.timeout.as_ref().filter(|_| timeout.is_zero() || timeout > TIMEOUT_MAX) {
            problems.push(Problem::new(written.place, "`timeout` must be more than 0s and at most 30s"));
        }
        let lookup = match lookup {
            Some(None) => return None,
            Some(found) => found,
            None => None,
        };
        Some(Self { url: url?, lookup, timeout })
    }

    pub fn knows_without_password(&self) -> bool {
        self.lookup.is_some()
    }

    /// Whose password it is, as the service says.
    pub async fn login(&self, clients: &Clients, name: &str, password: &str) -> Result<Option<Person>, String> {
        self.ask(clients, &self.url, name, &json!({"username": name, "password": password})).await
    }

    /// Somebody as the service has them now.
    pub async fn find(&self, clients: &Clients, name: &str) -> Result<Option<Person>, String> {
        let Some(url) = &self.lookup else { return Ok(None) };
        self.ask(clients, url, name, &json!({"username": name})).await
    }

    async fn ask(&self, clients: &Clients, url: &Url, name: &str, body: &Value) -> Result<Option<Person>, String> {
        let request = clients.get()?.post(url.clone()).timeout(self.timeout).json(body);
        // The text of an error may hold the address, never the body.
        let mut answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        match answer.status() {
            status if status.is_success() => person(name, &read(&mut answer).await?).map(Some),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(None),
            status => Err(format!("it answered {}", status.as_u16())),
        }
    }
}

async fn read(answer: &mut Response) -> Result<Vec<u8>, String> {
    let mut whole = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        if whole.len().saturating_add(piece.len()) > ANSWER_BYTES_MAX {
            return Err(format!("its answer is larger than {ANSWER_BYTES_MAX} bytes"));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

/// What a service says of somebody.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    /// As the service writes the name: `Ann` and `ann` may be one.
    name: Option<String>,
    roles: Vec<String>,
    scopes: Vec<String>,
}

fn person(name: &str, body: &[u8]) -> Result<Person, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its answer is not `{\"roles\": […]}`".to_owned())?;
    let name = answer.name.as_deref().unwrap_or(name);
    let roles: Vec<Box<str>> = answer.roles.iter().map(|role| role.as_str().into()).collect();
    CallerFields::new(name, &roles, &Scopes::new(answer.scopes.iter().map(String::as_str)))
        .filter(|_| !name.is_empty() && name.len() <= NAME_BYTES_MAX)
        .ok_or("a name, role or scope of its answer cannot stand in a header field")?;
    Ok(Person { name: name.to_owned(), roles: answer.roles, scopes: answer.scopes })
}

fn url(written: &Located<String>, allow_http: bool, problems: &mut Vec<Problem>) -> Option<Url> {
    let parsed = Url::parse(&written.value).ok().filter(Url::has_host);
    let Some(url) = parsed.filter(|url| matches!(url.scheme(), "http" | "https")) else {
        problems.push(Problem::new(written.place, "this is no address such as https://users.example.com/verify"));
        return None;
    };
    if !url.username().is_empty() || url.password().is_some() {
        problems.push(Problem::new(written.place, "an address holds no credentials: they would stand in logs"));
        return None;
    }
    if url.scheme() == "http" && !allow_http && !is_loopback(&url) {
        let problem = Problem::new(written.place, "passwords would travel unencrypted");
        problems.push(problem.with_hint("use https://, or say `allow_http: true` where nobody listens"));
        return None;
    }
    Some(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}
