"""Who may come, and how often: lists of networks on listeners and routes, and rate limits, with clients of every protocol.

That the answers are the same on every protocol, body, fields, log and counter, `test_statuses.py` shows.
"""

import asyncio
import re
import socket

import pytest
from support import content, packets
from support.h3 import Client
from support.packets import Sender
from support.pairs import every_client
from support.process import until
from support.proxy import Upstream
from support.streams import connect

ROUTE = """
[[routes]]
name = "{name}"
match = {{ path_prefix = "/{name}" }}
action = {{ upstream = "main" }}
{keys}
"""
REFUSALS = r'^spooky_rate_limit_refusals_total\{limit="%s"'


def routes(**keys):
    return "".join(ROUTE.format(name=name, keys=text) for name, text in keys.items())


def limit(name, **keys):
    return "\n".join([f'[[rate_limits]]\nname = "{name}"', *(f"{key} = {value}" for key, value in keys.items()), ""])


def started(start, origins, extra, **options):
    """A proxy that serves every protocol, with more in its configuration."""
    return start(Upstream("main", origins.address("main")), extra=extra, cleartext="serve", **options)


async def logged(proxy, **wanted):
    """The first log line with these values, once it is there."""
    fits = lambda line: all(line.get(key) == value for key, value in wanted.items())  # noqa: E731
    return (await asyncio.to_thread(until, lambda: [line for line in proxy.access() if fits(line)], 5))[0]


@every_client
async def test_a_client_over_its_rate_is_served_again_when_it_was_told(start, origins, down):
    extra = limit("per-tenant", key='"header:X-Tenant"', requests=2, period='"2s"')
    proxy = started(start, origins, extra)
    async with connect(down, proxy) as client:
        ask = lambda tenant: client.get("/bytes/5", ("x-tenant", tenant))  # noqa: E731
        assert [(await ask("a")).status for _ in range(2)] == [200, 200]
        over = await ask("a")
        assert (over.status, over.get("ratelimit-policy")) == (429, '"per-tenant";q=2;w=2'), over
        assert (over.get("retry-after"), over.get("ratelimit")) == ("1", '"per-tenant";r=0;t=1'), over
        # Another tenant has a rate of its own.
        assert (await ask("b")).status == 200
        again = await ask("a")
        while again.status == 429:
            await asyncio.sleep(int(again.get("retry-after")))
            again = await ask("a")
        assert again.status == 200
    refused = await asyncio.to_thread(proxy.total, REFUSALS % "per-tenant")
    assert refused == proxy.total(r'^spooky_refusals_total.*"rate_limited"') >= 1
    assert (await logged(proxy, status=429))["rate_limit"] == "per-tenant"
    assert "rate_limit" not in await logged(proxy, status=200)


@every_client
async def test_clients_are_told_what_is_left(start, origins, down):
    """Of two limits that tell, the one with the least left; of one that does not, nothing. A day is long enough for no count to move."""
    often = {"period": '"24h"', "headers": "true"}
    extra = routes(told="", silent="") + "".join(
        [
            limit("wide", requests=9, routes='"told"', **often),
            limit("narrow", key='"header:X-Tenant"', requests=3, burst=2, routes='"told"', **often),
            limit("quiet", requests=9, period='"24h"'),
        ]
    )
    extra += '[[routes]]\nname = "fixed"\nmatch = { path = "/told/fixed" }\naction = { respond = { status = 204 } }\n'
    extra += limit("of-fixed", requests=5, routes='"fixed"', **often)
    proxy = started(start, origins, extra)
    async with connect(down, proxy) as client:
        asked = []
        for tenant in ("a", "a", "a", "b"):
            answer = await client.get("/told/bytes/5", ("x-tenant", tenant), ("x-do", "bytes?n=5"))
            name, left, _ = answer.get("ratelimit").split(";")
            asked.append((answer.status, name, left))
            assert answer.get("ratelimit-policy").startswith(f"{name};q=")
        # The burst bounds it, and a refusal uses nothing.
        assert asked == [(200, '"narrow"', "r=1"), (200, '"narrow"', "r=0"), (429, '"narrow"', "r=0"), (200, '"narrow"', "r=1")]
        silent = await client.get("/silent/bytes/5", ("x-do", "bytes?n=5"))
        assert (silent.status, silent.get("ratelimit"), silent.get("ratelimit-policy")) == (200, None, None)
        # What the route answers itself is told, too.
        fixed = await client.get("/told/fixed")
        assert (fixed.status, fixed.get("ratelimit-policy")) == (204, '"of-fixed";q=5;w=86400')
        assert fixed.get("ratelimit").startswith('"of-fixed";r=4;t=')


