//! The machine under the process: CPU pinning, thread names, limits, and what /proc says.
//!
//! Everything above this crate is safe code without `libc`; what it needs of the system beyond files and sockets is here.

use nix::sched::CpuSet;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use std::io;
use std::time::Duration;

/// CPUs this thread may run on, ascending.
///
/// # Errors
/// When the kernel does not say.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Keeps this thread on one CPU.
///
/// # Errors
/// When that CPU does not exist or is not allowed.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(nix::sched::sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Names this thread for `top` and `perf`; the kernel keeps the first 15 bytes.
pub fn name_thread(name: &str) {
    let mut bytes = [0_u8; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    // SAFETY: PR_SET_NAME reads at most 16 bytes up to a NUL, and the last byte is one.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// Raises the number of file descriptors to the hard limit, or to `wanted` if that is more and allowed. Returns the
/// limit that holds now.
///
/// # Errors
/// When the limit cannot be read or set.
pub fn raise_descriptor_limit(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if wanted > hard && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard.max(soft))
}

/// The present limit of file descriptors.
pub fn descriptor_limit() -> Option<u64> {
    Some(getrlimit(Resource::RLIMIT_NOFILE).ok()?.0)
}

/// The present limit of lockable memory, in bytes.
pub fn locked_memory_limit() -> Option<u64> {
    Some(getrlimit(Resource::RLIMIT_MEMLOCK).ok()?.0)
}

/// The kernel's release, as `uname -r` says; empty if it does not.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map(|release| release.trim().to_owned()).unwrap_or_default()
}

/// The sysctl `kernel.io_uring_disabled`; kernels before 6.6 have none.
pub fn io_uring_disabled() -> Option<u8> {
    let value = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    value.trim().parse().ok()
}

/// What the process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory.
    pub resident_bytes: u64,
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// Reads the process's use of the machine from /proc. Blocks for microseconds: not for a worker.
///
/// # Errors
/// When /proc is not there.
pub fn usage() -> io::Result<Usage> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the name in parentheses and may hold anything, so count from the last one.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |number: usize| {
        let value = fields.split_ascii_whitespace().nth(number - 3);
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    let tick = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    let ticks = |ticks: u64| Duration::from_millis(ticks * 1000 / tick.max(1) as u64);
    Ok(Usage {
        user: ticks(field(14)),
        system: ticks(field(15)),
        threads: field(20),
        resident_bytes: field(24) * page as u64,
        descriptors: std::fs::read_dir("/proc/self/fd")?.count() as u64,
    })
}

/// A signal that is asked for.
pub use nix::sys::signal::Signal;

/// Blocks `signals` in this thread and the threads it will start, so that only a ring reads them. Call it before the
/// first thread starts.
///
/// # Errors
/// When the kernel refuses.
pub fn block_signals(signals: &[Signal]) -> io::Result<()> {
    let mut set = nix::sys::signal::SigSet::empty();
    signals.iter().for_each(|signal| set.add(*signal));
    Ok(set.thread_block()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_answers() {
        assert!(!kernel_release().is_empty());
        let usage = usage().unwrap();
        assert!(usage.resident_bytes > 0 && usage.threads > 0 && usage.descriptors > 2);
        assert!(descriptor_limit().unwrap() > 0);
        let cpus = allowed_cpus().unwrap();
        std::thread::spawn(move || {
            name_thread("a-name-longer-than-fifteen");
            let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            assert_eq!(name.trim(), "a-name-longer-t");
            pin_to_cpu(cpus[0]).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [cpus[0]]);
            assert!(pin_to_cpu(100_000).is_err());
        })
        .join()
        .unwrap();
    }
}
