"""Requests that wait for their answer are asked of a second backend, and the one that lost hears it at once."""

import asyncio
import contextlib

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived, StreamReset
from support.backend import Backend, read_request
from support.process import until
from support.proxy import Upstream
from support.streams import connect

PROTOCOLS = ["h1s", "h2", "h3"]
# Longer than a busy machine takes for an answer, so that only who is slow by intent is hedged in most cases.
HEDGED = {"delay": "300ms"}
# Much longer than any answer that is waited for.
SILENCE = 60


class Slow(Backend):
    """A backend over HTTP/1.1 that answers with its name after `pause` seconds, and notes whom nobody waits for."""

    def __init__(self, name, pause=0.0):
        self.name, self.pause = name, pause
        self.requests, self.cancelled, self.connections = [], [], 0

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                method = await read_request(reader)
                self.requests.append(method)
                if self.pause:
                    # Nothing may come but the end.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1), self.pause)
                        self.cancelled.append(method)
                        return
                body = b"" if method == "HEAD" else self.name.encode()
                head = f"HTTP/1.1 200 OK\r\nx-backend: {self.name}\r\ncontent-length: {len(self.name)}\r\n\r\n"
                writer.write(head.encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class SlowH2(Slow):
    """The same over HTTP/2 in clear; `cancelled` has the codes of RST_STREAM."""

    scheme = "h2c"

    async def serve(self, reader, writer):
        self.connections += 1
        h2 = H2Connection(H2Configuration(client_side=False))
        h2.initiate_connection()

        async def answer(stream, method):
            await asyncio.sleep(self.pause)
            h2.send_headers(stream, [(":status", "200"), ("x-backend", self.name)], end_stream=method == "HEAD")
            if method != "HEAD":
                h2.send_data(stream, self.name.encode(), end_stream=True)
            writer.write(h2.data_to_send())

        answers = {}
        writer.write(h2.data_to_send())
        try:
            while data := await reader.read(65536):
                for event in h2.receive_data(data):
                    if isinstance(event, RequestReceived):
                        method = dict(event.headers)[b":method"].decode()
                        self.requests.append(method)
                        answers[event.stream_id] = asyncio.ensure_future(answer(event.stream_id, method))
                    elif isinstance(event, StreamReset):
                        self.cancelled.append(event.error_code)
                        answers[event.stream_id].cancel()
                writer.write(h2.data_to_send())
        except ConnectionError:
            pass
        finally:
            for task in answers.values():
                task.cancel()
            writer.close()


async def settled(what, seconds=10):
    """Waits for a condition without keeping the backends from their work."""
    for _ in range(seconds * 20):
        if what():
            return
        await asyncio.sleep(0.05)
    assert what()


def nothing_runs(proxy):
    return proxy.total("spooky_requests_active") == 0


@pytest.mark.parametrize("kind", [Slow, SlowH2])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_slow_backend_is_overtaken(start, protocol, kind):
    async with kind("slow", SILENCE) as slow, kind("fast") as fast:
        proxy = start(Upstream("two", slow.address, fast.address, hedging=HEDGED))
        async with connect(protocol, proxy) as client:
            for _ in range(6):
                answer = await client.get("/")
                assert (answer.status, answer.get("x-backend")) == (200, "fast")
            asked = len(slow.requests)
            assert asked >= 2, "by turns"
            # On the wire, while the connection of the client lives on.
            await settled(lambda: len(slow.cancelled) == asked)
            if kind is SlowH2:
                assert set(slow.cancelled) == {ErrorCodes.CANCEL}
                assert slow.connections == 1, "a stream was reset, not its connection"
            await settled(lambda: nothing_runs(proxy))
        hedges, won = (proxy.total(f"spooky_backend_hedges_{what}") for what in ("total", "won_total"))
        # Where the machine held the fast one up, the hedge went to the slow one, and lost.
        assert hedges == asked and 2 <= won <= hedges
        assert proxy.total("spooky_backend_attempts_cancelled_total") == hedges
        assert proxy.total("spooky_backend_failures_total") == 0
        until(lambda: len(proxy.access()) >= 6, 5)
        told = [(line["hedge"], line["attempts"]) for line in proxy.access()]
        assert told.count((True, 2)) == won and sum(attempts - 1 for _, attempts in told) == hedges


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_is_not_safe_is_asked_once(start, protocol):
    async with Slow("one", 0.6) as one, Slow("two", 0.6) as two:
        proxy = start(Upstream("both", one.address, two.address, hedging=HEDGED))
        async with connect(protocol, proxy) as client:
            for method in ("POST", "PUT", "DELETE", "POST"):
                assert (await client.post("/", b"x" * 10, method=method)).status == 200
        assert len(one.requests) + len(two.requests) == 4
        assert proxy.total("spooky_backend_hedges_total") == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_spent_budget_permits_no_hedge(start, protocol):
    async with Slow("one", 0.6) as one, Slow("two", 0.6) as two:
        proxy = start(
            Upstream("both", one.address, two.address, hedging=HEDGED, retry_budget={"percent": 0, "min_per_sec": 0})
        )
        async with connect(protocol, proxy) as client:
            assert [(await client.get("/")).status for _ in range(2)] == [200, 200]
        assert len(one.requests) + len(two.requests) == 2
        assert proxy.total("spooky_backend_hedges_total") == 0
        assert proxy.total("spooky_backend_retries_denied_total") == 2


async def test_many_at_once_leave_nothing(start):
    """Both backends are slow at random; when all is over nobody holds anything."""
    async with SlowH2("one", 0.08) as one, Slow("two", 0.08) as two:
        proxy = start(
            Upstream(
                "both",
                one.address,
                two.address,
                hedging={"delay": "20ms"},
                retry_budget={"percent": 1000, "min_per_sec": 1000},
                circuit_breaker={"failures": 3, "open_for": "100ms"},
            )
        )
        async with connect("h2", proxy) as client:
            answers = await asyncio.gather(*(client.get("/") for _ in range(60)))
        assert {answer.status for answer in answers} == {200}
        await settled(lambda: nothing_runs(proxy))
        assert proxy.total("spooky_backend_hedges_total") > 0
        assert proxy.total("spooky_backend_breaker_changes_total") == 0, "losing is no failure"
        begun = proxy.total("spooky_backend_attempts_total")
        assert begun == 60 + proxy.total("spooky_backend_hedges_total")
        assert proxy.total("spooky_backend_attempts_cancelled_total") == proxy.total("spooky_backend_hedges_total")
