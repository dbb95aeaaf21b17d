//! What a provider signs, and how a request carries it.

use smallvec::SmallVec;

use super::refusal::Refusal;
use super::signature::{Algorithm, Encoding, Signature};
use crate::head::{HeaderName, RequestHead};

/// Most signatures in one field: providers send one for each secret that is valid.
pub const SIGNATURES_MAX: usize = 16;
/// Longest field that holds signatures, in bytes.
pub const FIELD_BYTES_MAX: usize = 4096;
/// Longest id of a message, in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// Most digits of a timestamp in seconds: enough for 30,000 years, and no number overflows.
const TIMESTAMP_DIGITS_MAX: usize = 12;

/// How messages are signed.
#[derive(Debug)]
pub struct Scheme {
    pub form: Form,
    pub algorithm: Algorithm,
    pub encoding: Encoding,
    /// What is signed, in order.
    pub signed: Signed,
}

/// How a request carries signatures.
#[derive(Debug)]
pub enum Form {
    /// One signature behind a prefix.
    Single { fields: Fields, prefix: Box<str> },
    /// `t=…,v1=…,v1=…` in one field.
    Stripe { field: HeaderName },
    /// `v1,… v1,…`; the names of the first group that has a signature.
    Standard { fields: [Fields; 2] },
}

/// Where a request carries what is needed to verify it.
#[derive(Debug)]
pub struct Fields {
    pub signature: HeaderName,
    pub timestamp: Option<HeaderName>,
    pub id: Option<HeaderName>,
}

/// What is signed: parts that stand one after the other. There is one way only to take it apart.
#[derive(Debug)]
pub struct Signed {
    parts: Box<[Part]>,
    /// Bytes that no id may hold: those that part it from its neighbours.
    apart: SmallVec<[u8; 2]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(Box<str>),
    Timestamp,
    Id,
    Body,
}

/// What a request says of itself. Nothing of it is verified.
#[derive(Debug)]
pub struct Presented<'r> {
    pub signatures: SmallVec<[Signature; 2]>,
    pub timestamp: Option<Timestamp<'r>>,
    pub id: Option<&'r [u8]>,
}

/// Seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp<'r> {
    /// As it is signed.
    text: &'r [u8],
    pub seconds: u64,
}

impl Scheme {
    /// Reads what a request says of itself.
    ///
    /// # Errors
    /// Something is missing, stands there twice, or is not in the one form it has.
    pub fn read<'r>(&self, request: &'r dyn RequestHead) -> Result<Presented<'r>, Refusal> {
        match &self.form {
            Form::Single { fields, prefix } => self.read_single(request, fields, prefix),
            Form::Stripe { field } => self.read_stripe(request, field),
            Form::Standard { fields: [first, second] } => {
                let fields = if request.has(&first.signature) { first } else { second };
                // Who has neither is told the name that the specification has.
                let fields = if request.has(&fields.signature) { fields } else { first };
                self.read_standard(request, fields)
            }
        }
    }

    /// The field of the signature, as clients are told it.
    pub fn field(&self) -> &HeaderName {
        match &self.form {
            Form::Single { fields, .. } | Form::Standard { fields: [fields, _] } => &fields.signature,
            Form::Stripe { field } => field,
        }
    }

    fn read_single<'r>(
        &self,
        request: &'r dyn RequestHead,
        fields: &Fields,
        prefix: &str,
    ) -> Result<Presented<'r>, Refusal> {
        let field = &fields.signature;
        let text = lone(request, field)?;
        let text = text.strip_prefix(prefix.as_bytes()).ok_or_else(|| malformed(field))?;
        let mut signatures = SmallVec::new();
        self.push(&mut signatures, text, field)?;
        Ok(Presented {
            signatures,
            timestamp: fields.timestamp.as_ref().map(|name| timestamp(request, name)).transpose()?,
            id: fields.id.as_ref().map(|name| self.id(request, name)).transpose()?,
        })
    }

    fn read_stripe<'r>(&self, request: &'r dyn RequestHead, field: &HeaderName) -> Result<Presented<'r>, Refusal> {
        let mut signatures = SmallVec::new();
        let mut time = None;
        for element in lone(request, field)?.split(|byte| *byte == b',') {
            let at = element.iter().position(|byte| *byte == b'=').ok_or_else(|| malformed(field))?;
            match element.split_at(at) {
                (b"t", value) => {
                    let found = value.strip_prefix(b"=").and_then(Timestamp::read).ok_or_else(|| malformed(field))?;
                    if time.replace(found).is_some() {
                        return Err(Refusal::missing("the timestamp stands there twice", field));
                    }
                }
                (b"v1", value) => self.push(&mut signatures, value.strip_prefix(b"=").unwrap_or(value), field)?,
                // Schemes that are no longer, or not yet, to be believed.
                _ => {}
            }
        }
        let timestamp = time.ok_or_else(|| Refusal::missing("there is no timestamp `t`", field))?;
        if signatures.is_empty() {
            return Err(Refusal::missing("there is no signature of the scheme `v1`", field));
        }
        Ok(Presented { signatures, timestamp: Some(timestamp), id: None })
    }

    fn read_standard<'r>(&self, request: &'r dyn RequestHead, fields: &Fields) -> Result<Presented<'r>, Refusal> {
        let field = &fields.signature;
        let mut signatures = SmallVec::new();
        for element in lone(request, field)?.split(|byte| *byte == b' ') {
            let at = element.iter().position(|byte| *byte == b',').ok_or_else(|| malformed(field))?;
            // Another scheme is `v1a`, which is made with a private key.
            if let (b"v1", value) = element.split_at(at) {
                self.push(&mut signatures, value.strip_prefix(b",").unwrap_or(value), field)?;
            }
        }
        if signatures.is_empty() {
            return Err(Refusal::missing("there is no signature of the scheme `v1`", field));
        }
        Ok(Presented {
            signatures,
            timestamp: fields.timestamp.as_ref().map(|name| timestamp(request, name)).transpose()?,
            id: fields.id.as_ref().map(|name| self.id(request, name)).transpose()?,
        })
    }

    fn push(&self, to: &mut SmallVec<[Signature; 2]>, text: &[u8], field: &HeaderName) -> Result<(), Refusal> {
        if to.len() >= SIGNATURES_MAX {
            return Err(Refusal::missing("there are too many signatures", field));
        }
        let signature = self.encoding.read(text, self.algorithm.signature_bytes());
        to.push(signature.ok_or_else(|| malformed(field))?);
        Ok(())
    }

    fn id<'r>(&self, request: &'r dyn RequestHead, field: &HeaderName) -> Result<&'r [u8], Refusal> {
        let id = lone(request, field)?;
        let is_sound = self.takes_id(id);
        is_sound.then_some(id).ok_or_else(|| Refusal::missing("the id of the message cannot be read", field))
    }

    /// Whether an id has one form only, together with what is signed beside it.
    pub fn takes_id(&self, id: &[u8]) -> bool {
        let is_sound = |byte: &u8| byte.is_ascii_graphic() && !self.signed.apart.contains(byte);
        (1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(is_sound)
    }
}

