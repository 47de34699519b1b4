use super::*;
use crate::http::testing::{Random, corpus, unescape};

/// The corpus: `input`, `=>`, then `forwarded` and, where it differs, `matched`; or `!` and the fault.
#[test]
fn the_corpus_holds() {
    let text = corpus("paths.txt");
    let mut cases = 0;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        let (input, expected) = line.split_once(" => ").expect(line);
        let got = match PathPair::parse(&unescape(input)) {
            Ok(pair) if pair.matched() == pair.path() => pair.forwarded().to_owned(),
            Ok(pair) => format!("{} {}", pair.forwarded(), pair.matched()),
            Err(fault) => format!("! {fault:?}"),
        };
        assert_eq!(got, expected, "{line}");
        cases += 1;
    }
    assert!(cases > 60, "the corpus shrank to {cases}");
}

#[test]
fn a_query_is_kept_and_is_no_part_of_the_match() {
    let pair = PathPair::parse(b"/api?x=%zz/../&y=\\//%2e").unwrap();
    assert_eq!(pair.matched(), "/api");
    assert_eq!(pair.query(), Some("x=%zz/../&y=\\//%2e"));
    assert_eq!(PathPair::parse(b"/api?").unwrap().query(), Some(""));
    assert_eq!(PathPair::parse(b"/api").unwrap().query(), None);
    assert_eq!(PathPair::parse(b"/%61?%61").unwrap().forwarded(), "/a?%61");
}

#[test]
fn a_plain_path_is_scanned_once_and_shared() {
    let pair = PathPair::parse(b"/static/app.js?v=3").unwrap();
    assert!(pair.folded.is_empty());
    assert_eq!(pair.matched().as_ptr(), pair.forwarded().as_ptr());
    let scan = scan(b"/static/app.js?v=//.").unwrap();
    assert!(scan.plain && !scan.doubled);
}

#[test]
fn a_failed_set_leaves_nothing_behind() {
    let mut pair = PathPair::parse(b"//a/%2F?q").unwrap();
    assert!(pair.has_encoded_slash());
    assert_eq!(pair.set(b"/a/..;/b"), Err(PathFault::DotParameter));
    assert_eq!(pair, PathPair::new());
    assert_eq!(pair.set(b"/b"), Ok(()));
    assert_eq!((pair.forwarded(), pair.matched()), ("/b", "/b"));
    assert!(!pair.has_encoded_slash());
}

#[test]
fn prefixes_end_on_a_segment() {
    for (path, prefix, holds) in [
        ("/api", "/api", true),
        ("/api/", "/api", true),
        ("/api/x", "/api", true),
        ("/apix", "/api", false),
        ("/api", "/api/", false),
        ("/api/x", "/api/", true),
        ("/", "/", true),
        ("/x", "/", true),
        ("/x", "", true),
        ("/API", "/api", false),
    ] {
        assert_eq!(has_prefix(path, prefix), holds, "{path} {prefix}");
    }
}

#[test]
fn a_denied_prefix_sees_through_encoded_slashes() {
    let denied = ["/admin", "/x/secret"];
    for (path, under) in [
        ("/admin", true),
        ("/admin/x", true),
        ("//admin", true),
        ("/%61dmin", true),
        ("/y/../admin", true),
        ("/administrator", false),
        ("/admin%2Fx", true),
        ("/admin%5cx", true),
        ("/%2fadmin", true),
        ("/x%2Fsecret", true),
        ("/x%2F%5Csecret", true),
        ("/y%2F..%2Fadmin", true),
        ("/y%2f%2e%2e%5cadmin", true),
        ("/y%2Fadmin", false),
        ("/y/x%2F..;%2F", true),
        ("/admin%252Fx", false),
        ("/ok?/admin", false),
    ] {
        let pair = PathPair::parse(path.as_bytes()).unwrap();
        assert_eq!(pair.lies_under(&denied), under, "{path}");
        assert!(!pair.lies_under(&[] as &[&str]), "{path}");
    }
}

const PIECES: &[&str] = &[
    "/", "//", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5C", "%5c", "%25", "%252e", ";", "..;", ".;", "a", "B", "~",
    "_", "-", "%61", "%7e", "%41", "é", "%c3%a9", ":", "@", "|", "{", "?", "x=1", "/.", "/..", "/../", "/./", "%32",
    "%3b", "%3F", "%23",
];

const BAD_PIECES: &[&str] = &["\\", "#", "%", "%0", "%g1", "%1", "\0", " ", "%00", "%0a", "%7F", "\x7f", "\t", "\n"];

