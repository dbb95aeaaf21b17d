//! How much memory the process takes.

use std::fs;

/// Memory in use that is not swapped out, as Linux counts it. Not that of the control group: it holds the cache of files as well,
/// which is given back before anything suffers.
pub fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    parse(&text)
}

fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_from_what_linux_tells() {
        assert_eq!(parse("Name:\ta\nVmRSS:\t    5120 kB\nRssAnon:\t 1 kB\n"), Some(5120 * 1024));
        assert_eq!(parse("VmRSS:\t many kB\n"), None);
        assert_eq!(parse(""), None);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1024 * 1024));
    }
}
