"""Who has proved its address and who has not: Retry, its tokens, stateless resets after a crash, limits by address, and what
half-open connections cost (RFC 9000 sections 8.1, 10.3 and 21)."""

import asyncio
import signal
import stat
import time

from support import packets
from support.curl import fetch
from support.h3 import Client
from support.packets import Sender, closed_with
from support.process import until

CONNECTION_REFUSED, INVALID_TOKEN = 0x02, 0x0B
TOKENS, RETRIES, RESETS = r"^spooky_quic_tokens_total\{.*%s", r"^spooky_quic_retries_total", r"^spooky_quic_stateless_resets_total\{.*%s"


def quic(**keys):
    return {"quic": keys}


def count(proxy, pattern, word=None):
    return proxy.total(pattern % f'"{word}"' if word else pattern)


async def served(proxy, **configuration):
    async with Client(proxy, **configuration) as client:
        answer = await client.get("/bytes/30000")
        assert (answer.status, len(answer.body)) == (200, 30_000)
        return client


def test_always_every_client_proves_its_address(start):
    proxy = start(listen=quic(retry="always"))
    client = asyncio.run(served(proxy))
    assert client.quic._retry_count == 1
    response = fetch(proxy, "/bytes/1000", timeout=10)
    assert (response.error, response.status) == (None, 200), "curl"
    assert count(proxy, RETRIES) >= 2
    assert count(proxy, TOKENS, "valid") >= 2
    assert proxy.total(r"^spooky_handshakes_total") == 2


def test_never_no_client_does(start):
    proxy = start(listen=quic(retry="never"))
    with Flood(proxy, 700):
        client = asyncio.run(served(proxy))
        assert client.quic._retry_count == 0
        assert count(proxy, RETRIES) == 0


class Flood:
    """Clients that send a first flight and fall silent."""

    def __init__(self, proxy, number):
        self.proxy, self.sender = proxy, Sender(proxy.address)
        # Made before the first is sent: a handshake lasts ten seconds, and making one takes milliseconds.
        self.flights = [packets.first_flight(proxy.certificate) for _ in range(number)]

    def __enter__(self):
        sent = 0
        for index, flight in enumerate(self.flights):
            for datagram in flight:
                self.sender.send(datagram)
            sent += len(flight)
            # Few enough for any receive buffer; then the proxy has to have seen them.
            if index % 50 == 49:
                until(lambda sent=sent: self.proxy.total(r"^spooky_datagrams_received_total") >= sent, 20)
        return self

    def __exit__(self, *error):
        self.sender.socket.close()


def test_auto_only_under_pressure(start):
    """Half of the 1,000 handshakes may be of anybody; the rest is for those who prove their address."""
    proxy = start()
    client = asyncio.run(served(proxy))
    assert (client.quic._retry_count, count(proxy, RETRIES)) == (0, 0)
    with Flood(proxy, 700):
        until(lambda: count(proxy, RETRIES) > 0, 10)
        assert proxy.total(r"^spooky_connections_active") <= 520
        client = asyncio.run(served(proxy))
        assert client.quic._retry_count == 1, "no proof was asked for"


def retry_for(proxy, sender):
    """Runs an aioquic client without a socket until it holds a token; returns it with its first datagram behind that."""
    connection, now = packets.connecting(proxy.certificate)
    for datagram, _ in connection.datagrams_to_send(now):
        sender.send(datagram)
    answer = sender.receive(10)
    assert answer and packets.is_retry(answer), "no Retry"
    connection.receive_datagram(answer, packets.SERVER, now)
    second = [data for data, _ in connection.datagrams_to_send(now)]
    assert second and connection._retry_count == 1
    return connection, second


def test_a_token_from_another_address_is_refused(start):
    proxy = start(listen=quic(retry="always"))
    with Sender(proxy.address) as one, Sender(proxy.address) as other:
        connection, datagrams = retry_for(proxy, one)
        other.send(datagrams[0])
        assert closed_with(connection, other) == INVALID_TOKEN
    assert count(proxy, TOKENS, "other_address") == 1


def test_an_altered_token_is_refused(start):
    proxy = start(listen=quic(retry="always"))
    with Sender(proxy.address) as sender:
        connection, datagrams = retry_for(proxy, sender)
        spoiled = bytearray(datagrams[0])
        token = packets.token_at(spoiled)
        spoiled[token + 9] ^= 1
        sender.send(bytes(spoiled))
        assert closed_with(connection, sender) == INVALID_TOKEN
    assert count(proxy, TOKENS, "altered") == 1


