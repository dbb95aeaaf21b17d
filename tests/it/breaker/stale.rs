//! What clients get of answers from before, while nothing is let through.

use super::*;

/// Answers with the number of the request, in the way its path names.
async fn numbering() -> Upstream {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    Upstream::scripted(move |mut conn| {
        let count = Arc::clone(&count);
        async move {
            while let Some(request) = conn.request().await {
                let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
                let head = match request.target.split('/').nth(1).unwrap_or_default() {
                    "fails" => "500 Fails\r\nContent-Length: 1\r\nX-Kind: error",
                    "private" => "200 OK\r\nContent-Length: 1\r\nCache-Control: private",
                    "cookie" => "200 OK\r\nContent-Length: 1\r\nSet-Cookie: a=b",
                    "chunked" => "200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"x\"",
                    "cut" => {
                        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                        return conn.reset();
                    }
                    "until-closed" => {
                        conn.send("HTTP/1.0 200 OK\r\n\r\nx").await;
                        return;
                    }
                    _ => "200 OK\r\nContent-Length: 1\r\nETag: \"x\"",
                };
                let body = if head.contains("chunked") { format!("1\r\n{number}\r\n0\r\n\r\n") } else { number };
                conn.send(format!("HTTP/1.1 {head}\r\n\r\n{body}")).await;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_is_stood_in_for_by_its_last_answers() {
    let upstream = numbering().await;
    let breaker = format!("{{ failures: 2, on: [500], {LONG}, fallback: {{ stale: {{ max_age: 1h }} }} }}");
    let yaml = config(&[upstream.address], &breaker).replace(
        "match: \"/{*rest}\",",
        "match: \"/{*rest}\", filters: [{ headers: { response: { set: { X-Own: yes } } } }],",
    );
    let gateway = Gateway::start(&yaml).await;
    let mut client = gateway.client().await;
    for path in ["/a", "/chunked", "/private", "/cookie", "/a?b", "/a"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let mut bearer = gateway.client().await;
    assert_eq!(bearer.ask("GET /mine HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer me\r\n\r\n").await.status, 200);
    assert_eq!(gateway.get("/until-closed").await.status, 200);
    let mut cut = gateway.client().await;
    cut.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(cut.try_response(false).await.is_err());
    assert_eq!(gateway.get("/fails").await.status, 500, "a failure is passed on as it is");
    let asked = upstream.requests().len();
    let mut client = gateway.client().await;
    for (path, body) in [("/a", "5"), ("/chunked", "1"), ("/a?b", "4"), ("/a", "5")] {
        let answer = client.get(path).await;
        assert_eq!((answer.status, answer.text()), (200, body), "{path}");
        assert_eq!(answer.head.get("etag"), Some("\"x\""));
        assert_eq!(answer.head.get("x-own"), Some("yes"), "filters see it as any other");
        assert!(answer.head.get("age").is_some_and(|age| age.parse::<u64>().unwrap() < 600));
        assert!(answer.head.get("cache-status").is_some_and(|status| status.starts_with("gateway; hit")));
    }
    for path in ["/private", "/cookie", "/until-closed", "/cut", "/mine", "/fails", "/b"] {
        refused(&client.get(path).await);
    }
    refused(&client.post("/a", b"").await);
    assert_eq!(bearer.ask("GET /mine HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer me\r\n\r\n").await.status, 200);
    refused(&bearer.ask("GET /mine HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer you\r\n\r\n").await);
    client.send("HEAD /a HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response_to_head().await.status, 200);
    // Kept over a reload that changes something else, and gone with other settings.
    let text = gateway.folder.read("gateway.yaml");
    gateway.folder.write("gateway.yaml", &text.replace("    circuit", "    timeouts: { connect: 1s }\n    circuit"));
    gateway.reload_well().await;
    assert_eq!(client.get("/a").await.text(), "5");
    gateway.counts(&[("tollgate_stale_answers_total{upstream=\"main\"}", 7.0)]).await;
    assert!(gateway.scrape().await.get("tollgate_stale_bytes{upstream=\"main\"}").unwrap() > 0.0);
    gateway.folder.write("gateway.yaml", &text.replace("max_age: 1h", "max_age: 2h"));
    gateway.reload_well().await;
    refused(&client.get("/a").await);
    assert_eq!(upstream.requests().len(), asked, "nobody was asked");
}
