"""The statuses that the proxy makes itself: provoked in the same way on every protocol, they are the same, with the same body,
Proxy-Status and counter (docs/TESTING.md has what the libraries answer before us)."""

import asyncio
import json
import re

import pytest
from support import curl
from support.authority import Authority
from support.h1 import Client as H1
from support.h1 import trusting
from support.h3 import headers
from support.origins import Origins
from support.pairs import every_client
from support.ports import black_hole, free
from support.process import until
from support.proxy import Proxy, Upstream
from support.streams import connect

PERFORMANCE = {
    "backend_connect_timeout": "300ms",
    "backend_timeout": "600ms",
    "backend_body_idle_timeout": "5s",
    "client_body_idle_timeout": "500ms",
}


POLICY = """
[resilience]
protocol = { denied_path_prefixes = ["/denied"] }
[[routes]]
name = "scarce"
match = { path_prefix = "/scarce" }
action = { upstream = "main" }
[[routes]]
name = "elsewhere"
match = { path_prefix = "/elsewhere" }
action = { upstream = "main" }
clients = { allow = ["203.0.113.0/24"] }
[[rate_limits]]
name = "a-day"
key = "route"
requests = 1
period = "24h"
routes = "scarce"
"""


class Refusing:
    """A proxy whose routes lead to every kind of trouble."""

    def __init__(self, folder, certificate, origins, hole):
        origin = origins.address("main")
        # Nobody here trusts who signed its certificate.
        self.strange = Origins(folder, "main", "strange:https", files=Authority(folder, "strangers").server("localhost", addresses=["127.0.0.1"]).files())
        authority = Authority(folder, "clients")
        policy = {"enabled": True, "ca_file": str(authority.path)}
        guarded = {"server_name": "guarded.origin.test", "cert": str(certificate.cert), "key": str(certificate.key)}

        def upstream(name, address, **keys):
            return Upstream(name, address, route={"path_prefix": f"/{name}"}, **keys)

        upstreams = [
            upstream("main", origin),
            Upstream("posts", origin, route={"path_prefix": "/posts", "method": ["POST", "PUT"]}),
            upstream("small", origin, limits={"max_request_body_bytes": 1000}),
            upstream("busy", origin, limits={"per_upstream_inflight_limit": 1}, timeouts={"backend_timeout": "20s"}),
            upstream("gone", f"http://127.0.0.1:{free()}"),
            upstream("hole", f"http://127.0.0.1:{hole}"),
            upstream("unknown", self.strange.address("strange")),
        ]
        self.proxy = Proxy(
            folder,
            certificate,
            upstreams,
            PERFORMANCE,
            cleartext="serve",
            tls={"certificates": [{**guarded, "client_auth": policy}]},
            extra=POLICY,
        )
        # The only one that this route takes for a day.
        assert curl.fetch(self.proxy, "/scarce/x").status == 200
        self.origins, self.child = origins, self.proxy.child

    def counted(self, reason):
        return self.proxy.total(rf'^spooky_refusals_total.*reason="{reason}"')


@pytest.fixture(scope="module")
def refusing(tmp_path_factory, certificate, origins):
    with black_hole() as hole:
        running = Refusing(tmp_path_factory.mktemp("statuses"), certificate, origins, hole)
        yield running
        code = running.proxy.stop()
        running.strange.stop()
        assert code == 0, running.child.log()


def asking(method="GET", path="/main/x", fields=(), body=None, authority=None):
    return {"method": method, "path": path, "fields": list(fields), "body": body, "authority": authority}


