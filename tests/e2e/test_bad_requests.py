"""Requests and frames that HTTP/3 forbids: each gets its RFC-defined answer, and the next good client is served (the `proxy`
fixture asks after every test)."""

import asyncio

import pytest
from support import h3 as wire
from support.h3 import frame, headers, settings, varint
from support.process import until

# RFC 9114 4.1.2: malformed requests are stream errors; an answer of 400 before it is allowed.
MALFORMED = (wire.MESSAGE_ERROR,)


def without(client, name):
    return [field for field in client.pseudo() if field[0] != name]


BAD_FIELDS = {
    "uppercase": [("X-Upper", "1")],
    "uppercase-inside": [("x-uPper", "1")],
    "connection": [("connection", "close")],
    "keep-alive": [("keep-alive", "timeout=5")],
    "proxy-connection": [("proxy-connection", "keep-alive")],
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "upgrade": [("upgrade", "websocket")],
    "te-gzip": [("te", "gzip")],
    "te-list": [("te", "trailers, gzip")],
    "empty-name": [("", "1")],
    "name-space": [("x a", "1")],
    "name-colon": [("x:a", "1")],
    "name-crlf": [("x\r\na", "1")],
    "name-nul": [("x\0a", "1")],
    "name-high": [(b"x\xff", "1")],
    "value-cr": [("x-a", "1\r2")],
    "value-lf": [("x-a", "1\n2")],
    "value-crlf-injection": [("x-a", "1\r\nx-injected: 1")],
    "value-nul": [("x-a", "1\x002")],
    "unknown-pseudo": [(":unknown", "1")],
    "status-pseudo": [(":status", "200")],
    "late-pseudo": [("x-a", "1"), (":method", "GET")],
    "two-lengths": [("content-length", "5"), ("content-length", "6")],
    "length-list": [("content-length", "5, 6")],
    "length-negative": [("content-length", "-1")],
    "length-plus": [("content-length", "+5")],
    "length-text": [("content-length", "five")],
    "length-empty": [("content-length", "")],
    "length-huge": [("content-length", "99999999999999999999999999")],
    "host-differs": [("host", "evil.test")],
    "two-hosts": [("host", "a.test"), ("host", "b.test")],
}


@pytest.mark.parametrize("kind", BAD_FIELDS)
async def test_field(proxy, h3, kind, origins, tag):
    async with h3(proxy, raw=True) as client:
        stream = client.send_raw(headers(*client.pseudo(), ("x-tag", tag), *BAD_FIELDS[kind]), end=True)
        await stream.refused(*MALFORMED, statuses=(400,))
        assert origins.record(tag)["requests"] == 0, "it was forwarded"
        good = await client.send_raw(headers(*client.pseudo()), end=True).finish()
        assert good.status == 200, good


BAD_PSEUDO = {
    "no-method": lambda c: without(c, ":method"),
    "no-scheme": lambda c: without(c, ":scheme"),
    "no-path": lambda c: without(c, ":path"),
    "no-authority-nor-host": lambda c: without(c, ":authority"),
    "two-methods": lambda c: [(":method", "GET"), *c.pseudo()],
    "two-paths": lambda c: [*c.pseudo(), (":path", "/other")],
    "two-schemes": lambda c: [(":scheme", "https"), *c.pseudo()],
    "two-authorities": lambda c: [*c.pseudo(), (":authority", c.authority)],
    "empty-path": lambda c: c.pseudo(path=""),
    "relative-path": lambda c: c.pseudo(path="inspect"),
    "absolute-path": lambda c: c.pseudo(path="http://evil.test/"),
    "path-space": lambda c: c.pseudo(path="/a b"),
    "path-crlf": lambda c: c.pseudo(path="/a HTTP/1.1\r\nhost: evil.test\r\n\r\nGET /b"),
    "path-nul": lambda c: c.pseudo(path="/a\0b"),
    "path-high": lambda c: c.pseudo(path="/caf\xe9"),
    "method-space": lambda c: c.pseudo(method="GET /x"),
    "method-empty": lambda c: c.pseudo(method=""),
    "method-crlf": lambda c: c.pseudo(method="GET\r\n"),
    "asterisk-get": lambda c: c.pseudo(path="*"),
    "authority-userinfo": lambda c: c.pseudo(authority="user@evil.test"),
    "authority-path": lambda c: c.pseudo(authority="evil.test/x"),
    "authority-space": lambda c: c.pseudo(authority="evil .test"),
    "authority-port": lambda c: c.pseudo(authority="evil.test:99999"),
    "authority-empty": lambda c: c.pseudo(authority=""),
    "scheme-odd": lambda c: [(k, "ht tp" if k == ":scheme" else v) for k, v in c.pseudo()],
    "connect-with-path": lambda c: c.pseudo(method="CONNECT"),
    "no-fields": lambda c: [],
}


