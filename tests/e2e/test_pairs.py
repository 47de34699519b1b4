"""Every protocol of clients over every protocol of backends: what passes is the same, whatever the pair.

Clients: libcurl (curl-cffi), Debian's curl and nghttp, h11, Python's `h2`, aioquic. Backends: the programmable origin over
HTTP/1.1, HTTP/1.1 above TLS, HTTP/2 above TLS, HTTP/2 without, and a unix socket; nginx above TLS.
"""

import json
import os
import re
import subprocess

import pytest
from support import content, curl
from support.pairs import BACKENDS, every_backend, every_client, every_pair, of_pairs
from support.process import until
from support.proxy import tool
from support.streams import connect

# For what is heavy: each client and each backend at least once. SPOOKY_NIGHTLY=1 takes all of them, and a GiB.
NIGHTLY = bool(os.environ.get("SPOOKY_NIGHTLY"))
SOME = [("h1", "h2c"), ("h1s", "h1s"), ("h2", "h1"), ("h2", "h2"), ("h3", "h2"), ("h3", "unix")]
LARGE = 1 << 30 if NIGHTLY else 64 << 20

some_pairs = every_pair if NIGHTLY else of_pairs(SOME)


@every_pair
def test_get(pairs, down, up, tag):
    response = pairs.fetch(down, up, "bytes?n=13000", fields=[("x-tag", tag)])
    assert (response.error, response.status, response.sha256) == (None, 200, content.sha256(13_000))
    assert (response.get("content-length"), response.get("x-origin")) == ("13000", up)
    assert response.version == {"h1": 2, "h1s": 2, "h2": 3, "h3": 30}[down]
    record = pairs.origins.record(tag)
    assert (record["requests"], record["line"]) == (1, f"GET /{up}/x {'HTTP/2' if up in ('h2', 'h2c') else 'HTTP/1.1'}")


@every_pair
def test_head(pairs, down, up):
    response = pairs.fetch(down, up, "bytes?n=13000", method="HEAD")
    assert (response.error, response.status, response.length) == (None, 200, 0)
    assert response.get("content-length") == "13000"
    for status in (204, 304):
        response = pairs.fetch(down, up, f"status?n={status}")
        assert (response.error, response.status, response.length) == (None, status, 0)


@every_pair
def test_upload_of_ten_mebibytes(pairs, down, up):
    size = 10 << 20
    response = pairs.fetch(down, up, "inspect", method="POST", body=content.pieces(size), length=size)
    assert (response.error, response.status) == (None, 200)
    seen = json.loads(response.body)
    assert (seen["length"], seen["sha256"]) == (size, content.sha256(size))
    assert [value for name, value in seen["fields"] if name == "content-length"] == [str(size)]


@every_pair
def test_bodies_of_unknown_length(pairs, down, up):
    size = 1 << 20
    response = pairs.fetch(down, up, "inspect", method="POST", body=content.pieces(size))
    assert (response.error, response.status) == (None, 200)
    seen = json.loads(response.body)
    assert (seen["length"], seen["sha256"]) == (size, content.sha256(size))
    framing = [(name, value) for name, value in seen["fields"] if name in ("content-length", "transfer-encoding")]
    assert framing == ([] if up in ("h2", "h2c") else [("transfer-encoding", "chunked")])
    response = pairs.fetch(down, up, f"bytes?n={size}&framing=chunked")
    assert (response.error, response.status, response.sha256) == (None, 200, content.sha256(size))
    assert response.get("content-length") is None


@every_pair
async def test_trailers_both_ways(pairs, down, up):
    async with connect(down, pairs.proxy) as client:
        sent = [("x-checksum", "abc"), ("x-more", "1 2")]
        stream = await client.post(f"/{up}/x", b"body", ("x-do", "trailers"), ("te", "trailers"), trailers=sent)
        assert (stream.status, stream.ended, bytes(stream.body)) == (200, True, b"body"), stream
        names = [name for name, _ in stream.trailers]
        assert names == ["x-body-sha256", "x-echo-x-checksum", "x-echo-x-more"], stream.trailers
        assert ("x-echo-x-more", "1 2") in stream.trailers, stream.trailers


@every_pair
async def test_continue_is_waited_for(pairs, down, up, tag):
    async with connect(down, pairs.proxy) as client:
        fields = ("x-do", "expect"), ("x-tag", tag), ("expect", "100-continue"), ("content-length", "5")
        stream = client.open("POST", f"/{up}/x", *fields, end=False)
        await stream.until(lambda: stream.informational or stream.status)
        assert [status for status, _ in stream.informational] == [100], stream
        stream.send(b"hello", end=True)
        await stream.finish()
        assert (stream.status, json.loads(bytes(stream.body))["length"]) == (200, 5), stream
    assert "expect" in (await pairs.record(tag))["events"]


