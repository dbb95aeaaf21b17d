//! What clients get while a circuit breaker lets nothing through.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{BreakerFallback, CircuitBreakers, Upstream as Written};
use crate::contract::{AnyHandler, Compiler, Handler, Known};
use crate::handlers::HANDLERS;
use crate::upstream::Slot;
use crate::yaml::{Located, Node, Problem};

/// What stands for the answer of an upstream.
#[derive(Clone)]
pub enum Fallback {
    Reply(Arc<dyn Handler>),
    Upstream(Arc<Slot>),
    /// What the upstream itself has kept.
    Stale,
}

/// By the name of the upstream they stand for.
pub type Fallbacks = HashMap<Arc<str>, Fallback>;

/// Compiles the fallbacks of all `written` upstreams. `upstream` finds one by its name.
pub fn fallbacks<'a>(
    written: impl Iterator<Item = (&'a Located<String>, &'a Written)>,
    known: &Known,
    problems: &mut Vec<Problem>,
    mut upstream: impl FnMut(&Located<String>) -> Option<Arc<Slot>>,
) -> Fallbacks {
    let mut fallbacks = Fallbacks::new();
    for (name, written) in written {
        let fallback = match of(written.circuit_breaker.as_ref()) {
            None => continue,
            Some(BreakerFallback::Respond(settings)) => respond(&settings, name, known, problems).map(Fallback::Reply),
            Some(BreakerFallback::Upstream(other)) if other.value == name.value => {
                let problem = Problem::new(other.place, format!("upstream `{}` cannot stand for itself", name.value));
                problems.push(problem.with_hint("name another one, or write `respond: { … }`"));
                None
            }
            Some(BreakerFallback::Stale(_)) => Some(Fallback::Stale),
            Some(BreakerFallback::Upstream(other)) => upstream(&other).map(Fallback::Upstream),
        };
        if let Some(fallback) = fallback {
            fallbacks.insert(Arc::from(name.value.as_str()), fallback);
        }
    }
    fallbacks
}

/// What is wrong with the breakers themselves is said with the upstream.
fn of(written: Option<&CircuitBreakers>) -> Option<BreakerFallback> {
    let list = written?.list().ok()?;
    list.into_iter().find_map(|breaker| breaker.value.fallback)
}

fn respond(
    settings: &Node,
    name: &Located<String>,
    known: &Known,
    problems: &mut Vec<Problem>,
) -> Option<Arc<dyn Handler>> {
    let entry = HANDLERS.iter().find(|entry| entry.name == "respond")?;
    let mut compiler = Compiler::at(settings.place, format!("upstream:{}", name.value), known);
    let handler = (entry.build)(settings, &mut compiler);
    let findings = compiler.finish();
    problems.extend(findings.problems);
    for parameter in findings.path_parameters {
        let message =
            format!("`{{path.{}}}` has no meaning here: many routes may lead to an upstream", parameter.value);
        problems.push(Problem::new(parameter.place, message));
    }
    match handler? {
        AnyHandler::Sync(handler) => Some(handler),
        AnyHandler::Async(_) => None,
    }
}
