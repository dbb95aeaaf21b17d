//! The binary is replaced while it serves: nobody notices.

mod activation;
mod failing;
mod load;
mod stored;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Client, Folder, Gateway, within};

/// A gateway whose binary is a copy of the one under test, and those that took over from it. All are killed when dropped.
struct Line {
    gateway: Gateway,
    program: PathBuf,
    /// The process that serves.
    process: u32,
    /// Lines of the log before the last upgrade.
    seen: usize,
}

impl Line {
    async fn start(yaml: &str) -> Self {
        let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nadmin: { bind: 127.0.0.1:0 }\nthreads: 2\n\
                    access_log: { to: none }\n";
        let folder = Folder::with(&[("gateway.yaml", &[head, yaml].concat())]);
        let program = folder.path("tollgate");
        install(&program);
        let gateway = Gateway::start_with(folder, &program, &[]).await;
        let process = gateway.id();
        Self { gateway, program, process, seen: 0 }
    }

    /// Tells the process that serves, and waits until the next one does.
    async fn upgrade(&mut self) {
        self.begin().await;
        self.served().await;
    }

    /// Tells the process that serves, and waits until it has started the next one, whose number is given.
    async fn begin(&mut self) -> u32 {
        self.seen = self.gateway.lines().len();
        send(self.process, "USR2");
        number(&self.gateway.logged_after(self.seen, "the next gateway starts").await)
    }

    async fn served(&mut self) {
        self.process = number(&self.gateway.logged_after(self.seen, "handed over").await);
    }

    async fn failed(&mut self) -> String {
        self.gateway.logged_after(self.seen, "the upgrade failed").await
    }

    /// The file that the serving process runs.
    fn runs(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/exe", self.process)).unwrap()
    }

    async fn client(&self) -> Client {
        self.gateway.client().await
    }

    /// Ends it as an operator does, and waits for all of them.
    async fn stop(mut self) {
        send(self.process, "TERM");
        self.gateway.ended().await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Its first process the harness ends. Who has ended already cannot be killed.
        for line in self.gateway.lines().iter().filter(|line| line.contains("the next gateway starts")) {
            let _ = Command::new("sh").args(["-c", "kill -s KILL \"$0\" 2>&1", &number(line).to_string()]).output();
        }
    }
}

/// Puts the binary there, as a package manager does: under another name first.
fn install(program: &Path) {
    let draft = program.with_extension("new");
    fs::copy(env!("CARGO_BIN_EXE_tollgate"), &draft).unwrap();
    fs::rename(draft, program).unwrap();
}

fn send(process: u32, signal: &str) {
    let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &process.to_string()]).status();
    assert!(sent.unwrap().success(), "cannot send {signal} to {process}");
}

/// What follows `process=` on a line of the log.
fn number(line: &str) -> u32 {
    let (_, after) = line.split_once("process=").unwrap_or_else(|| panic!("{line}"));
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..digits].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_that_is_there_now_takes_over() {
    let upstream = crate::harness::Upstream::echo().await;
    let mut line = Line::start(&crate::harness::all_to(&upstream)).await;
    let (first, before) = (line.process, line.runs());
    let mut idle = line.client().await;
    idle.get("/x").await;
    install(&line.program);
    assert!(line.runs().to_string_lossy().ends_with("(deleted)"), "{before:?} has another file");
    line.upgrade().await;
    assert_ne!(line.process, first);
    assert_eq!(line.runs(), line.program.canonicalize().unwrap());
    within("the old one closes what is idle", idle.closed()).await;
    line.gateway.logged("drained").await;
    assert_eq!(line.gateway.get("/x").await.status, 200);
    let metrics = line.gateway.scrape().await;
    assert_eq!(metrics.get("tollgate_generation"), Some(1.0), "the admin address was handed over as well");
    let address = line.gateway.address;
    line.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody holds the socket any more");
}
