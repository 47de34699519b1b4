"""Fields on the way through: what is added, what is cut, what a client may not claim."""

import json

import pytest
from support.h3 import headers
from support.pairs import every_pair
from support.ports import free
from support.proxy import Upstream
from support.streams import connect


async def forwarded(client, *fields, path="/inspect", **options):
    """The fields the backend got, as {name: [values]}."""
    stream = await client.get(path, *fields, **options)
    assert stream.status == 200, stream
    seen = {}
    for name, value in json.loads(bytes(stream.body))["fields"]:
        seen.setdefault(name, []).append(value)
    return seen


async def test_request_fields(proxy, h3):
    async with h3(proxy) as client:
        seen = await forwarded(client, ("x-mine", "1"), ("accept", "a"), ("accept", "b"), ("user-agent", "test/1"))
        assert seen["host"] == [client.authority]
        assert seen["x-mine"] == ["1"]
        assert ", ".join(seen["accept"]) == "a, b"
        assert seen["user-agent"] == ["test/1"]
        assert not [name for name in seen if name.startswith(":")]


async def test_client_identity(proxy, h3):
    async with h3(proxy) as client:
        seen = await forwarded(client)
        assert seen["x-forwarded-for"] == ["127.0.0.1"]
        assert seen["x-forwarded-proto"] == ["https"]
        assert seen["x-forwarded-host"] == [client.authority]
        assert "for=127.0.0.1" in seen["forwarded"][0] and "proto=https" in seen["forwarded"][0]
        assert len(seen["x-request-id"]) == 1
        assert len(seen["via"]) == 1 and seen["via"][0].startswith("3")


async def test_client_cannot_claim_an_identity(proxy, h3):
    claims = [
        ("forwarded", "for=10.0.0.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-evil", "1"),
        ("x-real-ip", "10.0.0.1"),
        ("client-cert", ":AAAA:"),
        ("client-cert-chain", ":AAAA:"),
        ("early-data", "1"),
        ("x_forwarded_for", "10.0.0.1"),
        ("with_underscore", "1"),
        ("x-request-id", "mine"),
    ]
    async with h3(proxy) as client:
        seen = await forwarded(client, *claims)
        text = json.dumps(seen)
        for claim in ("10.0.0.1", "gopher", "evil.test", ":AAAA:", "mine", "with_underscore", "x-forwarded-evil"):
            assert claim not in text, seen
        assert "early-data" not in seen


async def test_request_ids_differ(proxy, h3):
    async with h3(proxy) as client:
        ids = [(await forwarded(client))["x-request-id"][0] for _ in range(20)]
        assert len(set(ids)) == 20


async def test_trace_context(proxy, h3):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with h3(proxy) as client:
        seen = await forwarded(client, ("traceparent", parent), ("tracestate", "a=1"))
        assert seen["traceparent"][0].split("-")[1] == parent.split("-")[1]
        assert seen["tracestate"] == ["a=1"]
        added = (await forwarded(client))["traceparent"][0]
        assert len(added) == 55


async def test_cookie_crumbs_are_joined(proxy, h3):
    async with h3(proxy) as client:
        assert (await forwarded(client, ("cookie", "a=1"), ("cookie", "b=2")))["cookie"] == ["a=1; b=2"]


async def test_te_trailers_stays(proxy, h3):
    async with h3(proxy) as client:
        assert (await forwarded(client, ("te", "trailers"))).get("te") == ["trailers"]


async def test_max_forwards(proxy, h3):
    async with h3(proxy) as client:
        seen = await forwarded(client, ("max-forwards", "5"), method="OPTIONS")
        assert seen["max-forwards"] == ["4"]
        stream = await client.get("/inspect", ("max-forwards", "0"), method="OPTIONS")
        assert "x-origin" not in dict(stream.fields), "Max-Forwards 0 is answered here, not forwarded"


async def test_response_fields(proxy, h3):
    async with h3(proxy) as client:
        stream = await client.get("/fields")
        names = [name for name, _ in stream.fields]
        assert stream.status == 200 and bytes(stream.body) == b"fields"
        for hop in ("connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding", "x-hop", "alt-svc"):
            assert hop not in names, stream.fields
        assert stream.get("x-kept") == "yes"
        assert [v for n, v in stream.fields if n == "set-cookie"] == ["a=1", "b=2"]
        assert stream.get("server") == "origin"
        assert stream.get("date"), "Date is added when the backend sent none"
        assert names == [name.lower() for name in names]


async def test_own_answers_name_the_reason(h3, start):
    refusing = start(Upstream("gone", f"http://127.0.0.1:{free()}"))
    async with h3(refusing) as client:
        stream = await client.get("/", ("accept", "application/json"))
        assert stream.status == 502
        assert "connection_refused" in stream.get("proxy-status", ""), stream.fields
        assert stream.get("date") and len(stream.body) < 1000
        json.loads(bytes(stream.body))
        plain = await client.get("/", ("accept", "text/plain"))
        assert plain.get("content-type", "").startswith("text/plain")


