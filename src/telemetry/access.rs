//! The access log: one record per exchange, written by the exchange at its end, formatted and stored by control.
//!
//! ```text
//! exchange ends → AccessSender::record (copies some 200 bytes) → full or due → AccessBatch → bounded mailbox → control
//!                                                                                           full: dropped, counted
//! control: AccessBatch::lines → JSON lines → file, stdout or stderr through its own ring
//! ```
//! A worker allocates two vectors per batch, nothing per record, and never waits: if control is behind, the batch is
//! dropped and its records are counted. Names of routes and backends travel as indexes; control looks them up.

use super::cells::WorkerCells;
use super::clock::push_rfc3339;
use super::json::{Object, push_number};
use super::kinds::{Protocol, QueueFull};
use super::scope::Scope;
use crate::http::Reason;
use crate::limits::{ACCESS_BATCH_BYTES, ACCESS_BATCH_RECORDS, ACCESS_RECORD_BYTES, ACCESS_TEXT_BYTES};
use spooky_uring::Io;
use spooky_uring::mailbox::{SendError, Sender};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A batch that is not full leaves after this time, so that the log follows what happens.
pub const ACCESS_BATCH_DELAY: Duration = Duration::from_millis(200);

/// What is told of the TLS session that a request came in.
#[derive(Debug, Clone, Copy)]
pub struct TlsEntry<'a> {
    /// The name the client asked for; may be empty.
    pub server_name: &'a [u8],
    /// The cipher suite.
    pub cipher: &'static str,
    /// The group of the key exchange.
    pub group: &'static str,
    /// Whether the session was resumed.
    pub resumed: bool,
}

/// What an exchange knows at its end. Text is any bytes; absent text is empty.
#[derive(Debug, Clone)]
pub struct AccessEntry<'a> {
    /// When the request head was complete, microseconds since the Unix epoch.
    pub received_unix_us: u64,
    /// The client's address (of the validated path).
    pub client: Option<SocketAddr>,
    /// What the client speaks.
    pub protocol: Protocol,
    /// What the backend speaks, once one was chosen.
    pub upstream_protocol: Option<Protocol>,
    /// The final status sent; `None` if the client got none.
    pub status: Option<u16>,
    /// Why the exchange did not end as meant.
    pub reason: Option<Reason>,
    /// Index of the rate limit that the request was over; without a reason it was let through.
    pub rate_limit: Option<u8>,
    /// The limit that refused the request, by its value on the worker; the reason says which it is.
    pub limit: Option<u32>,
    /// How long it waited for room at its upstream, if it did.
    pub queued: Option<Duration>,
    /// Index of the way that its route took.
    pub route: Option<u32>,
    /// Backend index, of the last attempt.
    pub backend: Option<u32>,
    /// Attempts made.
    pub attempts: u16,
    /// Why the attempt before the last one failed.
    pub retried_for: Option<Reason>,
    /// What spoke against other backends when the last attempt's was picked.
    pub skipped: Option<&'static str>,
    /// Whether the answer is that of an attempt that began beside another one.
    pub hedge: bool,
    /// Whether the last attempt took a kept connection.
    pub reused: bool,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// Since the request head: the route was found.
    pub routed: Option<Duration>,
    /// Since the request head: a backend connection was there.
    pub connected: Option<Duration>,
    /// Since the request head: the response head went to the client.
    pub first_byte: Option<Duration>,
    /// Since the request head: the exchange ended.
    pub finished: Duration,
    /// Smoothed round-trip time of the client's connection at that time, once measured.
    pub round_trip: Option<Duration>,
    /// Packets to the client lost on its connection so far, those of other exchanges included.
    pub packets_lost: Option<u64>,
    /// Method.
    pub method: &'a [u8],
    /// Authority as the client sent it.
    pub authority: &'a [u8],
    /// Path and query as forwarded.
    pub path: &'a [u8],
    /// Request id.
    pub request_id: &'a [u8],
    /// User-Agent.
    pub user_agent: &'a [u8],
    /// The client's TLS session, where there is one.
    pub tls: Option<TlsEntry<'a>>,
}

