//! The settings of `webhook`, and what they are compiled to.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::compile::Providers;
use super::custom::EncodingSetting;
use super::gate::{Gate, Terms};
use super::presets::Preset;
use super::signature::Algorithm;
use super::{Known, WebhookFilter};
use crate::contract::{Compiler, Settings, Step};
use crate::replay::OnStoreError;
use crate::types::{Period, Secret, Size};
use crate::yaml::{Located, Named, Node, Place, Problem};

const TOLERANCE_DEFAULT: Duration = Duration::from_secs(300);
const TOLERANCE_MAX: Duration = Duration::from_secs(3600);
const WINDOW_DEFAULT: Duration = Duration::from_secs(86_400);
const WINDOW_MAX: Duration = Duration::from_secs(30 * 86_400);
const BODY_BYTES_DEFAULT: u64 = 1024 * 1024;
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Lets webhooks through that their provider signed, each once.
// No `Debug`: it holds secrets as they are written.
#[derive(Clone, Deserialize, JsonSchema)]
pub struct WebhookSettings {
    /// Whose webhooks they are. Either this, or `by` and `providers`.
    preset: Option<Located<Preset>>,
    /// 1 to 8 secrets, of which each verifies; several while one is replaced by another.
    #[schemars(with = "Option<Vec<Secret>>")]
    secrets: Option<Node>,
    /// `false`: 404, as if it were not there. Default true.
    enabled: Option<Located<bool>>,
    /// How far a signed timestamp may lie from now, in both directions; whole seconds, at most 1h. Default 5m.
    tolerance: Option<Located<Period>>,
    /// Trello: the callback URL, exactly as it was registered.
    callback_url: Option<Located<String>>,
    /// Slack: whether its `url_verification` is answered here. Default true.
    answer_challenge: Option<Located<bool>>,
    /// `custom`: the field with the signature.
    header: Option<Located<String>>,
    /// `custom`: what stands before the signature, such as `sha256=`. Default: nothing.
    prefix: Option<Located<String>>,
    /// `custom`: how the signature is written. Default `hex`.
    encoding: Option<Located<EncodingSetting>>,
    /// `custom`: the hash of the HMAC. Default `sha256`.
    algorithm: Option<Located<Algorithm>>,
    /// `custom`: what is signed, of `{timestamp}`, `{id}`, `{body}` and text. Default `{timestamp}.{body}`.
    signed: Option<Located<String>>,
    /// `custom`: the field with the timestamp, in seconds since 1970. Default `X-Webhook-Timestamp`.
    timestamp_header: Option<Located<String>>,
    /// `custom`: the field with the id of the message; required where `{id}` is signed.
    id_header: Option<Located<String>>,
    /// The path parameter that names the provider.
    by: Option<Located<String>>,
    /// Providers by the value of that parameter.
    providers: Option<Located<Named<ProviderSettings>>>,
    /// Largest body that is verified. Default 1MiB, at most 64MiB; the `body_max` of the route counts too.
    body_max: Option<Located<Size>>,
    /// Whether a message passes once only. `off` is for senders that sign a timestamp. Default `on`.
    replay: Option<Located<ReplaySetting>>,
    /// How long a message is known that was delivered; at least twice the tolerance, at most 30d. Default 24h.
    replay_window: Option<Located<Period>>,
    /// What a message gets that was delivered before. Default `accept`.
    #[serde(default)]
    on_replay: OnReplay,
    /// What is done while the state store cannot be reached. Default `local`.
    #[serde(default)]
    on_store_error: OnStoreError,
}

