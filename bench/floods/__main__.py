"""Floods our proxy at full speed, one kind after another, while other clients ask 50 times a second each: do they notice?

For each kind a fresh proxy on a core of its own; the attacker (`spooky-bench flood`), three other clients (one for each protocol, on
connections of its own), newcomers with a connection for each request, and nginx share another core, the attacker with the least
priority there, so that what a client waits for is the proxy. Prints a table: what the attacker did, what became of its connections,
the clients' errors and latencies, and resident memory before, during and after. `idle-h1`, `idle-h2` and `idle-h3` are no floods: 10,000
connections that ask, say nothing for a while, and ask again.
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

from machine import Process, describe, enter_namespace, generator_report, make_certificate, wait_until  # noqa: E402
from peers import PEERS, fill                                              # noqa: E402

ROOT = HERE.parent.parent
NAME, PORT, ORIGIN_PORT, RATE, NEWCOMERS = "bench.test", 18443, 18081, 50, 5
# What is spoken, and how a client of it has room for a few requests at once.
PROTOCOLS = {"h3": ["-m", 64], "h2": ["-m", 64], "h1": ["-c", 4]}
# A kind, and the path its requests ask for; none is the clients alone.
QUIC = {
    "streams": "/1k", "headers": "/1k", "large-headers": "/1k", "resets": "/1k", "pings": "/1k", "new-connection-ids": "/1k",
    "path-challenges": "/1k", "tiny-frames": "/upload", "optimistic-acks": "/1g",
}
HTTP2 = {
    "h2-resets": "/1k", "h2-made-resets": "/1k", "h2-continuations": "/1k", "h2-empty-continuations": "/1k", "h2-settings": "/1k",
    "h2-pings": "/1k", "h2-empty-data": "/upload", "h2-tiny-data": "/upload", "h2-priorities": "/1k", "h2-window-updates": "/1k",
    "h2-header-bombs": "/1k", "h2-large-headers": "/1k",
}
# Who takes his time meets time-outs that are short enough to be seen.
CROWDS = {
    "h2-zero-windows": "/1m", "h2-never-reads": "/1m", "connects": "/1k", "handshakes": "/1k", "tls-bytes": "/1k", "tls-hellos": "/1k",
    "slow-heads": "/1k", "slow-bodies": "/upload", "stalled-bodies": "/upload", "slow-reads": "/1g",
}
IDLE = {"idle-h1": "h1", "idle-h2": "h2", "idle-h3": "h3"}
# Longer than a crowd takes to come.
PATIENT_QUIC = '[listen.quic]\nidle_timeout = "10m"\n\n'
KINDS = {"none": "/1k", **QUIC, **HTTP2, **CROWDS, **IDLE}
SHORT_TIMES = """client_header_timeout = "5s"
client_body_idle_timeout = "5s"
client_send_timeout = "5s"
total_request_timeout = "10s"
"""
# What must hold of the clients (docs/PERFORMANCE.md has the figures).
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
        for name, size in (("1m", 1 << 20), ("1g", 1 << 30)):
            with open(files / name, "wb") as sparse:
                sparse.truncate(size)
        make_certificate(NAME, key, cert)
        values = {"DIR": self.work, "CERT": cert, "KEY": key, "PORT": PORT, "WORKERS": 1, "ORIGIN": f"http://127.0.0.1:{ORIGIN_PORT}",
                  "ORIGIN_PORT": ORIGIN_PORT, "ORIGIN_H2_PORT": ORIGIN_PORT + 1,
                  "SOCKET": self.work / "origin.sock", "FILES": files, "USER": getpass.getuser()}
        self.configuration, self.patient = self.work / "spooky.toml", fill((PEERS / "spooky.toml").read_text(), values)
        origin = self.work / "origin.conf"
        origin.write_text(fill((PEERS / "origin.conf").read_text(), values))
        nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if not nginx:
            raise SystemExit("no nginx for the origin: run `scripts/bench setup`")
        self.origin = Process([nginx, "-c", origin, "-e", self.work / "origin.log"], args.load_cores, self.work / "nginx.out")
        self.proxy, self.starts = None, 0

    def start(self, kind):
        """A fresh proxy that answers."""
        times, patience = SHORT_TIMES if kind in CROWDS else "", PATIENT_QUIC if kind in IDLE else ""
        self.configuration.write_text(self.patient.replace("[performance]\n", f"{patience}[performance]\n{times}"))
        if self.proxy:
            self.proxy.stop()
        self.starts += 1
        environment = {"STATE_DIRECTORY": str(self.work)}
        self.proxy = Process([self.args.spooky, "-c", self.configuration], self.args.proxy_cores, self.work / f"spooky-{self.starts}.out",
                             environment)
        for protocol in PROTOCOLS:
            answer = {}
            if not wait_until(lambda: answer.update(self.ask(protocol, ["-n", "1", "--timeout", "1s"])) or answer.get("succeeded"), 15):
                raise SystemExit(f"no answer over {protocol}: {answer}\n{self.proxy.tail()}\n{self.origin.tail()}")

    def command(self, what, *arguments):
        return ["taskset", "--cpu-list", ",".join(map(str, self.args.load_cores)), self.args.generator, what, *map(str, arguments)]

    def ask_command(self, protocol, arguments):
        url = f"https://{NAME}:{PORT}/1k"
        return self.command("load", url, "--protocol", protocol, "--connect", f"127.0.0.1:{PORT}", "--insecure", "--format", "json",
                            *arguments)

    def ask(self, protocol, arguments):
        """One run of a well-behaved client."""
        done = subprocess.run(self.ask_command(protocol, arguments), capture_output=True, text=True, check=False)
        return generator_report(done.stdout, done.stderr)

    def watch(self, protocol, seconds, *arguments):
        """A client that asks at its pace beside the flood."""
        pace = ["-d", f"{seconds + 1}s", "--timeout", "10s", *arguments]
        return subprocess.Popen(self.ask_command(protocol, pace), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

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
    victim.start(kind)
    # What a process gets on its first requests is not the flood's.
    for protocol in PROTOCOLS:
        victim.ask(protocol, ["-n", "200", "-c", "8"])
    before, cpu_before = victim.resident_mib(), [victim.cpu_seconds(each) for each in (victim.proxy, victim.origin)]
    clients = {protocol: victim.watch(protocol, seconds, "--rate", RATE, *room) for protocol, room in PROTOCOLS.items()}
    clients["new"] = victim.watch("h1", seconds, "--rate", NEWCOMERS, "--per-connection", "1")
    # The clients have their connections before the flood begins.
    time.sleep(0.5)
    flood = None
    if kind != "none":
        command = victim.command("flood", kind, "--to", f"127.0.0.1:{PORT}", "--path", KINDS[kind], "-d", f"{seconds}s")
        flood = subprocess.Popen(["chrt", "--other", "0", "nice", "-n", "19", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    during, start = before, time.monotonic()
    while any(client.poll() is None for client in clients.values()) and victim.proxy.is_alive():
        during = max(during, victim.resident_mib())
        time.sleep(0.05)
    elapsed = time.monotonic() - start
    told = {name: client.communicate(timeout=30) for name, client in clients.items()}
    attack, attack_error = flood.communicate(timeout=30) if flood else ("{}", "")
    if not victim.proxy.is_alive():
        return {"kind": kind, "error": f"the proxy died: {victim.proxy.tail()}"}
    complaints = [complaint for answer, complaint in told.values() if not answer]
    if complaints or not attack:
        return {"kind": kind, "error": " ".join([*complaints, attack_error]).strip()[-300:]}
    proxy, origin = ((victim.cpu_seconds(each) - then) / elapsed for each, then in zip((victim.proxy, victim.origin), cpu_before))
    # Connections that were thrown out linger: three probe timeouts, or two seconds.
    time.sleep(3)
    return {"kind": kind, "clients": {name: json.loads(answer) for name, (answer, _) in told.items()}, "attack": json.loads(attack),
            "proxy_cpu": proxy, "origin_cpu": origin, "mib": {"before": before, "during": during, "after": victim.resident_mib()}}


def run_idle(victim, kind, connections):
    """A crowd that is silent between two requests: figures."""
    victim.start(kind)
    victim.ask(IDLE[kind], ["-n", "200", "-c", "2"])
    report = victim.ask(IDLE[kind], ["-c", connections, "--connect-rate", "1000", "--idle", "15s", "--timeout", "30s", "--watch",
                                     victim.proxy.pid])
    return {"kind": kind, **({"error": report["error"]} if "error" in report else {"idle": report["idle"], "failed": report["failed"]})}


def holds(figures):
    """Whether the other clients noticed nothing; of a silent crowd, whether all of it was answered."""
    if "error" in figures:
        return False
    if "idle" in figures:
        idle = figures["idle"]
        return figures["failed"] == 0 and idle["connections"] == idle["succeeded_before"] == idle["succeeded_after"]
    # Newcomers are shown: where there is no room for one more handshake, they are refused.
    clients = [figures["clients"][protocol] for protocol in PROTOCOLS]
    return all(each["failed"] == 0 and each["unsent"] == 0 and each["latency_ms"]["p99"] < P99_MS_MAX for each in clients)


def client_cell(client):
    latency = client["latency_ms"] or collections.defaultdict(float)
    wrong = client["failed"] + client["unsent"]
    return f"{client['succeeded']:,} / {wrong:,}: {latency['p50']:.2f} / {latency['p99']:.2f} / {latency['max']:.1f}"


def table(results):
    cell = "answers / errors: p50 / p99 / max ms"
    heads = ["flood", "packets or frames/s", "MB/s", "connections", "at once", "ends", "proxy's CPU", "origin's",
             *(f"{each}: {cell}" for each in PROTOCOLS), f"newcomers: {cell}", "MiB before", "during", "after"]
    rows = [heads, ["---"] * len(heads)]
    for one in results:
        if "error" in one:
            rows.append([one["kind"], " ".join(one["error"].split()), *[""] * (len(heads) - 2)])
            continue
        if "idle" in one:
            continue
        attack, clients, mib = collections.defaultdict(int, one["attack"]), one["clients"], one["mib"]
        seconds = attack["seconds"] or 1
        ends = ", ".join(f"{count:,} × {end}" for end, count in (attack["ends"] or {}).items())
        if attack["handshakes_failed"]:
            ends += f", {attack['handshakes_failed']:,} × not let in"
        rows.append([one["kind"], f"{(attack['packets'] + attack['frames']) / seconds:,.0f}", f"{attack['bytes'] / seconds / 1e6:.1f}",
                     f"{attack['connections']:,}", f"{attack['open_most']:,}", ends or "-", f"{one['proxy_cpu']:.0%}",
                     f"{one['origin_cpu']:.0%}", *(client_cell(clients[each]) for each in (*PROTOCOLS, "new")),
                     f"{mib['before']:.1f}", f"{mib['during']:.1f}", f"{mib['after']:.1f}"])
    text = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
    for one in results:
        if "idle" in one:
            idle = one["idle"]
            text += (f"\n{one['kind']}: {idle['connections']:,} connections, {idle['succeeded_before']:,} answers before the silence and "
                     f"{idle['succeeded_after']:,} after it, {one['failed']} failed, {idle['kib_per_connection']:.1f} KiB each, "
                     f"{idle['cpu_share']:.2%} of a core in the silence")
    return text


def parse_arguments():
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    cores = lambda text: [int(core) for core in text.split(",")]           # noqa: E731
    parser = argparse.ArgumentParser(prog="scripts/bench floods", description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"comma list of {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each flood")
    parser.add_argument("--idle-connections", type=int, default=10_000, help="size of the silent crowds")
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
            results.append(run_idle(victim, kind, args.idle_connections) if kind in IDLE else run(victim, kind, args.seconds))
            print(f"{kind}: {'unnoticed' if holds(results[-1]) else 'NOTICED'}", file=sys.stderr, flush=True)
            if args.json:
                args.json.write_text(json.dumps({"machine": describe(), "seconds": args.seconds, "results": results}, indent=1))
    finally:
        victim.close()
    print(table(results))
    sys.exit(0 if all(map(holds, results)) else 1)


main()
