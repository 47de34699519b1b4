use super::*;

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

const FOUR: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x11, 0x51, 0x01, 0xbb];

fn six() -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&address("2001:db8::7")[..], &address("fd00::1"), &[0x11, 0x51, 0x01, 0xbb]].concat()
}

fn about(source: &str, destination: &str) -> Option<Ends> {
    Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

#[test]
fn headers_of_both_versions_name_both_ends() {
    let of_four = about("192.0.2.7:4433", "10.0.0.1:443");
    let of_six = about("[2001:db8::7]:4433", "[fd00::1]:443");
    let with_extension = [&FOUR[..], &[0x03, 0, 4, 1, 2, 3, 4, 0x04, 0, 0]].concat();
    for (header, ends) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4433 443\r\n".to_vec(), of_four),
        (b"PROXY TCP6 2001:db8::7 fd00::1 4433 443\r\n".to_vec(), of_six),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff::1 whatever\r\n".to_vec(), None),
        (v2(0x21, 0x11, &FOUR), of_four),
        (v2(0x21, 0x11, &with_extension), of_four),
        (v2(0x21, 0x21, &six()), of_six),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, &FOUR), None),
        (v2(0x21, 0x00, b"anything"), None),
        (v2(0x21, 0x31, &[b'/'; UNIX]), None),
        (v2(0x21, 0x31, &[&[b'/'; UNIX][..], &[4, 0, 1, 0]].concat()), None),
    ] {
        let len = header.len();
        // Every cut of it needs more, and what follows is not touched.
        for end in 0..len {
            assert_eq!(parse(&header[..end]), Ok(None), "{end} of {header:?}");
        }
        let followed = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        for end in len..=followed.len() {
            assert_eq!(parse(&followed[..end]), Ok(Some(Header { ends, len })), "{header:?}");
        }
    }
}

#[test]
fn what_is_not_exactly_a_header_is_malformed() {
    for wrong in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x16\x03\x01",
        b"proxy TCP4 192.0.2.7 10.0.0.1 4433 443\r\n",
        b"PROXY  TCP4 192.0.2.7 10.0.0.1 4433 443\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4433\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4433 443 \r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 04433 443\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 +433 443\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
        b"PROXY TCP4 192.0.2.07 10.0.0.1 4433 443\r\n",
        b"PROXY TCP4 2001:db8::7 fd00::1 4433 443\r\n",
        b"PROXY TCP6 192.0.2.7 10.0.0.1 4433 443\r\n",
        b"PROXY UDP4 192.0.2.7 10.0.0.1 4433 443\r\n",
        b"PROXY TCP4 192.0.2.7\xff 10.0.0.1 4433 443\r\n",
        b"PROXY \r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11",
        b"\r\n\r\n\0\r\nquit",
    ] {
        assert_eq!(parse(wrong), Err(Malformed), "{}", wrong.escape_ascii());
    }
    for (command, family, body) in [
        (0x22, 0x11, &FOUR[..]),
        (0x31, 0x11, &FOUR),
        (0x21, 0x12, &FOUR),
        (0x21, 0x32, &[0; UNIX]),
        (0x21, 0x31, &[0; UNIX - 1]),
        (0x21, 0x11, &FOUR[..11]),
        (0x21, 0x21, &FOUR),
        // Extensions that end too early, and one that is cut.
        (0x21, 0x11, &[&FOUR[..], &[3, 0, 4, 1]].concat()),
        (0x21, 0x11, &[&FOUR[..], &[3, 0]].concat()),
    ] {
        assert_eq!(parse(&v2(command, family, body)), Err(Malformed), "{command:x} {family:x} {body:?}");
    }
}

#[test]
fn headers_are_bounded() {
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; LINE_MAX]].concat();
    assert_eq!(parse(&endless[..LINE_MAX - 1]), Ok(None));
    assert_eq!(parse(&endless), Err(Malformed));
    let most = PROXY_HEADER_BYTES - FIXED;
    assert!(matches!(parse(&v2(0x20, 0, &vec![0; most])), Ok(Some(Header { len: PROXY_HEADER_BYTES, .. }))));
    // Told by its length, before it comes.
    assert_eq!(parse(&v2(0x20, 0, &vec![0; most + 1])[..FIXED]), Err(Malformed));
}

#[test]
fn any_bytes_are_read_without_a_panic() {
    let whole = v2(0x21, 0x21, &[six(), vec![4, 0, 2, 0, 0]].concat());
    let line = b"PROXY TCP6 2001:db8::7 fd00::1 4433 443\r\n".to_vec();
    for header in [whole, line] {
        for at in 0..header.len() {
            for value in [0, 1, 0x0a, 0x0d, 0x20, 0x21, 0x31, 0x7f, 0xff] {
                let mut changed = header.clone();
                changed[at] = value;
                // Once it is known what it is, more bytes change nothing.
                let mut known = None;
                for end in 0..=changed.len() {
                    let read = parse(&changed[..end]);
                    if known.is_none() && read != Ok(None) {
                        known = Some(read);
                    }
                    assert!(known.is_none_or(|known| known == read), "{end} of {}", changed.escape_ascii());
                    if let Ok(Some(header)) = read {
                        assert!(header.len <= end && header.len <= PROXY_HEADER_BYTES);
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_written_is_read_again() {
    let four = ("192.0.2.7:4433", "10.0.0.1:443");
    for (given, read) in [
        (four, four),
        (("[2001:db8::7]:1", "[fd00::1]:65535"), ("[2001:db8::7]:1", "[fd00::1]:65535")),
        // A dual-stack socket's client is the IPv4 client that it is.
        (("[::ffff:192.0.2.7]:4433", "[::ffff:10.0.0.1]:443"), four),
        // Families never stand side by side.
        (("192.0.2.7:4433", "[fd00::1]:443"), ("[::ffff:192.0.2.7]:4433", "[fd00::1]:443")),
        (("[2001:db8::7]:1", "0.0.0.0:0"), ("[2001:db8::7]:1", "[::ffff:0.0.0.0]:0")),
    ] {
        for version in [Version::V1, Version::V2] {
            let mut out = Vec::new();
            write(version, about(given.0, given.1), &mut out);
            let len = out.len();
            assert_eq!(parse(&out), Ok(Some(Header { ends: about(read.0, read.1), len })), "{}", out.escape_ascii());
            assert!(len <= LINE_MAX);
        }
    }
    for version in [Version::V1, Version::V2] {
        let mut out = Vec::new();
        write(version, None, &mut out);
        let len = out.len();
        assert_eq!(parse(&out), Ok(Some(Header { ends: None, len })));
    }
}

#[test]
fn version_1_is_the_text_that_others_write() {
    let mut out = Vec::new();
    write(Version::V1, about("192.0.2.7:4433", "10.0.0.1:443"), &mut out);
    assert_eq!(out, b"PROXY TCP4 192.0.2.7 10.0.0.1 4433 443\r\n");
}
