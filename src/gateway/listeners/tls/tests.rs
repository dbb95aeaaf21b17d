use rcgen::{CertificateParams, KeyPair};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::yaml::{Sources, decode, parse};

/// A certificate for `name` and its key, in PEM.
fn pair(name: &str) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
}

fn files() -> Attached {
    let ((one, one_key), (two, two_key)) = (pair("one.test"), pair("two.test"));
    let locked = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".to_vec();
    let missing = Err("there is no such file".to_owned());
    [
        ("one.pem", Ok(one)),
        ("one.key", Ok(one_key)),
        ("two.pem", Ok(two)),
        ("two.key", Ok(two_key)),
        ("locked.key", Ok(locked)),
        ("empty", Ok(Vec::new())),
        ("missing", missing),
    ]
    .map(|(name, content)| (name.to_owned(), content))
    .into()
}

fn compile(yaml: &str, files: &Attached, known: Option<&Arc<Tls>>) -> Result<Arc<Tls>, String> {
    let mut sources = Sources::new();
    let id = sources.add("gateway.yaml", yaml);
    let written: config::Tls = decode(&parse(&sources, id).unwrap()).unwrap();
    let mut problems = Vec::new();
    let made = Tls::compile(&written, files, Vec::new(), known, &mut problems);
    let rendered: Vec<String> = problems.iter().map(|problem| sources.render(problem)).collect();
    assert_eq!(made.is_some(), rendered.is_empty());
    made.ok_or_else(|| rendered.join("\n"))
}

#[test]
fn mistakes_are_told_with_their_place() {
    let files = files();
    for (yaml, said) in [
        ("certificates: []", "needs a certificate"),
        ("certificates: [{ cert: missing, key: one.key }]", "cannot read `missing`: there is no such file"),
        ("certificates: [{ cert: one.pem, key: missing }]", "cannot read `missing`"),
        ("certificates: [{ cert: one.key, key: one.key }]", "`one.key` holds no certificate in PEM"),
        ("certificates: [{ cert: one.pem, key: one.pem }]", "`one.pem` holds no private key in PEM"),
        ("certificates: [{ cert: one.pem, key: locked.key }]", "locked by a password"),
        ("certificates: [{ cert: one.pem, key: two.key }]", "`two.key` is not the key of `one.pem`"),
        ("certificates: [{ cert: one.pem, key: one.key }]\nclient_auth: required", "needs a `client_ca`"),
        ("certificates: [{ cert: one.pem, key: one.key }]\nclient_auth: optional", "needs a `client_ca`"),
        ("certificates: [{ cert: one.pem, key: one.key }]\nclient_ca: empty", "`empty` holds no certificate in PEM"),
    ] {
        let told = compile(yaml, &files, None).expect_err(yaml);
        assert!(told.contains(said) && told.starts_with("gateway.yaml:"), "{told}");
    }
    let both = "certificates: [{ cert: missing, key: one.key }, { cert: two.pem, key: one.key }]\nclient_ca: empty";
    let told = compile(both, &files, None).unwrap_err();
    assert!(told.matches("gateway.yaml:1:").count() >= 2 && told.contains("gateway.yaml:2:"), "{told}");
}

#[test]
fn what_did_not_change_is_taken_over() {
    let mut files = files();
    let yaml = "certificates: [{ cert: one.pem, key: one.key }]\nclient_ca: two.pem";
    let first = compile(yaml, &files, None).unwrap();
    assert!(Arc::ptr_eq(&first, &compile(yaml, &files, Some(&first)).unwrap()));
    let optional = compile(&format!("{yaml}\nclient_auth: optional"), &files, Some(&first)).unwrap();
    assert!(!Arc::ptr_eq(&first, &optional));
    let (renewed, key) = pair("one.test");
    files.insert("one.pem".to_owned(), Ok(renewed));
    files.insert("one.key".to_owned(), Ok(key));
    assert!(!Arc::ptr_eq(&first, &compile(yaml, &files, Some(&first)).unwrap()));
    let authority = files.get("one.pem").cloned().unwrap();
    let second = compile(yaml, &files, None).unwrap();
    files.insert("two.pem".to_owned(), authority);
    assert!(!Arc::ptr_eq(&second, &compile(yaml, &files, Some(&second)).unwrap()), "another authority");
}

#[test]
fn names_choose_the_certificate_and_a_wildcard_stands_for_one_label() {
    let names = |names: &[&str]| {
        let (certificate, key) = pair(names[0]);
        let chain = vec![CertificateDer::from_pem_slice(&certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap();
        Known {
            certified: Arc::new(certified),
            names: names.iter().map(|name| Box::from(*name)).collect(),
            file: String::new(),
            not_after: SystemTime::UNIX_EPOCH,
        }
    };
    let known = Certificates::new(vec![names(&["a.test"]), names(&["*.b.test"]), names(&["x.b.test", "a.test"])]);
    assert_eq!(known.named("a.test"), [0, 2]);
    assert_eq!(known.named("any.b.test"), [1]);
    assert_eq!(known.named("x.b.test"), [2]);
    for other in ["b.test", "a.any.b.test", "c.test", ""] {
        assert!(known.named(other).is_empty(), "{other}");
    }
}

#[test]
fn what_is_logged_of_it_holds_no_key() {
    let made = compile("certificates: [{ cert: one.pem, key: one.key }]", &files(), None).unwrap();
    assert!(!format!("{made:?}").to_lowercase().contains("key"), "{made:?}");
}
