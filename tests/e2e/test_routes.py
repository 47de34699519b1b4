"""Routes in full form over every protocol of clients: what they match beside the path, and everything that they do."""

import asyncio
import collections
import json
import subprocess

import pytest
from support.curl import fetch
from support.pairs import every_client
from support.process import until
from support.proxy import Proxy, Upstream, binary, quoted
from support.streams import connect


def route(name, action, match=None, **more):
    """One entry of [[routes]] as TOML."""
    keys = {"name": name, "match": match or {}, "action": action, **more}
    return "\n".join(["[[routes]]", *(f"{key} = {quoted(value)}" for key, value in keys.items()), ""])


def value(name, **test):
    return [{"name": name, **test}]


ROUTES = [
    route("beta", {"upstream": "api"}, {"path_prefix": "/m", "headers": value("X-Beta", exact=["1", "yes"])}),
    route("phone", {"upstream": "items"}, {"path_prefix": "/m", "headers": value("user-agent", regex="(?i).*phone.*")}),
    route("debug", {"upstream": "posts"}, {"path_prefix": "/m", "query": value("debug", present=True)}),
    route("tenant", {"upstream": "hosted"}, {"path_prefix": "/m", "cookies": value("tenant", exact="blue")}),
    route(
        "both",
        {"upstream": "one"},
        {"path_prefix": "/m", "headers": value("x-beta", exact="1"), "cookies": value("tenant", exact="blue")},
    ),
    route("proxied", {"upstream": "two"}, {"path_prefix": "/trust", "headers": value("x-forwarded-proto", exact="http")}),
    route("split", {"upstreams": [{"upstream": "one", "weight": 90}, {"upstream": "two", "weight": 10}]}, {"path_prefix": "/split"}),
    route(
        "sticky",
        {"upstreams": [{"upstream": "one"}, {"upstream": "two"}], "sticky": "cookie:session"},
        {"path_prefix": "/sticky"},
    ),
    route(
        "moved",
        {"redirect": {"location": "https://new.example/base", "status": 301, "keep_path": True, "keep_query": True}},
        {"path_prefix": "/old"},
        response_headers={"set": [{"name": "x-moved", "value": "yes"}]},
    ),
    route("here", {"redirect": {"location": "/m/", "status": 303}}, {"path": "/go"}),
    route("root", {"redirect": {"location": "/", "keep_path": True}}, {"path_prefix": "/strip"}),
    route(
        "robots",
        {"respond": {"status": 200, "body": "User-agent: *\nDisallow: /\n"}},
        {"path": "/robots.txt"},
        response_headers={"add": [{"name": "cache-control", "value": "max-age=60"}]},
    ),
    route("gone", {"respond": {"status": 410}}, {"path_prefix": "/gone"}),
    route("nothing", {"respond": {"status": 204}}, {"path_prefix": "/nothing"}),
    route(
        "json",
        {"respond": {"status": 503, "body": '{"a":1}', "content_type": "application/json"}},
        {"path_prefix": "/json"},
    ),
    route("rewritten", {"upstream": "api", "rewrite": "/internal/v2"}, {"path_prefix": "/api"}),
    route("whole", {"upstream": "api", "rewrite": "/status"}, {"path": "/ping"}),
    route("stripped", {"upstream": "api", "rewrite": "/"}, {"path_prefix": "/pub"}),
    route(
        "edited",
        {"upstream": "main"},
        {"path_prefix": "/edit"},
        request_headers={
            "remove": ["x-secret", "accept-language"],
            "set": [{"name": "x-environment", "value": "live"}, {"name": "x-forwarded-proto", "value": "gopher"}],
            "add": [{"name": "x-tag-list", "value": "edge"}],
        },
        response_headers={
            "remove": ["x-origin"],
            "set": [{"name": "content-type", "value": "text/x-facts"}, {"name": "strict-transport-security", "value": "max-age=1"}],
            "add": [{"name": "set-cookie", "value": "seen=1"}],
        },
    ),
]
EXTRA = '[resilience]\nprotocol = { denied_path_prefixes = ["/admin"] }\n\n' + "\n".join(ROUTES)


@pytest.fixture(scope="module")
def routes(tmp_path_factory, certificate, origins):
    """A proxy with every kind of route; only `main` has one in short form."""
    names = ("api", "items", "posts", "hosted", "one", "two")
    upstreams = [Upstream("main", origins.address("main"))]
    upstreams += [Upstream(name, origins.address(name), route=False) for name in names]
    running = Proxy(tmp_path_factory.mktemp("routes"), certificate, upstreams, extra=EXTRA, cleartext="serve")
    yield running
    code = running.stop()
    assert code == 0, f"the proxy ended with {code}:\n{running.child.log()}"


