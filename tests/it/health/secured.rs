//! Checks of targets that speak TLS.

use super::*;
use crate::harness::{Authority, Shows, TlsService};

#[tokio::test(flavor = "multi_thread")]
async fn a_check_speaks_tls_as_requests_do() {
    let service = Upstream::answering(answer(200, b"h1")).await;
    let (ours, other) = (Authority::new("ours"), Authority::new("another"));
    let right = TlsService::start(Shows::pair(&ours.issue(&["a.test"], "a")), &service).await;
    let wrong = TlsService::start(Shows::pair(&other.issue(&["a.test"], "a")), &service).await;
    for (protocol, body) in [("http1", "^h1$"), ("h2", "^h2 https a.test"), ("auto", "^h2 https a.test")] {
        let health = format!("{{ path: /health, body: {{ matches: \"{body}\" }} }}");
        let tls = format!("    protocol: {protocol}\n    tls: {{ ca: ca.pem, server_name: a.test }}\n    health:");
        let yaml = config(&[right.address, wrong.address], &health).replace("    health:", &tls);
        let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\naccess_log: { to: none }\n";
        let files = [("gateway.yaml", [head, &yaml].concat()), ("ca.pem", ours.certificate.pem())];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        let gateway = Gateway::start_in(Folder::with(&files)).await;
        let shown = healthy(&gateway, &[true, false]).await;
        let error = &shown["targets"][1]["health"]["check"]["error"];
        assert!(error.as_str().is_some_and(|error| error.contains("TLS was not agreed on")), "{protocol}: {error}");
        assert_eq!(gateway.get("/x").await.status, 200);
        within("the right one is asked too", async {
            while super::shown(&gateway).await["targets"][0]["health"]["check"]["last"].is_null() {}
        })
        .await;
        let shown = super::shown(&gateway).await;
        assert!(shown["targets"][0]["health"]["check"]["error"].is_null(), "{protocol}: {shown:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_service_that_does_not_agree_on_http_2_is_not_well() {
    let service = Upstream::answering(answer(200, b"h1")).await;
    let ours = Authority::new("ours");
    let silent = TlsService::start(Shows::pair(&ours.issue(&["a.test"], "a")).alpn(&[]), &service).await;
    let tls = "    protocol: h2\n    tls: { ca: ca.pem, server_name: a.test }\n    health:";
    let yaml = config(&[silent.address], "{ grpc: {} }").replace("    health:", tls);
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\naccess_log: { to: none }\n";
    let files = [("gateway.yaml", [head, &yaml].concat()), ("ca.pem", ours.certificate.pem())];
    let gateway = Gateway::start_in(Folder::with(&files.each_ref().map(|(name, text)| (*name, text.as_str())))).await;
    let shown = healthy(&gateway, &[false]).await;
    let error = shown["targets"][0]["health"]["check"]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("did not agree on HTTP/2"), "{error}");
}
