//! Providers as they are written into providers that verify.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::message::Naming;
use super::presets::Preset;
use super::provider::Provider;
use super::scheme::{Part, Scheme};
use super::settings::{ProviderSettings, tolerance};
use super::signature::Keys;
use super::{Slot, custom};
use crate::contract::Compiler;
use crate::head::HeaderValue;
use crate::types::Secret;
use crate::yaml::{Located, Named, Node, Place, Problem};

const SECRETS_MAX: usize = 8;
/// Shortest secret, in bytes: no provider makes one that is shorter.
const SECRET_BYTES_MIN: usize = 16;
const PROVIDERS_MAX: usize = 64;
/// Longest name of a provider, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Providers that are being compiled.
pub struct Providers {
    /// Of those that say nothing else.
    tolerance: Duration,
    /// The largest of those that sign a timestamp.
    pub tolerance_max: Duration,
    /// One that signs no timestamp.
    pub timeless: Option<Box<str>>,
    /// All secrets so far, and where they stand.
    secrets: Vec<(Box<[u8]>, Place)>,
}

impl Providers {
    pub fn new(tolerance: Duration) -> Self {
        Self { tolerance, tolerance_max: Duration::ZERO, timeless: None, secrets: Vec::new() }
    }

    pub fn compile_all(
        &mut self,
        list: &Located<Named<ProviderSettings>>,
        compiler: &mut Compiler,
    ) -> Option<HashMap<Box<str>, Slot>> {
        if !(1..=PROVIDERS_MAX).contains(&list.len()) {
            let message = format!("there are 1 to {PROVIDERS_MAX} providers, not {}", list.len());
            compiler.report(Problem::new(list.place, message));
            return None;
        }
        let mut is_sound = true;
        let mut compiled = HashMap::new();
        for (name, settings) in list.iter() {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
                let problem = Problem::new(name.place, "the name of a provider is a segment of a path");
                compiler.report(problem.with_hint("1 to 64 letters, digits and `-._~`, such as `github`"));
                is_sound = false;
                continue;
            }
            match self.compile(name, name.place, settings, compiler) {
                Some(slot) => drop(compiled.insert(name.as_str().into(), slot)),
                None => is_sound = false,
            }
        }
        is_sound.then_some(compiled)
    }

    /// One provider. `place` is where it stands. `None` when a problem was reported.
    pub fn compile(
        &mut self,
        name: &str,
        place: Place,
        settings: &ProviderSettings,
        compiler: &mut Compiler,
    ) -> Option<Slot> {
        let Some(preset) = settings.preset else {
            let problem = Problem::new(place, "`preset` is missing: nothing says whose webhooks these are");
            compiler.report(problem.with_hint("such as `preset: github`; `custom` is for senders of your own"));
            return None;
        };
        let has_strangers = report_strangers(preset.value, settings, compiler);
        let (scheme, naming) = scheme(preset, place, settings, compiler)?;
        let tolerance = match settings.tolerance {
            Some(written) => tolerance(written, compiler)?,
            None => self.tolerance,
        };
        if scheme.signed.has(&Part::Timestamp) {
            self.tolerance_max = self.tolerance_max.max(tolerance);
        } else {
            self.timeless = Some(name.into());
            if let Some(written) = settings.tolerance {
                let problem =
                    Problem::new(written.place, format!("`{name}` signs no timestamp that could be tolerated"));
                compiler.report(problem.with_hint("leave `tolerance` out; each message passes once only"));
                return None;
            }
        }
        if settings.enabled.is_some_and(|enabled| !enabled.value) {
            return Some(Slot::Disabled(name.into()));
        }
        let secrets = self.secrets(preset, place, settings.secrets.as_ref(), compiler)?;
        let field = scheme.field().as_str();
        let challenge = format!("Signature realm=\"tollgate\", header=\"{field}\"");
        let provider = Provider {
            name: Arc::from(name),
            keys: Keys::new(scheme.algorithm, secrets.iter().map(|secret| &**secret)),
            naming,
            tolerance: tolerance.as_secs(),
            asks_with_head: preset.value == Preset::Trello,
            asks_with_challenge: preset.value == Preset::Slack
                && settings.answer_challenge.is_none_or(|answers| answers.value),
            // The name of a field holds no quotes: it is always a field value.
            challenge: HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Signature")),
            scheme,
        };
        (!has_strangers).then(|| Slot::Enabled(Box::new(provider)))
    }

    /// `None` when a problem was reported.
    fn secrets(
        &mut self,
        preset: Located<Preset>,
        place: Place,
        written: Option<&Node>,
        compiler: &mut Compiler,
    ) -> Option<Vec<Box<[u8]>>> {
        let Some(written) = written else {
            let problem = Problem::new(place, "`secrets` is missing: there is nothing to verify signatures with");
            compiler.report(problem.with_hint("write `secrets: [\"${GITHUB_WEBHOOK_SECRET}\"]`"));
            return None;
        };
        let list: Located<Vec<Located<Secret>>> = compiler.settings(written)?;
        if !(1..=SECRETS_MAX).contains(&list.len()) {
            let message = format!("a webhook has 1 to {SECRETS_MAX} secrets, not {}", list.len());
            let problem = Problem::new(list.place, message);
            compiler.report(problem.with_hint("the one that is valid, and while it is replaced the new one beside it"));
            return None;
        }
        let mut keys = Vec::with_capacity(list.len());
        for secret in list.iter() {
            let key = key(preset.value, secret, compiler)?;
            if let Some((_, first)) = self.secrets.iter().find(|(other, _)| *other == key) {
                let problem = Problem::new(secret.place, "this secret stands here twice");
                let problem = problem.with_related("the first time", *first);
                compiler.report(problem.with_hint("each sender has its own: otherwise one could sign for another"));
                return None;
            }
            self.secrets.push((key.clone(), secret.place));
            keys.push(key);
        }
        Some(keys)
    }
}

