//! TLS to upstreams: who is believed, what is shown, and what a reload changes.

mod shared;

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::SerialNumber;
use rustls::version::{TLS12, TLS13};

use crate::harness::{
    Authority, Folder, Gateway, Pair, Shows, TlsService, Upstream, answer, noise, self_signed, within,
};

/// A gateway with these upstreams (`name: { targets: …, tls: … }`), each behind the path of its name.
async fn start(upstreams: &[(&str, String)], files: &[(&str, String)]) -> Gateway {
    Gateway::start_in(written(upstreams, files)).await
}

fn written(upstreams: &[(&str, String)], files: &[(&str, String)]) -> Folder {
    let mut yaml = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nthreads: 1\naccess_log: { to: none }\n\
                    admin: { bind: 127.0.0.1:0 }\nupstreams:\n"
        .to_owned();
    for (name, settings) in upstreams {
        yaml.push_str(&format!("  {name}: {{ {settings} }}\n"));
    }
    yaml.push_str("routes:\n");
    for (name, _) in upstreams {
        yaml.push_str(&format!("  - {{ name: {name}, match: \"/{name}/{{*rest}}\", upstream: {name} }}\n"));
    }
    let folder = Folder::with(&[]);
    for (name, text) in files {
        folder.write(name, text);
    }
    folder.write("gateway.yaml", &yaml);
    folder
}

fn to(service: &TlsService, tls: &str) -> String {
    // One try, so that each failure counts once.
    format!("targets: [{{ address: \"{}\" }}], retry: {{ attempts: 1 }}, tls: {tls}", service.address)
}

/// The counter of attempts that failed for TLS.
fn failed(upstream: &str, service: &TlsService) -> String {
    let target = service.address;
    format!("tollgate_upstream_errors_total{{kind=\"tls\",target=\"{target}\",upstream=\"{upstream}\"}}")
}

async fn status(gateway: &Gateway, upstream: &str) -> u16 {
    gateway.get(&format!("/{upstream}/x")).await.status
}

fn write(gateway: &Gateway, name: &str, pair: &Pair) {
    gateway.folder.write(&format!("{name}.key"), &pair.key.serialize_pem());
    gateway.folder.write(&format!("{name}.pem"), &pair.certificate.pem());
}

