"""Compares reverse proxies on one machine: see docs/PERFORMANCE.md for the method.

Starts an origin and one proxy at a time, drives it with `spooky-bench load`, in interleaved rounds, and prints for each
case a Markdown table of medians. Only the standard library is used, and nothing leaves 127.0.0.1.
"""

import argparse
import getpass
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import h2load                                                              # noqa: E402
from cases import CASES, GIB, KIB, MIB                                     # noqa: E402
from machine import Process, describe, enter_namespace, generator_report, make_certificate, wait_until  # noqa: E402
from peers import PEERS, fill, known_peers, peer_from_command_line, with_workers  # noqa: E402
from table import render                                                   # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
NAME, PORT, RELAY_PORT = "bench.test", 18443, 18444
ORIGIN_PORT, SINK_PORT, ORIGIN_H2_PORT = 18081, 18082, 18083


class Bench:
    def __init__(self, args):
        self.args = args
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.work = Path(tempfile.mkdtemp(prefix="spooky-bench-", dir=base))
        # Proxies and the origin may run as other users.
        self.work.chmod(0o755)
        self.files, self.origin_socket = self.work / "files", self.work / "origin.sock"
        self.files.mkdir()
        for name, size in (("1k", KIB), ("64k", 64 * KIB), ("1m", MIB), ("10m", 10 * MIB)):
            (self.files / name).write_bytes(os.urandom(size))
        with open(self.files / "1g", "wb") as sparse:
            sparse.truncate(GIB)
        self.cert, self.key = self.work / "cert.pem", self.work / "key.pem"
        make_certificate(NAME, self.key, self.cert)
        self.pem = self.work / "both.pem"
        self.pem.write_bytes(self.cert.read_bytes() + self.key.read_bytes())
        self.origins = []

    def values(self, directory, unix=False, port=ORIGIN_PORT, back="h1"):
        origin = f"{'h2c' if back == 'h2' else 'http'}://127.0.0.1:{port}"
        return {"DIR": directory, "CERT": self.cert, "KEY": self.key, "PEM": self.pem, "PORT": PORT,
                "ORIGIN": f"unix:{self.origin_socket}" if unix else origin,
                "ORIGIN_PORT": port, "ORIGIN_H2_PORT": ORIGIN_H2_PORT, "SOCKET": self.origin_socket,
                "FILES": self.files, "USER": getpass.getuser()}

    def start_origins(self):
        directory = self.work / "origin"
        directory.mkdir()
        conf = directory / "origin.conf"
        conf.write_text(fill((PEERS / "origin.conf").read_text(), self.values(directory)))
        nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if not nginx:
            raise SystemExit("no nginx for the origin: run `scripts/bench setup`")
        self.start_one_origin([nginx, "-c", conf, "-e", directory / "origin.log"], ORIGIN_PORT, directory / "out")
        tool = [self.args.generator, "origin", "--listen", f"127.0.0.1:{SINK_PORT}"]
        self.start_one_origin(tool, SINK_PORT, directory / "sink.out")

    def start_one_origin(self, command, port, log):
        origin = Process(command, self.args.load_cores, log)
        self.origins.append(origin)
        wait_until(lambda: not origin.is_alive() or accepts(port), 10)
        if not origin.is_alive() or not accepts(port):
            raise SystemExit(f"the origin did not start: {origin.tail()}")

    def start(self, peer, case):
        """A fresh proxy that answers; raises RuntimeError if it does not."""
        directory = self.work / peer.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        directory.chmod(0o777)
        port = SINK_PORT if case.sink else ORIGIN_H2_PORT if case.back == "h2" else ORIGIN_PORT
        values = self.values(directory, case.unix, port, case.back) | {"BACK": peer.back[case.back], "WORKERS": peer.workers}
        if peer.template:
            conf = directory / ("conf" + peer.template.suffix)
            values["CONF"] = conf
            conf.write_text(fill(peer.template.read_text(), values))
        process = Process([fill(part, values) for part in peer.command], self.args.proxy_cores, directory / "out",
                          {key: fill(value, values) for key, value in peer.environment.items()})

        def answers():
            if not process.is_alive():
                return True
            probe = "/bytes/1024" if case.sink else "/1k"
            report = self.generate(probe, ["--protocol", case.front, "--requests", 1, "--timeout", "1s",
                                           "--expect-bytes", KIB], limit=5)
            return report["succeeded"] == 1
        wait_until(answers, 15)
        if process.is_alive() and answers():
            return process
        process.stop()
        raise RuntimeError(" ".join(process.tail().split())[-200:] or f"no answer over {case.front}")

    def start_relay(self, case):
        """The bad network before a proxy, pinned beside the origin; `None` where the case has none."""
        if not case.relay:
            return None
        command = [self.args.generator, "relay", "--listen", f"127.0.0.1:{RELAY_PORT}", "--to", f"127.0.0.1:{PORT}"]
        return Process([*command, *case.relay], self.args.load_cores, self.work / "relay.out")

    def generate(self, path, arguments, limit, port=PORT):
        """One run of the generator, pinned beside the origin; its report."""
        command = [self.args.generator, "load", f"https://{NAME}:{PORT}{path}", "--connect", f"127.0.0.1:{port}",
                   "--insecure", "--payload", "1452", "--format", "json", "--cpu", str(self.args.load_cores[-1]),
                   *map(str, arguments), *self.args.generator_option]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return {"succeeded": 0, "error": f"the generator did not end within {limit} s"}
        return generator_report(done.stdout, done.stderr)

    def measure(self, peer, case):
        """One run with a fresh proxy: figures, or why there are none."""
        if why := peer.refuses(case) or (h2load.refuses(case, self.args.target) if self.args.h2load else ""):
            return {"error": why}
        try:
            process = self.start(peer, case)
        except RuntimeError as error:
            return {"error": str(error)}
        relay = self.start_relay(case)
        try:
            arguments = case.generator_arguments(self.args.seconds, self.args.warmup)
            arguments += ["--watch", process.pid, "--watch-cpu", self.args.proxy_cores[0]]
            limit = self.args.seconds + self.args.warmup + 60
            if self.args.h2load:
                report = h2load.run(case, h2load.binary(self.args.target), self.files / "1m", NAME, PORT, self.args.seconds,
                                    self.args.load_cores[-1], process.pid, self.args.proxy_cores[0])
            else:
                report = self.generate(case.path, arguments, limit, RELAY_PORT if relay else PORT)
            if not process.is_alive():
                return {"error": f"ended during the run: {' '.join(process.tail().split())[-200:]}"}
        finally:
            process.stop()
            if relay:
                relay.stop()
        if "watched" not in report or not (report["succeeded"] or case.kind == "hold"):
            return {"error": report.get("error") or f"nothing succeeded: {report.get('faults')}"}
        return figures(report, case)

    def close(self):
        for origin in self.origins:
            origin.stop()
        if self.args.keep:
            print(f"kept {self.work}", file=sys.stderr)
        else:
            shutil.rmtree(self.work, ignore_errors=True)


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


