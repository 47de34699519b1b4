"""WebSocket through every pair: each way a client asks, each way an origin is asked. What a tunnel carries is bytes."""

import asyncio
import contextlib
import os
import random

import pytest
import wsproto
from support.process import until
from support.proxy import Upstream
from support.tunnel import CLIENTS, Origin, over_h1, over_h2, over_h3
from wsproto.events import BytesMessage, CloseConnection, TextMessage

PAIRS = [(client, origin) for client in ("h1", "h2", "h3") for origin in ("h1", "h2")]
# The nightly run sets 100.
MEBIBYTES = int(os.environ.get("SPOOKY_TUNNEL_MIB", "10"))


@contextlib.asynccontextmanager
async def through(start, kind, performance=None, others=(), upstream=None, **options):
    """An origin and a proxy before it."""
    async with Origin(kind, **options) as origin:
        addresses = [*(one.address for one in others), origin.address]
        timeouts = {"backend_timeout": "5s", "backend_connect_timeout": "2s", **(performance or {})}
        proxy = start(Upstream("main", *addresses, **(upstream or {})), performance=timeouts, cleartext="serve")
        yield proxy, origin


async def eventually(what):
    """Waits without standing in the way of the ends that live in this loop."""
    await asyncio.to_thread(until, what, 10)


def opened(kind):
    return 101 if kind == "h1" else 200


@pytest.mark.parametrize(("client", "kind"), PAIRS)
async def test_messages_pass_and_the_handshake_is_that_of_each_version(start, client, kind):
    async with through(start, kind) as (proxy, origin):
        asks = [("sec-websocket-protocol", "chat, other"), ("sec-websocket-extensions", "permessage-deflate")]
        side = await CLIENTS[client](proxy, "/echo/a?x=1", *asks)
        assert side.status == opened(client), side.fields
        assert side.get("sec-websocket-protocol") == "chat"
        assert (side.get("sec-websocket-accept") is not None) == (client == "h1")

        far = await origin.accepted()
        fields = {name.lower(): value for name, value in far.fields}
        assert fields["sec-websocket-version"] == "13" and fields["sec-websocket-protocol"] == "chat, other"
        assert fields["sec-websocket-extensions"] == "permessage-deflate"
        assert ("sec-websocket-key" in fields) == (kind == "h1")
        assert "x-forwarded-for" in fields and "via" in fields

        # Frames of an implementation that nobody here wrote, there and back: the origin echoes them masked.
        near, mirror = wsproto.Connection(wsproto.ConnectionType.CLIENT), wsproto.Connection(wsproto.ConnectionType.SERVER)
        sent = near.send(TextMessage(data="häh?")) + near.send(BytesMessage(data=bytes(range(256)) * 300))
        await side.send(sent)
        mirror.receive_data(await side.receive(len(sent)))
        seen = [event.data for event in mirror.events()]
        assert seen[0] == "häh?" and b"".join(bytes(one) for one in seen[1:]) == bytes(range(256)) * 300

        await side.send(near.send(CloseConnection(code=1000)))
        await side.end()
        await side.finish()
        assert side.ended and side.reset is None
        await eventually(lambda: proxy.total("spooky_tunnels_active") == 0)
        assert proxy.total(f'spooky_tunnels_opened_total.*"{client}"') == 1
        await eventually(proxy.access)
        [line] = proxy.access()
        assert (line["method"], line["status"], line.get("reason")) == ("GET", opened(client), None), line
        assert line["request_bytes"] == line["response_bytes"] > len(sent), line
        await side.close()


@pytest.mark.timeout(60 + 30 * MEBIBYTES)
@pytest.mark.parametrize(("client", "kind"), PAIRS)
async def test_large_transfers_pass_both_ways_at_once(start, client, kind):
    async with through(start, kind) as (proxy, origin):
        side = await CLIENTS[client](proxy, "/hold")
        far = await origin.accepted()
        piece = random.Random(1).randbytes(1 << 20)

        async def give(to):
            for _ in range(MEBIBYTES):
                await to.send(piece)
            await to.end()

        async def take(of):
            for _ in range(MEBIBYTES):
                assert await of.receive(len(piece)) == piece
            await of.finish()
            assert of.ended and of.reset is None and not of.received

        await asyncio.gather(give(side), give(far), take(side), take(far))
        assert proxy.total("process_resident_memory_bytes") < 200 << 20
        await eventually(lambda: proxy.total("spooky_requests_active") == 0)
        await side.close()


