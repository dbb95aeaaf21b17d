//! `tollgate check`: the loader and compiler of `run`, and every problem they find.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::{Broken, Checked, EXIT_CONFIGURATION, count, file_name, load_and_compile, print};
use crate::config::load::Overrides;

pub fn check(path: &Path, json: bool) -> ExitCode {
    match load_and_compile(path, &Overrides::new()) {
        Ok(checked) => {
            print(&if json { checked.as_json() } else { checked.summary(path) });
            ExitCode::SUCCESS
        }
        Err(broken) if json => {
            print(&broken.as_json());
            ExitCode::from(EXIT_CONFIGURATION)
        }
        Err(broken) => broken.report(),
    }
}

impl Checked {
    fn summary(&self, path: &Path) -> String {
        format!(
            "{}: {}, {}, {}, {} in {}\n",
            file_name(path),
            count(self.gateway.routes().len(), "route"),
            count(self.gateway.upstreams().len(), "upstream"),
            count(self.chains, "chain"),
            count(self.gateway.tests.len(), "test"),
            count(self.files, "file"),
        )
    }

    fn as_json(&self) -> String {
        let object = json!({
            "ok": true,
            "hash": self.gateway.hash,
            "routes": self.gateway.routes().len(),
            "upstreams": self.gateway.upstreams().len(),
            "chains": self.chains,
            "tests": self.gateway.tests.len(),
            "files": self.files,
        });
        format!("{object:#}\n")
    }
}

impl Broken {
    fn as_json(&self) -> String {
        let problems: Vec<_> = self.problems.iter().map(|problem| self.sources.report(problem)).collect();
        format!("{:#}\n", json!({ "ok": false, "problems": problems }))
    }
}
