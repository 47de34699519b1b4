"""Backends that fail: other ones take their requests over, within a budget, and a circuit breaker leaves them alone."""

import asyncio

import pytest
from support.backend import Backend, read_request
from support.ports import free
from support.process import until
from support.proxy import Upstream, quoted
from support.streams import connect

PROTOCOLS = ["h1s", "h2", "h3"]


def resilience(**tables):
    """Tables of `[resilience]`."""
    return {"extra": "\n".join(["[resilience]", *(f"{name} = {quoted(keys)}" for name, keys in tables.items())])}


class Breaking(Backend):
    """A backend that closes each connection behind the head of a request."""

    def __init__(self):
        self.requests = 0

    async def serve(self, reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_idempotent_requests_go_to_another_backend(start, origins, protocol):
    async with Breaking() as breaking:
        proxy = start(Upstream("half", breaking.address, origins.address("main")))
        async with connect(protocol, proxy) as client:
            for _ in range(6):
                assert (await client.get("/bytes/100")).status == 200
        async with connect(protocol, proxy) as client:
            for _ in range(4):
                answer = await client.post("/inspect", b"x" * 5000, method="PUT")
                assert (answer.status, len(answer.body) > 0) == (200, True)
        assert breaking.requests >= 3
        # Nobody knows what became of it: it is not repeated.
        statuses = []
        for _ in range(4):
            async with connect(protocol, proxy) as client:
                statuses.append((await client.post("/inspect", b"x")).status)
        assert sorted(statuses) == [200, 200, 502, 502]
    assert proxy.total("spooky_backend_retries_total") >= 3


async def test_a_dead_backend_costs_no_answer(start, origins):
    """Connections that are refused say nothing about the request: any method is tried elsewhere, whatever the budget."""
    budget = resilience(retry_budget={"percent": 0, "min_per_sec": 0})
    proxy = start(Upstream("half", f"http://127.0.0.1:{free()}", origins.address("main")), **budget)
    async with connect("h2", proxy) as client:
        for _ in range(10):
            assert (await client.post("/inspect", b"x" * 100)).status == 200


async def test_the_budget_bounds_retries(start, origins):
    budget = resilience(retry_budget={"percent": 0, "min_per_sec": 0})
    async with Breaking() as breaking:
        proxy = start(Upstream("half", breaking.address, origins.address("main")), **budget)
        async with connect("h2", proxy) as client:
            statuses = [(await client.get("/bytes/1")).status for _ in range(10)]
    assert statuses.count(502) == 5 and statuses.count(200) == 5
    assert proxy.total("spooky_backend_retries_denied_total") == 5


class Unable(Backend):
    """A backend that answers every request 503."""

    def __init__(self):
        self.requests, self.connections = 0, 0

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while await read_request(reader):
                self.requests += 1
                writer.write(b"HTTP/1.1 503 Not Now\r\nretry-after: 7\r\nx-backend: unable\r\n")
                writer.write(b"content-length: 4\r\n\r\nbusy")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_answer_that_is_listed_is_asked_of_another_backend(start, origins, protocol):
    async with Unable() as unable:
        proxy = start(Upstream("half", unable.address, origins.address("main"), retry={"on": ["503"]}))
        async with connect(protocol, proxy) as client:
            for _ in range(6):
                assert (await client.get("/bytes/100")).status == 200
            assert (await client.post("/inspect", b"x" * 5000, method="PUT")).status == 200
            # Kept connections: what was dropped was read.
            assert unable.requests >= 3 and unable.connections < unable.requests
            answers = [await client.post("/inspect", b"x") for _ in range(2)]
            assert sorted(answer.status for answer in answers) == [200, 503]
    refused = next(answer for answer in answers if answer.status == 503)
    assert (refused.get("x-backend"), refused.get("retry-after"), bytes(refused.body)) == ("unable", "7", b"busy")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_last_answer_is_the_clients_as_it_came(start, protocol):
    async with Unable() as one, Unable() as two:
        proxy = start(Upstream("both", one.address, two.address, retry={"on": ["gateway-error"]}))
        async with connect(protocol, proxy) as client:
            answer = await client.get("/")
            assert (answer.status, answer.get("x-backend"), bytes(answer.body)) == (503, "unable", b"busy")
            assert answer.get("proxy-status") is None, "it is not ours"
        assert one.requests + two.requests == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_open_breaker_is_the_same_answer_everywhere(start, protocol):
    breaker = resilience(circuit_breaker={"failures": 3, "open_for": "60s"})
    proxy = start(Upstream("gone", f"http://127.0.0.1:{free()}"), **breaker)
    answers = []
    for _ in range(5):
        async with connect(protocol, proxy) as client:
            answers.append(await client.get("/"))
    assert [answer.status for answer in answers] == [502, 502, 502, 503, 503]
    refused = answers[-1]
    assert refused.get("proxy-status") == "spooky; error=destination_unavailable"
    assert b"breaker_open" in refused.body or refused.get("retry-after")
    assert proxy.total(r'spooky_backend_breaker_changes_total\{.*to="opened"') == 1
    assert proxy.total("spooky_backend_breakers_open") == 1
    until(lambda: [line for line in proxy.access() if line.get("reason") == "breaker_open"], 5)


async def test_a_breaker_closes_when_the_backend_is_back(start, origins):
    port = free()
    breaker = resilience(circuit_breaker={"failures": 1, "open_for": "200ms"})
    proxy = start(Upstream("late", f"http://127.0.0.1:{port}"), **breaker)
    async with connect("h2", proxy) as client:
        assert [(await client.get("/")).status for _ in range(2)] == [502, 503]

        async def answer(reader, writer):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        server = await asyncio.start_server(answer, "127.0.0.1", port)
        await asyncio.sleep(0.3)
        assert [(await client.get("/")).status for _ in range(3)] == [204] * 3
        server.close()
    assert proxy.total(r'spooky_backend_breaker_changes_total\{.*to="closed"') == 1
