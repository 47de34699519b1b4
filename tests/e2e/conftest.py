"""Fixtures: origins, proxies and clients of the end-to-end tests; see docs/TESTING.md."""

import asyncio
import contextlib
import inspect
import subprocess
import sys

import pytest

from support import certificate as certificates
from support import curl, nginx
from support.h3 import Client
from support.origins import Origins
from support.pairs import Pairs
from support.process import until
from support.proxy import Proxy, Upstream
from support.relay import Relay

SEED = 0x5EED


def pytest_pyfunc_call(pyfuncitem):
    """Runs tests that are coroutines, each on a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Appends the logs of the test's proxy and origins to a failure."""
    report = yield
    if report.failed:
        logs = {}
        for value in item.funcargs.values():
            children = value.children() if hasattr(value, "children") else [getattr(value, "child", None)]
            logs.update({child.log_path: child for child in children if child})
        report.sections.extend((f"log of {child.name}", child.log()) for child in logs.values())
    return report


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def origins(tmp_path_factory):
    """Named listeners of the programmable origin."""
    running = Origins(tmp_path_factory.mktemp("origins"), "main", "api", "items", "posts", "hosted", "one", "two", "three")
    yield running
    running.stop()


def standard_upstreams(origins):
    """The routes most tests run on: a default, prefixes, a method and a host."""
    return [
        Upstream("main", origins.address("main")),
        Upstream("api", origins.address("api"), route={"path_prefix": "/api"}),
        Upstream("items", origins.address("items"), route={"path_prefix": "/api/items"}),
        Upstream("posts", origins.address("posts"), route={"path_prefix": "/only-post", "method": "POST"}),
        Upstream("hosted", origins.address("hosted"), route={"host": "hosted.origin.test", "path_prefix": "/"}),
        Upstream("socket", f"unix:{origins.unix}", route={"path_prefix": "/socket"}),
        Upstream(
            "spread", *(origins.address(name) for name in ("one", "two", "three")), route={"path_prefix": "/spread"}
        ),
    ]


# Short enough for the tests of timeouts, long enough for a busy machine.
PERFORMANCE = {
    "backend_connect_timeout": "1s",
    "backend_timeout": "2s",
    "backend_body_idle_timeout": "2s",
    "client_body_idle_timeout": "5s",
}


@pytest.fixture(scope="session")
def shared_proxy(tmp_path_factory, certificate, origins):
    """The proxy that all tests with no wish of their own share; a test that breaks it breaks the next one's first check."""
    running = Proxy(tmp_path_factory.mktemp("proxy"), certificate, standard_upstreams(origins), PERFORMANCE)
    yield running
    code = running.stop()
    assert code == 0, f"the proxy ended with {code}:\n{running.child.log()}"


@pytest.fixture
def proxy(shared_proxy):
    """The shared proxy; after the test it must still live, and serve the next client."""
    assert shared_proxy.child.alive(), shared_proxy.child.log()
    yield shared_proxy
    assert shared_proxy.child.alive(), f"the proxy died:\n{shared_proxy.child.log()}"
    after = curl.fetch(shared_proxy, "/bytes/1", timeout=10)
    assert (after.status, after.length) == (200, 1), f"the next good client was not served: {after}"


class Starter:
    """Starts proxies that end with the test."""

    def __init__(self, folder, certificate, origins, stack):
        self.folder, self.certificate, self.origins, self.stack, self.proxies = folder, certificate, origins, stack, []

    def __call__(self, *upstreams, **options):
        upstreams = upstreams or standard_upstreams(self.origins)
        options.setdefault("performance", PERFORMANCE)
        running = Proxy(self.folder, self.certificate, upstreams, name=f"spooky-{len(self.proxies)}", **options)
        self.proxies.append(running)
        self.stack.callback(running.stop)
        return running

    def children(self):
        return [running.child for running in self.proxies]


@pytest.fixture
def start(tmp_path, certificate, origins):
    """`start(*upstreams, performance={...}, extra='toml')` runs a proxy of the test's own."""
    with contextlib.ExitStack() as stack:
        yield Starter(tmp_path, certificate, origins, stack)


@pytest.fixture
def relay(proxy, request):
    """A seeded lossy relay before the shared proxy; parametrised by the share of datagrams it drops."""
    running = Relay(proxy.address, loss=getattr(request, "param", 0.01), seed=SEED)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    """Debian's nginx as a backend."""
    running = nginx.Nginx(tmp_path_factory.mktemp("nginx"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def shared_pairs(tmp_path_factory, certificate):
    running = Pairs(tmp_path_factory.mktemp("pairs"), certificate)
    yield running
    code = running.stop()
    assert code == 0, f"the proxy ended with {code}:\n{running.proxy.child.log()}"


@pytest.fixture
def pairs(shared_pairs):
    """A proxy that speaks everything before an origin that does; after the test it must still live."""
    yield shared_pairs
    assert shared_pairs.proxy.child.alive(), f"the proxy died:\n{shared_pairs.proxy.child.log()}"
    # Whatever a test did to its connections, no exchange outlives them.
    until(lambda: shared_pairs.proxy.total("^spooky_requests_active") == 0, 10)


@pytest.fixture
def h3():
    """`async with h3(proxy) as client`: an aioquic connection."""
    return Client


@pytest.fixture
def tag(request):
    """A name for the origin's record of this test."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


def pytest_report_header():
    versions = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=False).stdout
    return ", ".join(line for line in versions.splitlines() if line.startswith(("curl_cffi", "aioquic")))
