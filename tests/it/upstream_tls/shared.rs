//! One address, several upstreams; authorities that change; and deliveries, which have connections of their own.

use rcgen::SerialNumber;
use tempfile::TempDir;

use super::{failed, start, status, to};
use crate::harness::{Authority, Folder, Gateway, Shows, TlsService, Upstream, answer};

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_not_shared_by_upstreams_that_differ() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let (ours, other) = (Authority::new("ours"), Authority::new("theirs"));
    let serial = |params: &mut rcgen::CertificateParams| params.serial_number = Some(SerialNumber::from(7));
    let (a, b) = (ours.issue_with(&[], "me", serial), ours.issue_with(&[], "me", serial));
    for protocol in ["http1", "auto", "h2"] {
        let shows = Shows::pair(&ours.issue(&["a.test"], "a")).asking(&ours);
        let service = TlsService::start(shows, &upstream).await;
        let with = |ca: &str, pair: &str| {
            let pair = format!("{{ cert: {pair}.pem, key: {pair}.key }}");
            to(&service, &format!("{{ ca: {ca}, server_name: a.test, client_cert: {pair} }}, protocol: {protocol}"))
        };
        let upstreams = [("a", with("ca.pem", "a")), ("b", with("ca.pem", "b")), ("c", with("other.pem", "a"))];
        let files = [
            ("ca.pem", ours.certificate.pem()),
            ("other.pem", other.certificate.pem()),
            ("a.pem", a.certificate.pem()),
            ("a.key", a.key.serialize_pem()),
            ("b.pem", b.certificate.pem()),
            ("b.key", b.key.serialize_pem()),
        ];
        let gateway = start(&upstreams, &files).await;
        for _ in 0..3 {
            for (name, expected) in [("a", 200), ("b", 200), ("c", 502)] {
                assert_eq!(status(&gateway, name).await, expected, "{protocol} {name}");
            }
        }
        let shown: Vec<_> = service.handshakes().into_iter().map(|it| it.client.unwrap()).collect();
        assert_eq!(
            shown,
            [a.certificate.der().clone(), b.certificate.der().clone()],
            "{protocol}: one connection each"
        );
        gateway.counts(&[(&failed("c", &service), 3.0)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_may_change_and_a_broken_one_changes_nothing() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let (ours, other) = (Authority::new("ours"), Authority::new("theirs"));
    let service = TlsService::start(Shows::pair(&ours.issue(&["a.test"], "a")), &upstream).await;
    let upstreams = [("main", to(&service, "{ ca: ca.pem, server_name: a.test }"))];
    let mut gateway = start(&upstreams, &[("ca.pem", ours.certificate.pem())]).await;
    assert_eq!(status(&gateway, "main").await, 200);
    gateway.folder.write("ca.pem", "nothing");
    let told = gateway.logged("`ca.pem` holds no certificate in PEM").await;
    assert!(told.contains("gateway.yaml:7:"), "{told}");
    assert_eq!(status(&gateway, "main").await, 200);
    let before = gateway.lines().len();
    gateway.folder.write("ca.pem", &other.certificate.pem());
    gateway.logged_after(before, "configuration reloaded").await;
    assert_eq!(status(&gateway, "main").await, 502, "the connection of the old settings is not used");
    let before = gateway.lines().len();
    gateway.folder.write("ca.pem", &format!("{}{}", other.certificate.pem(), ours.certificate.pem()));
    gateway.logged_after(before, "configuration reloaded").await;
    assert_eq!(status(&gateway, "main").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_over_tls_as_requests_do() {
    let upstream = Upstream::echo().await;
    let (ours, other) = (Authority::new("ours"), Authority::new("theirs"));
    let me = ours.issue(&[], "me");
    let service = TlsService::start(Shows::pair(&ours.issue(&["a.test"], "a")).asking(&ours), &upstream).await;
    let state = TempDir::new().unwrap();
    for protocol in ["http1", "auto"] {
        let shows = Shows::pair(&ours.issue(&["a.test"], "a")).asking(&ours).alpn(&["http/1.1"]);
        let service = if protocol == "http1" { &service } else { &TlsService::start(shows, &upstream).await };
        let yaml = format!(
            "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nadmin: {{ bind: 127.0.0.1:0 }}\naccess_log: {{ to: none }}\n\
             state: {{ file: {}/{protocol}.db }}\nupstreams:\n  main: {{ {}, protocol: {protocol} }}\nroutes:\n\
             - {{ name: hooks, match: POST /hooks, inbox: {{ upstream: main, schedule: [100ms] }} }}\n",
            state.path().display(),
            to(service, "{ ca: ca.pem, server_name: a.test, client_cert: { cert: me.pem, key: me.key } }")
        );
        let folder = Folder::with(&[("ca.pem", &other.certificate.pem()), ("me.pem", &me.certificate.pem())]);
        folder.write("me.key", &me.key.serialize_pem());
        folder.write("gateway.yaml", &yaml);
        let mut gateway = Gateway::start_in(folder).await;
        let before = upstream.requests().len();
        assert_eq!(gateway.post("/hooks", b"hello").await.status, 202);
        let line = gateway.logged("deliveries pause").await;
        assert!(line.contains("UnknownIssuer"), "{line}");
        assert_eq!(upstream.requests().len(), before);
        gateway.folder.write("ca.pem", &ours.certificate.pem());
        let request = upstream.received(before + 1).await.remove(before);
        assert_eq!(request.body, b"hello");
        assert_eq!(service.handshakes().last().unwrap().client.as_ref(), Some(me.certificate.der()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_connected_under_looser_settings_is_not_used_under_stricter_ones() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let me = ours.issue(&[], "me");
    for protocol in ["http1", "auto", "h2"] {
        // What a service may resume a session with is given out, too.
        let shows = Shows::pair(&theirs.issue(&["b.test"], "b"));
        let service = TlsService::start(shows, &upstream).await;
        let main = |tls: &str| to(&service, &format!("{tls}, protocol: {protocol}"));
        let files = [
            ("ours.pem", ours.certificate.pem()),
            ("theirs.pem", theirs.certificate.pem()),
            ("me.pem", me.certificate.pem()),
            ("me.key", me.key.serialize_pem()),
        ];
        let loose = main("{ verify: off, server_name: a.test }");
        let gateway = start(&[("main", loose.clone())], &files).await;
        let text = gateway.folder.read("gateway.yaml");
        for (tls, expected) in [
            ("{ verify: off, server_name: a.test }", 200),
            ("{ server_name: a.test }", 502),
            ("{ verify: off, server_name: a.test }", 200),
            ("{ ca: theirs.pem, server_name: a.test }", 502),
            ("{ ca: theirs.pem, verify: ca, server_name: a.test }", 200),
            ("{ ca: theirs.pem, server_name: a.test }", 502),
            ("{ ca: theirs.pem, server_name: b.test }", 200),
            ("{ ca: ours.pem, server_name: b.test }", 502),
            ("{ server_name: b.test }", 502),
            ("{ ca: ours.pem, verify: ca, server_name: b.test }", 502),
            ("{ ca: theirs.pem, server_name: b.test, client_cert: { cert: me.pem, key: me.key } }", 200),
        ] {
            gateway.folder.write("gateway.yaml", &text.replace(&loose, &main(tls)));
            gateway.reload_well().await;
            for _ in 0..2 {
                assert_eq!(status(&gateway, "main").await, expected, "{protocol} {tls}");
            }
        }
    }
}
