"""Several workers: a client that moves keeps its connection, whichever worker the kernel's hash would give its new port to.

Which worker a port hashes to is found out first, by a connection from that port: Initial packets go by the hash.
"""

import asyncio
import re
import socket
import struct

import pytest
from support import content, h1
from support.curl import fetch
from support.ports import free
from support.process import until
from support.proxy import Upstream

SIZE = 12 << 20
TWO = {"worker_threads": 2, "udp_receive_buffer_bytes": "4MiB"}
SO_LOCK_FILTER = 44


def per_worker(proxy, name, label=""):
    """{worker: value} of a metric."""
    pattern = re.compile(rf'^{name}\{{worker="(\d+)".*{label}')
    values = {}
    for sample, value in proxy.metrics().items():
        if found := pattern.match(sample):
            values[int(found[1])] = values.get(int(found[1]), 0) + value
    return values


def forwarded(proxy):
    return tuple(
        sum(per_worker(proxy, "spooky_datagrams_forwarded_total", f'direction="{way}"').values()) for way in ("out", "in")
    )


def dropped(proxy):
    return proxy.total(r'^spooky_datagrams_dropped_total.*reason="(misdirected|other_process)"')


def steered(proxy):
    return proxy.total(r"^spooky_kernel_steering")


async def worker_of(proxy, h3, port):
    """The worker that the kernel's hash gives this local port to."""
    opened = await asyncio.to_thread(per_worker, proxy, "spooky_connections_opened_total")
    async with h3(proxy, local_port=port) as client:
        assert (await client.get("/bytes/1")).status == 200
        now = await asyncio.to_thread(per_worker, proxy, "spooky_connections_opened_total")
    (worker,) = [worker for worker in now if now[worker] > opened[worker]]
    await asyncio.to_thread(until, lambda: proxy.total(r"^spooky_connections_active") == 0, 10)
    return worker


async def ports_of_both(proxy, h3, count):
    """{worker: ports} with at least `count` ports for each of two workers."""
    found = {0: [], 1: []}
    for _ in range(64):
        port = free(socket.SOCK_DGRAM)
        found[await worker_of(proxy, h3, port)].append(port)
        if all(len(ports) >= count for ports in found.values()):
            return found
    raise AssertionError(f"the kernel's hash does not spread: {found}")


