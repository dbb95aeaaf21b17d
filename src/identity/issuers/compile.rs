//! From issuers as they are written to issuers that verify. Every mistake is reported.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use reqwest::Url;

use super::claims::{Claim, Rules};
use super::{Audience, Issuer, IssuerSettings, Issuers, Keys};
use crate::identity::Written;
use crate::identity::cache::Tokens;
use crate::identity::jwks::SET_BYTES_MAX;
use crate::identity::keyset::KeySet;
use crate::identity::roles::Roles;
use crate::identity::shared::Shared;
use crate::identity::token_service::TokenServices;
use crate::types::Secret;
use crate::yaml::{Located, Place, Problem};

const LEEWAY_MAX: Duration = Duration::from_secs(5 * 60);
const ALGORITHMS: [&str; 12] =
    ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
const SOURCES_HINT: &str = "give it one of secret, public_key, jwks, jwks_file, token_service";

impl Issuers {
    pub fn compile(
        written: &Written<'_>,
        roles: &Arc<Roles>,
        services: &TokenServices,
        shared: &Arc<Shared>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let tokens = Arc::new(Tokens::default());
        let mut all = Vec::with_capacity(written.issuers.len());
        for (index, (name, settings)) in written.issuers.iter().enumerate() {
            let before = problems.len();
            let base = &written.base;
            let mut compiling = Compiling { name, settings, base, services, shared, problems: &mut *problems };
            let (Some((keys, algorithms, rules)), true) = (compiling.compile(), problems.len() == before) else {
                continue;
            };
            all.push(Arc::new(Issuer {
                name: Arc::from(name.value.as_str()),
                index,
                algorithms,
                keys,
                rules,
                roles: Arc::clone(roles),
                tokens: Arc::clone(&tokens),
                shared: Arc::clone(shared),
            }));
        }
        Self { all }
    }
}

struct Compiling<'a> {
    name: &'a Located<String>,
    settings: &'a IssuerSettings,
    base: &'a Path,
    services: &'a TokenServices,
    shared: &'a Arc<Shared>,
    problems: &'a mut Vec<Problem>,
}

