//! `security_headers`: response fields that tell browsers to be careful, and none that tell attackers what runs here.
//!
//! It stands well in `defaults.filters`, for APIs and for sites: refusals and errors of the gateway get the fields too. Its
//! neighbour `headers` sets any field at all; this one knows the fields, checks their values, and steps back where the
//! service itself said something.
//!
//! | setting | field | default | other values |
//! |---|---|---|---|
//! | `hsts` | `Strict-Transport-Security`, when the client came over HTTPS | `https` | `always` (TLS ends in front of the gateway), `off` |
//! | `hsts_max_age` | how long a browser remembers it, in whole seconds | `365d` | any duration up to `3650d`; `0s` makes it forget |
//! | `hsts_include_subdomains` | and for all subdomains | `true` | `false` |
//! | `hsts_preload` | consent to the lists that ship with browsers | `false` | `true`: needs subdomains and at least `365d` |
//! | `content_type_options` | `X-Content-Type-Options` | `nosniff` | `off` |
//! | `frame_options` | `X-Frame-Options` | `deny` | `sameorigin`, `off` |
//! | `referrer_policy` | `Referrer-Policy` | `strict-origin-when-cross-origin` | the other policies, `off` |
//! | `opener_policy` | `Cross-Origin-Opener-Policy` | `same-origin` | `same-origin-allow-popups`, `unsafe-none`, `off` |
//! | `resource_policy` | `Cross-Origin-Resource-Policy` | `same-origin` | `same-site`, `cross-origin`, `off` |
//! | `content_security_policy` | `Content-Security-Policy` | none | the policy |
//! | `permissions_policy` | `Permissions-Policy` | none | the policy |
//! | `remove` | fields that are taken away | `[Server, X-Powered-By]` | a list of names; `[]` for none |
//! | `override` | replace what the service set | `false` | `true` |
//!
//! Why so: a `Content-Security-Policy` that fits every site does not exist, and a wrong one breaks pages, so it is yours to
//! write. `no-referrer` would be stricter, but makes browsers send `Origin: null` with form posts, which breaks services that
//! check `Origin` against forged requests; `strict-origin-when-cross-origin` shows other sites the origin only, and that only
//! over HTTPS. `resource_policy` does not hinder CORS requests, only embedding (`<img>`, `<script>`) by other origins.
//!
//! Refused when the configuration is read: unknown values, a duration above `3650d` or with a fraction of a second, preload
//! without its conditions, texts that no field may hold.
//!
//! Source: [OWASP Secure Headers Project](https://owasp.org/www-project-secure-headers/),
//! [RFC 6797](https://www.rfc-editor.org/rfc/rfc6797) (§7.2: not over plain HTTP),
//! [Fetch](https://fetch.spec.whatwg.org/), [HTML](https://html.spec.whatwg.org/).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! defaults:
//!   filters: [security_headers]
//! routes:
//!   - name: page
//!     match: GET /
//!     respond: { content_type: text/html, body: "<p>hello</p>" }
//!   - name: widget
//!     match: GET /widget
//!     filters:
//!       - security_headers: { frame_options: sameorigin, hsts: always, override: true }
//!     respond: { content_type: text/html, body: "<p>widget</p>" }
//! tests:
//!   - request: GET /
//!     expect:
//!       status: 200
//!       headers:
//!         X-Content-Type-Options: nosniff
//!         X-Frame-Options: DENY
//!         Referrer-Policy: strict-origin-when-cross-origin
//!   - request: GET /nowhere
//!     expect: { status: 404, headers: { X-Frame-Options: DENY } }
//!   - request: GET /widget
//!     expect:
//!       headers:
//!         X-Frame-Options: SAMEORIGIN
//!         Strict-Transport-Security: max-age=31536000; includeSubDomains
//! ```

use std::time::Duration;

use http::header;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::{Context, Scheme};
use crate::contract::{Compiler, Filter, Hooks, Settings, Step};
use crate::head::{HeaderName, HeaderValue, RequestHead, ResponseHead};
use crate::types::Period;
use crate::yaml::{Located, Problem};

