use super::*;
use crate::h1::testing::{Random, every_cut};

/// The body, and whether the last chunk came; or the complaint.
fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), &'static str> {
    decode_with_room(pieces, usize::MAX)
}

fn decode_with_room(pieces: &[&[u8]], room: usize) -> Result<(Vec<u8>, bool), &'static str> {
    let mut decoder = Decoder::new();
    let mut body = Vec::new();
    for mut piece in pieces.iter().copied() {
        loop {
            let (framing, what) = decoder.decode(piece, room).map_err(|error| error.0)?;
            piece = &piece[framing..];
            match what {
                Piece::More => {
                    assert!(piece.is_empty(), "asked for more before all was read");
                    break;
                }
                Piece::Body(len) => {
                    assert!(len > 0 && len <= room);
                    body.extend_from_slice(&piece[..len]);
                    piece = &piece[len..];
                }
                Piece::Blocked => unreachable!("room is not 0 here"),
                Piece::Trailers => return Ok((body, true)),
            }
        }
    }
    Ok((body, false))
}

fn body(input: &str) -> Result<(Vec<u8>, bool), &'static str> {
    every_cut(input.as_bytes(), decode)
}

#[test]
fn chunks_become_one_body() {
    let (bytes, ended) = body("4\r\nWiki\r\n7\r\npedia i\r\nB\r\nn \r\nchunks.\r\n0\r\n\r\n").unwrap();
    assert_eq!(bytes, b"Wikipedia in \r\nchunks.");
    assert!(ended);
}

#[test]
fn digits_of_both_cases_and_leading_zeros() {
    let input = format!("00000a\r\n{}\r\n0A\r\n{}\r\n000\r\n\r\n", "x".repeat(10), "y".repeat(10));
    assert_eq!(body(&input).unwrap().0.len(), 20);
}

#[test]
fn an_unfinished_body_is_not_ended() {
    for input in ["", "5", "5\r", "5\r\n", "5\r\nabc", "5\r\nabcde", "5\r\nabcde\r\n", "0", "0\r"] {
        assert!(!body(input).unwrap().1, "{input:?}");
    }
}

#[test]
fn the_largest_size_is_read_and_one_digit_more_is_refused() {
    assert_eq!(body("ffffffffffffffff\r\nabc").unwrap().0, b"abc");
    assert_eq!(body("10000000000000000\r\n"), Err("chunk size too long"));
    assert_eq!(body("00000000000000001\r\n"), Err("chunk size too long"));
}

#[test]
fn what_is_not_a_size_is_refused() {
    for input in [
        "\r\n",
        ";x\r\n",
        " 5\r\n",
        "-5\r\n",
        "+5\r\n",
        "0x5\r\n",
        "5g\r\n",
        "5_0\r\n",
        "g\r\n",
        "5\0\r\n",
        "5,5\r\n",
        "\u{ff15}\r\n",
    ] {
        assert!(body(input).is_err(), "{input:?}");
    }
}

#[test]
fn only_crlf_ends_a_line() {
    for input in [
        "5\nabcde\r\n0\r\n\r\n",
        "5\r\rabcde\r\n",
        "5\rabcde\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\r\nabcde\r0\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5;a\n\r\nabcde\r\n",
        "5;a\rb\r\nabcde\r\n",
        "0\n\n",
    ] {
        assert!(body(input).is_err(), "{input:?}");
    }
}

#[test]
fn a_chunk_longer_than_its_size_is_refused() {
    assert_eq!(body("5\r\nabcdef\r\n0\r\n\r\n"), Err("chunk is longer than its size"));
}

#[test]
fn extensions_are_skipped() {
    for input in [
        "5;a\r\nabcde\r\n0;last=\"yes, \u{e9}\"\r\n\r\n",
        "5;a=b;c\r\nabcde\r\n0\r\n\r\n",
        "5 \t;a\r\nabcde\r\n0 ;b\r\n\r\n",
        "5; a = \"0\\\"\"\r\nabcde\r\n0;\r\n\r\n",
    ] {
        assert_eq!(body(input), Ok((b"abcde".to_vec(), true)), "{input:?}");
    }
}

