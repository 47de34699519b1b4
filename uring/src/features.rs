//! What this kernel can do, and why it cannot when it cannot.
//!
//! The floor is Linux 6.1. Everything newer is optional: found by probing, switched off by a [`FeatureMask`], so that the
//! same tests run with and without it. A refusal names what is missing and the command that fixes it.

use std::fmt;
use std::io;

/// Which optional features may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureMask {
    /// Submission queue without its index array (6.6).
    pub no_sqarray: bool,
    /// Minimum wait for a batch (6.12).
    pub min_wait: bool,
    /// Sockets made, set up and connected in the ring on direct descriptors (6.13).
    pub direct_connect: bool,
}

impl FeatureMask {
    /// Whatever the kernel has.
    pub const ALL: Self = Self { no_sqarray: true, min_wait: true, direct_connect: true };

    /// Nothing newer than Linux 6.1.
    pub const FLOOR: Self = Self { no_sqarray: false, min_wait: false, direct_connect: false };
}

impl Default for FeatureMask {
    fn default() -> Self {
        Self::ALL
    }
}

/// What was found. Made by [`Features::probe`] only, so a ring never runs on a guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Kernel release, as `uname -r` says.
    pub kernel: String,
    /// Submission queue without its index array (6.6).
    pub no_sqarray: bool,
    /// Minimum wait for a batch (6.12).
    pub min_wait: bool,
    /// Sockets made, set up and connected in the ring on direct descriptors (6.13).
    pub direct_connect: bool,
    /// UDP sends are segmented by the kernel (GSO).
    pub udp_gso: bool,
    /// UDP receives are coalesced by the kernel (GRO).
    pub udp_gro: bool,
}

impl Features {
    /// Looks what the kernel has, then proves it: receives into provided buffers over a socket pair, and datagram
    /// trains over a pair of UDP sockets.
    ///
    /// # Errors
    /// What the floor needs and this machine refuses, with the fix.
    pub fn probe(mask: FeatureMask) -> Result<Self, StartError> {
        let kernel = crate::host::kernel_release();
        if let Some(version) = parse_version(&kernel)
            && version < FLOOR
        {
            return Err(StartError::KernelTooOld { kernel });
        }
        let version = parse_version(&kernel);
        let mut features =
            Self { kernel, no_sqarray: false, min_wait: false, direct_connect: false, udp_gso: true, udp_gro: true };
        // The first ring runs on the floor alone, so that an optional feature can never hide why the floor is refused.
        crate::selftest::floor(&mut features)?;
        let mask = FeatureMask {
            direct_connect: mask.direct_connect && version.is_none_or(|version| version >= PROMPT_CLOSE),
            ..mask
        };
        crate::selftest::optional(&mut features, mask);
        Ok(features)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}; io_uring:", self.kernel)?;
        let optional = [
            ("udp-gso", self.udp_gso),
            ("udp-gro", self.udp_gro),
            ("no-sqarray(6.6)", self.no_sqarray),
            ("direct-connect(6.13)", self.direct_connect),
            ("min-wait(6.12)", self.min_wait),
        ];
        for (name, present) in optional {
            write!(f, " {}{name}", if present { '+' } else { '-' })?;
        }
        Ok(())
    }
}

const FLOOR: (u32, u32) = (6, 1);

/// Older kernels hold a closed direct descriptor back until every operation that began before has ended; the self-test
/// finds that too, but only by waiting for it.
const PROMPT_CLOSE: (u32, u32) = (6, 13);

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

/// Why no ring could be made, and what to do about it.
#[derive(Debug)]
pub enum StartError {
    /// The kernel is older than 6.1.
    KernelTooOld {
        /// `uname -r`.
        kernel: String,
    },
    /// The sysctl `kernel.io_uring_disabled` forbids it.
    DisabledBySysctl {
        /// Its value: 1 needs a privilege or group, 2 is off for everybody.
        value: u8,
    },
    /// A system call filter (container runtime, systemd unit) forbids it.
    DisabledByFilter {
        /// What the call answered.
        error: io::Error,
    },
    /// Too little lockable memory.
    LockedMemory {
        /// RLIMIT_MEMLOCK in bytes.
        limit: u64,
    },
    /// Too few file descriptors.
    Descriptors {
        /// RLIMIT_NOFILE.
        limit: u64,
    },
    /// Not enough memory.
    Memory {
        /// For what.
        what: &'static str,
        /// What the call answered.
        error: io::Error,
    },
    /// A feature that the floor has was refused.
    Refused {
        /// Which.
        feature: &'static str,
        /// The kernel that has it.
        since: &'static str,
        /// What the call answered.
        error: io::Error,
    },
    /// A feature is there but did not do what it should.
    Misbehaved {
        /// Which.
        feature: &'static str,
        /// What was seen.
        seen: String,
    },
}

