//! The real binary.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::sync::watch;

use super::client::{Client, Response};
use super::folder::Folder;
use super::h2c::H2Client;
use super::within;

/// A running gateway. Killed when dropped.
pub struct Gateway {
    /// Where its first listener is.
    pub address: SocketAddr,
    /// Where it answers operators; port 0 without `admin`.
    pub admin: SocketAddr,
    /// Its configuration.
    pub folder: Folder,
    child: Arc<Mutex<Child>>,
    log: watch::Receiver<Vec<String>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Gateway {
    /// Starts with `yaml` and one listener on a free port.
    pub async fn start(yaml: &str) -> Self {
        let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nthreads: 2\naccess_log: { to: none }\n";
        Self::start_in(Folder::with(&[("gateway.yaml", &[head, yaml].concat())])).await
    }

    /// Starts with the `gateway.yaml` of this folder.
    pub async fn start_in(folder: Folder) -> Self {
        Self::started(Self::spawn_in(folder)).await
    }

    /// The same with another binary than the one under test: a copy that can be replaced, or what starts it.
    pub async fn start_with(folder: Folder, program: &Path, arguments: &[&str]) -> Self {
        Self::started(Self::spawn_with(folder, program, arguments)).await
    }

    async fn started(mut gateway: Self) -> Self {
        gateway.address = bound(&gateway.logged("listening").await).expect("an address");
        let lines = gateway.lines();
        let admin = lines.iter().find(|line| line.contains("admin address"));
        gateway.admin = admin.and_then(|line| bound(line)).unwrap_or(gateway.admin);
        gateway
    }

    /// The same, without waiting until it listens: for one that says so elsewhere.
    pub fn spawn_in(folder: Folder) -> Self {
        Self::spawn_with(folder, Path::new(env!("CARGO_BIN_EXE_tollgate")), &[])
    }

    fn spawn_with(folder: Folder, program: &Path, arguments: &[&str]) -> Self {
        let file = folder.path("gateway.yaml");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(ARGUMENTS)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the gateway starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let child = Arc::new(Mutex::new(child));
        let (log_sender, log) = watch::channel(Vec::new());
        let (exit_sender, exit) = watch::channel(None);
        thread::spawn({
            let child = Arc::clone(&child);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    log_sender.send_modify(|lines: &mut Vec<String>| lines.push(line));
                }
                // Standard error is closed: the process has ended, or is about to.
                exit_sender.send_replace(Some(child.lock().unwrap().wait().unwrap()));
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { address: nowhere, admin: nowhere, folder, child, log, exit }
    }

    /// Every line of the log so far.
    pub fn lines(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// Waits for a line of the log.
    pub async fn logged(&mut self, text: &str) -> String {
        self.logged_after(0, text).await
    }

    /// Waits for a line that stands behind the first `count` ones.
    pub async fn logged_after(&mut self, count: usize, text: &str) -> String {
        let is_there = |lines: &Vec<String>| lines.iter().skip(count).any(|line| line.contains(text));
        let found = within(text, self.log.wait_for(is_there)).await;
        let lines = found.map(|lines| lines.clone()).unwrap_or_else(|_| self.log.borrow().clone());
        let line = lines.iter().skip(count).find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("the gateway ended without a line `{text}`: {lines:#?}")).clone()
    }

    /// Waits until so many lines of the log say this.
    pub async fn logged_times(&mut self, count: usize, text: &str) {
        let are_there = |lines: &Vec<String>| lines.iter().filter(|line| line.contains(text)).count() >= count;
        let _ = within(text, self.log.wait_for(are_there)).await;
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub async fn h2(&self) -> H2Client {
        H2Client::connect(self.address).await
    }

    /// `GET path` on a connection of its own.
    pub async fn get(&self, path: &str) -> Response {
        self.client().await.get(path).await
    }

    /// `POST path` on a connection of its own.
    pub async fn post(&self, path: &str, body: &[u8]) -> Response {
        self.client().await.post(path, body).await
    }

    /// A request, exactly so, on a connection of its own.
    pub async fn ask(&self, request: &str) -> Response {
        self.client().await.ask(request).await
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        // The shell's own: no package, no unsafe code.
        let done = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id]).status().unwrap();
        assert!(done.success(), "cannot send {name}");
    }

    /// What `/proc` says of its memory, in KiB: `VmRSS` now, `VmHWM` the most there ever was.
    pub fn memory_kib(&self, key: &str) -> u64 {
        let id = self.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect(key);
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = within("the end of the gateway", self.exit.wait_for(Option::is_some)).await;
        status.expect("an exit status").expect("an exit status")
    }

    /// Ends it as an operator does; it has to end well.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let status = self.ended().await;
        assert!(status.success(), "{status}");
    }
}

/// The address a log line says something is bound to, in either format.
fn bound(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("bound")?;
    after.trim_start_matches(['=', ':', '"']).split([' ', '"']).next()?.parse().ok()
}

/// What stands before the name of the configuration file.
const ARGUMENTS: [&str; 2] = ["run", "--config"];

impl Drop for Gateway {
    fn drop(&mut self) {
        // Nothing to do about a process that cannot be killed.
        if self.is_running() {
            let _ = self.child.lock().map(|mut child| child.kill());
        }
        if thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log.borrow().join("\n"));
        }
    }
}