impl Default for AccessEntry<'_> {
    fn default() -> Self {
        Self {
            received_unix_us: 0,
            client: None,
            protocol: Protocol::H3,
            upstream_protocol: None,
            status: None,
            reason: None,
            rate_limit: None,
            limit: None,
            queued: None,
            route: None,
            backend: None,
            attempts: 0,
            retried_for: None,
            skipped: None,
            hedge: false,
            reused: false,
            request_bytes: 0,
            response_bytes: 0,
            routed: None,
            connected: None,
            first_byte: None,
            finished: Duration::ZERO,
            round_trip: None,
            packets_lost: None,
            method: b"",
            authority: b"",
            path: b"",
            request_id: b"",
            user_agent: b"",
            tls: None,
        }
    }
}

/// Text fields of a record.
const TEXTS: usize = 6;

/// The kept form: the same without borrowed text, whose lengths stand here and whose bytes stand in the batch.
#[derive(Debug, Clone)]
struct AccessRecord {
    received_unix_us: u64,
    client: Option<SocketAddr>,
    request_bytes: u64,
    response_bytes: u64,
    limit: Option<u32>,
    queued_us: Option<u32>,
    routed_us: Option<u32>,
    connected_us: Option<u32>,
    first_byte_us: Option<u32>,
    finished_us: u64,
    packets_lost: Option<u64>,
    round_trip_us: Option<u32>,
    route: Option<u32>,
    backend: Option<u32>,
    status: Option<u16>,
    attempts: u16,
    reason: Option<Reason>,
    retried_for: Option<Reason>,
    skipped: Option<&'static str>,
    rate_limit: Option<u8>,
    protocol: Protocol,
    upstream_protocol: Option<Protocol>,
    hedge: bool,
    reused: bool,
    truncated: bool,
    /// Cipher suite, group, and whether the session was resumed.
    tls: Option<(&'static str, &'static str, bool)>,
    /// Method, authority, path, request id, user agent, server name: back to back in the batch's text, in record order.
    text: [u16; TEXTS],
}

const _: () = assert!(ACCESS_TEXT_BYTES <= u16::MAX as usize);
const _: () = assert!(size_of::<AccessRecord>() <= ACCESS_RECORD_BYTES);
const _: () = assert!(ACCESS_BATCH_BYTES >= TEXTS * ACCESS_TEXT_BYTES);

/// Some records on their way to control.
#[derive(Debug, Default)]
pub struct AccessBatch {
    /// The names of the generation the records were made under.
    scope: Arc<Scope>,
    records: Vec<AccessRecord>,
    text: Vec<u8>,
}

impl AccessBatch {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Appends one JSON line per record.
    pub fn lines(&self, out: &mut Vec<u8>) {
        let mut text = self.text.as_slice();
        for record in &self.records {
            record.line(&self.scope, &mut text, out);
        }
    }
}

