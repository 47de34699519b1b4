"""One proxy before one origin that speaks all there is: every protocol of clients with every protocol of backends.

Clients are named h1 (HTTP/1.1 without TLS), h1s (above TLS), h2 and h3; backends h1, h1s, h2 (above TLS), h2c and unix.
"""

import asyncio
import itertools

import pytest

from . import curl
from .authority import Authority
from .nginx import Nginx
from .origins import Origins
from .proxy import Proxy, Upstream, quoted

CLIENTS = ["h1", "h1s", "h2", "h3"]
BACKENDS = ["h1", "h1s", "h2", "h2c", "unix"]


def of_pairs(pairs):
    return pytest.mark.parametrize(("down", "up"), [pytest.param(*pair, id="-to-".join(pair)) for pair in pairs])


every_pair = of_pairs(itertools.product(CLIENTS, BACKENDS))
every_client = pytest.mark.parametrize("down", CLIENTS)
every_backend = pytest.mark.parametrize("up", BACKENDS)

PERFORMANCE = {"backend_timeout": "10s", "backend_body_idle_timeout": "10s", "client_body_idle_timeout": "10s"}


class Pairs:
    """The first segment of a path chooses the backend; `mixed` is all of them in one upstream."""

    def __init__(self, folder, certificate):
        listeners = ["h1", "h1s:https", "h2:h2", "h2c:h2c"]
        authority = Authority(folder, "backends")
        files = authority.server("localhost", addresses=["127.0.0.1"]).files()
        self.origins = Origins(folder, *listeners, files=files)
        self.web = Nginx(folder, files=files, sizes=(1, 13_000, 1 << 20))
        addresses = {name.partition(":")[0]: self.origins.address(name.partition(":")[0]) for name in listeners}
        addresses["unix"] = f"unix:{self.origins.unix}"
        upstreams = [Upstream(name, address, route={"path_prefix": f"/{name}"}) for name, address in addresses.items()]
        upstreams.append(Upstream("mixed", *addresses.values(), route={"path_prefix": "/mixed"}))
        for name, port in (("web-h2", self.web.h2_port), ("web-tls", self.web.tls_port)):
            upstreams.append(Upstream(name, f"https://localhost:{port}", route={"host": f"{name}.origin.test"}))
        trust = f"[upstream_tls]\nca_file = {quoted(str(authority.path))}"
        self.proxy = Proxy(folder, certificate, upstreams, PERFORMANCE, cleartext="serve", extra=trust)
        self.child = self.proxy.child

    def children(self):
        return [self.proxy.child, self.origins.child, self.web.child]

    def fetch(self, down, up, asked, fields=(), **options):
        return curl.fetch(self.proxy, f"/{up}/x", version=down, fields=[("x-do", asked), *fields], **options)

    async def record(self, tag, until=None):
        return await asyncio.to_thread(self.origins.record, tag, until)

    def stop(self):
        """The proxy's exit code."""
        import time, signal, json  # DEBUG
        self.proxy.child.signal(signal.SIGTERM); t=time.monotonic()
        while self.proxy.child.alive() and time.monotonic()-t<4.5: time.sleep(.05)
        if self.proxy.child.alive():
            open("/tmp/metrics.txt","w").write(json.dumps({k: v for k, v in self.proxy.metrics().items() if v}, indent=1)+str(self.proxy.access()[-3:]))
        open("/tmp/metrics2.txt","a").write(f"drained in {time.monotonic()-t}\n")
        code = self.proxy.stop()
        self.origins.stop()
        self.web.stop()
        return code
