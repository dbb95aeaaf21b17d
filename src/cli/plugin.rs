//! `tollgate plugin check`: what a plugin is, what it needs, and whether it starts here.
//!
//! It is loaded by what `run` loads it with; the instance that is started is given no request.

#[cfg(feature = "plugins")]
mod report;
#[cfg(feature = "plugins")]
mod sections;

use std::path::Path;
use std::process::ExitCode;

/// Without the cargo feature nothing can be said of a plugin.
#[cfg(not(feature = "plugins"))]
pub fn check(_: &Path, _: &[u8], _: bool) -> ExitCode {
    super::complain("tollgate plugin: this build has no plugins: it was made without the cargo feature `plugins`\n");
    ExitCode::from(super::EXIT_FAILED)
}

#[cfg(feature = "plugins")]
pub fn check(path: &Path, configuration: &[u8], json: bool) -> ExitCode {
    use super::{EXIT_CONFIGURATION, EXIT_FAILED, complain, print};

    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(message) => {
            complain(&format!("tollgate plugin: {}: {message}\n", path.display()));
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let report = report::Report::new(path, &bytes, configuration);
    if json {
        print(&report.as_json());
    } else {
        print(&report.as_text());
        complain(&report.problems());
    }
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIGURATION) }
}

/// The file, if it is no larger than one that is loaded.
#[cfg(feature = "plugins")]
fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;

    use crate::config::load::PLUGIN_BYTES_MAX;

    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(PLUGIN_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > PLUGIN_BYTES_MAX {
        return Err(format!("larger than {PLUGIN_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}
