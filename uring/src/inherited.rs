//! Sockets that the process was started with, as systemd hands them over (sd_listen_fds(3)).
//!
//! Owns the protocol: `LISTEN_PID` says for whom they are, `LISTEN_FDS` how many, from descriptor 3 on, and
//! `LISTEN_FDNAMES` what each is called. What the names mean is the caller's.

use crate::socket;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that can be handed over.
const FIRST: RawFd = 3;

/// A socket and its name; systemd's own word for one without is `unknown`.
#[derive(Debug)]
pub struct Inherited {
    /// `FileDescriptorName=` of the socket unit; several sockets may share one.
    pub name: String,
    /// The socket.
    pub descriptor: OwnedFd,
}

impl Inherited {
    /// Whether it is for connections rather than datagrams.
    pub fn is_stream(&self) -> bool {
        socket::is_stream(&self.descriptor)
    }
}

/// Takes everything that was handed over, in its order. A second call finds nothing: what is taken has an owner.
///
/// # Errors
/// When the environment contradicts itself, or promises a descriptor that is not open.
pub fn take() -> io::Result<Vec<Inherited>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var_os(name);
    let pid = std::process::id();
    let promised = promised(
        pid,
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
    )?;
    if promised.is_empty() || TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    // Looked at first, all of them: nothing is taken of a promise that is broken.
    for (at, name) in (FIRST..).zip(&promised) {
        // A program that the process starts has no business with them.
        // SAFETY: takes no pointers.
        if unsafe { libc::fcntl(at, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(error.kind(), format!("descriptor {at} (`{name}`) of LISTEN_FDS: {error}")));
        }
    }
    let taken = (FIRST..).zip(promised).map(|(at, name)| {
        // SAFETY: the process was started with these descriptors for it to own, and the flag above lets them be taken once.
        Inherited { name, descriptor: unsafe { OwnedFd::from_raw_fd(at) } }
    });
    Ok(taken.collect())
}

/// The names of the sockets that the environment promises to process `pid`.
fn promised(
    pid: u32,
    listen_pid: Option<&OsStr>,
    listen_fds: Option<&OsStr>,
    names: Option<&OsStr>,
) -> io::Result<Vec<String>> {
    let (Some(listen_pid), Some(listen_fds)) = (listen_pid, listen_fds) else {
        return Ok(Vec::new());
    };
    // Somebody else's: the variables were inherited with everything else.
    if listen_pid.to_str().and_then(|text| text.parse().ok()) != Some(pid) {
        return Ok(Vec::new());
    }
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let count: usize = listen_fds
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|count| *count <= u16::MAX as usize)
        .ok_or_else(|| wrong(format!("LISTEN_FDS={} is not a number of sockets", listen_fds.display())))?;
    let Some(names) = names else {
        return Ok(vec!["unknown".to_owned(); count]);
    };
    let names: Vec<String> = match count {
        0 => Vec::new(),
        _ => names.to_string_lossy().split(':').map(str::to_owned).collect(),
    };
    if names.len() != count {
        return Err(wrong(format!("LISTEN_FDS={count}, but LISTEN_FDNAMES has {} names", names.len())));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pid: Option<&str>, fds: Option<&str>, names: Option<&str>) -> Result<Vec<String>, String> {
        let os = |text: Option<&'static str>| text.map(OsStr::new);
        let leak = |text: Option<&str>| text.map(|text| &*text.to_owned().leak());
        promised(7, os(leak(pid)), os(leak(fds)), os(leak(names))).map_err(|error| error.to_string())
    }

    #[test]
    fn sockets_come_with_their_names_in_order() {
        assert_eq!(names(Some("7"), Some("2"), Some("main:main")).unwrap(), ["main", "main"]);
        assert_eq!(names(Some("7"), Some("1"), None).unwrap(), ["unknown"]);
        assert_eq!(names(Some("7"), Some("0"), Some("")).unwrap(), [""; 0]);
    }

    #[test]
    fn sockets_of_another_process_are_not_ours() {
        assert_eq!(names(Some("8"), Some("2"), Some("a:b")).unwrap(), [""; 0]);
        assert_eq!(names(Some("x"), Some("2"), None).unwrap(), [""; 0]);
        assert_eq!(names(None, Some("2"), None).unwrap(), [""; 0]);
        assert_eq!(names(Some("7"), None, None).unwrap(), [""; 0]);
    }

    #[test]
    fn an_environment_that_contradicts_itself_is_refused() {
        assert!(names(Some("7"), Some("many"), None).unwrap_err().contains("LISTEN_FDS=many"));
        assert!(names(Some("7"), Some("70000"), None).is_err());
        assert!(names(Some("7"), Some("2"), Some("a")).unwrap_err().contains("has 1 names"));
    }
}