def figures(report, case):
    """What the tables show of a generator's report."""
    watched, idle = report["watched"], report["idle"] or {}
    latency, handshake = report["latency_ms"] or {}, report["handshake_ms"] or {}
    kib = 1 / 1024
    return {
        "rate": report["requests_per_second"], "megabytes": report["megabytes_per_second"],
        "p50": latency.get("p50"), "p90": latency.get("p90"), "p99": latency.get("p99"),
        "p999": latency.get("p999"), "handshake_p50": handshake.get("p50"),
        "cpu_us": report["watched_us_per_request"], "failed": report["failed"], "faults": report["faults"],
        "succeeded": report["succeeded"], "seconds": report["seconds"],
        "dropped": report["dropped"], "dropped_share": report["dropped_share"], "udp_drops": watched["udp_drops"],
        "rss_start": watched["rss_start_kib"] * kib, "rss_peak": watched["rss_peak_kib"] * kib,
        "rss_end": watched["rss_end_kib"] * kib,
        "hold_kib": (watched["rss_end_kib"] - watched["rss_start_kib"]) / (case.connections * case.streams),
        "moved": (report["bytes_down"] + report["bytes_up"]) / MIB,
        "rss_idle": (idle.get("rss_idle_kib") or 0) * kib, "idle_kib": idle.get("kib_per_connection"),
        "idle_before": idle.get("succeeded_before"), "idle_after": idle.get("succeeded_after"),
        "proxy_share": watched["cpu_share"], "foreign_share": watched["foreign_share"],
        "load_share": report["own_core_share"], "generator_cpu_s": report["own_cpu_s"],
        "loadavg": os.getloadavg()[0],
    }


