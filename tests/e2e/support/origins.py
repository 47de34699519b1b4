"""Starts the programmable origin in its own process, so that its work does not wait for the test's, and asks it for records."""

import json
import subprocess
import sys
from pathlib import Path

from .process import Child
from .proxy import plain_get


class Origins:
    """Named listeners of one origin process; `name:manner` speaks something else than HTTP/1.1 in clear (support.origin)."""

    def __init__(self, folder, *names, files=None):
        self.unix = folder / "origin.sock"
        secured = ["--tls", *files] if files else []
        manners = dict(name.partition(":")[::2] for name in names)
        self.schemes = {name: {"": "http", "h2": "https"}.get(manner, manner) for name, manner in manners.items()}
        self.child = Child(
            "origin",
            [sys.executable, "-m", "support.origin", "--unix", self.unix, *secured, *names],
            folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            environment={"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
        self.ports = json.loads(self.child.process.stdout.readline())

    def address(self, name):
        return f"{self.schemes[name]}://127.0.0.1:{self.ports[name]}"

    def record(self, tag, until=None, seconds=20):
        """What the origin noted under `tag`; with `until`, waits for that event and fails if it does not come."""
        port = next(port for name, port in self.ports.items() if self.schemes[name] == "http")
        query = f"tag={tag}" + (f"&until={until}&seconds={seconds}" if until else "")
        status, text = plain_get(f"http://127.0.0.1:{port}/_record?{query}", seconds + 5)
        assert status == 200, text
        record = json.loads(text)
        if until:
            assert until in record["events"], f"the origin did not see '{until}' within {seconds} s: {record}"
        return record

    def requests(self):
        """How many requests reached any of the listeners so far, whatever their tags."""
        return self.record("every")["requests"]

    def stop(self):
        return self.child.stop()
