//! From `acme` and the names of listeners to the certificates that are wanted.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use reqwest::Url;

use crate::acme::{Acme, Managed, Method, Settings, Site};
use crate::config::load::Config;
use crate::config::{self, AcmeCertificate};
use crate::yaml::{Located, Problem};

const STORAGE: &str = "data/acme";
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
const RETRY_MIN: Duration = Duration::from_secs(300);
/// Most names of a certificate: what Let's Encrypt takes.
const DOMAINS_MAX: usize = 100;

/// Certificates in the making.
pub struct Compiler<'a> {
    acme: &'a Acme,
    config: &'a Config,
    settings: Option<Settings>,
    wanted: Vec<Arc<Managed>>,
}

impl<'a> Compiler<'a> {
    pub fn new(acme: &'a Acme, config: &'a Config, problems: &mut Vec<Problem>) -> Self {
        let settings = config.root.acme.as_ref().and_then(|written| settings(written, config, problems));
        Self { acme, config, settings, wanted: Vec::new() }
    }

    /// The certificates of a listener.
    pub fn certificates(&mut self, written: &[AcmeCertificate], problems: &mut Vec<Problem>) -> Vec<Arc<Managed>> {
        let mut found = Vec::with_capacity(written.len());
        for certificate in written {
            let Some(domains) = domains(&certificate.domains, problems) else { continue };
            let method = certificate.challenge.map(|challenge| challenge.value).unwrap_or_default();
            if let Some(challenge) =
                certificate.challenge.filter(|it| it.value == Method::Http01 && !self.speaks_http())
            {
                let problem = Problem::new(
                    challenge.place,
                    "`http-01` is asked for at a listener without `tls`, and there is none",
                );
                problems.push(problem.with_hint("add `{ bind: 0.0.0.0:80 }` to `listeners`, or use `tls-alpn-01`"));
            }
            if self.config.root.acme.is_none() {
                let problem =
                    Problem::new(certificate.domains.place, "nobody is named who could issue this certificate");
                problems.push(
                    problem.with_hint("write `acme: { directory: https://…, terms_agreed: true }` in gateway.yaml"),
                );
            }
            // With a mistake there the configuration is refused, whatever is here.
            let Some(settings) = &self.settings else { continue };
            let managed = self.acme.managed(&settings.directory, &domains, method);
            if !self.wanted.iter().any(|known| Arc::ptr_eq(known, &managed)) {
                self.wanted.push(Arc::clone(&managed));
            }
            found.push(managed);
        }
        found
    }

    fn speaks_http(&self) -> bool {
        self.config.root.listeners.iter().any(|listener| listener.tls.is_none())
    }

    /// What is wanted. `None`: no certificate comes by ACME.
    pub fn finish(self) -> Option<Arc<Site>> {
        let settings = self.settings.filter(|_| !self.wanted.is_empty())?;
        Some(Arc::new(Site { settings, certificates: self.wanted, challenges: Arc::clone(&self.acme.challenges) }))
    }
}

fn settings(written: &config::Acme, config: &Config, problems: &mut Vec<Problem>) -> Option<Settings> {
    let before = problems.len();
    check_directory(&written.directory, problems);
    if !written.terms_agreed.value {
        let problem =
            Problem::new(written.terms_agreed.place, "no authority issues certificates unless its terms are agreed to");
        problems.push(problem.with_hint("read them, and write `terms_agreed: true`"));
    }
    for contact in written.contact.iter().filter(|contact| !contact.value.starts_with("mailto:")) {
        let problem =
            Problem::new(contact.place, format!("`{}` is no address that an authority writes to", contact.value));
        problems.push(problem.with_hint("write `mailto:ops@example.com`"));
    }
    let retry_min = written.retry_min.as_ref();
    if let Some(wrong) = retry_min.filter(|it| !(1..=6 * 3600).contains(&it.value.0.as_secs())) {
        problems.push(Problem::new(wrong.place, "`retry_min` must be 1s to 6h"));
    }
    let renew_before = written.renew_before.as_ref();
    if let Some(wrong) = renew_before.filter(|it| it.value.0.is_zero()) {
        problems.push(Problem::new(wrong.place, "`renew_before` must be more than nothing"));
    }
    let roots = written.ca.as_ref().and_then(|name| match config.attached.get(&name.value) {
        Some(Ok(pem)) => Some(pem.clone()),
        missing => {
            let why = missing.and_then(|read| read.as_ref().err()).map_or("it was not read", String::as_str);
            let problem = Problem::new(name.place, format!("cannot read `{}`: {why}", name.value));
            problems.push(problem.with_hint("the path is relative to the folder of gateway.yaml"));
            None
        }
    });
    let eab = written.eab.as_ref().and_then(|eab| {
        let text = eab.hmac_key.value.expose();
        match URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)) {
            Ok(key) => Some((eab.key_id.clone(), key)),
            Err(_) => {
                let problem = Problem::new(eab.hmac_key.place, "the key is not in base64url");
                problems.push(problem.with_hint("write it as the authority gave it out, best as ${NAME}"));
                None
            }
        }
    });
    (problems.len() == before).then(|| Settings {
        directory: written.directory.value.clone(),
        contact: written.contact.iter().map(|contact| contact.value.clone()).collect(),
        storage: config.base.join(written.storage.as_deref().unwrap_or(STORAGE)),
        renew_before: renew_before.map_or(RENEW_BEFORE, |it| it.value.0),
        retry_min: retry_min.map_or(RETRY_MIN, |it| it.value.0),
        roots,
        eab,
    })
}

fn check_directory(directory: &Located<String>, problems: &mut Vec<Problem>) {
    const HINT: &str = "write https://acme-v02.api.letsencrypt.org/directory, or that of your authority";
    let message = match Url::parse(&directory.value) {
        Ok(url) if url.scheme() == "https" => return,
        Ok(_) => "an authority is asked over https",
        Err(_) => "this is no URL",
    };
    problems.push(Problem::new(directory.place, message).with_hint(HINT));
}

/// The names in lower case; `None` after a mistake.
fn domains(written: &Located<Vec<Located<String>>>, problems: &mut Vec<Problem>) -> Option<Vec<String>> {
    let before = problems.len();
    if !(1..=DOMAINS_MAX).contains(&written.value.len()) {
        problems.push(Problem::new(written.place, format!("a certificate is for 1 to {DOMAINS_MAX} names")));
    }
    let mut domains: Vec<String> = Vec::with_capacity(written.value.len());
    for name in &written.value {
        let lower = name.value.to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if lower.starts_with("*.") {
            let problem = Problem::new(
                name.place,
                format!("a certificate for `{}` needs proof in DNS, which the gateway cannot give", name.value),
            );
            problems
                .push(problem.with_hint("name each host, or get it elsewhere and name its files in `certificates`"));
        } else if lower.len() > 253
            || !lower.contains('.')
            || !lower.split('.').all(is_label)
            || lower.parse::<std::net::IpAddr>().is_ok()
        {
            let problem = Problem::new(
                name.place,
                format!("`{}` is no name that an authority issues certificates for", name.value),
            );
            problems
                .push(problem.with_hint(
                    "write a.example.com, without scheme, port and dot at its end; xn--… for other letters",
                ));
        } else if domains.contains(&lower) {
            problems.push(Problem::new(name.place, format!("`{}` stands here twice", name.value)));
        } else {
            domains.push(lower);
        }
    }
    (problems.len() == before).then_some(domains)
}