@every_pair
async def test_early_hints(pairs, down, up):
    async with connect(down, pairs.proxy) as client:
        stream = await client.get(f"/{up}/x", ("x-do", "hints"))
        assert [status for status, _ in stream.informational] == [103], stream
        assert ("link", "</style.css>; rel=preload; as=style") in stream.informational[0][1]
        assert (stream.status, bytes(stream.body)) == (200, b"after hints"), stream


@pytest.mark.parametrize("then", ["close", "read"])
@every_pair
async def test_early_refusal_of_an_upload_is_delivered_whole(pairs, down, up, then, tag):
    """A 413 in the middle of an upload that has no end: its body is whole, and the client is told to stop without an error."""
    async with connect(down, pairs.proxy) as client:
        fields = ("x-do", f"early?after=1000&n=50000&then={then}"), ("x-tag", tag)
        stream = client.open("POST", f"/{up}/x", *fields, end=False)
        stream.send(content.body(200_000))
        await stream.until(lambda: stream.ended)
        assert (stream.status, stream.ended, bytes(stream.body)) == (413, True, content.body(50_000)), stream
        if down in ("h1", "h1s"):
            assert stream.get("connection") == "close", stream
            await client.until(lambda: client.terminated)
        else:
            await client.until(lambda: stream.stopped is not None)
            assert (stream.reset, stream.stopped) == (None, 0x100 if down == "h3" else 0), stream
            assert (await client.get(f"/{up}/x", ("x-do", "bytes?n=10"))).status == 200, "the connection's other streams live on"
    assert (await pairs.record(tag))["requests"] == 1


@every_pair
def test_early_refusal_with_curl(pairs, down, up):
    asked = "early?after=100000&n=50000"
    response = pairs.fetch(down, up, asked, method="POST", body=content.pieces(1 << 30), length=1 << 30, timeout=30)
    assert (response.status, response.body) == (413, content.body(50_000)), response.error


@pytest.mark.parametrize("asked", ["hang", "slow?n=100000&sent=10"])
@every_pair
async def test_abort_by_the_client_reaches_the_backend(pairs, down, up, asked, tag):
    async with connect(down, pairs.proxy) as client:
        stream = client.open("GET", f"/{up}/x", ("x-do", asked), ("x-tag", tag))
        await pairs.record(tag, "head")
        if asked != "hang":
            # And what came of a body that goes on no further is not kept back.
            await stream.until(lambda: len(stream.body) == 10)
            assert (stream.status, stream.ended) == (200, False), stream
        stream.abort()
        await pairs.record(tag, "aborted")
    async with connect(down, pairs.proxy) as client:
        assert (await client.get(f"/{up}/x", ("x-do", "bytes?n=10"))).status == 200


@every_pair
async def test_abort_of_an_upload_reaches_the_backend(pairs, down, up, tag):
    async with connect(down, pairs.proxy) as client:
        fields = ("x-do", "inspect"), ("x-tag", tag), ("content-length", "1000000")
        stream = client.open("POST", f"/{up}/x", *fields, end=False)
        stream.send(content.body(10_000))
        await pairs.record(tag, "head")
        stream.abort()
        record = await pairs.record(tag, "aborted")
        assert "body" not in record["events"], "the backend took a cut body for a whole one"


@pytest.mark.parametrize("asked", ["reset?n=1000", "short", "cut"])
@every_pair
async def test_abort_by_the_backend_is_never_a_clean_end(pairs, down, up, asked):
    async with connect(down, pairs.proxy) as client:
        stream = await client.get(f"/{up}/x", ("x-do", asked))
        # Where head and fault come in one piece, the fault may be known before the head was sent.
        assert (stream.status == 502 and stream.ended) or not stream.ended, stream
        assert stream.reset != 0 or down == "h1", stream
        if down in ("h2", "h3"):
            assert client.terminated is None, "one bad backend closed the client's connection"
    response = pairs.fetch(down, up, asked)
    assert response.error or response.status == 502, "a cut body looked whole"


@every_pair
async def test_pieces_pass_as_they_come_in_both_directions(pairs, down, up):
    async with connect(down, pairs.proxy) as client:
        stream = client.open("POST", f"/{up}/x", ("x-do", "echo"), end=False)
        for word in (b"one", b"two", b"three"):
            before = len(stream.body)
            stream.send(word)
            await stream.until(lambda before=before, word=word: len(stream.body) == before + len(word))
        stream.send(b"", end=True)
        await stream.finish()
        assert (stream.status, stream.ended, bytes(stream.body)) == (200, True, b"onetwothree"), stream


# For one exchange: the windows of both sides, and what allocator and pools take at their first use.
GROWTH = 8 << 20


def growth_of(pairs, down, up, size):
    """How far the proxy grew at most while a body went down and another up."""
    options = {"keep": False, "timeout": 500}
    pairs.fetch(down, up, f"bytes?n={8 << 20}", **options)
    pairs.fetch(down, up, "inspect", method="POST", body=content.pieces(8 << 20), length=8 << 20, **options)
    before = pairs.proxy.child.resident()
    pairs.proxy.child.forget_peak()
    response = pairs.fetch(down, up, f"bytes?n={size}", **options)
    assert (response.error, response.status, response.sha256) == (None, 200, content.sha256(size))
    response = pairs.fetch(down, up, "inspect", method="POST", body=content.pieces(size), length=size, timeout=500)
    assert (response.error, response.status, json.loads(response.body)["sha256"]) == (None, 200, content.sha256(size))
    return pairs.proxy.child.peak() - before


