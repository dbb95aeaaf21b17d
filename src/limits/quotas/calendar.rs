//! Days, weeks and months as a wall clock in some zone counts them.

use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};
use schemars::JsonSchema;
use serde::Deserialize;

/// How long a quota lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday.
    Week,
    /// From the first to the last day of a month.
    Month,
}

impl Unit {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The day that the unit which holds `date` begins with.
    fn first(self, date: Date) -> Date {
        match self {
            Self::Day => date,
            Self::Week => {
                let since_monday = i64::from(date.weekday().to_monday_zero_offset());
                date.checked_sub(since_monday.days()).unwrap_or(date)
            }
            Self::Month => date.first_of_month(),
        }
    }

    /// The day that the unit behind the one which begins with `first` begins with.
    fn next(self, first: Date) -> Date {
        let length = match self {
            Self::Day => 1.day(),
            Self::Week => 1.week(),
            Self::Month => 1.month(),
        };
        first.checked_add(length).unwrap_or(Date::MAX)
    }

    /// The day that the unit before the one which begins with `first` begins with.
    fn previous(self, first: Date) -> Date {
        first.checked_sub(1.day()).map_or(first, |date| self.first(date))
    }
}

/// A unit, as it is counted in a zone.
#[derive(Clone, Debug)]
pub struct Calendar {
    unit: Unit,
    zone: TimeZone,
}

impl Calendar {
    /// The name of the zone is that of the IANA database: `Europe/Berlin`, `UTC`. `None` when it has none of this name.
    pub fn new(unit: Unit, zone: &str) -> Option<Self> {
        // The bundled data alone: what a machine has installed must not decide when a quota begins.
        let zone = if zone == "UTC" { TimeZone::UTC } else { jiff::tz::TimeZoneDatabase::bundled().get(zone).ok()? };
        Some(Self { unit, zone })
    }

    /// The names of all zones, for a hint.
    pub fn zones() -> impl Iterator<Item = String> {
        jiff::tz::TimeZoneDatabase::bundled()
            .available()
            .map(|name| name.as_str().to_owned())
            .collect::<Vec<_>>()
            .into_iter()
    }

    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The period that holds `time`. A time outside of the years -9999 to 9999 counts as 1970.
    pub fn span(&self, time: SystemTime) -> Span {
        let now = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
        let first = self.unit.first(Zoned::new(now, self.zone.clone()).date());
        let (start, end) = (self.begin(first), self.begin(self.unit.next(first)));
        // Where a zone sets its clocks back over midnight, the last hour of a day comes twice. The new one has begun by then.
        let (first, start, end) = if now >= end {
            let next = self.unit.next(first);
            (next, end, self.begin(self.unit.next(next)))
        } else if now < start {
            let previous = self.unit.previous(first);
            (previous, self.begin(previous), start)
        } else {
            (first, start, end)
        };
        Span { unit: self.unit, first, start: start.as_millisecond(), end: end.as_millisecond() }
    }

    /// The first moment of a day. Not every day begins at midnight, and some never come: then it is that of the next one.
    fn begin(&self, day: Date) -> Timestamp {
        let begin = day.to_zoned(self.zone.clone()).and_then(|begin| begin.start_of_day());
        begin.map_or(Timestamp::MAX, |begin| begin.timestamp())
    }
}

/// One period: a certain day, week or month. Its text is its name: `2026-03-29`, `2026-W13`, `2026-03`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    unit: Unit,
    first: Date,
    /// In milliseconds since 1970.
    start: i64,
    /// The first moment that is no part of it.
    end: i64,
}

impl Span {
    /// Whether this moment, in milliseconds since 1970, is a part of it.
    pub fn contains(&self, milliseconds: i64) -> bool {
        (self.start..self.end).contains(&milliseconds)
    }

    /// Whether it is over by then.
    pub fn is_over(&self, milliseconds: i64) -> bool {
        self.end <= milliseconds
    }

