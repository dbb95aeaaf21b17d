//! Reloads without pause under load: nothing may fail, no socket may be closed, memory may not grow.
//!
//! `cargo bench --profile quick --bench storm -- --reloads 10000`. Ends with 1 when anything went wrong.

mod clients;
mod engine;
mod process;
mod service;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use engine::{Outcome, Plan, Sample, Trigger};

/// Largest growth of memory, from the second quarter of the storm to the last.
const GROWTH_MAX: f64 = 0.05;

#[derive(Parser)]
struct Arguments {
    /// Changes of the configuration; every twentieth is broken.
    #[arg(long, default_value_t = 10_000)]
    reloads: u64,
    /// Busy connections, an eighth of them uploads and an eighth WebSockets.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, value_enum, default_value_t = Trigger::Api)]
    trigger: Trigger,
    /// The gateway; default: the one built with this.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tollgate"))]
    binary: PathBuf,
    /// Look at memory every so many reloads.
    #[arg(long, default_value_t = 500)]
    sample_every: u64,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = Plan {
        binary: arguments.binary,
        reloads: arguments.reloads,
        connections: arguments.connections,
        trigger: arguments.trigger,
        broken_every: 20,
        sample_every: arguments.sample_every.max(1),
    };
    match storm(&plan) {
        Ok(outcome) => report(&outcome),
        Err(error) => {
            eprintln!("storm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn storm(plan: &Plan) -> anyhow::Result<Outcome> {
    println!("{}", Sample::TITLE);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(engine::run(plan, |sample| println!("{sample}")))
}

fn report(outcome: &Outcome) -> ExitCode {
    println!("\n{outcome}");
    println!("{:<22}{:+.1} %", "  at most", GROWTH_MAX * 100.0);
    if outcome.is_clean() && outcome.growth().is_none_or(|growth| growth <= GROWTH_MAX) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