# reason of the counter and the log: (status, error of Proxy-Status, what is sent)
REFUSED = {
    "target": (400, "http_request_error", asking(path="/main/%zz")),
    "target_form": (400, "http_request_error", asking(path="*")),
    "path_denied": (403, "http_request_denied", asking(path="/%64enied/x")),
    "address_denied": (403, "http_request_denied", asking(path="/elsewhere/x")),
    "no_route": (404, "destination_not_found", asking(path="/nowhere")),
    "method_not_allowed": (405, "http_request_denied", asking(path="/posts/x")),
    "method_refused": (405, "http_request_denied", asking(method="TRACE")),
    "client_body_idle": (408, "http_request_error", asking("POST", fields=[("content-length", "10")], body=b"12345")),
    "body_too_large": (413, "http_request_denied", asking("POST", "/small/x", [("content-length", "2000")], b"x" * 2000)),
    "target_too_long": (414, "http_request_denied", asking(path="/main/" + "a" * 17_000)),
    "expectation": (417, "http_request_denied", asking(fields=[("expect", "something")])),
    "misdirected": (421, "http_request_denied", asking(authority="guarded.origin.test")),
    "rate_limited": (429, "http_request_denied", asking(path="/scarce/x")),
    "head_too_large": (431, "http_request_denied", asking(fields=[("x-long", "a" * 17_000)])),
    "too_many_fields": (431, "http_request_denied", asking(fields=[(f"x-{number}", "1") for number in range(150)])),
    "limit_upstream": (503, "connection_limit_reached", asking(path="/busy/x")),
    "connect_refused": (502, "connection_refused", asking(path="/gone/x")),
    "upstream_tls": (502, "tls_protocol_error", asking(path="/unknown/x")),
    "upstream_closed": (502, "connection_terminated", asking("POST", fields=[("x-do", "close")])),
    "upstream_reset": (502, "connection_terminated", asking("POST", fields=[("x-do", "reset?at=head")])),
    "upstream_malformed": (502, "http_protocol_error", asking(fields=[("x-do", "nonsense?n=garbage")])),
    "upstream_length": (502, "http_protocol_error", asking(fields=[("x-do", "nonsense?n=two-lengths")])),
    "upstream_coding": (502, "http_response_transfer_coding", asking(fields=[("x-do", "nonsense?n=gzip-and-chunked")])),
    "upstream_upgrade": (502, "http_upgrade_failed", asking(fields=[("x-do", "nonsense?n=unasked-101")])),
    "upstream_head_too_large": (502, "http_response_header_section_size", asking(fields=[("x-do", "nonsense?n=head-bomb")])),
    "connect_timeout": (504, "connection_timeout", asking(path="/hole/x")),
    "response_timeout": (504, "http_response_timeout", asking(fields=[("x-do", "hang")])),
}
# Known before the head is read to its end, so that nobody knows what the client accepts.
BEFORE_ACCEPT = {"target", "target_form", "method_refused", "target_too_long", "expectation", "head_too_large", "too_many_fields"}
# Where the connection has no TLS there is no identity that a request could miss.
ONLY_TLS = {"misdirected"}


async def provoke(client, asked):
    body = asked["body"]
    authority = {"authority": asked["authority"]} if asked["authority"] else {}
    fields = [("accept", "application/json"), *asked["fields"]]
    stream = client.open(asked["method"], asked["path"], *fields, end=body is None, **authority)
    if body is not None:
        stream.send(body, end=len(body) == int(dict(fields)["content-length"]))
    return await stream.finish()


