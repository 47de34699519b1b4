"""Silence over HTTP/3 while requests run, and while none do (RFC 9000 section 10.1.2). aioquic never sends PING of its own accord."""

import asyncio
import time

import pytest
from support.process import until
from support.proxy import Upstream
from support.tunnel import Origin, over_h3

PATIENT = {"backend_timeout": "60s", "backend_body_idle_timeout": "60s", "tunnel_idle_timeout": "60s"}
# One event, and more than twice the idle timeout later the end.
IDLE, SILENCE = 4, 9


def asked(proxy):
    return proxy.total(r'^spooky_quic_events_total\{.*event="keep_alives"')


def idle_closes(proxy):
    return proxy.total("^spooky_quic_idle_closes_total")


async def eventually(what, seconds=30):
    """Waits without standing in the way of the clients that live in this loop."""
    await asyncio.to_thread(until, what, seconds)


@pytest.mark.parametrize("whose", ["ours", "the client's"])
async def test_slow_answers_and_silent_tunnels_outlive_the_idle_timeout(start, origins, h3, whose):
    quic, configuration = ({"idle_timeout": f"{IDLE}s"}, {}) if whose == "ours" else ({}, {"idle_timeout": float(IDLE)})
    async with Origin("h1") as origin:
        main = Upstream("main", origins.address("main"))
        tunnels = Upstream("tunnels", origin.address, route={"path_prefix": "/hold"})
        proxy = start(main, tunnels, performance=PATIENT, listen={"quic": quic})
        side = await over_h3(proxy, "/hold", **configuration)
        far = await origin.accepted()
        async with h3(proxy, **configuration) as client:
            stream = await client.get(f"/events?n=1&gap={SILENCE}000", seconds=60)
            assert (stream.status, stream.ended, stream.body.count(b"\n\n")) == (200, True, 1), stream
            assert time.monotonic() - stream.opened >= SILENCE - 1, "there was no silence"
        # Its connection has been silent for as long.
        for one, other in ((side, far), (far, side)):
            await one.send(b"x")
            assert await other.receive(1) == b"x"
        assert asked(proxy) >= 4 and idle_closes(proxy) == 0
        await side.close()


async def test_a_client_that_is_gone_is_found_out_while_its_request_runs(start, h3):
    proxy = start(performance=PATIENT, listen={"quic": {"idle_timeout": "2s"}})
    async with h3(proxy) as client:
        client.open("GET", "/hang")
        await eventually(lambda: asked(proxy) >= 1)
        # Nothing goes out any more; what comes in is lost.
        client.protocol._transport.close()
        await eventually(lambda: proxy.total("^spooky_connections_active") == 0)
        await eventually(lambda: len(proxy.access()) == 1)
        assert idle_closes(proxy) == 1


async def test_a_connection_without_requests_is_not_kept(start, h3):
    proxy = start(listen={"quic": {"idle_timeout": "2s"}})
    async with h3(proxy) as client:
        assert (await client.get("/bytes/1000")).status == 200
        await eventually(lambda: proxy.total("^spooky_connections_active") == 0)
        assert asked(proxy) == 0 and idle_closes(proxy) == 1


async def test_nobody_is_asked_where_keep_alive_is_off(start, h3):
    proxy = start(performance=PATIENT, listen={"quic": {"idle_timeout": "2s", "keep_alive": "off"}})
    async with h3(proxy) as client:
        stream = client.open("GET", "/hang")
        await eventually(lambda: proxy.total("^spooky_connections_active") == 0)
        assert asked(proxy) == 0 and idle_closes(proxy) == 1
        assert not stream.ended
