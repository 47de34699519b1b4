"""What an operator sees: health, readiness, metrics and one access-log line per exchange."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from support.curl import fetch
from support.packets import Sender
from support.ports import free
from support.process import until
from support.proxy import Upstream, plain_get, run
from support.relay import Relay


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
    assert all(line["round_trip_us"] > 0 and line["packets_lost"] >= 0 for line in lines), lines
    assert (posted["status"], posted["method"], posted["request_bytes"]) == (200, "POST", 500)
    assert (refused["status"], refused["reason"], refused["upstream"]) == (502, "connect_refused", "gone")


def test_losses_are_counted(start, origins):
    proxy = start(Upstream("main", origins.address("main")))
    relay = Relay(proxy.address, loss=0.05, seed=1)
    try:
        assert fetch(proxy, "/bytes/2000000", port=relay.port, timeout=60).length == 2_000_000
    finally:
        relay.stop()
    line = until(proxy.access, 10)[0]
    assert line["packets_lost"] > 0, line
    # Counted at the connection's end; a close that is lost on the way ends by the idle timeout.
    until(lambda: proxy.total(r"^spooky_quic_packets_lost_total") >= line["packets_lost"], 60)
    for name in ("packets_retransmitted_total", "lost_bytes_total", "retransmitted_bytes_total", "packets_received_total"):
        assert proxy.total(f"^spooky_quic_{name}") > 0, name
    sizes = {name: value for name, value in proxy.metrics().items() if name.startswith("spooky_quic_packet_size_bytes")}
    assert sizes["spooky_quic_packet_size_bytes_count"] == 1 and 1200 <= sizes["spooky_quic_packet_size_bytes_sum"] <= 1500, sizes
    for name in ("round_trip_seconds", "round_trip_min_seconds", "congestion_window_bytes"):
        assert proxy.total(f"^spooky_quic_{name}_count") == 1, name
        assert proxy.total(f"^spooky_quic_{name}_sum") > 0, name


async def test_failed_handshakes_have_a_reason(start, h3):
    proxy = start()
    with pytest.raises(ConnectionError):
        async with h3(proxy, alpn_protocols=["h9"]):
            pass
    until(lambda: proxy.total(r'^spooky_tls_alerts_total.*side="local",alert="no_application_protocol"') == 1, 20)
    assert run("probe", proxy.url("/bytes/1")).returncode != 0, "the certificate is not one of the system's"
    until(lambda: proxy.total(r'^spooky_tls_alerts_total.*side="remote"') == 1, 20)
    for reason in ("no_application_protocol", "certificate_refused_by_client"):
        assert proxy.total(rf'^spooky_handshake_failures_total.*reason="{reason}"') == 1, reason
    assert proxy.total(r"^spooky_handshake_failures_total") == 2


def test_kernel_drops_are_counted_by_listener(start):
    # The smallest buffer there is.
    proxy = start(performance={"udp_receive_buffer_bytes": "64KiB"})

    def drops():
        return {name: value for name, value in proxy.metrics().items() if name.startswith("spooky_udp_kernel_drops_total")}

    assert len(drops()) == 1 and sum(drops().values()) == 0
    assert all('listener="' in name and 'worker="' in name for name in drops())
    os.kill(proxy.child.process.pid, signal.SIGSTOP)
    try:
        # Stopped is what it is before it is told so.
        until(lambda: Path(f"/proc/{proxy.child.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", 10)
        with Sender(proxy.address) as sender:
            for _ in range(2000):
                sender.send(b"x" * 1200)
    finally:
        os.kill(proxy.child.process.pid, signal.SIGCONT)
    # It holds a hundred of them at most.
    counted = drops()
    assert 1500 < sum(counted.values()) < 2000, counted


def traces(folder):
    """The records of each qlog file, in the order of their beginnings."""
    found = []
    for path in sorted(folder.glob("*.sqlog")):
        assert path.stat().st_mode & 0o777 & ~0o640 == 0
        before, *records = path.read_text().split("\x1e")
        assert before == "" and all(record.endswith("\n") for record in records), path
        found.append([json.loads(record) for record in records])
    return found


def test_traces_of_connections_are_bounded_and_whole(start, origins):
    extra = '[observability.qlog]\ndir = "traces"\nclient = "127.0.0.1"\nmax_files = 2\nmax_file_size = "64KiB"\n'
    proxy = start(Upstream("main", origins.address("main")), extra=extra)
    for size in (1000, 4_000_000, 1000):
        assert fetch(proxy, f"/bytes/{size}").length == size
    # One that has been closed drains for a while before it is gone (RFC 9000, section 10.2), and a stop does not wait for that.
    until(lambda: proxy.total(r"^spooky_connections_active") == 0, 20)
    # What connections have not given away yet is written at the end.
    proxy.stop()
    small, large = traces(proxy.folder / "traces")
    assert small[0]["serialization_format"] == "JSON-SEQ" and small[0]["trace"]["vantage_point"]["type"] == "server"
    names = {record.get("name") for record in small}
    assert {"quic:packet_received", "quic:packet_sent", "quic:connection_closed", "http3:frame_parsed"} <= names, names
    assert "loglevel:warning" not in names
    assert large[-1]["name"] == "loglevel:warning" and large[-1]["data"]["message"].startswith("truncated"), large[-1]
    sizes = [path.stat().st_size for path in (proxy.folder / "traces").glob("*.sqlog")]
    assert max(sizes) < 64 * 1024 + 500, sizes


def test_only_the_wanted_client_is_traced(start, origins):
    extra = '[observability.qlog]\ndir = "traces"\nclient = "192.0.2.1"\n'
    proxy = start(Upstream("main", origins.address("main")), extra=extra)
    assert fetch(proxy, "/bytes/1000").status == 200
    assert proxy.total(r"^spooky_qlog_files_total") == 0
    proxy.stop()
    assert list((proxy.folder / "traces").iterdir()) == []
