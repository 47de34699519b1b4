"""HTTP/1.1 and 1.0 clients: strictness, persistence, pipelining, time limits, how connections end."""

import contextlib
import hashlib
import json
import resource
import signal
import socket
import ssl

import pytest
from support import h1
from support.process import until
from support.proxy import Upstream


@pytest.fixture(params=["cleartext", "tls"])
def plain(start, request, certificate):
    """A proxy that speaks HTTP/1.1, without TLS and above it."""
    proxy = start(cleartext="serve")
    proxy.secured = h1.trusting(certificate, "http/1.1") if request.param == "tls" else None
    return proxy


def connect(proxy, **options):
    secured = getattr(proxy, "secured", None)
    port = proxy.port if secured else proxy.plain_port
    return h1.Client(("127.0.0.1", port), context=secured, **options)


def request(target="/inspect", *lines, method="GET", version="1.1", host="a.test"):
    head = [f"{method} {target} HTTP/{version}", *([f"host: {host}"] if host else []), *lines]
    return "\r\n".join(head) + "\r\n\r\n"


# Every one of these would let two readers of the same bytes disagree about where a request ends, or whom it is for.
SMUGGLING = {
    "two-lengths": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "length-list": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}content-length: 5, 5\r\n\r\nhello",
    "length-plus": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}content-length: +5\r\n\r\nhello",
    "length-and-chunked": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked-and-length": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "chunked-twice": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked-not-last": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked-tab": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked-in-1.0": "POST /x HTTP/1.0\r\nhost: a\r\n{tag}transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "space-before-colon": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}content-length : 5\r\n\r\nhello",
    "folded": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}x-a: 1\r\n content-length: 5\r\n\r\nhello",
    "bare-cr": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}x-a: 1\rcontent-length: 5\r\n\r\nhello",
    "bare-lf": "POST /x HTTP/1.1\nhost: a\n{tag}content-length: 5\n\nhello",
    "nul": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}x-a: 1\x002\r\n\r\n",
    "two-hosts": "GET /x HTTP/1.1\r\nhost: a\r\n{tag}host: b\r\n\r\n",
    "no-host": "GET /x HTTP/1.1\r\n{tag}accept: */*\r\n\r\n",
    "host-differs": "GET http://a/x HTTP/1.1\r\nhost: b\r\n{tag}\r\n\r\n",
    "target-space": "GET /x y HTTP/1.1\r\nhost: a\r\n{tag}\r\n\r\n",
    "chunk-size-sign": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}transfer-encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk-size-0x": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "chunk-without-end": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}transfer-encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
    "chunk-size-huge": "POST /x HTTP/1.1\r\nhost: a\r\n{tag}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
}
# What follows would be a request of its own for a reader who cuts elsewhere.
SECOND = "GET /second HTTP/1.1\r\nhost: a\r\nx-tag: {tag}-second\r\n\r\n"