impl AccessRecord {
    fn line(&self, scope: &Scope, text: &mut &[u8], out: &mut Vec<u8>) {
        let [method, authority, path, request_id, user_agent, server_name] = self.text.map(|len| {
            // The lengths were written together with the text; a shorter text cannot be, but would only cut the line.
            let (part, rest) = text.split_at(usize::from(len).min(text.len()));
            *text = rest;
            part
        });
        let route = self.route.and_then(|at| scope.routes.get(at as usize));
        let backend = self.backend.and_then(|at| scope.backends.get(at as usize));

        let mut line = Object::open(out);
        line.raw("time", |out| {
            out.push(b'"');
            push_rfc3339(self.received_unix_us, out);
            out.push(b'"');
        });
        line.string_if("request_id", request_id);
        if let Some(client) = self.client {
            line.raw("client", |out| push_address(client, out));
        }
        line.string("protocol", self.protocol.word().as_bytes())
            .string("method", method)
            .string("authority", authority)
            .string("path", path);
        match self.status {
            Some(status) => line.number("status", u64::from(status)),
            None => line.raw("status", |out| out.extend_from_slice(b"null")),
        };
        if let Some(reason) = self.reason {
            line.string("reason", reason.token().as_bytes());
        }
        if let Some(limit) = self.rate_limit.and_then(|at| scope.rate_limits.get(usize::from(at))) {
            line.string("rate_limit", limit.as_bytes());
        }
        if let Some(limit) = self.limit {
            line.number("limit", u64::from(limit));
        }
        if let Some(route) = route {
            line.string("route", route.route.as_bytes()).string_if("upstream", route.upstream.as_bytes());
        }
        if let Some(backend) = backend {
            line.string("backend", backend.backend.as_bytes()).string("backend_address", backend.address.as_bytes());
        }
        if let Some(protocol) = self.upstream_protocol {
            line.string("upstream_protocol", protocol.word().as_bytes());
        }
        line.number("attempts", u64::from(self.attempts));
        if let Some(failure) = self.retried_for {
            line.string("retried_for", failure.token().as_bytes());
        }
        if let Some(why) = self.skipped {
            line.string("skipped", why.as_bytes());
        }
        line.boolean("hedge", self.hedge)
            .boolean("reused", self.reused)
            .number("request_bytes", self.request_bytes)
            .number("response_bytes", self.response_bytes);
        for (key, value) in [
            ("routed_us", self.routed_us),
            ("queued_us", self.queued_us),
            ("connected_us", self.connected_us),
            ("first_byte_us", self.first_byte_us),
        ] {
            if let Some(value) = value {
                line.number(key, u64::from(value));
            }
        }
        line.number("duration_us", self.finished_us);
        if let Some(value) = self.round_trip_us {
            line.number("round_trip_us", u64::from(value));
        }
        if let Some(value) = self.packets_lost {
            line.number("packets_lost", value);
        }
        line.string_if("user_agent", user_agent);
        if let Some((cipher, group, resumed)) = self.tls {
            line.string_if("server_name", server_name)
                .string("tls_cipher", cipher.as_bytes())
                .string("tls_group", group.as_bytes())
                .boolean("tls_resumed", resumed);
        }
        if self.truncated {
            line.boolean("truncated", true);
        }
        line.close();
        out.push(b'\n');
    }
}

/// An address as a JSON string: `"192.0.2.1:443"`, `"[2001:db8::1]:443"`.
fn push_address(address: SocketAddr, out: &mut Vec<u8>) {
    use std::io::Write as _;
    out.push(b'"');
    match address {
        // The common case without the formatter.
        SocketAddr::V4(v4) => {
            for (at, octet) in v4.ip().octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                push_number(u64::from(octet), out);
            }
            out.push(b':');
            push_number(u64::from(v4.port()), out);
        }
        SocketAddr::V6(v6) => {
            // Writing to a Vec cannot fail; an address has no character that JSON escapes.
            let _ = write!(out, "{v6}");
        }
    }
    out.push(b'"');
}

/// A worker's end of the access log: collects records and posts full or due batches to control.
#[derive(Debug)]
pub struct AccessSender {
    /// `None`: the access log is off.
    channel: Option<(AccessBatcher, Sender<AccessBatch>)>,
}

impl AccessSender {
    /// Posts to control's mailbox.
    pub fn new(scope: Arc<Scope>, sender: Sender<AccessBatch>) -> Self {
        Self { channel: Some((AccessBatcher::new(scope), sender)) }
    }

    /// Takes records and forgets them.
    pub fn off() -> Self {
        Self { channel: None }
    }

    /// Whether records are wanted: if not, gathering one can be saved.
    pub fn is_on(&self) -> bool {
        self.channel.is_some()
    }

