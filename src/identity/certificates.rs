//! Client certificates of consumers: found by fingerprint, alternative name or subject, whatever their number.
//!
//! Names are compared as a whole: no wildcards, no prefixes. A fingerprint names one certificate, so it decides alone; names
//! that speak for two consumers at once decide nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quick_cache::sync::Cache;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Map;

use super::Reason;
use super::consumers::ConsumerSettings;
use super::roles::{self, Roles};
use crate::caller::{Caller, CallerFields, ClientCertificate, Credential, Level, Scopes, SubjectName};
use crate::rates::OwnRates;
use crate::yaml::{Located, Place, Problem};

/// What a client certificate must be. Compared exactly.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSettings {
    /// Its subject, as `openssl x509 -noout -subject -nameopt RFC2253` prints it: `CN=svc-a,O=Acme`.
    Subject(Located<String>),
    /// One of its subject alternative names: a DNS name, a URI such as `spiffe://acme.example/svc-a`, or an address of mail.
    San(Located<String>),
    /// Its SHA-256 fingerprint: 64 hexadecimal digits, with or without colons.
    Sha256(Located<String>),
}

/// Callers that are kept ready, for certificates that were seen already.
const CALLERS_MAX: usize = 4096;

/// The certificates of all consumers.
#[derive(Default)]
pub struct Certificates {
    consumers: Vec<Consumer>,
    // Indexes of `consumers`.
    by_sha256: HashMap<Box<str>, usize>,
    by_name: HashMap<SubjectName, usize>,
    by_subject: HashMap<Box<str>, usize>,
    /// By fingerprint. `None`: no consumer has a certificate.
    callers: Option<Cache<Box<str>, Arc<Caller>>>,
}

struct Consumer {
    name: Arc<str>,
    disabled: bool,
    level: Level,
    roles: Box<[Box<str>]>,
    scopes: Scopes,
    fields: CallerFields,
    rates: Option<Arc<OwnRates>>,
}

impl Certificates {
    pub fn compile(written: &[&ConsumerSettings], roles: &Roles, problems: &mut Vec<Problem>) -> Self {
        let mut compiled = Self::default();
        let mut claimed = Claimed::default();
        for settings in written.iter().filter(|settings| !settings.certificates.is_empty()) {
            let index = compiled.consumers.len();
            let name = &settings.name.value;
            for certificate in &settings.certificates {
                match certificate {
                    CertificateSettings::Sha256(text) => {
                        if let Some(sha256) = fingerprint(text, problems) {
                            claimed.claim(&mut compiled.by_sha256, sha256, index, (name, text), problems);
                        }
                    }
                    CertificateSettings::San(text) => {
                        if check_name(text, problems) {
                            let san = SubjectName::written(&text.value);
                            claimed.claim(&mut compiled.by_name, san, index, (name, text), problems);
                        }
                    }
                    CertificateSettings::Subject(text) => {
                        if check_subject(text, problems) {
                            let subject = text.value.as_str().into();
                            claimed.claim(&mut compiled.by_subject, subject, index, (name, text), problems);
                        }
                    }
                }
            }
            match Consumer::compile(settings, roles) {
                Ok(consumer) => compiled.consumers.push(consumer),
                Err(problem) => {
                    problems.push(problem);
                    // Whatever points at an index must find its own consumer there; this configuration is refused anyway.
                    return Self::default();
                }
            }
        }
        compiled.callers = (!compiled.consumers.is_empty()).then(|| Cache::new(CALLERS_MAX));
        compiled
    }

    /// The caller a certificate belongs to.
    pub fn find(&self, certificate: &Arc<ClientCertificate>, now: SystemTime) -> Result<Arc<Caller>, Reason> {
        let expires = check_times(certificate, now)?;
        let consumer = self.consumer(certificate)?;
        let Some(callers) = &self.callers else { return Err(Reason::Unknown) };
        if let Some(caller) = callers.get(&certificate.sha256) {
            return Ok(caller);
        }
        let caller = Arc::new(consumer.caller(certificate, expires));
        callers.insert(certificate.sha256.clone(), Arc::clone(&caller));
        Ok(caller)
    }

    /// Whether a caller that was let in by this certificate would be let in again, as the same one.
    pub fn still_holds(&self, certificate: &ClientCertificate, caller: &Caller, now: SystemTime) -> Result<(), Reason> {
        check_times(certificate, now)?;
        if self.consumer(certificate)?.name == caller.name { Ok(()) } else { Err(Reason::Unknown) }
    }

    fn consumer(&self, certificate: &ClientCertificate) -> Result<&Consumer, Reason> {
        let index = match self.by_sha256.get(&certificate.sha256) {
            Some(index) => *index,
            None => self.named(certificate).ok_or(Reason::Unknown)?,
        };
        let consumer = self.consumers.get(index).ok_or(Reason::Unknown)?;
        if consumer.disabled { Err(Reason::Disabled) } else { Ok(consumer) }
    }

