"""One table of reasons: what is refused, cut or given up has the same status, the same word in the log, the same error in
Proxy-Status and the same counter on every protocol (docs/REASONS.md). `test_statuses.py` has the refusals that one proxy can show;
here are those that want a proxy of their own, what ends a response behind its head, and whether any reason was forgotten.
"""

import asyncio
import re
import socket
from pathlib import Path

import pytest
import test_statuses
from support.h1 import Client as H1
from support.h1 import trusting
from support.h3 import headers
from support.pairs import every_client
from support.ports import free
from support.process import until
from support.proxy import Upstream
from support.streams import connect

TESTS = Path(__file__).parent
PAGE = TESTS.parents[1] / "docs" / "REASONS.md"

# What no test of this kind brings about, and why.
NOT_FROM_OUTSIDE = {
    "internal": "a defect of our own",
    "no_backend": "whatever passes a backend over has a reason of its own",
    "pool_full": "the table of sockets is full: 65,536 connections of one worker",
    "upstream_status": "all other backends fill up in the pause before an attempt: `tests/simulation/resilience.rs` has it",
}
# Reasons whose stories are told elsewhere: the test that names them.
ELSEWHERE = {
    "client_head_timeout": "test_http1.py",
    "client_send_timeout": "test_http1.py",
    "brownout": "test_overload.py",
    "dns_error": "test_names.py",
    "dns_timeout": "test_names.py",
    "drain_timeout": "test_websocket.py",
    "limit_address": "test_overload.py",
    "limit_adaptive": "test_overload.py",
    "memory_pressure": "test_overload.py",
    "queue_full": "test_overload.py",
    "queue_share": "test_overload.py",
    "queue_timeout": "test_overload.py",
    "no_healthy_backend": "test_health.py",
    "tunnel_idle": "test_websocket.py",
    "upstream_no_tunnel": "test_websocket.py",
}


