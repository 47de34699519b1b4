//! How single values are written.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::diagnostic::Findings;
use crate::config::schema::Presence;
use crate::config::source::{Source, Sources};

/// Reads one TOML value as a type, within a range.
fn read<T: Value>(text: &str, range: Option<(u64, u64)>) -> Result<T, String> {
    let mut sources = Sources::default();
    let main = sources.add(Source::new("t", Path::new("/etc/spooky"), format!("key = {text}")));
    let mut findings = Findings::default();
    let tree = crate::config::tree::parse(&sources, main, &mut findings);
    let key = Key { ident: "key", about: "", presence: Presence::Optional, shape: T::SHAPE, range };
    let value = Reader::new(&sources, &mut findings, true).read_optional::<T>(&tree, &key);
    match findings.conclude(sources) {
        Ok(_) => Ok(value.expect("nothing was refused").value),
        Err(diagnostics) => {
            Err(diagnostics.iter().map(|finding| finding.message().to_owned()).collect::<Vec<_>>().join("; "))
        }
    }
}

#[test]
fn times_have_a_unit_or_are_milliseconds() {
    for (text, millis) in [
        ("\"250ms\"", 250),
        ("\"5s\"", 5_000),
        ("\"2m\"", 120_000),
        ("\"1h\"", 3_600_000),
        ("1500", 1_500),
        ("\"0s\"", 0),
        ("\"5 s\"", 5_000),
    ] {
        assert_eq!(read::<Duration>(text, None), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in [
        "\"5\"",
        "\"s\"",
        "\"-5s\"",
        "\"1.5s\"",
        "\"5S\"",
        "\"1d\"",
        "\"\"",
        "\"99999999999999999999s\"",
        "\"18446744073709551615h\"",
        "-1",
        "1.5",
        "true",
    ] {
        assert!(read::<Duration>(text, None).is_err(), "{text}");
    }
    assert_eq!(
        read::<Duration>("\"2h\"", Some((1, 3_600_000))),
        Err("`key` is out of range: from \"1ms\" to \"1h\"".to_owned())
    );
}

#[test]
fn sizes_have_a_unit_or_are_bytes() {
    for (text, bytes) in
        [("\"16KiB\"", 16_384), ("\"8MiB\"", 8 << 20), ("\"1GiB\"", 1 << 30), ("\"7B\"", 7), ("65536", 65_536)]
    {
        assert_eq!(read::<Bytes>(text, None), Ok(Bytes(bytes)), "{text}");
    }
    for text in ["\"16\"", "\"16KB\"", "\"16k\"", "\"KiB\"", "\"-1KiB\"", "\"99999999999GiB\""] {
        assert!(read::<Bytes>(text, None).is_err(), "{text}");
    }
    assert_eq!(
        read::<Bytes>("1", Some((1_024, 65_536))),
        Err("`key` is out of range: from \"1KiB\" to \"64KiB\"".to_owned())
    );
}

#[test]
fn what_is_shown_reads_back() {
    for value in [0, 1, 999, 1_000, 60_000, 61_000, 3_600_000, 90_000_000] {
        assert_eq!(read::<Duration>(&show_millis(value), None), Ok(Duration::from_millis(value)));
    }
    for value in [0, 1, 1_023, 1_024, 1_025, 1 << 20, 3 << 30] {
        assert_eq!(read::<Bytes>(&show_bytes(value), None), Ok(Bytes(value)));
    }
}

#[test]
fn off_is_a_word() {
    assert_eq!(read::<OrOff<Bytes>>("\"off\"", Some((1, 2))), Ok(OrOff(None)));
    assert_eq!(read::<OrOff<Bytes>>("2", Some((1, 2))), Ok(OrOff(Some(Bytes(2)))));
    assert!(read::<OrOff<Bytes>>("false", None).is_err());
    assert!(read::<OrOff<Bytes>>("\"none\"", None).is_err());
}

#[test]
fn one_is_as_good_as_many() {
    let texts = |read: Result<OneOrMany<Name>, String>| {
        read.map(|names| names.0.into_iter().map(|name| name.value.0).collect::<Vec<_>>())
    };
    assert_eq!(texts(read("\"a\"", None)), Ok(vec!["a".to_owned()]));
    assert_eq!(texts(read("[\"a\", \"b\"]", None)), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert!(texts(read("[]", None)).is_err());
    assert!(texts(read("[\"a\", 3, \"b c\"]", None)).is_err_and(|messages| messages.matches("; ").count() == 1));
}

#[test]
fn relative_files_start_at_the_file_that_names_them() {
    assert_eq!(read::<FilePath>("\"certs/a.pem\"", None).map(|path| path.0), Ok("/etc/spooky/certs/a.pem".into()));
    assert_eq!(read::<FilePath>("\"/a.pem\"", None).map(|path| path.0), Ok("/a.pem".into()));
    assert!(read::<FilePath>("\"\"", None).is_err());
}

#[test]
fn addresses_and_networks_are_literal() {
    use std::net::IpAddr;
    for (text, good) in [
        ("\"[::]\"", true),
        ("\"::1\"", true),
        ("\"0.0.0.0\"", true),
        ("\"localhost\"", false),
        ("\"0.0.0.0:80\"", false),
        ("\"[0.0.0.0]\"", false),
    ] {
        assert_eq!(read::<IpAddr>(text, None).is_ok(), good, "{text}");
    }
    for (text, good) in [
        ("\"10.0.0.0/8\"", true),
        ("\"10.1.2.3\"", true),
        ("\"::/0\"", true),
        ("\"10.0.0.0/33\"", false),
        ("\"ten\"", false),
    ] {
        assert_eq!(read::<ipnet::IpNet>(text, None).is_ok(), good, "{text}");
    }
}
