"""Bodies without end and readers without haste: the process grows by the windows, not by the bodies."""

import asyncio
import contextlib
import threading
import time

import pytest
from h2.settings import SettingCodes
from support import content
from support.curl import fetch
from support.process import until
from support.proxy import Upstream
from support.streams import H1, H2, WINDOW

GIBIBYTE = 1 << 30
# The product's bound is the stream's window (1 MiB by default) + 256 KiB for one exchange. Beside it stand the allocator's
# and the pools' first uses, which a warm-up does not reach entirely.
GROWTH = (1 << 20) + (256 << 10) + (2 << 20)


def warm_up(proxy):
    for _ in range(3):
        assert fetch(proxy, f"/bytes/{8 << 20}", keep=False).status == 200
        assert fetch(proxy, "/inspect", method="POST", body=content.pieces(8 << 20), length=8 << 20).status == 200
    return proxy.child.resident()


def watched_growth(proxy, before, seconds):
    """The most the process grew within `seconds`."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, proxy.child.resident() - before)
        time.sleep(0.05)
    return most


def test_slow_reader_of_a_gibibyte(start, origins, tag, record_property):
    proxy = start(Upstream("main", origins.address("main")))
    before = warm_up(proxy)
    reader = threading.Thread(
        target=fetch,
        args=(proxy, f"/bytes/{GIBIBYTE}"),
        kwargs={"fields": [("x-tag", tag)], "speed": 1024, "timeout": 6, "keep": False},
    )
    reader.start()
    growth = watched_growth(proxy, before, 5)
    sent = origins.record(tag).get("sent", 0)
    reader.join()
    record_property("growth", growth)
    assert growth < GROWTH, f"{growth:,} bytes, of {sent:,} that the origin sent"
    # Kernel buffers and curl's own windows take some; the rest must not have left the origin.
    assert sent < 200 << 20
    assert fetch(proxy, "/bytes/100").status == 200


def test_origin_that_reads_nothing_of_a_gibibyte(start, origins, tag, record_property):
    proxy = start(Upstream("main", origins.address("main")), performance={"backend_timeout": "30s"})
    before, given = warm_up(proxy), [0]

    def endless():
        for piece in content.pieces(GIBIBYTE):
            given[0] += len(piece)
            yield piece

    writer = threading.Thread(
        target=fetch,
        args=(proxy, "/deaf"),
        kwargs={"method": "POST", "body": endless(), "length": GIBIBYTE, "timeout": 6, "fields": [("x-tag", tag)]},
    )
    writer.start()
    growth = watched_growth(proxy, before, 5)
    pushed = given[0]
    writer.join()
    record_property("growth", growth)
    assert growth < GROWTH, f"{growth:,} bytes, of {pushed:,} that the client gave"
    assert pushed < 100 << 20
    assert fetch(proxy, "/bytes/100").status == 200


def test_fifty_slow_readers(start, origins, h3):
    """Each has its own bound: the sum grows with the readers, not with the bodies."""
    proxy = start(Upstream("main", origins.address("main")))
    before = warm_up(proxy)

    async def crowd():
        clients = [h3(proxy, max_stream_data=32_768, max_data=32_768) for _ in range(50)]
        async with asyncio.TaskGroup() as group:

            async def one(client):
                async with client:
                    # A window that is never moved: what was sent stays sent, and no more comes.
                    client.quic._write_stream_limits = lambda **_: None
                    client.quic._write_connection_limits = lambda **_: None
                    client.open("GET", f"/bytes/{GIBIBYTE}")
                    await asyncio.sleep(4)

            for client in clients:
                group.create_task(one(client))
            await asyncio.sleep(3.5)
            growth = proxy.child.resident() - before
        return growth

    growth = asyncio.run(crowd())
    assert growth < 50 * ((1 << 20) + (256 << 10)), f"{growth:,}"
    until(lambda: fetch(proxy, "/bytes/100").status == 200, 10)


def test_memory_returns_after_a_crowd(start, origins, h3):
    """Connections that come and go leave nothing behind: the second crowd needs no more than the first."""
    proxy = start(Upstream("main", origins.address("main")))

    async def crowd():
        for _ in range(4):
            async with asyncio.TaskGroup() as group:

                async def one():
                    async with h3(proxy) as client:
                        for size in (1, 10_000, 100_000):
                            assert (await client.get(f"/bytes/{size}")).status == 200

                for _ in range(25):
                    group.create_task(one())

    asyncio.run(crowd())
    first = proxy.child.resident()
    for _ in range(2):
        asyncio.run(crowd())
    assert proxy.child.resident() - first < 8 << 20


def shuts_its_windows(client):
    client.machine.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    client.transmit()


def reads_nothing(client):
    client.machine.increment_flow_control_window(64 * WINDOW)
    client.transmit()
    client.writer.transport.pause_reading()


@pytest.mark.parametrize("lazy", [shuts_its_windows, reads_nothing])
def test_responses_that_nobody_takes_leave_receive_buffers_to_others(start, origins, h3, lazy):
    """Hundreds of them want more buffers than a worker has: what others ask is answered, and not a moment later than in seconds."""
    proxy = start(Upstream("main", origins.address("main")))

    async def crowd():
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                client = await stack.enter_async_context(H2(proxy))
                lazy(client)
                for _ in range(100):
                    client.open("GET", f"/bytes/{1 << 20}")
            async with H1(proxy) as first, H2(proxy) as second, h3(proxy) as third:
                for _ in range(20):
                    for client in (first, second, third):
                        answer = await client.get("/bytes/100000", seconds=5)
                        assert (answer.status, len(answer.body), answer.ended) == (200, 100_000, True)

    asyncio.run(crowd())
