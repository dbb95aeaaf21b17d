//! What the server may lose by how it is configured.

use redis::FromRedisValue as _;
use tracing::warn;

use crate::state::redis::link::{Lane, Link};

/// Asks the server, and tells operators.
///
/// # Errors
/// It did not answer. One that may not be asked is told of as such.
pub async fn log(link: &Link) -> Result<(), String> {
    let mut info = String::new();
    for section in ["persistence", "memory"] {
        let mut command = redis::cmd("INFO");
        command.arg(section);
        match link.call(Lane::Other, &command).await.map_err(|failure| failure.to_string()) {
            Ok(answer) => info.push_str(&String::from_redis_value(answer).unwrap_or_default()),
            Err(why) if why.starts_with("NOPERM") => {}
            Err(why) => return Err(why),
        }
    }
    for warning in of(&info) {
        warn!("inboxes in Redis: {warning}");
    }
    Ok(())
}

/// What `INFO` says of the sections `persistence` and `memory`, in words.
fn of(info: &str) -> Vec<String> {
    let value = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
    };
    let mut warnings = Vec::new();
    match value("aof_enabled").as_deref() {
        Some("1") => {}
        Some(_) => warnings.push(
            "`appendonly` is off: what was acknowledged is lost when the server stops; set `appendonly yes`".to_owned(),
        ),
        None => warnings.push(
            "the server does not say whether it keeps messages (`INFO` is not allowed); see to `appendonly yes` and \
             `maxmemory-policy noeviction`"
                .to_owned(),
        ),
    }
    if let Some(policy) = value("maxmemory_policy")
        && policy != "noeviction"
    {
        let fix = "set `maxmemory-policy noeviction`";
        // Only keys that end may be thrown out under some policies, and messages do not.
        if !policy.starts_with("volatile-") {
            warnings.push(format!("under `maxmemory-policy {policy}` the server may throw out messages; {fix}"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_lost_is_said() {
        for (info, words) in [
            ("aof_enabled:1\r\nmaxmemory_policy:noeviction\r\n", &[][..]),
            ("# Persistence\r\naof_enabled:0\r\nmaxmemory_policy:noeviction\r\n", &["`appendonly` is off"]),
            ("aof_enabled:1\r\nmaxmemory_policy:allkeys-lru\r\n", &["allkeys-lru"]),
            ("aof_enabled:0\r\nmaxmemory_policy:allkeys-random\r\n", &["`appendonly` is off", "allkeys-random"]),
            ("aof_enabled:1\r\nmaxmemory_policy:volatile-ttl\r\n", &[]),
            ("", &["does not say"]),
        ] {
            let said = of(info);
            assert_eq!(said.len(), words.len(), "{info}: {said:?}");
            for (said, words) in said.iter().zip(words) {
                assert!(said.contains(words), "{said}");
            }
        }
    }
}
