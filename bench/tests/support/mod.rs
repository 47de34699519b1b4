//! The bench's tools as processes, a certificate for them, and what the generator reports of them.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The program under test.
pub const BENCH: &str = env!("CARGO_BIN_EXE_spooky-bench");

/// A tool that runs until dropped; it prints its address as the second word.
pub struct Tool {
    child: Child,
    pub address: String,
}

impl Tool {
    /// Starts it, and waits for its address.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child =
            Command::new(BENCH).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        assert!(!address.is_empty(), "{arguments:?} did not start");
        Self { child, address }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A self-signed certificate for bench.test, in a folder that goes with it.
pub struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    /// Makes one; `name` keeps the tests of one process apart.
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("spooky-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let identity = rcgen::generate_simple_self_signed(["bench.test".to_owned()]).unwrap();
        let certificate = Self { folder };
        std::fs::write(certificate.cert(), identity.cert.pem()).unwrap();
        std::fs::write(certificate.key(), identity.signing_key.serialize_pem()).unwrap();
        certificate
    }

    /// The chain.
    pub fn cert(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    /// The private key.
    pub fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One run of the generator: its report.
pub fn load(address: &str, url: &str, arguments: &[&str]) -> Value {
    let patience: &[&str] = if arguments.contains(&"--timeout") { &[] } else { &["--timeout", "60s"] };
    let done = Command::new(BENCH)
        .args(["load", url, "--connect", address, "--format", "json"])
        .args(patience)
        .args(arguments)
        .output()
        .unwrap();
    serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{url}: {error}: {done:?}"))
}

/// A short flood: its report.
pub fn flood(address: &str, kind: &str, path: &str) -> Value {
    let arguments = ["flood", kind, "--to", address, "--path", path, "--duration", "300ms", "--connections", "5"];
    let done = Command::new(BENCH).args(arguments).output().unwrap();
    serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{kind}: {error}: {done:?}"))
}

pub fn assert_all_succeed(report: &Value, count: u64) {
    assert_eq!((report["succeeded"].as_u64(), report["failed"].as_u64()), (Some(count), Some(0)), "{report:#}");
}

/// The kinds of failure that a report has.
pub fn faults(report: &Value) -> Vec<String> {
    let faults = report["faults"].as_object().unwrap().clone();
    faults.into_iter().filter(|(_, count)| count.as_u64() != Some(0)).map(|(name, _)| name).collect()
}