/// One of several providers.
#[derive(Clone, Deserialize, JsonSchema)]
pub struct ProviderSettings {
    /// Whose webhooks they are.
    #[schemars(required)]
    pub preset: Option<Located<Preset>>,
    /// 1 to 8 secrets, of which each verifies; several while one is replaced by another. Not looked at when it is not enabled.
    #[schemars(with = "Option<Vec<Secret>>")]
    pub secrets: Option<Node>,
    /// `false`: 404, as if it were not there. Default true.
    pub enabled: Option<Located<bool>>,
    /// How far a signed timestamp may lie from now, in both directions. Default: the `tolerance` beside `providers`.
    pub tolerance: Option<Located<Period>>,
    /// Trello: the callback URL, exactly as it was registered.
    pub callback_url: Option<Located<String>>,
    /// Slack: whether its `url_verification` is answered here. Default true.
    pub answer_challenge: Option<Located<bool>>,
    /// `custom`: the field with the signature.
    pub header: Option<Located<String>>,
    /// `custom`: what stands before the signature, such as `sha256=`. Default: nothing.
    pub prefix: Option<Located<String>>,
    /// `custom`: how the signature is written. Default `hex`.
    pub encoding: Option<Located<EncodingSetting>>,
    /// `custom`: the hash of the HMAC. Default `sha256`.
    pub algorithm: Option<Located<Algorithm>>,
    /// `custom`: what is signed, of `{timestamp}`, `{id}`, `{body}` and text. Default `{timestamp}.{body}`.
    pub signed: Option<Located<String>>,
    /// `custom`: the field with the timestamp, in seconds since 1970. Default `X-Webhook-Timestamp`.
    pub timestamp_header: Option<Located<String>>,
    /// `custom`: the field with the id of the message; required where `{id}` is signed.
    pub id_header: Option<Located<String>>,
}

/// Whether messages pass once only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplaySetting {
    #[default]
    On,
    Off,
}

/// What a message gets that was delivered before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnReplay {
    /// 200, so that an honest provider is content. It is not delivered again.
    #[default]
    Accept,
    /// 409 `REPLAYED`.
    Refuse,
}

impl Settings for WebhookSettings {
    const NAME: &'static str = "webhook";
    const SUMMARY: &'static str = "lets webhooks through that their provider signed, each once";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        self.compile(compiler).map(|filter| Step::Body(Arc::new(filter)))
    }
}

impl WebhookSettings {
    pub(super) fn compile(self, compiler: &mut Compiler) -> Option<WebhookFilter> {
        let body_bytes_max = self.body_bytes_max(compiler);
        let tolerance = self.tolerance.map_or(Some(TOLERANCE_DEFAULT), |written| tolerance(written, compiler));
        let mut providers = Providers::new(tolerance.unwrap_or(TOLERANCE_DEFAULT));
        let known = self.known(&mut providers, compiler);
        let terms = self.terms(&providers, compiler);
        tolerance?;
        let gate = Gate::new(compiler, terms?);
        Some(WebhookFilter { known: known?, gate, body_bytes_max: body_bytes_max? })
    }

    fn known(&self, providers: &mut Providers, compiler: &mut Compiler) -> Option<Known> {
        let own = self.own();
        match (&self.by, &self.providers) {
            (Some(by), Some(list)) => {
                if let Some(place) = own.place_of_any() {
                    let problem = Problem::new(place, "this belongs to one provider, and there are several");
                    let problem = problem.with_hint("write it under the provider it belongs to");
                    compiler.report(problem.with_related("the providers", list.place));
                }
                compiler.path_parameter(by);
                let several = providers.compile_all(list, compiler)?;
                Some(Known::By { parameter: by.as_str().into(), providers: several })
            }
            (Some(by), None) => {
                let problem = Problem::new(by.place, "`by` names a path parameter, and there are no `providers`");
                compiler.report(problem.with_hint("write `providers: { github: { preset: github, … } }` beside it"));
                None
            }
            (None, Some(list)) => {
                let problem = Problem::new(list.place, "nothing says which of the providers a request is of");
                compiler.report(problem.with_hint("write `by: service` for the path parameter `{service}`"));
                None
            }
            (None, None) => {
                let name = self.preset.map_or("", |preset| preset.value.as_str());
                providers.compile(name, compiler.place(), &own, compiler).map(Known::One)
            }
        }
    }

