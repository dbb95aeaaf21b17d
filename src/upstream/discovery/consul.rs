//! Targets from Consul: the instances of a service that are healthy, by blocking queries.
//!
//! A query waits in Consul until something changes, for about a minute at most; what it answers comes with an index, which
//! the next query names. An index that goes backwards is forgotten, and one that says nothing is never waited for by 0, which
//! would not wait at all.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

use super::Endpoint;
use super::endpoint::settled;
use super::follow::Looked;
use super::settings::{STALE, check_service};
use crate::config::ConsulDiscovery;
use crate::sources::failure;
use crate::types::Secret;
use crate::upstream::Address;
use crate::yaml::Problem;

/// How long Consul may hold a query.
const WAIT: Duration = Duration::from_secs(55);
/// What Consul adds to that by chance (a sixteenth), and the way there and back.
const MARGIN: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two queries, however fast the catalogue changes.
const PAUSE: Duration = Duration::from_millis(200);
/// Largest answer, in bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The settings, checked.
#[derive(Clone)]
pub struct Settings {
    url: Url,
    service: String,
    token: Option<Secret>,
    stale_max: Option<Duration>,
}

impl Settings {
    pub fn check(written: &ConsulDiscovery, problems: &mut Vec<Problem>) -> Option<Self> {
        let (before, service) = (problems.len(), &written.service);
        check_service(service, problems);
        let stale_max = written.stale_max.map(|it| it.within("stale_max", STALE, problems).0);
        let address = &written.address;
        let url = Url::parse(&address.value).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none());
        let Some(mut url) = url.filter(|url| url.username().is_empty() && url.password().is_none()) else {
            let problem = Problem::new(address.place, format!("`{}` is no address of a Consul", address.value));
            problems.push(problem.with_hint("write http://127.0.0.1:8500; credentials belong in `token`"));
            return None;
        };
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "health", "service", service.value.as_str()]);
        }
        let mut query = url.query_pairs_mut();
        if written.passing_only.unwrap_or(true) {
            query.append_pair("passing", "1");
        }
        if let Some(tag) = &written.tag {
            query.append_pair("tag", &tag.value);
        }
        if let Some(datacenter) = &written.datacenter {
            query.append_pair("dc", &datacenter.value);
        }
        query.append_pair("wait", &format!("{}s", WAIT.as_secs()));
        drop(query);
        let service = service.value.clone();
        (problems.len() == before).then_some(Self { url, service, token: written.token.clone(), stale_max })
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    pub fn stale_max(&self) -> Option<Duration> {
        self.stale_max
    }

    fn key(&self) -> (&Url, Option<&str>, Option<Duration>) {
        (&self.url, self.token.as_ref().map(Secret::expose), self.stale_max)
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Settings {}

impl Hash for Settings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// A service in Consul, asked for again and again.
pub struct Consul {
    settings: Settings,
    client: Option<Client>,
    /// What is waited behind; 0: nothing, the answer comes at once.
    index: u64,
}

impl Consul {
    pub fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone(), client: None, index: 0 }
    }

    pub async fn look(&mut self) -> Result<Looked, String> {
        let asked = self.ask().await;
        match asked {
            Ok((endpoints, index)) => {
                self.index = next_index(self.index, index);
                Ok(Looked { endpoints, lacking: None, pause: PAUSE })
            }
            Err(why) => {
                // Whoever answers next may count from another number.
                self.index = 0;
                self.client = None;
                Err(why)
            }
        }
    }

    async fn ask(&mut self) -> Result<(Vec<Endpoint>, Option<u64>), String> {
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(client()?),
        };
        let mut url = self.settings.url.clone();
        if self.index > 0 {
            url.query_pairs_mut().append_pair("index", &self.index.to_string());
        }
        let mut request = client.get(url);
        if let Some(token) = &self.settings.token {
            request = request.header("X-Consul-Token", token.expose());
        }
        let mut answer = request.send().await.map_err(|error| words(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => return Err("Consul refuses the token (403)".to_owned()),
            status => return Err(format!("Consul answers {status}")),
        }
        let index = answer.headers().get("x-consul-index").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = body(&mut answer).await?;
        Ok((instances(&body)?, index))
    }
}

