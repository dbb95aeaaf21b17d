use std::process::ExitCode;

use clap::Parser;
use tollgate::cli::{Cli, dispatch};

/// Measured cheaper than the system's allocator for this kind of work; see `docs/architecture.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dispatch(Cli::parse())
}
