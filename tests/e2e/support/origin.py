"""A programmable origin on bare asyncio streams: it does what a request's `x-do` field (or first path segment)
asks, well-formed or not, and keeps a record of what it received and when, which tests ask for over the same port.

Run as `python -m support.origin [--unix PATH] [--tls CERT KEY] NAME[:MANNER]...`; prints one JSON line {name: port} once all
of them listen. A manner is `http` (HTTP/1.1, what is left out), `https` (the same above TLS), `h2` (HTTP/2 above TLS), `h2c`
(HTTP/2 without). HTTP/1.1 stands here, HTTP/2 in `support.origin_h2`; the behaviours are the same.

A behaviour is `word` or `word?key=value&...`: `x-do: bytes?n=13000`. Records are kept by the request's `x-tag` field and
read with `GET /_record?tag=T[&until=EVENT]`, which waits until EVENT has been noted (or 20 s).
"""

import asyncio
import hashlib
import json
import socket
import ssl
import struct
import sys
import time
from urllib.parse import parse_qsl, urlsplit

from . import content

HEAD_MAX = 256 * 1024
# The tag under which all requests are counted.
EVERY = "every"
RECORDS = {}


class Record:
    """What one tagged request looked like from here."""

    def __init__(self, tag):
        self.tag = tag
        self.facts = {"requests": 0, "events": {}}
        self.changed = asyncio.Event()

    def note(self, event, **facts):
        """Notes that `event` happened now (CLOCK_MONOTONIC is the same clock in every process)."""
        self.facts["events"].setdefault(event, time.monotonic())
        self.facts.update(facts)
        self.changed.set()

    async def wait(self, event, seconds):
        deadline = time.monotonic() + seconds
        while event not in self.facts["events"] and time.monotonic() < deadline:
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                break


def record(tag):
    return RECORDS.setdefault(tag, Record(tag))


class Gone(Exception):
    """The proxy closed or reset the connection."""


class Request:
    """One parsed request; `lines` keeps the fields exactly as they came."""

    def __init__(self, raw):
        lines = raw.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.method, self.target, self.version = lines[0].split(" ", 2)
        self.lines = [line for line in lines[1:] if line]
        self.fields = [(k.strip().lower(), v.strip()) for k, v in (line.split(":", 1) for line in self.lines)]

    def get(self, name, default=""):
        return next((v for k, v in self.fields if k == name), default)

    def asked(self):
        """The behaviour: (word, arguments)."""
        asked = self.get("x-do") or self.target.lstrip("/")
        parts = urlsplit("//host/" + asked)
        segments = [s for s in parts.path.split("/") if s]
        arguments = dict(parse_qsl(parts.query, keep_blank_values=True))
        if len(segments) > 1:
            arguments.setdefault("n", segments[1])
        return (segments[0] if segments else "inspect"), arguments


