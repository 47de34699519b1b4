//! Questions as they leave, and answers of every kind.

use super::*;

/// A fixed sequence: the same capitals in every run.
fn chance() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 33
    }
}

fn ask(host: &str, family: Family) -> Question {
    Question::new(host, family, false, &mut chance()).expect("a name that can be asked for")
}

/// A name on the wire.
fn wire(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

fn record(name: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = wire(name);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn a(name: &str, ttl: u32, ip: [u8; 4]) -> Vec<u8> {
    record(name, 1, ttl, &ip)
}

fn alias(name: &str, ttl: u32, to: &str) -> Vec<u8> {
    record(name, 5, ttl, &wire(to))
}

/// An answer to `question`: its identifier and its question, these flags and records.
fn answer(question: &Question, flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = question.bytes().to_vec();
    out[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
    out[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    out.extend(records.iter().flatten());
    out
}

fn read(question: &Question, message: &[u8]) -> Reading {
    question.read(message, Transport::Datagram)
}

fn found(reading: Reading) -> (Vec<String>, u64) {
    match reading {
        Reading::Answer(Answer::Addresses { addresses, ttl }) => {
            (addresses.iter().map(ToString::to_string).collect(), ttl.as_secs())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_is_a_plain_query_with_capitals_by_chance() {
    let mut random = chance();
    let host = "app.internal.example.com";
    let one = Question::new(host, Family::V6, false, &mut random).unwrap();
    let two = Question::new(host, Family::V6, false, &mut random).unwrap();
    assert_ne!(one.bytes()[..2], two.bytes()[..2], "identifiers");
    assert_ne!(one.bytes()[HEADER..], two.bytes()[HEADER..], "capitals");
    // RD and nothing else; one question, no records.
    assert_eq!(one.bytes()[2..HEADER], [1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let mut asked = wire(host);
    asked.extend_from_slice(&[0, 28, 0, 1]);
    assert_eq!(one.bytes()[HEADER..].to_ascii_lowercase(), asked);
}

#[test]
fn a_name_that_no_message_can_carry_is_not_asked() {
    let mut random = chance();
    assert!(Question::new(&"x".repeat(64), Family::V4, false, &mut random).is_none());
    assert!(Question::new(&"x.".repeat(128), Family::V4, false, &mut random).is_none());
}

#[test]
fn addresses_come_once_each_with_the_shortest_ttl() {
    let question = ask("app.example", Family::V4);
    let records = [
        a("APP.example", 30, [10, 0, 0, 1]),
        a("app.example", 20, [10, 0, 0, 2]),
        a("app.example", 60, [10, 0, 0, 1]),
        a("other.example", 1, [10, 0, 0, 3]),
        // AAAA was not asked for.
        record("app.example", 28, 1, &[0x20, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    assert_eq!(
        found(read(&question, &answer(&question, 0, &records))),
        (vec!["10.0.0.1".into(), "10.0.0.2".into()], 20)
    );
    // AA, AD and CD are the server's business.
    assert_eq!(found(read(&question, &answer(&question, 0x0430, &records))).1, 20);
}

#[test]
fn aliases_are_followed_in_any_order_and_their_ttl_counts() {
    let question = ask("app.example", Family::V4);
    let records =
        [a("c.example", 300, [10, 0, 0, 1]), alias("b.example", 5, "c.example"), alias("app.example", 60, "B.example")];
    assert_eq!(found(read(&question, &answer(&question, 0, &records))), (vec!["10.0.0.1".into()], 5));
    // Addresses of somebody whom no alias leads to are nobody's.
    let stray = [alias("app.example", 60, "b.example"), a("c.example", 300, [10, 0, 0, 1])];
    assert_eq!(read(&question, &answer(&question, 0, &stray)), Reading::Answer(Answer::NoAddress));
}

#[test]
fn a_ring_or_a_long_chain_of_aliases_is_malformed() {
    let question = ask("app.example", Family::V4);
    let malformed = Reading::Answer(Answer::Failed(ResolverFailure::Malformed));
    let ring = [alias("app.example", 60, "b.example"), alias("b.example", 60, "app.example")];
    assert_eq!(read(&question, &answer(&question, 0, &ring)), malformed);
    let chain = |links: usize| {
        let mut records = vec![alias("app.example", 60, "n0.example")];
        records.extend((1..links).map(|n| alias(&format!("n{}.example", n - 1), 60, &format!("n{n}.example"))));
        records.push(a(&format!("n{}.example", links - 1), 60, [10, 0, 0, 1]));
        answer(&question, 0, &records)
    };
    assert_eq!(found(read(&question, &chain(limits::RESOLVER_ALIASES - 1))).0, ["10.0.0.1"]);
    assert_eq!(read(&question, &chain(limits::RESOLVER_ALIASES)), malformed);
}

#[test]
fn answers_to_other_questions_are_strangers() {
    let question = ask("app.example", Family::V4);
    let good = answer(&question, 0, &[a("app.example", 30, [10, 0, 0, 1])]);
    found(read(&question, &good));
    let altered = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        read(&question, &message)
    };
    let end_of_name = HEADER + wire("app.example").len();
    for (what, reading) in [
        ("another identifier", altered(0, !good[0])),
        ("a query", altered(2, 1)),
        ("another opcode", altered(2, 0xa9)),
        ("no question", altered(5, 0)),
        ("two questions", altered(5, 2)),
        ("another name", altered(HEADER + 1, b'b')),
        ("another type", altered(end_of_name + 1, 28)),
        ("another class", altered(end_of_name + 3, 3)),
        ("a header cut short", read(&question, &good[..HEADER - 1])),
        ("a question cut short", read(&question, &good[..end_of_name])),
        ("nothing", read(&question, &[])),
    ] {
        assert_eq!(reading, Reading::Stranger, "{what}");
    }
}

#[test]
fn without_our_capitals_or_whole_it_is_asked_again_over_tcp() {
    let question = ask("application.example", Family::V4);
    let good = answer(&question, 0, &[a("application.example", 30, [10, 0, 0, 1])]);
    let mut lower = good.clone();
    let end = HEADER + wire("application.example").len();
    lower[HEADER..end].make_ascii_lowercase();
    assert_ne!(lower, good);
    assert_eq!(read(&question, &lower), Reading::Unproved);
    let plain = Question::new("application.example", Family::V4, true, &mut chance()).unwrap();
    assert_eq!(plain.bytes()[HEADER..end], wire("application.example"));
    assert_eq!(found(question.read(&lower, Transport::Stream)).0, ["10.0.0.1"]);
    let cut = answer(&question, 0x0200, &[]);
    assert_eq!(read(&question, &cut), Reading::Cut);
    let over_tcp = question.read(&cut, Transport::Stream);
    assert_eq!(over_tcp, Reading::Answer(Answer::Failed(ResolverFailure::Malformed)));
}

#[test]
fn what_a_server_says_instead_of_addresses() {
    let question = ask("app.example", Family::V4);
    let says = |flags, records: &[Vec<u8>]| match read(&question, &answer(&question, flags, records)) {
        Reading::Answer(answer) => answer,
        other => panic!("{other:?}"),
    };
    assert_eq!(says(0, &[]), Answer::NoAddress);
    assert_eq!(says(0, &[alias("app.example", 1, "b.example")]), Answer::NoAddress);
    assert_eq!(says(3, &[]), Answer::NoSuchName);
    for rcode in [1, 2, 4, 5, 9, 15] {
        assert_eq!(says(rcode, &[]), Answer::Failed(ResolverFailure::ServerFailure), "{rcode}");
    }
    // FORMERR and the like may leave the question out.
    let mut bare = answer(&question, 1, &[])[..HEADER].to_vec();
    bare[5] = 0;
    assert_eq!(read(&question, &bare), Reading::Answer(Answer::Failed(ResolverFailure::ServerFailure)));
}

#[test]
fn addresses_that_lead_nowhere_are_left_out() {
    let question = ask("app.example", Family::V4);
    let records = [[0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255]].map(|ip| a("app.example", 30, ip));
    assert_eq!(read(&question, &answer(&question, 0, &records)), Reading::Answer(Answer::NoAddress));
    let question = ask("app.example", Family::V6);
    let aaaa = |ip: &str| record("app.example", 28, 30, &ip.parse::<Ipv6Addr>().unwrap().octets());
    let records = ["::", "ff02::1", "fe80::1", "::ffff:10.0.0.1", "2001:db8::1"].map(aaaa);
    let kept = found(read(&question, &answer(&question, 0, &records))).0;
    assert_eq!(kept, ["10.0.0.1", "2001:db8::1"], "an IPv4 address in IPv6 clothes is one");
}

#[test]
fn odd_ttls_and_too_many_records() {
    let question = ask("app.example", Family::V4);
    let forever = [a("app.example", u32::MAX, [10, 0, 0, 1])];
    assert_eq!(found(read(&question, &answer(&question, 0, &forever))).1, 0);
    let many: Vec<_> =
        (0..=limits::RESOLVER_RECORDS).map(|n| a("app.example", 9, [10, 0, (n >> 8) as u8, n as u8])).collect();
    let most = answer(&question, 0, &many[..limits::RESOLVER_RECORDS]);
    assert_eq!(found(read(&question, &most)).0.len(), limits::ENDPOINTS);
    let malformed = Reading::Answer(Answer::Failed(ResolverFailure::Malformed));
    assert_eq!(read(&question, &answer(&question, 0, &many)), malformed);
    // Announced, but not there.
    let mut short = answer(&question, 0, &many[..2]);
    short[7] = 3;
    assert_eq!(read(&question, &short), malformed);
}

#[test]
fn only_the_answers_are_read() {
    let question = ask("app.example", Family::V4);
    let mut message = answer(&question, 0, &[a("app.example", 30, [10, 0, 0, 1])]);
    // An authority that is nonsense.
    message[9] = 1;
    message.extend_from_slice(&[0xff; 7]);
    assert_eq!(found(read(&question, &message)).0, ["10.0.0.1"]);
}

#[test]
fn a_pointer_into_itself_or_ahead_is_malformed() {
    let question = ask("app.example", Family::V4);
    for pointer in [question.bytes().len() as u8, question.bytes().len() as u8 + 1, 0xff] {
        let mut own = vec![0xc0, pointer];
        own.extend_from_slice(&record("", 1, 30, &[10, 0, 0, 1])[1..]);
        let reading = read(&question, &answer(&question, 0, &[own]));
        assert_eq!(reading, Reading::Answer(Answer::Failed(ResolverFailure::Malformed)), "{pointer}");
    }
    // The usual one, to the question's name.
    let mut usual = vec![0xc0, HEADER as u8];
    usual.extend_from_slice(&record("", 1, 30, &[10, 0, 0, 1])[1..]);
    assert_eq!(found(read(&question, &answer(&question, 0, &[usual]))).0, ["10.0.0.1"]);
}

#[test]
fn an_answer_cut_or_altered_anywhere_is_a_reading_too() {
    let question = ask("app.example", Family::V4);
    let records =
        [alias("app.example", 60, "b.example"), a("b.example", 30, [10, 0, 0, 1]), record("x", 16, 1, b"\x02hi")];
    let good = answer(&question, 0, &records);
    for end in 0..good.len() {
        read(&question, &good[..end]);
    }
    for at in 0..good.len() {
        for byte in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
            let mut message = good.clone();
            message[at] = byte;
            read(&question, &message);
            question.read(&message, Transport::Stream);
        }
    }
}
