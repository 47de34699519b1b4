"""The proxies under test: where they are, how they are started."""

import os
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

PEERS = Path(__file__).resolve().parent.parent / "peers"


@dataclass
class Peer:
    name: str
    command: list
    template: Path | None = None
    environment: dict = field(default_factory=dict)
    unix: bool = False
    binary: str = ""
    workers: int = 1
    always: bool = True     # part of every comparison, also one that does not name it
    front: tuple = ("h3", "h2", "h1")
    # What the origin can speak, and how this peer's configuration says it.
    back: dict = field(default_factory=lambda: {"h1": "h1", "h2": "h2"})

    def refuses(self, case):
        """Why this peer has no part in a case; an empty string if it has."""
        if case.unix and not self.unix:
            return "no unix-socket origin for this peer"
        if case.front not in self.front:
            return f"does not speak {case.front} to clients"
        return "" if case.back in self.back else f"does not speak {case.back} to origins"

    def version(self):
        """What the binary says it is; an empty string if it does not."""
        if not self.binary:
            return ""
        for flag in ("--version", "version", "-v"):
            try:
                done = subprocess.run([self.binary, flag], capture_output=True, text=True, timeout=10)
            except (OSError, subprocess.TimeoutExpired):
                continue
            # nginx says it on standard error.
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            if done.returncode == 0 and lines:
                return lines[0].strip()
        return ""

    def at_work_with(self, workers):
        """The same with so many workers."""
        texts = [*self.command, *self.environment.values(), self.template.read_text() if self.template else ""]
        if not any("@WORKERS@" in text for text in texts):
            raise SystemExit(f"{self.name} cannot be told how many workers to have")
        return replace(self, name=f"{self.name}@{workers}", workers=workers)


def fill(text, values):
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def known_peers(target):
    """All peers of peers.toml whose binary exists."""
    peers = {}
    for name, entry in tomllib.loads((PEERS / "peers.toml").read_text()).items():
        binary = shutil.which(os.environ.get(entry["env"], "") or fill(entry["binary"], {"TARGET": target}))
        if binary:
            template = PEERS / entry["template"] if "template" in entry else None
            peers[name] = Peer(name, [part.replace("@BIN@", binary) for part in entry["command"]], template,
                               entry.get("environment", {}), entry.get("unix", False), binary)
            peers[name].front = entry.get("front", peers[name].front)
            peers[name].back = entry.get("back", peers[name].back)
            peers[name].always = entry.get("always", True)
    return peers


def with_workers(peers, names):
    """Adds the peers among `names` that are NAME@WORKERS."""
    for name in names:
        base, _, workers = name.partition("@")
        if workers.isdecimal() and base in peers:
            peers[name] = peers[base].at_work_with(int(workers))


def peer_from_command_line(spec, templates, unix):
    """NAME=COMMAND, with an optional template file of its own."""
    name, _, command = spec.partition("=")
    if not command:
        raise SystemExit(f"--peer {spec}: expected NAME=COMMAND")
    template = Path(templates[name]) if name in templates else None
    words = shlex.split(command)
    return Peer(name, words, template, {}, name in unix, shutil.which(words[0]) or "")
