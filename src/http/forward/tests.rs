use super::*;
use crate::http::date;
use crate::http::normalize::{self, HeadLimits, RequestLine, WireRequest};
use crate::http::{Scheme, WireVersion};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A head as the gate makes it.
fn head(version: WireVersion, method: &str, host: &str, fields: &[(&str, &str)]) -> RequestHead {
    let host = [("host", host)];
    let all = host
        .iter()
        .filter(|(_, host)| !host.is_empty())
        .chain(fields)
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let pseudo = [(":method", method), (":scheme", "https"), (":path", "/")]
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let line = version.is_h1().then_some(RequestLine { method: method.as_bytes(), target: b"/" });
    let wire =
        WireRequest { scheme: Scheme::Https, line, fields: pseudo.into_iter().filter(|_| !version.is_h1()).chain(all) };
    normalize::request(version, wire, &HeadLimits::REQUEST).expect("a good head")
}

fn peer() -> Peer {
    Peer::new(Some("192.0.2.7".parse().unwrap()))
}

fn rules(peer: &Peer, trusted: bool, identity: IdentityMode) -> RequestRules<'_> {
    RequestRules { peer, trusted, identity, request_id: b"id-1", trace: None, early_data: false, client_cert: None }
}

/// The fields that go upstream, one per line.
fn forwarded(mut head: RequestHead, rules: &RequestRules<'_>) -> Vec<String> {
    assert_eq!(request_upstream(&mut head, rules), Onward::Forward);
    lines(&head.fields)
}

fn lines(fields: &Fields) -> Vec<String> {
    fields
        .iter()
        .map(|(name, value)| format!("{}: {}", name.name.escape_ascii(), String::from_utf8_lossy(value)))
        .collect()
}

/// What we say of a client at 192.0.2.7 that asked for `a`.
const OURS: [&str; 5] = [
    "forwarded: for=192.0.2.7;host=a;proto=https",
    "x-forwarded-for: 192.0.2.7",
    "x-forwarded-proto: https",
    "x-forwarded-host: a",
    "x-forwarded-port: 443",
];

#[test]
fn a_plain_request_gets_our_fields() {
    let head = head(WireVersion::H3, "GET", "a", &[("accept", "*/*"), ("x-own", "v")]);
    let mut expected = vec!["accept: */*", "x-own: v"];
    expected.extend(OURS);
    expected.extend(["x-request-id: id-1", "via: 3 spooky"]);
    assert_eq!(forwarded(head, &rules(&peer(), false, IdentityMode::Overwrite)), expected);
}

