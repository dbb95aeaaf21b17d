//! The gateway as a process of its own, and the files it reads.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;

/// A running gateway. Dropped, it is killed.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    folder: TempDir,
    log: Arc<Mutex<Vec<String>>>,
}

/// Lines of the gateway's log that are kept.
const LOG_LINES_MAX: usize = 30;

impl Process {
    /// Starts `binary` with `root` as `gateway.yaml` and `fragment` as the one file it includes.
    pub fn start(binary: &Path, root: &str, fragment: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("routes.d"))?;
        fs::write(folder.path().join("gateway.yaml"), root)?;
        write_fragment(folder.path(), fragment)?;
        let mut child = Command::new(binary)
            .args(["run", "--config"])
            .arg(folder.path().join("gateway.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stderr = child.stderr.take().context("no standard error")?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let (told, bound) = std::sync::mpsc::channel();
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(found) = bound_address(&line) {
                    // Nobody asks any more once both addresses are known.
                    let _ = told.send(found);
                }
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(line);
                if lines.len() > LOG_LINES_MAX {
                    lines.remove(0);
                }
            }
        });
        // Whatever fails from here on, the process is not left behind.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { child, address: nowhere, admin: nowhere, folder, log };
        while process.address == nowhere || process.admin == nowhere {
            match bound.recv_timeout(std::time::Duration::from_secs(30)) {
                Ok((true, address)) => process.admin = address,
                Ok((false, address)) => process.address = address,
                Err(error) => bail!("the gateway did not start ({error}):\n{}", process.log()),
            }
        }
        Ok(process)
    }

    pub fn write_fragment(&self, text: &str) -> anyhow::Result<()> {
        write_fragment(self.folder.path(), text)
    }

    /// Sends a signal, such as `HUP`.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status()?;
        if !status.success() { bail!("the gateway has ended:\n{}", self.log()) } else { Ok(()) }
    }

    /// Asks it to end, and waits until it has; an error when it did not end well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        let status = self.child.wait()?;
        if !status.success() { bail!("the gateway ended with {status}:\n{}", self.log()) } else { Ok(()) }
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let path = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        let status = fs::read_to_string(path).with_context(|| format!("the gateway has ended:\n{}", self.log()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As an editor or a deployment does it: the new file is written aside and renamed into place.
fn write_fragment(folder: &Path, text: &str) -> anyhow::Result<()> {
    let aside = folder.join("storm.new");
    let mut file = fs::File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(aside, folder.join("routes.d/storm.yaml"))?;
    Ok(())
}

/// Whether this line of the log tells of the admin address, and the address.
fn bound_address(line: &str) -> Option<(bool, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = line.get("bound")?.as_str()?.parse().ok()?;
    Some((line.get("message")?.as_str()?.contains("admin"), address))
}