/// The index of the next query.
fn next_index(before: u64, answered: Option<u64>) -> u64 {
    match answered {
        // 1 waits for the first change of what is not there yet; 0 would not wait.
        None | Some(0) => 1,
        // Consul began anew: what is there now is asked for without waiting.
        Some(index) if index < before => 0,
        Some(index) => index,
    }
}

fn client() -> Result<Client, String> {
    let builder = Client::builder()
        .timeout(WAIT + MARGIN)
        .connect_timeout(CONNECT_TIMEOUT)
        // The token is for this address alone.
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
    builder.build().map_err(|error| words(&error))
}

async fn body(answer: &mut Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| words(&error))? {
        if body.len().saturating_add(chunk.len()) > BYTES_MAX {
            return Err("the answer of Consul is larger than 16 MiB".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An entry of `/v1/health/service`: what is needed of it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    address: String,
    port: u16,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
    warning: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

/// Where the instances are. One whose address cannot be used is left out: it must not take the others with it.
fn instances(body: &[u8]) -> Result<Vec<Endpoint>, String> {
    let entries: Option<Vec<Entry>> = serde_json::from_slice(body)
        .map_err(|error| format!("what Consul answers is no list of instances: {error}"))?;
    let instance = |entry: &Entry| {
        let own = Some(&entry.service.address).filter(|address| !address.is_empty());
        let host = own.unwrap_or(&entry.node.address);
        let address = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", entry.service.port),
            _ => format!("{host}:{}", entry.service.port),
        };
        Address::parse(&address).ok()?;
        let warns = entry.checks.iter().any(|check| check.status == "warning");
        let weight = entry.service.weights.as_ref().map_or(1, |it| if warns { it.warning } else { it.passing });
        Some(Endpoint { weight: u16::try_from(weight).unwrap_or(u16::MAX), ..Endpoint::new(address) })
    };
    Ok(settled(entries.unwrap_or_default().iter().filter_map(instance).collect()))
}

fn words(error: &reqwest::Error) -> String {
    failure(error, ["Consul took too long", "cannot connect to Consul", "the exchange with Consul failed"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_backwards_is_forgotten_and_none_is_nothing() {
        assert_eq!(next_index(0, Some(7)), 7);
        assert_eq!(next_index(7, Some(7)), 7);
        assert_eq!(next_index(7, Some(6)), 0);
        assert_eq!(next_index(0, Some(0)), 1, "0 would not wait");
        assert_eq!(next_index(0, None), 1);
    }

    #[test]
    fn an_instance_is_at_its_own_address_or_at_that_of_its_node() {
        let body = br#"[
            {"Node": {"Address": "10.0.0.9"}, "Service": {"Address": "10.0.0.1", "Port": 80, "Weights": {"Passing": 5, "Warning": 1}}},
            {"Node": {"Address": "10.0.0.9"}, "Service": {"Address": "", "Port": 81, "Weights": {"Passing": 5, "Warning": 2}},
             "Checks": [{"Status": "passing"}, {"Status": "warning"}]},
            {"Node": {"Address": "fd00::1"}, "Service": {"Port": 82}},
            {"Node": {"Address": "not an address"}, "Service": {"Port": 83}},
            {"Node": {"Address": "10.0.0.9"}, "Service": {"Port": 0}}
        ]"#;
        let found = instances(body).unwrap();
        let shown: Vec<_> = found.iter().map(|it| (&*it.address, it.weight)).collect();
        assert_eq!(shown, [("10.0.0.1:80", 5), ("10.0.0.9:81", 2), ("[fd00::1]:82", 1)]);
        assert_eq!(instances(b"[]"), Ok(Vec::new()));
        assert_eq!(instances(b"null"), Ok(Vec::new()));
        assert!(instances(br#"{"error": 1}"#).is_err());
    }
}
