//! Cookies that lead a client back to its target.
//!
//! A value is the HMAC-SHA-256 of the upstream's name and the target's address: whoever sees it learns neither, and who makes
//! one up is led to a target it could have had anyway. With the same secret every gateway gives the same values.

use std::sync::OnceLock;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::COOKIE;
use sha2::Sha256;

use crate::config::{self, SameSite};
use crate::context::hex;
use crate::head::{HeaderValue, RequestHead};
use crate::yaml::Problem;

/// Shortest secret, in characters.
const SECRET_CHARS_MIN: usize = 16;
/// Longest name of a cookie, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The settings, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    cookie: Box<str>,
    /// `None`: one that this process makes up.
    secret: Option<Box<str>>,
    max_age: Option<Duration>,
    same_site: SameSite,
    secure: Option<bool>,
}

/// The cookies of the targets of one upstream.
pub struct Sticky {
    name: Box<str>,
    /// Values and their targets, in order.
    targets: Box<[(Token, u16)]>,
    /// `Set-Cookie` for each target: over HTTP, over HTTPS.
    fields: Box<[(HeaderValue, HeaderValue)]>,
}

type Token = [u8; 32];

impl Settings {
    pub fn check(written: &config::Sticky, problems: &mut Vec<Problem>) -> Self {
        let name = &written.cookie;
        if !is_cookie_name(&name.value) {
            let message = format!("`{}` is no name of a cookie", name.value);
            problems.push(Problem::new(name.place, message).with_hint("write letters, digits, `-` and `_`"));
        }
        if let Some(secret) = &written.secret
            && secret.value.expose().chars().count() < SECRET_CHARS_MIN
        {
            let message = format!("the secret of a sticky cookie has {SECRET_CHARS_MIN} characters or more");
            problems.push(Problem::new(secret.place, message).with_hint("make one with: openssl rand -base64 32"));
        }
        Self {
            cookie: name.value.as_str().into(),
            secret: written.secret.as_ref().map(|secret| secret.value.expose().into()),
            max_age: written.max_age.map(|period| period.0),
            same_site: written.same_site,
            secure: written.secure,
        }
    }
}

impl Sticky {
    /// The cookies of the targets with these labels, in order. `Err`: the system gives no random numbers.
    pub fn new<'a>(
        settings: &Settings,
        upstream: &str,
        labels: impl Iterator<Item = &'a str>,
    ) -> Result<Self, &'static str> {
        let key = match &settings.secret {
            Some(secret) => secret.as_bytes(),
            None => own_key().ok_or("the system gives no random numbers for sticky cookies")?,
        };
        let tokens: Vec<Token> =
            labels.map(|label| token(key, upstream, label)).collect::<Option<_>>().ok_or("no key")?;
        let fields = tokens.iter().map(|token| (settings.field(token, false), settings.field(token, true))).collect();
        let mut targets: Vec<(Token, u16)> = tokens.into_iter().zip(0..).collect();
        targets.sort_unstable();
        Ok(Self { name: settings.cookie.clone(), targets: targets.into(), fields })
    }

    /// The target that the cookie of a request names.
    pub fn target(&self, head: &dyn RequestHead) -> Option<u16> {
        let mut found = None;
        cookies(head, &self.name, &mut |value| {
            let place = self.targets.binary_search_by(|(token, _)| token.as_slice().cmp(value));
            let target = place.ok().and_then(|place| self.targets.get(place));
            found = found.or(target.map(|(_, index)| *index));
        });
        found
    }

    /// The `Set-Cookie` that names a target.
    pub fn field(&self, index: u16, https: bool) -> Option<HeaderValue> {
        let (plain, secure) = self.fields.get(usize::from(index))?;
        Some(if https { secure } else { plain }.clone())
    }
}

impl Settings {
    fn field(&self, token: &Token, https: bool) -> HeaderValue {
        let token = String::from_utf8_lossy(token);
        let mut text = format!("{}={token}; Path=/; HttpOnly; SameSite=", self.cookie);
        text.push_str(match self.same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        });
        if let Some(max_age) = self.max_age {
            text.push_str(&format!("; Max-Age={}", max_age.as_secs()));
        }
        // Browsers take no cookie for all sites that is not for HTTPS only.
        if self.secure.unwrap_or(https) || self.same_site == SameSite::None {
            text.push_str("; Secure");
        }
        // A checked name and hexadecimal digits: the alternative is never taken.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Calls `visit` with the value of each cookie of this name.
pub fn cookies(head: &dyn RequestHead, name: &str, visit: &mut dyn FnMut(&[u8])) {
    // HTTP/2 may spread cookies over several fields (RFC 9113 §8.2.3).
    head.each(&COOKIE, &mut |field| {
        for pair in field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let value = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            if let Some(value) = value {
                visit(value);
            }
        }
    });
}

