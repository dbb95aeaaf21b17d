//! Certificates by ACME, from a real authority.

mod limited;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{Client, Folder, Gateway, Pebble, Site, TlsClient, Upstream, answer};

const DONE: &str = "a new certificate is in use";
const FAILED: &str = "no certificate could be got";

/// A gateway whose listeners are where the authority asks, with these certificates and more keys below `acme`.
async fn start(site: &Site, upstream: &Upstream, certificates: &str, acme: &str) -> Gateway {
    let (http, tls) = (site.http(), site.tls());
    let yaml = format!(
        "version: 1\nthreads: 2\naccess_log: {{ to: none }}\nadmin: {{ bind: 127.0.0.1:0 }}\n\
         listeners:\n  - {{ bind: \"{http}\" }}\n  - bind: \"{tls}\"\n    tls: {{ {certificates} }}\n{acme}\
         upstreams: {{ main: {{ targets: [{{ address: \"{}\" }}] }} }}\n\
         routes:\n  - {{ name: x, match: /x, upstream: main }}\n",
        upstream.address
    );
    let folder =
        Folder::with(&[("acme-ca.pem", &site.ca.certificate.pem()), ("client-ca.pem", &site.ca.certificate.pem())]);
    folder.write("gateway.yaml", &yaml);
    Gateway::start_in(folder).await
}

/// Waits for as many log lines with this text.
async fn logged(gateway: &mut Gateway, text: &str, count: usize) {
    let mut seen = 0;
    for _ in 0..count {
        gateway.logged_after(seen, text).await;
        let lines = gateway.lines();
        seen += lines.iter().skip(seen).position(|line| line.contains(text)).unwrap() + 1;
    }
}

