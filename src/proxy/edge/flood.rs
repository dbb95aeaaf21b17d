//! What a client of HTTP/2 makes work with, and brings nothing: resets, pings, settings, empty frames, tiny windows.
//!
//! Every such frame costs its sender a handful of bytes, and the gateway a look, an answer, or a request that was begun for
//! nothing (CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2025-8671). Engines bound some of them, each in a way of its own. Here
//! all are counted in one place, by their headers alone: each takes from an allowance that time and traffic fill up again. A
//! client that has used it up is cut off.

use std::time::{Duration, Instant};

/// What stands before the first frame (RFC 9113 §3.4).
const PREFACE_BYTES: u32 = 24;
/// Length, type, flags and stream (RFC 9113 §4.1).
const HEADER_BYTES: usize = 9;
/// The allowance: what may come at once, and what a second adds.
const ALLOWANCE_MAX: u64 = 10_000;
const PER_SECOND: u64 = 1000;
/// How much of an answer, in bytes, adds one to it: who takes much has to open windows often.
const BYTES_OUT_EACH: u64 = 16;
/// What a request adds: who asks much has many answers to open windows for, however small they are.
const PER_REQUEST: u64 = 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// Follows the frames of one connection.
#[derive(Debug)]
pub struct Flood {
    /// Bytes of the preface or of a payload that are still to come.
    skip: u32,
    header: [u8; HEADER_BYTES],
    seen: usize,
    left: u64,
    bytes_out: u64,
    /// When the allowance was last filled up by time.
    filled: Option<Instant>,
}

impl Flood {
    pub fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            seen: 0,
            left: ALLOWANCE_MAX,
            bytes_out: 0,
            filled: None,
        }
    }

    /// Bytes came in. `false`: it is too much. The clock is asked only when the allowance is used up; `opened` is when the
    /// connection was made.
    pub fn received(&mut self, mut bytes: &[u8], opened: Instant, clock: fn() -> Instant) -> bool {
        while !bytes.is_empty() {
            let skipped = (self.skip as usize).min(bytes.len());
            bytes = bytes.get(skipped..).unwrap_or_default();
            self.skip = self.skip.saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
            let Some(free) = self.header.get_mut(self.seen..).filter(|_| self.skip == 0) else { continue };
            let taken = free.len().min(bytes.len());
            let (new, rest) = bytes.split_at(taken);
            if let Some(place) = free.get_mut(..taken) {
                place.copy_from_slice(new);
            }
            bytes = rest;
            self.seen = self.seen.saturating_add(taken);
            if self.seen == HEADER_BYTES {
                self.seen = 0;
                let [a, b, c, kind, flags, ..] = self.header;
                self.skip = u32::from_be_bytes([0, a, b, c]);
                if kind == HEADERS {
                    self.add(PER_REQUEST);
                } else if !self.take(cost(kind, flags, self.skip), opened, clock) {
                    return false;
                }
            }
        }
        true
    }

    /// Bytes went out.
    pub fn sent(&mut self, bytes: usize) {
        let bytes = self.bytes_out.saturating_add(bytes as u64);
        self.bytes_out = bytes % BYTES_OUT_EACH;
        self.add(bytes / BYTES_OUT_EACH);
    }

    fn add(&mut self, some: u64) {
        self.left = self.left.saturating_add(some).min(ALLOWANCE_MAX);
    }

    fn take(&mut self, cost: u64, opened: Instant, clock: fn() -> Instant) -> bool {
        if cost > self.left {
            let now = clock();
            let since: Duration = now.saturating_duration_since(self.filled.unwrap_or(opened));
            let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            self.filled = Some(now);
            self.add(millis.saturating_mul(PER_SECOND) / 1000);
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// What a frame takes from the allowance.
fn cost(kind: u8, flags: u8, length: u32) -> u64 {
    match kind {
        // A body, or its end.
        DATA if length > 0 || flags & END_STREAM != 0 => 0,
        DATA | CONTINUATION | PING => 5,
        WINDOW_UPDATE => 1,
        // A request that was begun for nothing.
        RST_STREAM => 10,
        // Each setting may change every stream there is.
        SETTINGS => u64::from(length / 6).saturating_add(10),
        // PRIORITY, which means nothing any more, and what nobody knows.
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        [vec![a, b, c, kind, flags, 0, 0, 0, 1], vec![7; length]].concat()
    }

    fn stopped() -> Instant {
        thread_local!(static NOW: Instant = clock::now());
        NOW.with(|now| *now)
    }

    fn much_later() -> Instant {
        stopped() + Duration::from_secs(3600)
    }

    /// How many frames pass before one does not; `None`: many do.
    fn passes(bytes: &[u8], piece: usize) -> Option<usize> {
        let mut flood = Flood::new();
        assert!(flood.received(&[b'P'; 24], stopped(), stopped));
        (0..20_000).find(|_| !bytes.chunks(piece).all(|piece| flood.received(piece, stopped(), stopped)))
    }

    #[test]
    fn what_brings_nothing_has_an_end() {
        for piece in [1, 4, 9, 1000] {
            assert_eq!(passes(&frame(RST_STREAM, 0, 4), piece), Some(1000), "{piece}");
            assert_eq!(passes(&frame(PING, 0, 8), piece), Some(2000), "{piece}");
            assert_eq!(passes(&frame(SETTINGS, 0, 0), piece), Some(1000), "{piece}");
            assert_eq!(passes(&frame(SETTINGS, 0, 6 * 90), piece), Some(100), "{piece}");
            assert_eq!(passes(&frame(DATA, 0, 0), piece), Some(2000), "{piece}");
            assert_eq!(passes(&frame(WINDOW_UPDATE, 0, 4), piece), Some(10_000), "{piece}");
            assert_eq!(passes(&frame(CONTINUATION, 0, 1), piece), Some(2000), "{piece}");
        }
        assert_eq!(passes(&frame(DATA, 0, 1), 5), None);
        assert_eq!(passes(&frame(HEADERS, 5, 20), 5), None);
        // Requests that are reset, and those whose answers are taken eagerly.
        let reset = [frame(HEADERS, 5, 20), frame(RST_STREAM, 0, 4)].concat();
        assert_eq!(passes(&reset, 7), Some(1666));
        let taken = [frame(HEADERS, 5, 20), frame(WINDOW_UPDATE, 0, 4).repeat(4)].concat();
        assert_eq!(passes(&taken, 7), None);
        assert_eq!(passes(&frame(DATA, END_STREAM, 0), 5), None);
    }

    #[test]
    fn time_and_traffic_fill_it_up() {
        let mut flood = Flood::new();
        assert!(flood.received(&[b'P'; 24], stopped(), stopped));
        let resets = frame(RST_STREAM, 0, 4).repeat(1000);
        assert!(flood.received(&resets, stopped(), stopped));
        assert!(!flood.received(&resets, stopped(), stopped));
        let mut flood = Flood::new();
        assert!(flood.received(&[b'P'; 24], stopped(), stopped));
        assert!(flood.received(&resets, stopped(), stopped));
        assert!(flood.received(&resets, stopped(), much_later));
        let update = frame(WINDOW_UPDATE, 0, 4);
        for _ in 0..50_000 {
            flood.sent(64);
            assert!(flood.received(&update, stopped(), much_later));
        }
    }
}
