//! The limit on open files: a connection needs one, and the request on it another one to the service.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// For logs, databases, the configuration, the control thread, and as many listeners as a gateway has.
const RESERVED: u64 = 256;
/// Of a connection.
const EACH: u64 = 2;

/// Sees to it that so many connections can be open, as far as the system allows. `connections_max` is of the configuration.
pub fn provide(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let needed = needed(connections_max);
    let (raised, missing) = raised(limit, needed);
    let provided = match raised {
        Some(soft) => match setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: limit.maximum }) {
            Ok(()) => {
                info!(from = limit.current, to = soft, "raised the limit on open files");
                missing.then_some(soft)
            }
            Err(_) => limit.current,
        },
        None => limit.current.filter(|_| missing),
    };
    if let Some(limit) = provided {
        warn!(
            limit,
            needed,
            connections_max,
            "the limit on open files is too low for `connections_max`: raise it (LimitNOFILE, ulimit -Hn) or lower that"
        );
    }
}

fn needed(connections_max: usize) -> u64 {
    u64::try_from(connections_max).unwrap_or(u64::MAX).saturating_mul(EACH).saturating_add(RESERVED)
}

/// What the soft limit becomes, if it changes, and whether that is too little.
fn raised(limit: Rlimit, needed: u64) -> (Option<u64>, bool) {
    let Some(soft) = limit.current.filter(|soft| *soft < needed) else { return (None, false) };
    let most = limit.maximum.map_or(needed, |hard| hard.min(needed));
    ((most > soft).then_some(most), most < needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_raised_as_far_as_needed_and_allowed() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(needed(10_000), 20_256);
        assert_eq!(raised(limit(Some(1024), Some(4096)), 1024), (None, false));
        assert_eq!(raised(limit(Some(1024), Some(4096)), 1025), (Some(1025), false));
        assert_eq!(raised(limit(Some(1024), Some(4096)), 4096), (Some(4096), false));
        assert_eq!(raised(limit(Some(1024), Some(4096)), 4097), (Some(4096), true));
        assert_eq!(raised(limit(Some(4096), Some(4096)), 4097), (None, true));
        assert_eq!(raised(limit(Some(1024), None), 9000), (Some(9000), false));
        assert_eq!(raised(limit(None, None), u64::MAX), (None, false));
    }
}