@pytest.mark.parametrize("kind", SMUGGLING)
def test_framing_in_doubt_is_400_and_the_end(plain, kind, origins, tag):
    with connect(plain) as client:
        client.send(SMUGGLING[kind].replace("{tag}", f"x-tag: {tag}\r\n") + SECOND.replace("{tag}", tag))
        answer = client.answer()
        assert answer.status == 400, answer
        assert answer.get("connection") == "close"
        assert client.is_closed(), "the connection goes on"
    assert origins.record(f"{tag}-second")["requests"] == 0, "the second request was read"
    # A broken body is found behind its head; a broken head is never forwarded.
    if not kind.startswith("chunk-"):
        assert origins.record(tag)["requests"] == 0


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (request("/" + "a" * 20_000), 414),
        (request("/", "x-a: " + "a" * 20_000), 431),
        (request("/", *(f"x-{n}: 1" for n in range(200))), 431),
        (request("/", "expect: something"), 417),
        (request("/", "transfer-encoding: gzip, chunked", method="POST"), 501),
        ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", 400),
        ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        ("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 405),
        (request("/%zz"), 400),
        (request("/a/..;/b"), 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
    ids=["target", "head", "count", "expect", "coding", "version", "trace", "connect", "escape", "dot-parameter", "tls"],
)
def test_statuses_of_our_own(plain, text, status):
    with connect(plain) as client:
        client.send(text)
        if text.startswith("\x16") and not plain.secured:
            client.end()
        answer = client.answer()
        assert answer.status == status, answer


def test_requests_on_one_connection(plain):
    with connect(plain) as client:
        for number in range(5):
            client.send(request(f"/bytes/{number + 1}"))
            answer = client.answer()
            assert (answer.status, len(answer.body), answer.get("connection")) == (200, number + 1, None)
    assert plain.total(r'spooky_connections_opened_total\{.*protocol="h1"') == 1
    until(lambda: len(plain.access()) == 5, 5)
    line = plain.access()[-1]
    assert line["protocol"] == "h1", line
    if plain.secured:
        assert (line["server_name"], line["tls_cipher"]) == ("localhost", "TLS_AES_256_GCM_SHA384"), line
    else:
        assert not [key for key in line if key.startswith("tls_")], line


def test_pipelined_requests_are_answered_in_order(plain):
    with connect(plain) as client:
        client.send("".join(request(f"/bytes/{n}?framing=chunked") for n in (1, 70_000, 3, 4, 50_000)))
        client.send(request("/inspect", "content-length: 5", method="POST") + "hello" + request("/bytes/6"))
        for length in (1, 70_000, 3, 4, 50_000):
            answer = client.answer()
            assert (answer.status, len(answer.body)) == (200, length)
        assert json.loads(client.answer().body)["length"] == 5
        assert len(client.answer().body) == 6


def test_pipelining_is_bounded(plain):
    """A client that only writes is not read on for ever: what waits is bounded, and then the socket's window is."""
    with connect(plain) as client:
        client.socket.settimeout(1)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        before, sent = plain.child.resident(), 0
        text = request("/bytes/100000").encode() * 100
        with pytest.raises(TimeoutError):
            while sent < 256 << 20:
                sent += client.socket.send(text)
        assert plain.child.resident() - before < 8 << 20
        assert sent < 64 << 20


def test_connection_close_and_http_1_0(plain):
    with connect(plain) as client:
        client.send(request("/bytes/3", "connection: close") + request("/bytes/4"))
        answer = client.answer()
        assert (answer.status, answer.get("connection"), len(answer.body)) == (200, "close", 3)
        assert client.is_closed()
    with connect(plain) as client:
        client.send(request("/bytes/3?framing=chunked", version="1.0"))
        answer = client.answer()
        assert (answer.status, answer.get("transfer-encoding"), len(answer.body)) == (200, None, 3)
        assert client.is_closed()
    with connect(plain) as client:
        client.send(request("/bytes/3", "connection: keep-alive", version="1.0"))
        answer = client.answer()
        assert (answer.status, answer.get("connection"), len(answer.body)) == (200, "keep-alive", 3)
        client.send(request("/hints", version="1.0"))
        assert client.answer().status == 200, "HTTP/1.0 gets no 103"


def test_head_and_bodiless_statuses(plain):
    with connect(plain) as client:
        client.send(request("/bytes/1000", method="HEAD"))
        answer = client.answer("HEAD")
        assert (answer.status, answer.get("content-length")) == (200, "1000")
        for status in (204, 304):
            client.send(request(f"/status/{status}"))
            answer = client.answer()
            assert (answer.status, answer.body, answer.get("transfer-encoding")) == (status, b"", None)
        client.send(request("/bytes/3"))
        assert len(client.answer().body) == 3


def test_informational_answers_and_expect(plain, origins, tag):
    with connect(plain) as client:
        client.send(request("/hints"))
        hints = client.answer()
        assert (hints.status, hints.get("link")) == (103, "</style.css>; rel=preload; as=style")
        assert client.answer().status == 200
        client.send(request("/expect", "expect: 100-continue", "content-length: 5", f"x-tag: {tag}", method="POST"))
        assert client.answer().status == 100
        client.send("hello")
        answer = client.answer()
        assert answer.status == 200, answer
    assert "expect" in origins.record(tag)["events"]


def test_a_client_does_not_wait_for_ever_for_a_backend_that_knows_no_expect(plain):
    with connect(plain) as client:
        client.send(request("/inspect", "expect: 100-continue", "content-length: 5", method="POST"))
        assert client.answer().status == 100
        client.send("hello")
        assert json.loads(client.answer().body)["length"] == 5


def test_chunked_upload_with_extensions_and_trailers(plain):
    with connect(plain) as client:
        client.send(request("/inspect", "transfer-encoding: chunked", "trailer: x-sum", method="POST"))
        client.send('5;name=value;q="a\\"b"\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 11\r\n\r\n')
        facts = json.loads(client.answer().body)
        assert (facts["length"], facts["sha256"]) == (11, hashlib.sha256(b"hello world").hexdigest())
        assert facts["trailers"] == ["x-sum: 11"]


def test_trailers_of_the_response(plain):
    with connect(plain) as client:
        client.send(request("/trailers", "content-length: 5", method="POST") + "hello")
        answer = client.answer()
        assert answer.body == b"hello"
        assert answer.get("x-body-sha256") == hashlib.sha256(b"hello").hexdigest()


def test_large_bodies_both_ways(plain):
    body = bytes(range(256)) * (10 << 12)
    with connect(plain) as client:
        client.send(request("/inspect", f"content-length: {len(body)}", method="POST"))
        client.send(body)
        facts = json.loads(client.answer().body)
        assert (facts["length"], facts["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        client.send(request("/bytes/10485760"))
        assert len(client.answer().body) == 10 << 20


def test_forwarding_fields(plain):
    with connect(plain) as client:
        client.send(request("/inspect", "connection: x-secret", "x-secret: 1", "x-forwarded-for: 6.6.6.6", "keep-alive: 5"))
        fields = dict(json.loads(client.answer().body)["fields"])
    assert fields["x-forwarded-proto"] == ("https" if plain.secured else "http")
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["via"] == "1.1 spooky"
    assert not {"x-secret", "keep-alive"} & set(fields)


def test_an_early_answer_is_delivered_whole_and_the_connection_ends(plain):
    with connect(plain) as client:
        client.send(request("/early?n=100000&after=10&then=read", "content-length: 100000000", method="POST"))
        client.send(b"x" * 1000)
        answer = client.answer()
        assert (answer.status, len(answer.body), answer.get("connection")) == (413, 100_000, "close")
        # What is still sent is read and dropped for a while: no reset takes the answer away.
        client.send(b"x" * 100_000)
        assert client.is_closed()


def test_a_client_that_goes_away_is_told_to_the_backend(plain, origins, tag):
    with connect(plain) as client:
        client.send(request("/slow", f"x-tag: {tag}"))
        origins.record(tag, until="head")
    origins.record(tag, until="aborted", seconds=5)
    until(lambda: [line for line in plain.access() if line.get("reason") == "client_gone"], 5)


def test_a_broken_response_is_a_reset_not_an_end(plain):
    for target in ("/cut", "/short", "/reset?n=1000"):
        with connect(plain) as client:
            client.send(request(target))
            answer = client.answer()
            assert answer.status == 0 or (answer.status, answer.whole) == (200, False), (target, answer)


def test_time_limits(start):
    limits = {"client_header_timeout": "400ms", "client_idle_timeout": "700ms", "client_body_idle_timeout": "500ms"}
    proxy = start(cleartext="serve", performance={"worker_threads": 1, "pin_workers": False, **limits})
    with connect(proxy) as silent, connect(proxy) as slow, connect(proxy) as idle, connect(proxy) as body:
        slow.send("GET / HTTP/1.1\r\nhost: ")
        idle.send(request("/bytes/1"))
        assert idle.answer().status == 200
        body.send(request("/inspect", "content-length: 10", method="POST") + "12345")
        assert silent.answer().status == 0, "nothing was asked, nothing is answered"
        answer = slow.answer()
        assert (answer.status, answer.get("connection")) == (408, "close")
        assert body.answer().status == 408
        assert idle.is_closed()
    until(lambda: {"client_head_timeout", "client_body_idle"} <= {line.get("reason") for line in proxy.access()}, 5)


def test_a_client_that_reads_nothing_is_cut(start):
    proxy = start(cleartext="serve", performance={"worker_threads": 1, "pin_workers": False, "client_send_timeout": "500ms"})
    with connect(proxy) as client:
        before = proxy.child.resident()
        client.send(request("/bytes/1073741824"))
        until(lambda: [line for line in proxy.access() if line.get("reason") == "client_send_timeout"], 10)
        assert proxy.child.resident() - before < 8 << 20


def is_turned_away(proxy):
    """Whether one more connection is closed at once; the reset may come before TLS or the socket's options are settled."""
    try:
        with connect(proxy) as client:
            return client.is_closed()
    except ConnectionResetError:
        return True


def test_one_connection_too_many(start):
    proxy = start(cleartext="serve", performance={"worker_threads": 1, "pin_workers": False, "max_active_connections": 2})
    with connect(proxy) as one, connect(proxy) as two:
        for client in (one, two):
            client.send(request("/bytes/1"))
            assert client.answer().status == 200
        assert is_turned_away(proxy)
        assert proxy.total(r'spooky_queue_full_total\{.*queue="client_connections"') == 1
    until(lambda: proxy.total("spooky_connections_active") == 0, 5)
    with connect(proxy) as again:
        again.send(request("/bytes/1"))
        assert again.answer().status == 200


def test_one_address_has_its_share_and_no_more(start):
    limits = {"max_connections_per_address": 2, "new_connections_per_sec": 1, "new_connections_burst": 4}
    proxy = start(cleartext="serve", performance={"worker_threads": 1, "pin_workers": False, **limits})
    with connect(proxy) as one, connect(proxy) as two:
        for client in (one, two):
            client.send(request("/bytes/1"))
            assert client.answer().status == 200
        assert is_turned_away(proxy), "two at once"
    until(lambda: proxy.total("spooky_connections_active") == 0, 5)
    refused = 0
    for _ in range(4):
        try:
            with connect(proxy) as client:
                client.send(request("/bytes/1"))
                refused += client.answer().status == 0
        except (ConnectionResetError, BrokenPipeError):
            refused += 1
    assert refused >= 1, "four at once, then one a second"
    assert proxy.total(r'spooky_handshake_failures_total\{.*transport="tcp",reason="refused"') == 1 + refused


def test_a_drain_ends_idle_connections_and_finishes_the_rest(start, origins, tag):
    proxy = start(cleartext="serve")
    with connect(proxy) as idle, connect(proxy) as busy:
        idle.send(request("/bytes/1"))
        assert idle.answer().status == 200
        busy.send(request("/dribble?n=10&gap=100", f"x-tag: {tag}"))
        origins.record(tag, until="head")
        proxy.child.signal(signal.SIGTERM)
        assert idle.is_closed()
        answer = busy.answer()
        assert (answer.status, answer.whole, len(answer.body)) == (200, True, 160)
        assert busy.is_closed()
    assert proxy.child.wait(10) == 0


def test_only_what_is_configured_is_spoken(start, certificate):
    """Who offers no protocol means HTTP/1.1, and who offers another is refused by name."""
    proxy = start(listen={"protocols": ["h2"]})
    with h1.Client(proxy.address, context=h1.trusting(certificate)) as client:
        try:
            client.send(request("/bytes/1"))
            assert client.answer().status == 0
        except (ConnectionResetError, BrokenPipeError):
            pass
    with pytest.raises(ssl.SSLError, match="(?i)no_application_protocol|application protocol"):
        h1.Client(proxy.address, context=h1.trusting(certificate, "http/1.1"))
    failures = r'spooky_handshake_failures_total\{.*transport="tcp",reason="no_application_protocol"'
    until(lambda: proxy.total(failures) == 2, 5)


def test_versions_of_tls(start, certificate):
    proxy = start(tls={"min_version": "1.3"})
    context = h1.trusting(certificate, "http/1.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        h1.Client(proxy.address, context=context)
    usual = start()
    with h1.Client(usual.address, context=context) as client:
        client.send(request("/bytes/1"))
        assert client.answer().status == 200
        assert client.socket.version() == "TLSv1.2"


def test_a_session_is_resumed_over_tcp_on_any_worker(start, certificate):
    proxy = start(performance={"worker_threads": 2, "pin_workers": False})
    context, session = h1.trusting(certificate, "http/1.1"), None
    for turn in range(8):
        raw = socket.create_connection(proxy.address, timeout=10)
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as secured:
            secured.sendall(request("/bytes/1").encode())
            assert secured.recv(65_536).startswith(b"HTTP/1.1 200")
            assert secured.session_reused == (turn > 0)
            session = secured.session
    resumed = r'spooky_handshakes_total\{.*transport="tcp",kind="resumed"'
    until(lambda: proxy.total(resumed) == 7, 5)
    workers = [proxy.total(rf'spooky_handshakes_total\{{worker="{n}",transport="tcp"') for n in (0, 1)]
    assert all(workers), "one worker had them all"


def test_plain_http_on_the_port_of_tls_is_refused_at_once(start):
    proxy = start()
    with h1.Client(proxy.address) as client:
        client.send(request("/bytes/1"))
        answer = client.answer()
        assert (answer.status, answer.body) == (400, b"this port speaks TLS: ask with https://\n")
        assert client.is_closed()
    until(lambda: proxy.total(r'spooky_handshake_failures_total\{.*transport="tcp",reason="plain_http"') == 1, 5)


def test_handshakes_that_go_nowhere_are_cut(start):
    proxy = start(performance={"worker_threads": 1, "pin_workers": False, "client_header_timeout": "400ms"})
    with h1.Client(proxy.address) as silent, h1.Client(proxy.address) as slow:
        slow.send(b"\x16\x03\x01\x02\x00\x01")
        assert silent.is_closed() and slow.is_closed()
    until(lambda: proxy.total(r'spooky_handshake_failures_total\{.*transport="tcp",reason="timeout"') == 2, 5)


def test_redirect_to_https(start):
    proxy = start(cleartext="redirect")
    with connect(proxy) as client:
        client.send(request("/a//b?x=%2F", host="A.test:80"))
        answer = client.answer()
        assert (answer.status, answer.get("location"), answer.body) == (308, "https://a.test/a//b?x=%2F", b"")
        client.send(request("/upload", "content-length: 5", method="POST", host="[::1]") + "hello")
        answer = client.answer()
        assert (answer.status, answer.get("location")) == (308, "https://[::1]/upload")
    with connect(proxy) as client:
        client.send(request("/", version="1.0", host=None))
        assert client.answer().status == 400


def test_a_port_of_its_own(start, origins):
    proxy = start(Upstream("main", origins.address("main")), cleartext="redirect", listen={"https_port": 8443})
    assert proxy.child.alive()


# limits::TLS_HANDSHAKES: those that one worker has under way.
HANDSHAKES = 1024


def test_silent_handshakes_do_not_lock_others_out(start, certificate):
    """As many sockets as may shake hands and none says a word: the oldest of them makes room for the next client."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    proxy, secured = start(performance={"worker_threads": 1, "client_header_timeout": "5m"}), h1.trusting(certificate, "http/1.1")
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port))) for _ in range(HANDSHAKES)]

        def served():
            """A silent one has a second before it makes room; until then the next client is refused."""
            with contextlib.suppress(OSError), h1.Client(("127.0.0.1", proxy.port), context=secured) as client:
                client.send(request("/bytes/1"))
                return client.answer().status == 200

        until(served, 10)
        # The oldest of them, and no other.
        for number, each in enumerate(silent):
            each.setblocking(False)
            with pytest.raises(BlockingIOError if number else ConnectionResetError):
                each.recv(1)
    assert proxy.total(r'spooky_queue_full_total\{.*queue="tls_handshakes"') >= 1
