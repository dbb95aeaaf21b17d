//! `tollgate webhook`: webhooks as their providers send them, to try out how they are received.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use clap::{Args, Subcommand};

use super::{EXIT_FAILED, complain, print};
use crate::clock;
use crate::config::load::Environment;
use crate::filters::webhook::{Signer, Signing};
use crate::types::{Period, Secret};

/// Largest body, in bytes: as large as the filter takes one.
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest file with a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Prints the fields that a provider would send with a body: for `curl -H @fields --data-binary @body`.
    Sign(Sign),
}

#[derive(Debug, Args)]
pub struct Sign {
    /// Who signs: slack, github, stripe, shopify, jira, trello, standard_webhooks, custom.
    #[arg(long, value_name = "NAME")]
    preset: String,
    #[command(flatten)]
    secret: SecretFrom,
    /// When it is signed: before now (-301s), after now (+10s), or seconds since 1970. Default: now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    at: Option<Moment>,
    /// The id of the message, where one is signed. Default: another one each time.
    #[arg(long)]
    id: Option<String>,
    /// trello: the URL that was registered.
    #[arg(long, value_name = "URL")]
    callback_url: Option<String>,
    /// custom: the field with the signature.
    #[arg(long, value_name = "NAME")]
    header: Option<String>,
    /// custom: what stands before the signature.
    #[arg(long)]
    prefix: Option<String>,
    /// custom: hex, base64.
    #[arg(long)]
    encoding: Option<String>,
    /// custom: sha1, sha256, sha512.
    #[arg(long)]
    algorithm: Option<String>,
    /// custom: what is signed, such as {timestamp}.{body}
    #[arg(long, value_name = "PARTS")]
    signed: Option<String>,
    /// custom: the field with the timestamp.
    #[arg(long, value_name = "NAME")]
    timestamp_header: Option<String>,
    /// custom: the field with the id.
    #[arg(long, value_name = "NAME")]
    id_header: Option<String>,
    /// The body; `-` for standard input. At most 64 MiB.
    file: PathBuf,
}

/// Never on the command line itself, where everybody on the machine reads it, and the history of the shell keeps it.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SecretFrom {
    /// The variable of the environment that holds the secret.
    #[arg(long, value_name = "VARIABLE")]
    secret_env: Option<String>,
    /// The file that holds it; a line break at its end is none of it.
    #[arg(long, value_name = "PATH")]
    secret_file: Option<PathBuf>,
}

/// When a message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Seconds since 1970.
    At(u64),
    /// In seconds.
    Before(u64),
    After(u64),
}

fn moment(text: &str) -> Result<Moment, String> {
    let seconds = |text: &str| match text.parse::<Period>() {
        Ok(period) if period.0.subsec_nanos() == 0 => Ok(period.0.as_secs()),
        _ => Err("a pause is whole seconds, such as -301s or +5m".to_owned()),
    };
    match (text.strip_prefix('-'), text.strip_prefix('+')) {
        (Some(before), _) => seconds(before).map(Moment::Before),
        (_, Some(after)) => seconds(after).map(Moment::After),
        _ => text.parse().map(Moment::At).map_err(|_| "write -301s, +10s, or seconds since 1970".to_owned()),
    }
}

impl Moment {
    fn seconds(self, now: u64) -> u64 {
        match self {
            Self::At(seconds) => seconds,
            Self::Before(seconds) => now.saturating_sub(seconds),
            Self::After(seconds) => now.saturating_add(seconds),
        }
    }
}

pub fn webhook(command: &WebhookCommand) -> ExitCode {
    let WebhookCommand::Sign(sign) = command;
    match signed(sign, &Environment::Process) {
        Ok(fields) => {
            print(&fields);
            ExitCode::SUCCESS
        }
        Err(message) => {
            complain(&format!("tollgate webhook sign: {message}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// The fields, one in each line.
fn signed(sign: &Sign, environment: &Environment) -> Result<String, String> {
    let signing = Signing {
        preset: &sign.preset,
        callback_url: sign.callback_url.as_deref(),
        header: sign.header.as_deref(),
        prefix: sign.prefix.as_deref(),
        encoding: sign.encoding.as_deref(),
        algorithm: sign.algorithm.as_deref(),
        signed: sign.signed.as_deref(),
        timestamp_header: sign.timestamp_header.as_deref(),
        id_header: sign.id_header.as_deref(),
    };
    let secret = secret(&sign.secret, environment)?;
    let signer = Signer::new(&signing, secret).map_err(|mistakes| mistakes.join("\n  "))?;
    if sign.at.is_some() && !signer.signs_time() {
        return Err(format!("--at: {} signs no timestamp", sign.preset));
    }
    if sign.id.is_some() && !signer.signs_id() {
        return Err(format!("--id: {} signs no id", sign.preset));
    }
    let body = body(&sign.file)?;
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = sign.at.map_or(now, |at| at.seconds(now));
    let id = sign.id.clone().unwrap_or_else(|| format!("msg_{:032x}", fastrand::u128(..)));
    let fields = signer.sign(&body, time, &id)?;
    Ok(fields.into_iter().map(|(name, value)| format!("{name}: {value}\n")).collect())
}

fn secret(from: &SecretFrom, environment: &Environment) -> Result<Secret, String> {
    let (text, place) = match (&from.secret_env, &from.secret_file) {
        (Some(name), _) => {
            let text = environment.get(name).ok_or_else(|| format!("the variable {name} is not set, or not UTF-8"))?;
            (text, name.clone())
        }
        (None, Some(path)) => {
            let bytes = file(path, SECRET_BYTES_MAX)?;
            let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            (line.strip_suffix('\r').unwrap_or(line).to_owned(), path.display().to_string())
        }
        (None, None) => return Err("say where the secret is: --secret-env or --secret-file".to_owned()),
    };
    text.parse().map_err(|_| format!("{place}: the secret is empty"))
}

fn body(path: &Path) -> Result<Vec<u8>, String> {
    if path == Path::new("-") {
        whole(stdin().lock(), "standard input", BODY_BYTES_MAX)
    } else {
        file(path, BODY_BYTES_MAX)
    }
}

fn file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| format!("{name}: {error}"))?;
    whole(file, &name, bytes_max)
}

fn whole(from: impl Read, name: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = from.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
    let read = read.map_err(|error| format!("{name}: {error}"))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > bytes_max {
        return Err(format!("{name} is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_before_or_after_now_or_a_time() {
        for (text, seconds) in
            [("-301s", 699), ("+10s", 1010), ("-1h", 0), ("+1m", 1060), ("1531420618", 1_531_420_618), ("0", 0)]
        {
            assert_eq!(moment(text).unwrap().seconds(1000), seconds, "{text}");
        }
        for text in ["", "-", "now", "-301", "+1500ms", "--1s", "1.5", "99999999999999999999"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        assert_eq!(whole(&b"abc"[..], "x", 3).unwrap(), b"abc");
        assert_eq!(whole(&b"abcd"[..], "x", 3).unwrap_err(), "x is larger than 3 bytes");
        assert!(whole(std::io::repeat(0), "x", 100).is_err());
    }
}
