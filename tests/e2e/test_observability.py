"""What an operator sees: health, readiness, metrics and one access-log line per exchange."""

import re

from support.curl import fetch
from support.ports import free
from support.process import until
from support.proxy import Upstream, plain_get


def test_health_and_ready(proxy):
    assert proxy.control("/health")[0] == 200
    assert proxy.control("/ready")[0] == 200
    assert proxy.control("/no-such")[0] in (401, 403, 404)


def test_control_listener_refuses_nonsense(proxy):
    import socket

    for data in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"GET /ready HTTP/1.1\r\n\r\n", b"G" * 100_000, b"\x16\x03\x01\x02\0\x01"):
        with socket.create_connection(("127.0.0.1", proxy.control_port), timeout=5) as s:
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                answer = s.recv(4096)
            except ConnectionError:
                answer = b""
            assert b" 200 " not in answer.split(b"\r\n")[0]
    assert proxy.control("/ready")[0] == 200


def test_metrics_are_prometheus_text(proxy):
    fetch(proxy, "/bytes/1")
    status, text = plain_get(f"http://127.0.0.1:{proxy.metrics_port}/metrics")
    assert status == 200
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    assert kinds and set(kinds) == set(helps)
    sample = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="[^"\n]*",?)*\})? [-+0-9.eE]+(Inf|NaN)?$')
    for line in text.splitlines():
        assert line.startswith("#") or sample.match(line), line
    for name, kind in kinds.items():
        assert name.startswith(("spooky_", "process_")), name
        assert kind != "counter" or name.endswith("_total"), name
    assert "spooky_build_info" in text


def test_requests_are_counted(proxy):
    def counted():
        return proxy.total(r'^spooky_requests_total.*status="200"')

    before = counted()
    for _ in range(7):
        assert fetch(proxy, "/bytes/1").status == 200
    # The exchange before this test may be counted late.
    until(lambda: before + 7 <= counted() <= before + 8, 5)
    until(lambda: proxy.total(r"^spooky_requests_active") == 0, 5)


def test_connections_are_counted(proxy):
    before = proxy.metrics()
    assert fetch(proxy, "/bytes/1").status == 200
    for name in ("spooky_connections_opened_total", "spooky_handshakes_total", "spooky_connections_closed_total"):
        was = sum(value for sample, value in before.items() if sample.startswith(name))
        until(lambda name=name, was=was: proxy.total(f"^{name}") > was, 10)


def test_access_log_has_one_line_per_exchange(start, origins):
    proxy = start(
        Upstream("main", origins.address("main")),
        Upstream("gone", f"http://127.0.0.1:{free()}", route={"path_prefix": "/gone"}),
    )
    assert fetch(proxy, "/bytes/1000?secret=1").status == 200
    assert fetch(proxy, "/inspect", method="POST", body=b"x" * 500).status == 200
    assert fetch(proxy, "/gone").status == 502
    lines = until(lambda: len(proxy.access()) >= 3 and proxy.access(), 10)
    assert len(lines) == 3
    got, posted, refused = lines
    assert (got["status"], got["method"], got["protocol"], got["upstream_protocol"]) == (200, "GET", "h3", "h1")
    assert (got["response_bytes"], got["upstream"], got["attempts"]) == (1000, "main", 1)
    assert got["client"].startswith("127.0.0.1:") and got["duration_us"] > 0 and got["request_id"]
    assert (posted["status"], posted["method"], posted["request_bytes"]) == (200, "POST", 500)
    assert (refused["status"], refused["reason"], refused["upstream"]) == (502, "connect_refused", "gone")