    /// The first moment behind it.
    pub fn end(&self) -> SystemTime {
        let since = Duration::from_millis(u64::try_from(self.end).unwrap_or_default());
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub fn length(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.end.saturating_sub(self.start)).unwrap_or_default())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Day => write!(f, "{}", self.first),
            Unit::Week => {
                let week = self.first.iso_week_date();
                write!(f, "{:04}-W{:02}", week.year(), week.week())
            }
            Unit::Month => write!(f, "{:04}-{:02}", self.first.year(), self.first.month()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn milliseconds(time: SystemTime) -> i64 {
        Timestamp::try_from(time).unwrap().as_millisecond()
    }

    /// The name of the period at this moment, and how many hours it has.
    fn period(unit: Unit, zone: &str, time: &str) -> (String, u64) {
        let span = Calendar::new(unit, zone).unwrap().span(at(time));
        assert!(span.contains(milliseconds(at(time))), "{time}: {span:?}");
        (span.to_string(), span.length().as_secs() / 3600)
    }

    #[test]
    fn a_day_ends_with_the_last_second_before_midnight_of_its_zone() {
        let day = |time| period(Unit::Day, "Europe/Berlin", time);
        assert_eq!(day("2026-01-14T22:59:59.999Z"), ("2026-01-14".into(), 24));
        assert_eq!(day("2026-01-14T23:00:00Z"), ("2026-01-15".into(), 24));
        assert_eq!(day("2026-07-14T21:59:59.999Z"), ("2026-07-14".into(), 24));
        assert_eq!(day("2026-07-14T22:00:00Z"), ("2026-07-15".into(), 24));
        assert_eq!(period(Unit::Day, "UTC", "2026-07-14T23:59:59Z").0, "2026-07-14");
        assert_eq!(period(Unit::Day, "Pacific/Kiritimati", "2026-12-31T10:00:00Z").0, "2027-01-01");
    }

    #[test]
    fn days_on_which_clocks_change_have_23_and_25_hours() {
        let day = |time| period(Unit::Day, "Europe/Berlin", time);
        assert_eq!(day("2026-03-28T22:59:59Z"), ("2026-03-28".into(), 24));
        for time in ["2026-03-28T23:00:00Z", "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-29T21:59:59Z"] {
            assert_eq!(day(time), ("2026-03-29".into(), 23), "{time}");
        }
        assert_eq!(day("2026-03-29T22:00:00Z"), ("2026-03-30".into(), 24));
        for time in ["2026-10-24T22:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T22:59:59Z"] {
            assert_eq!(day(time), ("2026-10-25".into(), 25), "{time}");
        }
        assert_eq!(day("2026-10-25T23:00:00Z"), ("2026-10-26".into(), 24));
    }

    #[test]
    fn midnights_that_are_skipped_or_come_twice_begin_one_day() {
        // Cairo goes from 00:00 to 01:00: the day begins at one.
        assert_eq!(period(Unit::Day, "Africa/Cairo", "2026-04-23T21:59:59Z").0, "2026-04-23");
        assert_eq!(period(Unit::Day, "Africa/Cairo", "2026-04-23T22:00:00Z"), ("2026-04-24".into(), 23));
        // Samoa had no 30 December 2011.
        assert_eq!(period(Unit::Day, "Pacific/Apia", "2011-12-30T09:59:59Z"), ("2011-12-29".into(), 24));
        assert_eq!(period(Unit::Day, "Pacific/Apia", "2011-12-30T10:00:00Z"), ("2011-12-31".into(), 24));
        // St. John's went from 00:01 back to 23:01: the new day had begun a minute before.
        let day = |time| period(Unit::Day, "America/St_Johns", time).0;
        assert_eq!(day("2010-11-07T02:29:59Z"), "2010-11-06");
        for time in ["2010-11-07T02:30:00Z", "2010-11-07T02:31:00Z", "2010-11-07T03:29:59Z", "2010-11-07T03:30:00Z"] {
            assert_eq!(day(time), "2010-11-07", "{time}");
        }
    }

    #[test]
    fn months_end_where_they_end() {
        let month = |time| period(Unit::Month, "Europe/Berlin", time);
        assert_eq!(month("2026-02-28T22:59:59Z"), ("2026-02".into(), 28 * 24));
        assert_eq!(month("2026-02-28T23:00:00Z"), ("2026-03".into(), 31 * 24 - 1));
        assert_eq!(month("2028-02-29T22:59:59Z"), ("2028-02".into(), 29 * 24));
        assert_eq!(month("2026-10-31T22:59:59Z"), ("2026-10".into(), 31 * 24 + 1));
        assert_eq!(month("2026-12-31T23:00:00Z"), ("2027-01".into(), 31 * 24));
    }

    #[test]
    fn weeks_begin_on_monday() {
        assert_eq!(period(Unit::Week, "UTC", "2026-11-22T23:59:59Z"), ("2026-W47".into(), 168));
        assert_eq!(period(Unit::Week, "UTC", "2026-11-23T00:00:00Z"), ("2026-W48".into(), 168));
        assert_eq!(period(Unit::Week, "UTC", "2027-01-03T12:00:00Z").0, "2026-W53");
    }

    #[test]
    fn a_zone_that_nobody_knows_is_none() {
        for unknown in ["", "Europe/Belin", "CEST", "../etc/passwd", "+01:00"] {
            assert!(Calendar::new(Unit::Day, unknown).is_none(), "{unknown}");
        }
        assert!(Calendar::zones().any(|zone| zone == "Europe/Berlin"));
    }

    proptest! {
        /// Periods follow each other without a gap, however a zone changes its clocks.
        #[test]
        fn every_moment_is_in_one_period(
            seconds in -500_000_000_i64..8_000_000_000,
            zone in proptest::sample::select(vec![
                "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Africa/Cairo", "America/Asuncion", "Australia/Lord_Howe",
                "Asia/Kathmandu", "America/Havana",
            ]),
            unit in proptest::sample::select(vec![Unit::Day, Unit::Week, Unit::Month]),
        ) {
            let calendar = Calendar::new(unit, zone).unwrap();
            let time = Timestamp::from_second(seconds).unwrap();
            let span = calendar.span(time.into());
            prop_assert!(span.contains(time.as_millisecond()));
            let moment = |milliseconds| calendar.span(Timestamp::from_millisecond(milliseconds).unwrap().into());
            prop_assert_eq!(moment(span.start), span);
            prop_assert_eq!(moment(span.end - 1), span);
            let next = moment(span.end);
            prop_assert_eq!(next.start, span.end);
            prop_assert!(next.to_string() > span.to_string());
        }
    }
}
