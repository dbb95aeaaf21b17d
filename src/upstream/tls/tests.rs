use super::*;
use crate::yaml::{Sources, decode, parse};

fn check(yaml: &str) -> Result<Option<Arc<Tls>>, String> {
    let mut sources = Sources::new();
    let id = sources.add("gateway.yaml", yaml);
    let written: config::Upstream = decode(&parse(&sources, id).unwrap()).unwrap();
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let files = [
        ("ca.pem", made.cert.pem()),
        ("me.pem", made.cert.pem()),
        ("me.key", made.signing_key.serialize_pem()),
        ("other.key", other.signing_key.serialize_pem()),
    ];
    let files: Attached = files.map(|(name, text)| (name.to_owned(), Ok(text.into_bytes()))).into();
    let mut problems = Vec::new();
    let tls = Tls::check(&written, &files, &mut problems);
    let told: Vec<String> = problems.iter().map(|problem| sources.render(problem)).collect();
    if told.is_empty() { Ok(tls) } else { Err(told.join("\n")) }
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (yaml, said) in [
        ("targets: [{ address: a.test:443 }]\ntls: yes", "`tls` of an upstream is `true` or a map"),
        ("targets: [{ address: a.test:443 }]\ntls: { ca: nowhere.pem }", "`nowhere.pem` was not read"),
        ("targets: [{ address: a.test:443 }]\ntls: { verify: ca }", "`verify: ca` needs a `ca`"),
        ("targets: [{ address: a.test:443 }]\ntls: { verify: none }", "off"),
        ("targets: [{ address: a_b.test:443 }]\ntls: true", "no certificate can be for `a_b.test`"),
        ("targets: [{ address: a.test:443 }]\ntls: { server_name: \"a.test:443\" }", "neither a DNS name nor an IP"),
        ("targets: [{ address: a.test:443 }]\ntls: { server_name: \"\" }", "neither a DNS name nor an IP"),
        ("targets: [{ address: a.test:443 }]\ntls: { min_version: \"1.1\" }", "1.2"),
        ("targets: [{ address: a.test:443 }]\ntls: true\nprotocol: h2c", "is HTTP/2 without TLS"),
        ("targets: [{ address: a.test:443 }]\nprotocol: h2", "`protocol: h2` needs `tls`"),
        ("targets: [{ address: a.test:443 }]\ntls: false\nprotocol: auto", "`protocol: auto` needs `tls`"),
        (
            "targets: [{ address: a.test:443 }]\ntls: { client_cert: { cert: me.pem, key: other.key } }",
            "`other.key` is not the key of `me.pem`",
        ),
    ] {
        let told = check(yaml).expect_err(yaml);
        assert!(told.contains(said) && told.starts_with("gateway.yaml:"), "{yaml}: {told}");
    }
}

#[test]
fn every_setting_makes_connections_of_its_own() {
    let tls = |settings: &str| {
        check(&format!("targets: [{{ address: a.test:443 }}]\n{settings}")).unwrap().map_or(0, |tls| tls.key())
    };
    let keys = [
        "tls: false",
        "tls: true",
        "tls: { server_name: b.test }",
        "tls: { verify: off }",
        "tls: { ca: ca.pem }",
        "tls: { ca: ca.pem, verify: ca }",
        "tls: { min_version: \"1.3\" }",
        "tls: { client_cert: { cert: me.pem, key: me.key } }",
        "tls: true\nprotocol: h2",
        "tls: true\nprotocol: auto",
    ]
    .map(tls);
    let different: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len());
    assert_eq!(tls("tls: true"), tls("tls: {}"));
}

#[test]
fn a_target_is_called_as_its_certificate() {
    let named = check("targets: [{ address: a.test:443 }]\ntls: true").unwrap().unwrap();
    for (address, name, host) in [
        ("a.test:443", "a.test", "a.test"),
        ("A.test.:8443", "a.test", "a.test:8443"),
        ("10.0.0.1:443", "10.0.0.1", "10.0.0.1"),
        ("[::1]:8443", "::1", "[::1]:8443"),
    ] {
        let made = named.name_of(address);
        assert_eq!((&*made.server_name, &*made.host), (name, host));
    }
    let set = check("targets: [{ address: 10.0.0.1:8443 }]\ntls: { server_name: b.test }").unwrap().unwrap();
    assert_eq!(&*set.name_of("10.0.0.1:8443").host, "b.test:8443");
    assert!(!format!("{set:?}").contains("key"));
}
