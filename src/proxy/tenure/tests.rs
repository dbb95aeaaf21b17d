use std::collections::HashMap;
use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::*;
use crate::caller::ClientCertificate;
use crate::config::load::Environment;
use crate::contract::{Filter, Hooks, Verdict};
use crate::gateway::Services;
use crate::head::RequestHead;
use crate::identity::Identity;
use crate::live::Cause;
use crate::overload::Overload;
use crate::proxy::{Arrival, Engine, EngineOptions};
use crate::reply::{Code, Rejection};

/// Stands for a filter that knows the caller by the path: `/svc-a` is the certificate with the subject `CN=svc-a`.
struct ByPath {
    identity: Arc<Identity>,
    close_on: CloseOn,
    ends: SystemTime,
}

impl Filter for ByPath {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        let name = request.path().trim_start_matches('/');
        if name == "refused" {
            let rejection = Rejection::new(Code::UNAUTHORIZED, "no valid credential");
            return match rejection.into_websocket_close(request, POLICY_VIOLATION) {
                Ok(reply) => Verdict::Reply(Box::new(reply)),
                Err(rejection) => Verdict::Reject(Box::new(rejection)),
            };
        }
        let long = clock::wall() + Duration::from_secs(1000);
        let certificate = Arc::new(ClientCertificate {
            subject: format!("CN={name}").into(),
            names: Box::default(),
            sha256: name.into(),
            not_before: SystemTime::UNIX_EPOCH,
            // The credential ends a second later than the certificate says: at the end of its last second.
            not_after: if name == "short" { self.ends - Duration::from_secs(1) } else { long },
        });
        context.caller = Some(self.identity.certificate(&certificate, clock::wall()).unwrap());
        context.close_on = self.close_on;
        Verdict::Continue
    }
}

const CONSUMERS: &str = "consumers:
  - { name: a, certificates: [{ subject: CN=svc-a }] }
  - { name: b, certificates: [{ subject: CN=svc-b }] }
  - { name: short, certificates: [{ subject: CN=short }] }
";

const HEAD: &str = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\n";

/// A gateway in this thread, before a service that is scripted.
struct Site {
    folder: TempDir,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    engine: Arc<Engine>,
    address: SocketAddr,
}

impl Site {
    async fn start<F: Future<Output = ()> + 'static>(
        close_on: CloseOn,
        service: fn(TcpStream, Arc<Notify>) -> F,
    ) -> (Self, Arc<Notify>) {
        Self::start_until(close_on, clock::wall() + Duration::from_secs(1000), service).await
    }

    async fn start_until<F: Future<Output = ()> + 'static>(
        close_on: CloseOn,
        ends: SystemTime,
        service: fn(TcpStream, Arc<Notify>) -> F,
    ) -> (Self, Arc<Notify>) {
        let told = Arc::new(Notify::new());
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = upstream.local_addr().unwrap();
        let bell = Arc::clone(&told);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = upstream.accept().await {
                tokio::task::spawn_local(service(stream, Arc::clone(&bell)));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        let yaml = format!(
            "{HEAD}include: [consumers.yaml]\nupstreams: {{ main: {{ targets: [{{ address: \"{target}\" }}] }} }}\n\
             routes: [{{ name: all, match: \"/{{*rest}}\", upstream: main }}]\n"
        );
        std::fs::write(&path, yaml).unwrap();
        std::fs::write(folder.path().join("consumers.yaml"), CONSUMERS).unwrap();
        let metrics = Metrics::new(100);
        let services = Services::new(Arc::clone(&metrics));
        let live = Live::start(path, Environment::Fixed(HashMap::new()), services, |_| Vec::new()).unwrap();
        live.place(|gateway| {
            let identity = Arc::clone(&gateway.identity);
            gateway.put_first(ByPath { identity, close_on, ends });
        });
        let (access_log, webhook_log) = (None, None);
        let options = EngineOptions {
            live: Arc::clone(&live),
            metrics: Arc::clone(&metrics),
            access_log,
            webhook_log,
            overload: Overload::new(1).worker(0),
        };
        let engine = Arc::new(Engine::new(options));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&engine);
        tokio::task::spawn_local(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let engine = Arc::clone(&serving);
                tokio::task::spawn_local(async move { engine.serve(stream, Arrival::direct(peer), None).await });
            }
        });
        (Self { folder, live, metrics, engine, address }, told)
    }

    async fn open(&self, path: &str) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        client_async(format!("ws://a.test/{path}"), stream).await.unwrap().0
    }

    /// Removes a consumer from the files, and reloads.
    async fn remove(&self, consumer: &str) {
        let left: String =
            CONSUMERS.lines().filter(|line| !line.contains(consumer)).flat_map(|line| [line, "\n"]).collect();
        std::fs::write(self.folder.path().join("consumers.yaml"), left).unwrap();
        self.live.reload(Cause::Api).await;
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|known| known == line)
    }
}

