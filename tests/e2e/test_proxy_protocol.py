"""The PROXY protocol, both ways: read from trusted proxies in front of a listener, and sent to backends that ask for it.

Headers come from curl (version 1) and from this file (both versions); nginx is the backend that reads ours.
"""

import asyncio
import itertools
import json
import socket
import ssl
import struct

import pytest
from support import curl
from support.authority import Authority
from support.h1 import trusting
from support.nginx import Nginx
from support.pairs import CLIENTS
from support.ports import free
from support.process import until
from support.proxy import Upstream, quoted, run
from support.streams import connect

CLIENT = "198.51.100.7"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
OVER_TCP = ["h1s", "h2"]
FAMILIES = {socket.AF_INET: 0x11, socket.AF_INET6: 0x21}
# A counter of what became of headers.
HEADERS = r'^spooky_proxy_protocol_headers_total.*result="%s"'


def v1(client=CLIENT, port=4433):
    family = "TCP6" if ":" in client else "TCP4"
    other = "2001:db8::1" if ":" in client else "203.0.113.1"
    return f"PROXY {family} {client} {other} {port} 443\r\n".encode()


def v2(client=CLIENT, port=4433, command=0x21, extensions=b""):
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    other = "2001:db8::1" if ":" in client else "203.0.113.1"
    ends = socket.inet_pton(family, client) + socket.inet_pton(family, other) + struct.pack("!HH", port, 443) + extensions
    return V2 + bytes([command, FAMILIES[family]]) + struct.pack("!H", len(ends)) + ends


LOCAL = V2 + b"\x20\0\0\0"
# Extensions of version 2 (an ALPN, and one that says nothing).
ALPN = b"\x01\0\x02h2\x04\0\0"


def inspected(answer):
    """The fields that the origin got."""
    return dict(json.loads(bytes(answer.body))["fields"])


@pytest.fixture
def behind(start, origins):
    """`behind(**keys)` starts a proxy whose listener trusts headers from 127.0.0.1; `listen` adds to the listener."""

    def begin(proxy_protocol=None, listen=None, **options):
        listen = {"proxy_protocol": {"from": ["127.0.0.1/32"], **(proxy_protocol or {})}, **(listen or {})}
        return start(Upstream("main", origins.address("main")), listen=listen, **options)

    return begin


def refused(proxy, data, source=None):
    """Whether a connection that begins like this ends without an answer, within the patience of `Raw`."""
    with socket.create_connection(proxy.address, 20, (source, 0) if source else None) as raw:
        try:
            raw.sendall(data)
            return raw.recv(1) == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize("down", OVER_TCP)
@pytest.mark.parametrize("header", ["curl", "v1", "v2", "v2-6"])
async def test_the_client_is_the_one_that_the_header_names(behind, down, header):
    proxy = behind()
    client = "2001:db8::77" if header == "v2-6" else CLIENT
    if header == "curl":
        answer = await asyncio.to_thread(curl.fetch, proxy, "/x", version=down, fields=[("x-do", "inspect")], proxied=CLIENT)
    else:
        before = v1() if header == "v1" else v2(client, extensions=ALPN)
        async with connect(down, proxy, before=before) as stream:
            answer = await stream.get("/x", ("x-do", "inspect"))
    assert answer.status == 200, answer
    assert inspected(answer)["x-forwarded-for"] == client
    line = await asyncio.to_thread(until, proxy.access, 10)
    assert line[0]["client"].rsplit(":", 1)[0].strip("[]") == client, line
    assert proxy.total(HEADERS % "client") == 1
    assert proxy.total(HEADERS % "malformed") == 0


@pytest.mark.parametrize("header", [v1(), v2(extensions=ALPN)], ids=["v1", "v2"])
def test_a_header_may_come_in_any_pieces(behind, header):
    """TLS begins in the same packet as the end of the header, or the header comes byte by byte."""
    proxy = behind()
    for pieces in (1, 5, len(header)):
        raw = socket.create_connection(proxy.address, 20)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        step = -(-len(header) // pieces)
        parts = [header[at : at + step] for at in range(0, len(header), step)]
        for part in parts[:-1]:
            raw.sendall(part)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        machine = trusting(proxy.certificate).wrap_bio(incoming, outgoing, server_hostname="localhost")
        waiting = parts[-1]

        def step_through(action, raw=raw, incoming=incoming, outgoing=outgoing):
            nonlocal waiting
            while True:
                try:
                    return action()
                except ssl.SSLWantReadError:
                    raw.sendall(waiting + outgoing.read())
                    waiting = b""
                    data = raw.recv(1 << 16)
                    assert data, "closed"
                    incoming.write(data)

        step_through(machine.do_handshake)
        machine.write(b"GET /bytes/5 HTTP/1.1\r\nhost: localhost\r\nx-do: bytes?n=5\r\nconnection: close\r\n\r\n")
        assert step_through(lambda machine=machine: machine.read(15)).startswith(b"HTTP/1.1 200")
        raw.close()
    assert proxy.total(HEADERS % "client") == 3


def test_what_is_no_header_is_closed_and_counted_and_the_next_client_is_served(behind):
    proxy = behind()
    wrong = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY " + b"x" * 200,
        V2 + b"\x21\x11\xff\xff" + bytes(60_000),
        V2 + b"\x21\x11\0\x04abcd",
    ]
    for data in wrong:
        assert refused(proxy, data), data
    assert until(lambda: proxy.total(HEADERS % "malformed") == len(wrong), 10)
    assert curl.fetch(proxy, "/bytes/5", version="h2", proxied=CLIENT).status == 200
    # No handshake was begun, so none has failed.
    assert proxy.total("^spooky_handshake_failures_total") == 0
    # Who comes without one is not served either.
    assert curl.fetch(proxy, "/bytes/5", version="h2", timeout=10).error


