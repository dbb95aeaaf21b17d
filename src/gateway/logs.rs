//! The logs as they are opened.

use crate::config;
use crate::lines::Target;
use crate::observe::access::{AccessFormat, AccessSettings};
use crate::observe::audit::AuditSettings;
use crate::observe::webhooks::WebhookLogSettings;

pub fn access_log(written: &config::AccessLog) -> Option<AccessSettings> {
    Some(AccessSettings {
        format: match written.format {
            config::AccessFormat::Json => AccessFormat::Json,
            config::AccessFormat::Combined => AccessFormat::Combined,
        },
        target: target(&written.to)?,
        rotate_bytes: written.rotate.0,
        keep: usize::from(written.keep),
    })
}

pub fn audit_log(written: &config::AuditLog) -> Option<AuditSettings> {
    Some(AuditSettings {
        target: target(&written.to)?,
        rotate_bytes: written.rotate.0,
        keep: usize::from(written.keep),
        denied_only: matches!(written.only, config::AuditOnly::Denied),
    })
}

pub fn webhook_log(written: &config::WebhookLog) -> Option<WebhookLogSettings> {
    let target = target(&written.to)?;
    Some(WebhookLogSettings { target, rotate_bytes: written.rotate.0, keep: usize::from(written.keep) })
}

fn target(to: &str) -> Option<Target> {
    match to {
        "none" => None,
        "stdout" => Some(Target::Stdout),
        file => Some(Target::File(file.into())),
    }
}