@pytest.mark.parametrize("kind", BAD_PSEUDO)
async def test_pseudo_header(proxy, h3, kind, origins, tag):
    async with h3(proxy, raw=True) as client:
        fields = BAD_PSEUDO[kind](client)
        stream = client.send_raw(headers(*fields, ("x-tag", tag)), end=True)
        statuses = {"connect-with-path": (400, 403, 405, 501), "method-empty": (400, 501)}.get(kind, (400, 404))
        await stream.refused(*MALFORMED, statuses=statuses)
        assert origins.record(tag)["requests"] == 0, "it was forwarded"


LENGTHS = {
    "short": ("10", [b"12345"]),
    "long": ("5", [b"1234567890"]),
    "long-in-two": ("5", [b"12345", b"6"]),
    "none": ("5", []),
    "zero-but-some": ("0", [b"1"]),
}


@pytest.mark.parametrize("kind", LENGTHS)
async def test_content_length_mismatch(proxy, h3, kind, origins, tag):
    said, pieces = LENGTHS[kind]
    async with h3(proxy, raw=True) as client:
        head = headers(*client.pseudo(method="POST"), ("content-length", said), ("x-tag", tag))
        stream = client.send_raw(head, *(frame(wire.DATA, piece) for piece in pieces), end=True)
        await stream.refused(*MALFORMED, statuses=(400,))
        assert "body" not in origins.record(tag)["events"], "the backend took it for a whole body"


CLOSES = {
    # name: (frames on the request stream, codes of the connection error)
    "data-before-headers": (lambda c: frame(wire.DATA, b"x"), (wire.FRAME_UNEXPECTED,)),
    "settings-on-request": (lambda c: settings(), (wire.FRAME_UNEXPECTED,)),
    "goaway-on-request": (lambda c: frame(wire.GOAWAY, varint(0)), (wire.FRAME_UNEXPECTED,)),
    "max-push-id-on-request": (lambda c: frame(wire.MAX_PUSH_ID, varint(0)), (wire.FRAME_UNEXPECTED,)),
    "cancel-push-on-request": (lambda c: frame(wire.CANCEL_PUSH, varint(0)), (wire.FRAME_UNEXPECTED,)),
    "push-promise-from-client": (lambda c: frame(wire.PUSH_PROMISE, varint(0) + b"\0\0"), (wire.FRAME_UNEXPECTED, wire.ID_ERROR)),
    # quiche takes the frames that only HTTP/2 has for unknown ones; what is left is a request without a head.
    "http2-priority": (lambda c: frame(0x2, b"12345"), (wire.FRAME_UNEXPECTED, wire.REQUEST_INCOMPLETE)),
    "http2-ping": (lambda c: frame(0x6, b"12345678"), (wire.FRAME_UNEXPECTED, wire.REQUEST_INCOMPLETE)),
    "http2-window-update": (lambda c: frame(0x8, b"1234"), (wire.FRAME_UNEXPECTED, wire.REQUEST_INCOMPLETE)),
    "http2-continuation": (lambda c: frame(0x9, b"1"), (wire.FRAME_UNEXPECTED, wire.REQUEST_INCOMPLETE)),
    "data-after-trailers": (
        lambda c: headers(*c.pseudo(method="POST")) + frame(wire.DATA, b"x") + headers(("x-t", "1")) + frame(wire.DATA, b"y"),
        (wire.FRAME_UNEXPECTED,),
    ),
    "headers-after-trailers": (
        lambda c: headers(*c.pseudo(method="POST")) + headers(("x-t", "1")) + headers(("x-t", "2")),
        (wire.FRAME_UNEXPECTED,),
    ),
    "qpack-bad-static-index": (lambda c: frame(wire.HEADERS, b"\0\0\xff\xff\x7f"), (wire.QPACK_DECOMPRESSION_FAILED,)),
    "qpack-dynamic-reference": (lambda c: frame(wire.HEADERS, b"\2\0\x80"), (wire.QPACK_DECOMPRESSION_FAILED,)),
    "qpack-truncated": (lambda c: frame(wire.HEADERS, b"\0\0\x27\x7f"), (wire.QPACK_DECOMPRESSION_FAILED,)),
    # quiche counts the bits before it looks at them.
    "qpack-bad-huffman": (
        lambda c: frame(wire.HEADERS, b"\0\0\x51\x84\xff\xff\xff\xff"),
        (wire.QPACK_DECOMPRESSION_FAILED, wire.EXCESSIVE_LOAD),
    ),
    "empty-headers-frame": (lambda c: frame(wire.HEADERS), (wire.QPACK_DECOMPRESSION_FAILED, wire.FRAME_ERROR)),
}  # fmt: skip