#[test]
fn blanks_after_a_size_need_an_extension() {
    assert_eq!(body("5 \r\nabcde\r\n"), Err("blanks after a chunk size"));
    assert_eq!(body("5 5\r\nabcde\r\n"), Err("blanks after a chunk size"));
    assert_eq!(body("0\t\r\n\r\n"), Err("blanks after a chunk size"));
}

#[test]
fn control_bytes_in_extensions_are_refused() {
    for byte in ["\0", "\x0b", "\x1f", "\x7f", "\n"] {
        assert!(body(&format!("5;a{byte}\r\nabcde\r\n")).is_err(), "{byte:?}");
    }
}

#[test]
fn an_extension_at_its_bound_is_read_and_one_byte_more_is_refused() {
    let fits = format!("5;{}\r\nabcde\r\n", "x".repeat(limits::H1_CHUNK_EXTENSION_BYTES - 1));
    let over = format!("5;{}\r\nabcde\r\n", "x".repeat(limits::H1_CHUNK_EXTENSION_BYTES));
    assert_eq!(body(&fits).unwrap().0, b"abcde");
    assert_eq!(body(&over), Err("chunk extensions too long"));
}

#[test]
fn many_small_extensions_are_bounded_too() {
    let line = format!("1;{}\r\na\r\n", "x".repeat(limits::H1_CHUNK_EXTENSION_BYTES - 1));
    let lines = limits::H1_MESSAGE_EXTENSION_BYTES / limits::H1_CHUNK_EXTENSION_BYTES;
    let mut input = line.repeat(lines).into_bytes();
    assert_eq!(decode(&[&input]).unwrap().0.len(), lines);
    input.extend_from_slice(b"1;\r\na\r\n");
    assert_eq!(decode(&[&input]), Err("chunk extensions too long"));
}

#[test]
fn without_room_the_body_waits_but_the_end_does_not() {
    let mut decoder = Decoder::new();
    assert_eq!(decoder.decode(b"3\r\nabc", 0), Ok((3, Piece::Blocked)));
    assert_eq!(decoder.decode(b"abc\r\n0\r\n", 0), Ok((0, Piece::Blocked)));
    assert_eq!(decoder.decode(b"abc\r\n0\r\n", 2), Ok((0, Piece::Body(2))));
    assert_eq!(decoder.decode(b"c\r\n0\r\n", 1), Ok((0, Piece::Body(1))));
    assert_eq!(decoder.decode(b"\r\n0\r\n", 0), Ok((5, Piece::Trailers)));
    assert_eq!(decoder.decode(b"\r\n", 0), Ok((0, Piece::Trailers)));
}

#[test]
fn encoding_and_decoding_is_the_identity() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut wire = Vec::new();
        let mut sent = Vec::new();
        for _ in 0..random.below(12) {
            let len = 1 + random.below(300);
            let piece = random.bytes(len);
            put_size(&mut wire, piece.len());
            wire.extend_from_slice(&piece);
            wire.extend_from_slice(CHUNK_END);
            sent.extend_from_slice(&piece);
        }
        wire.extend_from_slice(LAST_CHUNK);
        wire.extend_from_slice(b"\r\n");
        let pieces = random.cuts(&wire);
        let room = 1 + random.below(100);
        assert_eq!(decode_with_room(&pieces, room), Ok((sent, true)), "seed {seed}");
    }
}

#[test]
fn sizes_are_written_in_hexadecimal_without_padding() {
    for len in [1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 65_536, usize::MAX] {
        let mut line = Vec::new();
        put_size(&mut line, len);
        assert_eq!(line, format!("{len:x}\r\n").into_bytes());
    }
}

#[test]
fn garbage_never_panics_and_every_cut_agrees() {
    let good = b"4;a=b\r\nWiki\r\n1f\r\n0123456789012345678901234567890\r\n0\r\n\r\n";
    for seed in 0..3000 {
        let mut random = Random::new(seed);
        let input = random.mutated(good);
        let whole = decode(&[&input]);
        let pieces = random.cuts(&input);
        assert_eq!(decode(&pieces), whole, "seed {seed}");
    }
}