impl StartError {
    /// Why io_uring_setup failed.
    pub(crate) fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => match crate::host::io_uring_disabled() {
                Some(value @ 1..) => Self::DisabledBySysctl { value },
                _ => Self::DisabledByFilter { error },
            },
            Some(libc::ENOMEM) => match crate::host::locked_memory_limit() {
                // Since 5.12 rings count against the memory control group, but a tiny limit is still the usual culprit.
                Some(limit) if limit < 1 << 20 => Self::LockedMemory { limit },
                _ => Self::Memory { what: "the ring", error },
            },
            Some(libc::EMFILE | libc::ENFILE) => {
                Self::Descriptors { limit: crate::host::descriptor_limit().unwrap_or(0) }
            }
            _ => Self::Refused { feature: "io_uring with SINGLE_ISSUER and DEFER_TASKRUN", since: "6.1", error },
        }
    }

    pub(crate) fn refused(feature: &'static str, since: &'static str, error: io::Error) -> Self {
        Self::Refused { feature, since, error }
    }

    pub(crate) fn memory(what: &'static str, error: io::Error) -> Self {
        Self::Memory { what, error }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KernelTooOld { kernel } => write!(
                f,
                "this kernel is Linux {kernel}, and Spooky needs 6.1 or newer\n  \
                 fix: boot a newer kernel (Debian 12 has 6.1; on Debian 11: apt install -t bullseye-backports linux-image-amd64)"
            ),
            Self::DisabledBySysctl { value: 1 } => write!(
                f,
                "io_uring is reserved for privileged processes (sysctl kernel.io_uring_disabled = 1)\n  \
                 fix: sysctl -w kernel.io_uring_disabled=0, or add the service's group: sysctl -w kernel.io_uring_group=$(id -g spooky)"
            ),
            Self::DisabledBySysctl { value } => write!(
                f,
                "io_uring is switched off (sysctl kernel.io_uring_disabled = {value})\n  \
                 fix: sysctl -w kernel.io_uring_disabled=0, and the same in /etc/sysctl.d/60-spooky.conf"
            ),
            Self::DisabledByFilter { error } => write!(
                f,
                "a system call filter forbids io_uring ({error}); container runtimes do this by default\n  \
                 fix: docker run --security-opt seccomp=unconfined, or a profile that allows io_uring_setup, io_uring_enter \
                 and io_uring_register; in a systemd unit: SystemCallFilter=@io-uring; on a kernel of your own: CONFIG_IO_URING=y"
            ),
            Self::LockedMemory { limit } => write!(
                f,
                "too little lockable memory for the ring: the limit is {limit} bytes\n  \
                 fix: ulimit -l unlimited, or LimitMEMLOCK=infinity in the systemd unit"
            ),
            Self::Descriptors { limit } => write!(
                f,
                "no file descriptor is left: the limit is {limit}\n  \
                 fix: ulimit -n 1048576, or LimitNOFILE=1048576 in the systemd unit"
            ),
            Self::Memory { what, error } => write!(
                f,
                "no memory for {what}: {error}\n  fix: raise the memory limit of the service or lower the buffer counts"
            ),
            Self::Refused { feature, since, error } => write!(
                f,
                "the kernel refused {feature} (in Linux since {since}): {error}\n  fix: boot Linux 6.1 or newer without patches to io_uring"
            ),
            Self::Misbehaved { feature, seen } => {
                write!(f, "self-test of {feature} failed: {seen}\n  fix: boot another kernel; please report this one")
            }
        }
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse_version("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(parse_version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse_version("5.10"), Some((5, 10)));
        assert_eq!(parse_version("six"), None);
        assert!((5, 19) < FLOOR && (6, 1) >= FLOOR && (10, 0) > FLOOR);
    }

    #[test]
    fn every_refusal_names_its_fix() {
        let refusals = [
            StartError::KernelTooOld { kernel: "5.10".into() },
            StartError::DisabledBySysctl { value: 1 },
            StartError::DisabledBySysctl { value: 2 },
            StartError::DisabledByFilter { error: io::Error::from_raw_os_error(libc::EPERM) },
            StartError::LockedMemory { limit: 65536 },
            StartError::Descriptors { limit: 3 },
            StartError::memory("x", io::Error::from_raw_os_error(libc::ENOMEM)),
            StartError::refused("x", "5.19", io::Error::from_raw_os_error(libc::EINVAL)),
            StartError::Misbehaved { feature: "x", seen: "y".into() },
        ];
        for refusal in refusals {
            assert!(refusal.to_string().contains("\n  fix: "), "{refusal}");
        }
    }

    #[test]
    fn setup_errors_are_told_apart() {
        let from = |errno| StartError::from_setup(io::Error::from_raw_os_error(errno));
        assert!(matches!(from(libc::EPERM), StartError::DisabledByFilter { .. } | StartError::DisabledBySysctl { .. }));
        assert!(matches!(from(libc::EMFILE), StartError::Descriptors { .. }));
        assert!(matches!(from(libc::EINVAL), StartError::Refused { .. }));
    }
}