/// Runs a test on one thread, as a worker does.
async fn local(test: impl Future<Output = ()>) {
    let bounded = tokio::time::timeout(Duration::from_secs(60), test);
    tokio::task::LocalSet::new().run_until(bounded).await.unwrap();
}

async fn echo(stream: TcpStream, told: Arc<Notify>) {
    let Ok(mut socket) = accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
    // Its connection has ended.
    told.notify_one();
}

/// Sends the first half of a frame, and the second one when it is told.
async fn halves(mut stream: TcpStream, told: Arc<Notify>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ").or(line.strip_prefix("sec-websocket-key: ")));
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.unwrap().as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"\x81\x0ahello").await.unwrap();
    told.notified().await;
    // The frame after it must not be seen.
    let _ = stream.write_all(b"world\x81\x01x").await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

async fn still_works(socket: &mut WebSocketStream<TcpStream>) {
    socket.send(Message::text("there?")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("there?"));
}

async fn closed_with(socket: &mut WebSocketStream<TcpStream>, reason: &str) {
    let message = socket.next().await.unwrap().unwrap();
    assert_eq!(message, Message::Close(Some(CloseFrame { code: 1008.into(), reason: reason.to_owned().into() })));
    assert!(socket.next().await.is_none_or(|end| end.is_err()));
}

const BOTH: CloseOn = CloseOn { token_expiry: true, key_revoked: true };

#[tokio::test]
async fn a_credential_that_expires_closes_its_socket_and_no_other() {
    local(async {
        let ends = clock::wall() + Duration::from_secs(1);
        let (site, upstream_ended) = Site::start_until(BOTH, ends, echo).await;
        let (mut short, mut long) = (site.open("short").await, site.open("svc-a").await);
        still_works(&mut short).await;
        closed_with(&mut short, "the credential has expired").await;
        let late = clock::wall().duration_since(ends).expect("not before the end");
        assert!(late < Duration::from_secs(20), "{late:?}");
        upstream_ended.notified().await;
        still_works(&mut long).await;
        assert!(site.counts("tollgate_websockets_closed_total{reason=\"expired\"} 1"), "{}", site.metrics.render());
    })
    .await;
}

#[tokio::test]
async fn without_the_policy_nothing_closes_it() {
    local(async {
        let ends = clock::wall() + Duration::from_secs(1);
        let (site, _) = Site::start_until(CloseOn { key_revoked: true, ..CloseOn::default() }, ends, echo).await;
        let mut short = site.open("short").await;
        // Expired, but only a revocation was asked for.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        site.remove("svc-b").await;
        still_works(&mut short).await;
        site.remove("short").await;
        closed_with(&mut short, "the credential is not valid any more").await;
        let (site, _) = Site::start(CloseOn { token_expiry: true, ..CloseOn::default() }, echo).await;
        let mut removed = site.open("svc-a").await;
        site.remove("svc-a").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        still_works(&mut removed).await;
    })
    .await;
}

#[tokio::test]
async fn a_reload_without_the_consumer_closes_its_sockets_and_no_others() {
    local(async {
        let (site, _) = Site::start(BOTH, echo).await;
        let mut gone = [site.open("svc-a").await, site.open("svc-a").await];
        let mut other = site.open("svc-b").await;
        site.remove("svc-a").await;
        for socket in &mut gone {
            closed_with(socket, "the credential is not valid any more").await;
        }
        still_works(&mut other).await;
        // The next reload does not need a close: nothing changed for this one.
        site.live.reload(Cause::Api).await;
        still_works(&mut other).await;
    })
    .await;
}