@pytest.mark.timeout(1200)
@some_pairs
def test_large_bodies_in_bounded_memory(pairs, down, up, record_property):
    growth = growth_of(pairs, down, up, LARGE)
    record_property("growth", growth)
    assert growth < GROWTH, f"{growth:,}"


@pytest.mark.parametrize("up", ["h2", "h2c"])
def test_idle_connections_of_http2_are_counted_once(pairs, up):
    for _ in range(5):
        assert pairs.fetch("h2", up, "bytes?n=10").status == 200

    def counts():
        kinds = ("active", "idle")
        return [pairs.proxy.total(rf'^spooky_backend_connections_{kind}\{{upstream="{up}"') for kind in kinds]

    until(lambda: counts()[0] == counts()[1] > 0, 5)


@every_client
async def test_backends_of_all_schemes_in_one_upstream(pairs, down):
    origins = set()
    for _ in range(2 * len(BACKENDS)):
        response = curl.fetch(pairs.proxy, "/mixed/x", version=down, fields=[("x-do", "bytes?n=1000")])
        assert (response.error, response.status, response.length) == (None, 200, 1000)
        origins.add(response.get("x-origin"))
    assert origins == set(BACKENDS)


@pytest.mark.parametrize("up", ["web-h2", "web-tls"])
@every_client
def test_nginx_above_tls(pairs, down, up):
    host = f"{up}.origin.test"
    for size in (13_000, 1 << 20):
        response = curl.fetch(pairs.proxy, f"/{size}", version=down, host=host)
        assert (response.error, response.status, response.sha256) == (None, 200, content.sha256(size))
    response = curl.fetch(pairs.proxy, "/length", version=down, host=host, method="POST", body=content.body(1 << 20))
    assert (response.error, response.status, response.body) == (None, 200, str(1 << 20).encode())
    response = curl.fetch(pairs.proxy, "/limited", version=down, host=host, method="POST", body=content.pieces(100 << 20), length=100 << 20)
    assert response.status == 413 and b"</html>" in response.body, response


# Debian's programs.


def program(name, *arguments, seconds=60):
    done = subprocess.run([tool(name), *map(str, arguments)], capture_output=True, timeout=seconds, check=False)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


@every_backend
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
def test_debian_s_curl(pairs, version, up, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(content.body(1 << 20))
    # With ALPN this curl offers http/1.0 alone, which nobody here speaks by that name.
    more = ["--no-alpn"] if version == "--http1.0" else []
    trust = ["-sS", version, *more, "--cacert", pairs.proxy.certificate.cert]
    url = pairs.proxy.url(f"/{up}/x")
    code, out, errors = program("curl", *trust, "-H", "x-do: bytes?n=1048576", url)
    assert (code, out) == (0, content.body(1 << 20)), errors
    code, out, errors = program("curl", *trust, "-H", "x-do: expect", "-H", "expect: 100-continue", "--data-binary", f"@{body}", url)
    assert (code, json.loads(out)["sha256"]) == (0, content.sha256(1 << 20)), errors
    code, out, errors = program("curl", *trust, "-H", "x-do: short", "-o", "/dev/null", "-w", "%{http_code}", url)
    assert code != 0 or out == b"502", "a cut body looked whole"


@every_backend
def test_nghttp(pairs, up, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(content.body(1 << 20))
    url = pairs.proxy.url(f"/{up}/x")
    code, out, errors = program("nghttp", "--no-verify-peer", "-H", "x-do: bytes?n=1048576", url)
    assert (code, out) == (0, content.body(1 << 20)), errors
    for more in ([], ["--no-content-length"]):
        upload = [*more, "-H", "x-do: inspect", "--trailer", "x-sum: 1", "-d", body]
        code, out, errors = program("nghttp", "--no-verify-peer", *upload, url)
        seen = json.loads(out)
        # A body with a length has no place for trailers in HTTP/1.1.
        trailers = ["x-sum: 1"] if more or up in ("h2", "h2c") else []
        assert (code, seen["sha256"], seen["trailers"]) == (0, content.sha256(1 << 20), trailers), errors
    code, out, errors = program("nghttp", "--no-verify-peer", "-nv", "-H", "x-do: early?after=1000&n=50000", "-d", body, url)
    assert ":status: 413" in out.decode(errors="replace"), out


@every_backend
def test_thousand_requests_of_h2load(pairs, up):
    code, out, errors = program("h2load", "-n", 1000, "-c", 4, "-m", 32, "-H", "x-do: bytes?n=1000", pairs.proxy.url(f"/{up}/x"))
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", out.decode())
    assert (code, counts and counts.groups()) == (0, ("1000", "0", "0")), (out, errors)
