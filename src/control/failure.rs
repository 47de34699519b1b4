//! Why the process does not start, or did not end well: place, cause, fix, and the exit code that goes with it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Exit codes of the command line. Those of `spooky probe` are curl's where curl has one for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// Something failed.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The name has no address.
    Resolve = 6,
    /// Nobody listens, or no way leads there.
    Connect = 7,
    /// The status is 400 or higher, and that counts as failure.
    Status = 22,
    /// The body cannot be written.
    Output = 23,
    /// No answer in time.
    Timeout = 28,
    /// The QUIC or TLS handshake failed.
    Handshake = 35,
    /// The certificate is not good.
    Certificate = 60,
    /// The body is larger than permitted.
    TooLarge = 63,
    /// A permission is missing (EX_NOPERM).
    Permission = 77,
    /// The configuration is wrong (EX_CONFIG).
    Configuration = 78,
}

/// A failure an operator can act on.
#[derive(Debug)]
pub struct Failure {
    /// Where: an address, a file, a worker.
    pub place: String,
    /// What the machine said.
    pub cause: String,
    /// What to do; empty if nothing is known.
    pub fix: String,
    /// The exit code.
    pub exit: Exit,
}

impl Failure {
    /// A failure without known fix.
    pub fn new(place: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { place: place.into(), cause: cause.to_string(), fix: String::new(), exit: Exit::Failure }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// A socket that could not be bound. `key` names the setting that holds the address.
    pub fn bind(protocol: Protocol, address: SocketAddr, key: &str, error: &io::Error) -> Self {
        let (name, letter) = match protocol {
            Protocol::Udp => ("UDP", 'u'),
            Protocol::Tcp => ("TCP", 't'),
        };
        let port = address.port();
        let failure = Self::new(format!("{name} {address} ({key})"), error);
        match error.kind() {
            io::ErrorKind::AddrInUse => failure.fix(format!(
                "another process has the port: `ss -l{letter}np 'sport = :{port}'` names it; stop it or set another port for {key}"
            )),
            io::ErrorKind::PermissionDenied => failure
                .fix(format!(
                    "ports below 1024 need a privilege: run under systemd with AmbientCapabilities=CAP_NET_BIND_SERVICE, \
                     or `setcap cap_net_bind_service=+ep` on the binary, or set a port from 1024 up for {key}"
                ))
                .exit(Exit::Permission),
            io::ErrorKind::AddrNotAvailable => failure.fix(format!(
                "no interface has this address: `ip address` lists them; set one of those, or 0.0.0.0, for {key}"
            )),
            _ => failure,
        }
    }

    /// A file that could not be opened.
    pub fn file(path: &std::path::Path, key: &str, error: &io::Error) -> Self {
        let failure = Self::new(format!("{} ({key})", path.display()), error);
        match error.kind() {
            io::ErrorKind::PermissionDenied => failure
                .fix("let the user that spooky runs as read and write it: check the owner and mode of the file and its folders")
                .exit(Exit::Permission),
            io::ErrorKind::NotFound => failure.fix("make the folder first, or correct the path"),
            _ => failure,
        }
    }
}

/// The transport of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// QUIC.
    Udp,
    /// HTTP/1.1 of the control addresses.
    Tcp,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.cause)?;
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_the_setting_and_the_command() {
        let error = io::Error::from(io::ErrorKind::AddrInUse);
        let address = "0.0.0.0:9889".parse().unwrap();
        let failure = Failure::bind(Protocol::Udp, address, "listener `main`", &error);
        let text = failure.to_string();
        assert!(text.starts_with("UDP 0.0.0.0:9889 (listener `main`): "), "{text}");
        assert!(text.contains("fix: ") && text.contains("ss -lunp 'sport = :9889'"), "{text}");
        assert_eq!(failure.exit, Exit::Failure);
    }

    #[test]
    fn a_missing_privilege_has_its_own_exit_code() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let address = "[::]:443".parse().unwrap();
        let failure = Failure::bind(Protocol::Udp, address, "listener `main`", &error);
        assert_eq!(failure.exit as u8, 77);
    }
}
