//! Owns the process's secret: the root of the keys for connection IDs, stateless resets and tokens. A file makes them
//! last: clients of a process that crashed are told so by the next one, and processes that share the file accept each
//! other's tokens.
//!
//! The file is made at the first start, whole or not at all, readable by its owner only. One that others can read is
//! refused: who has it can end every connection.

use super::failure::{Exit, Failure};
use super::workers::random;
use crate::balance::KeyedHash;
use crate::config::SecretSource;
use ring::hkdf;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes that a new file gets, and the least that one has to have.
pub const SECRET_LEN_MIN: usize = 32;

/// A file above this is not a secret but some other file.
const SECRET_LEN_MAX: u64 = 4096;

/// The key that names the file.
const KEY: &str = "[security] secret.file";

/// The process's secret. Never shown.
pub struct Secret(Box<[u8]>);

impl Secret {
    /// What keys are derived from.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What hashes keys of requests: the same on all workers, after a restart, and on every host that shares the secret.
    pub fn request_hash(&self) -> KeyedHash {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"spooky balancing").extract(&self.0);
        let mut key = [0; 32];
        // Both fail only for outputs over 255 hashes.
        let filled = root.expand(&[b"hash v1"], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
        assert!(filled.is_ok(), "HKDF output of {} bytes", key.len());
        KeyedHash::new(std::array::from_fn(|at| key[at]))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Reads the secret, or makes it.
///
/// # Errors
/// If the file is not what it should be, or the operator named one that cannot be made.
pub fn load(source: &SecretSource) -> Result<Secret, Failure> {
    match source {
        SecretSource::Memory => in_memory(),
        SecretSource::File(path) => match read(path)? {
            Some(secret) => Ok(secret),
            None => make(path).map_err(|error| Failure::file(path, KEY, &error))?,
        },
        SecretSource::Usual(path) => match read(path)? {
            Some(secret) => Ok(secret),
            None => match make(path) {
                Ok(made) => made,
                Err(error) => {
                    tracing::warn!(
                        file = %path.display(),
                        %error,
                        "the secret cannot be kept: clients of this process will not be told when the next one has taken its \
                         place, and no other process accepts its tokens; fix: make the folder for the user that spooky runs \
                         as (StateDirectory=spooky in the unit), or set [security] secret = {{ file = \"…\" }}"
                    );
                    in_memory()
                }
            },
        },
    }
}

/// Looks at the file as [`load`] will, without making it.
///
/// # Errors
/// As [`load`].
pub fn check(source: &SecretSource) -> Result<(), Failure> {
    existing(source).map(|_| ())
}

/// The secret that a process with this configuration has by now; `None`: it is made at the next start.
///
/// # Errors
/// If the file is not what it should be, or may not be read.
pub fn existing(source: &SecretSource) -> Result<Option<Secret>, Failure> {
    match source {
        SecretSource::File(path) | SecretSource::Usual(path) => read(path),
        SecretSource::Memory => Ok(None),
    }
}

fn in_memory() -> Result<Secret, Failure> {
    Ok(Secret(Box::new(random::<SECRET_LEN_MIN>()?)))
}

/// `None`: there is no file.
fn read(path: &Path) -> Result<Option<Secret>, Failure> {
    let failed = |error: &io::Error| Failure::file(path, KEY, error);
    let wrong = |cause: String, fix: String| {
        Failure::new(format!("{} ({KEY})", path.display()), cause).fix(fix).exit(Exit::Configuration)
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    // Of the file that is open, not of what has its name by now.
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(wrong("this is not a file".to_owned(), "name a file; it is made if it is not there".to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(wrong(
            format!("others than its owner can use this file (mode {mode:04o})"),
            format!("chmod 600 {0}; if anybody may have read it, remove it: a new one is made", path.display()),
        ));
    }
    let mut bytes = Vec::new();
    (&mut file).take(SECRET_LEN_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() < SECRET_LEN_MIN {
        return Err(wrong(
            format!("{} bytes are too short for a secret; it takes {SECRET_LEN_MIN}", bytes.len()),
            format!("remove it, and a new one is made, or: head -c {SECRET_LEN_MIN} /dev/urandom > {}", path.display()),
        ));
    }
    if bytes.len() as u64 > SECRET_LEN_MAX {
        return Err(wrong(
            format!("more than {SECRET_LEN_MAX} bytes: this is some other file"),
            "name a file of its own; it is made if it is not there".to_owned(),
        ));
    }
    Ok(Some(Secret(bytes.into())))
}

/// Makes the file, and its folder if only that is missing. The outer error is that of making it; the inner result is that of
/// reading one that another process made meanwhile.
fn make(path: &Path) -> io::Result<Result<Secret, Failure>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.exists() {
        DirBuilder::new().mode(0o700).create(folder)?;
    }
    let secret = match in_memory() {
        Ok(secret) => secret,
        Err(failure) => return Ok(Err(failure)),
    };
    let draft = Draft::new(path, &secret)?;
    match fs::hard_link(&draft.0, path) {
        Ok(()) => {
            // The name has to last too.
            File::open(folder)?.sync_all()?;
            tracing::info!(file = %path.display(), "made a secret");
            Ok(Ok(secret))
        }
        // Another process was first: its secret is the one.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match read(path) {
            Ok(Some(secret)) => Ok(Ok(secret)),
            Ok(None) => Err(io::Error::from(ErrorKind::NotFound)),
            Err(failure) => Ok(Err(failure)),
        },
        Err(error) => Err(error),
    }
}

/// A whole file under a name of ours, which is gone when it has got its real one.
struct Draft(PathBuf);

impl Draft {
    fn new(path: &Path, secret: &Secret) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let draft = Self(name.into());
        // What is left of a process with our number that crashed here.
        if let Err(error) = fs::remove_file(&draft.0)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.0)?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A draft that stays does no harm: nobody reads it, and only its owner could.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("spooky-secret-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, content: &[u8], mode: u32) -> Box<Path> {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.into()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn refused(path: &Path, cause: &str, fix: &str) {
        for refused in [load(&SecretSource::File(path.into())), load(&SecretSource::Usual(path.into()))] {
            let text = refused.map(|_| ()).expect_err("taken").to_string();
            assert!(text.contains(cause) && text.contains(fix), "{text}");
            assert!(text.contains(&*path.to_string_lossy()) && text.contains("secret.file"), "{text}");
        }
        assert!(check(&SecretSource::File(path.into())).is_err());
    }

    #[test]
    fn a_secret_is_made_once_and_kept_to_its_owner() {
        let folder = Folder::new("made");
        let path = folder.0.join("state/secret");
        let source = SecretSource::File(path.clone().into());
        check(&source).unwrap();
        assert!(!path.exists(), "a check makes nothing");
        let first = load(&source).unwrap();
        let second = load(&source).unwrap();
        assert_eq!(first.as_bytes(), second.as_bytes());
        assert_eq!(first.as_bytes().len(), SECRET_LEN_MIN);
        assert_ne!(first.as_bytes(), [0; SECRET_LEN_MIN]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.0.join("state")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(folder.0.join("state")).unwrap().count(), 1, "a draft is left");
        assert_eq!(format!("{first:?}"), "Secret(..)");
    }

    #[test]
    fn processes_that_start_together_agree() {
        let folder = Folder::new("race");
        let path = folder.0.join("secret");
        let made = Secret(vec![1; 32].into());
        let draft = Draft::new(&path, &made).unwrap();
        fs::hard_link(&draft.0, &path).unwrap();
        drop(draft);
        // This one looked before the other's file was there.
        let ours = make(&path).unwrap().unwrap();
        assert_eq!(ours.as_bytes(), made.as_bytes());
    }

    #[test]
    fn files_that_are_no_secret_are_refused_with_a_way_out() {
        let folder = Folder::new("refused");
        refused(&folder.file("short", &[7; 31], 0o600), "31 bytes are too short", "remove it");
        refused(&folder.file("empty", &[], 0o600), "0 bytes are too short", "/dev/urandom");
        refused(&folder.file("open", &[7; 32], 0o640), "mode 0640", "chmod 600");
        refused(&folder.file("world", &[7; 32], 0o604), "mode 0604", "chmod 600");
        refused(&folder.file("long", &[7; 5000], 0o600), "some other file", "name a file");
        refused(&folder.0, "not a file", "name a file");
        // A longer one, or text, is good, and need not be writable.
        let good = folder.file("good", "0123456789abcdef".repeat(4).as_bytes(), 0o400);
        assert_eq!(load(&SecretSource::File(good)).unwrap().as_bytes().len(), 64);
    }

    #[test]
    fn only_the_usual_place_may_be_missing() {
        let folder = Folder::new("missing");
        let nowhere: Box<Path> = folder.0.join("no/such/folder/secret").into();
        let text = load(&SecretSource::File(nowhere.clone())).map(|_| ()).expect_err("made").to_string();
        assert!(text.contains("fix: make the folder first"), "{text}");
        let first = load(&SecretSource::Usual(nowhere.clone())).unwrap();
        let second = load(&SecretSource::Usual(nowhere)).unwrap();
        assert_ne!(first.as_bytes(), second.as_bytes());
        assert_ne!(load(&SecretSource::Memory).unwrap().as_bytes(), first.as_bytes());
    }
}