/// Whether it may be the name of a cookie: a token (RFC 6265 §4.1.1).
pub fn is_cookie_name(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(sound)
}

/// 128 bits of the HMAC, as hexadecimal digits.
fn token(key: &[u8], upstream: &str, label: &str) -> Option<Token> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    // No name holds a zero byte: two names cannot run into each other.
    for part in [upstream, "\0", label] {
        mac.update(part.as_bytes());
    }
    let bytes = mac.finalize().into_bytes();
    let bits: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
    Some(hex(u128::from_be_bytes(bits)))
}

/// The key of this process. It survives reloads, not a restart.
fn own_key() -> Option<&'static [u8]> {
    static KEY: OnceLock<Option<[u8; 32]>> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = [0; 32];
        getrandom::fill(&mut key).ok().map(|()| key)
    });
    key.as_ref().map(<[u8; 32]>::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Headers as _, Method, RequestBuf};

    fn settings(secret: Option<&str>) -> Settings {
        Settings {
            cookie: "lb".into(),
            secret: secret.map(Into::into),
            max_age: None,
            same_site: SameSite::Lax,
            secure: None,
        }
    }

    fn sticky(settings: &Settings) -> Sticky {
        Sticky::new(settings, "main", ["10.0.0.1:80", "10.0.0.2:80"].into_iter()).ok().unwrap()
    }

    fn value(field: &HeaderValue) -> String {
        let text = field.to_str().unwrap();
        text.strip_prefix("lb=").unwrap().split(';').next().unwrap().to_owned()
    }

    fn asking(cookies: &[&str]) -> RequestBuf {
        let mut head = RequestBuf::new(Method::GET, "/");
        for cookie in cookies {
            head.append(&COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        head
    }

    #[test]
    fn a_value_leads_back_to_its_target() {
        let sticky = sticky(&settings(None));
        for index in [0, 1] {
            let value = value(&sticky.field(index, false).unwrap());
            assert_eq!(sticky.target(&asking(&[&format!("a=1; lb={value}; b=2")])), Some(index));
            assert_eq!(sticky.target(&asking(&["lb=old", &format!("lb={value}")])), Some(index));
            for other in ["xlb", "lb2", "LB", ""] {
                assert_eq!(sticky.target(&asking(&[&format!("{other}={value}")])), None, "{other}");
            }
            assert_eq!(sticky.target(&asking(&[&format!("lb={value}0")])), None);
        }
        assert_eq!(sticky.target(&asking(&[])), None);
    }

    #[test]
    fn values_depend_on_the_secret_the_upstream_and_the_target_alone() {
        let secret = "sixteen characters";
        let one = sticky(&settings(Some(secret)));
        assert!(one.targets == sticky(&settings(Some(secret))).targets);
        assert!(one.targets != sticky(&settings(Some("sixteen charactert"))).targets);
        assert!(sticky(&settings(None)).targets == sticky(&settings(None)).targets, "one key for each process");
        let other = Sticky::new(&settings(Some(secret)), "other", ["10.0.0.2:80"].into_iter()).ok().unwrap();
        assert!(one.targets.iter().all(|(token, _)| *token != other.targets[0].0));
        assert!(!one.field(0, false).unwrap().to_str().unwrap().contains("10.0"));
    }

    #[test]
    fn attributes_are_as_the_settings_say() {
        let field = |settings: &Settings, https| {
            let field = sticky(settings).field(0, https).unwrap();
            field.to_str().unwrap().split_once("; ").unwrap().1.to_owned()
        };
        let lax = settings(None);
        assert_eq!(field(&lax, false), "Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(field(&lax, true), "Path=/; HttpOnly; SameSite=Lax; Secure");
        let none = Settings { same_site: SameSite::None, secure: Some(false), ..lax.clone() };
        assert_eq!(field(&none, false), "Path=/; HttpOnly; SameSite=None; Secure");
        let long = Settings { max_age: Some(Duration::from_secs(3600)), secure: Some(true), ..lax };
        assert_eq!(field(&long, false), "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600; Secure");
    }
}
