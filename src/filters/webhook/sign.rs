//! Signs as a provider does, by the very scheme that its messages are verified with: to try a webhook out.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use super::compile::{key, report_strangers, scheme};
use super::scheme::{Form, Part, Presented, Scheme, Timestamp};
use super::settings::ProviderSettings;
use super::signature::Keys;
use crate::contract::{Compiler, Known};
use crate::types::Secret;
use crate::yaml::{Located, Place};

/// How a provider signs: settings of the filter, as they are written there.
#[derive(Clone, Debug, Default)]
pub struct Signing<'a> {
    pub preset: &'a str,
    pub callback_url: Option<&'a str>,
    pub header: Option<&'a str>,
    pub prefix: Option<&'a str>,
    pub encoding: Option<&'a str>,
    pub algorithm: Option<&'a str>,
    pub signed: Option<&'a str>,
    pub timestamp_header: Option<&'a str>,
    pub id_header: Option<&'a str>,
}

/// Signs messages with one secret.
pub struct Signer {
    scheme: Scheme,
    keys: Keys,
}

impl Signer {
    /// # Errors
    /// Every mistake, in a line each. None holds the secret.
    pub fn new(signing: &Signing<'_>, secret: Secret) -> Result<Self, Vec<String>> {
        let settings = settings(signing).map_err(|mistake| vec![mistake])?;
        let mut compiler = Compiler::at(Place::UNKNOWN, String::new(), &Known::default());
        let made = make(&settings, secret, &mut compiler);
        let line = |(message, hint): (String, Option<String>)| match hint {
            Some(hint) => format!("{message}; {hint}"),
            None => message,
        };
        let problems = compiler.finish().problems.into_iter();
        let problems: Vec<String> = problems.map(|problem| line((problem.message, problem.hint))).collect();
        made.filter(|_| problems.is_empty()).ok_or(problems)
    }

    pub fn signs_time(&self) -> bool {
        self.scheme.signed.has(&Part::Timestamp)
    }

    pub fn signs_id(&self) -> bool {
        self.scheme.signed.has(&Part::Id)
    }

    /// The fields that a message has when it is signed at `time`, in seconds since 1970. An `id` counts where one is signed.
    ///
    /// # Errors
    /// The id, or the time, is none that a request can carry.
    pub fn sign(&self, body: &[u8], time: u64, id: &str) -> Result<Vec<(String, String)>, &'static str> {
        if self.signs_id() && !self.scheme.takes_id(id.as_bytes()) {
            return Err("an id has 1 to 256 visible ASCII characters, without those that part it from the rest");
        }
        let time = time.to_string();
        let timestamp = Timestamp::read(time.as_bytes()).ok_or("this time is too far away")?;
        let presented = Presented {
            signatures: Default::default(),
            timestamp: self.signs_time().then_some(timestamp),
            id: self.signs_id().then_some(id.as_bytes()),
        };
        let made = self.keys.sign(self.scheme.signed.pieces(&presented, body)).ok_or("there is no secret")?;
        let signature = self.scheme.encoding.write(&made);
        let (fields, signature) = match &self.scheme.form {
            Form::Stripe { field } => {
                return Ok(vec![(titled(field.as_str()), format!("t={time},v1={signature}"))]);
            }
            Form::Single { fields, prefix } => (fields, format!("{prefix}{signature}")),
            Form::Standard { fields: [fields, _] } => (fields, format!("v1,{signature}")),
        };
        let id = fields.id.as_ref().map(|name| (titled(name.as_str()), id.to_owned()));
        let time = fields.timestamp.as_ref().map(|name| (titled(name.as_str()), time));
        let signature = (titled(fields.signature.as_str()), signature);
        Ok(id.into_iter().chain(time).chain([signature]).collect())
    }
}

fn make(settings: &ProviderSettings, secret: Secret, compiler: &mut Compiler) -> Option<Signer> {
    let preset = settings.preset?;
    report_strangers(preset.value, settings, compiler);
    let (scheme, _) = scheme(preset, Place::UNKNOWN, settings, compiler)?;
    let key = key(preset.value, &Located::new(secret, Place::UNKNOWN), compiler)?;
    let keys = Keys::new(scheme.algorithm, std::iter::once(&*key));
    Some(Signer { scheme, keys })
}

fn settings(signing: &Signing<'_>) -> Result<ProviderSettings, String> {
    let text = |text: Option<&str>| text.map(|text| Located::new(text.to_owned(), Place::UNKNOWN));
    Ok(ProviderSettings {
        preset: word("preset", Some(signing.preset))?,
        secrets: None,
        enabled: None,
        tolerance: None,
        callback_url: text(signing.callback_url),
        answer_challenge: None,
        header: text(signing.header),
        prefix: text(signing.prefix),
        encoding: word("encoding", signing.encoding)?,
        algorithm: word("algorithm", signing.algorithm)?,
        signed: text(signing.signed),
        timestamp_header: text(signing.timestamp_header),
        id_header: text(signing.id_header),
    })
}

/// One of the words of a setting.
fn word<T: for<'d> Deserialize<'d>>(name: &str, text: Option<&str>) -> Result<Option<Located<T>>, String> {
    let Some(text) = text else { return Ok(None) };
    let read: StrDeserializer<'_, Error> = text.into_deserializer();
    let value = T::deserialize(read).map_err(|error| format!("`{name}`: {error}"))?;
    Ok(Some(Located::new(value, Place::UNKNOWN)))
}

/// `x-hub-signature` as people write it.
fn titled(name: &str) -> String {
    let mut is_first = true;
    let letters = name.chars().map(|letter| {
        let written = if is_first { letter.to_ascii_uppercase() } else { letter };
        is_first = letter == '-';
        written
    });
    letters.collect()
}
