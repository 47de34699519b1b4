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

# Long enough for a busy machine; no test here waits for one of them.
PERFORMANCE = {
    "backend_connect_timeout": "10s",
    "backend_timeout": "10s",
    "backend_body_idle_timeout": "10s",
    "client_body_idle_timeout": "10s",
}


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
        code = self.proxy.stop()
        self.origins.stop()
        self.web.stop()
        return code