@pytest.mark.parametrize(("client", "kind"), PAIRS)
async def test_many_small_messages_are_no_flood(start, client, kind):
    async with through(start, kind) as (proxy, _):
        side = await CLIENTS[client](proxy, "/echo")
        for _ in range(1500):
            await side.send(b"x")
            assert await side.receive(1) == b"x"
        await side.end()
        await side.finish()
        assert side.ended and side.reset is None
        assert proxy.total("floods_total") == 0
        await side.close()


@pytest.mark.parametrize(("client", "kind"), PAIRS)
async def test_an_end_of_one_direction_is_passed_on_and_the_other_goes_on(start, client, kind):
    async with through(start, kind) as (proxy, origin):
        # The client ends first.
        side = await CLIENTS[client](proxy, "/hold")
        far = await origin.accepted()
        await side.send(b"question")
        await side.end()
        assert await far.receive(8) == b"question"
        await far.finish()
        assert far.ended and far.reset is None and not side.over
        await far.send(b"a late answer")
        assert await side.receive(13) == b"a late answer"
        await far.send(b" and more" * 1000)
        await far.end()
        assert await side.receive(9000) == b" and more" * 1000
        await side.finish()
        assert side.ended and side.reset is None

        # The origin ends first.
        second = await CLIENTS[client](proxy, "/hold")
        far = await origin.accepted()
        await far.send(b"greeting")
        await far.end()
        assert await second.receive(8) == b"greeting"
        await second.finish()
        assert second.ended and second.reset is None and not far.over
        await second.send(b"x" * 100_000)
        assert await far.receive(100_000) == b"x" * 100_000
        await second.end()
        await far.finish()
        assert far.ended and far.reset is None
        await eventually(lambda: len(proxy.access()) == 2)
        assert [line.get("reason") for line in proxy.access()] == [None, None]
        await side.close()
        await second.close()


@pytest.mark.parametrize(("client", "kind"), PAIRS)
async def test_a_reset_of_either_side_is_a_reset_of_the_other(start, client, kind):
    async with through(start, kind) as (proxy, origin):
        side = await CLIENTS[client](proxy, "/hold")
        far = await origin.accepted()
        await side.send(b"x")
        await far.receive(1)
        await side.abort()
        await far.finish()
        assert far.reset is not None, far
        await side.close()

        side = await CLIENTS[client](proxy, "/hold")
        far = await origin.accepted()
        await far.send(b"x")
        await side.receive(1)
        await far.abort()
        await side.finish()
        assert side.reset is not None, side
        await eventually(lambda: proxy.total("spooky_tunnels_active") == 0)
        await eventually(lambda: len(proxy.access()) == 2)
        reasons = [line["reason"] for line in proxy.access()]
        assert reasons[0] in ("client_abort", "client_gone") and reasons[1] == "upstream_reset", reasons
        await side.close()


@pytest.mark.parametrize(("client", "kind"), PAIRS)
async def test_a_refusal_is_an_ordinary_response(start, client, kind):
    async with through(start, kind) as (proxy, _):
        side = await CLIENTS[client](proxy, "/refuse")
        assert side.status == 403, side
        assert await side.receive(2) == b"no"
        await side.finish()
        # Of a request that will not end, HTTP/2 says behind the answer that no more of it is wanted (RFC 9113 section 8.1).
        assert side.ended and side.reset in (None, 0)
        assert proxy.total("spooky_tunnels_opened_total") == 0
        await side.close()


