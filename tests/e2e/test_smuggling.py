"""What one client sends as one request never reaches a backend as two, whatever the two speak: lengths that lie, fields of
HTTP/1.1 in HTTP/2 and HTTP/3, lines hidden in names, values, targets and authorities. And what backends answer over HTTP/2 is
judged as strictly.
"""

import itertools

import pytest
from support import h3 as wire
from support import origin_h2
from support.h1 import Client as H1
from support.h1 import trusting
from support.pairs import BACKENDS, every_backend, every_client, of_pairs
from support.streams import connect
from test_http1 import SMUGGLING

modern_pairs = of_pairs(itertools.product(["h2", "h3"], BACKENDS))
INJECTED = "GET /{up}/second HTTP/1.1\r\nhost: localhost\r\nx-tag: {tag}-second\r\n\r\n"
LINES = "1\r\nhost: evil.test\r\n\r\n" + INJECTED


def kind(fields=(), body=(), trailers=(), **pseudo):
    """Fields behind the pseudo ones, pieces of the body, trailers, and pseudo fields that differ."""
    return {"fields": list(fields), "body": list(body), "trailers": list(trailers), "pseudo": pseudo}


# name: what is sent; all of it malformed (RFC 9113 sections 8.1.1 to 8.3, RFC 9114 sections 4.1.2 to 4.3).
MALFORMED = {
    "length-shorter-than-body": kind([("content-length", "5")], ["hello" + INJECTED]),
    "length-longer-than-body": kind([("content-length", "1000")], ["hello"]),
    "two-lengths": kind([("content-length", "5"), ("content-length", "0")], ["hello"]),
    "two-equal-lengths": kind([("content-length", "5"), ("content-length", "5")], ["hello"]),
    "length-list": kind([("content-length", "5, 5")], ["hello"]),
    "length-plus": kind([("content-length", "+5")], ["hello"]),
    "length-lines": kind([("content-length", "5\r\nx: 1")], ["hello"]),
    "chunked": kind([("transfer-encoding", "chunked")], ["0\r\n\r\n" + INJECTED]),
    "chunked-and-length": kind([("content-length", "5"), ("transfer-encoding", "chunked")], ["0\r\n\r\n"]),
    "chunked-capitals": kind([("Transfer-Encoding", "chunked")], ["0\r\n\r\n" + INJECTED]),
    "chunked-in-value": kind([("x-a", "1\r\ntransfer-encoding: chunked")], ["0\r\n\r\n" + INJECTED]),
    "connection": kind([("connection", "content-length")], ["hello"]),
    "upgrade": kind([("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")]),
    "value-lines": kind([("x-a", LINES)]),
    "value-cr": kind([("x-a", "1\rx-b: 2")]),
    "value-lf": kind([("x-a", "1\nx-b: 2")]),
    "value-nul": kind([("x-a", "1\0x-b: 2")]),
    "name-lines": kind([("x-a: " + LINES, "1")]),
    "name-lf": kind([("x-a\nx-b", "1")]),
    "name-nul": kind([("x-a\0", "1")]),
    "name-colon": kind([("x-a: 1", "1")]),
    "name-space": kind([("content-length ", "5")], ["hello"]),
    "cookie-lines": kind([("cookie", "a=1"), ("cookie", "b=2\r\nx-b: 2")]),
    "host-lines": kind([("host", "localhost\r\nx-b: 2")]),
    "host-differs": kind([("host", "evil.test")]),
    "two-hosts": kind([("host", "{authority}"), ("host", "evil.test")]),
    "path-lines": kind(path="/{up}/x HTTP/1.1\r\nhost: localhost\r\n\r\n" + INJECTED),
    "path-lf": kind(path="/{up}/x HTTP/1.1\nx-b: 2"),
    "path-space": kind(path="/{up}/x HTTP/1.1"),
    "path-nul": kind(path="/{up}/x\0y"),
    "path-absolute": kind(path="http://evil.test/{up}/x"),
    "method-lines": kind(method="GET /{up}/second HTTP/1.1\r\nhost: localhost\r\nx-tag: {tag}-second\r\n\r\nGET"),
    "method-space": kind(method="GET /{up}/second"),
    "authority-lines": kind(authority="localhost\r\nx-b: 2"),
    "authority-path": kind(authority="localhost/evil"),
    "authority-userinfo": kind(authority="localhost@evil.test"),
    "scheme-lines": kind(scheme="https\r\nx-b: 2"),
    "scheme-url": kind(scheme="http://evil.test/?"),
    "trailer-lines": kind([], ["hello"], [("x-a", LINES)]),
    "trailer-chunked": kind([], ["hello"], [("transfer-encoding", "chunked")]),
}
# Bytes that no field may hold are an error of compression to the h2 crate: it closes the connection with PROTOCOL_ERROR.
UNREADABLE = {"length-lines", "chunked-capitals", "chunked-in-value", "value-lines", "value-cr", "value-lf", "value-nul"}
UNREADABLE |= {"name-lines", "name-lf", "name-nul", "name-colon", "name-space", "cookie-lines", "host-lines"}
UNREADABLE |= {"method-lines", "method-space", "trailer-lines"}
# The body or the trailers show it, when the head may have gone on already.
LATE = ("length-shorter", "length-longer", "trailer-")