    /// What it says of a provider itself.
    fn own(&self) -> ProviderSettings {
        ProviderSettings {
            preset: self.preset,
            secrets: self.secrets.clone(),
            enabled: self.enabled,
            tolerance: None,
            callback_url: self.callback_url.clone(),
            answer_challenge: self.answer_challenge,
            header: self.header.clone(),
            prefix: self.prefix.clone(),
            encoding: self.encoding,
            algorithm: self.algorithm,
            signed: self.signed.clone(),
            timestamp_header: self.timestamp_header.clone(),
            id_header: self.id_header.clone(),
        }
    }

    fn body_bytes_max(&self, compiler: &mut Compiler) -> Option<u64> {
        let Some(written) = self.body_max else { return Some(BODY_BYTES_DEFAULT) };
        if (1..=BODY_BYTES_MAX).contains(&written.value.0) {
            return Some(written.value.0);
        }
        let message = format!("`body_max` is 1B to {}", Size(BODY_BYTES_MAX));
        compiler
            .report(Problem::new(written.place, message).with_hint("a body is held in memory until it is verified"));
        None
    }

    /// `None` when a problem was reported. Inside, `None` switches the protection off.
    fn terms(&self, providers: &Providers, compiler: &mut Compiler) -> Option<Option<Terms>> {
        let window = self.replay_window.map_or(WINDOW_DEFAULT, |written| written.value.0);
        let place = self.replay_window.map_or(compiler.place(), |written| written.place);
        // A message that comes from the future is fresh for twice the tolerance.
        let least = providers.tolerance_max.saturating_mul(2).max(Duration::from_secs(1));
        if !(least..=WINDOW_MAX).contains(&window) {
            let message =
                format!("`replay_window` is {} to {} here, not {}", Period(least), Period(WINDOW_MAX), Period(window));
            let hint = "a message is fresh for twice the `tolerance`: forgotten before, it could be sent again";
            compiler.report(Problem::new(place, message).with_hint(hint));
            return None;
        }
        if let Some(Located { value: ReplaySetting::Off, place }) = self.replay {
            if let Some(timeless) = &providers.timeless {
                let message =
                    format!("`{timeless}` signs no timestamp: what was sent once could be sent again for ever");
                compiler.report(Problem::new(place, message).with_hint("leave `replay` on"));
                return None;
            }
            return Some(None);
        }
        // Timestamps are whole seconds: the last of them has to be over too.
        let window = window.max(least.saturating_add(Duration::from_secs(1)));
        Some(Some(Terms { window, on_replay: self.on_replay, on_store_error: self.on_store_error }))
    }
}

impl ProviderSettings {
    /// Where the first thing stands that is said, but for the tolerance.
    fn place_of_any(&self) -> Option<Place> {
        let texts =
            [&self.callback_url, &self.header, &self.prefix, &self.signed, &self.timestamp_header, &self.id_header];
        let texts = texts.into_iter().flatten().map(|text| text.place);
        let others = [
            self.preset.map(|it| it.place),
            self.secrets.as_ref().map(|it| it.place),
            self.enabled.map(|it| it.place),
            self.answer_challenge.map(|it| it.place),
            self.encoding.map(|it| it.place),
            self.algorithm.map(|it| it.place),
        ];
        others.into_iter().flatten().chain(texts).next()
    }
}

/// `None` when a problem was reported.
pub fn tolerance(written: Located<Period>, compiler: &mut Compiler) -> Option<Duration> {
    let Period(duration) = written.value;
    if duration >= Duration::from_secs(1) && duration <= TOLERANCE_MAX && duration.subsec_nanos() == 0 {
        return Some(duration);
    }
    let message = format!("a tolerance is whole seconds, 1s to {}, not {}", Period(TOLERANCE_MAX), written.value);
    compiler
        .report(Problem::new(written.place, message).with_hint("providers sign anew each time they send; 5m is usual"));
    None
}