@pytest.mark.parametrize("path", ["/wrong", "/plain", "/unasked", "/drop"])
@pytest.mark.parametrize("client", ["h1", "h2", "h3"])
async def test_an_origin_that_does_not_agree_opens_nothing(start, client, path):
    async with through(start, "h1") as (proxy, _):
        side = await CLIENTS[client](proxy, path)
        assert side.status == 502, side
        await side.finish()
        await eventually(proxy.access)
        expected = "upstream_closed" if path == "/drop" else "upstream_upgrade"
        assert [line["reason"] for line in proxy.access()] == [expected]
        await side.close()


@pytest.mark.parametrize("client", ["h1", "h2", "h3"])
async def test_an_http2_origin_without_extended_connect_is_passed_over(start, client):
    async with Origin("h2", offers=False) as other, through(start, "h1", others=[other]) as (proxy, origin):
        for _ in range(2):
            side = await CLIENTS[client](proxy, "/echo")
            assert side.status == opened(client), side
            await side.send(b"x")
            assert await side.receive(1) == b"x"
            await side.close()
        assert len(origin.asked) == 2 and not other.asked


@pytest.mark.parametrize("client", ["h1", "h2", "h3"])
async def test_if_no_origin_offers_it_the_refusal_is_clear(start, client):
    async with through(start, "h2", offers=False) as (proxy, origin):
        side = await CLIENTS[client](proxy, "/echo")
        assert side.status == 502 and not origin.asked
        await side.finish()
        await eventually(proxy.access)
        assert [line["reason"] for line in proxy.access()] == ["upstream_no_tunnel"]
        await side.close()


async def test_a_request_waits_for_the_settings_that_say_whether_it_may_ask(start):
    may_go = asyncio.Event()
    async with through(start, "h2", slow_settings=may_go) as (proxy, origin):
        waiting = [asyncio.ensure_future(over_h2(proxy, "/echo")) for _ in range(3)]
        await eventually(lambda: origin.open and proxy.total("spooky_requests_active") == 3)
        assert not origin.asked
        may_go.set()
        for side in await asyncio.gather(*waiting):
            assert side.status == 200
            await side.send(b"x")
            assert await side.receive(1) == b"x"
            await side.close()

    # One that never says is late like one that does not accept.
    async with through(start, "h2", slow_settings=asyncio.Event(), performance={"backend_connect_timeout": "300ms"}) as (
        proxy,
        origin,
    ):
        side = await over_h2(proxy, "/echo")
        assert side.status == 504 and not origin.asked
        await side.close()


