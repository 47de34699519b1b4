//! The pure parts of the proxy: parsing, normalising, routing.

use crate::harness::Harness;
use spooky::h1::{ClientConnection, Framing, Limits};
use spooky::http::Output;
use spooky::http::{Event, Fields, HeadLimits, Method, RequestHead, Scheme, WireRequest, WireVersion, normalize};
use spooky::route::{
    HostPattern, Lookup, Matcher, PathPattern, Pattern, Request, RouteSpec, Source, Subject, Table, Test,
};
use spooky_uring::Chunk;
use std::hint::black_box;

/// What a browser sends, more or less.
const REQUEST: [(&str, &str); 14] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "www.example.com"),
    (":path", "/api/v1/items/4711?expand=all&page=2"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
    ("cookie", "theme=dark"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("upgrade-insecure-requests", "1"),
];

/// What nginx answers for a small file.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\n\
    Content-Type: application/octet-stream\r\nContent-Length: 1024\r\nLast-Modified: Sat, 21 Nov 2026 09:00:00 GMT\r\n\
    Connection: keep-alive\r\nAccept-Ranges: bytes\r\n\r\n";

/// Runs all of them.
pub fn run(harness: &mut Harness) {
    heads(harness);
    routes(harness);
}

fn request_fields() -> impl Iterator<Item = (&'static [u8], &'static [u8])> {
    REQUEST.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

fn request_into(head: &mut RequestHead) -> bool {
    let wire = WireRequest { scheme: Scheme::Https, line: None, fields: request_fields() };
    normalize::request_into(WireVersion::H3, wire, &HeadLimits::REQUEST, head).is_ok()
}

fn heads(harness: &mut Harness) {
    let mut head = RequestHead::default();
    assert!(request_into(&mut head), "the example is a valid request");
    harness.bench("normalize: HTTP/3 request, 10 fields, reused", || request_into(&mut head));
    harness.bench("normalize: HTTP/3 request, 10 fields, fresh", || {
        let mut fresh = RequestHead::default();
        request_into(&mut fresh);
        fresh
    });
    harness.bench("httparse alone: response head, 7 fields", || {
        let mut storage = [httparse::EMPTY_HEADER; 16];
        httparse::Response::new(&mut storage).parse(black_box(RESPONSE)).is_ok()
    });

    let mut wire = RESPONSE.to_vec();
    wire.resize(RESPONSE.len() + 1024, b'x');
    let response = Chunk::copy_from(&wire);
    let mut connection = ClientConnection::new(Limits::CLIENT);
    let mut output = Output::new();
    assert_eq!(exchange(&mut connection, &head, &mut output, &response), 1024);
    harness.bench("h1: one exchange, response of 1 KiB", || exchange(&mut connection, &head, &mut output, &response));
}

/// One request and its response over a connection that stays; how many body bytes came.
fn exchange(connection: &mut ClientConnection, head: &RequestHead, output: &mut Output, response: &Chunk) -> usize {
    connection.send_head(head, None, Framing::None, output);
    output.clear();
    connection.grant(1 << 20);
    connection.receive(response.clone());
    let mut body = 0;
    while let Ok(Some(event)) = connection.next_event() {
        match event {
            Event::Head { head, .. } => connection.recycle(head),
            Event::Body(bytes) => body += bytes.len(),
            _ => {}
        }
    }
    body
}

/// A table of `count` routes over a tenth as many hosts; some with wildcards, some with methods.
fn table(count: usize) -> Table {
    let hosts = (count / 10).max(1);
    let mut specs: Vec<RouteSpec> = (0..count)
        .map(|at| {
            let host = format!("host{}.example.com", at % hosts);
            RouteSpec {
                hosts: vec![HostPattern::parse(&host).expect("a host")],
                path: PathPattern::Prefix(format!("/service{}/v1", at / hosts).into()),
                methods: if at % 3 == 0 { vec![Method::Get, Method::Head] } else { Vec::new() },
                matchers: Vec::new(),
            }
        })
        .collect();
    specs.push(RouteSpec {
        hosts: vec![HostPattern::parse("*.example.org").expect("a wildcard")],
        path: PathPattern::Prefix("/".into()),
        methods: Vec::new(),
        matchers: Vec::new(),
    });
    Table::build(&specs, true).unwrap_or_else(|_| panic!("the routes of the benchmark conflict"))
}

/// A table of `count` routes at one host and path, which differ in the value that a field, a parameter or a cookie has; each
/// wants the same second thing too.
fn table_of_values(count: usize, source: Source) -> Table {
    let specs: Vec<RouteSpec> = (0..count)
        .map(|at| RouteSpec {
            hosts: Vec::new(),
            path: PathPattern::Prefix("/service".into()),
            methods: Vec::new(),
            matchers: vec![
                Matcher { subject: Subject::new(Source::Header, "x-stage"), test: Test::Exact(vec!["live".into()]) },
                Matcher { subject: Subject::new(source, "tenant"), test: Test::Exact(vec![format!("t{at}").into()]) },
            ],
        })
        .collect();
    Table::build(&specs, true).unwrap_or_else(|_| panic!("the routes of the benchmark conflict"))
}

fn routes(harness: &mut Harness) {
    for count in [10, 1_000, 10_000] {
        let name = format!("route: exact host, {count} routes");
        if !harness.wants("route:") && !harness.wants(&name) {
            continue;
        }
        let table = table(count);
        let mut lens = table.lens();
        let fields = Fields::new();
        let hosts = (count / 10).max(1);
        let targets: Vec<(String, String)> = (0..256)
            .map(|step| {
                // Spread over the table, so that caches see what a real mix would show them.
                let at = step * 7919 % count;
                (format!("host{}.example.com", at % hosts), format!("/service{}/v1/items/4711", at / hosts))
            })
            .collect();
        let mut found = |host: &str, path: &str| {
            let request =
                Request { host, path: Some(path), method: &Method::Get, query: None, fields: &fields, trusted: false };
            matches!(table.lookup(&request, &mut lens), Lookup::Found(_))
        };
        assert!(targets.iter().all(|(host, path)| found(host, path)));
        harness.bench_many(&name, targets.len() as u64, || {
            targets.iter().filter(|(host, path)| found(host, path)).count()
        });
        harness.bench(&format!("route: wildcard host, {count} routes"), || {
            found(black_box("a.b.example.org"), black_box("/service1/v1/items/4711"))
        });
        harness.bench(&format!("route: no match, {count} routes"), || {
            found(black_box("www.example.net"), black_box("/service1/v1/items/4711"))
        });
        for source in [Source::Header, Source::Query, Source::Cookie] {
            values(harness, count, source);
        }
    }
    patterns(harness);
}

/// Lookups among routes at one point that differ in a value.
fn values(harness: &mut Harness, count: usize, source: Source) {
    let name = format!("route: {} value, {count} routes", source.as_str());
    if !harness.wants(&name) {
        return;
    }
    let table = table_of_values(count, source);
    let mut lens = table.lens();
    let requests: Vec<(Fields, String)> = (0..256)
        .map(|step| {
            let tenant = format!("t{}", step * 7919 % count);
            let mut fields = Fields::new();
            for (name, value) in request_fields().filter(|(name, _)| !name.starts_with(b":")) {
                fields.push(name, value);
            }
            fields.push(b"x-stage", b"live");
            match source {
                Source::Header => drop(fields.push(b"tenant", tenant.as_bytes())),
                Source::Cookie => drop(fields.push(b"cookie", format!("tenant={tenant}").as_bytes())),
                Source::Query => {}
            }
            (fields, format!("expand=all&tenant={tenant}"))
        })
        .collect();
    let mut found = |(fields, query): &(Fields, String)| {
        let request = Request {
            host: "www.example.com",
            path: Some("/service/v1/items/4711"),
            method: &Method::Get,
            query: Some(query),
            fields,
            trusted: false,
        };
        matches!(table.lookup(&request, &mut lens), Lookup::Found(_))
    };
    assert!(requests.iter().all(&mut found));
    harness.bench_many(&name, requests.len() as u64, || requests.iter().filter(|request| found(request)).count());
}

/// A lookup in which one pattern decides.
fn patterns(harness: &mut Harness) {
    let name = "route: header that matches a pattern";
    if !harness.wants(name) {
        return;
    }
    let pattern = Pattern::parse("(?i).*(android|iphone|ipad).*").expect("a pattern");
    let plain = RouteSpec {
        hosts: Vec::new(),
        path: PathPattern::Prefix("/".into()),
        methods: Vec::new(),
        matchers: Vec::new(),
    };
    let matcher = Matcher { subject: Subject::new(Source::Header, "user-agent"), test: Test::Regex(pattern) };
    let table = Table::build(&[RouteSpec { matchers: vec![matcher], ..plain.clone() }, plain], true);
    let table = table.unwrap_or_else(|_| panic!("the routes of the benchmark conflict"));
    let mut lens = table.lens();
    let mut fields = Fields::new();
    for (name, value) in request_fields().filter(|(name, _)| !name.starts_with(b":")) {
        fields.push(name, value);
    }
    harness.bench(name, || {
        let request = Request {
            host: "www.example.com",
            path: Some(black_box("/service/v1")),
            method: &Method::Get,
            query: None,
            fields: &fields,
            trusted: false,
        };
        table.lookup(&request, &mut lens)
    });
}
