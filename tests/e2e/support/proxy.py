"""The proxy under test: a generated configuration, the real binary, its metrics and its end."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from .ports import bracketed, free, free_both
from .process import Child, until

REPOSITORY = Path(__file__).resolve().parents[3]


def binary():
    """The binary to test: $SPOOKY_BIN, or the newest build in the target folder."""
    if given := os.environ.get("SPOOKY_BIN"):
        return Path(given).resolve()
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    built = [target / profile / "spooky" for profile in ("ci", "release", "debug")]
    built = [path for path in built if path.exists()]
    if not built:
        raise RuntimeError("no spooky binary: build one (cargo build --profile ci) or set SPOOKY_BIN")
    return max(built, key=lambda path: path.stat().st_mtime)


def quoted(value):
    """A TOML value (JSON's strings, numbers, booleans and flat lists are TOML's)."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {quoted(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(quoted(item) for item in value) + "]"
    return json.dumps(value)


class Upstream:
    """One upstream of a configuration; `route=False`: only entries of [[routes]] lead to it."""

    def __init__(self, name, *addresses, route=None, **keys):
        self.name = name
        self.route = {"path_prefix": "/"} if route is None else route
        self.backends = [
            address if isinstance(address, dict) else {"id": f"{name}-{index}", "address": str(address)}
            for index, address in enumerate(addresses)
        ]
        self.keys = keys

    def lines(self):
        yield f"[upstream.{self.name}]"
        if self.route is not False:
            yield f"route = {quoted(self.route)}"
        yield f"backends = {quoted(self.backends)}"
        for key, value in self.keys.items():
            yield f"{key} = {quoted(value)}"


class Proxy:
    """One running `spooky`. `sockets(port)` makes UDP sockets that it inherits as from systemd, under `socket_name`."""

    def __init__(
        self,
        folder,
        certificate,
        upstreams,
        performance=None,
        name="spooky",
        extra="",
        listen=None,
        tls=None,
        secret=None,
        port=None,
        sockets=None,
        socket_name="listen",
        cleartext=None,
        host="127.0.0.1",
        observability=None,
    ):
        self.folder, self.certificate, self.host = folder, certificate, host
        self.port, self.metrics_port, self.control_port = port or free_both(), free(), free()
        self.path = folder / f"{name}.toml"
        self.access_path = folder / f"{name}.access.log"
        performance = {"worker_threads": 1, "pin_workers": False, **(performance or {})}
        lines = ["version = 1", ""]
        # Beside the listener with TLS there may be one without, `cleartext` saying what becomes of its requests.
        plain, header = [], "[listen]"
        if cleartext is not None:
            self.plain_port, header = free(), "[[listeners]]"
            plain = ["", header, 'name = "plain"', 'address = "127.0.0.1"', f"port = {self.plain_port}"]
            plain += [f"cleartext = {quoted(cleartext)}"]
        lines += [header, 'name = "listen"', f'address = "{host}"', f"port = {self.port}"]
        lines += [f"tls = {quoted({'cert': str(certificate.cert), 'key': str(certificate.key), **(tls or {})})}"]
        lines += [f"{key} = {quoted(value)}" for key, value in (listen or {}).items()]
        lines += plain
        for upstream in upstreams:
            lines += ["", *upstream.lines()]
        lines += ["", "[performance]", *(f"{key} = {quoted(value)}" for key, value in performance.items())]
        lines += ["", "[observability]", f"metrics = {quoted({'port': self.metrics_port})}"]
        lines += [f"control_api = {quoted({'port': self.control_port})}"]
        lines += [f"access_log = {quoted({'file': str(self.access_path)})}"]
        lines += [f"{key} = {quoted(value)}" for key, value in (observability or {}).items()]
        # Not the machine's: a test leaves nothing behind.
        self.secret_path = secret or folder / f"{name}.secret"
        lines += ["", "[security]", f"secret = {quoted({'file': str(self.secret_path)})}", "", extra]
        self.path.write_text("\n".join(lines))
        command, descriptors, given = [binary(), "-c", self.path], (), []
        if sockets:
            given = sockets(self.port)
            descriptors = [one.fileno() for one in given]
            numbers = ",".join(map(str, descriptors))
            command = [sys.executable, "-m", "support.handover", socket_name, numbers, *command]
        environment = {"RUST_BACKTRACE": "1", "PYTHONPATH": str(REPOSITORY / "tests" / "e2e")}
        self.child = Child(name, command, folder, environment=environment, pass_fds=descriptors)
        # Its copies are its own; one left open here would be a socket of the group that nobody reads.
        for one in given:
            one.close()
        try:
            until(self.ready, 20)
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"not ready:\n{self.path.read_text()}\n{self.child.log()}") from error

    @property
    def authority(self):
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def address(self):
        return self.host, self.port

    def url(self, path):
        return f"https://{self.authority}{path}"

    def plain_url(self, path):
        return f"http://127.0.0.1:{self.plain_port}{path}"

    def control(self, path):
        """(status, body) of a GET on the control listener; status 0: no connection."""
        return plain_get(f"http://127.0.0.1:{self.control_port}{path}")

    def ready(self):
        if not self.child.alive():
            raise AssertionError(f"ended with {self.child.process.returncode}")
        return self.control("/ready")[0] == 200

    def metrics(self):
        """All samples: {'name{labels}': value}."""
        status, text = plain_get(f"http://127.0.0.1:{self.metrics_port}/metrics")
        assert status == 200, (status, text)
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def total(self, pattern):
        """Sum of the samples whose name with labels matches `pattern`."""
        return sum(value for name, value in self.metrics().items() if re.search(pattern, name))

    def access(self):
        """The access log so far, one dict a line."""
        if not self.access_path.exists():
            return []
        lines = self.access_path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def stop(self):
        return self.child.stop()


def plain_get(url, seconds=10):
    """(status, text) of a GET without TLS; (0, reason) when there is no answer."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def run(*arguments, seconds=60, **keys):
    """Runs the binary to its end and returns the completed process (text)."""
    command = [str(binary()), *(str(a) for a in arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False, **keys)


def tool(name):
    """The path of a program the tests need, or an error that says what to do."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not path:
        raise RuntimeError(f"{name} is not installed: scripts/test installs what the tests need")
    return path
