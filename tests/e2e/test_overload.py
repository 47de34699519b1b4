"""More requests than room: who waits, who is refused and with which word, the same on every protocol."""

import asyncio
import re
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from support.backend import Backend, read_request
from support.pairs import every_client
from support.process import until
from support.proxy import Upstream, quoted
from support.streams import connect

# Behind a trusted proxy each request has the client that it names.
TRUSTING = '[routing]\ntrusted_proxies = ["127.0.0.0/8"]'
LENGTH = r"^spooky_route_queue_length\{"


def queue(**keys):
    return f"[resilience]\nroute_queue = {quoted(keys)}\n"


def of(number):
    return ("x-forwarded-for", f"203.0.113.{number}")


def narrow(start, origins, extra, performance=None, **limits):
    """A proxy before a backend that takes one request at once."""
    limits = limits or {"per_upstream_inflight_limit": 1}
    upstream = Upstream("main", origins.address("main"), limits=limits, timeouts={"backend_timeout": "60s"})
    return start(upstream, extra=extra + TRUSTING, cleartext="serve", performance=performance or {})


def refusals(proxy, reason):
    return proxy.total(rf'^spooky_refusals_total.*reason="{reason}"')


async def polled(condition, seconds=10):
    return await asyncio.to_thread(until, condition, seconds)


async def logged(proxy, **wanted):
    """The first log line with these values, once it is there."""
    fits = lambda line: all(line.get(key) == value for key, value in wanted.items())  # noqa: E731
    return (await polled(lambda: [line for line in proxy.access() if fits(line)]))[0]


@asynccontextmanager
async def occupied(proxy, origins, tag, number=99):
    """While it lasts, the backend has a request that it does not answer."""
    async with connect("h2", proxy) as other:
        hanging = other.open("GET", "/x", ("x-do", "hang"), ("x-tag", tag), of(number))
        await asyncio.to_thread(origins.record, tag, "head")
        yield
        hanging.abort()


async def check_refused(proxy, stream, status, reason, limit, path):
    """Status, fields, log line and counter of one refusal."""
    await stream.finish()
    assert (stream.status, stream.ended, stream.reset) == (status, True, None), stream
    assert stream.get("retry-after") is not None, stream.fields
    denied = status == 429 or reason in ("brownout", "memory_pressure")
    error = "http_request_denied" if denied else "connection_limit_reached"
    assert stream.get("proxy-status") == f"spooky; error={error}", stream.fields
    line = await logged(proxy, path=path)
    assert (line["status"], line["reason"], line.get("limit")) == (status, reason, limit), line
    await polled(lambda: refusals(proxy, reason) == 1)


@every_client
async def test_who_waits_is_served_when_there_is_room(start, origins, down, tag):
    proxy = narrow(start, origins, queue(max_length=8, max_wait="60s"))
    async with connect(down, proxy) as client:
        async with occupied(proxy, origins, tag):
            waiting = client.open("GET", "/bytes/7", of(1))
            await polled(lambda: proxy.total(LENGTH) == 1)
            assert waiting.status == 0 or waiting.status is None
        await waiting.finish()
        assert (waiting.status, len(waiting.body)) == (200, 7), waiting
    assert (await logged(proxy, path="/bytes/7"))["queued_us"] > 0
    assert proxy.total(LENGTH) == 0
    assert proxy.total(r"^spooky_route_queued_total\{") == 1 == proxy.total("^spooky_route_queue_wait_seconds_count")


@every_client
async def test_a_body_waits_with_its_request(start, origins, down, tag):
    proxy = narrow(start, origins, queue(max_length=8, max_wait="60s"), per_backend_inflight_limit=1)
    async with connect(down, proxy) as client:
        async with occupied(proxy, origins, tag):
            body = b"x" * 300_000
            stream = client.open("POST", "/inspect", ("content-length", str(len(body))), of(1), end=False)
            stream.send(body, end=True)
            await polled(lambda: proxy.total(LENGTH) == 1)
        await stream.finish()
        assert stream.status == 200, stream