/// Longest `hsts_max_age`: ten years.
const MAX_AGE_MAX: Duration = Duration::from_secs(3650 * 86_400);
/// Shortest `hsts_max_age` that the preload lists take.
const PRELOAD_AGE_MIN: Duration = Duration::from_secs(365 * 86_400);

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// Response fields that protect browsers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SecurityHeadersSettings {
    /// When `Strict-Transport-Security` is sent. Default `https`.
    hsts: Hsts,
    /// How long a browser remembers it, at most 3650d. Default 365d.
    hsts_max_age: Option<Located<Period>>,
    /// Whether it holds for all subdomains. Default true.
    hsts_include_subdomains: Option<bool>,
    /// Consent to the lists that ship with browsers. Default false.
    hsts_preload: Option<Located<bool>>,
    /// `X-Content-Type-Options`. Default `nosniff`.
    content_type_options: ContentTypeOptions,
    /// `X-Frame-Options`. Default `deny`.
    frame_options: FrameOptions,
    /// `Referrer-Policy`. Default `strict-origin-when-cross-origin`.
    referrer_policy: ReferrerPolicy,
    /// `Cross-Origin-Opener-Policy`. Default `same-origin`.
    opener_policy: OpenerPolicy,
    /// `Cross-Origin-Resource-Policy`. Default `same-origin`.
    resource_policy: ResourcePolicy,
    /// `Content-Security-Policy`. Default: none.
    content_security_policy: Option<Located<String>>,
    /// `Permissions-Policy`. Default: none.
    permissions_policy: Option<Located<String>>,
    /// Fields that are taken away. Default `[Server, X-Powered-By]`.
    remove: Option<Vec<Located<String>>>,
    /// Replace what the service set. Default false.
    #[serde(rename = "override")]
    overrides: bool,
}

/// When `Strict-Transport-Security` is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Hsts {
    /// To clients that came over HTTPS.
    #[default]
    Https,
    /// To all clients: TLS ends in front of the gateway.
    Always,
    Off,
}

/// Declares the values a field may have: the first is the default, and `off` sends none.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $first:ident $first_text:literal, $($other:ident $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        enum $name {
            #[default]
            $first,
            $($other,)*
            Off,
        }

        impl $name {
            fn value(self) -> Option<HeaderValue> {
                match self {
                    Self::$first => Some(HeaderValue::from_static($first_text)),
                    $(Self::$other => Some(HeaderValue::from_static($text)),)*
                    Self::Off => None,
                }
            }
        }
    };
}

choices! {
    /// Whether browsers may guess types.
    ContentTypeOptions { Nosniff "nosniff", }
}
choices! {
    /// Who may show a page in a frame.
    FrameOptions { Deny "DENY", Sameorigin "SAMEORIGIN", }
}
choices! {
    /// What browsers tell about the page a request came from.
    ReferrerPolicy {
        StrictOriginWhenCrossOrigin "strict-origin-when-cross-origin",
        NoReferrer "no-referrer",
        NoReferrerWhenDowngrade "no-referrer-when-downgrade",
        Origin "origin",
        OriginWhenCrossOrigin "origin-when-cross-origin",
        SameOrigin "same-origin",
        StrictOrigin "strict-origin",
        UnsafeUrl "unsafe-url",
    }
}
choices! {
    /// Which windows may keep a handle on a page they opened.
    OpenerPolicy {
        SameOrigin "same-origin",
        SameOriginAllowPopups "same-origin-allow-popups",
        UnsafeNone "unsafe-none",
    }
}
choices! {
    /// Who may embed a response.
    ResourcePolicy { SameOrigin "same-origin", SameSite "same-site", CrossOrigin "cross-origin", }
}