async def inspect(client, path, *fields, **options):
    """What the origin saw of a request."""
    stream = await client.get(path, *fields, ("x-do", "inspect"), **options)
    assert stream.status == 200, stream
    return json.loads(bytes(stream.body))


async def logged(proxy, stream):
    """The line of the access log for a stream that has an id in its answer."""
    number = stream.get("x-request-id")
    lines = await asyncio.to_thread(until, lambda: [line for line in proxy.access() if line["request_id"] == number], 5)
    return lines[0]


MATCHES = [
    ("/m", [], "main"),
    ("/m/x", [("x-beta", "1")], "api"),
    ("/m", [("x-beta", "yes")], "api"),
    ("/m", [("x-beta", "2")], "main"),
    ("/m", [("x-beta", "1x")], "main"),
    ("/m", [("x-beta", "1"), ("x-beta", "2")], "api"),
    ("/m", [("x-beta", "2"), ("x-beta", "1")], "main"),
    ("/m", [("user-agent", "SmartPhone/1")], "items"),
    ("/m", [("user-agent", "desktop")], "main"),
    ("/m?debug", [], "posts"),
    ("/m?a=1&%64ebug=0", [], "posts"),
    ("/m?xdebug=1", [], "main"),
    ("/m", [("cookie", "a=b; tenant=blue")], "hosted"),
    ("/m", [("cookie", "a=b"), ("cookie", "tenant=blue")], "hosted"),
    ("/m", [("cookie", "tenant=blues")], "main"),
    ("/m", [("cookie", "tenant=red; tenant=blue")], "main"),
    # More matchers beat fewer; of one each: exact values, patterns, presence.
    ("/m?debug", [("x-beta", "1"), ("cookie", "tenant=blue")], "one"),
    ("/m?debug", [("x-beta", "yes"), ("cookie", "tenant=blue")], "api"),
    ("/m?debug", [("user-agent", "phone"), ("cookie", "tenant=blue")], "hosted"),
    ("/m?debug", [("user-agent", "phone")], "items"),
    # What this client says of itself is not believed, and would not reach the backend either.
    ("/trust", [("x-forwarded-proto", "http")], "main"),
]


@every_client
async def test_matchers(routes, down):
    async with connect(down, routes) as client:
        for path, fields, origin in MATCHES:
            assert (await inspect(client, path, *fields))["origin"] == origin, (path, fields)


@every_client
async def test_a_trusted_proxy_s_word_is_looked_at(start, down, origins):
    proxy = start(
        Upstream("main", origins.address("main")),
        Upstream("two", origins.address("two"), route=False),
        extra='[routing]\ntrusted_proxies = ["127.0.0.1"]\n' + ROUTES[5],
        cleartext="serve",
    )
    async with connect(down, proxy) as client:
        assert (await inspect(client, "/trust", ("x-forwarded-proto", "http")))["origin"] == "two"
        assert (await inspect(client, "/trust", ("x-forwarded-proto", "https")))["origin"] == "main"


async def test_method_refused_by_routes_with_matchers(start, h3, origins):
    match = {"path_prefix": "/", "method": ["PUT", "POST"], "headers": value("x-a", present=True)}
    proxy = start(
        Upstream("main", origins.address("main"), route=False),
        extra=route("a", {"upstream": "main"}, match)
        + route("b", {"upstream": "main"}, {"path_prefix": "/", "method": "DELETE", "headers": value("x-b", present=True)}),
    )
    async with h3(proxy) as client:
        stream = await client.get("/", ("x-a", ""))
        assert (stream.status, stream.get("allow")) == (405, "POST, PUT"), stream
        stream = await client.get("/", ("x-b", ""))
        assert (stream.status, stream.get("allow")) == (405, "DELETE"), stream
        assert (await client.get("/")).status == 404


