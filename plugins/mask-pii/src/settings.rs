//! `config` of the plugin.

use serde::Deserialize;

use crate::mask::{Pattern, Rules};

/// Every key may be left out.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    mask: Vec<Builtin>,
    patterns: Vec<WrittenPattern>,
    replacement: String,
    types: Vec<String>,
    header: String,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            mask: vec![Builtin::Cards, Builtin::Emails, Builtin::Ibans],
            patterns: Vec::new(),
            replacement: "[{kind}]".to_owned(),
            types: ["application/json", "+json", "text/"].map(str::to_owned).into(),
            header: "x-masked".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Builtin {
    Cards,
    Emails,
    Ibans,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPattern {
    name: String,
    like: String,
}

/// What the plugin does.
#[derive(Debug)]
pub struct Settings {
    pub rules: Rules,
    /// What is looked for: `card`, `email`, `iban`, then the patterns.
    pub kinds: Vec<String>,
    types: Vec<String>,
    pub header: String,
}

/// Most patterns. Each costs time at every word.
const PATTERNS_MAX: usize = 32;

impl Settings {
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let written = if text.trim_ascii().is_empty() {
            Written::default()
        } else {
            serde_json::from_slice(text).map_err(|error| error.to_string())?
        };
        if written.patterns.len() > PATTERNS_MAX {
            return Err(format!("`patterns`: at most {PATTERNS_MAX}"));
        }
        if written.mask.is_empty() && written.patterns.is_empty() {
            return Err("`mask` and `patterns` are both empty: there is nothing to do".to_owned());
        }
        if written.replacement.bytes().any(|byte| byte.is_ascii_control() || byte == b'"' || byte == b'\\') {
            return Err("`replacement`: no quotes, backslashes or control characters".to_owned());
        }
        let with = |kind: &str| written.replacement.replace("{kind}", kind).into_bytes();
        let builtin = |builtin, kind: &str| written.mask.contains(&builtin).then(|| with(kind));
        let mut rules = Rules {
            cards: builtin(Builtin::Cards, "card"),
            emails: builtin(Builtin::Emails, "email"),
            ibans: builtin(Builtin::Ibans, "iban"),
            patterns: Vec::new(),
        };
        let mut kinds: Vec<String> = ["card", "email", "iban"].map(str::to_owned).into();
        for WrittenPattern { name, like } in &written.patterns {
            let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if name.is_empty() || name.len() > 32 || !name.bytes().all(is_name) || kinds.contains(name) {
                return Err(format!("`name: {name}`: 1 to 32 of a-z, 0-9 and _, each name once"));
            }
            let pattern = Pattern::parse(like).map_err(|why| format!("`like: {like}`: {why}"))?;
            rules.patterns.push((pattern, with(name)));
            kinds.push(name.clone());
        }
        let types = written.types.iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(Self { rules, kinds, types, header: written.header.to_ascii_lowercase() })
    }

    /// Whether bodies of a type are looked at: `application/json` is that type, `text/` every one that begins so, `+json`
    /// every one that ends so.
    pub fn covers(&self, content_type: &str) -> bool {
        let own = media_type(content_type);
        self.types.iter().any(|name| match name.as_str() {
            suffix if suffix.starts_with('+') => own.ends_with(suffix),
            prefix if prefix.ends_with('/') => own.starts_with(prefix),
            name => own == name,
        })
    }

    /// What is looked for, for people: `card, email, iban`.
    pub fn summary(&self) -> String {
        let is_on = [self.rules.cards.is_some(), self.rules.emails.is_some(), self.rules.ibans.is_some()];
        let is_on = |number: usize| is_on.get(number).copied().unwrap_or(true);
        let kinds = self.kinds.iter().enumerate().filter(|(number, _)| is_on(*number));
        kinds.map(|(_, kind)| kind.as_str()).collect::<Vec<_>>().join(", ")
    }
}

pub fn is_json(content_type: &str) -> bool {
    let own = media_type(content_type);
    own == "application/json" || own.ends_with("+json")
}

fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