H1_REQUEST = (
    "GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (("Version: 13", "Version: 8"), 400),
        (("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello"), 400),
        (("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        # What does not ask for WebSocket is an ordinary request, whose Upgrade is not forwarded.
        (("Upgrade: websocket", "Upgrade: h2c"), 200),
        (("Connection: Upgrade\r\n", ""), 200),
        (("GET", "DELETE"), 200),
    ],
)
async def test_what_asks_wrongly_over_http1_is_refused(start, change, status):
    async with through(start, "h1") as (proxy, origin):
        raw = H1_REQUEST.replace("/echo", "/plain").replace(*change).encode()
        side = await over_h1(proxy, "/", raw=raw)
        assert side.status == status, side.received
        names = {name.lower() for _, fields in origin.asked for name, _ in fields}
        assert "upgrade" not in names and len(origin.asked) == (status == 200)
        await side.close()


@pytest.mark.parametrize("ask", [over_h2, over_h3])
async def test_what_asks_wrongly_over_http2_and_http3_is_refused(start, ask):
    async with through(start, "h1") as (proxy, origin):
        for options, status in [({"protocol": "connect-udp"}, 501), ({"version": None}, 400), ({"end": True}, 400)]:
            side = await ask(proxy, "/echo", **options)
            assert side.status == status, (options, side)
            await side.close()
        assert not origin.asked


@pytest.mark.parametrize(("client", "kind"), [("h1", "h1"), ("h1", "h2"), ("h2", "h1"), ("h2", "h2")])
async def test_a_reader_that_stands_still_holds_little_memory(start, client, kind):
    async with through(start, kind) as (proxy, origin):
        side = await CLIENTS[client](proxy, "/hold")
        far = await origin.accepted()
        before = proxy.total("process_resident_memory_bytes")
        for reader, writer in ((side, far), (far, side)):
            reader.reading.clear()
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 64 << 20:
                    await asyncio.wait_for(writer.send(bytes(1 << 18)), 1)
                    sent += 1 << 18
            # The kernel's socket buffers take some megabytes.
            assert sent < 48 << 20, "the writer was never held back"
            assert proxy.total("process_resident_memory_bytes") - before < 24 << 20
        assert not side.over and not far.over
        await side.close()


@pytest.mark.parametrize(("client", "kind"), PAIRS)
async def test_a_silent_tunnel_ends_and_a_busy_one_does_not(start, client, kind):
    performance = {"tunnel_idle_timeout": "700ms", "backend_body_idle_timeout": "100ms", "client_body_idle_timeout": "100ms"}
    performance |= {"total_request_timeout": "500ms", "backend_timeout": "400ms", "backend_connect_timeout": "400ms", "client_send_timeout": "100ms"}
    async with through(start, kind, performance=performance) as (proxy, origin):
        side = await CLIENTS[client](proxy, "/hold")
        far = await origin.accepted()
        # Over a second in all: one direction at a time is enough to live on.
        for turn in range(6):
            one, other = (side, far) if turn % 2 else (far, side)
            await asyncio.sleep(0.2)
            await one.send(b"x")
            await other.receive(1)
        await asyncio.gather(side.finish(), far.finish())
        assert side.reset is not None and far.reset is not None
        await eventually(proxy.access)
        assert [line["reason"] for line in proxy.access()] == ["tunnel_idle"]
        await side.close()


@pytest.mark.parametrize("client", ["h1", "h2", "h3"])
async def test_a_drain_ends_tunnels_at_its_bound(start, client):
    async with through(start, "h1", performance={"shutdown_drain_timeout": "1s"}) as (proxy, origin):
        side = await CLIENTS[client](proxy, "/echo")
        far = await origin.accepted()
        ending = asyncio.ensure_future(asyncio.to_thread(proxy.stop))
        await side.send(b"still here")
        assert await side.receive(10) == b"still here"
        await asyncio.gather(side.finish(), far.finish())
        await ending
        assert [line["reason"] for line in proxy.access()] == ["drain_timeout"]
        await side.close()


@pytest.mark.parametrize("first", ["client", "origin"])
async def test_over_tls_on_both_sides_each_direction_ends_by_itself(start, certificate, first):
    tls = {"tls": {"verify_certificates": False}}
    async with through(start, "h1", upstream=tls, certificate=certificate) as (proxy, origin):
        side = await over_h1(proxy, "/hold", secure=True)
        assert side.status == 101
        far = await origin.accepted()
        one, other = (side, far) if first == "client" else (far, side)
        await one.send(b"x" * 300_000)
        await one.end()
        assert await other.receive(300_000) == b"x" * 300_000
        await other.finish()
        assert other.ended and other.reset is None and not one.over
        await other.send(b"y" * 300_000)
        await other.end()
        assert await one.receive(300_000) == b"y" * 300_000
        await one.finish()
        assert one.ended and one.reset is None
        await eventually(proxy.access)
        assert [line.get("reason") for line in proxy.access()] == [None]
        await side.close()


async def test_an_http2_connection_goes_back_to_the_pool_behind_a_tunnel(start):
    async with through(start, "h2") as (proxy, _):
        for _ in range(3):
            side = await over_h1(proxy, "/echo")
            await side.end()
            await side.finish()
            await side.close()
            await eventually(lambda: proxy.total("spooky_backend_connections_idle") > 0)
        assert proxy.total("spooky_backend_connections_idle") == proxy.total("spooky_backend_connections_active") == 1


async def test_plain_connect_stays_refused(start):
    async with through(start, "h1") as (proxy, origin):
        side = await over_h1(proxy, "/", raw=b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n")
        assert side.status == 405 and not origin.asked
        await side.close()