@pytest.mark.parametrize("kind", CLOSES)
async def test_forbidden_frame(proxy, h3, kind):
    make, codes = CLOSES[kind]
    async with h3(proxy, raw=True) as client:
        stream = client.send_raw(make(client), end=True)
        await client.until(lambda: client.terminated or stream.reset is not None)
        # The RFC asks for a connection error; an endpoint may treat it as one of the stream (RFC 9114 section 8).
        code = client.terminated[0] if client.terminated else stream.reset
        assert code in (*codes, wire.MESSAGE_ERROR), stream


CONTROL = {
    "two-settings": (settings() + settings(), (wire.FRAME_UNEXPECTED,)),
    "no-settings-first": (frame(wire.GOAWAY, varint(0)), (wire.MISSING_SETTINGS, wire.FRAME_UNEXPECTED)),
    "data-on-control": (settings() + frame(wire.DATA, b"x"), (wire.FRAME_UNEXPECTED,)),
    "headers-on-control": (settings() + frame(wire.HEADERS, b"\0\0"), (wire.FRAME_UNEXPECTED,)),
    "push-promise-on-control": (settings() + frame(wire.PUSH_PROMISE, varint(0) + b"\0\0"), (wire.FRAME_UNEXPECTED,)),
    "http2-setting": (settings((0x4, 65_535)), (wire.SETTINGS_ERROR,)),
    "http2-enable-push": (settings((0x2, 1)), (wire.SETTINGS_ERROR,)),
    "goaway-empty": (settings() + frame(wire.GOAWAY), (wire.FRAME_ERROR,)),
    # 0x999 is quiche's own "buffer too short".
    "settings-truncated": (frame(wire.SETTINGS, b"\x06"), (wire.FRAME_ERROR, wire.SETTINGS_ERROR, 0x999)),
    "max-push-id-shrinks": (
        settings() + frame(wire.MAX_PUSH_ID, varint(8)) + frame(wire.MAX_PUSH_ID, varint(4)),
        (wire.ID_ERROR,),
    ),
}


@pytest.mark.parametrize("kind", CONTROL)
async def test_control_stream(proxy, h3, kind):
    data, codes = CONTROL[kind]
    async with h3(proxy, raw=True, control=False) as client:
        client.open_uni(varint(wire.CONTROL_STREAM) + data)
        assert await client.closed() in codes, client.terminated


async def test_http2_frame_on_the_control_stream(proxy, h3):
    """RFC 9114 7.2.8 asks for a connection error; quiche ignores it as an unknown frame, which harms nobody."""
    async with h3(proxy, raw=True, control=False) as client:
        client.open_uni(varint(wire.CONTROL_STREAM) + settings() + frame(0x6, b"12345678"))
        stream = await client.send_raw(headers(*client.pseudo()), end=True).finish()
        assert stream.status == 200 or client.terminated[0] == wire.FRAME_UNEXPECTED, stream


async def test_two_control_streams(proxy, h3):
    async with h3(proxy, raw=True) as client:
        client.open_uni(varint(wire.CONTROL_STREAM) + settings())
        assert await client.closed() == wire.STREAM_CREATION_ERROR


async def test_closed_control_stream(proxy, h3):
    async with h3(proxy, raw=True) as client:
        client.quic.send_stream_data(client.control, b"", True)
        client.transmit()
        assert await client.closed() == wire.CLOSED_CRITICAL_STREAM


async def test_reset_control_stream(proxy, h3):
    async with h3(proxy, raw=True) as client:
        await client.send_raw(headers(*client.pseudo()), end=True).finish()
        client.quic.reset_stream(client.control, 0)
        client.transmit()
        assert await client.closed() == wire.CLOSED_CRITICAL_STREAM


async def test_push_stream_from_a_client(proxy, h3):
    async with h3(proxy, raw=True) as client:
        client.open_uni(varint(wire.PUSH_STREAM) + varint(0))
        assert await client.closed() == wire.STREAM_CREATION_ERROR


async def test_unknown_streams_frames_and_settings_are_ignored(proxy, h3):
    """Extension points (RFC 9114 section 9): what is unknown must not end anything."""
    async with h3(proxy, raw=True, control=False) as client:
        client.open_uni(varint(wire.CONTROL_STREAM) + settings((0x21, 1), (0x40 + 0x1F * 7, 9)) + frame(0x21, b"grease"))
        client.open_uni(varint(0x21 + 0x1F * 5) + b"whatever")
        stream = client.send_raw(frame(0x21, b"before"), headers(*client.pseudo()), frame(0x1F * 9 + 0x21, b"after"), end=True)
        await stream.finish()
        assert (stream.status, client.terminated) == (200, None), stream


