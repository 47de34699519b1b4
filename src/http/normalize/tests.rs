use super::*;
use crate::http::testing::{Random, corpus, unescape};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn slices(pairs: &Pairs) -> impl Iterator<Item = (&[u8], &[u8])> {
    pairs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// What a head looks like in the corpus.
fn show_request(head: &RequestHead) -> String {
    let mut text = format!("ok {}", head.method.as_str());
    match &head.target {
        Target::Path(path) if path.matched() == path.path() => text += &format!(" {}", path.forwarded()),
        Target::Path(path) => text += &format!(" {} {}", path.forwarded(), path.matched()),
        Target::Asterisk => text += " *",
        Target::Authority => text += " authority",
    }
    text += &format!(" host={}", head.host());
    if head.authority.as_str() != head.host() {
        text += &format!(" authority={}", head.authority.as_str());
    }
    show_rest(&mut text, head.content_length, head.chunked);
    if head.expect_continue {
        text += " expect";
    }
    if let Some(Protocol::WebSocket { key }) = head.protocol {
        text += if key.is_some() { " websocket with a key" } else { " websocket" };
    }
    show_fields(text, &head.fields)
}

fn show_rest(text: &mut String, length: Option<u64>, chunked: bool) {
    if let Some(length) = length {
        *text += &format!(" length={length}");
    }
    if chunked {
        *text += " chunked";
    }
}

fn show_fields(mut text: String, fields: &Fields) -> String {
    for (name, value) in fields {
        let value = value.escape_ascii().to_string().replace("\\\"", "\"");
        text += &format!("\n+ {}: {value}", name.name.escape_ascii());
    }
    text
}

fn show_refusal(refusal: Refusal, version: WireVersion) -> String {
    assert_eq!(refusal, Refusal::new(refusal.reason));
    match refusal.malformed && !version.is_h1() {
        true => format!("malformed {}", refusal.reason.token()),
        false => format!("{} {}", refusal.status, refusal.reason.token()),
    }
}

fn version(name: &str) -> WireVersion {
    match name {
        "h1.0" => WireVersion::H1_0,
        "h1" => WireVersion::H1_1,
        "h2" => WireVersion::H2,
        "h3" => WireVersion::H3,
        _ => panic!("no version {name}"),
    }
}

/// Runs one case of the corpus: the lines of its input, for one version.
fn run(version: WireVersion, input: &[&str]) -> String {
    let mut line: Option<(Vec<u8>, Vec<u8>)> = None;
    let mut status = None;
    let mut kind = '>';
    let mut scheme = Scheme::Https;
    let mut limits = None;
    let mut method = Method::Get;
    let mut fields: Pairs = Vec::new();
    for text in input {
        if let Some(rest) = text.strip_prefix("> ") {
            let (method, target) = rest.split_once(' ').expect(text);
            line = Some((unescape(method), unescape(target)));
        } else if let Some(rest) = text.strip_prefix('<') {
            kind = '<';
            status = rest.trim_start().parse().ok();
        } else if *text == "trailers" {
            kind = '~';
        } else if *text == "tunnel" {
            kind = 't';
        } else if *text == "clear" {
            scheme = Scheme::Http;
        } else if let Some(rest) = text.strip_prefix("to ") {
            method = Method::parse(rest.as_bytes()).expect(rest);
        } else if let Some(rest) = text.strip_prefix("limits ") {
            let numbers: Vec<usize> = rest.split(' ').map(|one| one.parse().expect(rest)).collect();
            limits = Some(HeadLimits { fields: numbers[0], bytes: numbers[1], target: numbers[2], connect: false });
        } else if *text == "connect" {
            limits = Some(HeadLimits { connect: true, ..HeadLimits::REQUEST });
        } else {
            // `name: value`; the name may begin with a colon. Without the space the value is as it stands.
            let colon = text[1..].find(':').expect(text) + 1;
            let value = &text[colon + 1..];
            let value = value.strip_prefix(' ').unwrap_or(value);
            fields.push((unescape(&text[..colon]), unescape(value)));
        }
    }
    match kind {
        '<' => {
            let limits = limits.unwrap_or(HeadLimits::RESPONSE);
            match response(version, status, slices(&fields), &method, &limits) {
                Ok(head) => {
                    let mut text = format!("ok {}", head.status);
                    show_rest(&mut text, head.content_length, head.chunked);
                    show_fields(text, &head.fields)
                }
                Err(fault) => {
                    assert_eq!(fault.reason.status(), 502);
                    fault.reason.token().to_owned()
                }
            }
        }
        't' => {
            let limits = limits.unwrap_or(HeadLimits::RESPONSE);
            // RFC 6455 §1.3.
            let accept = version.is_h1().then_some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            let mut head = ResponseHead::default();
            match tunnel_response_into(version, status, slices(&fields), accept, &limits, &mut head) {
                Ok(()) => {
                    let mut text = format!("ok {}", head.status);
                    show_rest(&mut text, head.content_length, head.chunked);
                    show_fields(text, &head.fields)
                }
                Err(fault) => {
                    assert_eq!(fault.reason.status(), 502);
                    fault.reason.token().to_owned()
                }
            }
        }
        '~' => match trailers(version, slices(&fields), &limits.unwrap_or(HeadLimits::REQUEST)) {
            Ok(fields) => show_fields("ok".into(), &fields),
            Err(refusal) => show_refusal(refusal, version),
        },
        _ => {
            let wire = WireRequest {
                scheme,
                line: line.as_ref().map(|(method, target)| RequestLine { method, target }),
                fields: slices(&fields),
            };
            match request(version, wire, &limits.unwrap_or(HeadLimits::REQUEST)) {
                Ok(head) => show_request(&head),
                Err(refusal) => show_refusal(refusal, version),
            }
        }
    }
}

/// Cases stand in paragraphs: `case` and what it is about, `as` and the versions, the input, `=` and what comes out (a
/// request head is shown as method, target, match path where it differs, host, lengths; its fields follow with `+`).
fn run_file(file: &str) -> usize {
    let text = corpus(file);
    let mut cases = 0;
    for paragraph in text.split("\n\n") {
        let lines: Vec<&str> = paragraph.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let Some((title, lines)) = lines.split_first() else {
            continue;
        };
        let title = title.strip_prefix("case ").expect(title);
        let (versions, lines) = lines.split_first().expect(title);
        let versions = versions.strip_prefix("as ").expect(title);
        let result = lines.iter().position(|line| line.starts_with("= ")).expect(title);
        let expected = lines[result..].join("\n");
        for name in versions.split(' ') {
            let got = run(version(name), &lines[..result]);
            assert_eq!(format!("= {got}"), expected, "{file}: {title} ({name})");
        }
        cases += 1;
    }
    cases
}

#[test]
fn requests_of_http1() {
    assert!(run_file("requests-h1.txt") >= 40);
}

#[test]
fn requests_of_http2_and_http3() {
    assert!(run_file("requests-h2-h3.txt") >= 40);
}

#[test]
fn lengths_and_codings() {
    assert!(run_file("lengths.txt") >= 20);
}

#[test]
fn responses() {
    assert!(run_file("responses.txt") >= 25);
}

#[test]
fn trailer_sections() {
    assert!(run_file("trailers.txt") >= 8);
}

#[test]
fn limits_hold_to_the_byte() {
    let fields = |count: usize, value: usize| -> Pairs {
        let mut fields: Pairs = vec![
            (b":method".to_vec(), b"GET".to_vec()),
            (b":scheme".to_vec(), b"https".to_vec()),
            (b":authority".to_vec(), b"a".to_vec()),
            (b":path".to_vec(), b"/".to_vec()),
        ];
        fields.extend((0..count).map(|_| (b"x".to_vec(), vec![b'v'; value])));
        fields
    };
    let refused = |fields: &Pairs, limits: &HeadLimits| {
        let wire = WireRequest { scheme: Scheme::Https, line: None, fields: slices(fields) };
        request(WireVersion::H3, wire, limits).err().map(|refusal| (refusal.status, refusal.reason))
    };
    let limits = HeadLimits::REQUEST;
    assert_eq!(refused(&fields(128, 0), &limits), None);
    assert_eq!(refused(&fields(129, 0), &limits), Some((431, Reason::TooManyFields)));

    // 7+3 + 7+5 + 10+1 + 5+1 and 4 × 32 for the pseudo-headers, 1 + 32 for the field.
    let rest = 16 * 1024 - (39 + 128 + 33);
    assert_eq!(refused(&fields(1, rest), &limits), None);
    assert_eq!(refused(&fields(1, rest + 1), &limits), Some((431, Reason::HeadTooLarge)));

    let mut long = fields(0, 0);
    long[3].1 = vec![b'/'; limits.target];
    assert_eq!(refused(&long, &limits), None);
    long[3].1.push(b'/');
    assert_eq!(refused(&long, &limits), Some((414, Reason::TargetTooLong)));
    // Longer than the whole head may be: still the target's fault.
    long[3].1 = vec![b'/'; limits.bytes * 2];
    assert_eq!(refused(&long, &limits), Some((414, Reason::TargetTooLong)));
}

#[test]
fn limits_above_what_a_section_holds_are_cut() {
    let limits = HeadLimits { fields: usize::MAX, bytes: usize::MAX, ..HeadLimits::RESPONSE };
    let value = vec![b'v'; crate::http::fields::BYTES_MAX];
    let fields = [(&b"x"[..], &value[..])];
    let fault = response(WireVersion::H1_1, Some(200), fields, &Method::Get, &limits).unwrap_err();
    assert_eq!(fault.reason, Reason::UpstreamHeadTooLarge);
}

#[test]
fn a_pooled_head_forgets_the_request_before() {
    let first: Pairs = vec![
        (b"host".to_vec(), b"Long.Example.com:8443".to_vec()),
        (b"content-length".to_vec(), b"7".to_vec()),
        (b"expect".to_vec(), b"100-continue".to_vec()),
        (b"x".to_vec(), b"y".to_vec()),
    ];
    let mut head = RequestHead::default();
    let line = |target| RequestLine { method: b"OPTIONS", target };
    let wire = WireRequest { scheme: Scheme::Http, line: Some(line(b"*")), fields: slices(&first) };
    request_into(WireVersion::H1_1, wire, &HeadLimits::REQUEST, &mut head).unwrap();
    assert!(head.expect_continue && head.target == Target::Asterisk);

    let second: Pairs = vec![(b"host".to_vec(), b"b".to_vec())];
    let wire = || WireRequest { scheme: Scheme::Https, line: Some(line(b"/x")), fields: slices(&second) };
    request_into(WireVersion::H1_1, wire(), &HeadLimits::REQUEST, &mut head).unwrap();
    let fresh = request(WireVersion::H1_1, wire(), &HeadLimits::REQUEST).unwrap();
    assert_eq!(show_request(&head), show_request(&fresh));
    assert_eq!(head.scheme, fresh.scheme);
}

const NAMES: &[&str] = &[
    ":method",
    ":scheme",
    ":authority",
    ":path",
    ":status",
    ":protocol",
    ":",
    "host",
    "Host",
    "content-length",
    "Content-Length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "upgrade",
    "proxy-connection",
    "expect",
    "cookie",
    "cookie",
    "x-own",
    "X_Own",
    "",
    " ",
    "a b",
    "a\r\n",
    "\0",
    "é",
    "accept",
    "x-forwarded-for",
    "trailer",
];

const VALUES: &[&str] = &[
    "",
    " ",
    "GET",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "G T",
    "https",
    "HTTPS",
    "http",
    "a",
    "A:443",
    "a:80",
    "b",
    "u@a",
    "[::1]",
    "[0::1]:443",
    "/",
    "//x",
    "*",
    "/%2e",
    "/%zz",
    "/a?b",
    "a:443",
    "https://a/x",
    "https://b",
    "0",
    "1",
    "1, 1",
    "-1",
    "+1",
    "18446744073709551616",
    "chunked",
    "gzip, chunked",
    "chunked, chunked",
    "trailers",
    "100-continue",
    "close, x-own",
    "a=1",
    "x\r\ny: z",
    "x\0",
    " x ",
    "\t",
    "v\x7f",
    "é",
    "200",
    "101",
    "999",
    "99",
];

/// What holds for every head that passed.
fn check_request(head: &RequestHead, seed: u64) {
    assert!(!head.host().is_empty() || head.version == WireVersion::H1_0, "seed {seed}");
    assert!(!head.host().bytes().any(|byte| byte.is_ascii_uppercase()), "seed {seed}");
    check_fields(&head.fields, seed);
    assert!(!head.fields.contains(Known::Host), "seed {seed}");
    assert!(head.fields.get_all(Known::Cookie).count() <= 1, "seed {seed}");
    assert!(!(head.chunked && head.content_length.is_some()), "seed {seed}");
    assert!(!head.chunked || head.version == WireVersion::H1_1, "seed {seed}");
    assert_eq!(head.expect_continue, head.fields.contains(Known::Expect));
    if let Some(path) = head.target.path() {
        assert!(path.matched().starts_with('/'), "seed {seed}");
        assert!(!path.forwarded().bytes().any(|byte| byte <= b' '), "seed {seed}");
    }
}

fn check_fields(fields: &Fields, seed: u64) {
    for (name, value) in fields {
        assert!(syntax::is_lower_token(name.name), "seed {seed}");
        assert!(syntax::is_field_value(value), "seed {seed}");
        assert_eq!(list::trim(value), value, "seed {seed}");
    }
    assert!(!fields.contains(Known::ContentLength), "seed {seed}");
    assert!(!fields.contains(Known::TransferEncoding), "seed {seed}");
}

/// A head as it would go over HTTP/3.
fn on_http3(head: &RequestHead) -> Pairs {
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let mut fields = vec![pair(":method", head.method.as_str())];
    match &head.target {
        Target::Path(path) => fields.push(pair(":path", path.forwarded())),
        Target::Asterisk => fields.push(pair(":path", "*")),
        Target::Authority => {}
    }
    if head.target != Target::Authority {
        fields.push(pair(":scheme", head.scheme.as_str()));
    }
    fields.push(pair(":authority", head.authority.as_str()));
    if let Some(length) = head.content_length {
        fields.push(pair("content-length", &length.to_string()));
    }
    for (name, value) in &head.fields {
        let dropped = name.known.is_some_and(|known| known.rules() & rule::HOP != 0);
        if !dropped {
            fields.push((name.name.to_vec(), value.to_vec()));
        }
    }
    fields
}

#[test]
fn what_passes_is_clean_and_passes_again() {
    let connect = HeadLimits { connect: true, ..HeadLimits::REQUEST };
    let mut passed = 0;
    for seed in 1..150_000 {
        let mut random = Random::new(seed);
        let version = *random.pick(&[WireVersion::H1_0, WireVersion::H1_1, WireVersion::H2, WireVersion::H3]);
        let mut fields: Pairs = Vec::new();
        if !version.is_h1() && random.below(8) > 0 {
            for (name, good) in [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")] {
                let value = if random.below(6) == 0 { *random.pick(VALUES) } else { good };
                if random.below(20) > 0 {
                    fields.push((name.into(), value.into()));
                }
            }
        } else if random.below(8) > 0 {
            fields.push(("host".into(), "a".into()));
        }
        for _ in 0..random.below(5) {
            let (name, value) = (*random.pick(NAMES), *random.pick(VALUES));
            fields.push((name.into(), value.into()));
        }
        let line = version.is_h1().then(|| RequestLine {
            method: random.pick(&["GET", "POST", "CONNECT", "OPTIONS"]).as_bytes(),
            target: random.pick(VALUES).as_bytes(),
        });
        let wire = WireRequest { scheme: Scheme::Https, line, fields: slices(&fields) };
        let Ok(head) = request(version, wire, &connect) else {
            continue;
        };
        passed += 1;
        check_request(&head, seed);
        if head.authority.is_empty() {
            continue;
        }
        let wire = on_http3(&head);
        let wire = WireRequest { scheme: Scheme::Https, line: None, fields: slices(&wire) };
        let again = request(WireVersion::H3, wire, &connect)
            .unwrap_or_else(|refusal| panic!("seed {seed}: {head:?} {refusal:?}"));
        assert_eq!(head.host(), again.host(), "seed {seed}");
        assert_eq!(head.target, again.target, "seed {seed}");
        assert_eq!(head.method, again.method, "seed {seed}");
        assert_eq!(head.content_length, again.content_length, "seed {seed}");
    }
    assert!(passed > 5_000, "{passed}");
}

#[test]
fn any_response_and_any_trailers_are_read_without_a_panic() {
    let mut passed = 0;
    for seed in 1..60_000 {
        let mut random = Random::new(seed);
        let version = *random.pick(&[WireVersion::H1_0, WireVersion::H1_1, WireVersion::H2, WireVersion::H3]);
        let mut fields: Pairs = Vec::new();
        let status = match version.is_h1() {
            true => Some(random.below(1100) as u16),
            false => {
                fields.push((":status".into(), random.pick(VALUES).to_string().into()));
                None
            }
        };
        for _ in 0..random.below(4) {
            let mut value = random.pick(VALUES).as_bytes().to_vec();
            if random.below(10) == 0 {
                value.push(random.next() as u8);
            }
            fields.push((random.pick(NAMES).to_string().into(), value));
        }
        if let Ok(head) = response(version, status, slices(&fields), &Method::Get, &HeadLimits::RESPONSE) {
            passed += 1;
            assert!((100..=999).contains(&head.status) && head.status != 101, "seed {seed}");
            check_fields(&head.fields, seed);
        }
        if let Ok(trailers) = trailers(version, slices(&fields), &HeadLimits::REQUEST) {
            check_fields(&trailers, seed);
            for (name, _) in &trailers {
                assert!(name.known.is_none_or(|known| known.rules() & rule::NO_TRAILER == 0));
            }
        }
    }
    assert!(passed > 3_000, "{passed}");
}
