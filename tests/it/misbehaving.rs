//! Services that do what no service should: the client gets the right status in time, the next request is served well, and
//! nobody gets the answer of another.

mod cases;
mod http2;
mod timing;

use std::sync::Arc;

use crate::harness::{Broken, Client, Gateway, Upstream, answer, within};
use cases::{Case, Outcome, Then};

/// A service that misbehaves when it is asked for `/…/bad`, and answers everything else with the target it was asked for.
async fn service(case: &Case) -> Upstream {
    let (bytes, then) = (Arc::new(case.bytes.clone()), case.then);
    Upstream::scripted(move |mut conn| {
        let bytes = Arc::clone(&bytes);
        async move {
            while let Some(request) = conn.request().await {
                if !request.target.ends_with("/bad") {
                    conn.send(answer(200, request.target.as_bytes())).await;
                    continue;
                }
                match then {
                    Then::Stay => {
                        conn.send(&*bytes).await;
                    }
                    Then::Close => {
                        conn.send(&*bytes).await;
                        return;
                    }
                    Then::Reset => {
                        conn.send(&*bytes).await;
                        return conn.reset();
                    }
                    Then::Repeat => {
                        let (start, again) = bytes.split_at(marker(&bytes));
                        conn.send(start).await;
                        // Some at a time: there is more to do on this machine.
                        let again = again[1..].repeat(64);
                        while conn.send(&again).await {}
                        return;
                    }
                    Then::Trickle => {
                        for byte in &*bytes {
                            if !conn.send([*byte]).await {
                                return;
                            }
                            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        }
                    }
                }
            }
        }
    })
    .await
}

/// Where that begins which is sent for ever.
fn marker(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == cases::AGAIN).expect("a marker")
}

/// One gateway before all of them; what is well gets all the time it wants.
async fn gateway(services: &[Upstream]) -> Gateway {
    let mut upstreams = String::new();
    let mut routes = String::new();
    for (number, service) in services.iter().enumerate() {
        upstreams += &format!(
            "  s{number}: {{ targets: [{{ address: \"{}\" }}], timeouts: {{ idle: 2s }} }}\n",
            service.address
        );
        routes += &format!(
            "  - {{ name: bad{number}, match: \"/{number}/bad\", timeout: 2s, upstream: s{number} }}\n\
             \x20 - {{ name: ok{number}, match: \"/{number}/ok/{{*rest}}\", timeout: 100s, upstream: s{number} }}\n"
        );
    }
    Gateway::start(&format!("upstreams:\n{upstreams}routes:\n{routes}")).await
}

/// Whether this is what a client may be told.
fn judge(case: &Case, method: &str, told: Result<(u16, Vec<u8>), Broken>) {
    let name = case.name;
    match (case.outcome, told) {
        (Outcome::Refused(expected), Ok((status, _))) => assert_eq!(status, expected, "{name}, {method}"),
        (Outcome::Served(body), Ok((status, got))) => {
            assert!((200..400).contains(&status), "{name}, {method}: {status}");
            assert_eq!(String::from_utf8_lossy(&got), if method == "HEAD" { "" } else { body }, "{name}, {method}");
        }
        // A head that went out cannot be taken back: the client has to see that the rest is missing.
        (Outcome::Cut, Err(Broken::Cut)) => {}
        (Outcome::Cut, Ok((502 | 504, _))) => {}
        (Outcome::Cut, Ok((200, _))) if method == "HEAD" => {}
        (_, other) => panic!("{name}, {method}: {other:?}"),
    }
}

async fn misbehaves(case: &Case, number: usize, gateway: &Gateway) {
    for method in ["GET", "POST", "GET", "HEAD"] {
        let mut client = gateway.client().await;
        let body = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
        client.send(format!("{method} /{number}/bad HTTP/1.1\r\nHost: a.test\r\n{body}")).await;
        let told = final_response(&mut client, method == "HEAD").await;
        let goes_on = told.as_ref().is_ok_and(|(_, stays, _)| *stays);
        judge(case, method, told.map(|(status, _, body)| (status, body)));
        // The same client, if it may, and others at the same time: each gets its own answer.
        if goes_on {
            own_answers(&mut client, number, "same", case.name).await;
        }
        let mut others = [gateway.client().await, gateway.client().await];
        let [first, second] = &mut others;
        tokio::join!(own_answers(first, number, "first", case.name), own_answers(second, number, "second", case.name));
    }
}

/// The status, whether the connection stays, and the body; after interim answers.
async fn final_response(client: &mut Client, to_head: bool) -> Result<(u16, bool, Vec<u8>), Broken> {
    loop {
        let response = within("an answer", client.try_response(to_head)).await?;
        if response.status >= 200 {
            let stays = response.head.get("connection") != Some("close");
            return Ok((response.status, stays, response.body));
        }
    }
}

async fn own_answers(client: &mut Client, number: usize, who: &str, case: &str) {
    for turn in 0..3 {
        let target = format!("/{number}/ok/{who}/{turn}");
        let response = client.get(&target).await;
        assert_eq!((response.status, response.text()), (200, &*target), "after: {case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_service_does_the_status_is_right_and_the_next_request_is_well() {
    let cases = cases::all();
    assert!(cases.len() >= 17);
    let mut services = Vec::new();
    for case in &cases {
        services.push(service(case).await);
    }
    let gateway = gateway(&services).await;
    let all = cases.iter().enumerate().map(|(number, case)| misbehaves(case, number, &gateway));
    futures_util::future::join_all(all).await;
    // A service may fill no memory: endless heads and chunks are cut off.
    assert!(gateway.memory_kib("VmHWM") < 400 * 1024, "{} KiB", gateway.memory_kib("VmHWM"));
}
