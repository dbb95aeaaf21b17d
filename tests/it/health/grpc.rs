//! Checks by the gRPC health checking protocol, against servers that speak it.
//!
//! One is written out here, byte by byte; the other is that of `grpcio-health-checking`, installed below `target/` by the first
//! run. Where that cannot be done (no `python3`, no network) the test says so.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

/// How a server answers: the serving status, or else the status of the call.
#[derive(Clone, Copy)]
enum Says {
    Serving(u8),
    Status(&'static str),
    /// Answers as a server of something else.
    NoGrpc,
}

/// A server of `grpc.health.v1.Health` over HTTP/2 with prior knowledge.
struct Server {
    address: SocketAddr,
    says: watch::Sender<Says>,
    /// The messages it was sent.
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (says, told) = watch::channel(Says::Serving(1));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, told.clone(), Arc::clone(&noted)));
            }
        });
        Self { address, says, asked, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, told: watch::Receiver<Says>, asked: Arc<Mutex<Vec<Vec<u8>>>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (told, asked) = (*told.borrow(), Arc::clone(&asked));
        tokio::spawn(async move {
            assert_eq!(request.method(), "POST");
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["content-type"], "application/grpc");
            assert_eq!(request.headers()["te"], "trailers");
            let mut body = request.into_body();
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                message.extend_from_slice(&data);
            }
            asked.lock().unwrap().push(message);
            let head = Response::builder().header("content-type", "application/grpc");
            match told {
                Says::Serving(status) => {
                    let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    stream.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 0x08, status]), false).unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    stream.send_trailers(trailers).unwrap();
                }
                Says::Status(status) => {
                    let head = head.header("grpc-status", status).body(()).unwrap();
                    respond.send_response(head, true).unwrap();
                }
                Says::NoGrpc => {
                    let head = Response::builder().header("content-type", "text/html").body(()).unwrap();
                    respond.send_response(head, true).unwrap();
                }
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_healthy_while_it_says_that_it_serves() {
    let server = Server::start().await;
    let address = server.address;
    for (says, why) in [
        (Says::Serving(1), None),
        (Says::Serving(0), Some("UNKNOWN")),
        (Says::Serving(2), Some("NOT_SERVING")),
        (Says::Status("5"), Some("does not know this service")),
        (Says::Status("12"), Some("no health service")),
        (Says::Status("14"), Some("grpc-status 14")),
        (Says::NoGrpc, Some("no gRPC")),
    ] {
        server.says.send_replace(says);
        let (healthy, error) = verdict(address, "{ grpc: { service: tasks.v1.Tasks } }").await;
        assert_eq!(healthy, why.is_none(), "{error}");
        assert!(why.is_none_or(|why| error.as_str().is_some_and(|error| error.contains(why))), "{error}");
    }
    let message = server.asked.lock().unwrap()[0].clone();
    assert_eq!(message, b"\x00\x00\x00\x00\x10\x0a\x0etasks.v1.Tasks");
    server.says.send_replace(Says::Serving(1));
    assert!(verdict(address, "{ grpc: {} }").await.0);
    assert_eq!(server.asked.lock().unwrap().last().unwrap(), b"\x00\x00\x00\x00\x00");
    // What speaks something else is none.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    assert!(!verdict(address, "{ grpc: {} }").await.0);
    task.abort();
}

/// The health server of the gRPC project, in Python. Killed when dropped.
struct Python {
    child: Child,
    input: ChildStdin,
    address: SocketAddr,
}

impl Python {
    fn start() -> Option<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-grpc-health");
        let python = folder.join("bin/python");
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let ready = || run(Command::new(&python).args(["-c", "import grpc, grpc_health.v1.health"]));
        let made = || run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        let install =
            ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--timeout", "10", "--retries", "1"];
        let filled = || run(Command::new(&python).args(install).arg("grpcio-health-checking>=1.60,<2"));
        if !(ready() || (made() && filled() && ready())) {
            crate::harness::left_out("grpcio-health-checking cannot be had here (python3 -m venv, pip install)");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/health/server.py");
        let mut command = Command::new(python);
        let mut child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], line.trim().parse().expect("a port")));
        Some(Self { input: child.stdin.take().unwrap(), child, address })
    }

    fn becomes(&mut self, status: &str) {
        writeln!(self.input, "{status}").unwrap();
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_server_of_the_grpc_project_is_understood() {
    let Some(mut server) = Python::start() else { return };
    let health = "{ grpc: { service: tasks.v1.Tasks }, interval: 100ms, unhealthy_after: 1, healthy_after: 1 }";
    let gateway = Gateway::start(&config(&[server.address], health)).await;
    let error = |shown: &Value| shown["targets"][0]["health"]["check"]["error"].clone();
    healthy(&gateway, &[true]).await;
    server.becomes("NOT_SERVING");
    assert_eq!(error(&healthy(&gateway, &[false]).await), "NOT_SERVING");
    server.becomes("SERVING");
    assert!(error(&healthy(&gateway, &[true]).await).is_null());
    change(&gateway, "tasks.v1.Tasks", "no.such.Service");
    gateway.reload_well().await;
    let error = error(&healthy(&gateway, &[false]).await);
    assert!(error.as_str().is_some_and(|error| error.contains("grpc-status 5")), "{error}");
}