async def test_split_by_weight(routes, h3):
    def counts():
        metrics = routes.metrics()
        return [metrics[f'spooky_route_requests_total{{route="split",upstream="{name}",class="2xx"}}'] for name in ("one", "two")]

    before = counts()
    async with h3(routes) as client:
        streams = [await client.get("/split", ("x-do", "inspect")) for _ in range(400)]
        seen = collections.Counter(stream.get("x-origin") for stream in streams)
    # 40 are expected; 4.5 standard deviations of a binomial are 27.
    assert set(seen) == {"one", "two"} and 13 <= seen["two"] <= 67, seen
    # Metrics and the log tell where each went.
    def counted():
        return [int(now - then) for now, then in zip(counts(), before, strict=True)] == [seen["one"], seen["two"]]

    await asyncio.to_thread(until, counted, 5)
    lines = await asyncio.to_thread(
        until, lambda: (found := [line for line in routes.access() if line.get("route") == "split"]) and len(found) >= 400 and found, 5
    )
    assert {(line["upstream"], line["backend"]) for line in lines} == {("one", "one-0"), ("two", "two-0")}


async def test_a_sticky_key_keeps_its_upstream_on_every_protocol(routes):
    chosen = {}
    for down in ("h1", "h1s", "h2", "h3"):
        async with connect(down, routes) as client:
            for number in range(40):
                fields = [("cookie", f"theme=dark; session=user-{number}")]
                origin = (await inspect(client, "/sticky", *fields))["origin"]
                assert chosen.setdefault(number, origin) == origin, (down, number)
            # Without the cookie each request goes by its own id.
            without = {(await inspect(client, "/sticky"))["origin"] for _ in range(40)}
            assert without == {"one", "two"}
    spread = collections.Counter(chosen.values())
    assert set(spread) == {"one", "two"} and min(spread.values()) >= 8, spread


REDIRECTS = [
    ("/old", "moved", 301, "https://new.example/base"),
    ("/old/a%2Fb/?x=1&y=%20", "moved", 301, "https://new.example/base/a%2Fb/?x=1&y=%20"),
    ("/old/../old/x", "moved", 301, "https://new.example/base/x"),
    ("/go?x", "here", 303, "/m/"),
    ("/strip//evil.example/x", "root", 308, "/evil.example/x"),
    ("/strip", "root", 308, "/"),
]


@every_client
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_redirect(routes, down, method):
    answers = []
    # One connection: it goes on behind every answer.
    async with connect(down, routes) as client:
        for path, _, status, location in REDIRECTS:
            stream = await client.get(path, method=method)
            assert (stream.status, stream.get("location"), bytes(stream.body), stream.ended) == (status, location, b"", True), stream
            assert stream.get("content-length") == "0" and stream.get("date") and stream.get("proxy-status") is None
            assert stream.get("x-moved") == ("yes" if status == 301 else None)
            assert (stream.get("alt-svc") is not None) == (down in ("h1s", "h2"))
            answers.append(stream)
    for (_, name, status, _), stream in zip(REDIRECTS, answers, strict=True):
        line = await logged(routes, stream)
        assert (line["route"], line["status"], line["attempts"], line["response_bytes"]) == (name, status, 0, 0)
        assert "upstream" not in line and "reason" not in line and "backend" not in line


FIXED = [
    ("/robots.txt", "robots", 200, b"User-agent: *\nDisallow: /\n", "text/plain; charset=utf-8"),
    ("/gone/x", "gone", 410, b"", None),
    ("/nothing", "nothing", 204, b"", None),
    ("/json", "json", 503, b'{"a":1}', "application/json"),
]


def held_to(stream, status, body, kind):
    """Whether the fields of a fixed response are right."""
    assert stream.get("content-length") == (None if status == 204 else str(len(body)))
    assert stream.get("content-type") == kind and stream.get("date")
    assert stream.get("cache-control") == ("max-age=60" if status == 200 else None)
    assert stream.get("retry-after") is None and stream.get("proxy-status") is None


@every_client
async def test_fixed_response(routes, down):
    answers = []
    async with connect(down, routes) as client:
        for path, _, status, body, kind in FIXED:
            stream = await client.get(path)
            assert (stream.status, bytes(stream.body), stream.ended) == (status, body, True), stream
            held_to(stream, status, body, kind)
            answers.append(stream)
    for (_, name, status, body, _), stream in zip(FIXED, answers, strict=True):
        line = await logged(routes, stream)
        assert (line["route"], line["status"], line["response_bytes"]) == (name, status, len(body))
        assert "upstream" not in line and "reason" not in line


@every_client
def test_head_of_a_fixed_response(routes, down):
    # aioquic takes the length of a HEAD response for that of its body.
    for path, _, status, body, kind in FIXED:
        response = fetch(routes, path, version=down, method="HEAD")
        assert (response.status, response.length, response.error) == (status, 0, None)
        held_to(response, status, body, kind)