async def test_request_without_its_end_is_reset_or_times_out(start, h3, origins, tag):
    proxy = start(performance={"client_body_idle_timeout": "1s", "backend_timeout": "20s"})
    async with h3(proxy, raw=True) as client:
        stream = client.send_raw(headers(*client.pseudo(method="POST"), ("content-length", "10"), ("x-tag", tag)), frame(wire.DATA, b"12345"))
        await stream.finish()
        assert stream.status == 408 or stream.reset is not None, stream


@pytest.mark.parametrize("cut", [1, 2, 5, 20])
async def test_head_cut_by_the_end_of_the_stream(proxy, h3, cut):
    async with h3(proxy, raw=True) as client:
        whole = headers(*client.pseudo())
        stream = client.send_raw(whole[:-cut], end=True)
        await client.until(lambda: client.terminated or stream.reset is not None or stream.stopped is not None or stream.ended)
        code = client.terminated[0] if client.terminated else stream.reset or stream.stopped
        assert stream.decoded().status == 400 or code in (wire.FRAME_ERROR, wire.REQUEST_INCOMPLETE, wire.MESSAGE_ERROR), stream


async def test_head_a_byte_at_a_time(proxy, h3):
    async with h3(proxy, raw=True) as client:
        whole = headers(*client.pseudo(), ("x-long", "v" * 50))
        stream = client.send_raw(whole[:1])
        for index in range(1, len(whole)):
            client.quic.send_stream_data(stream.number, whole[index : index + 1], index == len(whole) - 1)
            client.transmit()
        assert (await stream.finish()).status == 200, stream


@pytest.mark.parametrize(("count", "size"), [(200, 10), (20, 1500), (1, 20_000)])
async def test_header_bomb_within_twice_the_limit(proxy, h3, count, size, origins, tag):
    """Over 128 fields or 16 KiB, under twice that: our own 431, and the connection lives."""
    async with h3(proxy, raw=True) as client:
        fields = [(f"x-bomb-{index}", "b" * size) for index in range(count)]
        stream = client.send_raw(headers(*client.pseudo(), ("x-tag", tag), *fields), end=True)
        await stream.finish()
        assert (stream.status, client.terminated) == (431, None), stream
        assert origins.record(tag)["requests"] == 0


@pytest.mark.parametrize("size", [100_000, 1_000_000, 10_000_000])
async def test_header_bomb_beyond_it(proxy, h3, size):
    """Beyond that the library's answer stands: a connection error, or a refusal of the stream. Memory must not follow."""
    before = proxy.child.resident()
    async with h3(proxy, raw=True) as client:
        stream = client.send_raw(headers(*client.pseudo(), ("x-bomb", "b" * size)), end=True)
        await client.until(lambda: client.terminated or stream.reset is not None or stream.stopped is not None or stream.ended)
        assert stream.decoded().status in (0, 431), stream
    assert proxy.child.resident() - before < 8 << 20


async def test_header_bomb_that_says_a_frame_of_gigabytes(proxy, h3):
    async with h3(proxy, raw=True) as client:
        stream = client.send_raw(varint(wire.HEADERS) + varint(1 << 40) + b"x" * 10_000)
        await client.until(lambda: client.terminated or stream.reset is not None or stream.stopped is not None or stream.ended)


async def test_long_target(proxy, h3):
    async with h3(proxy, raw=True) as client:
        stream = await client.send_raw(headers(*client.pseudo(path="/" + "a" * 12_000)), end=True).finish()
        assert stream.status in (200, 414, 431), stream
        stream = await client.send_raw(headers(*client.pseudo(path="/" + "a" * 20_000)), end=True).finish()
        assert stream.status in (414, 431), stream


async def test_crowd_of_resets(proxy, h3):
    """Rapid reset: thousands of streams opened and cancelled at once cost the backend little and others nothing."""
    async with h3(proxy) as client:
        for opened in range(0, 1500, 50):
            await client.until(lambda opened=opened: client.terminated or client.streams_allowed() >= opened + 50)
            if client.terminated:
                assert client.terminated[0] == wire.EXCESSIVE_LOAD
                return
            for stream in [client.open("GET", "/hang") for _ in range(50)]:
                stream.abort()
        assert (await client.get("/bytes/100")).status == 200


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("field_name", [("X-Upper", "1")]),
        ("connection_field", [("connection", "close")]),
        ("content_length", [("content-length", "five")]),
        ("too_many_fields", [(f"x-{index}", "1") for index in range(200)]),
        ("head_too_large", [("x-long", "v" * 20_000)]),
    ],
)
async def test_refusals_are_counted_by_reason(proxy, h3, reason, fields):
    pattern = rf'^spooky_refusals_total.*reason="{reason}"'
    before = proxy.total(pattern)
    async with h3(proxy, raw=True) as client:
        await client.send_raw(headers(*client.pseudo(), *fields), end=True).finish()
    await asyncio.to_thread(until, lambda: proxy.total(pattern) == before + 1, 5)
