"""TERM takes no new work and finishes what runs, within a bound; a second TERM ends at once."""

import asyncio
import signal
import time

from support import h3 as wire
from support.curl import fetch
from support.process import until
from support.proxy import Upstream


async def test_drain_finishes_what_runs(start, h3, origins):
    proxy = start(Upstream("main", origins.address("main")))
    async with h3(proxy) as client:
        running = client.open("GET", "/dribble?n=20&gap=100")
        await running.head()
        proxy.child.signal(signal.SIGTERM)
        await client.until(lambda: client.goaways() or client.terminated, 10)
        assert client.goaways(), "no GOAWAY"
        await running.finish(30)
        assert (running.status, running.ended, len(running.body)) == (200, True, 20 * 16), running
        if not client.terminated:
            await client.closed(10)
        assert client.terminated[0] in (wire.NO_ERROR, 0), client.terminated
    assert await asyncio.to_thread(proxy.child.wait, 15) == 0, proxy.child.log()


async def test_draining_is_not_ready_and_takes_no_new_connection(start, h3, origins):
    proxy = start(Upstream("main", origins.address("main")))
    async with h3(proxy) as client:
        running = client.open("GET", "/dribble?n=30&gap=100")
        await running.head()
        proxy.child.signal(signal.SIGTERM)
        await client.until(lambda: client.goaways() or client.terminated, 10)
        status, _ = await asyncio.to_thread(proxy.control, "/ready")
        assert status in (0, 503)
        late = await asyncio.to_thread(fetch, proxy, "/bytes/1", timeout=1.5)
        assert late.status in (0, 503), late
        await running.finish(30)
        assert running.ended, running
    assert await asyncio.to_thread(proxy.child.wait, 15) == 0


def test_idle_proxy_ends_at_once(start):
    proxy = start()
    assert fetch(proxy, "/bytes/1").status == 200
    before = time.monotonic()
    proxy.child.signal(signal.SIGTERM)
    assert proxy.child.wait(10) == 0
    assert time.monotonic() - before < 5


async def test_drain_is_bounded(start, h3, origins):
    proxy = start(Upstream("main", origins.address("main")), performance={"shutdown_drain_timeout": "1s", "backend_timeout": "60s"})
    async with h3(proxy) as client:
        running = client.open("GET", "/dribble?n=1000&gap=100")
        await running.head()
        proxy.child.signal(signal.SIGTERM)
        await asyncio.to_thread(proxy.child.wait, 15)
        await client.until(lambda: client.terminated or running.reset is not None, 10)
        assert not running.ended, "a cut body looked whole"


async def test_second_signal_ends_at_once(start, h3, origins):
    proxy = start(Upstream("main", origins.address("main")), performance={"shutdown_drain_timeout": "60s", "backend_timeout": "60s"})
    async with h3(proxy) as client:
        running = client.open("GET", "/dribble?n=1000&gap=100")
        await running.head()
        proxy.child.signal(signal.SIGTERM)
        await client.until(lambda: client.goaways() or client.terminated, 10)
        assert proxy.child.alive()
        proxy.child.signal(signal.SIGTERM)
        await asyncio.to_thread(proxy.child.wait, 5)


async def test_interrupt_drains_too(start, h3, origins):
    proxy = start(Upstream("main", origins.address("main")))
    async with h3(proxy) as client:
        running = client.open("GET", "/dribble?n=10&gap=100")
        await running.head()
        proxy.child.signal(signal.SIGINT)
        await running.finish(30)
        assert running.ended and len(running.body) == 160, running
    assert await asyncio.to_thread(proxy.child.wait, 15) == 0


def test_port_is_free_after_the_end(start, origins):
    """The ring's teardown is asynchronous in the kernel: a restart on the same port must not fail for it."""
    import subprocess

    from support.process import Child
    from support.proxy import binary

    proxy = start(Upstream("main", origins.address("main")))
    for _ in range(5):
        proxy.child.signal(signal.SIGTERM)
        assert proxy.child.wait(10) == 0, proxy.child.log()
        proxy.child = Child("again", [binary(), "-c", proxy.path], proxy.folder, stdin=subprocess.DEVNULL)
        until(proxy.ready, 10)
        assert fetch(proxy, "/bytes/1").status == 200