class Exchange:
    """One request being answered: reading its body and writing an answer, whatever the behaviour makes of both."""

    def __init__(self, name, connection, reader, writer, request):
        self.name, self.connection = name, connection
        self.reader, self.writer, self.request = reader, writer, request
        self.record = record(request.get("x-tag") or "-")
        self.word, self.arguments = request.asked()
        self.body_read = False
        self.keep = True
        self.chunked = False
        self.trailers = []

    def number(self, key, default):
        return int(self.arguments.get(key, default))

    # Reading the request body, piece by piece.
    async def body(self):
        if self.body_read:
            return
        self.body_read = True
        if "chunked" in self.request.get("transfer-encoding").lower():
            while True:
                size = int((await self.line()).split(b";")[0], 16)
                if size == 0:
                    break
                left = size
                while left:
                    part = await self.some(min(left, 1 << 18))
                    left -= len(part)
                    yield part
                if await self.line():
                    raise Gone("no CRLF after a chunk")
            while trailer := await self.line():
                self.trailers.append(trailer.decode("latin-1"))
        else:
            left = int(self.request.get("content-length", "0") or 0)
            while left:
                part = await self.some(min(left, 1 << 18))
                left -= len(part)
                yield part

    async def line(self):
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise Gone("closed inside a line")
        return line.rstrip(b"\r\n")

    async def some(self, most):
        part = await self.reader.read(most)
        if not part:
            raise Gone("closed inside the body")
        return part

    async def discard(self):
        async for _ in self.body():
            pass

    # Writing.
    async def write(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status=200, *fields, reason="OK"):
        lines = [f"HTTP/1.1 {status} {reason}", f"x-origin: {self.name}", f"x-connection: {self.connection}", *fields]
        self.chunked = "transfer-encoding: chunked" in fields
        await self.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def informational(self, status, *fields):
        await self.write("\r\n".join([f"HTTP/1.1 {status} Informational", *fields, "", ""]).encode("latin-1"))

    async def last(self, *trailers):
        """The end of a body without a length."""
        if self.chunked:
            await self.write(b"0\r\n" + "".join(line + "\r\n" for line in trailers).encode("latin-1") + b"\r\n")

    async def chunk(self, data):
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def whole(self, body, *fields, status=200, reason="OK"):
        await self.head(status, f"content-length: {len(body)}", *fields, reason=reason)
        if self.request.method != "HEAD":
            await self.write(body)

    async def no_more(self):
        """Says that nothing follows, and waits for the other side to end."""
        # A close with unread bytes would be an RST that may overtake the answer: half-close and linger, as nginx does.
        if self.writer.can_write_eof():
            self.writer.write_eof()
            await self.gone()
        # Above TLS there is no half: what comes is read, until it ends.
        try:
            async with asyncio.timeout(5):
                await self.gone()
        except TimeoutError:
            raise Gone from None

    def pause(self):
        """Reads nothing from now on."""
        self.writer.transport.pause_reading()

    async def gone(self):
        """Waits until the other side closes, and notes it."""
        try:
            while await self.reader.read(1 << 16):
                pass
        except OSError:
            pass
        self.record.note("aborted")
        raise Gone

    def reset(self):
        """An RST instead of a FIN."""
        raw = self.writer.get_extra_info("socket")
        if raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise Gone

    async def run(self):
        self.record.facts["requests"] += 1
        if self.word != "_record":
            record(EVERY).facts["requests"] += 1
        self.record.note("head", line=self.request.line, lines=self.request.lines, connection=self.connection, origin=self.name)
        behaviour = BEHAVIOURS.get(self.word, inspect)
        try:
            await behaviour(self)
            await self.discard()
        except (Gone, OSError) as error:
            self.record.note("aborted", error=str(error))
            raise Gone from error
        self.record.note("answered")


# Well-formed behaviours.


async def inspect(x):
    """Answers with what arrived: request line, field lines, body length and hash, trailers."""
    digest, length = hashlib.sha256(), 0
    async for part in x.body():
        digest.update(part)
        length += len(part)
    facts = {
        "line": x.request.line, "method": x.request.method, "target": x.request.target, "fields": x.request.fields,
        "length": length, "sha256": digest.hexdigest(), "trailers": x.trailers, "origin": x.name,
    }  # fmt: skip
    x.record.note("body", length=length, sha256=digest.hexdigest(), trailers=x.trailers)
    await x.whole(json.dumps(facts).encode(), "content-type: application/json")


async def bytes_(x):
    """n bytes with content-length, or `framing=chunked`, or `framing=close`; `type` is the content type."""
    n, framing = x.number("n", 1), x.arguments.get("framing", "length")
    kind = "content-type: " + x.arguments.get("type", "application/octet-stream")
    if framing == "length":
        await x.head(200, f"content-length: {n}", kind)
    elif framing == "chunked":
        await x.head(200, "transfer-encoding: chunked", kind)
    else:
        x.keep = False
        await x.head(200, "connection: close", kind)
    if x.request.method == "HEAD":
        return
    sent = 0
    for part in content.pieces(n):
        await (x.chunk(part) if framing == "chunked" else x.write(part))
        sent += len(part)
        x.record.facts["sent"] = sent
    await x.last()


async def dribble(x):
    """n chunks of `size` bytes, `gap` milliseconds apart; the first at once."""
    await x.head(200, "transfer-encoding: chunked", "content-type: text/plain")
    for index in range(x.number("n", 15)):
        if index:
            await asyncio.sleep(x.number("gap", 100) / 1000)
        await x.chunk(f"{index:04d}".encode().ljust(x.number("size", 16), b"."))
        x.record.note("first-byte")
    await x.last()


async def events(x):
    """n server-sent events, `gap` milliseconds apart, then the stream ends."""
    await x.head(200, "transfer-encoding: chunked", "content-type: text/event-stream", "cache-control: no-cache")
    for index in range(x.number("n", 5)):
        await x.chunk(f"id: {index}\ndata: event {index}\n\n".encode())
        await asyncio.sleep(x.number("gap", 50) / 1000)
    await x.last()