/// A certificate for `a.test`, with what is wrong with it.
fn issued(ca: &Authority, shift: fn(&mut rcgen::CertificateParams)) -> Shows {
    Shows::pair(&ca.issue_with(&["a.test"], "a", shift))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_certificate_is_believed() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let (ours, other) = (Authority::new("ours"), Authority::new("theirs"));
    let right = Shows::pair(&ours.issue(&["a.test"], "a"));
    let cases = [
        ("right", right.clone(), true, true),
        ("tls12", right.clone().versions(&[&TLS12]), true, true),
        ("tls13", right.clone().versions(&[&TLS13]), true, true),
        (
            "in_time",
            issued(&ours, |it| it.not_after = (SystemTime::now() + Duration::from_secs(600)).into()),
            true,
            true,
        ),
        (
            "just_begun",
            issued(&ours, |it| it.not_before = (SystemTime::now() - Duration::from_secs(2)).into()),
            true,
            true,
        ),
        // The end is that of a second: one that was 2 s ago is over.
        (
            "expired",
            issued(&ours, |it| it.not_after = (SystemTime::now() - Duration::from_secs(2)).into()),
            false,
            false,
        ),
        (
            "too_early",
            issued(&ours, |it| it.not_before = (SystemTime::now() + Duration::from_secs(600)).into()),
            false,
            false,
        ),
        ("unknown", Shows::pair(&other.issue(&["a.test"], "a")), false, false),
        ("own", Shows::pair(&self_signed(&["a.test"])), false, false),
        ("wrong_name", Shows::pair(&ours.issue(&["b.test"], "a.test")), false, true),
        ("nameless", Shows::pair(&ours.issue(&[], "a.test")), false, true),
        ("empty", Shows { chain: Vec::new(), ..right.clone() }, false, false),
        ("foreign_key", Shows { key: rcgen::KeyPair::generate().unwrap().serialize_der(), ..right }, false, false),
    ];
    let mut services = Vec::new();
    for (name, shows, _, _) in &cases {
        services.push((*name, TlsService::start(shows.clone(), &upstream).await));
    }
    let upstreams = |tls: &str| services.iter().map(|(name, service)| (*name, to(service, tls))).collect::<Vec<_>>();
    let files = [("ca.pem", ours.certificate.pem())];
    let full = start(&upstreams("{ ca: ca.pem, server_name: a.test }"), &files).await;
    let by_ca = start(&upstreams("{ ca: ca.pem, server_name: a.test, verify: ca }"), &files).await;
    for ((name, service), (_, _, in_full, in_ca)) in services.iter().zip(&cases) {
        for (gateway, passes) in [(&full, *in_full), (&by_ca, *in_ca)] {
            let before = upstream.requests().len();
            let response = gateway.get(&format!("/{name}/x")).await;
            if passes {
                assert_eq!(response.text(), "hello", "{name}");
                continue;
            }
            response.refused(502, "BAD_GATEWAY");
            for secret in ["127.0.0.1", "ertificate", "a.test", "ssuer"] {
                assert!(!response.text().contains(secret), "{name}: {}", response.text());
            }
            gateway.counts(&[(&failed(name, service), 1.0)]).await;
            assert_eq!(upstream.requests().len(), before, "{name}: nothing is sent");
        }
    }
    let names: Vec<_> = services.iter().flat_map(|(_, service)| service.handshakes()).map(|it| it.name).collect();
    assert!(names.iter().all(|name| name.as_deref() == Some("a.test")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let (ours, other) = (Authority::new("ours"), Authority::new("theirs"));
    for (shows, why) in [
        (Shows::pair(&ours.issue_until(&["a.test"], "a", 2020)), "expired"),
        (Shows::pair(&other.issue(&["a.test"], "a")), "UnknownIssuer"),
        (Shows::pair(&ours.issue(&["b.test"], "a")), "not valid for name"),
    ] {
        let service = TlsService::start(shows, &upstream).await;
        let upstreams = [("main", to(&service, "{ ca: ca.pem, server_name: a.test }"))];
        let mut gateway = start(&upstreams, &[("ca.pem", ours.certificate.pem())]).await;
        assert_eq!(status(&gateway, "main").await, 502);
        let line = gateway.logged("a request failed").await;
        assert!(line.contains(why) && line.contains("a.test"), "{why}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_verification_everybody_is_taken_and_the_log_complains() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let service = TlsService::start(Shows::pair(&self_signed(&["b.test"])), &upstream).await;
    let both = [
        ("off", to(&service, "{ verify: off, server_name: a.test }")),
        ("system", to(&service, "{ server_name: a.test }")),
    ];
    let mut gateway = start(&both, &[]).await;
    let line = gateway.logged("`verify: off`").await;
    assert!(line.contains("WARN") && line.contains("off"), "{line}");
    for _ in 0..3 {
        assert_eq!(status(&gateway, "off").await, 200);
        // The same address and name: neither its connections nor its sessions are taken over.
        assert_eq!(status(&gateway, "system").await, 502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_is_that_of_the_target_or_an_address_in_the_certificate() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let named = TlsService::start(Shows::pair(&ca.issue(&["localhost"], "a")), &upstream).await;
    let numbered = TlsService::start(Shows::pair(&ca.issue(&["127.0.0.1"], "a")), &upstream).await;
    let by_name = |service: &TlsService, more: &str| {
        format!("targets: [{{ address: \"localhost:{}\" }}], tls: {{ ca: ca.pem }}{more}", service.address.port())
    };
    let upstreams = [
        ("name", by_name(&named, "")),
        ("host", by_name(&named, ", host: target")),
        ("not_for_name", by_name(&numbered, "")),
        ("address", to(&numbered, "{ ca: ca.pem }")),
        ("not_for_address", to(&named, "{ ca: ca.pem }")),
    ];
    let gateway = start(&upstreams, &[("ca.pem", ca.certificate.pem())]).await;
    for (name, expected) in
        [("name", 200), ("host", 200), ("not_for_name", 502), ("address", 200), ("not_for_address", 502)]
    {
        assert_eq!(status(&gateway, name).await, expected, "{name}");
    }
    let hosts: Vec<_> = upstream.requests().iter().map(|it| it.head.get("host").unwrap().to_owned()).collect();
    assert_eq!(hosts[1], format!("localhost:{}", named.address.port()));
    assert!(named.handshakes().iter().all(|it| it.name.as_deref() == Some("localhost")));
    assert!(numbered.handshakes().iter().all(|it| it.name.is_none()), "an address is no name to ask for");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocol_is_agreed_on() {
    let upstream = Upstream::answering(answer(200, b"h1")).await;
    let ca = Authority::new("ours");
    let pair = ca.issue(&["a.test"], "a");
    let both = TlsService::start(Shows::pair(&pair), &upstream).await;
    let old = TlsService::start(Shows::pair(&pair).alpn(&["http/1.1"]), &upstream).await;
    let mute = TlsService::start(Shows::pair(&pair).alpn(&[]), &upstream).await;
    let services = [("both", &both), ("old", &old), ("mute", &mute)];
    for (protocol, answers) in [
        ("http1", [Some("h1"), Some("h1"), Some("h1")]),
        ("auto", [Some("h2 https a.test"), Some("h1"), Some("h1")]),
        ("h2", [Some("h2 https a.test"), None, None]),
    ] {
        let tls = format!("{{ ca: ca.pem, server_name: a.test }}, protocol: {protocol}");
        let upstreams = services.map(|(name, service)| (name, to(service, &tls)));
        let gateway = start(&upstreams, &[("ca.pem", ca.certificate.pem())]).await;
        for ((name, _), answer) in services.iter().zip(answers) {
            for _ in 0..3 {
                let response = gateway.ask(&format!("GET /{name}/x HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
                match answer {
                    Some(text) => assert_eq!(response.text(), text, "{protocol} {name}"),
                    None => drop(response.refused(502, "BAD_GATEWAY")),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_too_old_gets_no_request() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let pair = ca.issue(&["a.test"], "a");
    let old = TlsService::start(Shows::pair(&pair).versions(&[&TLS12]), &upstream).await;
    let new = TlsService::start(Shows::pair(&pair).versions(&[&TLS13]), &upstream).await;
    for protocol in ["http1", "auto"] {
        let tls = format!("{{ ca: ca.pem, server_name: a.test, min_version: \"1.3\" }}, protocol: {protocol}");
        let upstreams = [("old", to(&old, &tls)), ("new", to(&new, &tls))];
        let gateway = start(&upstreams, &[("ca.pem", ca.certificate.pem())]).await;
        let before = upstream.requests().len();
        for _ in 0..2 {
            assert_eq!((status(&gateway, "old").await, status(&gateway, "new").await), (502, 200));
        }
        gateway.counts(&[(&failed("old", &old), 2.0)]).await;
        let after = upstream.requests();
        assert!(after[before..].iter().all(|request| request.target == "/new/x"), "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_fails_is_tried_elsewhere() {
    let upstream = Upstream::echo().await;
    let (ours, other) = (Authority::new("ours"), Authority::new("theirs"));
    let good = TlsService::start(Shows::pair(&ours.issue(&["a.test"], "a")), &upstream).await;
    let bad = TlsService::start(Shows::pair(&other.issue(&["a.test"], "a")), &upstream).await;
    let settings = format!(
        "targets: [{{ address: \"{}\" }}, {{ address: \"{}\" }}], tls: {{ ca: ca.pem, server_name: a.test }}",
        bad.address, good.address
    );
    let gateway = start(&[("main", settings)], &[("ca.pem", ours.certificate.pem())]).await;
    // Nothing was sent: a POST may be sent again.
    for _ in 0..6 {
        let body = noise(1000);
        assert_eq!(gateway.post("/main/x", &body).await.body, body);
    }
    assert!(gateway.scrape().await.get(&failed("main", &bad)).is_some_and(|count| count >= 3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_handshake_has_a_timeout() {
    // The kernel makes the connection; nobody takes it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!(
        "targets: [{{ address: \"{}\" }}], tls: {{ verify: off, server_name: a.test }}, timeouts: {{ connect: 300ms }}",
        silent.local_addr().unwrap()
    );
    let gateway = start(&[("main", settings)], &[]).await;
    within("an answer", gateway.get("/main/x")).await.refused(504, "GATEWAY_TIMEOUT");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_shows_its_certificate_and_a_rotated_one() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let (mut services, pair) = (Vec::new(), ca.issue(&["a.test"], "a"));
    for versions in [[&TLS12], [&TLS13]] {
        let shows = Shows::pair(&pair).asking(&ca).versions(&versions);
        services.push(TlsService::start(shows, &upstream).await);
    }
    let tls = "{ ca: ca.pem, server_name: a.test, client_cert: { cert: me.pem, key: me.key } }";
    let none = "{ ca: ca.pem, server_name: a.test }";
    let upstreams = [
        ("old", to(&services[0], tls)),
        ("new", to(&services[1], tls)),
        ("old_without", to(&services[0], none)),
        ("new_without", to(&services[1], none)),
    ];
    // The same serial number in both: what Pingora tells them apart by.
    let serial = |params: &mut rcgen::CertificateParams| params.serial_number = Some(SerialNumber::from(7));
    let (first, second) = (ca.issue_with(&[], "me", serial), ca.issue_with(&[], "me", serial));
    let files =
        [("ca.pem", ca.certificate.pem()), ("me.pem", first.certificate.pem()), ("me.key", first.key.serialize_pem())];
    let mut gateway = start(&upstreams, &files).await;
    for _ in 0..2 {
        assert_eq!((status(&gateway, "old").await, status(&gateway, "new").await), (200, 200));
        assert_eq!((status(&gateway, "old_without").await, status(&gateway, "new_without").await), (502, 502));
    }
    gateway.counts(&[(&failed("old_without", &services[0]), 2.0), (&failed("new_without", &services[1]), 2.0)]).await;
    let shown = |service: &TlsService| service.handshakes().last().unwrap().client.clone().unwrap();
    assert!(services.iter().all(|service| shown(service) == *first.certificate.der()));
    // A key that does not fit changes nothing; then both are there.
    gateway.folder.write("me.pem", &second.certificate.pem());
    let told = gateway.logged("`me.key` is not the key of `me.pem`").await;
    assert!(told.contains("gateway.yaml:7:"), "{told}");
    assert_eq!((status(&gateway, "old").await, status(&gateway, "new").await), (200, 200));
    let before = gateway.lines().len();
    write(&gateway, "me", &second);
    gateway.logged_after(before, "configuration reloaded").await;
    assert_eq!((status(&gateway, "old").await, status(&gateway, "new").await), (200, 200));
    assert!(services.iter().all(|service| shown(service) == *second.certificate.der()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_system_trusts_may_be_damaged_or_gone() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let (system, other) = (Authority::new("system"), Authority::new("theirs"));
    let trusted = TlsService::start(Shows::pair(&system.issue(&["a.test"], "a")), &upstream).await;
    let stranger = TlsService::start(Shows::pair(&other.issue(&["a.test"], "a")), &upstream).await;
    let upstreams = [
        ("trusted", to(&trusted, "{ server_name: a.test }")),
        ("stranger", to(&stranger, "{ server_name: a.test }")),
        // An authority of one's own takes the place of the system's.
        ("pinned", to(&trusted, "{ server_name: a.test, ca: other.pem }")),
        ("own", to(&stranger, "{ server_name: a.test, ca: other.pem }")),
    ];
    let good = system.certificate.pem();
    let damaged = "-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n";
    for (name, bundle, expected) in [
        ("sound", Some(good.clone()), [200, 502, 502, 200]),
        ("damaged", Some(format!("{damaged}{good}{damaged}")), [200, 502, 502, 200]),
        ("only damaged", Some(damaged.to_owned()), [502, 502, 502, 200]),
        ("empty", Some(String::new()), [502, 502, 502, 200]),
        ("gone", None, [502, 502, 502, 200]),
    ] {
        let folder = written(&upstreams, &[("other.pem", other.certificate.pem())]);
        if let Some(bundle) = bundle {
            folder.write("system.pem", &bundle);
        }
        let file = format!("SSL_CERT_FILE={}", folder.path("system.pem").display());
        let none = format!("SSL_CERT_DIR={}", folder.path("none").display());
        let arguments = [&*file, &*none, env!("CARGO_BIN_EXE_tollgate")];
        let gateway = Gateway::start_with(folder, Path::new("env"), &arguments).await;
        for ((upstream, _), expected) in upstreams.iter().zip(expected) {
            assert_eq!(status(&gateway, upstream).await, expected, "{name}: {upstream}");
        }
    }
}
