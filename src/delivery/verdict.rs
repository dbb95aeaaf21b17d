//! What a delivery came to, and what becomes of its message.

use std::time::{Duration, SystemTime};

use crate::contract::Terms;
use crate::head::StatusCode;
use crate::inbox::Outcome;

/// Longest wait that a service may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What a delivery came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The service answered. The second is how long it wants to be left alone.
    Status(StatusCode, Option<Duration>),
    /// It was sent, at least in part, and no answer came. What happened, in words.
    Broken(String),
    /// No target took a connection: nothing was sent.
    Unreachable(String),
    /// A circuit breaker let nothing through: nothing was sent.
    Refused,
    /// The message is no request that can be sent.
    Damaged,
}

impl Answer {
    /// Whether it speaks against the upstream rather than against the message.
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::Status(status, _) => matches!(status.as_u16(), 502..=504),
            Self::Broken(_) | Self::Unreachable(_) => true,
            Self::Refused | Self::Damaged => false,
        }
    }

    /// What becomes of the message after this attempt. `chance` is 0 to 1.
    pub fn outcome(self, attempt: u32, terms: &Terms, now: SystemTime, chance: f64) -> Outcome {
        let (why, asked) = match self {
            Self::Status(status, _) if status.is_success() => return Outcome::Delivered,
            Self::Unreachable(_) | Self::Refused => return Outcome::Returned,
            Self::Damaged => return Outcome::Dead { why: "it is no request that can be sent".to_owned() },
            Self::Status(status, asked) => {
                let respected = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
                (format!("the service answered {}", status.as_u16()), asked.filter(|_| respected))
            }
            Self::Broken(why) => (why, None),
        };
        if attempt >= terms.attempts {
            return Outcome::Dead { why };
        }
        let pause = terms.pause(attempt, chance).max(asked.unwrap_or_default().min(RETRY_AFTER_MAX));
        Outcome::Retry { due: now.checked_add(pause).unwrap_or(now), why }
    }
}

/// How long `Retry-After` asks to wait: seconds, or a date
/// ([RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Bounds;
    use std::time::UNIX_EPOCH;

    fn terms() -> Terms {
        Terms {
            bounds: Bounds { messages_max: 1, bytes_max: 1 },
            attempts: 3,
            schedule: [Duration::from_secs(10)].into(),
            jitter: 0.5,
            timeout: Duration::from_secs(1),
            concurrency: 1,
        }
    }

    fn status(status: u16, asked: Option<u64>) -> Answer {
        Answer::Status(StatusCode::from_u16(status).unwrap(), asked.map(Duration::from_secs))
    }

    fn due(answer: Answer, attempt: u32, chance: f64) -> Option<u64> {
        match answer.outcome(attempt, &terms(), UNIX_EPOCH, chance) {
            Outcome::Retry { due, .. } => Some(due.duration_since(UNIX_EPOCH).unwrap().as_secs()),
            _ => None,
        }
    }

    #[test]
    fn only_2xx_is_a_delivery() {
        for code in [200, 204, 299] {
            assert_eq!(status(code, None).outcome(1, &terms(), UNIX_EPOCH, 0.5), Outcome::Delivered);
        }
        for code in [300, 301, 307, 400, 404, 429, 500, 503] {
            assert_eq!(due(status(code, None), 1, 0.5), Some(10), "{code}");
        }
    }

    #[test]
    fn the_last_attempt_is_the_end_and_the_one_before_is_not() {
        assert_eq!(due(status(500, None), 2, 0.5), Some(10));
        let dead = Outcome::Dead { why: "the service answered 500".to_owned() };
        assert_eq!(status(500, None).outcome(3, &terms(), UNIX_EPOCH, 0.5), dead);
        let broken = Answer::Broken("it took too long".to_owned());
        assert!(matches!(broken.outcome(4, &terms(), UNIX_EPOCH, 0.5), Outcome::Dead { .. }));
        assert_eq!(Answer::Refused.outcome(99, &terms(), UNIX_EPOCH, 0.5), Outcome::Returned);
        let unreachable = Answer::Unreachable(String::new());
        assert_eq!(unreachable.outcome(99, &terms(), UNIX_EPOCH, 0.5), Outcome::Returned);
    }

    #[test]
    fn a_longer_wait_is_respected_up_to_an_hour_of_who_may_ask_for_it() {
        assert_eq!(due(status(429, Some(60)), 1, 0.5), Some(60));
        assert_eq!(due(status(503, Some(3601)), 1, 0.5), Some(3600));
        assert_eq!(due(status(503, Some(2)), 1, 0.0), Some(5));
        assert_eq!(due(status(500, Some(60)), 1, 1.0), Some(15));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_767_268_800);
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(" 0 ", now), Some(Duration::ZERO));
        assert_eq!(retry_after("Thu, 01 Jan 2026 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Thu, 01 Jan 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        for bad in ["", "-1", "soon", "1.5", "99999999999999999999999"] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn a_refusal_of_the_message_does_not_speak_against_the_upstream() {
        for code in [502, 503, 504] {
            assert!(status(code, None).is_trouble());
        }
        for code in [200, 301, 400, 404, 429, 500, 501, 505] {
            assert!(!status(code, None).is_trouble(), "{code}");
        }
        assert!(!Answer::Refused.is_trouble());
        assert!(Answer::Broken(String::new()).is_trouble() && Answer::Unreachable(String::new()).is_trouble());
    }
}
