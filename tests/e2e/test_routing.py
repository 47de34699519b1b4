"""Which backend gets a request, and with which path: one parse gives the path that is matched and the path that is forwarded."""

import collections
import json

import pytest
from support.curl import fetch
from support.h3 import headers
from support.proxy import Upstream


async def inspect(client, path, *fields, method="GET", **options):
    """(origin, target) of a request, or its status when it was not forwarded."""
    stream = await client.get(path, *fields, ("x-do", "inspect"), method=method, **options)
    if stream.status != 200:
        return stream.status
    seen = json.loads(bytes(stream.body))
    return seen["origin"], seen["target"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ("main", "/")),
        ("/api", ("api", "/api")),
        ("/api/", ("api", "/api/")),
        ("/api/x", ("api", "/api/x")),
        ("/apix", ("main", "/apix")),
        ("/API", ("main", "/API")),
        ("/api?x=1", ("api", "/api?x=1")),
        ("/api?", ("api", "/api?")),
        ("/x?/api", ("main", "/x?/api")),
        ("/%61pi", ("api", "/api")),
        ("/%61%70%69/x", ("api", "/api/x")),
        ("//api/x", ("api", "//api/x")),
        ("/x/../api", ("api", "/api")),
        ("/x/%2e%2e/api", ("api", "/api")),
        ("/x/%2E./api", ("api", "/api")),
        ("/./api", ("api", "/api")),
        ("/api/..", ("main", "/")),
        ("/../../api", ("api", "/api")),
        ("/a%2Fb//c", ("main", "/a%2Fb//c")),
        ("/api%2Fx", ("main", "/api%2Fx")),
        ("/a%5Cb", ("main", "/a%5Cb")),
        ("/a;b=c/d", ("main", "/a;b=c/d")),
        ("/%2561pi", ("main", "/%2561pi")),
        ("/caf%C3%A9", ("main", "/caf%C3%A9")),
        ("/a?b=%2F&c=//../x", ("main", "/a?b=%2F&c=//../x")),
        ("/api/items", ("items", "/api/items")),
        ("/api/items/1", ("items", "/api/items/1")),
        ("/api/itemsx", ("api", "/api/itemsx")),
        ("/api/other/../items/1", ("items", "/api/items/1")),
        ("/socket/x", ("unix", "/socket/x")),
        # Refused: what two parsers could read in two ways.
        ("/a\\b", 400),
        ("/a%", 400),
        ("/a%2", 400),
        ("/a%zz", 400),
        ("/a%00b", 400),
        ("/a%0ab", 400),
        ("/a%7fb", 400),
        ("/a#b", 400),
        ("/x/..;/api", 400),
        ("/x/.;a/api", 400),
        ("/x/%2e%2e;/api", 400),
    ],
)
async def test_path(proxy, h3, path, expected):
    async with h3(proxy) as client:
        assert await inspect(client, path) == expected


async def test_method_of_a_route(proxy, h3):
    async with h3(proxy) as client:
        assert await inspect(client, "/only-post", method="POST") == ("posts", "/only-post")
        # The default route takes any method on any path, this one included.
        assert await inspect(client, "/only-post", method="GET") == ("main", "/only-post")


async def test_method_that_no_route_takes(start, h3, origins):
    proxy = start(
        Upstream("put", origins.address("main"), route={"path_prefix": "/things", "method": "PUT"}),
        Upstream("post", origins.address("api"), route={"path_prefix": "/things", "method": "POST"}),
    )
    async with h3(proxy) as client:
        stream = await client.get("/things/1")
        assert stream.status == 405, stream
        assert {word.strip() for word in stream.get("allow", "").split(",")} == {"PUT", "POST"}
        assert await inspect(client, "/other") == 404
        assert await inspect(client, "/things/1", method="PUT") == ("main", "/things/1")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("hosted.origin.test", "hosted"),
        ("HOSTED.Origin.Test", "hosted"),
        ("hosted.origin.test.", "hosted"),
        ("hosted.origin.test:{port}", "hosted"),
        ("other.origin.test", "main"),
        ("xhosted.origin.test", "main"),
    ],
)
async def test_host(proxy, h3, host, origin):
    async with h3(proxy) as client:
        assert await inspect(client, "/", authority=host.format(port=proxy.port)) == (origin, "/")


def test_host_with_curl(proxy):
    response = fetch(proxy, "/inspect", host="hosted.origin.test")
    assert (response.status, response.get("x-origin")) == (200, "hosted")


async def test_wildcard_and_fallback_of_hosts(start, h3, origins):
    proxy = start(
        Upstream("any", origins.address("main")),
        Upstream("wild", origins.address("api"), route={"host": "*.origin.test", "path_prefix": "/"}),
        Upstream("deep", origins.address("items"), route={"host": "*.deep.origin.test", "path_prefix": "/"}),
        Upstream("exact", origins.address("hosted"), route={"host": "a.origin.test", "path_prefix": "/only"}),
    )
    async with h3(proxy) as client:
        assert await inspect(client, "/", authority="b.origin.test") == ("api", "/")
        assert await inspect(client, "/", authority="b.deep.origin.test") == ("items", "/")
        assert await inspect(client, "/only", authority="a.origin.test") == ("hosted", "/only")
        assert await inspect(client, "/else", authority="a.origin.test") == ("api", "/else")
        assert await inspect(client, "/", authority="elsewhere.test") == ("main", "/")


async def test_options_asterisk_matches_no_path(proxy, h3):
    async with h3(proxy) as client:
        assert await inspect(client, "*", method="OPTIONS") == 404


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_refused_methods(proxy, h3, method):
    async with h3(proxy, raw=True) as client:
        fields = client.pseudo(method=method)
        if method == "CONNECT":
            fields = [field for field in fields if field[0] in (":method", ":authority")]
        stream = await client.send_raw(headers(*fields), end=True).finish()
        assert stream.status in (403, 405, 501), stream


async def test_round_robin(proxy, h3):
    async with h3(proxy) as client:
        seen = collections.Counter([(await client.get("/spread", ("x-do", "inspect"))).get("x-origin") for _ in range(30)])
        assert seen == {"one": 10, "two": 10, "three": 10}


async def test_weights(start, h3, origins):
    backends = [
        {"id": name, "address": origins.address(name), "weight": weight}
        for name, weight in (("one", 100), ("two", 200), ("three", 700))
    ]
    proxy = start(Upstream("weighted", *backends))
    async with h3(proxy) as client:
        names = [(await client.get("/", ("x-do", "inspect"))).get("x-origin") for _ in range(100)]
        assert collections.Counter(names) == {"one": 10, "two": 20, "three": 70}
        # Smooth: the light backend's turns are spread, not saved up.
        turns = [index for index, name in enumerate(names) if name == "one"]
        assert all(5 <= later - earlier <= 15 for earlier, later in zip(turns, turns[1:], strict=False)), turns


async def test_connections_to_the_backend_are_kept(proxy, h3):
    async with h3(proxy) as client:
        connections = {(await client.get("/inspect")).get("x-connection") for _ in range(20)}
        assert len(connections) == 1
