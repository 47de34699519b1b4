//! The gate from wire to head. Input is text, one field a line as `name: value`, pseudo-headers included: what a mutated
//! corpus file still resembles.

use spooky::http::{HeadLimits, Method, PathPair, RequestHead, Scheme, WireRequest, WireVersion, normalize};

fn fields(data: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    data.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
        let colon = line.iter().skip(1).position(|&byte| byte == b':').map_or(line.len(), |at| at + 1);
        let value = line.get(colon + 1..).unwrap_or_default();
        (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
    })
}

/// What holds for every head that came through.
fn check(head: &RequestHead) {
    assert!(!head.method.as_str().is_empty());
    assert!(!head.host().bytes().any(|byte| byte.is_ascii_uppercase()), "host {:?}", head.host());
    for (name, value) in head.fields.iter() {
        assert!(!name.name.starts_with(b":"), "a pseudo-header among the fields");
        assert!(!name.name.iter().any(u8::is_ascii_uppercase));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "a value can split a head");
    }
    if let Some(path) = head.target.path() {
        check_path(path);
    }
}

fn check_path(path: &PathPair) {
    let matched = path.matched();
    assert!(matched.starts_with('/') && !matched.contains("//") && !matched.contains('?'), "{matched:?}");
    assert!(!matched.split('/').any(|segment| matches!(segment, "." | "..")), "a dot segment is left in {matched:?}");
    assert!(!path.forwarded().bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'#'));
    // A query may have what a path may not: nobody splits it into segments.
    assert!(!path.path().contains('\\'), "{:?}", path.path());
    // A second proxy that reads what we forward sees what we saw.
    let again = PathPair::parse(path.forwarded().as_bytes()).expect("a forwarded path is a good path");
    assert_eq!((again.forwarded(), again.matched()), (path.forwarded(), path.matched()));
}

/// Requests of every version, responses, trailers, and a bare path.
pub fn normalize(data: &[u8]) {
    for version in [WireVersion::H2, WireVersion::H3] {
        let wire = WireRequest { scheme: Scheme::Https, line: None, fields: fields(data) };
        if let Ok(head) = normalize::request(version, wire, &HeadLimits::REQUEST) {
            check(&head);
        }
        for method in [Method::Get, Method::Head] {
            let _ = normalize::response(version, None, fields(data), &method, &HeadLimits::RESPONSE);
        }
        let _ = normalize::trailers(version, fields(data), &HeadLimits::REQUEST);
    }
    if let Ok(path) = PathPair::parse(data.split(|&byte| byte == b'\n').next().unwrap_or_default()) {
        check_path(&path);
    }
}
