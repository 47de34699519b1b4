"""Our proxy before an origin that can do less than is asked: 20 slots of 50 ms each, 400 requests a second.

By protocol: without load, at the origin's capacity, at three times that, and right behind it at three quarters. `--limits fixed` keeps what
the origin is given at what it can do, three quarters as many wait their turn (`route_queue`), and the rest is refused; `--limits adaptive`
says nothing of what it can do (`adaptive_admission`, no queue), and gives the limit a phase to find it first. Two generators ask
at once: one times what was answered, the other what was refused. Prints a table; docs/PERFORMANCE.md has the figures.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "compare"))

from machine import Process, enter_namespace, generator_report, make_certificate, wait_until  # noqa: E402
from peers import PEERS, fill                                              # noqa: E402

ROOT = HERE.parent.parent
NAME, PORT, ORIGIN_PORT = "bench.test", 18443, 18081
SLOTS, SERVICE_S = 20, 0.05
WARMUP_S = 1     # connections are made in it
CAPACITY = SLOTS / SERVICE_S
PROTOCOLS = {"h3": ["-c", 16, "-m", 64], "h2": ["-c", 16, "-m", 64], "h1": ["-c", 256]}
LIMITS = {
    "fixed": f"""per_upstream_inflight_limit = {SLOTS}

[resilience]
route_queue = {{ max_length = {SLOTS * 3 // 4}, max_length_per_address = {SLOTS * 3 // 4}, max_wait = "1s" }}
""",
    "adaptive": """
[resilience]
adaptive_admission = { min_limit = 4 }
""",
}


class Scene:
    def __init__(self, args):
        self.args, self.work = args, Path(tempfile.mkdtemp(prefix="spooky-overload-"))
        self.log = self.work / "access.log"
        make_certificate(NAME, self.work / "key.pem", self.work / "cert.pem")
        values = {"PORT": PORT, "WORKERS": 1, "ORIGIN": f"http://127.0.0.1:{ORIGIN_PORT}", "CERT": self.work / "cert.pem",
                  "KEY": self.work / "key.pem"}
        configuration = fill((PEERS / "spooky.toml").read_text(), values)
        configuration = configuration.replace("pin_workers = false\n", f"pin_workers = false\n{LIMITS[args.limits]}")
        configuration = configuration.replace("{ enabled = false }", f'{{ file = "{self.log}" }}')
        (self.work / "spooky.toml").write_text(configuration)
        self.origin = Process([sys.executable, HERE / "origin.py", ORIGIN_PORT, SLOTS, SERVICE_S], args.load_cores,
                              self.work / "origin.out")
        self.proxy = Process([args.spooky, "-c", self.work / "spooky.toml"], args.proxy_cores, self.work / "spooky.out",
                             {"STATE_DIRECTORY": str(self.work)})
        if not wait_until(lambda: self.ask("h1", 1, 1, "200").get("succeeded"), 15):
            raise SystemExit(f"no answer\n{self.proxy.tail()}\n{self.origin.tail()}")

    def start(self, protocol, rate, seconds, status):
        url = f"https://{NAME}:{PORT}/"
        command = ["taskset", "--cpu-list", ",".join(map(str, self.args.load_cores)), self.args.generator, "load", url,
                   "--protocol", protocol, "--connect", f"127.0.0.1:{PORT}", "--insecure", "--format", "json", "--rate", rate,
                   "--warmup", f"{WARMUP_S}s", "-d", f"{seconds}s", "--expect-status", status, *PROTOCOLS[protocol]]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def finish(running):
        return generator_report(*running.communicate())

    def ask(self, protocol, rate, seconds, status):
        return self.finish(self.start(protocol, rate, seconds, status))

    def phase(self, protocol, rate, seconds):
        """What became of a pace that is kept for so long."""
        before = self.log.stat().st_size
        both = [self.start(protocol, rate / 2, seconds, status) for status in ("200", "503")]
        answered, refused = (self.finish(running) for running in both)
        with open(self.log) as log:
            log.seek(before)
            lines = [json.loads(line) for line in log if line.startswith("{")]
        reasons = {}
        for line in lines:
            if line["status"] != 200:
                reasons[line.get("reason")] = reasons.get(line.get("reason"), 0) + 1
        good = sum(line["status"] == 200 for line in lines)
        return {"asked": rate, "goodput": good / (seconds + WARMUP_S), "answered_ms": answered.get("latency_ms"),
                "refused_ms": refused.get("latency_ms"), "refusals": reasons}

    def close(self):
        self.proxy.stop()
        self.origin.stop()
        shutil.rmtree(self.work, ignore_errors=True)


def cell(quantiles, name):
    return f"{quantiles[name]:.1f}" if quantiles else "–"


def main():
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    parser = argparse.ArgumentParser(prog="scripts/bench overload", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=8, help="of each phase")
    parser.add_argument("--limits", choices=LIMITS, default="fixed")
    parser.add_argument("--protocols", default=",".join(PROTOCOLS))
    parser.add_argument("--spooky", default=f"{target}/release/spooky")
    parser.add_argument("--generator", default=f"{target}/release/spooky-bench")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    args.proxy_cores, args.load_cores = [0], [1]
    enter_namespace(1500)
    scene, found = Scene(args), {}
    try:
        if args.limits == "adaptive":
            scene.phase("h2", CAPACITY * 3, args.seconds)
        print("| clients | phase | asked a second | answered a second | p50 ms | p99 ms | refused: p99 ms | why |\n" + "|---" * 8 + "|")
        for protocol in args.protocols.split(","):
            for name, share in (("unloaded", 0.25), ("capacity", 1.0), ("three times", 3.0), ("right behind it", 0.75)):
                found[f"{protocol} {name}"] = one = scene.phase(protocol, CAPACITY * share, args.seconds)
                why = ", ".join(f"{count} {reason}" for reason, count in sorted(one["refusals"].items(), key=str)) or "–"
                print(f"| {protocol} | {name} | {one['asked']:.0f} | {one['goodput']:.0f} | {cell(one['answered_ms'], 'p50')} | "
                      f"{cell(one['answered_ms'], 'p99')} | {cell(one['refused_ms'], 'p99')} | {why} |", flush=True)
    finally:
        scene.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