def summary(run, case):
    """One line while the comparison runs."""
    if case.kind == "hold":
        return f"{run['hold_kib']:.0f} KiB for each stream"
    return f"{run['rate']:.0f}/s, {run['cpu_us']:.1f} µs, {run['failed']} failed, foreign {run['foreign_share']:.0%}"


def origin_latency_us(count=2000):
    """Median of plain HTTP/1.1 round trips to the origin: what a proxy adds its own time to."""
    request, times = f"GET /1k HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode(), []
    with socket.create_connection(("127.0.0.1", ORIGIN_PORT)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            start, left = time.perf_counter(), None
            link.sendall(request)
            data = b""
            while left is None or len(data) < left:
                data += link.recv(65536)
                end = data.find(b"\r\n\r\n")
                if left is None and end >= 0:
                    left = end + 4 + KIB
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def parse_cores(text):
    return [int(core) for core in text.split(",")]


def parse_arguments():
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    parser = argparse.ArgumentParser(prog="scripts/bench compare", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="comma list, in this order; NAME@N has N workers (default: all that are found, but for `policies`)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND",
                        help="another proxy by its command line, with the placeholders of bench/peers/peers.toml")
    parser.add_argument("--template", action="append", default=[], metavar="NAME=FILE", help="its configuration")
    parser.add_argument("--unix", action="append", default=[], metavar="NAME", help="it takes unix:PATH as @ORIGIN@")
    parser.add_argument("--cases", default=",".join(CASES), help=f"comma list of {', '.join(CASES)}")
    parser.add_argument("--ref", default="envoy,floor", help="peers that ratios are taken to (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="measured time of a run")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--proxy-cores", type=parse_cores, default=[0])
    parser.add_argument("--load-cores", type=parse_cores, default=[1], help="origin and generator")
    parser.add_argument("--generator", default=f"{target}/release/spooky-bench")
    parser.add_argument("--generator-option", action="append", default=[], metavar="OPTION",
                        help="passed on to `spooky-bench load`, e.g. --generator-option=--no-gro")
    parser.add_argument("--h2load", action="store_true",
                        help="load by nghttp2's h2load instead of our own generator")
    parser.add_argument("--mtu", type=int, default=1500)
    parser.add_argument("--json", type=Path, help="write all runs here")
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    parser.add_argument("--keep", action="store_true", help="keep configurations and logs")
    args = parser.parse_args()
    args.target = target
    return args


def main():
    args = parse_arguments()
    enter_namespace(args.mtu)
    templates = dict(item.split("=", 1) for item in args.template)
    peers = known_peers(args.target)
    for spec in args.peer:
        peer = peer_from_command_line(spec, templates, args.unix)
        peers[peer.name] = peer
    names = args.peers.split(",") if args.peers else [name for name in peers if peers[name].always]
    with_workers(peers, names)
    cases = args.cases.split(",")
    for kind, wanted, there in (("peer", names, peers), ("case", cases, CASES)):
        missing = [name for name in wanted if name not in there]
        if missing:
            raise SystemExit(f"no such {kind}: {', '.join(missing)} (there are: {', '.join(there)})")
    results = {case: {name: [] for name in names} for case in cases}
    bench = Bench(args)
    latency = None
    try:
        bench.start_origins()
        latency = origin_latency_us()
        for number in range(args.rounds):
            for case in cases:
                # Another order each round: nobody always comes first.
                turn = number % len(names)
                for name in names[turn:] + names[:turn]:
                    run = bench.measure(peers[name], CASES[case])
                    results[case][name].append(run)
                    shown = run.get("error") or summary(run, CASES[case])
                    print(f"round {number + 1} {case} {name}: {shown}", file=sys.stderr, flush=True)
    finally:
        bench.close()
    facts = describe() | {"origin_p50_us": latency, "peers": {name: peers[name].version() for name in names}}
    if args.h2load:
        facts["h2load"] = h2load.binary(args.target)
    text = render(results, args.ref.split(","))
    text += f"\nOrigin alone, HTTP/1.1, one at a time: p50 {latency:.0f} µs. "
    text += f"{facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}.\n"
    print(text)
    if args.markdown:
        args.markdown.write_text(text)
    if args.json:
        args.json.write_text(json.dumps({"machine": facts, "results": results}, indent=1))


main()