impl Settings for SecurityHeadersSettings {
    const NAME: &'static str = "security_headers";
    const SUMMARY: &'static str =
        "sends the response fields that protect browsers, removes those that tell what runs here";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let hsts = self.strict_transport_security(compiler);
        let mut text = |text: &Option<Located<String>>| text.as_ref().and_then(|text| constant(text, compiler));
        let candidates = [
            (header::CONTENT_SECURITY_POLICY, text(&self.content_security_policy)),
            (PERMISSIONS_POLICY, text(&self.permissions_policy)),
            (header::X_CONTENT_TYPE_OPTIONS, self.content_type_options.value()),
            (header::X_FRAME_OPTIONS, self.frame_options.value()),
            (header::REFERRER_POLICY, self.referrer_policy.value()),
            (OPENER_POLICY, self.opener_policy.value()),
            (RESOURCE_POLICY, self.resource_policy.value()),
        ];
        let fields = candidates.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect();
        let remove = match &self.remove {
            Some(names) => names.iter().filter_map(|name| compiler.field_name(name, name.place)).collect(),
            None => vec![header::SERVER, HeaderName::from_static("x-powered-by")],
        };
        Some(Step::filter(SecurityHeaders {
            fields,
            hsts: hsts.filter(|_| self.hsts != Hsts::Off),
            hsts_always: self.hsts == Hsts::Always,
            remove,
            overrides: self.overrides,
        }))
    }
}

impl SecurityHeadersSettings {
    fn strict_transport_security(&self, compiler: &mut Compiler) -> Option<HeaderValue> {
        let age = self.hsts_max_age.map_or(PRELOAD_AGE_MIN, |age| age.value.0);
        let subdomains = self.hsts_include_subdomains.unwrap_or(true);
        let preload = self.hsts_preload.is_some_and(|preload| preload.value);
        if let Some(written) = self.hsts_max_age
            && (age > MAX_AGE_MAX || age.subsec_nanos() != 0)
        {
            let message = format!("`{}` is no age that a browser could remember", written.value);
            compiler.report(Problem::new(written.place, message).with_hint("whole seconds, at most 3650d"));
        }
        if let Some(written) = self.hsts_preload
            && preload
            && (age < PRELOAD_AGE_MIN || !subdomains)
        {
            let problem = Problem::new(written.place, "the preload lists would not take this");
            compiler.report(problem.with_hint("they ask for `hsts_max_age` of at least 365d and for subdomains"));
        }
        let subdomains = if subdomains { "; includeSubDomains" } else { "" };
        let preload = if preload { "; preload" } else { "" };
        HeaderValue::try_from(format!("max-age={}{subdomains}{preload}", age.as_secs())).ok()
    }
}

/// The text as a field value. It is no template: a policy holds what its author wrote and nothing from a client.
fn constant(text: &Located<String>, compiler: &mut Compiler) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(text.trim()).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let problem = Problem::new(text.place, "this is no field value: it is empty or holds a line break");
        compiler.report(problem.with_hint("a policy is one line; YAML's `>-` folds several into one"));
    }
    value
}

struct SecurityHeaders {
    fields: Vec<(HeaderName, HeaderValue)>,
    hsts: Option<HeaderValue>,
    hsts_always: bool,
    remove: Vec<HeaderName>,
    overrides: bool,
}

impl Filter for SecurityHeaders {
    fn hooks(&self) -> Hooks {
        Hooks::RESPONSE
    }

    fn on_response(&self, _: &dyn RequestHead, response: &mut dyn ResponseHead, context: &Context) {
        self.remove.iter().for_each(|name| response.remove(name));
        for (name, value) in &self.fields {
            self.set(response, name, value);
        }
        if let Some(value) = &self.hsts
            && (self.hsts_always || context.scheme == Scheme::Https)
        {
            self.set(response, &header::STRICT_TRANSPORT_SECURITY, value);
        }
    }
}

