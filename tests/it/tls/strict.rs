//! Listeners that are strict: revocation lists, versions, ciphers; and plain HTTP that is sent to HTTPS.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use rcgen::SerialNumber;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::{ONE, failed, start};
use crate::harness::{Authority, Client, Folder, Gateway, Pair, TlsClient, Upstream, all_to, answer, within};

async fn passes(gateway: &Gateway, ca: &Authority, pair: &Pair) -> bool {
    let client = TlsClient::with_certificate(ca, pair);
    Client::connect(client.tunnel(gateway.address, "a.test").await).await.is_usable("/x").await
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_certificates_are_refused_and_so_are_all_without_a_list() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let with =
        |serial: u64| ca.issue_with(&[], "svc", |params| params.serial_number = Some(SerialNumber::from(serial)));
    let (one, two) = (with(1001), with(1002));
    let tls = &format!("{ONE}, client_ca: ca.pem, crl: crl.pem");
    let mut gateway = {
        let folder = Folder::with(&[("ca.pem", &ca.certificate.pem())]);
        super::write(&folder, 0, &ca.issue(&["a.test"], "a"));
        folder.write("crl.pem", &ca.revokes(&[], 4000));
        let yaml = format!(
            "version: 1\nlisteners: [{{ bind: 127.0.0.1:0, tls: {{ {tls} }} }}]\nthreads: 2\naccess_log: {{ to: none }}\n\
             admin: {{ bind: 127.0.0.1:0 }}\n{}",
            all_to(&upstream)
        );
        folder.write("gateway.yaml", &yaml);
        Gateway::start_in(folder).await
    };
    assert!(passes(&gateway, &ca, &one).await && passes(&gateway, &ca, &two).await);
    // The connection that is open stays; a new one is refused.
    let mut open =
        Client::connect(TlsClient::with_certificate(&ca, &one).tunnel(gateway.address, "a.test").await).await;
    assert!(open.is_usable("/x").await);
    for (list, expected, reason) in [
        (ca.revokes(&[1001], 4000), (false, true), Some("certificate_revoked")),
        // A list that is out of date says nothing about anybody.
        (ca.revokes(&[], 2021), (false, false), Some("revocation_unknown")),
        // Nor does one of somebody else.
        (Authority::new("theirs").revokes(&[], 4000), (false, false), None),
        (ca.revokes(&[1002], 4000), (true, false), None),
    ] {
        let before = gateway.lines().len();
        gateway.folder.write("crl.pem", &list);
        gateway.logged_after(before, "configuration reloaded").await;
        assert_eq!((passes(&gateway, &ca, &one).await, passes(&gateway, &ca, &two).await), expected, "{reason:?}");
        if let Some(reason) = reason {
            let scrape = gateway.scrape().await;
            assert!(scrape.get(&failed(&gateway, reason)).is_some_and(|count| count >= 1.0), "{reason}");
        }
    }
    assert!(open.is_usable("/x").await);
    assert!(gateway.lines().iter().any(|line| line.contains("this revocation list is out of date")));
    gateway.folder.write("crl.pem", "nothing");
    gateway.logged("`crl.pem` holds no revocation list in PEM").await;
    assert!(passes(&gateway, &ca, &one).await);
}

/// Whether a handshake of `openssl s_client` comes about.
fn openssl(address: SocketAddr, arguments: &[&str]) -> Option<bool> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-servername", "a.test", "-brief"]).args(arguments);
    Some(command.stdin(Stdio::null()).output().ok()?.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_and_ciphers_are_refused() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let gateway = start(&upstream, ONE, &[&ca.issue(&["a.test"], "a")], &ca, "").await;
    let newest = &format!("{ONE}, min_version: \"1.3\"");
    let strict = start(&upstream, newest, &[&ca.issue(&["a.test"], "a")], &ca, "").await;
    for (arguments, expected, in_strict) in [
        (&["-tls1_3"][..], true, true),
        (&["-tls1_2"], true, false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], true, false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], true, false),
        // CBC, no forward secrecy, no authenticated encryption.
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"], false, false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0"], false, false),
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"], false, false),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], false, false),
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], false, false),
    ] {
        let Some(made) = openssl(gateway.address, arguments) else {
            crate::harness::left_out("openssl is not installed");
            return;
        };
        assert_eq!(made, expected, "{arguments:?}");
        assert_eq!(openssl(strict.address, arguments), Some(in_strict), "{arguments:?} with 1.3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_let_go() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let limits = "limits: { header_timeout: 300ms }\n";
    let gateway = start(&upstream, ONE, &[&ca.issue(&["a.test"], "a")], &ca, limits).await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    assert_eq!(within("the end", silent.read(&mut [0; 64])).await.unwrap_or(0), 0);
    gateway.counts(&[(&failed(&gateway, "timeout"), 1.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_sent_to_https() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    for (written, location) in
        [("true", "https://a.test/x%20y?q=1&r"), ("8443", "https://a.test:8443/x%20y?q=1&r"), ("false", "")]
    {
        let folder = Folder::with(&[]);
        let yaml = format!(
            "version: 1\nlisteners: [{{ bind: 127.0.0.1:0, https_redirect: {written} }}]\n\
             defaults: {{ filters: [security_headers] }}\ntrusted_proxies: [127.0.0.2/32]\n{}",
            all_to(&upstream)
        );
        folder.write("gateway.yaml", &yaml.replace("version: 1\n", "version: 1\naccess_log: { to: none }\n"));
        let gateway = Gateway::start_in(folder).await;
        let asked = [
            "GET /x%20y?q=1&r HTTP/1.1\r\nHost: A.test:8000\r\n\r\n",
            "POST /b/../x%20y?q=1&r HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi",
        ];
        for request in asked {
            let response = gateway.ask(request).await;
            if written == "false" {
                assert_eq!(response.text(), "hello");
                continue;
            }
            assert_eq!((response.status, response.head.get("location")), (308, Some(location)), "{request}");
            assert!(response.head.has("x-frame-options") && !response.head.has("strict-transport-security"));
        }
        let challenge = "GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: a.test\r\n\r\n";
        assert_eq!(gateway.ask(challenge).await.text(), "hello");
        if written == "true" {
            // Limits and the form of the request come first; so does the path that is settled.
            gateway.ask("GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n").await.refused(400, "BAD_REQUEST");
            gateway.ask("GET / HTTP/1.0\r\n\r\n").await.refused(400, "BAD_REQUEST");
            let around = "GET /.well-known/acme-challenge/../../secret HTTP/1.1\r\nHost: a.test\r\n\r\n";
            let response = gateway.ask(around).await;
            assert_eq!((response.status, response.head.get("location")), (308, Some("https://a.test/secret")));
            let h2 = gateway.h2().await.get("/x").await;
            assert_eq!(
                (h2.status.as_u16(), &h2.fields["location"]),
                (308, &"https://a.test/x".parse::<http::HeaderValue>().unwrap())
            );
        }
    }
}
