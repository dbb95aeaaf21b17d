//! Whether the filters of a route can work together on the question who calls.

use std::sync::Arc;

use crate::chain::Link;
use crate::contract::Calling;
use crate::yaml::{Located, Problem};

/// Reports what asks who calls before anything found out, and what finds out a second time.
pub fn check<'a>(route: &Located<String>, links: impl Iterator<Item = &'a Arc<Link>>, problems: &mut Vec<Problem>) {
    let mut found: Option<&Link> = None;
    for link in links {
        let problem = match (link.calling, found) {
            (Calling::Needs, None) => {
                let message = format!("`{}` has to know who calls, and no `auth` before it finds out", link.name);
                let problem =
                    Problem::new(link.place, message).with_hint("write `- auth: { accept: [api_key] }` before it");
                problem.with_related(format!("in route `{}`", route.value), route.place)
            }
            (Calling::Finds, Some(first)) => {
                let message = format!("a second `{}` in one chain: the first one takes the credential away", link.name);
                Problem::new(link.place, message)
                    .with_hint("one names all kinds; `require: {}` refuses nobody known behind an optional one")
                    .with_related("the first", first.place)
            }
            (Calling::Finds, None) => {
                found = Some(link);
                continue;
            }
            _ => continue,
        };
        // A chain that many routes use has its mistake once.
        if !problems.iter().any(|known| known.place == problem.place && known.message == problem.message) {
            problems.push(problem);
        }
    }
}
