use super::*;
use crate::h1::input::{Input, Unreadable};
use crate::h1::testing::{Random, every_cut};
use spooky_uring::Chunk;

const FIELDS_MAX: usize = 4;
const BYTES_MAX: usize = 256;

/// Which grammar to read by.
#[derive(Clone, Copy)]
enum Kind {
    Request,
    Response,
    Trailers,
}

/// First line and fields as text, or the class of the complaint, and what is left behind the section.
fn read(kind: Kind, pieces: &[&[u8]]) -> Result<Option<(String, usize)>, &'static str> {
    let parser = |bytes: &[u8]| match kind {
        Kind::Request => request(bytes, FIELDS_MAX, |line, fields| Ok(format!("{line:?} {fields:?}"))),
        Kind::Response => response(bytes, FIELDS_MAX, |line, fields| Ok(format!("{line:?} {fields:?}"))),
        Kind::Trailers => trailers(bytes, FIELDS_MAX, |fields| Ok(format!("{fields:?}"))),
    };
    let mut input = Input::default();
    for (at, piece) in pieces.iter().enumerate() {
        input.push(Chunk::copy_from(piece));
        match input.section(BYTES_MAX, parser) {
            Ok(None) => {}
            Ok(Some(text)) => {
                let rest: usize = pieces[at + 1..].iter().map(|piece| piece.len()).sum();
                return Ok(Some((text, input.held() + rest)));
            }
            Err(Unreadable::Bad(Bad::Malformed(_)) | Unreadable::BareLf) => {
                return Err("malformed");
            }
            Err(Unreadable::Bad(Bad::TooManyFields)) => return Err("too many"),
            Err(Unreadable::TooLong { first_line: true }) => return Err("first line too long"),
            Err(Unreadable::TooLong { first_line: false }) => return Err("too long"),
        }
    }
    match input.section_cut(parser) {
        Ok(()) => Ok(None),
        Err(Bad::Malformed(_)) => Err("malformed"),
        Err(Bad::TooManyFields) => Err("too many"),
    }
}

fn reads(kind: Kind, input: &str) -> Result<Option<(String, usize)>, &'static str> {
    every_cut(input.as_bytes(), |pieces| read(kind, pieces))
}

