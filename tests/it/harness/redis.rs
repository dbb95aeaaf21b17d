//! A real redis-server, which ends with the process that started it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::within;

/// Starts the server, says its id, and ends it when its own input ends: a test that is killed leaves nothing behind.
const KEEPER: &str = "redis-server \"$@\" >/dev/null 2>&1 & id=$!; echo $id; cat >/dev/null; kill -9 $id 2>/dev/null";
const MISSING: &str = "redis-server is not installed: `make test` installs it, or `apt-get install redis-server`";

/// A server with a folder of its own, running or not. It keeps nothing on disk, unless it is durable.
pub struct RedisServer {
    folder: TempDir,
    is_durable: bool,
    running: Option<(Child, u32)>,
}

impl RedisServer {
    /// One that does not run yet.
    pub fn stopped() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), is_durable: false, running: None }
    }

    /// One that has on disk what it has answered, and starts with it.
    pub async fn start_durable() -> Self {
        let mut server = Self::stopped();
        server.is_durable = true;
        server.run().await;
        server
    }

    pub async fn start() -> Self {
        let mut server = Self::stopped();
        server.run().await;
        server
    }

    /// Starts it, empty unless it is durable, and waits until it answers.
    pub async fn run(&mut self) {
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        assert!(found.is_ok_and(|status| status.success()), "{MISSING}");
        let mut keeper = Command::new("sh");
        let append = if self.is_durable { "yes" } else { "no" };
        keeper.args(["-c", KEEPER, "sh", "--port", "0", "--save", "", "--appendonly", append]);
        keeper.args(["--appendfsync", "always", "--dir"]);
        keeper.arg(self.folder.path()).arg("--unixsocket").arg(self.folder.path().join("redis.sock"));
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.running = Some((keeper, line.trim().parse().unwrap()));
        let answers = async {
            while self.ping().await.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("redis-server", answers).await;
    }

    async fn ping(&self) -> Option<()> {
        let mut stream = UnixStream::connect(self.folder.path().join("redis.sock")).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await.ok()?;
        (&answer == b"+PONG\r\n").then_some(())
    }

    /// Runs a script without keys that answers with a number; `None` while nobody answers.
    pub async fn eval(&self, script: &str) -> Option<u64> {
        let mut stream = UnixStream::connect(self.folder.path().join("redis.sock")).await.ok()?;
        let length = script.len();
        stream.write_all(format!("*3\r\n$4\r\nEVAL\r\n${length}\r\n{script}\r\n$1\r\n0\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut tokio::io::BufReader::new(stream), &mut answer).await.ok()?;
        let number = answer.trim_end().strip_prefix(':').unwrap_or_else(|| panic!("the script answered {answer}"));
        number.parse().ok()
    }

    /// `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let id = self.running.as_ref().expect("it runs").1.to_string();
        let done = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id]).status().unwrap();
        assert!(done.success(), "cannot send {name}");
    }

    /// Ends it at once, as a machine does that loses its power.
    pub fn kill(&mut self) {
        let Some((mut keeper, _)) = self.running.take() else { return };
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
    }

    /// The setting `state` of a gateway that uses it.
    pub fn state(&self, timeout: &str) -> String {
        let socket = self.folder.path().join("redis.sock");
        format!("state: {{ redis: {{ url: \"unix://{}\", timeout: {timeout} }} }}\n", socket.display())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