def test_an_expired_token_is_refused(start):
    """After its ten seconds, by the clock of the proxy."""
    proxy = start(listen=quic(retry="always"))
    with Sender(proxy.address) as sender:
        connection, datagrams = retry_for(proxy, sender)

        sent = time.monotonic()
        until(lambda: time.monotonic() - sent > 10.5, 60, poll=0.5)
        sender.send(datagrams[0])
        assert closed_with(connection, sender) == INVALID_TOKEN
        assert count(proxy, TOKENS, "expired") == 1


def test_a_token_is_good_in_the_next_process_and_in_one_that_shares_the_secret(start):
    first = start(listen=quic(retry="always"))
    with Sender(first.address) as sender:
        connection, datagrams = retry_for(first, sender)
        first.child.signal(signal.SIGKILL)
        first.child.wait(10)
        second = start(listen=quic(retry="always"), secret=first.secret_path, port=first.port)
        for datagram in datagrams:
            sender.send(datagram)
        until(lambda: count(second, TOKENS, "valid") >= 1, 10)
        answer = sender.receive(10)
        assert answer and not packets.is_retry(answer)
        assert count(second, RETRIES) == 0


def test_after_a_crash_old_clients_are_reset_at_once(start):
    """SIGKILL and restart with the same secret. aioquic keeps reset tokens but never compares them, so the test does: each
    connection ID that the client holds gets the reset that the old process promised for it."""
    first = start()

    async def story():
        async with Client(first) as client:
            assert (await client.get("/bytes/1000")).status == 200
            await client.until(lambda: len(client.quic._peer_cid_available) >= 1)
            held = [client.quic._peer_cid, *client.quic._peer_cid_available]
            assert all(len(cid.stateless_reset_token) == 16 for cid in held), "an ID without a token"
            seen = []
            client.protocol.datagram_received = lambda data, address: (seen.append(data), client.changed.set())
            first.child.signal(signal.SIGKILL)
            first.child.wait(10)
            second = start(secret=first.secret_path, port=first.port)
            before = len(seen)
            # The very next packet of the client is answered: no timer has to run out.
            client.open("GET", "/bytes/1000")
            await client.until(lambda: len(seen) > before, 10)
            assert seen[-1][-16:] == held[0].stateless_reset_token, "not the reset of the client's connection"
            assert seen[-1][0] & 0xC0 == 0x40
            with Sender(second.address) as sender:
                for cid in held:
                    question = bytes([0x41]) + cid.cid + bytes(100)
                    sender.send(question)
                    answer = sender.receive(10)
                    assert answer and answer[-16:] == cid.stateless_reset_token
                    assert 21 <= len(answer) < len(question)
                sender.send((bytes([0x41]) + held[0].cid + bytes(21))[:21])
                assert sender.receive(0.3) is None, "a packet of 21 bytes was answered"
            assert count(second, RESETS, "sent") >= len(held) + 1
            assert count(second, RESETS, "too_small") == 1
            return second

    second = asyncio.run(story())
    assert asyncio.run(served(second))


def test_the_secret_is_made_once_for_the_owner(start):
    proxy = start()
    made = proxy.secret_path
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert made.stat().st_size == 32
    bytes_before = made.read_bytes()
    start(secret=made)
    assert made.read_bytes() == bytes_before
    assert [path.name for path in made.parent.iterdir() if ".new" in path.name] == []


def test_a_limit_of_connections_by_address(start):
    proxy = start(performance={"max_connections_per_address": 2})

    async def story():
        async with Client(proxy) as one, Client(proxy) as two:
            assert (await one.get("/bytes/10")).status == 200
            assert (await two.get("/bytes/10")).status == 200
            with Sender(proxy.address) as sender:
                connection, now = packets.connecting(proxy.certificate)
                for datagram, _ in connection.datagrams_to_send(now):
                    sender.send(datagram)
                assert closed_with(connection, sender) == CONNECTION_REFUSED
            assert (await one.get("/bytes/10")).status == 200
        return proxy.total(r'^spooky_quic_address_refusals_total\{.*"connections"')

    assert asyncio.run(story()) >= 1
    # When they are gone, the next one may come.
    until(lambda: proxy.total(r"^spooky_connections_active") < 2, 20)
    asyncio.run(served(proxy))


