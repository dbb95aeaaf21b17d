//! Routes that forward: to one upstream or to several, with or without copies.

use std::sync::Arc;

use super::Routes;
use crate::config;
use crate::gateway::Mirror;
use crate::handlers::Action;
use crate::upstream::split::Split;
use crate::yaml::{Located, Node, Problem, decode};

impl Routes<'_> {
    /// The handler `upstream`: a name, or a split.
    pub(super) fn forward(&mut self, settings: &Node) -> Option<Action> {
        if let Some(name) = settings.as_str() {
            return self.upstream(name, settings.place).map(Action::Forward);
        }
        if settings.entries().is_empty() {
            let problem = Problem::new(settings.place, "`upstream` takes the name of an upstream, or a split");
            self.problems.push(problem.with_hint("write { split: [{ upstream: NAME, weight: 95 }, …] }"));
            return None;
        }
        let written: config::Split = decode(settings).map_err(|found| self.problems.extend(found)).ok()?;
        let mut problems = Vec::new();
        let find = |name: &Located<String>| self.upstream(&name.value, name.place);
        let split = Split::compile(&written, find, &mut problems);
        self.problems.extend(problems);
        split.map(|split| Action::Split(Arc::new(split)))
    }

    /// Who gets copies of the requests of a route.
    pub(super) fn mirror(&mut self, written: &config::Route, action: Option<&Action>) -> Option<Arc<Mirror>> {
        let mirror = written.mirror.as_ref()?;
        if matches!(action, Some(Action::Answer(_) | Action::Await(_))) {
            let message = format!("route `{}` forwards nothing that could be mirrored", written.name.value);
            self.problems.push(Problem::new(mirror.upstream.place, message));
        }
        let upstream = self.upstream(&mirror.upstream.value, mirror.upstream.place);
        let metrics = self.metrics.route(&written.name.value);
        Mirror::compile(mirror, upstream?, metrics, &mut self.problems).map(Arc::new)
    }
}
