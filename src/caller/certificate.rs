//! What a client certificate says about who holds it.
//!
//! Read once for each connection, from a certificate whose chain has been verified already.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::types::hex;

/// A verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The distinguished name of the subject ([RFC 4514](https://www.rfc-editor.org/rfc/rfc4514)): `CN=svc-a,O=Acme`.
    pub subject: Box<str>,
    /// The subject alternative names of the kinds that name a caller.
    pub names: Box<[SubjectName]>,
    /// SHA-256 of the certificate, 64 hexadecimal digits in lower case.
    pub sha256: Box<str>,
    /// Whole seconds; it is valid from here on.
    pub not_before: SystemTime,
    /// Whole seconds; it is valid to the end of this one.
    pub not_after: SystemTime,
}

/// A subject alternative name ([RFC 5280 §4.2.1.6](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.6)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SubjectName {
    /// In lower case.
    Dns(Box<str>),
    Uri(Box<str>),
    Email(Box<str>),
}

impl ClientCertificate {
    /// Reads a certificate in DER. `None` when it cannot be read, or only in part.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let validity = certificate.validity();
        // The error is that of an extension that stands twice, or that cannot be read.
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(SubjectName::of);
        Some(Self {
            subject: subject(certificate.subject()).into(),
            names: names.collect(),
            sha256: hex(&Sha256::digest(der)).into(),
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
        })
    }
}

impl SubjectName {
    /// The name that `text` stands for: with a colon a URI, with an `@` an address of mail, otherwise a DNS name.
    pub fn written(text: &str) -> Self {
        if text.contains(':') {
            Self::Uri(text.into())
        } else if text.contains('@') {
            Self::Email(text.into())
        } else {
            Self::Dns(text.to_ascii_lowercase().into())
        }
    }

    fn of(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Self::Dns(name.to_ascii_lowercase().into())),
            GeneralName::URI(name) => Some(Self::Uri((*name).into())),
            GeneralName::RFC822Name(name) => Some(Self::Email((*name).into())),
            _ => None,
        }
    }
}

/// Types of attributes that have a name in RFC 4514 §3, and the two more that OpenSSL writes by name and that are common.
const TYPES: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "street"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.5", "serialNumber"),
];

/// The text of a distinguished name. Two names have the same text only when they are the same.
fn subject(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    // RFC 4514 §2.1: the last one first.
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let known = TYPES.iter().find(|(known, _)| *known == oid);
    match (known, attribute.as_str()) {
        (Some((_, name)), Ok(text)) => format!("{name}={}", escaped(text)),
        // RFC 4514 §2.4: a value that has no text here is written in hexadecimal digits, with its type.
        _ => {
            let value = attribute.attr_value();
            let tag = [u8::try_from(value.tag().0).unwrap_or(u8::MAX)];
            format!("{oid}=#{}{}", hex(&tag), hex(value.data))
        }
    }
}

/// RFC 4514 §2.4.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, letter) in text.char_indices() {
        let outer = (at == 0 && (letter == ' ' || letter == '#')) || (at == last && letter == ' ');
        if letter.is_ascii_control() {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\{:02X}", u32::from(letter));
        } else {
            if outer || "\"+,;<>\\".contains(letter) {
                escaped.push('\\');
            }
            escaped.push(letter);
        }
    }
    escaped
}

/// `None` for a time that the system cannot hold.
fn time(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn certificate(subject: &[(DnType, &str)], names: &[SanType]) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names.to_vec();
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::parse(made.der()).unwrap()
    }

    #[test]
    fn the_subject_is_written_from_its_end() {
        let made = certificate(
            &[
                (DnType::OrganizationName, "Acme"),
                (DnType::OrganizationalUnitName, "Ops"),
                (DnType::CommonName, "svc-a"),
            ],
            &[],
        );
        assert_eq!(&*made.subject, "CN=svc-a,OU=Ops,O=Acme");
        assert_eq!(&*certificate(&[], &[]).subject, "");
    }

    #[test]
    fn what_could_be_taken_for_another_name_is_escaped() {
        let made = |text: &str| certificate(&[(DnType::CommonName, text)], &[]).subject.into_string();
        assert_eq!(made("svc-a,O=Acme"), "CN=svc-a\\,O=Acme");
        assert_eq!(made("a+b;c<d>\"e\\"), "CN=a\\+b\\;c\\<d\\>\\\"e\\\\");
        assert_eq!(made(" a b "), "CN=\\ a b\\ ");
        assert_eq!(made("#1"), "CN=\\#1");
        assert_eq!(made("a\0b\n"), "CN=a\\00b\\0A");
        assert_eq!(made("Köln"), "CN=Köln");
    }

    #[test]
    fn a_type_without_a_name_is_written_in_numbers() {
        let made = certificate(&[(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 9]), "x")], &[]);
        assert_eq!(&*made.subject, "1.3.6.1.4.1.9=#0c78");
    }

    #[test]
    fn names_keep_their_kind() {
        let made = certificate(
            &[],
            &[
                SanType::DnsName("SVC.test".try_into().unwrap()),
                SanType::URI("spiffe://a.test/Svc".try_into().unwrap()),
                SanType::Rfc822Name("Svc@a.test".try_into().unwrap()),
                SanType::IpAddress("192.0.2.1".parse().unwrap()),
            ],
        );
        assert_eq!(*made.names, ["svc.TEST", "spiffe://a.test/Svc", "Svc@a.test"].map(SubjectName::written));
        assert_ne!(SubjectName::written("a.test"), SubjectName::Uri("a.test".into()));
    }

    #[test]
    fn what_is_no_certificate_is_not_read() {
        let der = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap().cert.der().to_vec();
        assert_eq!(ClientCertificate::parse(&der).unwrap().sha256.len(), 64);
        assert_eq!(ClientCertificate::parse(&der[..der.len() - 1]), None);
        assert_eq!(ClientCertificate::parse(&[&der[..], b"\0"].concat()), None);
        assert_eq!(ClientCertificate::parse(b""), None);
    }
}
