"""The same roads for every client that we did not write: aioquic, curl (ngtcp2) and Chromium through Retry, resumption, key
updates, new addresses, other versions, client certificates, loss, small paths and IPv6. docs/TESTING.md has the table of what is
tested where, and of what a client cannot do."""

import asyncio
import contextlib

import pytest
from aioquic.tls import Epoch
from curl_cffi import Curl
from support import content
from support.authority import Authority
from support.browser import Chromium
from support.curl import fetch, is_h3
from support.process import until
from support.relay import Relay

# Long enough that what happens in the middle of it does.
SIZE = 10 << 20
# TLS alert certificate_required as a QUIC code (RFC 9001 section 4.8).
REQUIRED = 0x100 + 116
UNKNOWN_VERSION = 0x1A2A3A4A


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "clients")


def migrations(proxy):
    return proxy.total(r'^spooky_quic_events_total\{.*event="migrations"')


def resumed(proxy):
    return proxy.total(r'^spooky_handshakes_total\{.*kind="resumed"')


def packet_sizes(proxy):
    """(number, sum) of the UDP payloads that the connections' paths were found to carry."""
    return proxy.total("^spooky_quic_packet_size_bytes_count"), proxy.total("^spooky_quic_packet_size_bytes_sum")


def got(response, size=SIZE):
    """Whether curl has the whole body, over HTTP/3."""
    assert (response.error, response.status, response.length) == (None, 200, size), response.error
    assert response.sha256 == content.sha256(size) and is_h3(response)


class Visit:
    """What Chromium reports of a visit: bodies of these sizes, all over HTTP/3."""

    def __init__(self, origins, folder, tag):
        self.origins, self.folder, self.tag = origins, folder, tag

    def __call__(self, proxy, *sizes, pause=None, meanwhile=contextlib.nullcontext, **options):
        asked = f"/visit?tag={self.tag}&sizes={','.join(map(str, sizes))}" + (f"&pause={pause}" if pause else "")
        with Chromium(self.folder, proxy, asked, **options) as browser, meanwhile():
            try:
                report = self.origins.record(self.tag, until="report", seconds=90)["report"]
            except AssertionError as error:
                raise AssertionError(f"{error}\n{browser.child.log()}") from error
        expected = {str(size): content.sha256(size) for size in sizes}
        assert (report["errors"], report["hashes"]) == ([], expected)
        assert report["again"] == (expected if pause else {})
        assert report["protocols"] and set(report["protocols"]) == {"h3"}
        return browser


@pytest.fixture
def visit(origins, tmp_path, tag):
    return Visit(origins, tmp_path, tag)


# Retry (RFC 9000 section 8.1.2). aioquic and curl: test_address_validation.


def test_retry_with_chromium(start, visit):
    proxy = start(listen={"quic": {"retry": "always"}})
    visit(proxy, 1000)
    assert proxy.total("^spooky_quic_retries_total") >= 1
    # No handshake began without a token.
    handshakes = proxy.total("^spooky_handshakes_total")
    assert proxy.total(r'^spooky_quic_tokens_total\{.*"valid"') >= handshakes >= 1


# Resumption (RFC 8446 section 2.2). aioquic: test_identities.


def test_resumption_with_curl(start):
    proxy = start()
    handle = Curl()
    for connection in range(3):
        got(fetch(proxy, "/bytes/30000", handle=handle), 30_000)
        lines = until(lambda n=connection: len(proxy.access()) > n and proxy.access(), 10)
        assert lines[connection]["tls_resumed"] == (connection > 0)
    handle.close()
    assert resumed(proxy) == 2


def test_resumption_with_chromium(start, visit):
    """The connection ends of itself in the pause; the next one resumes its session."""
    proxy = start(listen={"quic": {"idle_timeout": "1s"}})
    visit(proxy, 1000, pause=4000)
    assert resumed(proxy) >= 1


# Key updates (RFC 9001 section 6).