@every_client
async def test_each_kind_of_key_counts_apart(start, origins, down):
    often = {"requests": 1, "period": '"24h"'}
    extra = routes(cookies="", tokens="", clients="", shared="") + "".join(
        [
            limit("by-cookie", key='"cookie:sid"', routes='"cookies"', **often),
            limit("by-token", key='"bearer_token"', routes='"tokens"', **often),
            limit("by-client", routes='"clients"', **often),
            limit("by-route", key='"route"', routes='["shared", "main"]', **often),
        ]
    )
    proxy = started(start, origins, extra + '[routing]\ntrusted_proxies = ["127.0.0.0/8"]')
    async with connect(down, proxy) as client:
        for path, field, one, other in [
            ("/cookies", "cookie", "a=1; sid=x", "a=1; sid=y"),
            ("/tokens", "authorization", "Bearer x", "Bearer y"),
            # We are a trusted proxy: the client is the one we name.
            ("/clients", "x-forwarded-for", "203.0.113.1", "203.0.113.2, 127.0.0.9"),
        ]:
            asked = [(await client.get(path, (field, value))).status for value in (one, one, other, other)]
            assert asked == [200, 429, 200, 429], path
            # Without it the address counts: ours, however often it is left out.
            assert [(await client.get(path)).status for _ in range(2)] == [200, 429], path
        # A route of its own for each, and no other.
        for path in ("/shared", "/elsewhere"):
            assert [(await client.get(path)).status for _ in range(2)] == [200, 429], path


@every_client
async def test_a_dry_run_counts_and_logs_and_refuses_nothing(start, origins, down):
    proxy = started(start, origins, limit("tried", requests=1, period='"24h"', dry_run="true"))
    async with connect(down, proxy) as client:
        assert [(await client.get(f"/bytes/{number}")).status for number in range(4)] == [200] * 4
    line = await logged(proxy, path="/bytes/3")
    assert (line["rate_limit"], line.get("reason"), line["status"]) == ("tried", None, 200)
    assert "rate_limit" not in await logged(proxy, path="/bytes/0")
    assert proxy.total(r'^spooky_rate_limit_dry_run_refusals_total\{limit="tried"') == 3
    assert proxy.total(REFUSALS % "tried") == proxy.total(r'^spooky_refusals_total.*"rate_limited"') == 0


async def test_several_workers_count_together(start, origins):
    """As many as the burst over both workers, not as many for each."""
    burst, count = 40, 16
    two = {"worker_threads": 2, "udp_receive_buffer_bytes": "4MiB"}
    proxy = started(start, origins, limit("together", requests=burst, period='"24h"'), performance=two)

    async def some(number):
        async with connect(["h1", "h1s", "h2", "h3"][number % 4], proxy) as client:
            return [(await client.get("/bytes/5")).status for _ in range(8)]

    answers = await asyncio.gather(*(some(number) for number in range(count)))
    statuses = [status for statuses in answers for status in statuses]
    # 24 h ÷ 40: the next one is allowed after half an hour.
    assert (statuses.count(200), statuses.count(429)) == (burst, count * 8 - burst)
    started_by = {name: value for name, value in proxy.metrics().items() if name.startswith("spooky_requests_started_total")}
    busy = {re.search(r'worker="(\d)"', name)[1] for name, value in started_by.items() if value > 0}
    assert busy == {"0", "1"}, "sixteen connections reached one worker only"
    assert proxy.total(REFUSALS % "together") == count * 8 - burst