def test_answers_of_routes_are_counted(routes):
    name = 'spooky_route_requests_total{route="gone",upstream="",class="4xx"}'
    before = routes.metrics()[name]
    assert fetch(routes, "/gone").status == 410
    until(lambda: routes.metrics()[name] == before + 1, 5)


@every_client
async def test_a_body_behind_an_answer_is_not_waited_for(routes, down):
    async with connect(down, routes) as client:
        stream = client.open("POST", "/robots.txt", ("content-length", "1000000"), end=False)
        stream.send(b"x" * 1000)
        await stream.finish()
        assert (stream.status, bytes(stream.body), stream.ended) == (200, b"User-agent: *\nDisallow: /\n", True), stream
    async with connect(down, routes) as client:
        assert (await client.get("/robots.txt")).status == 200


def test_curl_follows(routes):
    for version in ("h1", "h1s", "h2", "h3"):
        response = fetch(routes, "/strip/robots.txt", version=version)
        assert (response.status, response.get("location")) == (308, "/robots.txt")
        response = fetch(routes, response.get("location"), version=version)
        assert (response.status, response.body, response.error) == (200, b"User-agent: *\nDisallow: /\n", None)


REWRITES = [
    ("/api", "/internal/v2"),
    ("/api/", "/internal/v2/"),
    ("/api/x?a=/api", "/internal/v2/x?a=/api"),
    ("/%61pi/x%2Fy;z", "/internal/v2/x%2Fy;z"),
    ("//api//x", "/internal/v2/x"),
    ("/api/../api/x/./y", "/internal/v2/x/y"),
    ("/ping?x", "/status?x"),
    ("/pub/a//b", "/a//b"),
    ("/pub", "/"),
]


@every_client
async def test_rewrite(routes, down):
    async with connect(down, routes) as client:
        for path, target in REWRITES:
            seen = await inspect(client, path)
            assert (seen["origin"], seen["target"]) == ("api", target), path


@every_client
async def test_a_rewritten_path_is_judged_again(routes, down):
    async with connect(down, routes) as client:
        for path in ("/admin/x", "/pub/admin", "/pub//admin/x", "/pub/%61dmin", "/pub/x/..%2Fadmin"):
            assert (await client.get(path)).status == 403, path
        assert (await inspect(client, "/pub/administrator"))["target"] == "/administrator"


@every_client
async def test_changes_of_fields(routes, down):
    async with connect(down, routes) as client:
        sent = [("x-secret", "1"), ("accept-language", "en"), ("x-environment", "test"), ("x-environment", "dev")]
        stream = await client.get("/edit", *sent, ("x-tag-list", "client"), ("x-do", "inspect"))
        assert stream.status == 200, stream
        seen = [(name.lower(), value) for name, value in json.loads(bytes(stream.body))["fields"]]
        values = collections.defaultdict(list)
        for name, text in seen:
            values[name].append(text)
        assert "x-secret" not in values and "accept-language" not in values
        assert values["x-environment"] == ["live"] and values["x-tag-list"] == ["client", "edge"]
        assert values["x-forwarded-proto"] == ["gopher"]
        assert stream.get("x-origin") is None and stream.get("content-type") == "text/x-facts"
        assert stream.get("strict-transport-security") == "max-age=1" and stream.get("set-cookie") == "seen=1"
        # Another route's requests and answers stay as they are.
        other = await client.get("/", *sent, ("x-do", "inspect"))
        assert other.get("x-origin") == "main" and other.get("strict-transport-security") is None


def test_check_shows_both_places_of_a_conflict(tmp_path, certificate):
    config = tmp_path / "conflict.toml"
    matches = [{"path_prefix": "/", "headers": value(name, present=True)} for name in ("x-a", "x-b")]
    config.write_text(
        "version = 1\n[listen]\n"
        f"tls = {quoted({'cert': str(certificate.cert), 'key': str(certificate.key)})}\n"
        '[upstream.a]\nbackends = [ { id = "a", address = "http://127.0.0.1:1" } ]\n'
        + "".join(route(f"r{at}", {"upstream": "a"}, match) for at, match in enumerate(matches))
    )
    done = subprocess.run([binary(), "check", "-c", config], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78, done
    shown = done.stdout + done.stderr
    assert "no rule can order the routes `r0` and `r1`" in shown and shown.count("this one") == 2, shown