    /// Takes one record.
    pub fn record(&mut self, entry: &AccessEntry<'_>, io: &mut impl Io, cells: &WorkerCells) {
        if let Some((batcher, sender)) = &mut self.channel
            && let Some(batch) = batcher.record(entry, io.now())
        {
            post(sender, batch, io, cells);
        }
    }

    /// Posts the batch whose time has come; the worker calls it once a turn.
    pub fn flush_due(&mut self, io: &mut impl Io, cells: &WorkerCells) {
        if let Some((batcher, sender)) = &mut self.channel
            && let Some(batch) = batcher.take_due(io.now())
        {
            post(sender, batch, io, cells);
        }
    }

    /// Posts what there is: before the worker's last turn ends.
    pub fn flush(&mut self, io: &mut impl Io, cells: &WorkerCells) {
        if let Some((batcher, sender)) = &mut self.channel
            && let Some(batch) = batcher.take()
        {
            post(sender, batch, io, cells);
        }
    }

    /// When [`Self::flush_due`] will have something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.channel.as_ref().and_then(|(batcher, _)| batcher.deadline())
    }
}

fn post(sender: &Sender<AccessBatch>, batch: AccessBatch, io: &mut impl Io, cells: &WorkerCells) {
    if let Err(SendError::Full(batch) | SendError::Closed(batch)) = sender.send_by(io, batch) {
        cells.access_dropped.add(batch.len() as u64);
        cells.full.count(QueueFull::AccessLog);
    }
}

/// Collects a worker's records.
#[derive(Debug, Default)]
pub struct AccessBatcher {
    batch: AccessBatch,
    /// When the batch must leave; set while it holds records.
    due: Option<Instant>,
}

impl AccessBatcher {
    /// An empty one for records of `scope`.
    pub fn new(scope: Arc<Scope>) -> Self {
        Self { batch: AccessBatch { scope, ..AccessBatch::default() }, due: None }
    }

    /// Takes one record; hands out a batch when this one filled it.
    #[must_use]
    pub fn record(&mut self, entry: &AccessEntry<'_>, now: Instant) -> Option<AccessBatch> {
        if self.batch.records.capacity() == 0 {
            self.batch.records.reserve_exact(ACCESS_BATCH_RECORDS);
            self.batch.text.reserve(ACCESS_BATCH_BYTES / 4);
        }
        let server_name = entry.tls.map_or(&b""[..], |tls| tls.server_name);
        let parts = [entry.method, entry.authority, entry.path, entry.request_id, entry.user_agent, server_name];
        let mut truncated = false;
        let text = parts.map(|part| {
            let len = part.len().min(ACCESS_TEXT_BYTES);
            truncated |= len < part.len();
            self.batch.text.extend_from_slice(&part[..len]);
            // At most ACCESS_TEXT_BYTES, which fits.
            len as u16
        });
        self.batch.records.push(AccessRecord {
            received_unix_us: entry.received_unix_us,
            client: entry.client,
            request_bytes: entry.request_bytes,
            response_bytes: entry.response_bytes,
            limit: entry.limit,
            queued_us: entry.queued.map(micros),
            routed_us: entry.routed.map(micros),
            connected_us: entry.connected.map(micros),
            first_byte_us: entry.first_byte.map(micros),
            finished_us: u64::try_from(entry.finished.as_micros()).unwrap_or(u64::MAX),
            packets_lost: entry.packets_lost,
            round_trip_us: entry.round_trip.map(micros),
            route: entry.route,
            backend: entry.backend,
            status: entry.status,
            attempts: entry.attempts,
            retried_for: entry.retried_for,
            skipped: entry.skipped,
            reason: entry.reason,
            rate_limit: entry.rate_limit,
            protocol: entry.protocol,
            upstream_protocol: entry.upstream_protocol,
            hedge: entry.hedge,
            reused: entry.reused,
            truncated,
            tls: entry.tls.map(|tls| (tls.cipher, tls.group, tls.resumed)),
            text,
        });
        let full = self.batch.records.len() >= ACCESS_BATCH_RECORDS
            || self.batch.text.len() > ACCESS_BATCH_BYTES - TEXTS * ACCESS_TEXT_BYTES;
        if full {
            return self.take();
        }
        self.due.get_or_insert(now + ACCESS_BATCH_DELAY);
        None
    }

