//! Looks at another process from outside: CPU and memory of its process tree, and what else ran on its CPU.
//!
//! The generator takes both samples itself, at the very ends of the measured time, so that start-up, warm-up and
//! tear-down never enter the figures.

use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fs;

/// Linux shows process times in hundredths of a second on every architecture we run on (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// A process to look at.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    root: u32,
    cpu: Option<usize>,
}

/// Figures at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// User and system seconds of the tree, with reaped children.
    cpu_s: f64,
    /// Resident memory of the tree, KiB.
    rss_kib: u64,
    /// Highest resident memory, summed over the tree, KiB.
    rss_peak_kib: u64,
    /// Busy seconds of the watched CPU, whoever used them.
    core_busy_s: f64,
    /// Datagrams lost to full buffers in this network namespace.
    udp_drops: u64,
}

/// The difference of two samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Watched {
    /// CPU seconds the tree used.
    pub cpu_s: f64,
    /// Share of one CPU that is.
    pub cpu_share: f64,
    /// Share of the watched CPU that others used.
    pub foreign_share: Option<f64>,
    /// Resident memory at the start, KiB.
    pub rss_start_kib: u64,
    /// Resident memory at the end, KiB.
    pub rss_end_kib: u64,
    /// Highest resident memory since that process began, KiB.
    pub rss_peak_kib: u64,
    /// Datagrams that all sockets of this network namespace lost to full buffers.
    pub udp_drops: u64,
}

impl Watch {
    /// Watches a process and all its descendants.
    pub fn new(root: u32, cpu: Option<usize>) -> Self {
        Self { root, cpu }
    }

    /// Looks now.
    pub fn sample(&self) -> Sample {
        let mut sample = Sample {
            core_busy_s: self.cpu.map_or(0.0, core_busy_seconds),
            udp_drops: udp_drops(),
            ..Sample::default()
        };
        for pid in tree(self.root) {
            let Some(fields) = stat_fields(pid) else {
                continue;
            };
            // After the state: utime, stime, cutime, cstime are the 12th to 15th field.
            let ticks: u64 = fields[11..15].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
            sample.cpu_s += ticks as f64 / TICKS_PER_SECOND;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            sample.rss_kib += status_kib(&status, "VmRSS:");
            sample.rss_peak_kib += status_kib(&status, "VmHWM:");
        }
        sample
    }

    /// What happened between two looks that are `seconds` apart.
    pub fn between(&self, start: Sample, end: Sample, seconds: f64) -> Watched {
        let cpu_s = end.cpu_s - start.cpu_s;
        let busy = end.core_busy_s - start.core_busy_s;
        Watched {
            cpu_s,
            cpu_share: cpu_s / seconds,
            foreign_share: self.cpu.map(|_| ((busy - cpu_s) / seconds).max(0.0)),
            rss_start_kib: start.rss_kib,
            rss_end_kib: end.rss_kib,
            rss_peak_kib: end.rss_peak_kib,
            udp_drops: end.udp_drops.saturating_sub(start.udp_drops),
        }
    }
}

impl Sample {
    /// Resident memory, KiB.
    pub fn rss_kib(&self) -> u64 {
        self.rss_kib
    }
}

/// The fields of /proc/PID/stat after the command name, which may itself hold blanks and brackets.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<String> = text[text.rfind(')')? + 1..].split_whitespace().map(str::to_owned).collect();
    (fields.len() >= 15).then_some(fields)
}

fn tree(root: u32) -> HashSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let parent = stat_fields(pid).and_then(|fields| fields[1].parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = HashSet::new();
    let mut queue = vec![root];
    while let Some(pid) = queue.pop() {
        if found.insert(pid) {
            queue.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

fn status_kib(status: &str, key: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Seconds since boot that a CPU was not idle.
pub fn core_busy_seconds(cpu: usize) -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{cpu} ");
    let Some(line) = text.lines().find_map(|line| line.strip_prefix(&name)) else {
        return 0.0;
    };
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal guest guest_nice; guest time is part of user time already.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| ticks.get(index)).sum();
    busy as f64 / TICKS_PER_SECOND
}

/// RcvbufErrors and SndbufErrors of this network namespace.
fn udp_drops() -> u64 {
    let text = fs::read_to_string("/proc/self/net/snmp").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .filter(|(name, _)| matches!(*name, "RcvbufErrors" | "SndbufErrors"))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself_with_memory_and_never_less_cpu_than_before() {
        let watch = Watch::new(std::process::id(), Some(0));
        let start = watch.sample();
        assert!(start.rss_kib() > 100);
        assert!(start.rss_peak_kib >= start.rss_kib);
        let watched = watch.between(start, watch.sample(), 1.0);
        assert!(watched.cpu_s >= 0.0);
        assert!(watched.foreign_share.is_some());
    }

    #[test]
    fn a_process_that_is_gone_counts_as_nothing() {
        // Above the largest pid that Linux hands out.
        assert_eq!(Watch::new(u32::MAX, None).sample().rss_kib(), 0);
    }
}