@every_client
async def test_each_refusal_has_its_word(start, origins, down, tag):
    """A full queue, a client's full share of it, a wait that is too long, no queue, and a client with too much in flight."""
    own = """
[[routes]]
name = "short"
match = { path_prefix = "/short" }
action = { upstream = "main" }
limits = { max_queue_length = 1 }
[[routes]]
name = "none"
match = { path_prefix = "/none" }
action = { upstream = "main" }
limits = { max_queue_length = "off" }
"""
    extra = queue(max_length=8, max_length_per_address=1, max_wait="2s") + own
    proxy = narrow(start, origins, extra, performance={"max_inflight_per_address": 2})
    async with occupied(proxy, origins, tag), connect(down, proxy) as one, connect(down, proxy) as two:
        assert (await check_refused(proxy, one.open("GET", "/none/x", of(9)), 503, "limit_upstream", 1, "/none/x")) is None
        late = one.open("GET", "/short/late", of(1))
        await polled(lambda: proxy.total(LENGTH) == 1)
        await check_refused(proxy, two.open("GET", "/short/full", of(2)), 503, "queue_full", 1, "/short/full")
        await check_refused(proxy, two.open("GET", "/share", of(1)), 503, "queue_share", 1, "/share")
        # It has one in flight that waits, and one that hangs.
        async with connect(down, proxy) as third:
            await check_refused(proxy, late, 503, "queue_timeout", None, "/short/late")
            held = third.open("GET", "/held", of(99))
            await polled(lambda: proxy.total(LENGTH) == 1)
            await check_refused(proxy, two.open("GET", "/many", of(99)), 429, "limit_address", 2, "/many")
            held.abort()
    line = await logged(proxy, path="/short/late")
    assert line["queued_us"] >= 2_000_000, line
    await polled(lambda: proxy.total(LENGTH) == 0)


@every_client
async def test_who_leaves_the_queue_is_not_worked_for(start, origins, down, tag):
    proxy = narrow(start, origins, queue(max_length=8, max_wait="60s"))
    async with occupied(proxy, origins, tag):
        async with connect(down, proxy) as client:
            stream = client.open("GET", "/bytes/7", of(1))
            await polled(lambda: proxy.total(LENGTH) == 1)
            stream.abort()
            await polled(lambda: proxy.total(LENGTH) == 0)
        line = await logged(proxy, path="/bytes/7")
        assert line["reason"] in ("client_abort", "client_gone") and line["attempts"] == 0, line
    async with connect(down, proxy) as client:
        assert (await client.get("/bytes/5", of(2))).status == 200


async def test_one_client_with_many_connections_keeps_nobody_out(start, origins, tag):
    """Nine connections of HTTP/2 full of requests that last have their client's share of a backend, and no more."""
    performance = {"max_inflight_per_address": 4}
    proxy = narrow(start, origins, "", performance=performance, per_backend_inflight_limit=8)
    async with asyncio.TaskGroup() as group, connect("h2", proxy) as other:
        done = asyncio.Event()

        async def greedy():
            async with connect("h2", proxy) as client:
                streams = [client.open("GET", "/x", ("x-do", "hang"), of(1)) for _ in range(20)]
                await done.wait()
                for stream in streams:
                    if not stream.over:
                        stream.abort()

        for _ in range(9):
            group.create_task(greedy())
        await polled(lambda: refusals(proxy, "limit_address") == 9 * 20 - 4)
        assert [(await other.get("/bytes/5", of(number))).status for number in range(2, 12)] == [200] * 10
        done.set()


SCARCE = """
[[routes]]
name = "core"
match = { path_prefix = "/core" }
action = { upstream = "main" }
"""


@every_client
async def test_what_an_upstream_is_given_has_its_word(start, origins, down, tag):
    """A limit that may not move, so that one request fills it."""
    proxy = narrow(
        start,
        origins,
        "[resilience]\nadaptive_admission = { min_limit = 1, max_limit = 1 }\n",
        per_upstream_inflight_limit=8,
    )
    await polled(lambda: proxy.total(r"^spooky_upstream_adaptive_limit") == 1)
    async with occupied(proxy, origins, tag), connect(down, proxy) as client:
        assert proxy.total(r"^spooky_upstream_requests_active") == 1
        await check_refused(proxy, client.open("GET", "/more", of(1)), 503, "limit_adaptive", 1, "/more")
    await polled(lambda: proxy.total(r"^spooky_upstream_requests_active") == 0)