async def test_key_updates_with_aioquic(proxy, h3):
    """The client changes its keys again and again in the middle of bodies both ways, and we follow."""
    body = content.body(1 << 20)
    async with h3(proxy) as client:
        pair = client.quic._cryptos[Epoch.ONE_RTT]
        phases = set()
        for _ in range(4):
            stream = client.open("POST", "/echo", end=False)
            stream.send(body[: len(body) // 2])
            await client.until(lambda s=stream: len(s.body) > 100_000)
            client.quic.request_key_update()
            stream.send(body[len(body) // 2 :], end=True)
            await stream.finish(60)
            assert (stream.status, stream.ended, bytes(stream.body)) == (200, True, body)
            # Both directions have changed: the client reads with the keys that it asked for.
            assert pair.recv.key_phase == pair.send.key_phase
            phases.add(pair.recv.key_phase)
        assert phases == {0, 1} and client.terminated is None


def test_key_updates_with_chromium(start, visit):
    """With a limit far below AES-GCM's, Chromium changes its keys every 64 packets."""
    limit = "QUIC.Enabled:set_quic_flags/FLAGS_quic_key_update_confidentiality_limit=64"
    more = ["--force-fieldtrials=QUIC/Enabled", f"--force-fieldtrial-params={limit}"]
    browser = visit(start(), 1000, SIZE, netlog=True, more=more)
    assert browser.events("QUIC_SESSION_KEY_UPDATE") >= 4


# New addresses (RFC 9000 section 9). aioquic, with and without a new connection ID: test_workers.


def test_nat_rebinding_with_curl(start):
    proxy = start()
    with Relay(proxy.address) as relay:
        progress = iter([SIZE // 4, SIZE // 2])
        due = [next(progress), 0]

        def on_body(data):
            due[1] += len(data)
            if due[0] and due[1] >= due[0]:
                due[0] = next(progress, None)
                relay.rebind()

        got(fetch(proxy, f"/bytes/{SIZE}", port=relay.port, on_body=on_body))
        assert relay.rebinds == 2
        assert migrations(proxy) == 2


def test_nat_rebinding_with_chromium(start, visit):
    proxy = start()
    with Relay(proxy.address) as relay:

        @contextlib.contextmanager
        def rebinding():
            until(lambda: relay.passed > 2000, 60)
            relay.rebind()
            yield

        visit(proxy, 1000, 40 << 20, port=relay.port, meanwhile=rebinding)
        assert relay.rebinds == 1
        assert migrations(proxy) >= 1


# Other versions (RFC 9000 section 6).


async def test_version_negotiation_with_aioquic(proxy, h3):
    """A client that likes another version better is told ours, and comes with that."""
    before = proxy.total("^spooky_quic_version_negotiations_total")
    async with h3(proxy, original_version=UNKNOWN_VERSION, supported_versions=[UNKNOWN_VERSION, 1]) as client:
        assert (await client.get("/bytes/1000")).status == 200
        assert client.quic._version == 1
    assert proxy.total("^spooky_quic_version_negotiations_total") == before + 1


def test_version_negotiation_with_chromium(start, tmp_path):
    """One that speaks only a draft is told at once that we do not, instead of trying until it is tired."""
    proxy = start()
    negotiations = r"^spooky_quic_version_negotiations_total"
    with Chromium(tmp_path, proxy, "/visit", netlog=True, more=["--quic-version=h3-29"]) as browser:
        until(lambda: proxy.total(negotiations) >= 1, 60)
        # It comes back for the next try, so it has read the answer to the first.
        until(lambda: proxy.total(negotiations) >= 2, 60)
    assert browser.events("QUIC_SESSION_VERSION_NEGOTIATION_PACKET_RECEIVED") >= 1
    assert proxy.total("^spooky_handshakes_total") == 0


# Client certificates. aioquic under every policy: test_identities.


def test_client_certificates_with_curl(start, authority):
    asks = {"enabled": True, "ca_file": str(authority.path)}
    proxy = start(tls={"client_auth": asks})
    got(fetch(proxy, "/bytes/1000", badge=authority.badge()), 1000)
    refused = fetch(proxy, "/bytes/1000", timeout=10)
    assert refused.error and refused.status == 0
    strange = fetch(proxy, "/bytes/1000", badge=authority.badge(days=-1), timeout=10)
    assert strange.error and strange.status == 0
    reasons = r'^spooky_handshake_failures_total\{.*reason="client_certificate_%s"'
    until(lambda: [proxy.total(reasons % word) for word in ("missing", "expired")] == [1, 1], 10)


def test_client_certificates_with_chromium(start, authority, visit):
    """Chromium shows none over QUIC: where one is welcome it is served without, where one is required it is refused and told so."""
    asks = {"enabled": True, "require_client_cert": False, "ca_file": str(authority.path)}
    visit(start(tls={"client_auth": asks}), 1000)
    proxy = start(tls={"client_auth": {**asks, "require_client_cert": True}})
    with Chromium(visit.folder, proxy, "/visit"):
        missing = r'^spooky_handshake_failures_total\{.*reason="client_certificate_missing"'
        until(lambda: proxy.total(missing) >= 1, 60)
    assert proxy.total("^spooky_requests_total") == 0


# Loss. aioquic and curl: test_lossy.


def test_five_percent_loss_with_chromium(proxy, visit):
    with Relay(proxy.address, loss=0.05, seed=0x5EED) as relay:
        visit(proxy, 1, 14_000, SIZE, port=relay.port)
        assert relay.dropped > 100, str(relay)


# A path that carries 1300 bytes of UDP payload and is silent about the rest (RFC 9000 section 14.3, RFC 8899).


def small_path(proxy, relay, before):
    """What must be true of a connection over a path of 1300 bytes that is over."""
    until(lambda: packet_sizes(proxy)[0] > before[0], 20)
    count, total = packet_sizes(proxy)
    assert 1200 <= (total - before[1]) / (count - before[0]) <= 1300, "the path was believed to carry more than it does"
    assert relay.too_large > 0, "nothing was sent that was too large: there was no search"


def test_small_path_with_curl(start):
    proxy = start(listen={"quic": {"idle_timeout": "1s"}})
    with Relay(proxy.address, payload_max=1300) as relay:
        got(fetch(proxy, f"/bytes/{SIZE}", port=relay.port))
        small_path(proxy, relay, (0, 0))
        uploaded = fetch(proxy, "/inspect", method="POST", body=content.pieces(SIZE), length=SIZE, port=relay.port)
        assert (uploaded.error, uploaded.status) == (None, 200)
        assert content.sha256(SIZE).encode() in uploaded.body


async def test_small_path_with_aioquic(start, h3):
    proxy = start()
    with Relay(proxy.address, payload_max=1300) as relay:
        async with h3(proxy, port=relay.port, max_datagram_size=1200) as client:
            stream = await client.get(f"/bytes/{SIZE}", seconds=60)
            assert (stream.status, stream.ended, stream.sha256) == (200, True, content.sha256(SIZE)), str(relay)
        await asyncio.to_thread(small_path, proxy, relay, (0, 0))


def test_small_path_with_chromium(start, visit):
    proxy = start(listen={"quic": {"idle_timeout": "2s"}})
    with Relay(proxy.address, payload_max=1300) as relay:
        visit(proxy, 1000, SIZE, port=relay.port)
        small_path(proxy, relay, (0, 0))


def narrowing(relay):
    """A hook for `on_body` that makes the path small in the middle of a body."""
    seen = [0]

    def on_body(data):
        seen[0] += len(data)
        if seen[0] > SIZE // 4:
            relay.payload_max = 1300

    return on_body


def test_path_that_becomes_small_with_curl(start):
    proxy = start()
    with Relay(proxy.address) as relay:
        got(fetch(proxy, f"/bytes/{SIZE}", port=relay.port, on_body=narrowing(relay)))
        assert relay.too_large > 0, "the path was never found to carry more"


async def test_path_that_becomes_small_with_aioquic(start, h3):
    proxy = start()
    with Relay(proxy.address) as relay:
        async with h3(proxy, port=relay.port, max_datagram_size=1200) as client:
            stream = client.open("GET", f"/bytes/{SIZE}")
            await client.until(lambda: len(stream.body) > SIZE // 4)
            relay.payload_max = 1300
            await stream.finish(60)
            assert (stream.status, stream.ended, stream.sha256) == (200, True, content.sha256(SIZE)), str(relay)
        assert relay.too_large > 0, "the path was never found to carry more"


# IPv6.


@pytest.mark.parametrize("listen", ["::1", "::"], ids=["ipv6", "both"])
class TestIpv6:
    def test_with_curl(self, start, listen):
        proxy = start(host=listen)
        got(fetch(proxy, f"/bytes/{SIZE}", address="::1"))
        lines = until(proxy.access, 10)
        assert lines[0]["client"].startswith("[::1]:")
        if listen == "::":
            got(fetch(proxy, "/bytes/1000", address="127.0.0.1"), 1000)
            lines = until(lambda: len(proxy.access()) > 1 and proxy.access(), 10)
            assert lines[1]["client"].startswith("127.0.0.1:"), "not the address as people write it"

    async def test_with_aioquic(self, start, h3, listen):
        proxy = start(host=listen)
        async with h3(proxy, address="::1") as client:
            stream = await client.get(f"/bytes/{SIZE}", seconds=60)
            assert (stream.status, stream.ended, stream.sha256) == (200, True, content.sha256(SIZE))
            await client.move()
            assert (await client.get("/bytes/1000")).status == 200
        assert migrations(proxy) == 1

    def test_with_chromium(self, start, visit, listen):
        proxy = start(host=listen)
        visit(proxy, 1000, SIZE, address="::1")
        lines = until(proxy.access, 10)
        assert all(line["client"].startswith("[::1]:") for line in lines)


def test_retry_over_ipv6(start):
    """Tokens are bound to addresses of either family."""
    proxy = start(host="::1", listen={"quic": {"retry": "always"}})
    got(fetch(proxy, "/bytes/1000", timeout=10), 1000)
    assert proxy.total(r'^spooky_quic_tokens_total\{.*"valid"') >= 1