async def trailers(x):
    """Echoes the request body chunked and ends with trailers: a hash, and those the request carried under x-echo-."""
    digest = hashlib.sha256()
    await x.head(200, "transfer-encoding: chunked", "trailer: x-body-sha256")
    async for part in x.body():
        digest.update(part)
        await x.chunk(part)
    x.record.note("body", trailers=x.trailers)
    lines = [f"x-body-sha256: {digest.hexdigest()}"] + [f"x-echo-{line}" for line in x.trailers]
    await x.last(*lines)


async def echo(x):
    """Streams the request body back as it arrives."""
    length = x.request.get("content-length")
    await x.head(200, f"content-length: {length}" if length else "transfer-encoding: chunked")
    async for part in x.body():
        await (x.write(part) if length else x.chunk(part))
    await x.last()


async def status(x):
    """Status n; 204 and 304 without a body."""
    n = x.number("n", 200)
    await x.discard()
    if n in (204, 304):
        await x.head(n, 'etag: "x"')
    else:
        await x.whole(f"status {n}\n".encode(), status=n)


async def hints(x):
    """103 with a Link field, then 200."""
    await x.informational(103, "link: </style.css>; rel=preload; as=style")
    await asyncio.sleep(x.number("gap", 50) / 1000)
    await x.whole(b"after hints")


async def expect(x):
    """100 Continue when asked for, then reads the body and answers."""
    if x.request.get("expect").lower() == "100-continue":
        x.record.note("expect")
        await x.informational(100)
    await inspect(x)


async def fields(x):
    """Fields that a proxy must not pass on, beside some that it must."""
    await x.discard()
    await x.whole(b"fields", "connection: x-hop, keep-alive", "x-hop: secret", "keep-alive: timeout=5", "proxy-connection: close",
                  "upgrade: h2c", 'alt-svc: h3=":1"', "x-kept: yes", "set-cookie: a=1", "set-cookie: b=2", "server: origin")  # fmt: skip


async def closing(x):
    """Answers, says keep-alive by silence, and closes: the next use of the pooled connection finds it stale."""
    await x.discard()
    await x.whole(b"closing")
    x.keep = False


async def early(x):
    """Answers 413 with n bytes after `after` bytes of the upload, then `then=close`, `read` (drains) or `stall`."""
    seen, after = 0, x.number("after", 0)
    upload = x.body()
    while seen < after:
        seen += len(await anext(upload))
    answer = content.body(x.number("n", 5000))
    x.keep = False
    await x.head(413, f"content-length: {len(answer)}", "connection: close", reason="Content Too Large")
    await x.write(answer)
    await x.last()
    x.record.note("refused", seen=seen)
    match x.arguments.get("then", "close"):
        case "close":
            await x.no_more()
        case "read":
            async for part in upload:
                x.record.facts["seen"] = x.record.facts.get("seen", 0) + len(part)
        case "stall":
            await asyncio.sleep(20)
            raise Gone


# Slow and silent behaviours.


async def hang(x):
    """Reads the request and never answers."""
    await x.discard()
    await x.gone()


async def deaf(x):
    """Never reads the body; how much the proxy could push is in the kernel's buffers, not here."""
    x.pause()
    await asyncio.sleep(x.number("seconds", 60))
    raise Gone


async def slow(x):
    """A head, then nothing for ever (a body-idle timeout's case); notes when the other side gives up."""
    await x.head(200, f"content-length: {x.number('n', 1000)}")
    await x.write(b"x" * x.number("sent", 10))
    await x.gone()


# Lies and nonsense.


async def short(x):
    """Says 1000 bytes and sends 500, then closes."""
    await x.discard()
    await x.head(200, "content-length: 1000")
    await x.write(b"s" * 500)
    x.keep = False


async def long(x):
    """Says 10 bytes and sends 30."""
    await x.discard()
    await x.head(200, "content-length: 10")
    await x.write(b"0123456789" + b"too much by twenty..")


async def cut(x):
    """A chunked body that ends without its last chunk."""
    await x.discard()
    await x.head(200, "transfer-encoding: chunked")
    await x.chunk(b"c" * 500)
    x.keep = False


async def reset(x):
    """An RST: `at=head` before any byte, `at=body` after n bytes of a longer body."""
    await x.discard()
    if x.arguments.get("at", "body") == "body":
        await x.head(200, "content-length: 1000000")
        await x.write(content.body(x.number("n", 1000)))
        await asyncio.sleep(0.2)  # an RST throws away what the other side has not read yet
    x.reset()


