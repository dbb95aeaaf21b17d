//! The storm: the configuration changes without pause while clients are busy, and nobody may notice.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tollgate::clock;

use super::clients::{self, GENERATION, Tally};
use super::process::Process;
use super::service;
use super::wire::{Answer, Wire};

/// How long a change may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Plan {
    pub binary: PathBuf,
    pub reloads: u64,
    /// An eighth of them upload, an eighth are WebSockets, the others ask again and again.
    pub connections: usize,
    pub trigger: Trigger,
    /// Every so many reloads the fragment is broken.
    pub broken_every: u64,
    /// Memory is looked at every so many reloads.
    pub sample_every: u64,
}

/// What makes the gateway look at its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Trigger {
    /// `POST /reload` on the admin address
    Api,
    /// SIGHUP
    Signal,
    /// The change of the file alone
    Watch,
}

/// What came of it.
pub struct Outcome {
    pub tally: Arc<Tally>,
    /// Reloads that were applied.
    pub applied: u64,
    /// Broken ones that were refused.
    pub refused: u64,
    /// From the change of the file to the moment it was in use or refused, in microseconds, sorted.
    pub reloads_us: Vec<u32>,
    pub samples: Vec<Sample>,
    pub elapsed: Duration,
}

/// The gateway's memory after a number of reloads.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub reloads: u64,
    pub resident_kib: u64,
    pub requests: u64,
    pub failed: u64,
}

impl Outcome {
    /// Memory in the last quarter of the storm, relative to that in the second one: an allocator swings, a leak climbs.
    /// `None` with too few samples to tell.
    pub fn growth(&self) -> Option<f64> {
        const QUARTER_MIN: usize = 2;
        let quarter = self.samples.len() / 4;
        let sum = |samples: &[Sample]| samples.iter().map(|sample| sample.resident_kib as f64).sum::<f64>();
        let second = self.samples.get(quarter..quarter.saturating_mul(2))?;
        let last = self.samples.get(self.samples.len().checked_sub(quarter)?..)?;
        (quarter >= QUARTER_MIN).then(|| sum(last) / sum(second) - 1.0)
    }

    /// Nothing failed and nothing was closed.
    pub fn is_clean(&self) -> bool {
        self.tally.failed() == 0 && self.tally.closed.load(Ordering::Relaxed) == 0
    }
}

impl Sample {
    /// Stands above the lines of samples.
    pub const TITLE: &str = "  reloads   memory KiB     requests   failed";
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9} {:>12} {:>12} {:>8}", self.reloads, self.resident_kib, self.requests, self.failed)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        writeln!(f, "{:<22}{:.1} s", "time", self.elapsed.as_secs_f64())?;
        writeln!(f, "{:<22}{} applied, {} refused", "reloads", self.applied, self.refused)?;
        writeln!(f, "{:<22}{}", "reload, ms", percentiles(&self.reloads_us))?;
        writeln!(f, "{:<22}{}", "requests", count(&tally.requests))?;
        writeln!(f, "{:<22}{}", "latency, ms", percentiles(&tally.latencies_us()))?;
        writeln!(f, "{:<22}{}", "streamed uploads", count(&tally.uploads))?;
        writeln!(f, "{:<22}{}", "WebSocket messages", count(&tally.pings))?;
        writeln!(f, "{:<22}{}", "failed", tally.failed())?;
        for failure in tally.failures() {
            writeln!(f, "  {failure}")?;
        }
        writeln!(f, "{:<22}{}", "closed connections", count(&tally.closed))?;
        let growth = self.growth().map_or("too few samples".to_owned(), |growth| format!("{:+.1} %", growth * 100.0));
        let resident = || self.samples.iter().map(|sample| sample.resident_kib);
        let (least, most) = (resident().min().unwrap_or_default(), resident().max().unwrap_or_default());
        writeln!(f, "{:<22}{least} to {most}", "memory, KiB")?;
        write!(f, "{:<22}{growth}", "growth of memory")
    }
}

fn percentiles(sorted_us: &[u32]) -> String {
    let at = |share: f64| {
        let index = (sorted_us.len() as f64 * share) as usize;
        let value = sorted_us.get(index.min(sorted_us.len().saturating_sub(1))).copied().unwrap_or_default();
        f64::from(value) / 1000.0
    };
    format!("p50 {:.2}, p99 {:.2}, largest {:.2}", at(0.5), at(0.99), at(1.0))
}