/// How a provider signs, and what names its messages. `None` when a problem was reported.
pub fn scheme(
    preset: Located<Preset>,
    place: Place,
    settings: &ProviderSettings,
    compiler: &mut Compiler,
) -> Option<(Scheme, Naming)> {
    match preset.value.scheme(&callback_url(preset, settings, compiler)?) {
        Some(known) => Some(known),
        None => custom::scheme(settings, place, compiler),
    }
}

/// The bytes of a secret. `None` when a problem was reported.
pub fn key(preset: Preset, secret: &Located<Secret>, compiler: &mut Compiler) -> Option<Box<[u8]>> {
    let text = secret.value.expose();
    let key = match preset {
        Preset::StandardWebhooks => STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok(),
        _ => Some(text.as_bytes().to_vec()),
    };
    let Some(key) = key else {
        let problem = Problem::new(secret.place, "this is no secret of Standard Webhooks");
        compiler.report(
            problem
                .with_hint("`whsec_` and base64, as the sender shows it; keys that begin with `whpk_` cannot be used"),
        );
        return None;
    };
    if key.len() < SECRET_BYTES_MIN {
        let message = format!("the secret is too short: it needs at least {SECRET_BYTES_MIN} bytes");
        compiler.report(Problem::new(secret.place, message).with_hint("make one with `openssl rand -hex 32`"));
        return None;
    }
    if text.trim() != text {
        let problem = Problem::new(secret.place, "there are blanks around the secret");
        compiler.report(problem.with_hint("remove them where it is kept; a line break at its end is one too"));
        return None;
    }
    Some(key.into())
}

/// What Trello was told; empty for everybody else. `None` when a problem was reported.
fn callback_url(preset: Located<Preset>, settings: &ProviderSettings, compiler: &mut Compiler) -> Option<Box<str>> {
    const HINT: &str = "write `callback_url: https://hooks.example.com/trello`, exactly as it was registered";
    if preset.value != Preset::Trello {
        return Some(Box::default());
    }
    let Some(written) = &settings.callback_url else {
        let problem = Problem::new(preset.place, "Trello signs its callback URL too, and `callback_url` is missing");
        compiler.report(problem.with_hint(HINT));
        return None;
    };
    let is_url = written.starts_with("https://") || written.starts_with("http://");
    if !is_url || !written.bytes().all(|byte| byte.is_ascii_graphic()) {
        compiler.report(Problem::new(written.place, "this is no callback URL").with_hint(HINT));
        return None;
    }
    Some(written.as_str().into())
}

/// Reports settings of other presets; whether there are any.
pub fn report_strangers(preset: Preset, settings: &ProviderSettings, compiler: &mut Compiler) -> bool {
    let place_of = |text: &Option<Located<String>>| text.as_ref().map(|text| text.place);
    let settings = [
        ("callback_url", Preset::Trello, place_of(&settings.callback_url)),
        ("answer_challenge", Preset::Slack, settings.answer_challenge.map(|it| it.place)),
        ("header", Preset::Custom, place_of(&settings.header)),
        ("prefix", Preset::Custom, place_of(&settings.prefix)),
        ("encoding", Preset::Custom, settings.encoding.map(|it| it.place)),
        ("algorithm", Preset::Custom, settings.algorithm.map(|it| it.place)),
        ("signed", Preset::Custom, place_of(&settings.signed)),
        ("timestamp_header", Preset::Custom, place_of(&settings.timestamp_header)),
        ("id_header", Preset::Custom, place_of(&settings.id_header)),
    ];
    let mut has_any = false;
    for (name, owner, place) in settings {
        if let Some(place) = place.filter(|_| owner != preset) {
            let message = format!("`{name}` is a setting of `{}`, and this is `{}`", owner.as_str(), preset.as_str());
            compiler.report(Problem::new(place, message).with_hint("leave it out"));
            has_any = true;
        }
    }
    has_any
}