    /// The one consumer that all known names of the certificate speak for.
    fn named(&self, certificate: &ClientCertificate) -> Option<usize> {
        let names = certificate.names.iter().filter_map(|name| self.by_name.get(name));
        let mut all = names.chain(self.by_subject.get(&certificate.subject)).copied();
        let first = all.next()?;
        all.all(|index| index == first).then_some(first)
    }
}

impl Consumer {
    fn compile(settings: &ConsumerSettings, known: &Roles) -> Result<Self, Problem> {
        let roles: Box<[Box<str>]> = settings.roles.iter().map(|role| role.value.as_str().into()).collect();
        let scopes = known.scopes(&roles, settings.scopes.iter().map(|scope| scope.value.as_str()));
        let fields = roles::fields(&settings.name, &roles, &scopes)?;
        // What is wrong with them was reported where its keys were compiled.
        let rates = settings.rates.as_ref().and_then(|rates| rates.compile(&mut Vec::new())).map(Arc::new);
        Ok(Self {
            name: Arc::from(settings.name.value.as_str()),
            disabled: settings.disabled,
            level: known.level(&roles),
            roles,
            scopes,
            fields,
            rates,
        })
    }

    fn caller(&self, certificate: &Arc<ClientCertificate>, expires: Option<SystemTime>) -> Caller {
        Caller {
            name: Arc::clone(&self.name),
            credential: Credential::Certificate(Arc::clone(certificate)),
            level: self.level,
            roles: self.roles.clone(),
            scopes: self.scopes.clone(),
            claims: Map::new(),
            expires,
            fields: self.fields.clone(),
            rates: self.rates.clone(),
        }
    }
}

/// When the certificate ends, if it is valid now. The connection may be older than the request.
fn check_times(certificate: &ClientCertificate, now: SystemTime) -> Result<Option<SystemTime>, Reason> {
    // RFC 5280 §4.1.2.5: `notAfter` belongs to the period, and has no smaller unit than the second.
    let expires = certificate.not_after.checked_add(Duration::from_secs(1));
    if expires.is_some_and(|expires| expires <= now) {
        return Err(Reason::Expired);
    }
    if now < certificate.not_before {
        return Err(Reason::NotYet);
    }
    Ok(expires)
}

/// Where each claim stands first.
#[derive(Default)]
struct Claimed(HashMap<String, (String, Place)>);

impl Claimed {
    /// Notes that the consumer at `index` claims `key`; a second claim is reported.
    fn claim<K: Hash + Eq + std::fmt::Debug>(
        &mut self,
        map: &mut HashMap<K, usize>,
        key: K,
        index: usize,
        (consumer, text): (&str, &Located<String>),
        problems: &mut Vec<Problem>,
    ) {
        let shown = format!("{key:?}");
        if let Some((owner, place)) = self.0.get(&shown) {
            let message = format!("`{}` is a certificate of consumer `{owner}` already", text.value);
            problems.push(Problem::new(text.place, message).with_related("first", *place));
            return;
        }
        self.0.insert(shown, (consumer.to_owned(), text.place));
        map.insert(key, index);
    }
}

fn fingerprint(text: &Located<String>, problems: &mut Vec<Problem>) -> Option<Box<str>> {
    let digits: String = text.value.chars().filter(|letter| *letter != ':').collect();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(digits.to_ascii_lowercase().into());
    }
    let problem = Problem::new(text.place, "a SHA-256 fingerprint has 64 hexadecimal digits");
    problems.push(problem.with_hint("openssl x509 -noout -fingerprint -sha256 -in client.pem"));
    None
}

fn check_name(text: &Located<String>, problems: &mut Vec<Problem>) -> bool {
    let name = &text.value;
    let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    let problem = if !sound {
        Problem::new(text.place, "a subject alternative name is visible ASCII").with_hint("such as svc-a.acme.example")
    } else if name.contains('*') {
        Problem::new(text.place, format!("`{name}`: names of certificates are compared as a whole"))
            .with_hint("write each name; `*` would let in whoever gets a certificate for any of them")
    } else {
        return true;
    };
    problems.push(problem);
    false
}

fn check_subject(text: &Located<String>, problems: &mut Vec<Problem>) -> bool {
    let subject = &text.value;
    let loose = subject.contains(" = ") || subject.contains(", ") && !subject.contains("\\, ");
    if !subject.contains('=') || subject.starts_with('/') || loose || subject.contains('*') {
        let problem = Problem::new(text.place, format!("`{subject}` is not the form subjects are compared in"));
        problems.push(problem.with_hint(
            "write CN=svc-a,O=Acme, as printed by openssl x509 -noout -subject -nameopt RFC2253 -in client.pem",
        ));
        return false;
    }
    true
}

#[cfg(test)]
mod tests;