    /// When [`Self::take_due`] will have something.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// The batch, if its time has come.
    #[must_use]
    pub fn take_due(&mut self, now: Instant) -> Option<AccessBatch> {
        if self.due.is_some_and(|due| due <= now) {
            return self.take();
        }
        None
    }

    /// The batch as it is, if it has records: before the worker ends.
    #[must_use]
    pub fn take(&mut self) -> Option<AccessBatch> {
        self.due = None;
        if self.batch.is_empty() {
            return None;
        }
        let empty = AccessBatch { scope: Arc::clone(&self.batch.scope), ..AccessBatch::default() };
        Some(std::mem::replace(&mut self.batch, empty))
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::scope::{BackendName, RouteName};
    use serde_json::Value;

    fn scope() -> Arc<Scope> {
        Arc::new(Scope {
            generation: 1,
            routes: vec![RouteName { route: "r".into(), upstream: "u".into() }],
            backends: vec![BackendName {
                upstream: "u".into(),
                backend: "b".into(),
                address: "unix:/run/\"app\".sock".into(),
            }],
            upstreams: vec!["u".into()],
            rate_limits: vec!["l".into()],
        })
    }

    fn lines(batch: &AccessBatch) -> Vec<Value> {
        let mut out = Vec::new();
        batch.lines(&mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// An entry that knows everything.
    fn full() -> AccessEntry<'static> {
        AccessEntry {
            received_unix_us: 1_795_257_239_000_123,
            client: Some("192.0.2.7:4433".parse().unwrap()),
            upstream_protocol: Some(Protocol::H1),
            status: Some(502),
            reason: Some(Reason::ConnectRefused),
            rate_limit: Some(0),
            route: Some(0),
            backend: Some(0),
            attempts: 2,
            retried_for: Some(Reason::ConnectTimeout),
            skipped: Some("breaker_open"),
            hedge: true,
            reused: true,
            request_bytes: 5,
            response_bytes: 70_000_000_000,
            routed: Some(Duration::from_micros(3)),
            limit: Some(8),
            queued: Some(Duration::from_micros(5)),
            connected: None,
            first_byte: Some(Duration::from_secs(100_000)),
            finished: Duration::from_secs(100_001),
            round_trip: Some(Duration::from_millis(30)),
            packets_lost: Some(2),
            tls: Some(TlsEntry {
                server_name: b"a.test",
                cipher: "TLS_AES_128_GCM_SHA256",
                group: "X25519",
                resumed: true,
            }),
            method: b"POST",
            authority: b"example.org",
            path: b"/a?b=\"c\"",
            request_id: b"id",
            user_agent: b"curl\n\xff",
            ..AccessEntry::default()
        }
    }

    #[test]
    fn a_record_becomes_one_line_with_all_it_knows() {
        let mut batcher = AccessBatcher::new(scope());
        let now = Instant::now();
        let entry = full();
        assert!(batcher.record(&entry, now).is_none());
        let batch = batcher.take().unwrap();
        let lines = lines(&batch);
        assert_eq!(
            lines[0],
            serde_json::json!({
                "time": "2026-11-21T10:33:59.000123Z",
                "server_name": "a.test",
                "tls_cipher": "TLS_AES_128_GCM_SHA256",
                "tls_group": "X25519",
                "tls_resumed": true,
                "request_id": "id",
                "client": "192.0.2.7:4433",
                "protocol": "h3",
                "method": "POST",
                "authority": "example.org",
                "path": "/a?b=\"c\"",
                "status": 502,
                "reason": "connect_refused",
                "rate_limit": "l",
                "route": "r",
                "upstream": "u",
                "backend": "b",
                "backend_address": "unix:/run/\"app\".sock",
                "upstream_protocol": "h1",
                "attempts": 2,
                "retried_for": "connect_timeout",
                "skipped": "breaker_open",
                "hedge": true,
                "reused": true,
                "request_bytes": 5,
                "response_bytes": 70_000_000_000u64,
                "limit": 8,
                "routed_us": 3,
                "queued_us": 5,
                "first_byte_us": u32::MAX,
                "duration_us": 100_001_000_000u64,
                "round_trip_us": 30_000,
                "packets_lost": 2,
                "user_agent": "curl\n\u{fffd}",
            })
        );
    }

    #[test]
    fn every_member_is_documented() {
        let mut out = Vec::new();
        let mut batcher = AccessBatcher::new(scope());
        assert!(batcher.record(&full(), Instant::now()).is_none());
        batcher.take().unwrap().lines(&mut out);
        let line: Value = serde_json::from_slice(&out).expect("JSON");
        let page = include_str!("../../docs/OPERATING.md");
        let section =
            page.split("### The access log").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("it is there");
        let names = line.as_object().expect("an object").keys().map(String::as_str).chain(["truncated"]);
        let missing: Vec<_> = names.filter(|name| !section.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/OPERATING.md does not say what these are: {missing:?}");
    }

    #[test]
    fn an_exchange_that_ended_early_has_null_status_and_no_names() {
        let mut batcher = AccessBatcher::new(scope());
        let entry =
            AccessEntry { client: Some("[2001:db8::1]:9".parse().unwrap()), route: Some(7), ..AccessEntry::default() };
        assert!(batcher.record(&entry, Instant::now()).is_none());
        let line = &lines(&batcher.take().unwrap())[0];
        assert_eq!(line["status"], Value::Null);
        assert_eq!(line["client"], "[2001:db8::1]:9");
        assert!(line.get("route").is_none());
        assert!(line.get("reason").is_none());
    }

    #[test]
    fn a_full_batch_leaves_at_once_and_a_partial_one_when_due() {
        let mut batcher = AccessBatcher::new(scope());
        let now = Instant::now();
        let entry = AccessEntry::default();
        for _ in 1..ACCESS_BATCH_RECORDS {
            assert!(batcher.record(&entry, now).is_none());
        }
        let batch = batcher.record(&entry, now).expect("full");
        assert_eq!(batch.len(), ACCESS_BATCH_RECORDS);
        assert_eq!(batcher.deadline(), None);

        assert!(batcher.record(&entry, now).is_none());
        let due = batcher.deadline().unwrap();
        assert!(batcher.take_due(now).is_none());
        assert_eq!(batcher.take_due(due).unwrap().len(), 1);
        assert!(batcher.take().is_none());
    }

    #[test]
    fn text_has_a_bound_per_field_and_per_batch() {
        let mut batcher = AccessBatcher::new(scope());
        let now = Instant::now();
        let long = vec![b'x'; ACCESS_TEXT_BYTES + 1];
        let entry = AccessEntry {
            method: &long,
            authority: &long,
            path: &long,
            request_id: &long,
            user_agent: &long,
            ..AccessEntry::default()
        };
        let batch = loop {
            if let Some(batch) = batcher.record(&entry, now) {
                break batch;
            }
        };
        assert!(batch.text.len() <= ACCESS_BATCH_BYTES);
        let lines = lines(&batch);
        assert_eq!(lines.len(), batch.len());
        for line in lines {
            assert_eq!(line["truncated"], true);
            assert_eq!(line["path"].as_str().unwrap().len(), ACCESS_TEXT_BYTES);
        }
    }
}
