"""How backends are picked: each type by weight, from every version of HTTP, by the real binary with two workers.

What is drawn by lot has no seed here: bounds are five standard deviations, and far from what a type without weights gives.
"""

import asyncio
import collections
import contextlib

import pytest
from support.pairs import PERFORMANCE, every_client
from support.ports import free
from support.process import until
from support.proxy import Proxy, Upstream
from support.streams import connect

WEIGHTS = {"one": 100, "two": 200, "three": 700}
NAMES = list(WEIGHTS)
USERS = [f"user-{number}" for number in range(30)]


@pytest.fixture(scope="module")
def balanced(tmp_path_factory, certificate, origins):
    """One proxy, an upstream for each type; the first segment of a path chooses it."""

    def upstream(name, balancing, backends):
        backends = [
            {"id": id, "address": origins.address(id) if id in NAMES else f"http://127.0.0.1:{free()}", "weight": weight}
            for id, weight in backends.items()
        ]
        return Upstream(name, *backends, route={"path_prefix": f"/{name}"}, load_balancing=balancing)

    alike = dict.fromkeys(NAMES, 100)
    upstreams = [
        upstream("turns", {"type": "round-robin"}, WEIGHTS),
        upstream("random", {"type": "random"}, WEIGHTS),
        upstream("least", {"type": "least-connections"}, WEIGHTS),
        upstream("two-choices", {"type": "power-of-two-choices"}, {"one": 100, "two": 300}),
        upstream("latency", {"type": "latency-aware"}, {"one": 100, "dead": 700}),
        upstream("hash", {"type": "consistent-hash", "key": "header:X-User"}, alike),
        upstream("hash-weights", {"type": "consistent-hash", "key": "query:user"}, WEIGHTS),
        upstream("hash-dead", {"type": "consistent-hash", "key": "cookie:user"}, {**alike, "dead": 1000}),
        upstream("sticky", {"type": "sticky-cid"}, alike),
    ]
    performance = {**PERFORMANCE, "worker_threads": 2}
    running = Proxy(tmp_path_factory.mktemp("balanced"), certificate, upstreams, performance, cleartext="serve")
    yield running
    code = running.stop()
    assert code == 0, f"the proxy ended with {code}:\n{running.child.log()}"


async def origin(client, path, *fields):
    """Who answers a request."""
    stream = await client.get(path, ("x-do", "inspect"), *fields)
    assert stream.status == 200, stream
    return stream.get("x-origin")


async def many(balanced, down, count, path, fields=lambda at: ()):
    """How many of so many requests, one after the other on one connection, each origin answers."""
    async with connect(down, balanced) as client:
        return collections.Counter([await origin(client, path.format(at), *fields(at)) for at in range(count)])


@contextlib.asynccontextmanager
async def held(balanced, down, count, path):
    """So many responses that have begun and do not end, on one worker; how many each origin has."""
    async with contextlib.AsyncExitStack() as stack:
        streams, client = [], None
        for _ in range(count):
            # HTTP/1.1 has one request at a time.
            if client is None or down in ("h1", "h1s"):
                client = await stack.enter_async_context(connect(down, balanced))
            streams.append(await client.open("GET", path, ("x-do", "slow")).head())
        yield collections.Counter(stream.get("x-origin") for stream in streams)
    await asyncio.to_thread(until, lambda: balanced.total("^spooky_requests_active") == 0, 10)


def is_share(counts, name, weight):
    """Whether a binomial with this share gives such a count, within five standard deviations."""
    total, share = sum(counts.values()), weight / 1000
    return abs(counts[name] - total * share) <= 5 * (total * share * (1 - share)) ** 0.5


def is_by_weight(counts):
    return all(is_share(counts, name, weight) for name, weight in WEIGHTS.items())


def test_sabotage_shares_without_weights_are_seen():
    assert is_by_weight(collections.Counter(one=40, two=80, three=280))
    assert not is_by_weight(collections.Counter(one=133, two=133, three=134))


@every_client
async def test_turns_by_weight(balanced, down):
    # Both workers are in the same state or one is: a cycle of ten is exact on each.
    assert await many(balanced, down, 100, "/turns") == {"one": 10, "two": 20, "three": 70}


@every_client
async def test_random_by_weight(balanced, down):
    counts = await many(balanced, down, 400, "/random")
    assert is_by_weight(counts), counts


@pytest.mark.parametrize("down", ["h2", "h3"])
async def test_least_connections_by_weight(balanced, down):
    async with held(balanced, down, 20, "/least") as counts:
        assert counts == {"one": 2, "two": 4, "three": 14}


