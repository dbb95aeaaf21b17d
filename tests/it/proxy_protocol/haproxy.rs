//! A real HAProxy on the other side, before and behind the gateway.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use super::start;
use crate::harness::{Client, Folder, Gateway, Upstream, answer, routed, within};

const MISSING: &str = "haproxy is not installed: `make test` installs it, or `apt-get install haproxy`";

/// A running HAProxy. Killed when dropped.
struct Haproxy {
    address: SocketAddr,
    child: Child,
    _folder: Folder,
}

impl Haproxy {
    /// Takes connections as `bind` says and hands them on to `to` as `server` says. Behind the mode may stand `; a rule`.
    async fn start(bind: &str, mode: &str, to: SocketAddr, server: &str) -> Self {
        // The port is free a moment before; who takes it meanwhile makes the test fail, not pass.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (mode, more) = mode.split_once(';').unwrap_or((mode, ""));
        let configuration = format!(
            "defaults\n  mode {mode}\n  timeout connect 60s\n  timeout client 60s\n  timeout server 60s\n\
             listen it\n  bind {address} {bind}\n  {more}\n  server s {to} {server}\n"
        );
        let folder = Folder::with(&[("haproxy.cfg", &configuration)]);
        let mut command = Command::new("haproxy");
        command.arg("-f").arg(folder.path("haproxy.cfg")).args(["-db", "-q"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect(MISSING);
        within("haproxy", async { while tokio::net::TcpStream::connect(address).await.is_err() {} }).await;
        Self { address, child, _folder: folder }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_says_who_the_client_is() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let gateway = start(&upstream, "proxy_protocol: { from: [127.0.0.1] }", "").await;
    let options =
        ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,ssl,cert-cn"];
    for options in options {
        let haproxy = Haproxy::start("", "tcp", gateway.address, options).await;
        let mut client = Client::over(super::from("127.0.0.5", haproxy.address).await);
        for _ in 0..2 {
            assert_eq!(client.get("/x").await.status, 200, "{options}");
            assert_eq!(upstream.last().head.get("x-forwarded-for"), Some("127.0.0.5"), "{options}");
        }
    }
    // It looks whether the gateway is there, and says that it speaks for itself.
    let checked = Haproxy::start("", "tcp", gateway.address, "check inter 50ms send-proxy-v2 check-send-proxy").await;
    let mut client = Client::over(super::from("127.0.0.6", checked.address).await);
    assert_eq!(client.get("/x").await.status, 200);
    gateway.never_counts("connections_refused_total").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_is_told_who_the_client_is() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    for version in ["v1", "v2"] {
        let haproxy = Haproxy::start(
            "accept-proxy",
            "http;http-request set-header X-Told %[src]:%[src_port]",
            upstream.address,
            "",
        )
        .await;
        // The gateway's own upstream is HAProxy.
        let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\naccess_log: { to: none }\nthreads: 1\n";
        let behind = routed(&upstream, &format!("proxy_protocol: {version}"))
            .replace(&upstream.address.to_string(), &haproxy.address.to_string());
        let gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &[head, &behind].concat())])).await;
        for source in ["127.0.0.1", "127.0.0.7", "127.0.0.8"] {
            let stream = super::from(source, gateway.address).await;
            let own = stream.local_addr().unwrap();
            let mut client = Client::over(stream);
            for _ in 0..2 {
                assert_eq!(client.get("/x").await.status, 200);
                assert_eq!(upstream.last().head.get("x-told"), Some(own.to_string().as_str()), "{version}");
            }
        }
    }
}