@pytest.mark.parametrize("authority", ["localhost", "127.0.0.1", "[::1]:443", "a-b.origin.test:1"])
async def test_authority_is_passed_as_host(proxy, h3, authority):
    async with h3(proxy) as client:
        assert (await forwarded(client, authority=authority))["host"] == [authority]


async def test_host_field_beside_authority(proxy, h3):
    async with h3(proxy, raw=True) as client:
        same = await client.send_raw(headers(*client.pseudo(), ("host", client.authority)), end=True).finish()
        assert (same.status, same.reset) == (200, None), same
        other = await client.send_raw(headers(*client.pseudo(), ("host", "evil.test")), end=True).finish()
        assert other.reset is not None or other.status == 400, other


# The same rules for every pair of protocols.

CLAIMS = [
    ("forwarded", "for=10.0.0.1"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-proto", "gopher"),
    ("x-forwarded-host", "evil.test"),
    ("x-real-ip", "10.0.0.1"),
    ("client-cert", ":AAAA:"),
    ("early-data", "1"),
    ("x_forwarded_for", "10.0.0.1"),
    ("x-request-id", "mine"),
]
VERSION = {"h1": "1.1", "h1s": "1.1", "h2": "2", "h3": "3"}


@every_pair
async def test_request_fields_of_every_pair(pairs, down, up):
    async with connect(down, pairs.proxy) as client:
        sent = [("x-do", "inspect"), ("te", "trailers"), ("x-mine", "1"), ("max-forwards", "5"), *CLAIMS]
        sent += [("cookie", "a=1; b=2")] if down in ("h1", "h1s") else [("cookie", "a=1"), ("cookie", "b=2")]
        if down in ("h1", "h1s"):
            # What HTTP/1.1 says of its connection, and names as such; te is one of them (RFC 9110 section 10.1.4).
            sent += [("connection", "keep-alive, te, x-hop"), ("x-hop", "secret"), ("keep-alive", "5"), ("proxy-connection", "x")]
        stream = await client.get(f"/{up}/x?q=1", *sent, method="OPTIONS", authority="a.test:1")
        assert stream.status == 200, stream
        facts = json.loads(bytes(stream.body))
        seen = {}
        for name, value in facts["fields"]:
            seen.setdefault(name, []).append(value)
        scheme = "http" if down == "h1" else "https"
        assert seen.pop(":authority" if up in ("h2", "h2c") else "host") == ["a.test:1"]
        assert (facts["method"], facts["target"]) == ("OPTIONS", f"/{up}/x?q=1")
        assert seen["x-forwarded-for"] == ["127.0.0.1"]
        assert (seen["x-forwarded-proto"], seen["x-forwarded-host"]) == ([scheme], ["a.test:1"])
        assert "for=127.0.0.1" in seen["forwarded"][0] and f"proto={scheme}" in seen["forwarded"][0]
        assert seen["via"] == [f"{VERSION[down]} spooky"]
        assert seen["te"] == ["trailers"]
        assert seen["max-forwards"] == ["4"]
        assert "; ".join(seen["cookie"]) == "a=1; b=2" and (up in ("h2", "h2c") or len(seen["cookie"]) == 1)
        assert seen["x-mine"] == ["1"]
        assert len(seen["x-request-id"][0]) == 32 and len(seen["traceparent"][0]) == 55
        gone = {"client-cert", "early-data", "x_forwarded_for", "x-real-ip", "x-hop", "keep-alive", "proxy-connection"}
        assert not gone & seen.keys(), seen
        # To a backend over HTTP/1.1 the connection is ours to speak of.
        assert seen.get("connection") in ([None] if up in ("h2", "h2c") else [None, ["te"]]), seen


@every_pair
async def test_response_fields_of_every_pair(pairs, down, up):
    async with connect(down, pairs.proxy) as client:
        stream = await client.get(f"/{up}/x", ("x-do", "fields"))
        names = [name for name, _ in stream.fields]
        assert (stream.status, bytes(stream.body)) == (200, b"fields"), stream
        hop = {"connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding"}
        assert not hop & set(names), stream.fields
        # What the backend's Connection named. Over HTTP/2 there is none to name it.
        assert up in ("h2", "h2c") or "x-hop" not in names, stream.fields
        assert (stream.get("x-kept"), stream.get("server"), stream.get("content-length")) == ("yes", "origin", "6")
        assert [value for name, value in stream.fields if name == "set-cookie"] == ["a=1", "b=2"]
        assert stream.get("date")
        assert stream.get("via") == f"{'2' if up in ('h2', 'h2c') else '1.1'} spooky", stream.fields
        # The backend's own never passes; ours tells clients over TCP and TLS where HTTP/3 is.
        own = [f'h3=":{pairs.proxy.port}"; ma=86400'] if down in ("h1s", "h2") else []
        assert [value for name, value in stream.fields if name == "alt-svc"] == own, stream.fields