async def send(client, down, up, tag, sent):
    def written(text):
        return text.replace("{up}", up).replace("{tag}", tag).replace("{authority}", client.authority)

    pseudo = {"method": "POST", "path": f"/{up}/x", **{name: written(value) for name, value in sent["pseudo"].items()}}
    fields = [(written(name), written(value)) for name, value in sent["fields"]]
    fields = [*client.pseudo(**pseudo), ("x-tag", tag), ("x-do", "inspect"), *fields]
    body, trailers = [written(piece).encode() for piece in sent["body"]], [(written(k), written(v)) for k, v in sent["trailers"]]
    if down == "h3":
        parts = [wire.headers(*fields), *(wire.frame(wire.DATA, piece) for piece in body)]
        parts += [wire.headers(*trailers)] if trailers else []
        return await client.send_raw(*parts, end=True).finish()
    stream = client.send_fields(fields, end=not body)
    for piece in body:
        # Past the library, which counts.
        client.raw_data(stream, piece, end=piece is body[-1] and not trailers)
    if trailers:
        client.machine.send_headers(stream.number, trailers, end_stream=True)
        client.transmit()
    return await stream.finish()


@pytest.mark.parametrize("what", MALFORMED)
@modern_pairs
async def test_malformed_request_is_refused_alone(pairs, down, up, what, tag):
    before = pairs.origins.requests()
    async with connect(down, pairs.proxy, raw=True) as client:
        stream = await send(client, down, up, tag, MALFORMED[what])
        assert stream.status in (0, 400), stream
        if down == "h2" and what in UNREADABLE:
            assert client.terminated == 1, stream
        else:
            assert stream.status == 400 or (wire.MESSAGE_ERROR if down == "h3" else 1) in (stream.reset, stream.stopped), stream
            assert client.terminated is None, stream
    async with connect(down, pairs.proxy, raw=True) as client:
        good = await send(client, down, up, tag + "-good", kind(body=["hello"]))
        assert good.status == 200 and b'"length": 5' in good.body, good
    record = pairs.origins.record(tag)
    assert "body" not in record["events"] and record["requests"] <= what.startswith(LATE), record
    assert pairs.origins.record(tag + "-second")["requests"] == 0
    # The good one, and the lying one if its head had gone on: no third.
    assert pairs.origins.requests() - before == 1 + record["requests"]


# Legal in HTTP/2 and HTTP/3, and framing in HTTP/1.1: passed on so that it is no framing.
HARMLESS = {
    "body-that-looks-like-a-request": kind([], [INJECTED]),
    "body-that-looks-like-chunks": kind([], ["0\r\n\r\n" + INJECTED]),
    "length-and-such-a-body": kind([("content-length", "5")], ["0\r\n\r\n"]),
    "trailer-length": kind([], ["hello"], [("content-length", "100")]),
    "path-escapes": kind(path="/{up}/x%0d%0ahost:%20evil.test%0d%0a%0d%0aGET%20/second"),
    "te-trailers": kind([("te", "trailers")], ["hello"]),
    # Malformed, but whole with its head: the answer may come before the rest does.
    "length-zero-with-body": kind([("content-length", "0")], [INJECTED]),
    # Malformed, but the h2 crate drops them without a word.
    "trailer-pseudo": kind([], ["hello"], [(":path", "/second")]),
}


@pytest.mark.parametrize("what", HARMLESS)
@modern_pairs
async def test_bytes_that_look_like_framing_are_not(pairs, down, up, what, tag):
    before = pairs.origins.requests()
    async with connect(down, pairs.proxy, raw=True) as client:
        stream = await send(client, down, up, tag, HARMLESS[what])
        assert stream.status in (0, 200, 400), stream
        good = await send(client, down, up, tag + "-good", kind(body=["hello"]))
        assert good.status == 200 and b'"length": 5' in good.body, good
    record = pairs.origins.record(tag)
    assert not [line for line in record.get("trailers", []) if line.lower().startswith(("content-length", ":"))], record
    assert pairs.origins.record(tag + "-second")["requests"] == 0
    assert pairs.origins.requests() - before == 1 + record["requests"] <= 2