def test_a_header_that_does_not_come_is_waited_for_as_long_as_a_head(behind):
    proxy = behind(performance={"client_header_timeout": "500ms"})
    for data in (b"", v1()[:10], v2()[:-1]):
        with socket.create_connection(proxy.address, 20) as raw:
            raw.sendall(data)
            # Nothing is said to whom nobody knows.
            assert raw.recv(1) == b""
    assert until(lambda: proxy.total(HEADERS % "missing") == 3, 10)
    assert proxy.total(r"^spooky_connections_active") == 0
    assert proxy.total("^spooky_handshake_failures_total") == 0


async def test_others_come_without_a_header_unless_they_are_refused(behind):
    """127.0.0.2 is not one of the proxies."""
    proxy = behind()
    async with connect("h2", proxy, source="127.0.0.2") as client:
        answer = await client.get("/x", ("x-do", "inspect"))
    assert inspected(answer)["x-forwarded-for"] == "127.0.0.2"
    # Nobody else's header is believed, or read: it is what TLS makes of it.
    assert await asyncio.to_thread(refused, proxy, v1() + b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "127.0.0.2") is False
    assert proxy.total(HEADERS % "client") == 0
    # HTTP/3 has none.
    answer = await asyncio.to_thread(curl.fetch, proxy, "/x", version="h3", fields=[("x-do", "inspect")])
    assert inspected(answer)["x-forwarded-for"] == "127.0.0.1"

    closed = behind({"others": "refuse"})
    assert await asyncio.to_thread(refused, closed, b"", "127.0.0.2")
    assert await asyncio.to_thread(until, lambda: closed.total("^spooky_tcp_connections_denied_total") == 1, 10)
    answer = await asyncio.to_thread(curl.fetch, closed, "/bytes/5", version="h1s", proxied=CLIENT)
    assert answer.status == 200


async def test_lists_and_limits_look_at_the_client_and_not_at_its_proxy(behind):
    rate = '[[rate_limits]]\nname = "each"\nrequests = 1\nperiod = "24h"\n'
    listen = {"clients": {"deny": ["203.0.113.0/24"]}}
    proxy = behind(listen=listen, extra=rate, performance={"max_connections_per_address": 2})
    assert await asyncio.to_thread(refused, proxy, v1("203.0.113.9"))
    assert await asyncio.to_thread(until, lambda: proxy.total("^spooky_tcp_connections_denied_total") == 1, 10)

    asked = [("192.0.2.1", 200), ("192.0.2.1", 429), ("192.0.2.2", 200)]
    for client, status in asked:
        assert (await asyncio.to_thread(curl.fetch, proxy, "/bytes/5", version="h2", proxied=client)).status == status

    # A third of one address is refused, while the proxy has three.
    async with connect("h2", proxy, before=v1("192.0.2.3")), connect("h2", proxy, before=v2("192.0.2.3")):
        assert await asyncio.to_thread(refused, proxy, v1("192.0.2.3"))
        async with connect("h2", proxy, before=v1("192.0.2.4")) as other:
            assert (await other.get("/bytes/5")).status == 200


async def test_a_proxy_that_speaks_for_itself_is_the_client(behind):
    proxy = behind()
    for before in (LOCAL, b"PROXY UNKNOWN\r\n"):
        async with connect("h1s", proxy, before=before) as client:
            answer = await client.get("/x", ("x-do", "inspect"))
        assert inspected(answer)["x-forwarded-for"] == "127.0.0.1"
    assert proxy.total(HEADERS % "proxy") == 2
    # It is judged like any other.
    strict = behind(listen={"clients": {"allow": [f"{CLIENT}/32"]}})
    assert await asyncio.to_thread(refused, strict, LOCAL)
    async with connect("h1s", strict, before=v1()) as client:
        assert (await client.get("/bytes/5")).status == 200


WHO = """
  server {{
    listen 127.0.0.1:{http} proxy_protocol; listen 127.0.0.1:{h2c} http2 proxy_protocol;
    listen 127.0.0.1:{https} ssl proxy_protocol; listen 127.0.0.1:{h2} ssl http2 proxy_protocol;
    ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{
      echo "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port $connection";
    }}
  }}"""