async def close(x):
    """A FIN instead of an answer."""
    await x.discard()
    x.keep = False


async def unsolicited(x):
    """A good answer, and a little later another that nobody asked for."""
    await x.discard()
    await x.whole(b"solicited")
    await asyncio.sleep(0.1)
    await x.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
    x.record.note("forged")


NONSENSE = {
    "two-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "length-list": b"HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello!",
    "length-and-chunked": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "length-negative": b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
    "length-plus": b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
    "length-huge": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nhello",
    "gzip-and-chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "unknown-coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: rot13\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked-twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked-1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nx-a: one\r\n two\r\ncontent-length: 0\r\n\r\n",
    "bare-cr": b"HTTP/1.1 200 OK\r\nx-a: one\rx-b: two\r\ncontent-length: 0\r\n\r\n",
    "bare-lf": b"HTTP/1.1 200 OK\nx-a: one\ncontent-length: 0\n\n",
    "nul": b"HTTP/1.1 200 OK\r\nx-a: o\0ne\r\ncontent-length: 0\r\n\r\n",
    "space-before-colon": b"HTTP/1.1 200 OK\r\nx-a : one\r\ncontent-length: 0\r\n\r\n",
    "no-name": b"HTTP/1.1 200 OK\r\n: one\r\ncontent-length: 0\r\n\r\n",
    "status-text": b"HTTP/1.1 OK 200\r\ncontent-length: 0\r\n\r\n",
    "status-99": b"HTTP/1.1 99 Low\r\ncontent-length: 0\r\n\r\n",
    "version-9": b"HTTP/9.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "garbage": bytes(range(256)) * 4,
    "tls": bytes.fromhex("15030100020246"),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "head-bomb": b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %s\r\n" % (i, b"b" * 1000) for i in range(200)) + b"\r\n",
    "head-endless": b"HTTP/1.1 200 OK\r\nx-a: " + b"e" * 300_000,
    "unasked-101": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
}
NONSENSE_CHUNKS = {
    "chunk-size-text": b"zz\r\nhello\r\n0\r\n\r\n",
    "chunk-size-overflow": b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "chunk-size-negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "chunk-no-crlf": b"5\r\nhelloX0\r\n\r\n",
    "chunk-bare-lf": b"5\nhello\n0\n\n",
    "chunk-extension-bomb": b"5;" + b"e" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
    "trailer-bomb": b"0\r\nx-a: " + b"t" * 100_000 + b"\r\n\r\n",
}


async def nonsense(x):
    """Answers with one of the malformed heads, or a good head and one of the malformed chunked bodies, then closes."""
    await x.discard()
    kind = x.arguments["n"]
    if kind in NONSENSE:
        await x.write(NONSENSE[kind])
    else:
        await x.head(200, "transfer-encoding: chunked")
        await x.chunk(b"good start")
        await x.write(NONSENSE_CHUNKS[kind])
    x.record.note("sent")
    await x.no_more()


PAGE = """<!doctype html><meta charset=utf-8><title>page</title><script>
const protocol = entry => entry.nextHopProtocol;
const hex = buffer => [...new Uint8Array(buffer)].map(b => b.toString(16).padStart(2, "0")).join("");
const hash = async response => hex(await crypto.subtle.digest("SHA-256", await response.arrayBuffer()));
(async () => {
  const report = { hashes: {}, events: [], errors: [] };
  try {
    for (const n of [1, 13000, 14000, 1048576, 104857600]) report.hashes[n] = await hash(await fetch("/bytes/" + n));
    const many = await Promise.all([...Array(100).keys()].map(i => fetch("/bytes/" + (1000 + i)).then(hash)));
    report.parallel = many;
    const upload = new Uint8Array(1048576).map((_, i) => i % 251);
    const posted = await (await fetch("/inspect", { method: "POST", body: upload })).json();
    report.posted = { length: posted.length, sha256: posted.sha256, expected: hex(await crypto.subtle.digest("SHA-256", upload)) };
    await new Promise((resolve, reject) => {
      const source = new EventSource("/events/3");
      source.onmessage = e => { report.events.push(e.data); if (report.events.length == 3) { source.close(); resolve(); } };
      source.onerror = () => reject(new Error("EventSource"));
    });
  } catch (error) { report.errors.push(String(error)); }
  report.protocols = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].map(protocol);
  await fetch("/report", { method: "POST", body: JSON.stringify(report) });
})();
</script>"""