#[test]
fn an_untrusted_peer_is_not_believed_in_any_mode() {
    for mode in [IdentityMode::Overwrite, IdentityMode::Append, IdentityMode::Preserve] {
        let head = head(
            WireVersion::H3,
            "GET",
            "a",
            &[
                ("forwarded", "for=10.0.0.1"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-for", "10.0.0.2"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "b"),
                ("x-forwarded-port", "1"),
                ("x-forwarded-prefix", "/admin"),
                ("x-real-ip", "10.0.0.1"),
                ("client-cert", ":AAA=:"),
                ("client-cert-chain", ":AAA=:"),
                ("client-cert-own", "x"),
                ("early-data", "1"),
                ("x_own", "v"),
                ("x-request-id", "theirs"),
                ("x-kept", "v"),
            ],
        );
        let mut expected = vec!["x-kept: v"];
        expected.extend(OURS);
        expected.extend(["x-request-id: id-1", "via: 3 spooky"]);
        assert_eq!(forwarded(head, &rules(&peer(), false, mode)), expected, "{mode:?}");
    }
}

const PROXIED: &[(&str, &str)] = &[
    ("forwarded", "for=10.0.0.1;proto=http"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-for", "10.0.0.2"),
    ("x-forwarded-proto", "http"),
    ("x-real-ip", "10.0.0.1"),
    ("x_own", "v"),
    ("x-request-id", "theirs"),
];

#[test]
fn a_trusted_peer_is_overwritten_where_that_is_the_mode() {
    let head = head(WireVersion::H1_1, "GET", "a", PROXIED);
    let mut expected = vec!["x-real-ip: 10.0.0.1", "x_own: v", "x-request-id: theirs"];
    expected.extend(OURS);
    expected.push("via: 1.1 spooky");
    assert_eq!(forwarded(head, &rules(&peer(), true, IdentityMode::Overwrite)), expected);
}

#[test]
fn a_trusted_peer_is_appended_to() {
    let head = head(WireVersion::H1_1, "GET", "a", PROXIED);
    assert_eq!(
        forwarded(head, &rules(&peer(), true, IdentityMode::Append)),
        [
            "forwarded: for=10.0.0.1;proto=http, for=192.0.2.7;host=a;proto=https",
            "x-forwarded-for: 10.0.0.1, 10.0.0.2, 192.0.2.7",
            "x-forwarded-proto: http",
            "x-real-ip: 10.0.0.1",
            "x_own: v",
            "x-request-id: theirs",
            "x-forwarded-host: a",
            "x-forwarded-port: 443",
            "via: 1.1 spooky",
        ]
    );
}

#[test]
fn a_trusted_peer_is_preserved() {
    let head = head(WireVersion::H1_1, "GET", "a", &PROXIED[1..4]);
    assert_eq!(
        forwarded(head, &rules(&peer(), true, IdentityMode::Preserve)),
        [
            "x-forwarded-for: 10.0.0.1",
            "x-forwarded-for: 10.0.0.2",
            "x-forwarded-proto: http",
            "forwarded: for=192.0.2.7;host=a;proto=https",
            "x-forwarded-host: a",
            "x-forwarded-port: 443",
            "x-request-id: id-1",
            "via: 1.1 spooky",
        ]
    );
}

#[test]
fn a_port_and_an_ipv6_host_are_quoted() {
    let peer = Peer::new(Some("2001:db8::7".parse().unwrap()));
    let head = head(WireVersion::H3, "GET", "[::1]:8443", &[]);
    let got = forwarded(head, &rules(&peer, false, IdentityMode::Overwrite));
    assert_eq!(
        got[..5],
        [
            r#"forwarded: for="[2001:db8::7]";host="[::1]:8443";proto=https"#,
            "x-forwarded-for: 2001:db8::7",
            "x-forwarded-proto: https",
            "x-forwarded-host: [::1]:8443",
            "x-forwarded-port: 8443",
        ]
    );
}

#[test]
fn a_request_without_a_host_and_a_peer_without_an_address() {
    let head = head(WireVersion::H1_0, "GET", "", &[]);
    assert_eq!(
        forwarded(head, &rules(&Peer::new(None), false, IdentityMode::Overwrite)),
        [
            "forwarded: for=unknown;proto=https",
            "x-forwarded-for: unknown",
            "x-forwarded-proto: https",
            "x-forwarded-port: 443",
            "x-request-id: id-1",
            "via: 1.0 spooky",
        ]
    );
}

/// The fields but those every request gets.
fn theirs(fields: &[(&str, &str)], trusted: bool) -> Vec<String> {
    let head = head(WireVersion::H1_1, "GET", "a", fields);
    let peer = peer();
    let all = forwarded(head, &rules(&peer, trusted, IdentityMode::Overwrite));
    let ours = |line: &String| {
        OURS.contains(&line.as_str()) || line.starts_with("via: 1.1 spooky") || line == "x-request-id: id-1"
    };
    all.into_iter().filter(|line| !ours(line)).collect()
}

#[test]
fn what_is_meant_for_one_connection_ends_here() {
    let got = theirs(
        &[
            ("connection", "close, X-Named, upgrade"),
            ("x-named", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMA"),
            ("proxy-authorization", "Basic x"),
            ("proxy-authenticate", "Basic"),
            ("te", "gzip"),
            ("authorization", "Bearer x"),
        ],
        false,
    );
    assert_eq!(got, ["authorization: Bearer x"]);
}

#[test]
fn naming_our_fields_in_connection_does_not_remove_them() {
    let head = head(
        WireVersion::H1_1,
        "GET",
        "a",
        &[("connection", "x-forwarded-for, via, x-request-id, forwarded, host"), ("via", "1.1 x")],
    );
    let got = forwarded(head, &rules(&peer(), true, IdentityMode::Preserve));
    let mut expected = OURS.to_vec();
    expected.extend(["x-request-id: id-1", "via: 1.1 spooky"]);
    assert_eq!(got, expected);
}

#[test]
fn te_keeps_trailers_and_nothing_else() {
    assert_eq!(theirs(&[("te", "trailers")], false), ["te: trailers"]);
    assert_eq!(theirs(&[("connection", "te"), ("te", "gzip;q=0.5, Trailers")], false), ["te: trailers"]);
    assert_eq!(theirs(&[("te", "trailers"), ("te", "trailers")], false), ["te: trailers"]);
    assert_eq!(theirs(&[("te", "")], false), [] as [&str; 0]);
}

#[test]
fn via_is_added_behind_what_is_there() {
    assert_eq!(theirs(&[("via", "1.0 fred, 1.1 p")], false), ["via: 1.0 fred, 1.1 p"]);
}

#[test]
fn a_trusted_id_is_kept_only_if_it_is_harmless() {
    for (id, kept) in [
        ("abc-DEF_123.~+/=:@", true),
        ("", false),
        ("a b", false),
        ("a\"b", false),
        ("a\\b", false),
        (&"x".repeat(128), true),
        (&"x".repeat(129), false),
    ] {
        let mut head = head(WireVersion::H3, "GET", "a", &[("x-request-id", id)]);
        let _ = request_upstream(&mut head, &rules(&peer(), true, IdentityMode::Overwrite));
        let expected = if kept { id.as_bytes() } else { b"id-1" };
        assert_eq!(head.fields.get(Known::XRequestId), Some(expected), "{id}");
    }
    let two = [("x-request-id", "first"), ("x-request-id", "second")];
    assert_eq!(theirs(&two, true), ["x-request-id: first"]);
}

#[test]
fn a_trace_is_kept_or_begun() {
    let ours = TraceParent { trace: [1; 16], span: [2; 8], sampled: false };
    let begun = format!("traceparent: {}", String::from_utf8_lossy(&ours.text()));
    let run = |fields: &[(&str, &str)], trace| {
        let peer = peer();
        let mut rules = rules(&peer, false, IdentityMode::Overwrite);
        rules.trace = trace;
        forwarded(head(WireVersion::H3, "GET", "a", fields), &rules)
            .into_iter()
            .filter(|line| line.starts_with("trace"))
            .collect::<Vec<_>>()
    };
    let kept = [format!("traceparent: {PARENT}"), "tracestate: a=1".to_owned()];
    assert_eq!(run(&[("traceparent", PARENT), ("tracestate", "a=1")], Some(ours)), kept);
    assert_eq!(run(&[], Some(ours)), [begun.as_str()]);
    assert_eq!(run(&[], None), [] as [String; 0]);
    assert_eq!(run(&[("tracestate", "a=1")], Some(ours)), [begun.as_str()]);
    assert_eq!(run(&[("traceparent", "00-zz"), ("tracestate", "a=1")], Some(ours)), [begun.as_str()]);
    assert_eq!(run(&[("traceparent", "00-zz")], None), [] as [String; 0]);
    assert_eq!(run(&[("traceparent", PARENT), ("traceparent", PARENT)], Some(ours)), [begun.as_str()]);
}

#[test]
fn early_data_and_client_certificates_are_told() {
    let peer = peer();
    let mut rules = rules(&peer, true, IdentityMode::Overwrite);
    rules.early_data = true;
    rules.client_cert = Some(ClientCert { cert: b":AAA=:", chain: None });
    let head = head(
        WireVersion::H3,
        "GET",
        "a",
        &[("client-cert", ":BBB=:"), ("client-cert-chain", ":BBB=:"), ("early-data", "1")],
    );
    let got = forwarded(head, &rules);
    assert_eq!(got[..2], ["client-cert: :AAA=:", "early-data: 1"]);
    assert!(!got.iter().any(|line| line.starts_with("client-cert-chain")));
}

#[test]
fn max_forwards_counts_down_for_options() {
    let run = |method: &str, value: &str| {
        let mut head = head(WireVersion::H3, method, "a", &[("max-forwards", value)]);
        match request_upstream(&mut head, &rules(&peer(), false, IdentityMode::Overwrite)) {
            Onward::AnswerHere => "here".to_owned(),
            Onward::Forward => {
                String::from_utf8_lossy(head.fields.get(Known::MaxForwards).unwrap_or_default()).into_owned()
            }
        }
    };
    assert_eq!(run("OPTIONS", "0"), "here");
    assert_eq!(run("OPTIONS", "1"), "0");
    assert_eq!(run("OPTIONS", "10"), "9");
    assert_eq!(run("OPTIONS", "+1"), "+1");
    assert_eq!(run("OPTIONS", "x"), "x");
    assert_eq!(run("OPTIONS", ""), "");
    assert_eq!(run("GET", "0"), "0");
}

#[test]
fn the_host_goes_by_its_policy() {
    let named = head(WireVersion::H3, "GET", "Example.com:1", &[]);
    let unnamed = head(WireVersion::H1_0, "GET", "", &[]);
    let rewrite = HostPolicy::Rewrite("b".into());
    for (policy, head, host) in [
        (&HostPolicy::PassThrough, &named, "Example.com:1"),
        (&HostPolicy::PassThrough, &unnamed, "10.0.0.1:80"),
        (&HostPolicy::Upstream, &named, "10.0.0.1:80"),
        (&rewrite, &named, "b"),
    ] {
        assert_eq!(policy.host(head, "10.0.0.1:80"), host);
    }
}

fn downstream(status: u16, fields: &[(&str, &str)]) -> Vec<String> {
    let mut head = ResponseHead::new(status);
    for (name, value) in fields {
        head.fields.push(name.as_bytes(), value.as_bytes());
    }
    response_downstream(&mut head, WireVersion::H1_1, &date::format(784_111_777));
    lines(&head.fields)
}

const DATE: &str = "date: Sun, 06 Nov 1994 08:49:37 GMT";

#[test]
fn a_response_loses_what_was_for_our_connection() {
    let got = downstream(
        200,
        &[
            ("server", "nginx"),
            ("connection", "keep-alive, x-named"),
            ("x-named", "1"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2"),
            ("alt-svc", "h3=\":443\""),
            ("te", "trailers"),
            ("proxy-authenticate", "Basic"),
            ("trailer", "x-checksum"),
            ("x_own", "v"),
        ],
    );
    assert_eq!(got, ["server: nginx", "trailer: x-checksum", "x_own: v", "via: 1.1 spooky", DATE]);
}

#[test]
fn the_backends_date_is_kept() {
    assert_eq!(downstream(200, &[("date", "yesterday")]), ["date: yesterday", "via: 1.1 spooky"]);
}

#[test]
fn informational_heads_are_stripped_and_nothing_is_added() {
    assert_eq!(downstream(103, &[("link", "</a>"), ("connection", "close"), ("alt-svc", "clear")]), ["link: </a>"]);
}

#[test]
fn request_trailers_of_a_stranger_lose_ambiguous_names() {
    let mut trailers = Fields::new();
    trailers.push(b"x-sum", b"1");
    trailers.push(b"x_sum", b"2");
    trailers.push(b"grpc-status", b"0");
    let mut trusted = trailers.clone();
    request_trailers(&mut trusted, true);
    assert_eq!(trusted, trailers);
    request_trailers(&mut trailers, false);
    assert_eq!(lines(&trailers), ["x-sum: 1", "grpc-status: 0"]);
}