#[test]
fn heads_and_trailers_are_read() {
    let (text, rest) = reads(Kind::Response, "HTTP/1.1 200 OK\r\nA: b\r\nC:\r\n\r\nrest").unwrap().unwrap();
    assert_eq!(
        text,
        r#"StatusLine { minor: 1, status: 200 } [Header { name: "A", value: "b" }, Header { name: "C", value: "" }]"#
    );
    assert_eq!(rest, 4);
    let (text, _) = reads(Kind::Response, "HTTP/1.0 404\r\n\r\n").unwrap().unwrap();
    assert_eq!(text, "StatusLine { minor: 0, status: 404 } []");
    let (text, rest) = reads(Kind::Request, "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\nGET").unwrap().unwrap();
    assert_eq!(
        text,
        r#"RequestLine { minor: 1, method: "GET", target: "/a?b" } [Header { name: "Host", value: "x" }]"#
    );
    assert_eq!(rest, 3);
    let (text, rest) = reads(Kind::Trailers, "A: b \t\r\n\r\nx").unwrap().unwrap();
    assert_eq!((text.as_str(), rest), (r#"[Header { name: "A", value: "b" }]"#, 1));
    let (text, rest) = reads(Kind::Trailers, "\r\nx").unwrap().unwrap();
    assert_eq!((text.as_str(), rest), ("[]", 1));
}

#[test]
fn one_empty_line_is_borne_before_a_request_and_none_before_a_response() {
    assert!(reads(Kind::Request, "\r\nGET / HTTP/1.1\r\n\r\n").unwrap().is_some());
    assert_eq!(reads(Kind::Request, "\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Err("malformed"));
    assert_eq!(reads(Kind::Request, "\nGET / HTTP/1.1\r\n\r\n"), Err("malformed"));
    assert_eq!(reads(Kind::Request, "\r"), Ok(None));
    assert_eq!(reads(Kind::Response, "\r\nHTTP/1.1 200 OK\r\n\r\n"), Err("malformed"));
}

#[test]
fn lf_alone_ends_no_line() {
    for head in [
        "HTTP/1.1 200 OK\nA: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA:\nC: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\nC: d\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200\n\r\n",
    ] {
        assert_eq!(reads(Kind::Response, head), Err("malformed"), "{head:?}");
    }
    assert_eq!(reads(Kind::Request, "GET / HTTP/1.1\nHost: a\r\n\r\n"), Err("malformed"));
    for section in ["\n", "A: b\n\r\n", "A: b\r\n\n", "A: b\nC: d\r\n\r\n"] {
        assert_eq!(reads(Kind::Trailers, section), Err("malformed"), "{section:?}");
    }
}

#[test]
fn what_hides_a_field_is_refused() {
    for line in [
        "A : b",
        "A\t: b",
        " A: b",
        "\tA: b",
        "A: b\r\n c",
        "A: b\r\n\tc",
        "A",
        ": b",
        "A: b\rc",
        "A: b\r",
        "A: \0",
        "A\0: b",
        "A: b\x01",
        "A: \x7f",
        "A\u{e9}: b",
        "A(: b",
        "A;b: c",
        "A\r: b",
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
        assert_eq!(reads(Kind::Response, &head), Err("malformed"), "{line:?}");
        let head = format!("GET / HTTP/1.1\r\n{line}\r\n\r\n");
        assert_eq!(reads(Kind::Request, &head), Err("malformed"), "{line:?}");
        let section = format!("{line}\r\n\r\n");
        assert_eq!(reads(Kind::Trailers, &section), Err("malformed"), "{line:?}");
    }
}

#[test]
fn first_lines_that_are_none() {
    for line in [
        "HTTP/1.1",
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/0.9 200",
        "http/1.1 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 099 OK",
        "ICY 200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 +20 OK",
        "<html>",
    ] {
        assert_eq!(reads(Kind::Response, &format!("{line}\r\n\r\n")), Err("malformed"), "{line:?}");
    }
    for line in [
        "GET",
        "GET /",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /\tHTTP/1.1",
        "GET / HTTP/2.0",
        "GET / http/1.1",
        " GET / HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET / a HTTP/1.1",
        "PRI * HTTP/2.0",
        "\x16\x03\x01",
    ] {
        assert_eq!(reads(Kind::Request, &format!("{line}\r\n\r\n")), Err("malformed"), "{line:?}");
    }
}

#[test]
fn too_many_fields_are_told_from_malformed_ones() {
    let head = |n: usize, end: &str| format!("HTTP/1.1 200 OK\r\n{}{end}", "a: b\r\n".repeat(n));
    assert!(reads(Kind::Response, &head(FIELDS_MAX, "\r\n")).unwrap().is_some());
    assert_eq!(reads(Kind::Response, &head(FIELDS_MAX + 1, "\r\n")), Err("too many"));
    // The earlier complaint decides, whichever way the bytes come.
    assert_eq!(reads(Kind::Response, &head(FIELDS_MAX + 1, "c: d\n\r\n")), Err("too many"));
    assert_eq!(reads(Kind::Response, &head(FIELDS_MAX + 1, "c : d\r\n\r\n")), Err("too many"));
    let early = format!("HTTP/1.1 200 OK\r\nx: y\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX));
    assert_eq!(reads(Kind::Response, &early), Err("malformed"));
}

#[test]
fn too_long_heads_are_told_from_malformed_ones() {
    let long = "x".repeat(BYTES_MAX);
    assert_eq!(reads(Kind::Request, &format!("GET /{long} HTTP/1.1\r\n\r\n")), Err("first line too long"));
    assert_eq!(reads(Kind::Request, &format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n")), Err("too long"));
    assert_eq!(reads(Kind::Request, &format!("GET / HTTP/1.1\r\nA : {long}\r\n\r\n")), Err("malformed"));
    let head = "HTTP/1.1 200 OK\r\nA: \r\n\r\n";
    let exact = |n: usize| format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(n - head.len()));
    assert!(reads(Kind::Response, &exact(BYTES_MAX)).unwrap().is_some());
    assert_eq!(reads(Kind::Response, &exact(BYTES_MAX + 1)), Err("too long"));
}

#[test]
fn an_unfinished_head_is_neither_good_nor_bad() {
    for head in ["", "H", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n", "HTTP/1.1 200 OK\r\nA"]
    {
        assert_eq!(reads(Kind::Response, head), Ok(None), "{head:?}");
    }
}

#[test]
fn garbage_never_panics_and_every_cut_agrees() {
    let good: [(Kind, &[u8]); 3] = [
        (Kind::Response, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\nC:\r\n\r\nabcde"),
        (Kind::Request, b"\r\nPOST /a HTTP/1.0\r\nHost: example\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (Kind::Trailers, b"A: b\r\nC: d\r\n\r\nabc"),
    ];
    for seed in 0..6000 {
        let mut random = Random::new(seed);
        let (kind, input) = good[random.below(3)];
        let input = random.mutated(input);
        let whole = read(kind, &[&input]);
        let pieces = random.cuts(&input);
        assert_eq!(read(kind, &pieces), whole, "seed {seed}: {}", input.escape_ascii());
    }
}