def test_first_flights_with_the_address_of_another_do_not_lock_it_out(start):
    """Unproved packets are charged to nobody: the address they carry is served as before."""
    proxy = start(performance={"new_connections_per_sec": 1, "new_connections_burst": 2, "max_connections_per_address": 2})
    with Flood(proxy, 100):
        until(lambda: proxy.total(r"^spooky_connections_active") > 90, 10)
        asyncio.run(served(proxy))
        assert proxy.total(r"^spooky_quic_address_refusals_total") == 0


def test_silence_behind_a_first_flight_is_not_amplified_until_the_handshake_ends(start):
    """RFC 9000 8.1: at most three times what came, all probes of the handshake's ten seconds together."""
    proxy = start(listen=quic(retry="never"))
    flight = packets.first_flight(proxy.certificate)
    with Sender(proxy.address) as sender:
        for datagram in flight:
            sender.send(datagram)
        answers = []

        def over():
            while answer := sender.receive(0.1):
                answers.append(len(answer))
            return proxy.total(r"^spooky_connections_active") == 0 and count(proxy, r"^spooky_handshake_failures_total") >= 1

        until(over, 120)
        assert len(answers) > 1
        assert sum(answers) <= 3 * sum(map(len, flight))


# What `check` prints for connections in handshake: 1,024 × 32 KiB.
KEPT, KEPT_BYTES = 1024, 32 << 20


class Growth:
    """What the proxy keeps, beyond what it held when it had served a client."""

    def __init__(self, proxy):
        self.proxy = proxy
        asyncio.run(served(proxy))
        self.before = proxy.child.resident()

    def check(self):
        kept, grown = self.proxy.total(r"^spooky_connections_active"), self.proxy.child.resident() - self.before
        print(f"{kept:.0f} kept: {grown / 2**20:.1f} MiB, {grown / max(kept, 1) / 1024:.1f} KiB each")
        assert kept <= KEPT and grown <= KEPT_BYTES
        return kept, grown


def refused_or_displaced(proxy):
    full, dropped = r'^spooky_queue_full_total\{.*"quic_handshakes"', r'^spooky_datagrams_dropped_total\{.*"half_open_limit"'
    return proxy.total(full) + proxy.total(dropped)


def test_3000_half_open_connections_of_unproved_addresses_cost_little(start):
    """Only the first 500 are kept: those behind them are asked for a proof, and nothing is kept of them."""
    proxy = start()
    growth = Growth(proxy)
    with Flood(proxy, 3000):
        until(lambda: count(proxy, RETRIES) >= 2000, 10)
        growth.check()


def test_3000_half_open_connections_cost_32_mebibytes_at_most(start):
    """Nobody has to prove anything, so all of them come as far as the bound on handshakes."""
    proxy = start(listen=quic(retry="never"))
    growth = Growth(proxy)
    with Flood(proxy, 3000):
        growth.check()
        assert refused_or_displaced(proxy) > 0
        # Who goes on with its handshake is served as soon as the oldest has had its second.
        assert asyncio.run(served(proxy)).quic._retry_count == 0
        growth.check()


def test_3000_half_open_connections_of_proved_addresses_cost_32_mebibytes_at_most(start):
    """Clients that answer a Retry with a first flight and fall silent."""
    proxy = start(listen=quic(retry="always"))
    clients = [packets.connecting(proxy.certificate) for _ in range(3000)]
    flights = [connection.datagrams_to_send(now) for connection, now in clients]
    growth = Growth(proxy)
    most = 0
    with Sender(proxy.address) as sender:
        for index, ((connection, now), flight) in enumerate(zip(clients, flights, strict=True)):
            deadline, again = time.monotonic() + 60, 0.0
            while connection._retry_count == 0:
                assert time.monotonic() < deadline, "no Retry"
                # Among what the proxy sends to all the others again, one may be lost.
                if time.monotonic() >= again:
                    again = time.monotonic() + 1
                    for datagram, _ in flight:
                        sender.send(datagram)
                if answer := sender.receive(0.2):
                    connection.receive_datagram(answer, packets.SERVER, now)
            for datagram, _ in connection.datagrams_to_send(now):
                sender.send(datagram)
            if index % 500 == 499:
                most = max(most, growth.check()[0])
        assert count(proxy, TOKENS, "valid") >= 3000
        assert asyncio.run(served(proxy)).quic._retry_count == 1
    # A slow machine is not through with them before the first ones have had their ten seconds.
    assert most > 100
