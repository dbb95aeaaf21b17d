//! `discovery` of an upstream, checked.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{consul, dns, file};
use crate::config::{Discovery, DiscoverySource};
use crate::types::Period;
use crate::yaml::{Located, Problem};

/// What `stale_max` may be.
pub const STALE: RangeInclusive<Period> = Period(Duration::from_secs(1))..=Period(Duration::from_secs(30 * 24 * 3600));
/// Most characters of the name of a service.
const SERVICE_CHARS_MAX: usize = 128;

/// Where targets are found. Equal settings have one source.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Settings {
    Dns(dns::Settings),
    File(file::Settings),
    Consul(consul::Settings),
    Registry(Arc<str>),
}

impl Settings {
    pub fn check(
        upstream: &Located<String>,
        written: &Discovery,
        base: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let source = match written.read() {
            Ok(source) => source,
            Err(found) => {
                problems.extend(found);
                return None;
            }
        };
        let settings = match &source.value {
            DiscoverySource::Dns(written) => Self::Dns(dns::Settings::check(written, problems)),
            DiscoverySource::File(path) => Self::File(file::Settings::check(path, base, problems)),
            DiscoverySource::Consul(written) => Self::Consul(consul::Settings::check(written, problems)?),
            DiscoverySource::Registry(written) => {
                let name = written.service.as_ref().unwrap_or(upstream);
                check_service(name, problems);
                Self::Registry(Arc::from(name.value.as_str()))
            }
        };
        (problems.len() == before).then_some(settings)
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::File(_) => "file",
            Self::Consul(_) => "consul",
            Self::Registry(_) => "registry",
        }
    }

    /// What it is, for operators.
    pub fn shown(&self) -> &str {
        match self {
            Self::Dns(settings) => settings.name(),
            Self::File(settings) => settings.name(),
            Self::Consul(settings) => settings.service(),
            Self::Registry(service) => service,
        }
    }

    /// How long what was found last may be used.
    pub fn stale_max(&self) -> Option<Duration> {
        match self {
            Self::Dns(settings) => settings.stale_max(),
            Self::Consul(settings) => settings.stale_max(),
            // A file says what it says, and instances that register themselves say for how long.
            Self::File(_) | Self::Registry(_) => None,
        }
    }
}

/// Reports what is no name of a service.
pub fn check_service(name: &Located<String>, problems: &mut Vec<Problem>) {
    if !is_service(&name.value) {
        let problem = Problem::new(name.place, format!("`{}` is no name of a service", name.value));
        problems.push(problem.with_hint("write letters, digits, `-`, `_` and `.`"));
    }
}

/// Whether a service can have this name.
fn is_service(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= SERVICE_CHARS_MAX && name.bytes().all(sound)
}
