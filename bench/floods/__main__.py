"""Floods our proxy at full speed, one kind after another, while another client asks 50 times a second: does that one notice?

For each kind a fresh proxy on a core of its own; the attacker (`spooky-bench flood`), the other client and nginx share another
core, the attacker with the least priority there, so that what the client waits for is the proxy. Prints a table: what the attacker
did, what became of its connections, the client's errors and latencies, and resident memory before, during and after.
"""

import argparse
import collections
import getpass
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "compare"))

from machine import Process, describe, enter_namespace, wait_until         # noqa: E402
from peers import PEERS, fill                                              # noqa: E402

ROOT = HERE.parent.parent
NAME, PORT, ORIGIN_PORT, RATE = "bench.test", 18443, 18081, 50
# A kind, and the path its requests ask for; none is the client alone.
KINDS = {
    "none": "/1k", "streams": "/1k", "headers": "/1k", "large-headers": "/1k", "resets": "/1k", "pings": "/1k", "new-connection-ids": "/1k",
    "path-challenges": "/1k", "tiny-frames": "/upload", "optimistic-acks": "/1g",
}
# What must hold of the client (docs/PERFORMANCE.md has the figures).
P99_MS_MAX = 100


class Victim:
    """The proxy and its origin, with files and a certificate of their own."""

    def __init__(self, args):
        self.args = args
        self.work = Path(tempfile.mkdtemp(prefix="spooky-floods-"))
        self.work.chmod(0o755)
        files, cert, key = self.work / "files", self.work / "cert.pem", self.work / "key.pem"
        files.mkdir()
        (files / "1k").write_bytes(os.urandom(1024))
        with open(files / "1g", "wb") as sparse:
            sparse.truncate(1 << 30)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7",
             "-subj", f"/CN={NAME}", "-keyout", key, "-out", cert], check=True, capture_output=True)
        values = {"DIR": self.work, "CERT": cert, "KEY": key, "PORT": PORT, "ORIGIN": f"http://127.0.0.1:{ORIGIN_PORT}",
                  "ORIGIN_PORT": ORIGIN_PORT, "SOCKET": self.work / "origin.sock", "FILES": files, "USER": getpass.getuser()}
        self.configuration, origin = self.work / "spooky.toml", self.work / "origin.conf"
        self.configuration.write_text(fill((PEERS / "spooky.toml").read_text(), values))
        origin.write_text(fill((PEERS / "origin.conf").read_text(), values))
        nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if not nginx:
            raise SystemExit("no nginx for the origin: run `scripts/bench setup`")
        self.origin = Process([nginx, "-c", origin, "-e", self.work / "origin.log"], args.load_cores, self.work / "nginx.out")
        self.proxy, self.starts = None, 0

    def start(self):
        """A fresh proxy that answers."""
        if self.proxy:
            self.proxy.stop()
        self.starts += 1
        environment = {"STATE_DIRECTORY": str(self.work)}
        self.proxy = Process([self.args.spooky, "-c", self.configuration], self.args.proxy_cores, self.work / f"spooky-{self.starts}.out",
                             environment)
        if not wait_until(lambda: self.ask(["-n", "1", "--timeout", "1s"]).get("succeeded") == 1, 15):
            raise SystemExit(f"the proxy does not answer: {self.proxy.tail()}")

    def command(self, what, *arguments):
        return ["taskset", "--cpu-list", ",".join(map(str, self.args.load_cores)), self.args.generator, what, *map(str, arguments)]

    def ask_command(self, arguments):
        url = f"https://{NAME}:{PORT}/1k"
        return self.command("load", url, "--connect", f"127.0.0.1:{PORT}", "--insecure", "--format", "json", *arguments)

    def ask(self, arguments):
        """One run of the well-behaved client."""
        done = subprocess.run(self.ask_command(arguments), capture_output=True, text=True, check=False)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            return {"error": done.stderr.strip()[-300:]}

    def resident_mib(self):
        for line in Path(f"/proc/{self.proxy.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    @staticmethod
    def cpu_seconds(process):
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        if self.proxy:
            self.proxy.stop()
        self.origin.stop()
        shutil.rmtree(self.work, ignore_errors=True)


def run(victim, kind, seconds):
    """One flood: figures."""
    victim.start()
    # What a process gets on its first requests is not the flood's.
    victim.ask(["-n", "200", "-c", "2", "-m", "8"])
    before, cpu_before = victim.resident_mib(), [victim.cpu_seconds(each) for each in (victim.proxy, victim.origin)]
    watcher = victim.ask_command(["--rate", RATE, "-m", "64", "-d", f"{seconds + 1}s", "--timeout", "10s"])
    client = subprocess.Popen(watcher, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # The client has its connection before the flood begins.
    time.sleep(0.5)
    flood = None
    if kind != "none":
        command = victim.command("flood", kind, "--to", f"127.0.0.1:{PORT}", "--path", KINDS[kind], "-d", f"{seconds}s")
        flood = subprocess.Popen(["nice", "-n", "19", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    during, start = before, time.monotonic()
    while client.poll() is None and victim.proxy.is_alive():
        during = max(during, victim.resident_mib())
        time.sleep(0.05)
    elapsed = time.monotonic() - start
    told, complaint = client.communicate(timeout=30)
    attack, attack_error = flood.communicate(timeout=30) if flood else ("{}", "")
    if not victim.proxy.is_alive():
        return {"kind": kind, "error": f"the proxy died: {victim.proxy.tail()}"}
    if not told or not attack:
        return {"kind": kind, "error": (complaint or attack_error).strip()[-300:]}
    proxy, origin = ((victim.cpu_seconds(each) - then) / elapsed for each, then in zip((victim.proxy, victim.origin), cpu_before))
    # Connections that were thrown out linger for three probe timeouts.
    time.sleep(2)
    figures = {"kind": kind, "client": json.loads(told), "attack": json.loads(attack), "proxy_cpu": proxy, "origin_cpu": origin,
               "mib": {"before": before, "during": during, "after": victim.resident_mib()}}
    return figures


def holds(figures):
    """Whether the other client noticed nothing."""
    if "error" in figures:
        return False
    client = figures["client"]
    return client["failed"] == 0 and client["unsent"] == 0 and client["latency_ms"]["p99"] < P99_MS_MAX


def table(results):
    heads = ["flood", "packets/s", "MB/s", "connections", "ends", "proxy's CPU", "origin's", "client: answers", "errors", "p50 ms", "p99 ms",
             "max ms", "MiB before", "during", "after"]
    rows = [heads, ["---"] * len(heads)]
    for one in results:
        if "error" in one:
            rows.append([one["kind"], " ".join(one["error"].split()), *[""] * (len(heads) - 2)])
            continue
        attack, client, mib = collections.defaultdict(int, one["attack"]), one["client"], one["mib"]
        seconds, latency = attack["seconds"] or 1, client["latency_ms"]
        ends = ", ".join(f"{count} × {end}" for end, count in (attack["ends"] or {}).items())
        rows.append([one["kind"], f"{attack['packets'] / seconds:,.0f}", f"{attack['bytes'] / seconds / 1e6:.1f}",
                     f"{attack['connections']:,}", ends or "-", f"{one['proxy_cpu']:.0%}", f"{one['origin_cpu']:.0%}", client["succeeded"],
                     client["failed"] + client["unsent"], f"{latency['p50']:.2f}", f"{latency['p99']:.2f}", f"{latency['max']:.1f}",
                     f"{mib['before']:.1f}", f"{mib['during']:.1f}", f"{mib['after']:.1f}"])
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def parse_arguments():
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    cores = lambda text: [int(core) for core in text.split(",")]           # noqa: E731
    parser = argparse.ArgumentParser(prog="scripts/bench floods", description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"comma list of {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each flood")
    parser.add_argument("--proxy-cores", type=cores, default=[0])
    parser.add_argument("--load-cores", type=cores, default=[1], help="attacker, client and origin")
    parser.add_argument("--spooky", default=f"{target}/release/spooky")
    parser.add_argument("--generator", default=f"{target}/release/spooky-bench")
    parser.add_argument("--json", type=Path, help="write all figures here")
    return parser.parse_args()


def main():
    args = parse_arguments()
    kinds = args.kinds.split(",")
    if missing := [kind for kind in kinds if kind not in KINDS]:
        raise SystemExit(f"no such flood: {', '.join(missing)} (there are: {', '.join(KINDS)})")
    enter_namespace(1500)
    victim, results = Victim(args), []
    try:
        for kind in kinds:
            results.append(run(victim, kind, args.seconds))
            print(f"{kind}: {'unnoticed' if holds(results[-1]) else 'NOTICED'}", file=sys.stderr, flush=True)
    finally:
        victim.close()
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps({"machine": describe(), "seconds": args.seconds, "results": results}, indent=1))
    sys.exit(0 if all(map(holds, results)) else 1)


main()
