//! What the kernel knows about this process, read from `/proc/self` when a scrape asks.
//!
//! Reads of procfs are answered from memory and do not block, so control does them itself.

use std::fs;
use std::time::Duration;

/// One reading. A value the kernel did not give is `None` and its metric is left out.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct ProcessFacts {
    /// Processor time of all threads, user and system.
    pub cpu: Option<Duration>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Virtual memory.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub fds_open: Option<u64>,
    /// Soft limit of file descriptors.
    pub fds_max: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl ProcessFacts {
    /// Reads all of them.
    pub fn read() -> Self {
        let mut facts = Self::default();
        if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
            facts.read_stat(&stat);
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            facts.read_status(&status);
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits") {
            facts.fds_max = limits
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        }
        // The directory's own descriptor is one of them.
        facts.fds_open = fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1));
        facts
    }

    /// Resident memory alone.
    pub fn resident() -> Option<u64> {
        let mut facts = Self::default();
        facts.read_status(&fs::read_to_string("/proc/self/status").ok()?);
        facts.resident_bytes
    }

    fn read_stat(&mut self, stat: &str) {
        // The second field is the name in parentheses and may hold anything; fields are counted from behind it.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            return;
        };
        let field = |n: usize| rest.split_whitespace().nth(n)?.parse::<u64>().ok();
        // utime and stime are fields 14 and 15 of proc(5), in ticks; USER_HZ is 100 on every Linux architecture.
        if let (Some(user), Some(system)) = (field(11), field(12)) {
            self.cpu = Some(Duration::from_millis((user + system) * 10));
        }
    }

    fn read_status(&mut self, status: &str) {
        let number = |key: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.resident_bytes = number("VmRSS:").map(|kib| kib * 1024);
        self.virtual_bytes = number("VmSize:").map(|kib| kib * 1024);
        self.threads = number("Threads:");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let facts = ProcessFacts::read();
        assert!(facts.resident_bytes > Some(64 * 1024) && ProcessFacts::resident() > Some(64 * 1024));
        assert!(facts.virtual_bytes >= facts.resident_bytes);
        assert!(facts.threads >= Some(1));
        assert!(facts.fds_open >= Some(3));
        assert!(facts.fds_max >= facts.fds_open);
        assert!(facts.cpu.is_some());
    }

    #[test]
    fn a_process_name_with_parentheses_does_not_shift_fields() {
        let mut facts = ProcessFacts::default();
        facts.read_stat("7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0");
        assert_eq!(facts.cpu, Some(Duration::from_secs(3)));
    }

    #[test]
    fn nonsense_leaves_everything_out() {
        let mut facts = ProcessFacts::default();
        facts.read_stat("");
        facts.read_status("VmRSS:\nThreads: many");
        assert_eq!(facts, ProcessFacts::default());
    }
}
