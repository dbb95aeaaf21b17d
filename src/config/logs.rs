//! The logs as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::Size;

/// The error log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Log {
    /// Filter of the log lines, such as `info` or `info,tollgate::live=debug`. Default `info`.
    pub level: String,
    pub format: LogFormat,
    /// A file instead of standard error; reopened on SIGUSR1. `~` is the home folder.
    pub file: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Human,
    Json,
}

/// The access log: one line a request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AccessLog {
    pub format: AccessFormat,
    /// `stdout`, `none`, or a file; reopened on SIGUSR1. `~` is the home folder.
    pub to: String,
    /// A file is rotated when it is larger. Default 100MiB.
    pub rotate: Size,
    /// Rotated files that are kept. Default 5.
    pub keep: u16,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessFormat {
    #[default]
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}

/// The audit log: one line for each decision on who calls, and whether they may.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AuditLog {
    /// `none`, `stdout`, or a file; reopened on SIGUSR1. `~` is the home folder. Default none.
    pub to: String,
    /// A file is rotated when it is larger. Default 100MiB.
    pub rotate: Size,
    /// Rotated files that are kept. Default 5.
    pub keep: u16,
    /// `all` (default) decisions, or only those that `denied` something.
    pub only: AuditOnly,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditOnly {
    #[default]
    All,
    Denied,
}

/// The webhook log: one line for each webhook that arrives, and for each step of one that an inbox keeps.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WebhookLog {
    /// `none`, `stdout`, or a file; reopened on SIGUSR1. `~` is the home folder. Default none.
    pub to: String,
    /// A file is rotated when it is larger. Default 100MiB.
    pub rotate: Size,
    /// Rotated files that are kept. Default 5.
    pub keep: u16,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default(), file: None }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: AccessFormat::default(), to: "stdout".to_owned(), rotate: Size(100 * 1024 * 1024), keep: 5 }
    }
}

impl Default for AuditLog {
    fn default() -> Self {
        Self { to: "none".to_owned(), rotate: Size(100 * 1024 * 1024), keep: 5, only: AuditOnly::default() }
    }
}

impl Default for WebhookLog {
    fn default() -> Self {
        Self { to: "none".to_owned(), rotate: Size(100 * 1024 * 1024), keep: 5 }
    }
}