impl Compiling<'_> {
    fn report(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(place, message).with_hint(hint));
    }

    fn compile(&mut self) -> Option<(Keys, Box<[Algorithm]>, Rules)> {
        let mut rules = self.rules();
        let Some(name) = &self.settings.token_service else {
            let algorithms = self.algorithms();
            let keys = self.keys(&algorithms)?;
            return Some((keys, algorithms.iter().map(|algorithm| algorithm.value).collect(), rules));
        };
        self.one_source()?;
        self.says_nothing_twice();
        let service = match self.services.find(Some(name), name.place) {
            Ok(service) => service,
            Err(problem) => {
                self.problems.extend(problem);
                return None;
            }
        };
        rules.issuer = Some(service.issuer().into());
        rules.audience = service.audience().map(|audience| [audience.into()].into());
        let algorithm = service.signer().algorithm();
        // Of the algorithms that a service may have there is none whose key could not be read.
        let keys = KeySet::of_service(algorithm, service.signer().verifying_key())?;
        Some((Keys::Fixed(Arc::new(keys)), [algorithm].into(), rules))
    }

    /// What its token service says already could only be wrong here.
    fn says_nothing_twice(&mut self) {
        let IssuerSettings { algorithms, issuer, audience, .. } = self.settings;
        let written = [
            ("algorithms", algorithms.first().map(|it| it.place)),
            ("issuer", issuer.as_ref().map(|it| it.place)),
            ("audience", audience.as_ref().map(|it| it.place)),
        ];
        for (key, place) in written {
            if let Some(place) = place {
                let message = format!("`{key}` is that of the token service");
                self.report(place, message, "leave it out here");
            }
        }
    }

    fn algorithms(&mut self) -> Vec<Located<Algorithm>> {
        let mut known = Vec::new();
        for written in &self.settings.algorithms {
            match Algorithm::from_str(&written.value) {
                Ok(algorithm) => known.push(Located::new(algorithm, written.place)),
                Err(_) if written.value.eq_ignore_ascii_case("none") => self.report(
                    written.place,
                    "`none` is no algorithm: it would let anybody in",
                    format!("there are {}", ALGORITHMS.join(", ")),
                ),
                Err(_) => self.problems.push(Problem::unknown(
                    written.place,
                    "algorithm",
                    &written.value,
                    ALGORITHMS.iter().copied(),
                )),
            }
        }
        if self.settings.algorithms.is_empty() {
            let message = format!("issuer `{}` accepts no algorithm", self.name.value);
            self.report(self.name.place, message, "name those that the issuer signs with, such as [RS256]");
        }
        known
    }

    /// Whether exactly one key says where keys come from.
    fn one_source(&mut self) -> Option<()> {
        let IssuerSettings { secret, public_key, jwks, jwks_file, token_service, .. } = self.settings;
        let written = [
            secret.as_ref().map(|it| ("secret", it.place)),
            public_key.as_ref().map(|it| ("public_key", it.place)),
            jwks.as_ref().map(|it| ("jwks", it.place)),
            jwks_file.as_ref().map(|it| ("jwks_file", it.place)),
            token_service.as_ref().map(|it| ("token_service", it.place)),
        ];
        match *written.into_iter().flatten().collect::<Vec<_>>() {
            [] => {
                let message = format!("issuer `{}` has no key", self.name.value);
                self.report(self.name.place, message, SOURCES_HINT);
                None
            }
            [_] => Some(()),
            [(first, other), (second, place), ..] => {
                let message = format!("issuer `{}` has both `{first}` and `{second}`", self.name.value);
                let problem = Problem::new(place, message).with_hint(SOURCES_HINT).with_related("the other one", other);
                self.problems.push(problem);
                None
            }
        }
    }

    fn keys(&mut self, algorithms: &[Located<Algorithm>]) -> Option<Keys> {
        self.one_source()?;
        let IssuerSettings { secret, public_key, jwks, jwks_file, .. } = self.settings;
        self.same_family(secret.is_some(), algorithms);
        if let Some(secret) = secret {
            return self.secret(secret, algorithms);
        }
        if let Some(key) = public_key {
            return self.public_key(key, algorithms);
        }
        if let Some(file) = jwks_file {
            return self.file(file, algorithms);
        }
        self.url(jwks.as_ref()?)
    }

    /// With both kinds in one list, a public key could be taken for a shared secret.
    fn same_family(&mut self, secret: bool, algorithms: &[Located<Algorithm>]) {
        for algorithm in algorithms {
            let symmetric = algorithm.value.family() == AlgorithmFamily::Hmac;
            let name = format!("{:?}", algorithm.value);
            if symmetric && !secret {
                let message = format!("{name} needs a shared secret, and this issuer has public keys");
                self.report(algorithm.place, message, "make it an issuer of its own with `secret`");
            } else if !symmetric && secret {
                let message = format!("{name} needs a public key, and this issuer has a shared secret");
                self.report(algorithm.place, message, "make it an issuer of its own, or write HS256");
            }
        }
    }

    fn secret(&mut self, secret: &Located<Secret>, algorithms: &[Located<Algorithm>]) -> Option<Keys> {
        let text = secret.value.expose();
        if text.contains("-----BEGIN ") {
            let message = "this is a key in PEM and no shared secret: whoever knows the public part could sign";
            self.report(secret.place, message, "a public key stands under `public_key`");
            return None;
        }
        for algorithm in algorithms {
            let (name, bytes) = match algorithm.value {
                Algorithm::HS384 => ("HS384", 48),
                Algorithm::HS512 => ("HS512", 64),
                Algorithm::HS256 => ("HS256", 32),
                _ => continue,
            };
            if text.len() < bytes {
                let message = format!("the secret is too short: {name} needs at least {bytes} bytes (RFC 7518 §3.2)");
                self.report(secret.place, message, format!("make one with `openssl rand -hex {bytes}`"));
                return None;
            }
        }
        Some(Keys::Fixed(Arc::new(KeySet::secret(text.as_bytes()))))
    }

    fn public_key(&mut self, key: &Located<String>, algorithms: &[Located<Algorithm>]) -> Option<Keys> {
        match KeySet::pem(&key.value) {
            Ok(keys) => self.fixed(keys, algorithms),
            Err(why) => {
                let hint = "a public key or certificate in PEM, best as ${file:key.pem}";
                self.report(key.place, format!("the public key cannot be used: {why}"), hint);
                None
            }
        }
    }

    fn file(&mut self, file: &Located<String>, algorithms: &[Located<Algorithm>]) -> Option<Keys> {
        const HINT: &str = "a JWK set is {\"keys\": [...]}; see RFC 7517";
        let read = read(&self.base.join(&file.value));
        let keys = match read.and_then(|text| KeySet::jwks(&text).map_err(str::to_owned)) {
            Ok(keys) => keys,
            Err(why) => {
                self.report(file.place, format!("the key set cannot be used: {why}"), HINT);
                return None;
            }
        };
        if keys.is_empty() {
            let skipped: Vec<String> = keys.skipped.iter().take(3).map(ToString::to_string).collect();
            self.report(file.place, format!("no key in it can verify tokens ({})", skipped.join("; ")), HINT);
            return None;
        }
        self.fixed(keys, algorithms)
    }

    /// Keys that stay: an algorithm that none of them verifies is a mistake.
    fn fixed(&mut self, keys: KeySet, algorithms: &[Located<Algorithm>]) -> Option<Keys> {
        let mut all_fit = true;
        for algorithm in algorithms.iter().filter(|it| it.value.family() != AlgorithmFamily::Hmac) {
            if !keys.fits(algorithm.value) {
                let message = format!("no key of issuer `{}` verifies {:?}", self.name.value, algorithm.value);
                let hint = "RS and PS take an RSA key, ES256 one of P-256, ES384 one of P-384, EdDSA one of Ed25519";
                self.report(algorithm.place, message, hint);
                all_fit = false;
            }
        }
        all_fit.then(|| Keys::Fixed(Arc::new(keys)))
    }

    fn url(&mut self, written: &Located<String>) -> Option<Keys> {
        const HINT: &str = "write https://…, or http://127.0.0.1:… for a provider on this machine";
        let Ok(url) = Url::parse(&written.value) else {
            self.report(written.place, "this is no URL", HINT);
            return None;
        };
        if !url.username().is_empty() || url.password().is_some() {
            self.report(written.place, "the URL of a key set holds no user and password", "key sets are public");
            return None;
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => {
                let message = "keys that come over plain HTTP could be anybody's; only loopback may do without TLS";
                self.report(written.place, message, HINT);
                return None;
            }
            _ => {
                self.report(written.place, "keys are fetched with https", HINT);
                return None;
            }
        }
        Some(Keys::Fetched(self.shared.key_set(&url)))
    }

    fn rules(&mut self) -> Rules {
        let settings = self.settings;
        if let Some(issuer) = settings.issuer.as_ref().filter(|issuer| issuer.value.is_empty()) {
            self.report(issuer.place, "`issuer` is empty", "leave it out if `iss` is not to be looked at");
        }
        if let Some(leeway) = settings.leeway.as_ref().filter(|leeway| leeway.value.0 > LEEWAY_MAX) {
            self.report(leeway.place, "`leeway` is at most 5m", "it keeps tokens alive after their end");
        }
        let audience = settings.audience.as_ref().map(|audience| {
            let names: Box<[Box<str>]> = match &audience.value {
                Audience::One(name) => Box::new([name.as_str().into()]),
                Audience::Any(names) => names.iter().map(|name| name.as_str().into()).collect(),
            };
            if names.is_empty() || names.iter().any(|name| name.is_empty()) {
                self.report(audience.place, "`audience` is empty", "leave it out for tokens that have no `aud`");
            }
            names
        });
        Rules {
            issuer: settings.issuer.as_ref().map(|issuer| issuer.value.as_str().into()),
            audience,
            leeway: settings.leeway.as_ref().map_or(Duration::ZERO, |leeway| leeway.value.0),
            name: self.claim(settings.name_claim.as_ref(), "sub"),
            roles: self.claim(settings.roles_claim.as_ref(), "roles"),
            scopes: self.claim(settings.scopes_claim.as_ref(), "scope"),
        }
    }

    fn claim(&mut self, written: Option<&Located<String>>, default: &str) -> Claim {
        if let Some(written) = written.filter(|written| written.value.split('.').any(str::is_empty)) {
            self.report(written.place, "a part of this path is empty", "write `roles`, or `realm_access.roles`");
        }
        Claim::new(written.map_or(default, |written| &written.value))
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    };
    // A named pipe would keep us waiting.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut text = Vec::new();
    let bound = (SET_BYTES_MAX as u64).saturating_add(1);
    File::open(path).map_err(cannot)?.take(bound).read_to_end(&mut text).map_err(cannot)?;
    if text.len() > SET_BYTES_MAX {
        return Err("it is larger than 1 MiB".to_owned());
    }
    Ok(text)
}