/// What the specification says, as plainly as it can be written.
fn reference(raw: &str) -> Option<(String, String)> {
    let (path, query) = match raw.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (raw, None),
    };
    let bad = |letter: char| letter <= ' ' || letter == '\x7f' || letter == '#';
    if !path.starts_with('/') || path.contains('\\') || raw.contains(bad) {
        return None;
    }
    let bytes = path.as_bytes();
    let mut decoded = String::new();
    let mut at = 0;
    while at < path.len() {
        if bytes[at] == b'%' {
            let digits = path.get(at + 1..at + 3)?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            let byte = u8::from_str_radix(digits, 16).ok()?;
            if byte.is_ascii_control() {
                return None;
            }
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                decoded.push(char::from(byte));
            } else {
                decoded.push_str(&path[at..at + 3]);
            }
            at += 3;
        } else {
            let letter = path[at..].chars().next()?;
            decoded.push(letter);
            at += letter.len_utf8();
        }
    }
    let mut stack: Vec<&str> = Vec::new();
    let segments: Vec<&str> = decoded[1..].split('/').collect();
    for (position, segment) in segments.iter().enumerate() {
        let last = position + 1 == segments.len();
        if segment.starts_with(".;") || segment.starts_with("..;") {
            return None;
        }
        match *segment {
            "." => {}
            ".." => {
                stack.pop();
            }
            other => {
                stack.push(other);
                continue;
            }
        }
        if last {
            stack.push("");
        }
    }
    let forwarded = format!("/{}", stack.join("/"));
    let mut matched = forwarded.clone();
    while matched.contains("//") {
        matched = matched.replace("//", "/");
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Some((forwarded + &query, matched))
}

#[test]
fn both_readings_agree_with_the_specification() {
    let (mut taken, mut refused) = (0, 0);
    for seed in 1..60_000 {
        let mut random = Random::new(seed);
        let mut raw = format!("/{}", random.string(PIECES, 12));
        if random.below(4) == 0 {
            let at = random.below(raw.len() + 1);
            if raw.is_char_boundary(at) {
                let bad: &&str = random.pick(BAD_PIECES);
                raw.insert_str(at, bad);
            }
        }
        let got = PathPair::parse(raw.as_bytes());
        let expected = reference(&raw);
        match (&got, &expected) {
            (Ok(pair), Some((forwarded, matched))) => {
                assert_eq!(pair.forwarded(), forwarded, "seed {seed}: {raw:?}");
                assert_eq!(pair.matched(), matched, "seed {seed}: {raw:?}");
                taken += 1;
            }
            (Err(_), None) => refused += 1,
            _ => panic!("seed {seed}: {raw:?} gave {got:?}, expected {expected:?}"),
        }
    }
    assert!(taken > 10_000 && refused > 5_000, "{taken} {refused}");
}

#[test]
fn reading_again_changes_nothing() {
    for seed in 1..30_000 {
        let mut random = Random::new(seed);
        let raw = format!("/{}", random.string(PIECES, 14));
        let Ok(pair) = PathPair::parse(raw.as_bytes()) else {
            continue;
        };
        let again = PathPair::parse(pair.forwarded().as_bytes());
        assert_eq!(again.as_ref(), Ok(&pair), "seed {seed}: {raw:?}");

        let matched = PathPair::parse(pair.matched().as_bytes()).unwrap();
        assert_eq!(matched.forwarded(), pair.matched(), "seed {seed}: {raw:?}");
        assert_eq!(matched.matched(), pair.matched(), "seed {seed}: {raw:?}");
        assert!(!pair.matched().contains("//"), "seed {seed}: {raw:?}");
        assert!(!pair.matched().split('/').any(|segment| matches!(segment, "." | "..")), "seed {seed}: {raw:?}");
        let escape = pair.path().to_ascii_lowercase();
        assert_eq!(pair.has_encoded_slash(), escape.contains("%2f") || escape.contains("%5c"), "seed {seed}: {raw:?}");
        pair.lies_under(&["/a", "/"]);
    }
}

#[test]
fn any_bytes_are_read_without_a_panic() {
    for seed in 1..20_000 {
        let mut random = Random::new(seed);
        let mut raw: Vec<u8> = (0..random.below(24)).map(|_| random.next() as u8).collect();
        raw.insert(0, b'/');
        if let Ok(pair) = PathPair::parse(&raw) {
            pair.lies_under(&["/a"]);
            assert!(pair.matched().starts_with('/'));
        }
    }
}

#[test]
fn another_base_takes_the_place_of_a_prefix() {
    for (path, prefix, base, expected) in [
        ("/api", "/api", "/v2", "/v2"),
        ("/api/", "/api", "/v2", "/v2/"),
        ("/api/", "/api/", "/v2", "/v2/"),
        ("/api/x?a=/api", "/api", "/v2", "/v2/x?a=/api"),
        ("/api/x", "/api/", "/v2", "/v2/x"),
        ("/api/x", "/api", "/v2/", "/v2/x"),
        ("/api/x", "/api", "/", "/x"),
        ("/api", "/api", "/", "/"),
        ("/", "/", "/v2", "/v2/"),
        ("/x/y", "/", "/v2", "/v2/x/y"),
        ("//api//x//y", "/api", "/v2", "/v2/x//y"),
        ("//evil.example/x", "/", "/", "/evil.example/x"),
        ("/%61pi/x%2Fy", "/api", "/v2", "/v2/x%2Fy"),
        ("/a/b/c", "/a/b", "/", "/c"),
    ] {
        let mut pair = PathPair::parse(path.as_bytes()).expect("a path");
        assert!(has_prefix(pair.matched(), prefix), "{path} {prefix}");
        pair.rewrite_to(base, Some(prefix)).expect("still a path");
        assert_eq!(pair.forwarded(), expected, "{path} {prefix} {base}");
    }
    let mut pair = PathPair::parse(b"/a/b/?x").expect("a path");
    pair.rewrite_to("/c", None).expect("still a path");
    assert_eq!((pair.forwarded(), pair.matched()), ("/c?x", "/c"));
}
