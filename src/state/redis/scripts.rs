//! The scripts. Each is one operation, and the server does it as a whole.

use std::sync::OnceLock;
use std::time::Duration;

use redis::{Cmd, Script as Source, ToRedisArgs, Value};

use super::link::{Failure, Lane, Link};

/// A script and the name the server has for it.
pub struct Script {
    code: &'static str,
    source: OnceLock<Source>,
}

macro_rules! script {
    ($($part:literal),+) => {
        Script::new(concat!($(include_str!(concat!("scripts/", $part, ".lua"))),+))
    };
}

pub static PUT: Script = script!("entry", "put");
pub static INSERT: Script = script!("entry", "insert");
pub static REPLACE: Script = script!("entry", "replace");
pub static EXCHANGE: Script = script!("entry", "exchange");
pub static TAKE: Script = script!("entry", "take");
pub static SPEND: Script = script!("entry", "spend");
pub static GIVE_BACK: Script = script!("entry", "give_back");
pub static LIST: Script = script!("list");
pub static CHANGES: Script = script!("changes");
pub static DRAW: Script = script!("bucket", "draw");
pub static LOOK: Script = script!("bucket", "look");

/// A call of a script.
pub struct Call {
    script: &'static Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
    patience: Option<Duration>,
}

impl Script {
    pub const fn new(code: &'static str) -> Self {
        Self { code, source: OnceLock::new() }
    }

    pub fn on<const N: usize>(&'static self, keys: [String; N]) -> Call {
        Call { script: self, keys: keys.into(), arguments: Vec::new(), patience: None }
    }
}

impl Call {
    #[must_use]
    pub fn with(mut self, argument: impl ToRedisArgs) -> Self {
        self.arguments.extend(argument.to_redis_args());
        self
    }

    /// It may take so long, not as long as others of its lane.
    #[must_use]
    pub fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Runs it. A server that does not know the script, because it was started again, is told it with the same command.
    ///
    /// # Errors
    /// What went wrong, in words. It may have happened nevertheless.
    pub async fn run(&self, link: &Link, lane: Lane) -> Result<Value, String> {
        let patience = self.patience.unwrap_or_else(|| link.patience(lane));
        let mut known = redis::cmd("EVALSHA");
        known.arg(self.script.source.get_or_init(|| Source::new(self.script.code)).get_hash());
        match link.call_within(patience, lane, &self.complete(known)).await {
            Err(Failure::NoScript) => {}
            Err(Failure::Failed(why)) => return Err(why),
            Ok(value) => return Ok(value),
        }
        let mut told = redis::cmd("EVAL");
        told.arg(self.script.code);
        match link.call_within(patience, lane, &self.complete(told)).await {
            Ok(value) => Ok(value),
            Err(Failure::Failed(why)) => Err(why),
            Err(Failure::NoScript) => Err("it does not take scripts".to_owned()),
        }
    }

    fn complete(&self, mut command: Cmd) -> Cmd {
        command.arg(self.keys.len());
        for key in &self.keys {
            command.arg(key.as_str());
        }
        for argument in &self.arguments {
            command.arg(argument.as_slice());
        }
        command
    }
}