@pytest.mark.parametrize("reason", REFUSED)
@every_client
async def test_refusal_is_the_same_on_every_protocol(refusing, down, reason, tag, origins):
    status, error, asked = REFUSED[reason]
    if down == "h1" and reason in ONLY_TLS:
        pytest.skip("no TLS, no identities")
    async with connect(down, refusing.proxy) as other, connect(down, refusing.proxy) as client:
        if reason == "limit_upstream":
            busy = other.open("GET", "/busy/x", ("x-do", "hang"), ("x-tag", tag))
            await asyncio.to_thread(origins.record, tag, "head")
        before = refusing.counted(reason)
        stream = await provoke(client, asked)
        if reason == "limit_upstream":
            busy.abort()
        assert (stream.status, stream.ended, stream.reset) == (status, True, None), stream
        assert stream.get("proxy-status") == f"spooky; error={error}", stream.fields
        said = bytes(stream.body).decode()
        number = re.search("[0-9a-f]{32}", said)[0]
        logged = await asyncio.to_thread(until, lambda: [line for line in refusing.proxy.access() if line["request_id"] == number], 5)
        assert (logged[0]["status"], logged[0]["reason"]) == (status, reason), logged
        if (stream.get("content-type"), reason in BEFORE_ACCEPT) == ("application/json", False):
            assert json.loads(said)["status"] == status
        else:
            assert stream.get("content-type").startswith("text/plain") and said.startswith(f"{status} "), said
        assert stream.get("content-length") == str(len(stream.body))
        assert (stream.get("allow") is not None) == (status == 405), stream.fields
        assert (stream.get("retry-after") is not None) == (status in (429, 503)), stream.fields
        await asyncio.to_thread(until, lambda: refusing.counted(reason) == before + 1, 5)
    SAID.setdefault(reason, {})[down] = (said.replace(number, "ID"), sorted(name for name, _ in stream.fields))


# What each protocol said, to be compared: collected by the tests before.
SAID = {}
# What stands in one protocol's head only: how the connection ends, and where HTTP/3 is.
OWN = {":status", "connection", "alt-svc"}


def test_bodies_and_fields_are_the_same():
    assert SAID, "this test compares what the others saw"
    for reason, answers in SAID.items():
        said = {body for body, _ in answers.values()}
        fields = {tuple(name for name in names if name not in OWN) for _, names in answers.values()}
        assert len(said) == 1 and len(fields) == 1, (reason, answers)


# reason: (authority, Host beside it). What else is malformed, the h2 crate resets before us.
MALFORMED = {"authority_mismatch": ("localhost", "evil.test"), "authority": ("user@localhost", None)}


@pytest.mark.parametrize("reason", MALFORMED)
@every_client
async def test_malformed_request_is_counted_the_same(refusing, down, reason):
    """HTTP/1.1 answers 400 and closes; HTTP/2 and HTTP/3 reset the stream (RFC 9113 section 8.1.1, RFC 9114 section 4.1.2)."""
    (authority, host), before = MALFORMED[reason], refusing.counted(reason)
    if down in ("h1", "h1s"):
        context = trusting(refusing.proxy.certificate, "http/1.1") if down == "h1s" else None
        port = refusing.proxy.port if context else refusing.proxy.plain_port
        scheme = "https" if context else "http"
        line = f"GET {scheme}://{authority}/main/x HTTP/1.1\r\nhost: {host or authority}\r\n\r\n"
        with H1(("127.0.0.1", port), context=context) as client:
            client.send(line)
            answer = await asyncio.to_thread(client.answer)
            assert (answer.status, answer.get("connection")) == (400, "close"), answer
            assert await asyncio.to_thread(client.is_closed)
    else:
        async with connect(down, refusing.proxy, raw=True) as client:
            fields = [*client.pseudo(path="/main/x", authority=authority), *([("host", host)] if host else [])]
            stream = client.send_fields(fields) if down == "h2" else client.send_raw(headers(*fields), end=True)
            await stream.finish()
            assert (stream.status, client.terminated) == (0, None), stream
            assert (1 if down == "h2" else 0x10E) in (stream.reset, stream.stopped), stream
    await asyncio.to_thread(until, lambda: refusing.counted(reason) == before + 1, 5)


async def test_connect_is_refused_over_http2(refusing):
    async with connect("h2", refusing.proxy, raw=True) as client:
        before = refusing.counted("method_refused")
        stream = await client.send_fields([(":method", "CONNECT"), (":authority", "a.test:443")]).finish()
        assert (stream.status, stream.ended) == (405, True), stream
        await asyncio.to_thread(until, lambda: refusing.counted("method_refused") == before + 1, 5)