# `?sizes=1,2&pause=3000&tag=x`: fetches bodies of these sizes, again after a pause, and reports under that tag.
VISIT = """<!doctype html><meta charset=utf-8><title>visit</title><script>
const hex = buffer => [...new Uint8Array(buffer)].map(b => b.toString(16).padStart(2, "0")).join("");
const hash = async response => hex(await crypto.subtle.digest("SHA-256", await response.arrayBuffer()));
(async () => {
  const asked = new URLSearchParams(location.search);
  const report = { hashes: {}, again: {}, errors: [] };
  const fetchAll = async hashes => {
    for (const n of asked.get("sizes").split(",")) hashes[n] = await hash(await fetch("/bytes/" + n));
  };
  try {
    await fetchAll(report.hashes);
    if (asked.get("pause")) {
      await new Promise(resolve => setTimeout(resolve, Number(asked.get("pause"))));
      await fetchAll(report.again);
    }
  } catch (error) { report.errors.push(String(error)); }
  report.protocols = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map(entry => entry.nextHopProtocol);
  await fetch("/report?tag=" + asked.get("tag"), { method: "POST", body: JSON.stringify(report) });
})();
</script>"""


async def visit(x):
    """A smaller page, whose address says what it does."""
    await x.discard()
    await x.whole(VISIT.encode(), "content-type: text/html; charset=utf-8")


async def page(x):
    """A page that fetches from its own origin and posts what it saw to /report."""
    await x.discard()
    await x.whole(PAGE.encode(), "content-type: text/html; charset=utf-8")


async def report(x):
    """Keeps what a page posts under its tag."""
    posted = b""
    async for part in x.body():
        posted += part
    record(x.arguments.get("tag", "page")).note("report", report=json.loads(posted))
    await x.head(204)


async def answer_record(x):
    """The control endpoint."""
    asked = record(x.arguments.get("tag", "-"))
    if until := x.arguments.get("until"):
        await asked.wait(until, float(x.arguments.get("seconds", 20)))
    await x.whole(json.dumps(asked.facts).encode())


BEHAVIOURS = {
    "inspect": inspect, "bytes": bytes_, "dribble": dribble, "events": events, "trailers": trailers, "echo": echo, "status": status,
    "hints": hints, "expect": expect, "fields": fields, "closing": closing, "early": early, "hang": hang, "deaf": deaf, "slow": slow,
    "short": short, "long": long, "cut": cut, "reset": reset, "close": close, "unsolicited": unsolicited, "nonsense": nonsense,
    "page": page, "visit": visit, "report": report, "_record": answer_record,
}  # fmt: skip


class Origin:
    """One named listener; numbers its connections so that reuse can be seen."""

    def __init__(self, name):
        self.name = name
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        connection = f"{self.name}-{self.connections}"
        if raw := writer.get_extra_info("socket"):
            if raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                exchange = Exchange(self.name, connection, reader, writer, Request(head))
                await exchange.run()
                if not exchange.keep or exchange.request.get("connection").lower() == "close":
                    break
        except (Gone, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()


def secured(cert, key, protocol):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols([protocol])
    return context


async def main(arguments):
    # It needs what stands here.
    from . import origin_h2

    ports, servers, files = {}, [], None
    if arguments[:1] == ["--unix"]:
        servers.append(await asyncio.start_unix_server(Origin("unix").serve, arguments[1], limit=HEAD_MAX))
        arguments = arguments[2:]
    if arguments[:1] == ["--tls"]:
        files, arguments = arguments[1:3], arguments[3:]
    for name, _, manner in (argument.partition(":") for argument in arguments):
        speaker = (origin_h2.Origin if manner in ("h2", "h2c") else Origin)(name)
        context = {"https": "http/1.1", "h2": "h2"}.get(manner)
        context = context and secured(*files, context)
        server = await asyncio.start_server(speaker.serve, "127.0.0.1", 0, limit=HEAD_MAX, backlog=1024, ssl=context)
        ports[name] = server.sockets[0].getsockname()[1]
        servers.append(server)
    print(json.dumps(ports), flush=True)
    # Ends with the process that started it: its end of standard input closes.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    # As the module that `origin_h2` sees, not as a second one of the same text.
    from support import origin

    asyncio.run(origin.main(sys.argv[1:]))
