use super::*;
use crate::h1::testing::every_cut;

/// A section of this small grammar is any lines up to an empty one; `!` anywhere is refused.
fn lines(bytes: &[u8]) -> Parsed<String, &'static str> {
    if bytes.contains(&b'!') {
        return Parsed::Bad("!");
    }
    let end = match bytes {
        [b'\r', b'\n', ..] => Some(2),
        _ => bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4),
    };
    match end {
        Some(end) => Parsed::Complete(end, String::from_utf8_lossy(&bytes[..end]).into_owned()),
        None => Parsed::Partial,
    }
}

type Outcome = (Result<Option<String>, Unreadable<&'static str>>, Vec<u8>);

fn read(bytes_max: usize, pieces: &[&[u8]]) -> Outcome {
    let mut input = Input::default();
    let mut result = Ok(None);
    for piece in pieces {
        input.push(Chunk::copy_from(piece));
        if matches!(result, Ok(None)) {
            result = input.section(bytes_max, lines);
        }
    }
    let mut rest = Vec::new();
    if matches!(result, Ok(Some(_))) {
        while !input.is_empty() {
            let n = input.front().len();
            rest.extend_from_slice(&input.take(n));
        }
        assert_eq!(input.held(), 0);
    }
    (result, rest)
}

#[test]
fn a_section_is_found_wherever_it_is_cut_and_the_rest_stays() {
    let (section, rest) = every_cut(b"a: b\r\nc: d\r\n\r\nbody\r\n\r\n", |pieces| read(64, pieces));
    assert_eq!(section.unwrap().unwrap(), "a: b\r\nc: d\r\n\r\n");
    assert_eq!(rest, b"body\r\n\r\n");
}

#[test]
fn an_empty_section_is_its_empty_line() {
    let (section, rest) = every_cut(b"\r\nnext", |pieces| read(64, pieces));
    assert_eq!(section.unwrap().unwrap(), "\r\n");
    assert_eq!(rest, b"next");
}

#[test]
fn a_section_at_its_bound_is_read_and_one_byte_more_is_not() {
    let text = b"abc: defgh\r\n\r\nrest";
    let (section, _) = every_cut(text, |pieces| read(14, pieces));
    assert!(section.unwrap().is_some());
    let (section, _) = every_cut(text, |pieces| read(13, pieces));
    assert_eq!(section, Err(Unreadable::TooLong { first_line: false }));
    let (section, _) = every_cut(text, |pieces| read(11, pieces));
    assert_eq!(section, Err(Unreadable::TooLong { first_line: true }));
}

#[test]
fn a_bare_lf_is_refused_at_once() {
    for text in [&b"a: b\nc"[..], b"a: b\r\nc: d\n\r\n", b"\n", b"a\n\n"] {
        let (section, _) = every_cut(text, |pieces| read(64, pieces));
        assert_eq!(section, Err(Unreadable::BareLf), "{}", text.escape_ascii());
    }
}

#[test]
fn what_the_parser_refuses_is_refused_at_the_latest_with_its_line_end() {
    let (section, _) = every_cut(b"a: !\r\n\r\n", |pieces| read(64, pieces));
    assert_eq!(section, Err(Unreadable::Bad("!")));
    // Without an empty line it is found at the bound, or when the bytes end.
    let (section, _) = every_cut(b"a: !bcdefgh", |pieces| read(8, pieces));
    assert_eq!(section, Err(Unreadable::Bad("!")));
    let mut input = Input::default();
    input.push(Chunk::copy_from(b"a: "));
    assert!(matches!(input.section(64, lines), Ok(None)));
    input.push(Chunk::copy_from(b"!"));
    assert!(matches!(input.section(64, lines), Ok(None)));
    assert_eq!(input.section_cut(lines), Err("!"));
}

#[test]
fn bytes_behind_a_straddling_section_are_not_copied() {
    let mut input = Input::default();
    input.push(Chunk::copy_from(b"a: b\r\n"));
    assert!(matches!(input.section(64, lines), Ok(None)));
    let second = Chunk::copy_from(b"\r\nbody");
    let memory = second.as_ptr();
    input.push(second);
    assert!(matches!(input.section(64, lines), Ok(Some(_))));
    let body = input.take(4);
    assert_eq!((&*body, body.as_ptr()), (&b"body"[..], memory.wrapping_add(2)));
}

#[test]
fn held_bytes_count_the_beginning_of_a_section() {
    let mut input = Input::default();
    input.push(Chunk::copy_from(b"a: b\r\nc"));
    assert_eq!(input.held(), 7);
    assert!(matches!(input.section(64, lines), Ok(None)));
    assert_eq!(input.held(), 7);
    input.push(Chunk::copy_from(b"defg"));
    assert_eq!(input.held(), 11);
    input.clear();
    assert!(input.is_empty());
}

#[test]
fn empty_chunks_are_not_kept() {
    let mut input = Input::default();
    input.push(Chunk::default());
    assert!(input.is_empty() && input.front().is_empty());
    assert!(input.take(0).is_empty());
    input.skip(0);
}