@every_client
async def test_idle_least_connections_by_weight(balanced, down):
    counts = await many(balanced, down, 400, "/least")
    assert is_by_weight(counts), counts


@pytest.mark.parametrize("down", ["h2", "h3"])
async def test_two_choices_by_weight(balanced, down):
    # Of two backends it always draws both.
    async with held(balanced, down, 16, "/two-choices") as counts:
        assert counts == {"one": 4, "two": 12}


@pytest.mark.parametrize("down", ["h1", "h1s"])
async def test_what_is_in_flight_counts_over_connections(balanced, down):
    """Two workers count for themselves, so which of them has a connection decides: each is by weight, within one."""
    async with held(balanced, down, 16, "/two-choices") as counts:
        assert 3 <= counts["one"] <= 5, counts


@every_client
async def test_latency_aware_leaves_a_dead_backend_alone(balanced, down):
    attempts = r'^spooky_backend_attempts_total\{.*upstream="latency",backend="dead"'
    before = await asyncio.to_thread(balanced.total, attempts)
    assert await many(balanced, down, 100, "/latency") == {"one": 100}
    after = await asyncio.to_thread(balanced.total, attempts)
    # By weight it would be seven of eight. What it costs is forgotten within a minute, and each worker finds out alone.
    assert after - before <= 6


@pytest.mark.parametrize(("status", "seconds"), [(200, 0.2), (503, 0)], ids=["slow", "refusing"])
async def test_latency_aware_prefers_the_backend_that_serves_soon(start, h3, origins, status, seconds):
    served = 0

    async def serve(reader, writer):
        nonlocal served
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                served += 1
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 %d Whatever\r\ncontent-length: 0\r\nx-origin: poor\r\n\r\n" % status)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        poor = {"id": "poor", "address": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "weight": 700}
        fast = {"id": "fast", "address": origins.address("one"), "weight": 100}
        balancing = {"type": "latency-aware"}
        # In a thread: starting waits, and the poor origin is on this loop.
        proxy = await asyncio.to_thread(lambda: start(Upstream("main", poor, fast, load_balancing=balancing)))
        async with h3(proxy) as client:
            names = collections.Counter([(await client.get("/", ("x-do", "inspect"))).get("x-origin") for _ in range(100)])
        # By weight it would be one of eight.
        assert names["one"] >= 90, names
        assert served == names["poor"]


async def test_one_user_has_one_origin_over_every_version(balanced):
    homes = collections.defaultdict(set)
    for down in ("h1", "h1s", "h2", "h3") * 2:
        async with connect(down, balanced) as client:
            for user in USERS:
                homes[user].add(await origin(client, f"/hash/{down}", ("x-user", user)))
    assert all(len(names) == 1 for names in homes.values()), homes
    # Thirty users of three alike: each gets some.
    assert {name for names in homes.values() for name in names} == set(NAMES)


@every_client
async def test_users_spread_by_weight(balanced, down):
    counts = await many(balanced, down, 400, "/hash-weights?user={}&x=1")
    assert is_by_weight(counts), counts


@every_client
async def test_without_the_key_a_lot_decides_by_weight(balanced, down):
    counts = await many(balanced, down, 400, "/hash-weights?x={}")
    assert is_by_weight(counts), counts


@every_client
async def test_users_of_a_dead_backend_have_one_origin_too(balanced, down):
    """Most of them are at home there; each goes on to the next in an order of its own."""
    homes = {}
    for _ in range(2):
        async with connect(down, balanced) as client:
            for user in USERS:
                name = await origin(client, "/hash-dead", ("cookie", f"theme=dark; user={user}"))
                assert homes.setdefault(user, name) == name
    assert set(homes.values()) == set(NAMES)


@every_client
async def test_a_connection_sticks_to_its_origin(balanced, down):
    seen = collections.Counter()
    for _ in range(20):
        async with connect(down, balanced) as client:
            names = {await origin(client, f"/sticky/{at}", ("x-user", f"{at}")) for at in range(5)}
        assert len(names) == 1, names
        seen.update(names)
    # The chance that twenty connections share one of three is a billionth.
    assert len(seen) > 1, seen


@pytest.mark.parametrize("new_id", [False, True], ids=["nat", "migration"])
async def test_a_connection_sticks_while_its_client_moves(balanced, h3, new_id):
    for _ in range(4):
        async with h3(balanced) as client:
            home = await origin(client, "/sticky")
            for _ in range(3):
                await client.move(new_id=new_id)
                assert await origin(client, "/sticky") == home
