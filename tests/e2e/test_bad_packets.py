"""Datagrams no client should send: garbage, cut, doubled, shuffled, replayed, mutated, of unknown versions. They are dropped or
answered as RFC 9000 says, and counted; the `proxy` fixture asks for a good answer after every test."""

import random

import pytest
from support import packets
from support.curl import fetch
from support.packets import Sender

SEEDS = [1, 2, 3]
# Datagrams per seed; a pause after each heap keeps the kernel's receive buffer from dropping them before the proxy sees them.
COUNT, HEAP = 3000, 200


def pelt(proxy, datagrams):
    """Sends all, a good client between the heaps."""
    with Sender(proxy.address) as sender:
        for index, datagram in enumerate(datagrams):
            sender.send(datagram)
            if index % HEAP == HEAP - 1:
                response = fetch(proxy, "/bytes/100", timeout=10)
                assert (response.error, response.status) == (None, 200), f"after datagram {index}"


def dropped(proxy):
    return proxy.total(r"^spooky_datagrams_dropped_total")


@pytest.mark.parametrize("seed", SEEDS)
def test_garbage(proxy, seed):
    before, draw = dropped(proxy), random.Random(seed)
    pelt(proxy, (draw.randbytes(draw.choice([1, 2, 7, 20, 21, 40, 100, 1199, 1200, 1350, 9000])) for _ in range(COUNT)))
    assert dropped(proxy) - before > COUNT // 2, "dropped datagrams are not counted"


@pytest.mark.parametrize("seed", SEEDS)
def test_garbage_that_looks_like_quic(proxy, seed):
    draw = random.Random(seed)

    def datagram():
        ids = draw.randbytes(draw.choice([0, 1, 8, 18, 20, 21, 255])), draw.randbytes(draw.choice([0, 8, 20]))
        version = draw.choice([1, 1, 1, 0, 2, 0x6B3343CF, 0xFF00001D, draw.getrandbits(32)])
        packet = packets.long_header(version, *ids, draw.randbytes(draw.randrange(1300)), draw.choice([0xC0, 0xC3, 0xD0, 0xE0, 0xF0, 0x80]))
        short = bytes([0x40 | draw.randrange(64)]) + draw.randbytes(draw.randrange(1200))
        return draw.choice([packet, packet, short])

    pelt(proxy, (datagram() for _ in range(COUNT)))


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_first_flights(proxy, certificate, seed):
    draw = random.Random(seed)

    def datagram():
        data = bytearray(packets.first_flight(certificate)[0])
        for _ in range(draw.randrange(1, 8)):
            where = draw.randrange(min(60, len(data))) if draw.random() < 0.7 else draw.randrange(len(data))
            data[where] = draw.randrange(256)
        return bytes(data)

    pelt(proxy, (datagram() for _ in range(600)))


@pytest.mark.parametrize("seed", SEEDS)
def test_cut_first_flights(proxy, certificate, seed):
    draw, flight = random.Random(seed), packets.first_flight(certificate)[0]
    pelt(proxy, (flight[: draw.randrange(1, len(flight))] for _ in range(COUNT)))


@pytest.mark.parametrize("seed", SEEDS)
def test_replayed_and_shuffled_first_flights(proxy, certificate, seed):
    draw = random.Random(seed)
    flights = [packets.first_flight(certificate) for _ in range(50)]
    datagrams = [datagram for flight in flights for datagram in flight for _ in range(10)]
    draw.shuffle(datagrams)
    pelt(proxy, datagrams)


def test_many_half_open_handshakes_cost_little(proxy, certificate):
    """A thousand clients that never answer: each costs a connection until its idle timeout, and the next one is served."""
    before = proxy.child.resident()
    pelt(proxy, (packets.first_flight(certificate)[0] for _ in range(1000)))
    assert proxy.child.resident() - before < 150 << 20


def test_unknown_version_is_negotiated(proxy):
    with Sender(proxy.address) as sender:
        ours, theirs = b"ourselves", b"themselves"
        sender.send(packets.long_header(0x1A2A3A4A, theirs, ours, bytes(1200)))
        answer = sender.receive(5)
        assert answer, "no Version Negotiation"
        destination, source, versions = packets.negotiated(answer)
        assert (destination, source) == (ours, theirs)
        assert 1 in versions
        assert len(answer) < 1200


@pytest.mark.parametrize("length", [30, 600, 1199])
def test_small_datagram_of_an_unknown_version_gets_no_answer(proxy, length):
    """RFC 9000 5.2.2: what is smaller than the least Initial is dropped, or we would amplify."""
    with Sender(proxy.address) as sender:
        sender.send(packets.long_header(0x1A2A3A4A, b"12345678", b"87654321").ljust(length, b"\0")[:length])
        assert sender.receive(0.3) is None


def test_version_negotiation_is_never_answered(proxy):
    with Sender(proxy.address) as sender:
        sender.send(packets.long_header(0, b"12345678", b"87654321", b"\0\0\0\1").ljust(1250, b"\0"))
        assert sender.receive(0.3) is None


def test_small_initial_gets_no_answer(proxy, certificate):
    """RFC 9000 14.1: an Initial in a datagram under 1200 bytes is dropped."""
    with Sender(proxy.address) as sender:
        sender.send(packets.first_flight(certificate)[0][:1100])
        assert sender.receive(0.3) is None


def test_first_flight_is_not_amplified(proxy, certificate):
    """RFC 9000 8.1: at most three times what an unproven address sent."""
    flight = packets.first_flight(certificate)[0]
    with Sender(proxy.address) as sender:
        sender.send(flight)
        answered = 0
        while answer := sender.receive(1.5):
            answered += len(answer)
        assert 0 < answered <= 3 * len(flight)


def test_wrong_alpn(proxy):
    import asyncio

    from support.h3 import Client

    async def attempt():
        try:
            async with Client(proxy, alpn_protocols=["h9"]):
                return "connected"
        except ConnectionError:
            return "refused"

    assert asyncio.run(attempt()) == "refused"


def test_stray_packets_for_a_known_connection(proxy, certificate):
    """Short-header packets with a live connection's ID and a wrong key change nothing for it."""
    import asyncio

    from support.h3 import Client

    async def attempt():
        draw = random.Random(9)
        async with Client(proxy) as client:
            assert (await client.get("/bytes/100")).status == 200
            cid = client.quic._peer_cid.cid
            with Sender(proxy.address) as sender:
                for _ in range(1000):
                    sender.send(bytes([0x40 | draw.randrange(64)]) + cid + draw.randbytes(draw.randrange(1, 1200)))
            assert (await client.get("/bytes/100000")).status == 200
            assert client.terminated is None

    asyncio.run(attempt())