/// Runs the storm. An error means that the gateway did not follow, or ended; what clients suffered is in the outcome.
pub async fn run(plan: &Plan, mut progress: impl FnMut(&Sample)) -> anyhow::Result<Outcome> {
    let services = Services { http: service::http().await?, sockets: service::sockets().await? };
    let gateway = Process::start(&plan.binary, ROOT, &services.fragment(0))?;
    let admin = Admin::connect(gateway.admin).await?;
    let tally = Arc::new(Tally::default());
    let mut clients = start_clients(plan.connections, gateway.address, &tally);
    let mut storm = Storm { gateway, admin, services, trigger: plan.trigger, in_use: 0 };
    let mut outcome = Outcome {
        tally: Arc::clone(&tally),
        applied: 0,
        refused: 0,
        reloads_us: Vec::new(),
        samples: Vec::new(),
        elapsed: Duration::ZERO,
    };
    let started = clock::now();
    for reload in 1..=plan.reloads {
        let broken = reload.is_multiple_of(plan.broken_every);
        let took = storm.change(reload, broken).await.with_context(|| {
            let suffered = tally.failures().join("\n");
            format!("reload {reload} (broken: {broken})\n{suffered}\n{}", storm.gateway.log())
        })?;
        outcome.reloads_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        *(if broken { &mut outcome.refused } else { &mut outcome.applied }) += 1;
        if reload.is_multiple_of(plan.sample_every) || reload == plan.reloads {
            let resident_kib = storm.gateway.resident_kib()?;
            let requests = tally.requests.load(Ordering::Relaxed);
            let sample = Sample { reloads: reload, resident_kib, requests, failed: tally.failed() };
            progress(&sample);
            outcome.samples.push(sample);
        }
    }
    outcome.elapsed = clock::now().saturating_duration_since(started);
    outcome.reloads_us.sort_unstable();
    tally.stop.store(true, Ordering::Relaxed);
    while clients.join_next().await.is_some() {}
    // Its connection would be waited for.
    drop(storm.admin);
    storm.gateway.stop()?;
    Ok(outcome)
}

/// What changes the configuration.
struct Storm {
    gateway: Process,
    admin: Admin,
    services: Services,
    trigger: Trigger,
    /// The newest sound fragment.
    in_use: u64,
}

impl Storm {
    /// Changes the fragment, and waits until that is in use or refused: how long it took.
    async fn change(&mut self, reload: u64, broken: bool) -> anyhow::Result<Duration> {
        let sound = self.services.fragment(reload);
        let text = if broken { broken_fragment(reload, &sound) } else { sound };
        let before = clock::now();
        self.gateway.write_fragment(&text)?;
        match self.trigger {
            Trigger::Api => self.admin.reload().await?,
            Trigger::Signal => self.gateway.signal("HUP")?,
            Trigger::Watch => {}
        }
        self.admin.await_outcome(broken).await?;
        let took = clock::now().saturating_duration_since(before);
        if !broken {
            self.in_use = reload;
        }
        probe(self.gateway.address, self.in_use).await?;
        Ok(took)
    }
}

fn start_clients(connections: usize, address: SocketAddr, tally: &Arc<Tally>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..connections {
        let tally = Arc::clone(tally);
        match number % 8 {
            0 => clients.spawn(clients::uploads(address, tally)),
            1 => clients.spawn(clients::socket(address, tally)),
            _ => clients.spawn(clients::gets(address, tally)),
        };
    }
    clients
}

/// A new connection runs through exactly the configuration that is in use.
async fn probe(address: SocketAddr, generation: u64) -> anyhow::Result<()> {
    let answer = Wire::connect(address).await?.ask("GET", "/jobs/0").await?;
    let seen = answer.field(GENERATION);
    let text = answer.text();
    ensure!(
        seen == Some(&generation.to_string()),
        "{GENERATION} is {seen:?}, not {generation}: {} {text}",
        answer.status
    );
    Ok(())
}

/// The admin address, and what it said last.
struct Admin {
    address: SocketAddr,
    wire: Wire,
    hash: String,
}

