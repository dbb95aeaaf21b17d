//! Durations, sizes, rates, percentages.

use super::{ParseError, quoted, text_type};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time: `250ms`, `30s`, `5m`, `24h`, `7d`. A whole number and one unit; at most `u64::MAX` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A number of bytes: `512B`, `64KiB`, `1MiB`, `2GiB`. Binary units only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size(pub u64);

/// So many per span of time: `10/s`, `100/min`, `1000/hour`, `10000/day`. The count is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    pub count: u64,
    pub per: Duration,
}

/// A share between `0%` and `100%`, fractions allowed: `20%`, `0.5%`. Holds the number before the sign.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

/// Units of a [`Period`] in milliseconds, the largest first.
const PERIOD_UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const PERIOD_HINT: &str = "write 30s, 250ms, 5m or 24h";

/// Units of a [`Size`] in bytes, the largest first.
const SIZE_UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SIZE_HINT: &str = "write 64KiB, 1MiB, 2GiB or 512B";

/// Spans of a [`Rate`] in seconds; of several names for one span, the first is the one written.
const RATE_UNITS: &[(&str, u64)] = &[("s", 1), ("min", 60), ("hour", 3_600), ("day", 86_400)];
const RATE_HINT: &str = "write 100/min, 10/s, 1000/hour or 10000/day";

const PERCENT_HINT: &str = "write 20%, from 0% to 100%";

impl Percent {
    /// The share as a number from 0 to 1.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }

    /// The share in whole millionths.
    pub fn millionths(self) -> u32 {
        // At most 100%: it fits.
        (self.0 * 10_000.0).round() as u32
    }
}

/// Whole seconds, rounded up: who waits as long as told has waited long enough.
pub fn seconds_up(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Digits and the unit behind them, in the smallest unit.
fn amount(text: &str, units: &[(&str, u64)], hint: &str) -> Result<u64, ParseError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() || unit.starts_with('.') {
        return Err(ParseError::new(format!("{} is no whole number with a unit", quoted(text)), hint));
    }
    if unit.is_empty() {
        return Err(ParseError::new(format!("{} has no unit", quoted(text)), hint));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(ParseError::new(format!("{} has the unknown unit {}", quoted(text), quoted(unit)), hint));
    };
    let amount = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(*factor));
    amount.ok_or_else(|| ParseError::new(format!("{} is too large", quoted(text)), hint))
}

/// Writes an amount in the largest unit that holds it without a remainder.
fn write_amount(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |factor: u64| factor == 1 || (amount != 0 && amount.is_multiple_of(factor));
    let (unit, factor) = units.iter().copied().find(|(_, factor)| fits(*factor)).unwrap_or(("", 1));
    write!(f, "{}{unit}", amount.checked_div(factor).unwrap_or(amount))
}

impl FromStr for Period {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        amount(text, PERIOD_UNITS, PERIOD_HINT).map(|millis| Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), PERIOD_UNITS)
    }
}

text_type!(Period, "Period", expected: "a duration such as 30s",
    pattern: "[0-9]+(ms|s|m|h|d)", description: "A duration: 250ms, 30s, 5m, 24h, 7d");

impl FromStr for Size {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        amount(text, SIZE_UNITS, SIZE_HINT).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(f, self.0, SIZE_UNITS)
    }
}

text_type!(Size, "Size", expected: "a size such as 1MiB",
    pattern: "[0-9]+(B|KiB|MiB|GiB)", description: "A number of bytes: 512B, 64KiB, 1MiB, 2GiB");

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let Some((count, unit)) = text.split_once('/') else {
            return Err(ParseError::new(format!("{} does not say per what time", quoted(text)), RATE_HINT));
        };
        let Some((_, seconds)) = RATE_UNITS.iter().find(|(name, _)| *name == unit) else {
            let message = format!("{} has the unknown span {}", quoted(text), quoted(unit));
            return Err(ParseError::new(message, RATE_HINT));
        };
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseError::new(format!("{} does not start with a whole number", quoted(text)), RATE_HINT));
        }
        match count.parse() {
            Ok(0) => Err(ParseError::new(format!("{} allows nothing", quoted(text)), "the count is at least 1")),
            Ok(count) => Ok(Self { count, per: Duration::from_secs(*seconds) }),
            Err(_) => Err(ParseError::new(format!("{} is too large", quoted(text)), RATE_HINT)),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RATE_UNITS.iter().find(|(_, seconds)| Duration::from_secs(*seconds) == self.per) {
            Some((unit, _)) => write!(f, "{}/{unit}", self.count),
            None => write!(f, "{}/{}", self.count, Period(self.per)),
        }
    }
}

text_type!(Rate, "Rate", expected: "a rate such as 100/min",
    pattern: "[0-9]+/(s|min|hour|day)", description: "A rate: 10/s, 100/min, 1000/hour, 10000/day");

impl FromStr for Percent {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let Some(number) = text.strip_suffix('%') else {
            return Err(ParseError::new(format!("{} has no `%`", quoted(text)), PERCENT_HINT));
        };
        let plain = number.starts_with(|c: char| c.is_ascii_digit())
            && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match number.parse::<f64>() {
            Ok(value) if plain && (0.0..=100.0).contains(&value) => Ok(Self(value)),
            Ok(_) if plain => Err(ParseError::new(format!("{} is above 100%", quoted(text)), PERCENT_HINT)),
            _ => Err(ParseError::new(format!("{} is no percentage", quoted(text)), PERCENT_HINT)),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

text_type!(Percent, "Percent", expected: "a percentage such as 20%",
    pattern: "[0-9]+(\\.[0-9]*)?%", description: "A percentage from 0% to 100%");