async def download_on_the_move(proxy, h3, ports, new_id):
    """A download that begins at the first port and goes on from the others; its stream."""
    first, *others = ports
    async with h3(proxy, local_port=first) as client:
        stream = client.open("GET", f"/bytes/{SIZE}")
        for at, port in enumerate(others, 1):
            await stream.until(lambda at=at: len(stream.body) > SIZE * at // (2 * len(others)))
            assert not stream.over, "it was over before the client moved"
            await client.move(port, new_id)
        await stream.finish(60)
        assert (stream.status, stream.ended, stream.sha256) == (200, True, content.sha256(SIZE)), stream
        return stream


@pytest.mark.parametrize("new_id", [False, True], ids=["nat", "migration"])
async def test_kernel_steers_a_client_that_moves(start, h3, origins, new_id):
    proxy = start(Upstream("main", origins.address("main")), performance=TWO)
    assert "steering=cbpf" in proxy.child.log()
    assert steered(proxy) == 1
    ports = await ports_of_both(proxy, h3, 2)
    home, away = 0, 1
    before = per_worker(proxy, "spooky_datagrams_received_total")
    route = [ports[home][0], ports[away][0], ports[away][1]]
    await download_on_the_move(proxy, h3, route, new_id)
    after = per_worker(proxy, "spooky_datagrams_received_total")
    # The hash alone would have given two thirds of them to the other worker.
    assert after[away] == before[away], "datagrams reached the other worker"
    assert after[home] > before[home] + 100
    assert forwarded(proxy) == (0, 0)
    assert dropped(proxy) == 0
    assert per_worker(proxy, "spooky_quic_events_total", 'event="migrations"') == {0: 2, 1: 0}
    # A line is written when its client has acknowledged everything.
    until(lambda: any(line["response_bytes"] == SIZE for line in proxy.access()), 10)
    (line,) = [line for line in proxy.access() if line["response_bytes"] == SIZE]
    assert line["client"].startswith("127.0.0.1:")


@pytest.mark.parametrize("new_id", [False, True], ids=["nat", "migration"])
async def test_forwarding_alone_suffices(start, h3, origins, new_id):
    """Sockets that let nobody attach a program: the kernel's hash stays, and workers hand datagrams on."""

    def locked(port):
        group = shared(port, 2)
        for one in group:
            one.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
        return group

    proxy = start(Upstream("main", origins.address("main")), performance=TWO, sockets=locked)
    log = proxy.child.log()
    assert "WARN" in log.upper() and "Operation not permitted" in log, log
    assert steered(proxy) == 0
    ports = await ports_of_both(proxy, h3, 2)
    await download_on_the_move(proxy, h3, [ports[0][0], ports[1][0], ports[1][1]], new_id)
    out, came = forwarded(proxy)
    assert out > 100 and out == came, "datagrams of the moved client did not go through the other worker"
    assert per_worker(proxy, "spooky_datagrams_forwarded_total", 'direction="in"')[1] == 0
    assert dropped(proxy) == 0
    assert per_worker(proxy, "spooky_quic_events_total", 'event="migrations"') == {0: 2, 1: 0}


async def test_sockets_in_another_order_than_the_workers(start, h3, origins):
    """The kernel steers to the wrong worker, always; forwarding mends it."""
    proxy = start(
        Upstream("main", origins.address("main")), performance=TWO, sockets=lambda port: shared(port, 2)[::-1]
    )
    assert "steering=cbpf" in proxy.child.log()
    async with h3(proxy) as client:
        stream = await client.get(f"/bytes/{SIZE}", seconds=60)
        assert (stream.status, stream.ended, stream.sha256) == (200, True, content.sha256(SIZE)), stream
    out, came = forwarded(proxy)
    assert out > 100 and out == came


def shared(port, count):
    """`count` sockets that share a port."""
    group = []
    for _ in range(count):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", port))
        group.append(one)
    return group


def alone(port):
    """One socket that shares its port with nobody."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", port))
    return [one]


@pytest.mark.parametrize("sockets", [alone, lambda port: shared(port, 1), lambda port: shared(port, 2)])
async def test_inherited_sockets_are_the_first_of_the_group(start, h3, origins, sockets):
    proxy = start(Upstream("main", origins.address("main")), performance=TWO, sockets=sockets)
    assert "steering=cbpf" in proxy.child.log()
    ports = await ports_of_both(proxy, h3, 1)
    await download_on_the_move(proxy, h3, [ports[1][0], ports[0][0]], False)
    assert forwarded(proxy) == (0, 0)


def test_one_inherited_socket_serves_one_worker(start, origins):
    proxy = start(Upstream("main", origins.address("main")), performance={"worker_threads": 1}, sockets=alone)
    assert fetch(proxy, "/bytes/1000").length == 1000
    assert steered(proxy) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sockets": lambda port: shared(port, 3)}, ["3 sockets for 2 workers", "worker_threads = 3"]),
        ({"sockets": alone, "socket_name": "other"}, ["no listener has this name", "FileDescriptorName="]),
        ({"sockets": lambda port: alone(0)}, ["it is bound to 127.0.0.1:", "ListenDatagram="]),
        (
            {"sockets": lambda port: [socket.create_server(("127.0.0.1", port))], "listen": {"protocols": ["h3"]}},
            ["its protocols take no connections", "ListenStream="],
        ),
        ({"sockets": alone, "listen": {"protocols": ["h2"]}}, ["its protocols take no datagrams", "ListenDatagram="]),
    ],
    ids=["too-many", "name", "address", "stream", "datagram"],
)
def test_inherited_sockets_that_do_not_fit_are_refused(start, origins, options, words):
    with pytest.raises(AssertionError) as refused:
        start(Upstream("main", origins.address("main")), performance=TWO, **options)
    for word in words:
        assert word in str(refused.value)


def test_an_inherited_listening_socket_is_one_of_a_group(start, origins, certificate):
    """Systemd hands over one; the other worker listens beside it, and both serve."""

    def listening(port):
        server = socket.create_server(("127.0.0.1", port))
        server.setblocking(False)
        return [server]

    sockets = {"sockets": listening}
    proxy = start(Upstream("main", origins.address("main")), performance=TWO, **sockets)
    assert fetch(proxy, "/bytes/1000").length == 1000
    for _ in range(24):
        with h1.Client(proxy.address, context=h1.trusting(certificate, "http/1.1")) as client:
            client.send("GET /bytes/7 HTTP/1.1\r\nhost: a.test\r\n\r\n")
            assert len(client.answer().body) == 7
    opened = per_worker(proxy, "spooky_connections_opened_total", 'protocol="h1"')
    assert sum(opened.values()) == 24 and len([n for n in opened.values() if n]) == 2, opened


async def test_many_clients_spread_over_workers_and_all_are_served(start, h3, origins):
    proxy = start(Upstream("main", origins.address("main")), performance={"worker_threads": 3})
    for _ in range(24):
        async with h3(proxy) as client:
            assert (await client.get("/bytes/20000")).sha256 == content.sha256(20_000)
    requests = per_worker(proxy, "spooky_requests_total", 'status="200"')
    assert sum(requests.values()) == 24 and len([n for n in requests.values() if n]) > 1, requests
    # Handshake packets too went where the connection is.
    assert dropped(proxy) == 0
    assert proxy.total(r"^spooky_workers$") == 3


async def test_an_initial_packet_that_hashes_elsewhere_is_forwarded(start, h3, origins):
    """A client that moves while it shakes hands: its Initial packets carry our connection ID, but go by the hash."""
    proxy = start(Upstream("main", origins.address("main")), performance=TWO)
    ports = await ports_of_both(proxy, h3, 1)
    async with h3(proxy, local_port=ports[0][0]) as client:
        ours = client.quic._peer_cid.cid
        assert len(ours) == 18
        # A long header as of an Initial packet; what follows is noise, which the connection drops.
        packet = b"\xc3" + struct.pack(">IB", 1, len(ours)) + ours + b"\0" * 1200
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", ports[1][0]))
            stranger.sendto(packet, proxy.address)
            await asyncio.to_thread(until, lambda: forwarded(proxy) == (1, 1), 10)
        assert (await client.get("/bytes/1")).status == 200