def plain_client(pairs, down):
    context = trusting(pairs.proxy.certificate, "http/1.1") if down == "h1s" else None
    return H1(("127.0.0.1", pairs.proxy.port if context else pairs.proxy.plain_port), context=context)


@pytest.mark.parametrize("what", SMUGGLING)
@of_pairs(itertools.product(["h1", "h1s"], BACKENDS))
def test_framing_in_doubt_over_http1(pairs, down, up, what, tag):
    before = pairs.origins.requests()
    text = SMUGGLING[what].replace("{tag}", f"x-tag: {tag}\r\nx-do: inspect\r\n").replace(" /x", f" /{up}/x").replace("http://a/x", f"http://a/{up}/x")
    with plain_client(pairs, down) as client:
        client.send(text + INJECTED.replace("{up}", up).replace("{tag}", tag))
        answer = client.answer()
        assert (answer.status, answer.get("connection")) == (400, "close"), answer
        assert client.is_closed()
    record = pairs.origins.record(tag)
    assert "body" not in record["events"] and record["requests"] <= what.startswith("chunk-"), record
    assert pairs.origins.record(tag + "-second")["requests"] == 0
    assert pairs.origins.requests() - before == record["requests"]


@every_backend
@pytest.mark.parametrize("down", ["h1", "h1s"])
def test_absolute_form_and_host(pairs, down, up, tag):
    """The target's authority is the request's, and Host has to agree (RFC 9112 section 3.2.2)."""
    scheme = "https" if down == "h1s" else "http"
    with plain_client(pairs, down) as client:
        client.send(f"GET {scheme}://localhost:1/{up}/x HTTP/1.1\r\nhost: localhost:1\r\nx-tag: {tag}\r\n\r\n")
        assert client.answer().status == 200
        record = pairs.origins.record(tag)
        hosts = [line for line in record["lines"] if line.lower().startswith(("host:", ":authority:"))]
        assert [line.split(": ", 1)[1] for line in hosts] == ["localhost:1"], record
        assert record["line"].split(" ")[1] == f"/{up}/x", record
        client.send(f"GET {scheme}://localhost:1/{up}/x HTTP/1.1\r\nhost: localhost:2\r\nx-tag: {tag}-two\r\n\r\n")
        assert client.answer().status == 400
    assert pairs.origins.record(tag + "-two")["requests"] == 0


# Backends that speak HTTP/2 wrongly.

over_http2 = pytest.mark.parametrize("up", ["h2", "h2c"])


@pytest.mark.parametrize("ended", ["", "&ended=1"], ids=["", "ended"])
@pytest.mark.parametrize("what", sorted(origin_h2.HEADS.keys() - {"pseudo-unknown"}))
@over_http2
@every_client
async def test_malformed_head_of_a_backend_is_502(pairs, down, up, what, ended):
    async with connect(down, pairs.proxy) as client:
        stream = await client.get(f"/{up}/x", ("x-do", f"nonsense?n={what}{ended}"))
        assert (stream.status, stream.ended) == (502, True), stream
        assert stream.get("x-a") is None and stream.get("x-injected") is None, stream
        if down in ("h2", "h3"):
            assert (await client.get(f"/{up}/x", ("x-do", "bytes?n=10"))).status == 200


@over_http2
@every_client
async def test_pseudo_fields_of_requests_in_a_response_go_no_further(pairs, down, up):
    """Malformed (RFC 9113 section 8.3), but the h2 crate drops them without a word."""
    async with connect(down, pairs.proxy) as client:
        stream = await client.get(f"/{up}/x", ("x-do", "nonsense?n=pseudo-unknown"))
        assert stream.status in (200, 502) and stream.get(":path") is None and stream.get("path") is None, stream


@pytest.mark.parametrize("what", [*origin_h2.LENGTHS, "data-before-head", "goaway"])
@over_http2
@every_client
async def test_broken_body_of_a_backend_is_never_a_clean_end(pairs, down, up, what):
    async with connect(down, pairs.proxy) as client:
        stream = await client.get(f"/{up}/x", ("x-do", f"nonsense?n={what}"))
        assert (stream.status == 502 and stream.ended) or (stream.status in (0, 200) and not stream.ended), stream
        assert len(stream.body) <= 10 or stream.status == 502, stream
    async with connect(down, pairs.proxy) as client:
        assert (await client.get(f"/{up}/x", ("x-do", "bytes?n=10"))).status == 200