def table():
    """{reason: (status, error, side)} of the page, which a unit test holds to the code."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    return {reason: (int(status), error, side) for reason, status, error, side in rows}


TABLE = table()


def counted(proxy, reason):
    return proxy.total(rf'^spooky_refusals_total.*reason="{reason}"')


async def settled(proxy, reason, times=1):
    """The log lines with this reason, once there are so many, and the counter says the same."""
    lines = lambda: [line for line in proxy.access() if line.get("reason") == reason]  # noqa: E731
    await asyncio.to_thread(until, lambda: len(lines()) >= times and counted(proxy, reason) >= times, 10)
    assert (len(lines()), counted(proxy, reason)) == (times, times), lines()
    return lines()


def was_refused(stream, reason):
    """It is an answer of ours that says this."""
    status, error, _ = TABLE[reason]
    assert (stream.status, stream.ended, stream.reset) == (status, True, None), stream
    assert stream.get("proxy-status") == f"spooky; error={error}", stream.fields
    assert (stream.get("retry-after") is not None) == (status in (429, 503)), stream.fields


async def plain(client, path="/", *fields):
    return await client.get(path, *fields)


async def with_length_missing(client):
    """4,000 bytes whose length nobody says before."""
    return await client.post("/", b"x" * 4000)


async def with_more_than_queues_hold(client):
    """For a backend that reads none of it."""
    most = 32 << 20
    stream = client.open("POST", "/", ("x-do", "deaf?seconds=30"), ("content-length", str(most)), end=False)
    stream.send(b"x" * most)
    return await stream.finish(60)


class Case:
    """How a reason comes about: what the upstream is like, and what is asked. `{origin}` is the address of the origin."""

    def __init__(self, *addresses, ask=plain, warm=0, extra="", performance=None, busy=False, **keys):
        self.addresses, self.ask, self.warm, self.extra = addresses or ("{origin}",), ask, warm, extra
        self.performance, self.busy, self.keys = performance or {}, busy, keys


def doing(what):
    return lambda client: client.get("/", ("x-do", what))


GONE = "http://127.0.0.1:{gone}"
REFUSED = {
    "limit_global": Case(busy=True, performance={"global_inflight_limit": 1}),
    "limit_backend": Case(busy=True, limits={"per_backend_inflight_limit": 1}),
    "breaker_open": Case(GONE, warm=1, extra='[resilience]\ncircuit_breaker = { failures = 1, open_for = "60s" }'),
    "encoded_slash": Case(ask=lambda client: client.get("/a%2Fb"), extra='[routing]\nencoded_slash = "refuse"'),
    "request_timeout": Case(ask=doing("hang"), timeouts={"total_request_timeout": "300ms"}),
    "body_too_large": Case(ask=with_length_missing, limits={"max_request_body_bytes": 1000}),
    # Nobody connects to a broadcast address; it is one of the loopback's.
    "connect_unreachable": Case("http://127.255.255.255:80"),
    # A socket that is not for streams.
    "connect_failed": Case("unix:{datagrams}"),
    # Attempts that are used up say why the last one failed.
    "connect_refused": Case(GONE, GONE.replace("gone", "gone_too"), extra="[resilience]\nretry = { attempts = 2 }"),
    "upstream_send_timeout": Case(ask=with_more_than_queues_hold, timeouts={"backend_timeout": "1s"}),
}


@pytest.mark.parametrize("reason", REFUSED)
@every_client
async def test_what_is_refused_has_one_row(start, origins, down, reason, tag, tmp_path):
    case = REFUSED[reason]
    places = {"origin": origins.address("main"), "gone": free(), "gone_too": free(), "datagrams": tmp_path / "datagrams"}
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(str(places["datagrams"]))
    addresses = [address.format(**places) for address in case.addresses]
    performance = {"backend_timeout": "20s", **case.performance}
    proxy = start(Upstream("main", *addresses, **case.keys), performance=performance, extra=case.extra, cleartext="serve")
    async with connect(down, proxy) as other, connect(down, proxy) as client:
        for _ in range(case.warm):
            assert (await client.get("/")).status >= 500
        if case.busy:
            busy = other.open("GET", "/", ("x-do", "hang"), ("x-tag", tag))
            await asyncio.to_thread(origins.record, tag, "head")
        was_refused(await case.ask(client), reason)
        if case.busy:
            busy.abort()
    datagrams.close()
    lines = await settled(proxy, reason)
    assert lines[0]["status"] == TABLE[reason][0]


# What the origin does to end a response whose head was sent, and what else the proxy is told.
CUT = {
    "upstream_incomplete": ("cut", {}),
    "upstream_framing": ("nonsense?n=chunk-size-text", {}),
    "upstream_trailers": ("nonsense?n=trailer-bomb", {}),
    "upstream_body_idle": ("dribble?gap=20000", {"timeouts": {"backend_body_idle_timeout": "300ms"}}),
    "upstream_body_too_large": ("bytes?n=100000&framing=chunked", {"limits": {"max_response_body_bytes": 1000}}),
}


@pytest.mark.parametrize("reason", CUT)
@every_client
async def test_what_is_cut_is_no_whole_answer(start, origins, down, reason):
    """The head has left: what remains is a reset, and the same word in log and counter."""
    what, keys = CUT[reason]
    proxy = start(Upstream("main", origins.address("main"), **keys), cleartext="serve")
    async with connect(down, proxy) as client:
        stream = await client.get("/", ("x-do", what))
        assert not stream.ended, f"a whole answer: {stream}"
        assert stream.reset is not None or client.terminated is not None, stream
    await settled(proxy, reason)


# What HTTP/1.1 alone can say wrongly: (status, what is sent).
BY_BYTES = {
    "syntax": b"GET / HTTP/1.1 or so\r\nhost: a\r\n\r\n",
    "method": b"M" * 65 + b" / HTTP/1.1\r\nhost: a\r\n\r\n",
    "content_length": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1x\r\n\r\n",
    "transfer_encoding": b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
    "transfer_coding": b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "length_conflict": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    "body_framing": b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "websocket": b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n",
    "scheme": b"GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
}


@pytest.mark.parametrize("reason", BY_BYTES)
@pytest.mark.parametrize("down", ["h1", "h1s"])
async def test_bytes_of_http_1_are_refused_by_their_row(start, origins, down, reason):
    proxy = start(Upstream("main", origins.address("main")), cleartext="serve")
    context = trusting(proxy.certificate, "http/1.1") if down == "h1s" else None
    with H1(("127.0.0.1", proxy.port if context else proxy.plain_port), context=context) as client:
        client.send(BY_BYTES[reason])
        answer = await asyncio.to_thread(client.answer)
    status, error, _ = TABLE[reason]
    assert (answer.status, answer.get("proxy-status")) == (status, f"spooky; error={error}"), answer
    await settled(proxy, reason)


# Requests for tunnels that there are not.
CONNECTS = {"websocket": ("websocket", "8"), "protocol": ("connect-udp", "13")}


@pytest.mark.parametrize("reason", CONNECTS)
@pytest.mark.parametrize("down", ["h2", "h3"])
async def test_tunnels_of_other_kinds_are_refused_by_their_row(start, origins, down, reason):
    proxy = start(Upstream("main", origins.address("main")))
    protocol, version = CONNECTS[reason]
    async with connect(down, proxy, raw=True) as client:
        fields = [*client.pseudo("CONNECT", "/", authority=f"localhost:{proxy.port}"), (":protocol", protocol)]
        fields.append(("sec-websocket-version", version))
        stream = client.send_fields(fields) if down == "h2" else client.send_raw(headers(*fields))
        await stream.head()
        status, error, _ = TABLE[reason]
        assert (stream.status, stream.get("proxy-status")) == (status, f"spooky; error={error}"), stream
    await settled(proxy, reason)


# Heads that HTTP/2 and HTTP/3 can send and may not: fields beside or in place of those of a request.
MALFORMED = {
    "pseudo_field": lambda pseudo: [field for field in pseudo if field[0] != ":path"],
    "field_name": lambda pseudo: [*pseudo, ("X-Upper", "1")],
    "field_value": lambda pseudo: [*pseudo, ("x-control", "\x01")],
    "connection_field": lambda pseudo: [*pseudo, ("connection", "x")],
    "length_mismatch": lambda pseudo: [*pseudo, ("content-length", "5")],
}


@pytest.mark.parametrize("reason", MALFORMED)
async def test_malformed_heads_of_http_3_are_reset_by_their_row(start, origins, reason):
    """Over HTTP/2 the library resets them before us (docs/TESTING.md)."""
    proxy = start(Upstream("main", origins.address("main")))
    async with connect("h3", proxy, raw=True) as client:
        fields = MALFORMED[reason](client.pseudo(path="/bytes/1", authority="localhost"))
        stream = client.send_raw(headers(*fields), end=True)
        await stream.finish()
        assert (stream.status, client.terminated) == (0, None), stream
        assert 0x10E in (stream.reset, stream.stopped), stream
    await settled(proxy, reason)


# HTTP/1.1 has no word for it but to close.
GIVEN_UP = {"h1": "client_gone", "h1s": "client_gone", "h2": "client_abort", "h3": "client_abort"}


@every_client
async def test_a_client_that_gives_up_is_told_by_what_it_could_say(start, origins, down, tag):
    proxy = start(Upstream("main", origins.address("main")), cleartext="serve")
    async with connect(down, proxy) as client:
        stream = client.open("GET", "/", ("x-do", "hang"), ("x-tag", tag))
        await asyncio.to_thread(origins.record, tag, "head")
        stream.abort()
        await settled(proxy, GIVEN_UP[down])


def test_no_reason_is_forgotten():
    """Every row of the page has a test that brings it about, or stands above with why it has none."""
    assert len(TABLE) > 50
    shown = {*REFUSED, *CUT, *BY_BYTES, *CONNECTS, *MALFORMED, *GIVEN_UP.values()}
    shown |= {*test_statuses.REFUSED, *test_statuses.MALFORMED}
    for reason, file in ELSEWHERE.items():
        assert f'"{reason}"' in (TESTS / file).read_text(), (reason, file)
    told = shown | set(ELSEWHERE) | set(NOT_FROM_OUTSIDE)
    assert sorted(set(TABLE) - told) == [], "add a test that brings them about, or say in NOT_FROM_OUTSIDE why there is none"
    assert sorted(told - set(TABLE)) == [], "no such reason"
    assert set(NOT_FROM_OUTSIDE).isdisjoint(shown), "there is a test"


def test_statuses_and_errors_of_other_tests_are_those_of_the_page():
    for reason, (status, error, _) in test_statuses.REFUSED.items():
        assert TABLE[reason][:2] == (status, error), reason
