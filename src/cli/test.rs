//! `tollgate test`: the `tests:` of the configuration, through the real route table and chains.

use std::path::Path;
use std::process::ExitCode;

use super::{EXIT_FAILED, complain, count, load_and_compile, print};
use crate::config::load::Overrides;
use crate::gateway::preview::run_tests;

pub fn test(path: &Path) -> ExitCode {
    let gateway = match load_and_compile(path, &Overrides::new()) {
        Ok(checked) => checked.gateway,
        Err(broken) => return broken.report(),
    };
    let failures = run_tests(&gateway);
    for failure in &failures {
        complain(&format!("{}: {}\n\n", gateway.sources.locate(failure.place), failure.message));
    }
    let total = gateway.tests.len();
    if failures.is_empty() {
        print(&format!("{} passed\n", count(total, "test")));
        return ExitCode::SUCCESS;
    }
    complain(&format!("{} of {} failed\n", failures.len(), count(total, "test")));
    ExitCode::from(EXIT_FAILED)
}
