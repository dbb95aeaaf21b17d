//! `tollgate key`: makes API keys, and hashes those that are there.
//!
//! The key itself goes to standard output, alone, so that it can be piped to where it is kept; everything else goes to
//! standard error. A key is never taken from the command line, where every user of the machine could read it.

mod edit;
mod paste;

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};

use super::{EXIT_CONFIGURATION, EXIT_FAILED, complain, load_and_compile, print};
use crate::clock;
use crate::config::load::{FILE_BYTES_MAX, Overrides};
use crate::identity::{Digest, KEY_BYTES_MAX, NewKey, is_prefix, parse_time, random_text, scope_problem, visible_part};
use crate::types::Period;
use crate::yaml::{Located, Place};
use paste::Paste;

/// A key of fewer characters could be guessed from its hash.
const SOUND_CHARS_MIN: usize = 32;

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Makes a key of 256 random bits, prints it once, and the YAML that lets it in.
    New(New),
    /// Reads a key from standard input and prints what the configuration holds of it.
    Hash,
}

#[derive(Debug, Args)]
pub struct New {
    /// Whose key it is: a consumer of the configuration, or a new one.
    #[arg(long, value_name = "NAME", value_parser = name)]
    consumer: String,
    /// Scopes, separated by commas: of a new consumer, or the only ones this key of an existing one has.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', value_parser = scope)]
    scopes: Vec<String>,
    /// When it ends: 90d from now, or at 2027-01-01T00:00:00Z. Without it, never.
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Expiry>,
    /// The word before the `_` of the key.
    #[arg(long, default_value = "tg", value_parser = prefix)]
    prefix: String,
    /// What the key is called. Default: the consumer and the day.
    #[arg(long, value_parser = name)]
    id: Option<String>,
    /// Adds it to this file, comments kept, instead of printing what to paste.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
enum Expiry {
    After(Period),
    At(SystemTime),
}

pub fn key(command: KeyCommand) -> ExitCode {
    let done = match command {
        KeyCommand::New(options) => new(&options),
        KeyCommand::Hash => hash(),
    };
    done.unwrap_or_else(|message| {
        complain(&format!("tollgate key: {message}\n"));
        ExitCode::from(EXIT_FAILED)
    })
}

fn new(options: &New) -> Result<ExitCode, String> {
    let now = clock::wall();
    let expires = match options.expires {
        None => None,
        Some(Expiry::At(time)) => Some(time),
        Some(Expiry::After(period)) => Some(now.checked_add(period.0).ok_or("`--expires` is too far away")?),
    };
    if expires.is_some_and(|expires| expires <= now) {
        return Err("`--expires` is over already".to_owned());
    }
    let key = NewKey::random(&options.prefix).map_err(|error| format!("no randomness: {error}"))?;
    let paste = Paste {
        consumer: &options.consumer,
        id: options.id.clone().unwrap_or_else(|| format!("{}-{}", options.consumer, day(now))),
        key: &key,
        scopes: &options.scopes,
        expires,
    };
    match &options.write {
        Some(path) => write(path, paste, &key, options.id.is_some()),
        None => {
            print(&format!("{}\n", key.text));
            complain(&format!("\n{}", instructions(&paste)));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn instructions(paste: &Paste<'_>) -> String {
    format!(
        "The key stands above; it is not shown again. To let it in, add this to gateway.yaml or an included file\n\
         (of a consumer that is there already, only what begins with `- id:`, under its `keys`):\n\n{}",
        paste.as_new_consumer()
    )
}

/// Adds the key to a file.
fn write(path: &Path, mut paste: Paste<'_>, key: &NewKey, id_is_chosen: bool) -> Result<ExitCode, String> {
    let at = |error: io::Error| format!("{}: {error}", path.display());
    // One that is not there yet begins empty; its folder has to be there.
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at(error)),
    }
    // A link stays one: what it leads to is replaced.
    let target = fs::canonicalize(path).map_err(at)?;
    if fs::metadata(&target).map_err(at)?.len() > FILE_BYTES_MAX {
        return Err(format!("{}: larger than {FILE_BYTES_MAX} bytes", path.display()));
    }
    let before = fs::read_to_string(&target).map_err(at)?;
    let file = edit::File::read(path, &before).map_err(|problems| format!("{problems}mend this first"))?;
    if id_is_chosen && file.has_id(&paste.id) {
        return Err(format!("{} has a key `{}` already: choose another `--id`", path.display(), paste.id));
    }
    paste.id = file.free_id(&paste.id);
    let after = match file.with_key(&paste) {
        Ok(after) => after,
        Err(why) => {
            print(&format!("{}\n", key.text));
            complain(&format!("tollgate key: {} was not changed: {why}.\n\n{}", path.display(), instructions(&paste)));
            return Ok(ExitCode::from(EXIT_FAILED));
        }
    };
    if file.is_root() {
        // The gateway would refuse it as a whole: say so before, not after.
        let overrides = Overrides::from([(path.to_owned(), Some(after.clone()))]);
        if let Err(broken) = load_and_compile(path, &overrides) {
            complain(&broken.render());
            complain(&format!("tollgate key: with this key {} would be refused; it was not changed\n", path.display()));
            return Ok(ExitCode::from(EXIT_CONFIGURATION));
        }
    }
    replace(&target, &before, &after).map_err(at)?;
    print(&format!("{}\n", key.text));
    complain(&format!(
        "\nThe key stands above; it is not shown again. Its hash was added to {} as `{}` of `{}`;\n\
         a gateway that runs lets it in within a second.\n",
        path.display(),
        paste.id,
        paste.consumer
    ));
    Ok(ExitCode::SUCCESS)
}

/// Puts another text in the place of a file's, in one step: a gateway that watches it sees the old one or the new one.
fn replace(target: &Path, before: &str, after: &str) -> io::Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let random = random_text(8).map_err(io::Error::other)?;
    // Not `*.yaml`: nothing includes it.
    let temporary = target.with_file_name(format!(".{name}.{random}.tmp"));
    let replaced = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.set_permissions(fs::metadata(target)?.permissions())?;
        file.write_all(after.as_bytes())?;
        file.sync_all()?;
        if fs::read_to_string(target)? != before {
            return Err(io::Error::other("somebody else changed it meanwhile; try again"));
        }
        fs::rename(&temporary, target)
    })();
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

