use std::process::ExitCode;

use clap::Parser;
use tollgate::cli::{Cli, dispatch};

/// The system's allocator costs 1.09 to 1.15 times the CPU of this one for a proxied request; see `docs/benchmarks.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dispatch(Cli::parse())
}
