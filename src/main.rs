use std::process::ExitCode;

use clap::Parser;
use tollgate::cli::{Cli, dispatch};

/// The system's allocator costs 1.09 to 1.15 times the CPU of this one for a proxied request; see `docs/benchmarks.md`. It does not ask
/// for huge pages (feature `no_thp`): an idle gateway held 10 MiB more with them, and no request cost less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: two providers are linked, and rustls picks none by itself. It fails only where one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    dispatch(Cli::parse())
}