fn hash() -> Result<ExitCode, String> {
    if io::stdin().is_terminal() {
        complain("Paste the key and press Enter, then Ctrl-D.\n");
    }
    let mut text = Vec::new();
    // One byte more than a key and its line end take.
    let most = u64::try_from(KEY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(3);
    io::stdin().take(most).read_to_end(&mut text).map_err(|error| error.to_string())?;
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.contains(&b'\n') {
        return Err("a key is one line".to_owned());
    }
    let digest = Digest::of(line).ok_or_else(|| format!("a key has 1 to {KEY_BYTES_MAX} bytes"))?;
    print(&format!("sha256: {digest}\n"));
    if let Some(visible) = std::str::from_utf8(line).ok().and_then(visible_part) {
        print(&format!("prefix: {}\n", paste::scalar(visible)));
    }
    if line.len() < SOUND_CHARS_MIN {
        complain(&format!(
            "tollgate key: a key of fewer than {SOUND_CHARS_MIN} characters may be guessed from its hash; `tollgate key new` makes a better one\n"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// `2026-01-01`
fn day(now: SystemTime) -> String {
    clock::rfc3339(now).chars().take(10).collect()
}

fn name(text: &str) -> Result<String, String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > 100 || !text.bytes().all(sound) {
        return Err("1 to 100 letters, digits, `.`, `_` and `-`".to_owned());
    }
    Ok(text.to_owned())
}

fn scope(text: &str) -> Result<String, String> {
    match scope_problem(&Located::new(text.to_owned(), Place::UNKNOWN)) {
        Some(problem) => Err(problem.message),
        None => Ok(text.to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    is_prefix(text).then(|| text.to_owned()).ok_or_else(|| "1 to 16 letters, digits, `-` and `_`".to_owned())
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if let Some(time) = parse_time(text) {
        return Ok(Expiry::At(time));
    }
    text.parse().map(Expiry::After).map_err(|_| "write 90d, or 2027-01-01T00:00:00Z".to_owned())
}