class Slots(Backend):
    """Works on so many requests at once, for 40 ms each; others wait for it."""

    def __init__(self, slots):
        self.slots = asyncio.Semaphore(slots)

    async def serve(self, reader, writer):
        try:
            while True:
                await read_request(reader)
                async with self.slots:
                    await asyncio.sleep(0.04)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_an_upstream_is_given_what_it_can_do(start, workers):
    """Sixty clients' requests at once, for an upstream that works on four; then few, which are all served."""
    async with Slots(4) as backend:
        proxy = start(
            Upstream("main", backend.address),
            extra="[resilience]\nadaptive_admission = { min_limit = 2 }\n",
            performance={"worker_threads": workers},
        )
        limit = lambda: proxy.total(r"^spooky_upstream_adaptive_limit")  # noqa: E731
        await polled(lambda: limit() == 64)
        over = asyncio.Event()
        statuses = Counter()

        async def greedy():
            async with connect("h2", proxy) as client:
                while not over.is_set():
                    answers = await asyncio.gather(*(client.get("/") for _ in range(15)))
                    statuses.update(answer.status for answer in answers)
                    # Refusals come at once: who asks again at once does nothing else.
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(greedy())
            try:
                # Sixty would wait for fifteen times as long as one; the limit settles below a quarter of that.
                await polled(lambda: limit() <= 15 and refusals(proxy, "limit_adaptive") > 100, 60)
            finally:
                over.set()
        assert set(statuses) == {200, 503} and statuses[200] > 50, statuses
        async with connect("h2", proxy) as client:
            assert [(await client.get("/")).status for _ in range(20)] == [200] * 20


@every_client
async def test_core_routes_are_served_in_a_brownout(start, origins, down, tag):
    """One request of two that the upstream may have is half of what there is, if it lasts."""
    brownout = {"core_routes": ["core"], "enter": 50, "enter_after": "1s", "leave": 40, "leave_after": "1s"}
    extra = f"[resilience]\nbrownout = {quoted(brownout)}\n{SCARCE}"
    proxy = narrow(start, origins, extra, per_upstream_inflight_limit=2)
    active = lambda: proxy.total(r"^spooky_brownout_active")  # noqa: E731
    async with connect(down, proxy) as client:
        assert (await client.get("/bytes/5", of(1))).status == 200
        async with occupied(proxy, origins, tag):
            await polled(lambda: active() == 1)
            await check_refused(proxy, client.open("GET", "/bytes/6", of(1)), 503, "brownout", None, "/bytes/6")
            assert (await client.get("/core", of(1))).status == 200
        await polled(lambda: active() == 0)
        assert (await client.get("/bytes/7", of(1))).status == 200
    changes = [proxy.total(rf'^spooky_brownout_changes_total\{{to="{to}"') for to in ("entered", "left")]
    assert changes == [1, 1]
    log = proxy.child.log()
    assert re.search(r"only core routes are served.*fullest=\S*upstream ", log), log


@every_client
async def test_nothing_more_is_begun_while_memory_is_short(start, origins, down, tag):
    """The process has more than the least limit from the start. One request at a time goes through even so."""
    proxy = narrow(start, origins, "", performance={"memory_soft_limit": "4MiB"}, per_upstream_inflight_limit=8)
    await polled(lambda: proxy.total(r"^spooky_memory_pressure_active") == 1)
    async with connect(down, proxy) as client:
        assert (await client.get("/bytes/5", of(1))).status == 200
        async with occupied(proxy, origins, tag):
            await check_refused(proxy, client.open("GET", "/more", of(1)), 503, "memory_pressure", None, "/more")
        await polled(lambda: proxy.total(r"^spooky_requests_active") == 0)
        assert (await client.get("/bytes/5", of(1))).status == 200
