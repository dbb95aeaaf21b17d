//! What Linux tells about this process, under the names every Prometheus client library uses.
//!
//! Read from `/proc` at each scrape; what is not there (another system, a hidden `/proc`) is left out.

use std::fs;

use prometheus::proto::MetricFamily;

use super::series::{counter_f64, counters, gauge, gauges};

/// The key of the clock ticks per second in the auxiliary vector (`AT_CLKTCK`, getauxval(3)).
const AUXV_CLOCK_TICKS: u64 = 17;

/// What every Linux architecture uses, should the auxiliary vector be unreadable.
const CLOCK_TICKS_DEFAULT: f64 = 100.0;

pub(super) fn families() -> Vec<MetricFamily> {
    let mut found = Vec::new();
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse_stat(&text));
    if let Some(stat) = stat {
        let ticks =
            fs::read("/proc/self/auxv").ok().and_then(|bytes| parse_ticks(&bytes)).unwrap_or(CLOCK_TICKS_DEFAULT);
        found.push(counters(
            "process_cpu_seconds_total",
            "Processor time used, user and system, in seconds.",
            [counter_f64(&[], stat.cpu_ticks / ticks)],
        ));
        if let Some(boot) = keyed_number("/proc/stat", "btime") {
            found.push(gauges(
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
                [gauge(&[], boot + stat.start_ticks / ticks)],
            ));
        }
    }
    if let Some(kib) = keyed_number("/proc/self/status", "VmRSS:") {
        found.push(gauges(
            "process_resident_memory_bytes",
            "Memory in use that is not swapped out.",
            [gauge(&[], kib * 1024.0)],
        ));
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the folder that is being read.
        let open = entries.count().saturating_sub(1);
        found.push(gauges("process_open_fds", "File descriptors open.", [gauge(&[], open as f64)]));
    }
    if let Some(max) = keyed_number("/proc/self/limits", "Max open files") {
        found.push(gauges("process_max_fds", "File descriptors allowed (soft limit).", [gauge(&[], max)]));
    }
    found
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
}

/// Fields 14, 15 and 22 of proc_pid_stat(5). The name in field 2 may hold anything, also `)`.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(6)?.parse().ok()?;
    Some(Stat { cpu_ticks: user + system, start_ticks })
}

/// The auxiliary vector is pairs of key and value, each of the machine's word size.
fn parse_ticks(auxv: &[u8]) -> Option<f64> {
    const WORD: usize = size_of::<usize>();
    let mut words = auxv.chunks_exact(WORD).filter_map(|word| word.try_into().ok().map(usize::from_ne_bytes));
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        if key as u64 == AUXV_CLOCK_TICKS && value > 0 {
            return Some(value as f64);
        }
    }
    None
}

/// The number after `key` on the line that starts with it.
fn keyed_number(path: &str, key: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_shift_the_fields() {
        let text = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 4 0 900 1 2";
        assert_eq!(parse_stat(text), Some(Stat { cpu_ticks: 42.0, start_ticks: 900.0 }));
        assert_eq!(parse_stat("7 (a) S 1 2 3"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn clock_ticks_come_from_the_auxiliary_vector() {
        let words = |words: &[usize]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(parse_ticks(&words(&[6, 4096, 17, 250, 0, 0])), Some(250.0));
        assert_eq!(parse_ticks(&words(&[6, 17, 0, 0])), None);
        assert_eq!(parse_ticks(&words(&[17])), None);
    }
}