@every_client
async def test_a_route_takes_the_clients_of_its_list(start, origins, down):
    inside = 'clients = { allow = ["10.0.0.0/8", "127.0.0.1"], deny = ["10.6.0.0/16"] }'
    extra = routes(inside=inside) + '[routing]\ntrusted_proxies = ["127.0.0.0/8"]'
    proxy = started(start, origins, extra)
    async with connect(down, proxy) as client:
        for forwarded, status in [
            (None, 200),
            ("10.1.2.3", 200),
            ("10.6.0.1", 403),
            ("::ffff:10.6.0.1", 403),
            ("203.0.113.9", 403),
            ("10.1.2.3, 203.0.113.9", 403),
            ("203.0.113.9, 10.1.2.3, 127.0.0.2", 200),
        ]:
            fields = [("x-forwarded-for", forwarded)] if forwarded else []
            assert (await client.get("/inside/x", *fields)).status == status, forwarded
            assert (await client.get("/elsewhere", *fields)).status == 200, forwarded
    assert (await logged(proxy, status=403))["reason"] == "address_denied"
    assert proxy.total(r'^spooky_refusals_total.*"address_denied"') == 4


# Everybody on this machine but one address.
LISTED = {"clients": {"allow": ["127.0.0.0/8"], "deny": ["127.0.0.2"]}}
DROPPED = r'^spooky_datagrams_dropped_total.*"address_denied"'
DENIED = r"^spooky_tcp_connections_denied_total"


def test_a_listener_closes_tcp_connections_of_others_before_anything_is_said(start):
    proxy = start(listen=LISTED)
    for number in range(1, 4):
        with pytest.raises(ConnectionError), socket.create_connection(proxy.address, source_address=("127.0.0.2", 0)) as denied:
            # The connection is made by the kernel; then it is reset.
            denied.settimeout(20)
            assert denied.recv(1) == b"", "something was said"
            raise ConnectionError("closed without a reset")
        until(lambda number=number: proxy.total(DENIED) == number, 5)
    assert proxy.total(r"^spooky_handshake") == 0 == proxy.total(r"^spooky_connections_opened_total")
    with socket.create_connection(proxy.address, source_address=("127.0.0.3", 0)) as allowed:
        allowed.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        # What this port says to whoever speaks HTTP to it without TLS.
        assert allowed.recv(100).startswith(b"HTTP/1.1 400")


def test_a_listener_drops_first_packets_of_others(start):
    proxy = start(listen=LISTED)
    flight = packets.first_flight(proxy.certificate)
    with Sender(proxy.address, source="127.0.0.2") as denied, Sender(proxy.address, source="127.0.0.3") as allowed:
        for datagram in flight:
            denied.send(datagram)
        until(lambda: proxy.total(DROPPED) == len(flight), 5)
        assert proxy.total(r"^spooky_connections_opened_total") == 0
        for datagram in flight:
            allowed.send(datagram)
        assert allowed.receive(10), "nothing is answered to who may come"
        # What was dropped is not answered later either: by now the proxy has had more turns.
        assert denied.receive(0.2) is None


@every_client
async def test_who_may_come_to_a_listener_is_served(start, origins, down):
    proxy = started(start, origins, "", listen=LISTED)
    async with connect(down, proxy) as client:
        assert (await client.get("/bytes/5")).status == 200
    assert proxy.total(DROPPED) + proxy.total(DENIED) == 0


async def test_a_client_that_moves_to_an_address_of_no_list_is_not_followed(start):
    proxy = start(listen=LISTED)
    size = 8 << 20
    async with Client(proxy) as client:
        stream = client.open("GET", f"/bytes/{size}")
        await stream.until(lambda: len(stream.body) > size // 8)
        await client.move(address="::ffff:127.0.0.2")
        await asyncio.to_thread(until, lambda: proxy.total(DROPPED) > 0, 10)
        assert not stream.over, "it was over before the client moved"
        await client.move()
        await stream.finish(60)
        assert (stream.status, stream.ended, stream.sha256) == (200, True, content.sha256(size)), stream
    assert "127.0.0.2" not in (await logged(proxy, path=f"/bytes/{size}"))["client"]
