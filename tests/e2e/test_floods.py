"""Clients that do what is legal, but without end: each flood ends with its connection, and the others notice nothing."""

import asyncio
import os
import time

import pytest
from support import h3 as wire
from support.h3 import frame, headers, varint
from support.process import until
from support.proxy import Upstream

# Frame types of RFC 9000 §19.
PADDING, PING, NEW_CONNECTION_ID, PATH_CHALLENGE = b"\x00", b"\x01", b"\x18", b"\x1a"
PROTOCOL_VIOLATION = 0x0A

# What a process may grow by under one flood: one connection's windows, and the allocator's first uses.
GROWTH = 4 << 20


async def breathe(client):
    """Lets datagrams come in: a client that never listens would miss the end."""
    space, end = client.quic._spaces[wire.Epoch.ONE_RTT], time.monotonic() + 0.2
    while not client.terminated and time.monotonic() < end:
        await asyncio.sleep(0)
        if client.quic._packet_number - space.largest_acked_packet < 256:
            return


async def resets(client):
    """Rapid reset (CVE-2023-44487): a request and its cancellation, as fast as streams are allowed."""
    for _ in range(20_000):
        number = client.quic.get_next_available_stream_id()
        if number // 4 >= client.streams_allowed():
            await client.until(lambda: client.terminated or number // 4 < client.streams_allowed())
        if client.terminated:
            return
        client.send_raw(headers(*client.pseudo(method="POST", path="/hang"))).abort()


async def malformed(client):
    for _ in range(20_000):
        number = client.quic.get_next_available_stream_id()
        if number // 4 >= client.streams_allowed():
            await client.until(lambda: client.terminated or number // 4 < client.streams_allowed())
        if client.terminated:
            return
        client.send_raw(headers(*client.pseudo(), ("X-Upper", "1")), end=True)


async def packets(client, payload, most):
    for _ in range(most // 32):
        if client.terminated:
            return
        client.send_packets(*[payload] * 32)
        await breathe(client)


async def pings(client):
    # At least four bytes, for the sample of header protection.
    await packets(client, PING + PADDING * 7, 100_000)


async def challenges(client):
    await packets(client, (PATH_CHALLENGE + os.urandom(8)) * 100, 3200)


async def data_frames(client):
    stream = client.send_raw(headers(*client.pseudo(method="POST", path="/inspect")))
    await stream_bytes(client, stream.number, frame(wire.DATA, b"a") * 4000)


async def unknown_frames(client):
    await stream_bytes(client, client.control, frame(0x21) * 4000)


async def stream_bytes(client, number, piece):
    for _ in range(500):
        if client.terminated:
            return
        client.quic.send_stream_data(number, piece)
        client.transmit()
        sender = client.quic._streams[number].sender
        await client.until(lambda: client.terminated or sender.buffer_is_empty)


async def retired_ids(client):
    """Moves to the next connection ID as soon as there is one."""
    for _ in range(5000):
        await client.until(lambda: client.terminated or client.quic._peer_cid_available)
        if client.terminated:
            return
        client.quic.change_connection_id()
        client.transmit()


def new_ids(client):
    """A new connection ID that retires all before it, again and again."""
    for sequence in range(100, 164):
        head = NEW_CONNECTION_ID + varint(sequence) + varint(sequence)
        client.send_packets(head + b"\x08" + os.urandom(8) + os.urandom(16))


FLOODS = {
    "resets": (resets, "resets"),
    "malformed": (malformed, "malformed"),
    "pings": (pings, "packets"),
    "path-challenges": (challenges, "path_challenges"),
    "data-frames": (data_frames, "frames"),
    "unknown-frames": (unknown_frames, "frames"),
    "retired-ids": (retired_ids, "connection_ids"),
}


class Bystander:
    """Another client, whose requests go on meanwhile."""

    def __init__(self, client):
        self.client, self.served, self.stop = client, 0, False

    async def run(self):
        while not self.stop:
            answer = await self.client.get("/bytes/1000")
            assert (answer.status, len(answer.body)) == (200, 1000), answer
            self.served += 1


async def beside_another(proxy, h3, flood):
    """Runs `flood(client)`; returns the code its connection was closed with."""
    async with h3(proxy) as good, h3(proxy, raw=True) as bad:
        bystander = Bystander(good)
        async with asyncio.TaskGroup() as group:
            group.create_task(bystander.run())
            await good.until(lambda: bystander.served >= 1)
            before = bystander.served
            await flood(bad)
            code = await bad.closed()
            await good.until(lambda: bystander.served > before + 1)
            bystander.stop = True
        assert good.terminated is None
        return code, bad.terminated[1]


@pytest.mark.parametrize("kind", FLOODS)
async def test_flood(start, origins, h3, kind, record_property):
    flood, word = FLOODS[kind]
    proxy = start(Upstream("main", origins.address("main")))
    async with h3(proxy) as client:
        for _ in range(50):
            assert (await client.get("/bytes/10000")).status == 200
    before = proxy.child.resident()
    assert await beside_another(proxy, h3, flood) == (wire.EXCESSIVE_LOAD, word)
    growth = proxy.child.resident() - before
    record_property("growth", growth)
    assert growth < GROWTH, f"{growth:,}"
    # What is counted is counted when the connection is gone.
    name = rf'^spooky_quic_floods_total{{.*kind="{word}"}}'
    until(lambda: proxy.total(name) == 1, 20)
    assert proxy.total(r"^spooky_quic_floods_total") == 1
    until(lambda: proxy.total(r"^spooky_requests_active") == 0, 20)


async def test_padding_flood(start, origins, h3):
    """Large packets are paid for by their bytes, and these are nothing's."""
    listen = {"quic": {"max_data": "64KiB", "max_stream_data": "64KiB"}}
    proxy = start(Upstream("main", origins.address("main")), listen=listen)

    async def padding(client):
        await packets(client, PING + PADDING * 1199, 50_000)

    assert await beside_another(proxy, h3, padding) == (wire.EXCESSIVE_LOAD, "bytes")


async def test_new_connection_ids_without_end(start, origins, h3):
    """The library bounds what it has to retire. The client may never hear of its end, for its IDs are all retired: then
    silence is what ends it."""
    proxy = start(Upstream("main", origins.address("main")), listen={"quic": {"idle_timeout": "2s"}})
    async with h3(proxy) as good, h3(proxy, raw=True) as bad:
        assert proxy.total(r"^spooky_connections_active") == 2
        new_ids(bad)
        end = time.monotonic() + wire.PATIENCE
        while proxy.total(r"^spooky_connections_active") > 1 and time.monotonic() < end:
            assert (await good.get("/bytes/1000")).status == 200
        assert proxy.total(r"^spooky_connections_active") == 1
        closed = r'^spooky_quic_closes_total{.*side="local",code="transport"|^spooky_quic_idle_closes_total'
        until(lambda: proxy.total(closed) == 1, 20)


async def test_optimistic_acknowledgements(proxy, h3):
    """The library leaves out packet numbers; who acknowledges one of them did not wait for the packets (RFC 9000 §21.4)."""

    async def optimist(client):
        space = client.quic._spaces[wire.Epoch.ONE_RTT]
        client.send_raw(headers(*client.pseudo(path=f"/bytes/{64 << 20}")), end=True)
        while not client.terminated:
            if space.largest_received_packet >= 0:
                space.ack_queue.add(0, space.largest_received_packet + 1)
            client.transmit()
            await asyncio.sleep(0)

    code, _ = await beside_another(proxy, h3, lambda client: asyncio.wait_for(optimist(client), wire.PATIENCE))
    assert code == PROTOCOL_VIOLATION


async def test_busy_client_is_no_flood(proxy, h3):
    """A thousand requests of which a tenth are cancelled, as a browser does that scrolls through pictures."""
    async with h3(proxy) as client:
        for _ in range(20):
            streams = [client.open("GET", "/bytes/2000") for _ in range(45)]
            for stream in [client.open("GET", "/hang") for _ in range(5)]:
                stream.abort()
            for stream in streams:
                assert (await stream.finish()).status == 200
        assert client.terminated is None
