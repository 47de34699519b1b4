"""Bodies of every size, down and up, through curl and aioquic: what arrives is what was sent."""

import hashlib
import json

import pytest
from support import content, curl
from support.curl import fetch
from support.proxy import Upstream

SIZES = [0, 1, 13_000, 14_000, 65_536, 1 << 20, 100 << 20]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("size", SIZES)
def test_get(proxy, size, framing):
    if size == 100 << 20 and framing == "close":
        pytest.skip("the largest body is fetched with the two framings that say where it ends")
    response = fetch(proxy, f"/bytes/{size}?framing={framing}", keep=False)
    assert (response.error, response.status) == (None, 200)
    assert curl.is_h3(response)
    assert (response.length, response.sha256) == (size, content.sha256(size))
    # Only a backend that says the length lets us say it.
    assert response.get("content-length") == (str(size) if framing == "length" else None)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", SIZES)
def test_post(proxy, size, framing):
    response = fetch(
        proxy, "/inspect", method="POST", body=content.pieces(size), length=size if framing == "length" else None
    )
    assert (response.error, response.status) == (None, 200)
    seen = json.loads(response.body)
    assert (seen["length"], seen["sha256"]) == (size, content.sha256(size))
    lengths = [value for name, value in seen["fields"] if name == "content-length"]
    codings = [value for name, value in seen["fields"] if name == "transfer-encoding"]
    if framing == "length":
        assert (lengths, codings) == ([str(size)], [])
    else:
        assert (lengths, codings) in (([], ["chunked"]), (["0"], []))


def test_echo_streams_both_ways_at_once(proxy):
    size = 20 << 20
    response = fetch(proxy, "/echo", method="POST", body=content.pieces(size), length=size, keep=False)
    assert (response.error, response.status) == (None, 200)
    assert (response.length, response.sha256) == (size, content.sha256(size))


@pytest.mark.parametrize("size", [1, 13_000, 14_000, 1 << 20])
def test_files_of_nginx(start, web, size):
    proxy = start(Upstream("web", web.address))
    response = fetch(proxy, f"/{size}")
    assert (response.error, response.status) == (None, 200)
    assert (response.length, response.sha256) == (size, content.sha256(size))
    assert response.get("etag")


def test_hundred_mebibytes_of_nginx(start, web):
    proxy, size = start(Upstream("web", web.address)), 100 << 20
    response = fetch(proxy, f"/{size}", keep=False)
    assert (response.error, response.status, response.length) == (None, 200, size)
    assert response.sha256 == content.sha256(size)
    part = fetch(proxy, f"/{size}", fields=[("Range", "bytes=1000000-1999999")])
    assert (part.status, part.length) == (206, 1_000_000)
    posted = fetch(proxy, "/length", method="POST", body=content.pieces(size), length=size)
    assert (posted.status, posted.body) == (200, str(size).encode())


async def test_sizes_with_aioquic(proxy, h3):
    async with h3(proxy) as client:
        for size in [0, 1, 13_000, 14_000, 1 << 20]:
            answer = await client.get(f"/bytes/{size}")
            assert (answer.status, answer.ended, len(answer.body)) == (200, True, size), answer
            assert answer.sha256 == content.sha256(size)
        body = content.body(1 << 20)
        answer = await client.post("/echo", body)
        assert (answer.status, answer.ended, answer.sha256) == (200, True, hashlib.sha256(body).hexdigest()), answer


async def test_hundred_parallel_streams_with_aioquic(proxy, h3):
    async with h3(proxy) as client:
        streams = [client.open("GET", f"/bytes/{10_000 + index}") for index in range(100)]
        for index, stream in enumerate(streams):
            await stream.finish(60)
            assert (stream.status, stream.ended, stream.sha256) == (200, True, content.sha256(10_000 + index)), stream


async def test_hundred_parallel_streams_with_curl(proxy):
    before = proxy.total(r"^spooky_connections_opened_total")
    answers = await curl.fetch_many(proxy, [{"path": f"/bytes/{10_000 + index}"} for index in range(100)])
    for index, answer in enumerate(answers):
        assert (answer.error, answer.status) == (None, 200)
        assert answer.sha256 == content.sha256(10_000 + index)
    after = proxy.total(r"^spooky_connections_opened_total")
    assert after - before <= 2, "curl was expected to use one connection"


async def test_more_streams_than_one_window_of_them(proxy, h3):
    """300 requests one after another and 128 at a time: the stream credit is handed back as streams end."""
    async with h3(proxy) as client:
        for _ in range(3):
            streams = [client.open("GET", "/bytes/100") for _ in range(100)]
            for stream in streams:
                await stream.finish()
                assert (stream.status, len(stream.body)) == (200, 100), stream


@pytest.mark.parametrize("path", ["/bytes/1000", "/bytes/1000?framing=chunked"])
def test_head_has_no_body(proxy, path):
    response = fetch(proxy, path, method="HEAD")
    assert (response.error, response.status, response.length) == (None, 200, 0)
    if "chunked" not in path:
        assert response.get("content-length") == "1000"


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(proxy, status):
    response = fetch(proxy, f"/status/{status}")
    assert (response.error, response.status, response.length) == (None, status, 0)
    assert response.get("etag") == '"x"'


@pytest.mark.parametrize("status", [200, 201, 301, 400, 404, 418, 500, 503, 599])
def test_statuses_of_the_backend_pass(proxy, status):
    response = fetch(proxy, f"/status/{status}")
    assert (response.error, response.status, response.body) == (None, status, b"status %d\n" % status)
