"""Backends that are not fit: probes and failed requests find them out, they are left alone, and come back little by little."""

import asyncio
import os
import re
import signal
import subprocess
import time

import pytest
from support.authority import Authority
from support.nginx import Nginx
from support.origins import Origins
from support.ports import free
from support.process import Child
from support.proxy import Upstream, quoted, run
from support.streams import connect

PROTOCOLS = ["h1s", "h2", "h3"]

# As quick as a busy machine allows.
QUICK = {"interval": "200ms", "timeout": "150ms", "failure_threshold": 2, "success_threshold": 2}
PATIENT = {**QUICK, "interval": "1s", "timeout": "1s"}


def backend(address, name, check=None, **keys):
    return {"id": name, "address": str(address), **({"health_check": check} if check is not None else {}), **keys}


def state(proxy, name):
    """The state that the metrics show of a backend."""
    found = [
        match.group(1)
        for key, value in proxy.metrics().items()
        if value == 1 and (match := re.match(rf'spooky_backend_health\{{.*backend="{name}",state="(\w+)"', key))
    ]
    return found[0] if found else None


def share(proxy, name):
    return proxy.total(rf'spooky_backend_responses_total\{{.*backend="{name}",class="2xx"')


class Answering:
    """A backend of HTTP/1.1 that answers probes and requests as it is told; it counts both."""

    def __init__(self, port=0, path=None):
        self.port, self.path = port, path
        self.probe, self.request, self.body = 200, 200, b"fine"
        self.probes, self.requests, self.heads = 0, 0, []
        self.hangs, self.wants_header = False, False

    async def __aenter__(self):
        if self.path:
            self.server = await asyncio.start_unix_server(self.serve, self.path)
        else:
            self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
            self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    @property
    def address(self):
        return f"unix:{self.path}" if self.path else f"http://127.0.0.1:{self.port}"

    async def serve(self, reader, writer):
        try:
            if self.wants_header:
                assert await reader.readuntil(b"\r\n") == b"PROXY UNKNOWN\r\n"
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                is_probe = head.startswith("GET /health")
                if is_probe:
                    self.probes += 1
                    self.heads.append(head)
                else:
                    self.requests += 1
                if self.hangs:
                    await asyncio.sleep(3600)
                status = self.probe if is_probe else self.request
                writer.write(b"HTTP/1.1 %d Some\r\ncontent-length: %d\r\n\r\n%s" % (status, len(self.body), self.body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def eventually(what, seconds=30):
    """As `until`, but lets the servers of this loop go on."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(what):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.05)


async def test_a_backend_whose_probes_fail_gets_no_requests_until_they_pass(start):
    async with Answering() as good, Answering() as ill:
        backends = [backend(good.address, "good", QUICK), backend(ill.address, "ill", QUICK)]
        proxy = await asyncio.to_thread(start, Upstream("pair", *backends))
        await eventually(lambda: good.probes >= 3 and ill.probes >= 3)
        assert state(proxy, "ill") == "healthy"
        ill.probe = 503
        await eventually(lambda: state(proxy, "ill") == "unhealthy")
        before = ill.requests
        async with connect("h2", proxy) as client:
            for _ in range(20):
                assert (await client.get("/")).status == 200
        assert (ill.requests, good.requests >= 20) == (before, True)
        assert '"backends_out":1' in proxy.control("/ready")[1]
        ill.probe = 204
        await eventually(lambda: state(proxy, "ill") == "healthy")
        async with connect("h2", proxy) as client:
            for _ in range(10):
                assert (await client.get("/")).status == 200
        assert ill.requests == before + 5
    # Probes say who asks.
    head = ill.heads[0].lower()
    assert "user-agent: spooky/" in head and f"host: 127.0.0.1:{ill.port}" in head
    assert proxy.total(r'spooky_backend_health_changes_total\{.*backend="ill",to="unhealthy",cause="probes_failed"') == 1
    assert proxy.total(r'spooky_backend_health_changes_total\{.*backend="ill",to="healthy",cause="probes_passed"') == 1
    assert proxy.total(r'spooky_backend_health_changes_total\{.*backend="good"') == 0
    # Each change is told once, with its cause.
    log = proxy.child.log()
    assert log.count("unhealthy: its probes fail") == 1 and log.count("healthy: its probes pass") == 1
    line = next(line for line in log.splitlines() if "unhealthy: its probes fail" in line)
    assert "backend=" in line and "status" in line and "it answered 503" in line


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_nobody_left_is_the_same_answer_everywhere(start, protocol):
    async with Answering() as ill:
        ill.probe = 500
        proxy = await asyncio.to_thread(start, Upstream("one", backend(ill.address, "ill", QUICK)))
        await eventually(lambda: state(proxy, "ill") == "unhealthy")
        async with connect(protocol, proxy) as client:
            answer = await client.get("/")
        assert (answer.status, ill.requests) == (503, 0)
        assert answer.get("proxy-status") == "spooky; error=destination_unavailable"
        assert answer.get("retry-after")
        await eventually(lambda: [line for line in proxy.access() if line.get("reason") == "no_healthy_backend"])
        assert proxy.total(r'spooky_refusals_total\{.*reason="no_healthy_backend"') == 1


async def test_panic_disregards_health(start):
    async with Answering() as ill:
        ill.probe = 500
        balancing = {"panic_threshold": 1}
        proxy = await asyncio.to_thread(start, Upstream("one", backend(ill.address, "ill", QUICK), load_balancing=balancing))
        await eventually(lambda: proxy.total("spooky_upstream_panic") == 1)
        async with connect("h2", proxy) as client:
            assert (await client.get("/")).status == 200
        assert (ill.requests, state(proxy, "ill")) == (1, "unhealthy")
        ill.probe = 200
        await eventually(lambda: proxy.total("spooky_upstream_panic") == 0)
    assert proxy.child.log().count("health is disregarded") == 1


async def test_statuses_bodies_hosts_and_times_are_as_expected(start):
    """What passes and what does not, each on a backend of its own; one that hangs keeps no other waiting."""
    async with Answering() as teapot, Answering() as says, Answering() as silent, Answering() as hangs, Answering() as named:
        teapot.probe, says.body, hangs.hangs = 418, b"x" * 9000 + b'{"status": "up"}', True
        wants_up = {**QUICK, "expected_body": '"up"', "path": "/health?full=1"}
        checks = [
            (teapot, "teapot", {**QUICK, "expected_status": [204, "400-420"]}),
            (says, "says", wants_up),
            (silent, "silent", wants_up),
            (hangs, "hangs", QUICK),
            (named, "named", {**QUICK, "host": "app.internal"}),
        ]
        backends = [backend(origin.address, name, check) for origin, name, check in checks]
        backends.append(backend(f"http://127.0.0.1:{free()}", "gone", QUICK))
        proxy = await asyncio.to_thread(start, Upstream("all", *backends))
        for name in ("silent", "hangs", "gone"):
            await eventually(lambda name=name: state(proxy, name) == "unhealthy")
        await eventually(lambda: min(teapot.probes, says.probes, named.probes) >= 10)
        for name in ("teapot", "says", "named"):
            assert state(proxy, name) == "healthy"
        for name, result in [("silent", "body"), ("hangs", "timeout"), ("gone", "refused"), ("says", "passed")]:
            assert proxy.total(rf'spooky_backend_probes_total\{{.*backend="{name}",result="{result}"') >= 2, name
    assert "GET /health?full=1 " in says.heads[0] and "host: app.internal" in named.heads[0].lower()


async def test_every_kind_of_backend_is_probed_as_it_is_spoken_to(start, tmp_path):
    folder = tmp_path / "origin"
    folder.mkdir()
    ours = Authority(tmp_path, "ours")
    files = ours.server("localhost", addresses=["127.0.0.1"]).files()
    origins = Origins(folder, "clear", "secured:h2", "prior:h2c", files=files)
    try:
        path = tmp_path / "app.sock"
        async with Answering(path=str(path)) as local:
            check = {**PATIENT, "path": "/bytes/4"}
            kinds = [
                backend(origins.address("clear"), "http", check),
                backend(origins.address("secured"), "tls-h2", {**check, "type": "h2"}),
                backend(origins.address("secured"), "tls", {**check, "host": "localhost"}),
                backend(origins.address("prior"), "h2c", check),
                backend(local.address, "unix", PATIENT),
                backend(origins.address("clear").replace("127.0.0.1", "localhost"), "tcp", {**PATIENT, "type": "tcp"}),
            ]
            trusted = {"ca_file": str(ours.path)}
            names = [one["id"] for one in kinds]
            kinds = [{**one, "address": one["address"].replace("https://127.0.0.1", "https://localhost")} for one in kinds]
            proxy = await asyncio.to_thread(start, Upstream("all", *kinds, tls=trusted), performance={"worker_threads": 2})
            passed = lambda name: proxy.total(rf'spooky_backend_probes_total\{{.*backend="{name}",result="passed"')
            await eventually(lambda: all(passed(name) >= 3 for name in names))
            metrics = {key: value for key, value in proxy.metrics().items() if "spooky_backend_probes_total" in key}
            others = {key: value for key, value in metrics.items() if value and 'result="passed"' not in key}
            assert not others, others
            assert all(state(proxy, name) == "healthy" for name in names)
            assert local.probes >= 3
        await eventually(lambda: state(proxy, "unix") == "unhealthy")
    finally:
        origins.stop()


async def test_a_probe_begins_with_a_proxy_header_where_requests_do(start):
    """It is nobody's request, and says so."""
    async with Answering() as origin:
        origin.wants_header = True
        proxy = await asyncio.to_thread(start, Upstream("one", backend(origin.address, "one", PATIENT), proxy_protocol="v1"))
        await eventually(lambda: origin.probes >= 2)
        assert state(proxy, "one") == "healthy"


async def test_a_probe_verifies_as_requests_do(start, tmp_path):
    folder = tmp_path / "origin"
    folder.mkdir()
    files = Authority(tmp_path, "theirs").server("localhost").files()
    origins = Origins(folder, "secured:h2", files=files)
    try:
        check = {**PATIENT, "path": "/bytes/1"}
        address = origins.address("secured").replace("127.0.0.1", "localhost")
        # The system's authorities do not know this one.
        proxy = await asyncio.to_thread(start, Upstream("strange", backend(address, "unknown", check)))
        await eventually(lambda: state(proxy, "unknown") == "unhealthy")
        assert proxy.total(r'spooky_backend_probes_total\{.*backend="unknown",result="tls"') >= 2
        assert "unknown_ca" in proxy.child.log()
    finally:
        origins.stop()


async def test_failures_in_a_row_eject_but_never_more_than_the_share(start):
    async with Answering() as one, Answering() as two, Answering() as three:
        for origin in (one, two, three):
            origin.request = 503
        ejection = {"consecutive_failures": 3, "base_ejection_time": "60s", "failure_percent": "off"}
        backends = [backend(origin.address, name) for origin, name in [(one, "one"), (two, "two"), (three, "three")]]
        proxy = await asyncio.to_thread(start, Upstream("all", *backends, outlier_ejection=ejection))
        async with connect("h2", proxy) as client:
            for _ in range(30):
                assert (await client.get("/")).status == 503
        await eventually(lambda: proxy.total(r'spooky_backend_health\{.*state="ejected"') == 1)
        # Half of three is one.
        await eventually(lambda: proxy.total("spooky_backend_ejections_withheld_total") >= 1)
        assert proxy.total(r'spooky_backend_health\{.*state="ejected"') == 1
        assert proxy.total(r'spooky_backend_health_changes_total\{.*cause="consecutive_failures"') == 1
        out = next(name for name in ("one", "two", "three") if state(proxy, name) == "ejected")
        origin = {"one": one, "two": two, "three": three}[out]
        before = origin.requests
        async with connect("h2", proxy) as client:
            for _ in range(10):
                await client.get("/")
        assert origin.requests == before
    assert "ejected: its requests fail" in proxy.child.log()


async def test_a_share_of_failures_ejects_and_time_brings_it_back(start):
    """Every other request fails: never two in a row on this backend, but half of them."""
    async with Answering() as good, Answering() as half:
        ejection = {
            "interval": "1s",
            "min_requests": 5,
            "failure_percent": 30,
            "base_ejection_time": "300ms",
            "max_ejection_time": "1s",
        }
        backends = [backend(good.address, "good"), backend(half.address, "half")]
        proxy = await asyncio.to_thread(
            start, Upstream("pair", *backends), extra=f"[resilience]\noutlier_ejection = {quoted(ejection)}\n"
        )
        stop = time.monotonic() + 30
        async with connect("h2", proxy) as client:
            while not proxy.total(r'spooky_backend_health_changes_total\{.*backend="half",.*cause="failure_percent"'):
                assert time.monotonic() < stop
                for _ in range(20):
                    half.request = 500 if half.requests % 2 else 200
                    await client.get("/")
            half.request = 200
            await eventually(
                lambda: proxy.total(r'spooky_backend_health_changes_total\{.*backend="half",.*cause="ejection_over"') >= 1
            )
            await eventually(lambda: state(proxy, "half") == "healthy")
            before = half.requests
            for _ in range(10):
                assert (await client.get("/")).status == 200
            assert half.requests > before
        assert proxy.total(r'spooky_backend_health_changes_total\{.*backend="good"') == 0


async def test_who_comes_back_starts_slowly(start):
    async with Answering() as warm, Answering() as cold:
        balancing = {"slow_start": "8s", "type": "round-robin"}
        backends = [backend(warm.address, "warm", QUICK), backend(cold.address, "cold", QUICK)]
        proxy = await asyncio.to_thread(start, Upstream("pair", *backends, load_balancing=balancing))
        cold.probe = 500
        await eventually(lambda: state(proxy, "cold") == "unhealthy")
        cold.probe = 200
        await eventually(lambda: state(proxy, "cold") == "healthy")
        back = time.monotonic()
        parts = []
        async with connect("h2", proxy) as client:
            while time.monotonic() < back + 9:
                before = (warm.requests, cold.requests)
                for _ in range(50):
                    assert (await client.get("/")).status == 200
                asked, got = 50, cold.requests - before[1]
                parts.append((time.monotonic() - back, got / asked))
            before = cold.requests
            for _ in range(100):
                assert (await client.get("/")).status == 200
            # The whole share has returned.
            assert cold.requests - before == 50
        early = [part for at, part in parts if at < 2]
        late = [part for at, part in parts if 6 < at < 8]
        if early and late:
            assert sum(early) / len(early) < 0.25 < sum(late) / len(late), parts


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_one_of_three_killed_paused_and_restored_under_load(start, tmp_path, protocol):
    """Real origins: idempotent requests see no error, and in the end each has its third again."""
    web = []
    for name in ("one", "two", "three"):
        folder = tmp_path / name
        folder.mkdir()
        web.append(await asyncio.to_thread(Nginx, folder, sizes=(1, 13_000)))
    victim = web[1]
    proxy = None
    try:
        check = {**PATIENT, "interval": "500ms", "timeout": "400ms", "path": "/1"}
        backends = [backend(one.address, name, check) for one, name in zip(web, ("one", "two", "three"))]
        proxy = await asyncio.to_thread(
            start,
            Upstream("web", *backends, load_balancing={"slow_start": "2s"}),
            extra='[resilience]\nretry = { per_try_timeout = "400ms" }\nretry_budget = { percent = 100, min_per_sec = 100 }\n',
        )
        over, statuses = asyncio.Event(), []

        async def load():
            async with connect(protocol, proxy) as client:
                while not over.is_set():
                    statuses.append((await client.get("/13000")).status)

        clients = [asyncio.create_task(load()) for _ in range(3)]

        def pids():
            main = victim.child.process.pid
            children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(main)], capture_output=True, text=True).stdout.split()
            return [main, *map(int, children)]

        await eventually(lambda: len(statuses) > 50)
        # Paused: connections are accepted, and nothing is said.
        for pid in pids():
            os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: state(proxy, "two") == "unhealthy")
        mark = share(proxy, "two")
        so_far = len(statuses)
        await eventually(lambda: len(statuses) > so_far + 50)
        assert share(proxy, "two") == mark
        for pid in pids():
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: state(proxy, "two") == "healthy")
        # Killed: connections are refused.
        # The master first: it would replace its worker.
        for pid in pids():
            os.kill(pid, signal.SIGKILL)
        victim.child.process.wait()
        await eventually(lambda: state(proxy, "two") == "unhealthy")
        so_far = len(statuses)
        await eventually(lambda: len(statuses) > so_far + 50)
        # Restored, on the same port.
        victim.child = await asyncio.to_thread(
            Child, "nginx", [str(a) for a in victim.child.process.args], tmp_path / "two"
        )
        await eventually(lambda: state(proxy, "two") == "healthy")
        await asyncio.sleep(2.5)
        before = [share(proxy, name) for name in ("one", "two", "three")]
        so_far = len(statuses)
        await eventually(lambda: len(statuses) > so_far + 150)
        over.set()
        await asyncio.gather(*clients)
        after = [share(proxy, name) for name in ("one", "two", "three")]
        got = [now - then for now, then in zip(after, before)]
        assert all(abs(one - sum(got) / 3) <= 3 for one in got), got
        assert set(statuses) == {200}, [status for status in statuses if status != 200]
    finally:
        if proxy:
            await asyncio.to_thread(proxy.stop)
        for one in web:
            one.stop()


def test_contradictions_are_refused_with_a_way_out(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(
        'version = 1\n[listen]\ncleartext = "serve"\nprotocols = ["http/1.1"]\n[upstream.a]\nroute = { path_prefix = "/" }\n'
        'backends = [{ id = "a", address = "http://127.0.0.1:1", health_check = { timeout = "6s" } }]\n'
    )
    checked = run("check", "-c", path)
    assert checked.returncode == 78
    assert "`timeout` is longer than `interval`" in checked.stderr and "help: shorten `timeout`" in checked.stderr