UP = {"http": "http", "h2c": "h2c", "https": "https", "h2": "https"}


class Told:
    """nginx that wants to be told of clients, on a port for each way to speak to it; `address[way]`."""

    def __init__(self, folder):
        authority = Authority(folder, "told")
        cert, key = authority.server("localhost", addresses=["127.0.0.1"]).files()
        ports = {way: free() for way in UP}
        more = WHO.format(cert=cert, key=key, **ports)
        self.nginx = Nginx(folder, sizes=(1,), more=more)
        self.child = self.nginx.child
        self.address = {way: f"{scheme}://127.0.0.1:{ports[way]}" for way, scheme in UP.items()}
        self.trust = f"[upstream_tls]\nca_file = {quoted(str(authority.path))}"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    running = Told(tmp_path_factory.mktemp("told"))
    yield running
    running.nginx.stop()


def telling(start, told, way, version="v2", **options):
    upstream = Upstream("main", told.address[way], proxy_protocol=version)
    return start(upstream, extra=told.trust, cleartext="serve", **options)


def who(answer):
    """(client address, client port, our address, our port, number of the connection) as the backend has it."""
    assert answer.status == 200, answer
    return bytes(answer.body).decode().split()


@pytest.mark.parametrize(("down", "way"), list(itertools.product(CLIENTS, UP)))
async def test_backends_are_told_who_the_client_is(start, told, down, way):
    for version in ("v1", "v2"):
        proxy = telling(start, told, way, version)
        async with connect(down, proxy) as client:
            first, second = who(await client.get("/")), who(await client.get("/"))
        port = proxy.plain_port if down == "h1" else proxy.port
        assert (first[0], first[2], first[3]) == ("127.0.0.1", "127.0.0.1", str(port))
        if down != "h3":
            assert first[1] == str(client.local[1])
        # One client's requests share a connection.
        assert first == second


@pytest.mark.parametrize("way", UP)
async def test_no_connection_to_a_backend_is_of_two_clients(start, told, way):
    proxy = telling(start, told, way)
    async with connect("h2", proxy) as one, connect("h2", proxy) as two, connect("h1s", proxy) as three:
        clients, seen = [one, two, three], {}
        for _ in range(5):
            # All at once, so that what is being made is looked for, too.
            answers = await asyncio.gather(*(client.get("/") for client in clients))
            for client, answer in zip(clients, answers, strict=True):
                address, port, _, _, connection = who(answer)
                assert (address, port) == ("127.0.0.1", str(client.local[1]))
                assert seen.setdefault(connection, port) == port, "one connection, two clients"


async def test_a_full_pool_lets_the_longest_unused_go(start, told):
    proxy = telling(start, told, "http", performance={"pool_idle_connections_per_worker": 2})
    for _ in range(4):
        async with connect("h2", proxy) as client:
            first = who(await client.get("/"))
            assert who(await client.get("/")) == first
    closes = r'^spooky_backend_closes_total.*reason="pool_full"'
    idle = "^spooky_backend_connections_idle"
    assert await asyncio.to_thread(until, lambda: (proxy.total(closes), proxy.total(idle)) == (2, 2), 10)


async def test_what_a_proxy_says_is_handed_on(start, told):
    """Its client, and where that has connected to."""
    listen = {"proxy_protocol": {"from": ["127.0.0.1/32"]}}
    proxy = start(Upstream("main", told.address["http"], proxy_protocol="v1"), extra=told.trust, listen=listen)
    async with connect("h2", proxy, before=v2(port=777)) as client:
        assert who(await client.get("/"))[:4] == [CLIENT, "777", "203.0.113.1", "443"]
    async with connect("h2", proxy, before=v1("2001:db8::7", port=778)) as client:
        assert who(await client.get("/"))[:4] == ["2001:db8::7", "778", "2001:db8::1", "443"]


def test_backends_that_are_not_asked_to_be_told_are_not(start, told):
    """The header is off unless it is written: nginx then refuses what it takes for no header."""
    proxy = start(Upstream("main", told.address["http"]), extra=told.trust)
    assert curl.fetch(proxy, "/", version="h2").status == 502


def test_check_says_what_cannot_work(tmp_path):
    path = tmp_path / "it.toml"
    path.write_text("""
version = 1
[listen]
protocols = ["h3"]
tls = { cert = "c", key = "k" }
proxy_protocol = { from = ["10.0.0.0/8"] }
[upstream.default]
route = { path_prefix = "/" }
proxy_protocol = "v3"
backends = [{ id = "a", address = "http://127.0.0.1:1" }]
""")
    said = run("check", "-c", path)
    assert said.returncode == 78
    assert "`proxy_protocol` does nothing where nothing is spoken over TCP" in said.stderr
    assert "`proxy_protocol` does not know this word" in said.stderr