impl Signed {
    /// # Errors
    /// Why it could be taken apart in more than one way, or lacks the body.
    pub fn new(parts: Vec<Part>) -> Result<Self, &'static str> {
        let count = |part: &Part| parts.iter().filter(|other| *other == part).count();
        match count(&Part::Body) {
            1 => {}
            0 => return Err("it lacks `{body}`: anybody could send another body with the same signature"),
            _ => return Err("it has `{body}` twice"),
        }
        if count(&Part::Timestamp) > 1 || count(&Part::Id) > 1 {
            return Err("it has a part twice");
        }
        let mut apart = SmallVec::new();
        for pair in parts.windows(2) {
            match pair {
                [Part::Text(_), Part::Text(_)] => {}
                [part, Part::Text(text)] => delimit(part, text.bytes().next(), &mut apart)?,
                [Part::Text(text), part] => delimit(part, text.bytes().next_back(), &mut apart)?,
                _ => return Err("text has to stand between its parts: otherwise they could be cut elsewhere"),
            }
        }
        Ok(Self { parts: parts.into(), apart })
    }

    pub fn has(&self, part: &Part) -> bool {
        self.parts.contains(part)
    }

    /// What is signed, piece by piece.
    pub fn pieces<'a>(
        &'a self,
        presented: &Presented<'a>,
        body: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let (time, id) = (presented.timestamp.map(|time| time.text), presented.id);
        self.parts.iter().map(move |part| match part {
            Part::Text(text) => text.as_bytes(),
            Part::Timestamp => time.unwrap_or_default(),
            Part::Id => id.unwrap_or_default(),
            Part::Body => body,
        })
    }
}

/// Notes what parts `part` from the text beside it.
fn delimit(part: &Part, byte: Option<u8>, apart: &mut SmallVec<[u8; 2]>) -> Result<(), &'static str> {
    match (part, byte) {
        (Part::Timestamp, Some(byte)) if byte.is_ascii_digit() => {
            Err("a digit beside `{timestamp}` could be a part of it")
        }
        (Part::Id, Some(byte)) => {
            apart.push(byte);
            Ok(())
        }
        _ => Ok(()),
    }
}

impl<'r> Timestamp<'r> {
    pub fn read(text: &'r [u8]) -> Option<Self> {
        let is_sound = (1..=TIMESTAMP_DIGITS_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
        let seconds = std::str::from_utf8(text).ok().filter(|_| is_sound)?.parse().ok()?;
        Some(Self { text, seconds })
    }
}

fn timestamp<'r>(request: &'r dyn RequestHead, field: &HeaderName) -> Result<Timestamp<'r>, Refusal> {
    let text = lone(request, field)?;
    Timestamp::read(text).ok_or_else(|| Refusal::missing("the timestamp is no number of seconds since 1970", field))
}

/// The one value of a field. Of two, nobody could say which the sender meant.
fn lone<'r>(request: &'r dyn RequestHead, field: &HeaderName) -> Result<&'r [u8], Refusal> {
    let value = request.get(field).ok_or_else(|| Refusal::missing("a field is missing", field))?;
    let mut count = 0_usize;
    request.each(field, &mut |_| count = count.saturating_add(1));
    match value.len() {
        _ if count > 1 => Err(Refusal::missing("a field stands there twice", field)),
        0 => Err(Refusal::missing("a field is empty", field)),
        length if length > FIELD_BYTES_MAX => Err(Refusal::missing("a field is too long", field)),
        _ => Ok(value),
    }
}

fn malformed(field: &HeaderName) -> Refusal {
    Refusal::missing("the signature cannot be read", field)
}