/// The files in a folder that end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().ends_with(end)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_challenges_lead_to_certificates_that_a_restart_keeps() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let site = Site::new().await;
    let pebble = Pebble::start(&site, 3600, None).await;
    let storage = Folder::with(&[]);
    let kept = storage.path("certificates");
    // Who validates names has no certificate of a client: it is not asked for one.
    let certificates = "client_ca: client-ca.pem, acme: [{ domains: [a.test, B.test] }, \
                        { domains: [c.test], challenge: http-01 }]";
    let acme = site.acme(site.directory, &format!(", storage: \"{}\"", kept.display()));
    let mut gateway = start(&site, &upstream, certificates, &acme).await;
    logged(&mut gateway, DONE, 2).await;
    let own = site.ca.issue(&[], "svc-a");
    let client = TlsClient::trusting_root(pebble.root(&site).await, Some(&own));
    let shown = async || {
        let mut shown = Vec::new();
        for name in ["a.test", "b.test", "c.test"] {
            let mut own = Client::connect(client.tunnel(site.tls(), name).await).await;
            assert_eq!(own.get("/x").await.text(), "hello", "{name}");
            shown.push(client.shown(site.tls(), name).await);
        }
        shown
    };
    let first = shown().await;
    assert!(first[0] == first[1] && first[1] != first[2]);
    // What nobody asked for is answered by routes, or by nobody.
    let mut plain = Client::connect(site.http()).await;
    plain.get("/.well-known/acme-challenge/nothing").await.refused(404, "NOT_FOUND");
    let orders =
        |name: &str, result: &str| format!("tollgate_acme_orders_total{{certificate=\"{name}\",result=\"{result}\"}}");
    // A try may fail where too many nonces in a row are refused; that is made up for.
    gateway.counts(&[(&orders("a.test", "ok"), 1.0), (&orders("c.test", "ok"), 1.0)]).await;
    gateway.never_counts("handshakes_failed").await;
    for file in files(&kept, ".pem").into_iter().chain(files(&kept, ".json")) {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    gateway.stop().await;
    // Without its authority a gateway starts with what is stored.
    let root = pebble.root(&site).await;
    drop(pebble);
    let gateway = start(&site, &upstream, certificates, &acme).await;
    assert_eq!(shown().await, first);
    gateway.stop().await;
    // What is broken is told, and got anew: the account as well, which the authority has forgotten anyway.
    for file in files(&kept, ".pem") {
        let pem = fs::read(&file).unwrap();
        fs::write(file, &pem[..pem.len() / 2]).unwrap();
    }
    files(&kept, ".json").iter().for_each(|file| fs::write(file, "{").unwrap());
    let mut gateway = start(&site, &upstream, certificates, &acme).await;
    gateway.logged("the stored certificate cannot be used").await;
    assert!(client.connect(site.tls(), "a.test").await.is_err(), "there is none to show");
    let pebble = Pebble::start(&site, 3600, None).await;
    gateway.logged("the ACME account is put aside").await;
    logged(&mut gateway, DONE, 2).await;
    let new = pebble.root(&site).await;
    assert_ne!(root, new);
    TlsClient::trusting_root(new, Some(&own)).connect(site.tls(), "c.test").await.expect("a new certificate");
    assert_eq!(files(&kept, ".broken").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_drops_no_connection() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let site = Site::new().await;
    let pebble = Pebble::start(&site, 30, None).await;
    let mut gateway = start(&site, &upstream, "acme: [{ domains: [a.test] }]", &site.acme(site.directory, "")).await;
    logged(&mut gateway, DONE, 1).await;
    let client = TlsClient::trusting_root(pebble.root(&site).await, None);
    let mut open = Client::connect(client.tunnel(site.tls(), "a.test").await).await;
    assert_eq!(open.get("/x").await.text(), "hello");
    let first = client.shown(site.tls(), "a.test").await;
    // Somebody breaks the file: what is in use does not come from there.
    let stored = files(&gateway.folder.path("data/acme"), ".pem");
    fs::write(&stored[0], "nothing").unwrap();
    assert_eq!(client.shown(site.tls(), "a.test").await, first);
    // At half of its life, which is the soonest.
    logged(&mut gateway, DONE, 2).await;
    assert_eq!(open.get("/x").await.text(), "hello", "the connection is the same");
    assert_ne!(client.shown(site.tls(), "a.test").await, first);
    assert!(fs::read_to_string(&stored[0]).unwrap().contains("BEGIN CERTIFICATE"));
    // The authority is gone: what is there stays in use until it is back, or until its end.
    drop(pebble);
    gateway.logged("the certificate could not be renewed; the one there is stays in use").await;
    assert_eq!(open.get("/x").await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_authority_holds_nobody_up_and_is_asked_again() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let site = Site::new().await;
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let eab = format!(", eab: {{ key_id: kid-1, hmac_key: {key} }}");
    let acme = site.acme(site.directory, &eab);
    // Beside one from a file, which works from the start.
    let own = site.ca.issue(&["file.test"], "file");
    let certificates = "certificates: [{ cert: own.pem, key: own.key }], acme: [{ domains: [a.test] }]";
    let folder = Folder::with(&[("own.pem", &own.certificate.pem()), ("own.key", &own.key.serialize_pem())]);
    let files = certificates.replace("own.", &format!("{}/own.", folder.path("").display()).replace("//", "/"));
    let mut gateway = start(&site, &upstream, &files, &acme).await;
    let line = gateway.logged(FAILED).await;
    assert!(line.contains("a.test"), "{line}");
    let mut plain = Client::connect(site.http()).await;
    assert_eq!(plain.get("/x").await.text(), "hello");
    let trusting = TlsClient::trusting(&site.ca);
    trusting.connect(site.tls(), "file.test").await.expect("the one from a file");
    assert!(trusting.connect(site.tls(), "a.test").await.is_err(), "no other certificate is shown for it");
    let expires = "tollgate_acme_certificate_expires_timestamp_seconds{certificate=\"a.test\"}";
    gateway.counts(&[(expires, 0.0)]).await;
    let pebble = Pebble::start(&site, 3600, Some(("kid-1", key))).await;
    logged(&mut gateway, DONE, 1).await;
    let client = TlsClient::trusting_root(pebble.root(&site).await, None);
    let mut own = Client::connect(client.tunnel(site.tls(), "a.test").await).await;
    assert_eq!(own.get("/x").await.text(), "hello");
    assert!(gateway.scrape().await.get(expires).unwrap() > 1e9);
    assert!(!gateway.lines().iter().any(|line| line.contains(key)), "the key is nobody's business");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_elsewhere_gets_no_certificate() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let mut site = Site::new().await;
    let _pebble = Pebble::start(&site, 3600, None).await;
    // The authority asks where nobody listens.
    let elsewhere = Site::new().await;
    (site.http, site.tls, site.ip) = (elsewhere.http, elsewhere.tls, elsewhere.ip);
    for challenge in ["http-01", "tls-alpn-01"] {
        let certificates = format!("acme: [{{ domains: [a.test], challenge: {challenge} }}]");
        let mut gateway = start(&site, &upstream, &certificates, &site.acme(site.directory, "")).await;
        let line = gateway.logged("a.test: API error").await;
        assert!(line.contains(FAILED) && line.contains("urn:ietf:params:acme:error:"), "{line}");
        gateway.stop().await;
    }
}
