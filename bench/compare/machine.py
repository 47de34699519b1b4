"""Processes, cores and the private network: what the comparison needs from the machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

INSIDE = "SPOOKY_BENCH_NAMESPACE"


def enter_namespace(mtu):
    """As root, starts this program again in a network namespace of its own, with loopback up and an Ethernet's MTU.

    With the usual 65,536 some proxies would find and use datagrams that no network carries.
    """
    if os.environ.get(INSIDE):
        return True
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        print("not root, or no unshare and ip: measuring on the host's loopback", file=sys.stderr)
        return False
    script = f'ip link set lo mtu {mtu} && ip link set lo up && exec "$@"'
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--net", "--", "sh", "-c", script, "sh", sys.executable, *sys.orig_argv[1:]])


def descendants(root):
    """The pids of a process and all its living descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            # The command name in brackets may hold anything.
            parent = int(stat[stat.rindex(")") + 1:].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def make_certificate(name, key, cert):
    """A certificate of a week for `name` and 127.0.0.1, with its key, in these files."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True)


def generator_report(out, err):
    """What `spooky-bench load --format json` has printed, or the end of what it complained about."""
    try:
        return json.loads(out)
    except json.JSONDecodeError:
        return {"succeeded": 0, "error": err.strip()[-300:]}


class Process:
    """A pinned child in the foreground, with its output in a file. It dies with us, whatever happens to us."""

    def __init__(self, command, cores, log, environment=None):
        prefix = ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", ",".join(map(str, cores))]
        self.log = Path(log)
        with open(log, "ab") as out:
            self.child = subprocess.Popen(
                [*prefix, *map(str, command)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, **(environment or {})})
        self.pid = self.child.pid

    def is_alive(self):
        return self.child.poll() is None

    def tail(self):
        return self.log.read_text(errors="replace")[-600:].strip()

    def stop(self):
        """Asks twice (the second time means: at once), then kills it and what it left, by pid."""
        pids = descendants(self.pid) if self.is_alive() else []
        for sign, grace in ((signal.SIGTERM, 1.0), (signal.SIGTERM, 1.0), (signal.SIGKILL, 2.0)):
            if not self.is_alive():
                break
            self.child.send_signal(sign)
            try:
                self.child.wait(grace)
            except subprocess.TimeoutExpired:
                pass
        for pid in pids:
            if pid != self.pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


def wait_until(condition, seconds):
    """Polls a condition; whether it came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def describe():
    """The machine, for the record."""
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release,
        "rmem_default": int(Path("/proc/sys/net/core/rmem_default").read_text()),
        "rmem_max": int(Path("/proc/sys/net/core/rmem_max").read_text()),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