impl Admin {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let mut admin = Self { address, wire: Wire::connect(address).await?, hash: String::new() };
        admin.hash = admin.status().await?.0;
        Ok(admin)
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        let answer = self.ask("POST", "/reload").await?;
        // How a reload that was refused is answered is not the matter here.
        ensure!(answer.status < 500, "POST /reload: {} {}", answer.status, answer.text());
        Ok(())
    }

    /// Waits until the fragment on disk is in use, or is said to be wrong.
    async fn await_outcome(&mut self, broken: bool) -> anyhow::Result<()> {
        let waiting = async {
            loop {
                let (hash, sound) = self.status().await?;
                if broken != sound && (broken || hash != self.hash) {
                    ensure!(!broken || hash == self.hash, "a broken fragment changed the configuration");
                    self.hash = hash;
                    return Ok(());
                }
                // The admin address tells nobody by itself.
                sleep(Duration::from_millis(1)).await;
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the change was not seen within {PATIENCE:?}"),
        }
    }

    /// On the connection there is, or on a new one: the admin address bounds how long one may last.
    async fn ask(&mut self, method: &str, path: &str) -> anyhow::Result<Answer> {
        if let Ok(answer) = timeout(PATIENCE, self.wire.ask(method, path)).await? {
            return Ok(answer);
        }
        self.wire = Wire::connect(self.address).await?;
        Ok(timeout(PATIENCE, self.wire.ask(method, path)).await??)
    }

    /// Hash of the configuration in use, and whether every file is in use as it is on disk.
    async fn status(&mut self) -> anyhow::Result<(String, bool)> {
        let answer = self.ask("GET", "/status").await?;
        ensure!(answer.status == 200, "GET /status: {} {}", answer.status, answer.text());
        let status: Value = serde_json::from_slice(&answer.body)?;
        let hash = status.pointer("/config/hash").and_then(Value::as_str).context("no hash in /status")?;
        let files = status.pointer("/config/files").and_then(Value::as_array).context("no files in /status")?;
        Ok((hash.to_owned(), files.iter().all(|file| file.get("ok") == Some(&Value::Bool(true)))))
    }
}

const ROOT: &str = "\
version: 1
listeners: [{ bind: 127.0.0.1:0 }]
admin: { bind: 127.0.0.1:0 }
include: [routes.d/*.yaml]
defaults: { body_max: 16MiB }
log: { format: json }
access_log: { to: none }
";

/// What stands behind the gateway.
struct Services {
    http: SocketAddr,
    sockets: SocketAddr,
}

impl Services {
    /// A fragment that differs from every other one: each has a route of its own, every other its own field to the
    /// upstream, and every fifth changes the upstream itself.
    fn fragment(&self, generation: u64) -> String {
        let Self { http, sockets } = self;
        let keepalive = 60 + generation / 5 % 7;
        let seen = if generation.is_multiple_of(2) { "request: { set: { X-Seen: \"{path.number}\" } }, " } else { "" };
        format!(
            "upstreams:
  storm: {{ targets: [{{ address: \"{http}\" }}], timeouts: {{ keepalive: {keepalive}s }} }}
  sockets: {{ targets: [{{ address: \"{sockets}\" }}] }}
routes:
  - name: storm.work
    match: GET /jobs/{{number}}
    filters: [{{ headers: {{ {seen}response: {{ set: {{ {GENERATION}: \"{generation}\" }} }} }} }}]
    upstream: storm
  - name: storm.upload
    match: POST /upload
    filters: [{{ headers: {{ response: {{ set: {{ {GENERATION}: \"{generation}\" }} }} }} }}]
    upstream: storm
  - {{ name: storm.socket, match: GET /socket, upstream: sockets }}
  - {{ name: storm.own.{generation}, match: GET /own/{generation}, upstream: storm }}
"
        )
    }
}

/// The ways to be wrong: no YAML, an unknown filter, a reference to nothing, a file cut short.
fn broken_fragment(reload: u64, sound: &str) -> String {
    match reload / 20 % 4 {
        0 => format!("{sound}  - {{ name: [\n"),
        1 => sound.replace("headers:", "haeders:"),
        2 => sound.replace("upstream: storm\n", "upstream: strom\n"),
        _ => sound.split("upstream: storm").next().unwrap_or_default().to_owned(),
    }
}
