//! Upstreams that settings name.

use super::Compiler;
use crate::yaml::{Located, Problem};

impl Compiler {
    /// Whether the configuration has an upstream of this name; reports it when not.
    pub fn has_upstream(&mut self, name: &Located<String>) -> bool {
        let known = &self.known.upstreams;
        let has = known.contains(&name.value);
        if !has {
            let known = known.iter().map(String::as_str);
            self.problems.push(Problem::unknown(name.place, "upstream", &name.value, known));
        }
        has
    }
}
