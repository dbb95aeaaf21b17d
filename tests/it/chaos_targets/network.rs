//! A network that loses, delays and cuts off, between the gateway and a service in a namespace of its own.
//!
//! It needs root, `ip` and `tc` of iproute2, and a kernel with network namespaces and netem: where one is missing the test says so
//! and is left out.

use std::process::{Command, Stdio};

use crate::harness::{Gateway, Upstream, answer, left_out, within};

/// Runs a command: whether it went well.
fn run(command: &str) -> bool {
    let parts: Vec<&str> = command.split_whitespace().collect();
    let done = Command::new(parts[0]).args(&parts[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// A namespace that is joined to ours by two ends of a cable; both are gone when it is dropped.
struct Namespace {
    name: String,
    near: String,
    far: String,
    address: String,
}

impl Namespace {
    fn make() -> Option<Self> {
        let process = std::process::id();
        let [high, low, ..] = process.to_le_bytes();
        let (name, near, far) = (format!("tg{process}"), format!("tga{process}"), format!("tgb{process}"));
        let address = format!("10.{high}.{low}.2");
        let made = Self { name, near, far, address };
        made.set_up(&format!("10.{high}.{low}.1")).then_some(made)
    }

    fn set_up(&self, own: &str) -> bool {
        let Self { name, near, far, address } = self;
        [
            format!("ip netns add {name}"),
            format!("ip link add {near} type veth peer name {far} netns {name}"),
            format!("ip addr add {own}/30 dev {near}"),
            format!("ip link set {near} up"),
            format!("ip -n {name} addr add {address}/30 dev {far}"),
            format!("ip -n {name} link set {far} up"),
            format!("tc qdisc add dev {near} root netem delay 1ms"),
        ]
        .iter()
        .all(|command| run(command))
    }

    /// What the network does from now on.
    fn network(&self, netem: &str) {
        assert!(run(&format!("tc qdisc change dev {} root netem {netem}", self.near)), "{netem}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The far end goes with it. Nothing to do about one that stays.
        let _ = run(&format!("ip link del {}", self.near));
        let _ = run(&format!("ip netns del {}", self.name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_loses_and_parts_is_504_and_recovers() {
    let Some(namespace) = Namespace::make() else {
        left_out("this needs root, `ip` and `tc` of iproute2, and a kernel with netem");
        return;
    };
    // The service listens in the namespace: a process, as a thread of ours cannot leave its own.
    let script = "import http.server as h\n\
        class H(h.BaseHTTPRequestHandler):\n    protocol_version = 'HTTP/1.1'\n    def do_GET(self):\n        \
        b = self.path.encode()\n        self.send_response(200)\n        self.send_header('Content-Length', str(len(b)))\n        \
        self.end_headers()\n        self.wfile.write(b)\n    def log_message(self, *a): pass\n\
        h.ThreadingHTTPServer(('0.0.0.0', 8080), H).serve_forever()\n";
    let python = Command::new("ip").args(["netns", "exec", &namespace.name, "python3", "-c", script]).spawn();
    let Ok(python) = python else { return left_out("there is no python3") };
    let _service = Process(python);
    let other = Upstream::answering(answer(200, b"other")).await;
    let gateway = Gateway::start(&format!(
        "upstreams:\n  far: {{ targets: [{{ address: \"{}:8080\" }}], timeouts: {{ connect: 2s, first_byte: 3s }} }}\n\
         \x20 near: {{ targets: [{{ address: \"{}\" }}] }}\n\
         routes:\n  - {{ name: far, match: \"/far/{{n}}\", upstream: far }}\n  - {{ name: near, match: /near, upstream: near }}\n",
        namespace.address, other.address
    ))
    .await;
    let well = async |what: &str| {
        within(what, async { while gateway.get("/far/1").await.text() != "/far/1" {} }).await;
    };
    well("the service").await;
    namespace.network("delay 50ms 20ms loss 10%");
    let mut lost = 0;
    for number in 0..30 {
        let target = format!("/far/{number}");
        let response = gateway.get(&target).await;
        match response.status {
            200 => assert_eq!(response.text(), target),
            502 | 504 => lost += 1,
            other => panic!("{other}"),
        }
    }
    assert!(lost < 30, "TCP makes up for a packet in ten");
    namespace.network("loss 100%");
    for _ in 0..2 {
        gateway.get("/far/1").await.refused(504, "GATEWAY_TIMEOUT");
        assert_eq!(gateway.get("/near").await.text(), "other", "nobody else notices");
    }
    namespace.network("delay 1ms");
    well("the network").await;
    assert_eq!(gateway.get("/far/2").await.text(), "/far/2");
}

/// Killed when dropped.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
