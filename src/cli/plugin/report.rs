//! What there is to say of a plugin, for people and for machines.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tracing_subscriber::fmt::format::debug_fn;

use super::sections::{Group, of_exports, of_imports};
use crate::cli::{count, file_name};
use crate::clock;
use crate::wasm::instance::Failure;
use crate::wasm::plugin::{Plugin, Terms};
use crate::wasm::program::{Inspected, Program, inspect};

/// How wide lists of names are, in columns.
const WIDTH: usize = 100;
/// Most bytes of log lines that are kept.
const LOG_BYTES_MAX: usize = 64 * 1024;

pub struct Report {
    file: String,
    bytes: usize,
    /// Why it cannot even be looked into, or what it is.
    inspected: Result<Inspected, String>,
    start: Option<Start>,
}

/// How a plugin starts that can be loaded.
struct Start {
    compiled_in: Duration,
    started: Result<Started, String>,
    /// What it said meanwhile.
    log: String,
}

struct Started {
    took: Duration,
    memory_bytes: usize,
}

impl Report {
    pub fn new(path: &Path, bytes: &[u8], configuration: &[u8]) -> Self {
        let inspected = inspect(bytes);
        let is_loadable = inspected.as_ref().is_ok_and(|inspected| inspected.problems.is_empty());
        let start = is_loadable.then(|| Start::new(&file_name(path), bytes, configuration));
        Self { file: file_name(path), bytes: bytes.len(), inspected, start }
    }

    pub fn is_good(&self) -> bool {
        self.all_problems().is_empty()
    }

    fn all_problems(&self) -> Vec<&str> {
        let refused = self.start.as_ref().and_then(|start| start.started.as_ref().err());
        let found = match &self.inspected {
            Ok(inspected) => inspected.problems.iter().collect(),
            Err(problem) => vec![problem],
        };
        found.into_iter().chain(refused).map(String::as_str).collect()
    }

    /// Each problem, then how many there are; nothing when there are none.
    pub fn problems(&self) -> String {
        let problems = self.all_problems();
        if problems.is_empty() {
            return String::new();
        }
        let lines: String = problems.iter().map(|problem| format!("{}: {problem}\n", self.file)).collect();
        format!("{lines}\n{}\n", count(problems.len(), "problem"))
    }

    pub fn as_text(&self) -> String {
        let Ok(inspected) = &self.inspected else { return String::new() };
        let version = inspected.version.map_or_else(|| "no known ABI".to_owned(), |version| format!("ABI {version}"));
        let mut text = format!("{}: {version}, {}\n", self.file, count(self.bytes, "byte"));
        list(&mut text, "host functions that it uses", &of_imports(&inspected.imports));
        list(&mut text, "callbacks that it has", &of_exports(&inspected.exports));
        if let Some(start) = &self.start {
            start.write(&mut text);
        }
        text
    }

    pub fn as_json(&self) -> String {
        let inspected = self.inspected.as_ref().ok();
        let start = self.start.as_ref();
        let started = start.and_then(|start| start.started.as_ref().ok());
        let object = json!({
            "ok": self.is_good(),
            "file": self.file,
            "bytes": self.bytes,
            "abi": inspected.and_then(|inspected| inspected.version),
            "imports": inspected.map(|inspected| as_object(&of_imports(&inspected.imports))),
            "exports": inspected.map(|inspected| as_object(&of_exports(&inspected.exports))),
            "problems": self.all_problems(),
            "compile_ms": start.map(|start| millis(start.compiled_in)),
            "start_ms": started.map(|started| millis(started.took)),
            "memory_bytes": started.map(|started| started.memory_bytes),
            "log": start.map(|start| start.log.lines().collect::<Vec<_>>()),
        });
        format!("{object:#}\n")
    }
}

impl Start {
    fn new(name: &str, bytes: &[u8], configuration: &[u8]) -> Self {
        let began = clock::now();
        let program = Program::new(bytes);
        let compiled_in = since(began);
        let terms =
            Terms { name: name.into(), configuration: Bytes::copy_from_slice(configuration), ..Terms::default() };
        let log = Log::default();
        let began = clock::now();
        let plugin = tracing::subscriber::with_default(log.subscriber(), || match program {
            Ok(program) => Plugin::new(Arc::new(program), terms).and_then(|plugin| plugin.take()).map_err(words),
            Err(problems) => Err(problems.join("; ")),
        });
        let took = since(began);
        let started = plugin.map(|instance| Started {
            took,
            memory_bytes: instance.lock().unwrap_or_else(PoisonError::into_inner).memory_used(),
        });
        Self { compiled_in, started, log: log.text() }
    }

    fn write(&self, text: &mut String) {
        let _ = write!(text, "compiles in {} ms", millis(self.compiled_in));
        if let Ok(Started { took, memory_bytes }) = &self.started {
            let _ = write!(text, ", starts in {} ms, an instance has {memory_bytes} bytes of memory", millis(*took));
        }
        text.push('\n');
        if !self.log.is_empty() {
            text.push_str("what it said when it started\n");
        }
        for line in self.log.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
}

fn words(failure: Failure) -> String {
    match failure {
        Failure::Start(words) => words,
        Failure::Trap(words) => format!("it fails when it starts: {words}"),
        Failure::Time => "it takes longer to start than it may".to_owned(),
        other => format!("it does not start: {}", other.reason()),
    }
}

fn since(began: Instant) -> Duration {
    clock::now().saturating_duration_since(began)
}

/// With one place after the point.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn as_object(groups: &[Group]) -> Value {
    Value::Object(groups.iter().map(|group| (group.name.to_owned(), json!(group.names))).collect())
}

/// A list under a heading, its lines no wider than [`WIDTH`] where a name allows.
fn list(text: &mut String, heading: &str, groups: &[Group]) {
    let _ = writeln!(text, "{heading}");
    let widest = groups.iter().map(|group| group.name.len()).max().unwrap_or_default();
    for group in groups {
        let mut line = format!("  {:widest$} ", group.name);
        let indent = line.len();
        for (index, name) in group.names.iter().enumerate() {
            let comma = if index.saturating_add(1) < group.names.len() { "," } else { "" };
            if line.len() > indent && line.len().saturating_add(name.len()) > WIDTH {
                let _ = writeln!(text, "{line}");
                line = " ".repeat(indent);
            }
            let visible = name.escape_debug();
            let _ = write!(line, " {visible}{comma}");
        }
        let _ = writeln!(text, "{line}");
        if let Some(note) = group.note {
            let _ = writeln!(text, "{} ({note})", " ".repeat(indent));
        }
    }
}

/// Log lines of the plugin.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let log = self.clone();
        let message = debug_fn(|writer, field, value| match field.name() {
            "message" => write!(writer, "{value:?}"),
            _ => Ok(()),
        });
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .fmt_fields(message)
            .with_writer(move || log.clone())
            .finish()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// What comes after [`LOG_BYTES_MAX`] is dropped.
impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() < LOG_BYTES_MAX {
            log.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
