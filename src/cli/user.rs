//! `tollgate user hash`: the hash of a password, to paste into the configuration.

use std::io::{BufRead as _, IsTerminal as _, Read as _, stdin};
use std::process::ExitCode;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{EXIT_FAILED, complain, print};
use crate::identity::{PASSWORD_BYTES_MAX, hash_password};

/// Shortest password, in bytes (NIST SP 800-63B §3.1.1.2 asks for 8 at least, and 15 where it stands alone).
const PASSWORD_BYTES_MIN: usize = 8;

/// Reads a password from standard input and prints its hash. At a terminal it asks, twice, and shows nothing.
pub fn hash(name: &str) -> ExitCode {
    match read().and_then(|password| hash_password(password.as_bytes())) {
        Ok(hash) => {
            let name = serde_json::Value::from(name);
            print(&format!("users:\n  - name: {name}\n    password: {hash}\n    roles: [user]\n"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            complain(&format!("tollgate: {why}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn read() -> Result<String, String> {
    let password = if stdin().is_terminal() { ask()? } else { piped()? };
    if password.len() < PASSWORD_BYTES_MIN || password.len() > PASSWORD_BYTES_MAX {
        return Err(format!("a password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes"));
    }
    Ok(password)
}

/// One line. The line break behind it is none of the password.
fn piped() -> Result<String, String> {
    let mut text = String::new();
    let bound = u64::try_from(PASSWORD_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(3);
    stdin().lock().take(bound).read_to_string(&mut text).map_err(|_| "the password is not UTF-8".to_owned())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains('\n') {
        return Err("a password is one line".to_owned());
    }
    Ok(line.to_owned())
}

fn ask() -> Result<String, String> {
    let silent = Silent::new()?;
    let (first, again) = (prompt("Password: ")?, prompt("Again: ")?);
    drop(silent);
    if first != again {
        return Err("the two are not the same".to_owned());
    }
    Ok(first)
}

fn prompt(text: &str) -> Result<String, String> {
    complain(text);
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(|error| error.to_string())?;
    complain("\n");
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Silent(Termios);

impl Silent {
    fn new() -> Result<Self, String> {
        let before = tcgetattr(stdin()).map_err(|error| error.to_string())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &silent).map_err(|error| error.to_string())?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing to be done about a terminal that has gone.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}