impl SecurityHeaders {
    fn set(&self, response: &mut dyn ResponseHead, name: &HeaderName, value: &HeaderValue) {
        if self.overrides || !response.has(name) {
            response.set(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::testing::{context, filter, get, refused, values};
    use crate::head::{Headers, ResponseBuf, StatusCode};

    fn answered(settings: &str, scheme: Scheme, fields: &[(&'static str, &'static str)]) -> ResponseBuf {
        let mut response = ResponseBuf::new(StatusCode::OK);
        for (name, value) in fields {
            response.append(&HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut context = context();
        context.scheme = scheme;
        filter::<SecurityHeadersSettings>(settings).on_response(&get("/"), &mut response, &context);
        response
    }

    #[test]
    fn defaults_protect_and_hide() {
        let sent = [("server", "nginx/1.2"), ("x-powered-by", "PHP"), ("x-other", "stays")];
        let response = answered("{}", Scheme::Http, &sent);
        let mut fields = Vec::new();
        response.all(&mut |name, value| fields.push(format!("{name}: {}", String::from_utf8_lossy(value))));
        fields.sort();
        assert_eq!(
            fields,
            [
                "cross-origin-opener-policy: same-origin",
                "cross-origin-resource-policy: same-origin",
                "referrer-policy: strict-origin-when-cross-origin",
                "x-content-type-options: nosniff",
                "x-frame-options: DENY",
                "x-other: stays",
            ]
        );
    }

    #[test]
    fn hsts_is_sent_over_https_only_unless_always() {
        let hsts = |settings, scheme| values(&answered(settings, scheme, &[]), "strict-transport-security");
        assert_eq!(hsts("{}", Scheme::Https), ["max-age=31536000; includeSubDomains"]);
        assert!(hsts("{}", Scheme::Http).is_empty());
        assert_eq!(hsts("{ hsts: always }", Scheme::Http).len(), 1);
        assert!(hsts("{ hsts: off }", Scheme::Https).is_empty());
        let plain = "{ hsts_max_age: 0s, hsts_include_subdomains: false }";
        assert_eq!(hsts(plain, Scheme::Https), ["max-age=0"]);
        let preload = "{ hsts_max_age: 730d, hsts_preload: true }";
        assert_eq!(hsts(preload, Scheme::Https), ["max-age=63072000; includeSubDomains; preload"]);
    }

    #[test]
    fn each_field_can_be_changed_or_switched_off() {
        let settings = "{ content_type_options: off, frame_options: sameorigin, referrer_policy: no-referrer, \
                        opener_policy: off, resource_policy: cross-origin, remove: [X-Debug], \
                        content_security_policy: \"default-src 'self'\", permissions_policy: camera=() }";
        let response = answered(settings, Scheme::Http, &[("server", "stays"), ("x-debug", "1")]);
        assert!(values(&response, "x-content-type-options").is_empty());
        assert!(values(&response, "cross-origin-opener-policy").is_empty() && values(&response, "x-debug").is_empty());
        assert_eq!(values(&response, "x-frame-options"), ["SAMEORIGIN"]);
        assert_eq!(values(&response, "referrer-policy"), ["no-referrer"]);
        assert_eq!(values(&response, "cross-origin-resource-policy"), ["cross-origin"]);
        assert_eq!(values(&response, "content-security-policy"), ["default-src 'self'"]);
        assert_eq!(values(&response, "permissions-policy"), ["camera=()"]);
        assert_eq!(values(&response, "server"), ["stays"]);
    }

    #[test]
    fn what_the_service_said_stays_unless_overridden() {
        let said = [("x-frame-options", "SAMEORIGIN"), ("x-frame-options", "DENY")];
        assert_eq!(values(&answered("{}", Scheme::Http, &said), "x-frame-options").len(), 2);
        assert_eq!(values(&answered("{ override: true }", Scheme::Http, &said), "x-frame-options"), ["DENY"]);
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        let refused = refused::<SecurityHeadersSettings>;
        filter::<SecurityHeadersSettings>("{ hsts_max_age: 3650d }");
        assert!(refused("{ hsts_max_age: 3651d }").contains("at most 3650d"));
        assert!(refused("{ hsts_max_age: 1500ms }").contains("whole seconds"));
        assert!(refused("{ hsts_preload: true, hsts_max_age: 364d }").contains("at least 365d"));
        assert!(refused("{ hsts_preload: true, hsts_include_subdomains: false }").contains("subdomains"));
        assert!(refused("{ frame_options: none }").contains("unknown name `none`"));
        assert!(refused("{ content_security_policy: \"a\\nb\" }").contains("line break"));
        assert!(refused("{ content_security_policy: '' }").contains("empty"));
        assert!(refused("{ remove: [Content-Length] }").contains("Content-Length"));
    }
}
