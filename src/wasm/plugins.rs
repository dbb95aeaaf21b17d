//! The plugins that run, by what they are made of: a reload that changes neither the file nor the settings of one keeps its
//! instances, and a file is compiled once, however many filters name it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sha2::{Digest, Sha256};

use super::call::Outlet;
use super::instance::Failure;
use super::plugin::{Plugin, Terms};
use super::program::Program;

/// Every plugin of the process.
#[derive(Default)]
pub struct Plugins {
    known: Mutex<Known>,
    /// Through which they send their calls.
    outlet: Outlet,
}

#[derive(Default)]
struct Known {
    programs: HashMap<[u8; 32], Weak<Program>>,
    running: Vec<Weak<Plugin>>,
}

impl Plugins {
    /// Through which they send their calls.
    pub fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// The plugin of this file with these terms: the one that runs already, or a new one. Compiling takes some tens of
    /// milliseconds to seconds.
    ///
    /// # Errors
    /// Why it cannot be used, in words; at least one.
    pub fn get(&self, file: &[u8], terms: &Terms) -> Result<Arc<Plugin>, Vec<String>> {
        let digest: [u8; 32] = Sha256::digest(file).into();
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |plugin: &Arc<Plugin>| plugin.program().digest == digest && **plugin.terms() == *terms;
        let running = known().running.iter().filter_map(Weak::upgrade).find(same);
        if let Some(running) = running {
            return Ok(running);
        }
        let compiled = known().programs.get(&digest).and_then(Weak::upgrade);
        let program = match compiled {
            Some(program) => program,
            None => Arc::new(Program::new(file)?),
        };
        let plugin = Plugin::new(Arc::clone(&program), terms.clone()).map_err(|failure| vec![words(&failure)])?;
        let plugin = Arc::new(plugin.with_outlet(self.outlet.clone()));
        plugin.introduce();
        let mut known = known();
        known.programs.retain(|_, program| program.strong_count() > 0);
        known.programs.insert(digest, Arc::downgrade(&program));
        known.running.retain(|plugin| plugin.strong_count() > 0);
        known.running.push(Arc::downgrade(&plugin));
        Ok(plugin)
    }
}

/// Why a plugin does not start.
fn words(failure: &Failure) -> String {
    match failure {
        Failure::Start(words) | Failure::Trap(words) => words.clone(),
        Failure::Time => "it takes too long to start; `limits: { start: … }` says how long it may".to_owned(),
        other => format!("it does not start: {}", other.reason()),
    }
}