#[tokio::test]
async fn a_revocation_that_is_told_closes_it() {
    local(async {
        let (site, _) = Site::start(BOTH, echo).await;
        let (mut gone, mut other) = (site.open("svc-a").await, site.open("svc-b").await);
        let shared = Arc::clone(site.live.current().identity.shared());
        shared.tell_revoked();
        still_works(&mut gone).await;
        let left: String =
            CONSUMERS.lines().filter(|line| !line.contains("svc-a")).flat_map(|line| [line, "\n"]).collect();
        std::fs::write(site.folder.path().join("consumers.yaml"), left).unwrap();
        site.live.place(|_| {});
        still_works(&mut gone).await;
        shared.tell_revoked();
        closed_with(&mut gone, "the credential is not valid any more").await;
        still_works(&mut other).await;
    })
    .await;
}

#[tokio::test]
async fn a_frame_on_its_way_is_ended_first() {
    local(async {
        let (site, told) = Site::start(BOTH, halves).await;
        let mut socket = site.open("svc-a").await;
        site.remove("svc-a").await;
        let early = tokio::time::timeout(Duration::from_millis(500), socket.next()).await;
        assert!(early.is_err(), "{early:?}");
        told.notify_one();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("helloworld"));
        closed_with(&mut socket, "the credential is not valid any more").await;
    })
    .await;
}

#[tokio::test]
async fn a_frame_that_does_not_end_is_cut() {
    local(async {
        let (site, _told) = Site::start(BOTH, halves).await;
        let mut socket = site.open("svc-a").await;
        site.remove("svc-a").await;
        let begun = clock::now();
        let end = socket.next().await;
        assert!(!matches!(end, Some(Ok(_))), "no close frame inside of another: {end:?}");
        assert!(begun.elapsed() < CLOSE_WAIT + Duration::from_secs(20), "{:?}", begun.elapsed());
    })
    .await;
}

/// Sends more than all buffers hold.
async fn fill(socket: &mut WebSocketStream<TcpStream>) {
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            socket.feed(Message::binary(vec![7; 256 * 1024])).await.unwrap();
            socket.flush().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_neither_reads_nor_answers_is_cut() {
    local(async {
        let (site, upstream_ended) = Site::start(BOTH, echo).await;
        let mut socket = site.open("svc-a").await;
        // So that the echo is stuck, and with it the proxy.
        fill(&mut socket).await;
        site.remove("svc-a").await;
        let begun = clock::now();
        upstream_ended.notified().await;
        assert!(begun.elapsed() < CLOSE_WAIT + Duration::from_secs(20), "{:?}", begun.elapsed());
    })
    .await;
}

/// Holds the connection, and neither reads nor writes.
async fn deaf(stream: TcpStream, _: Arc<Notify>) {
    let _socket = accept_async(stream).await;
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_service_that_takes_nothing_does_not_keep_it_open() {
    local(async {
        let (site, _) = Site::start(BOTH, deaf).await;
        let mut socket = site.open("svc-a").await;
        // By now the proxy waits for the service alone.
        fill(&mut socket).await;
        site.remove("svc-a").await;
        let begun = clock::now();
        let end = socket.next().await;
        assert!(!matches!(end, Some(Ok(Message::Binary(_)))), "{end:?}");
        assert!(begun.elapsed() < CLOSE_WAIT + Duration::from_secs(20), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_drain_leaves_it_open_and_its_end_still_comes() {
    local(async {
        let (site, _) = Site::start(BOTH, echo).await;
        let mut socket = site.open("svc-a").await;
        site.engine.drain().await;
        still_works(&mut socket).await;
        site.remove("svc-a").await;
        closed_with(&mut socket, "the credential is not valid any more").await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_can_be_a_handshake_that_is_closed() {
    local(async {
        let (site, _) = Site::start(BOTH, echo).await;
        let mut socket = site.open("refused").await;
        let begun = clock::now();
        closed_with(&mut socket, "no valid credential").await;
        drop(socket);
        assert!(begun.elapsed() < CLOSE_WAIT, "{:?}", begun.elapsed());
        // What comes right behind the handshake is no request.
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        let handshake = "GET /refused HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        stream.write_all(format!("{handshake}GET /svc-a HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(&answer[end..], b"\x88\x15\x03\xf0no valid credential");
        // Without a handshake it is a plain refusal.
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        stream.write_all(b"GET /refused HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("UNAUTHORIZED"), "{answer}");
    })
    .await;
}
