"""Backends that refuse, hang, reset, lie or talk nonsense: a status before the head, a stream reset after it, never a clean end."""

import pytest
from support import h3 as wire
from support import origin as origin_behaviours
from support.curl import fetch
from support.ports import black_hole, free
from support.proxy import Upstream


async def answer(h3, proxy, asked, method="GET"):
    async with h3(proxy) as client:
        stream = await client.get("/", ("x-do", asked), method=method)
        assert client.terminated is None, "one bad backend closed the client's connection"
        return stream


def is_reset(stream):
    """An abrupt end that a client cannot take for a whole body. Where head and fault come in one piece, the reset may
    overtake the head (status 0), or the fault be known before the head was sent (502)."""
    if stream.status == 502:
        return stream.ended
    return not stream.ended and stream.reset in (wire.INTERNAL_ERROR, wire.GENERAL_PROTOCOL_ERROR)


async def test_refused_connection(start, h3):
    proxy = start(Upstream("gone", f"http://127.0.0.1:{free()}"))
    async with h3(proxy) as client:
        for _ in range(3):
            assert (await client.get("/")).status == 502
        assert (await client.post("/", b"body")).status == 502


async def test_refused_unix_socket(start, h3, tmp_path):
    proxy = start(Upstream("gone", f"unix:{tmp_path}/nobody.sock"))
    async with h3(proxy) as client:
        assert (await client.get("/")).status == 502


async def test_connect_timeout(start, h3):
    with black_hole() as port:
        proxy = start(Upstream("hole", f"http://127.0.0.1:{port}"), performance={"backend_connect_timeout": "300ms"})
        async with h3(proxy) as client:
            assert (await client.get("/")).status == 504


async def test_one_backend_of_two_refuses(start, h3, origins):
    """No byte was written to the refusing one, so another may be tried: the client notices nothing."""
    proxy = start(Upstream("half", origins.address("one"), f"http://127.0.0.1:{free()}"))
    async with h3(proxy) as client:
        statuses = {(await client.get("/bytes/10")).status for _ in range(10)}
        assert 200 in statuses and statuses <= {200, 502}


async def test_no_answer_in_time(proxy, h3, origins, tag):
    async with h3(proxy) as client:
        stream = await client.get("/hang", ("x-tag", tag))
        assert stream.status == 504, stream
    assert origins.record(tag, until="aborted"), "the backend was left waiting"


async def test_no_answer_in_time_with_curl(proxy):
    response = fetch(proxy, "/hang")
    assert (response.error, response.status) == (None, 504)


async def test_body_stalls(proxy, h3):
    stream = await answer(h3, proxy, "slow?n=1000&sent=10")
    assert (stream.status, len(stream.body)) == (200, 10) and is_reset(stream), stream


@pytest.mark.parametrize("asked", ["reset?at=head", "close"])
async def test_end_before_the_head(proxy, h3, asked):
    assert (await answer(h3, proxy, asked)).status == 502
    assert (await answer(h3, proxy, asked, method="POST")).status == 502


@pytest.mark.parametrize("asked", ["reset?n=1000", "short", "cut"])
async def test_end_in_the_body(proxy, h3, asked):
    stream = await answer(h3, proxy, asked)
    assert is_reset(stream), stream


@pytest.mark.parametrize("asked", ["reset?n=100000", "short", "cut"])
def test_end_in_the_body_with_curl(proxy, asked):
    response = fetch(proxy, "/", fields=[("x-do", asked)])
    assert response.error or response.status == 502, "a cut body looked whole"


async def test_more_than_said(proxy, h3):
    """Bytes after the length are not part of this answer, nor of the next one on that connection."""
    async with h3(proxy) as client:
        for _ in range(5):
            stream = await client.get("/", ("x-do", "long"))
            assert stream.status in (200, 502), stream
            assert bytes(stream.body[:10]) == b"0123456789" if stream.ended and stream.status == 200 else True
            assert len(stream.body) <= 10 or stream.status == 502, stream
            assert bytes((await client.get("/bytes/10")).body) != b"too much b"


@pytest.mark.parametrize("kind", sorted(origin_behaviours.NONSENSE))
async def test_nonsense_head(proxy, h3, kind):
    stream = await answer(h3, proxy, f"nonsense?n={kind}")
    # RFC 9112 2.2 lets a client accept a bare LF; all else is a malformed answer.
    allowed = (200, 502) if kind == "bare-lf" else (502,)
    assert stream.status in allowed, stream
    assert "x-b" not in dict(stream.fields)


@pytest.mark.parametrize("kind", sorted(origin_behaviours.NONSENSE_CHUNKS))
async def test_nonsense_chunks(proxy, h3, kind):
    stream = await answer(h3, proxy, f"nonsense?n={kind}")
    assert is_reset(stream), stream
    assert stream.status == 502 or bytes(stream.body) in (b"", b"good start", b"good starthello"), stream


async def test_unsolicited_bytes_are_not_the_next_answer(proxy, h3, origins, tag):
    import asyncio

    async with h3(proxy) as client:
        for index in range(5):
            stream = await client.get("/", ("x-do", "unsolicited"), ("x-tag", f"{tag}-{index}"))
            assert bytes(stream.body) == b"solicited", stream
            await asyncio.to_thread(origins.record, f"{tag}-{index}", "forged")
            follower = await client.get("/bytes/10")
            assert (follower.status, len(follower.body)) == (200, 10), follower
            assert b"forged" not in follower.body


async def test_stale_pooled_connections(proxy, h3):
    """The backend closes after each answer: the pool may hold a dead connection, the client must not see it."""
    async with h3(proxy) as client:
        for _ in range(30):
            stream = await client.get("/", ("x-do", "closing"))
            assert (stream.status, bytes(stream.body)) == (200, b"closing"), stream


async def test_origin_that_restarts(start, h3, tmp_path):
    from support.origins import Origins

    folder = tmp_path / "first"
    folder.mkdir()
    first = Origins(folder, "x")
    proxy = start(Upstream("x", f"unix:{first.unix}"))
    async with h3(proxy) as client:
        assert (await client.get("/bytes/10")).status == 200
        first.stop()
        assert (await client.get("/bytes/10")).status == 502
        first.unix.unlink(missing_ok=True)
        second = Origins(folder, "x")
        try:
            assert (await client.get("/bytes/10")).status == 200
        finally:
            second.stop()


async def test_failures_are_counted_with_their_reasons(proxy, h3):
    before = proxy.metrics()
    await answer(h3, proxy, "close")
    await answer(h3, proxy, "nonsense?n=garbage")
    await answer(h3, proxy, "short")
    changed = {name for name, value in proxy.metrics().items() if value > before.get(name, 0)}
    assert any("502" in name for name in changed), changed
    for reason in ("upstream_closed", "upstream_malformed", "upstream_incomplete"):
        assert any("spooky_refusals_total" in name and f'"{reason}"' in name for name in changed), (reason, changed)
