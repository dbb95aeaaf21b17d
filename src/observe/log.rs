//! The error log: what the gateway and the engine below it have to say to an operator.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// The filter when the operator gives none.
pub const DEFAULT_FILTER: &str = "info";

/// Goes before every filter. The engine tells every request that a client broke off, and every connection that
/// failed: the access log and the metrics say the same with more context. A filter that names these targets wins.
const ENGINE_FILTER: &str = "pingora=warn,pingora_proxy=off,pingora_core=error,pingora_core::protocols=off,\
                             pingora_core::apps=off,pingora_core::connectors=off,pingora_core::server=warn";

const FILE_MODE: u32 = 0o640;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stderr,
    /// Appended to. A whole path: the folder must exist, and `~` has no meaning here.
    File(PathBuf),
}

#[derive(Debug, Error)]
pub enum LogError {
    #[error(
        "log filter `{filter}`: {reason}; write a level (`info`) or target=level pairs (`info,tollgate::live=debug`)"
    )]
    Filter { filter: String, reason: String },
    #[error("log file {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("a log is already set up: {0}")]
    Twice(String),
}

/// What is left to do with a log that runs.
#[derive(Clone, Debug)]
pub struct LogHandle {
    file: Option<Arc<LogFile>>,
}

impl LogHandle {
    /// Opens the log's file anew: for a SIGUSR1. Nothing to do on standard error.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.reopen())
    }
}

/// Sets up the log of the process, `log` records of libraries included. `filter` is a level or a list of
/// `target=level`, as in `info,tollgate::live=debug`; see [`DEFAULT_FILTER`].
///
/// # Errors
/// The filter cannot be read, the file cannot be opened, or a log is set up already.
pub fn init(filter: &str, format: LogFormat, target: LogTarget) -> Result<LogHandle, LogError> {
    let filter = parse_filter(filter)?;
    let ansi = target == LogTarget::Stderr && io::stderr().is_terminal();
    let file = match target {
        LogTarget::Stderr => None,
        LogTarget::File(path) => match LogFile::open(path.clone()) {
            Ok(file) => Some(Arc::new(file)),
            Err(source) => return Err(LogError::File { path, source }),
        },
    };
    let output = LogOutput { file: file.clone(), indents: format == LogFormat::Human };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(output);
    match format {
        LogFormat::Human => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(|error| LogError::Twice(error.to_string()))?;
    Ok(LogHandle { file })
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    let given = if filter.trim().is_empty() { DEFAULT_FILTER } else { filter };
    EnvFilter::builder()
        .parse(format!("{ENGINE_FILTER},{given}"))
        .map_err(|error| LogError::Filter { filter: filter.to_owned(), reason: error.to_string() })
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: ArcSwap<File>,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = ArcSwap::from_pointee(append(&path)?);
        Ok(Self { path, file })
    }

    fn reopen(&self) -> io::Result<()> {
        self.file.store(Arc::new(append(&self.path)?));
        Ok(())
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// Makes a writer for each event. The events of a JSON log are lines already.
struct LogOutput {
    file: Option<Arc<LogFile>>,
    indents: bool,
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        LogWriter { file: self.file.as_ref().map(|file| file.file.load_full()), indents: self.indents }
    }
}

struct LogWriter {
    file: Option<Arc<File>>,
    indents: bool,
}

impl Write for LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let shown = if self.indents { indented(event) } else { Cow::Borrowed(event) };
        match &mut self.file {
            Some(file) => file.write_all(&shown)?,
            None => io::stderr().write_all(&shown)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Indents what follows a line feed inside an event, so that text from outside cannot pass for an event of its own,
/// and an error that shows a piece of a file stays readable.
fn indented(event: &[u8]) -> Cow<'_, [u8]> {
    let (body, end) = match event.split_last() {
        Some((b'\n', body)) => (body, b"\n".as_slice()),
        _ => (event, b"".as_slice()),
    };
    if !body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Cow::Borrowed(event);
    }
    let mut shown = Vec::with_capacity(event.len().saturating_mul(2));
    for byte in body {
        match byte {
            b'\n' => shown.extend_from_slice(b"\n    "),
            b'\r' => shown.extend_from_slice(b"\\r"),
            other => shown.push(*other),
        }
    }
    shown.extend_from_slice(end);
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests;
