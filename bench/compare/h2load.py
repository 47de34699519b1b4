"""A generator that is not ours: nghttp2's h2load, for the cases that are plain load or uploads.

It checks no more than the status and the sum of the bytes, and tells no quantiles. CPU time is read here, around a run
without warm-up: the connections' handshakes are in it.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from machine import descendants

TICK_S = 0.01


def binary(target):
    """The h2load to use: the one that is named, or else what `scripts/bench setup-sid` has built, or the system's."""
    named = os.environ.get("SPOOKY_BENCH_H2LOAD")
    return shutil.which(named) if named else shutil.which(f"{target}/bench-peers/h2load") or shutil.which("h2load")


def refuses(case, target):
    """Why h2load cannot drive a case; an empty string if it can."""
    if case.kind not in ("load", "upload") or case.extra or case.relay:
        return "h2load runs plain load and uploads only"
    return "" if binary(target) else "no h2load: it is in Debian's nghttp2-client"


def run(case, path, body, name, port, seconds, core, pid, proxy_core):
    """One run of the h2load at `path`; a report with the keys of `spooky-bench load`'s that can be known. Uploads send `body`."""
    command = ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", str(core), path,
               "--clients", case.connections, "--max-concurrent-streams", case.streams, "--duration", f"{seconds * 1000:.0f}ms",
               "--connect-to", f"127.0.0.1:{port}", "--window-bits", 23, "--connection-window-bits", 24,
               *{"h1": ["--h1"], "h2": [], "h3": ["--alpn-list=h3"]}[case.front],
               *(["--data", body] if case.kind == "upload" else []), f"https://{name}:{port}{case.path}"]
    before = sample(pid, proxy_core)
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        return {"succeeded": 0, "error": f"h2load did not end within {seconds + 60} s"}
    size = None if case.kind == "upload" else case.size
    report = read(done.stdout + done.stderr, size, seconds, before, sample(pid, proxy_core))
    if case.front == "h3" and "error" in report:
        report["error"] += " (has this h2load HTTP/3? `scripts/bench setup-sid` builds one)"
    return report


def read(text, size, seconds, before, after):
    """The report in h2load's text and two samples; `size` is what each answer must bring, where that is known."""
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (started|done|failed|2xx)\b", text)}
    body = re.search(r"\((\d+)\) data", text)
    good = counts.get("2xx", 0)
    if not good or not body:
        return {"succeeded": 0, "error": f"h2load: {' '.join(text.split())[-200:]}"}
    # Those under way when the time was over brought bytes, and are not done.
    whole, length = min(good, counts["done"] - counts["failed"]), int(body[1])
    wrong = 0 if size is None or whole * size <= length <= counts["started"] * size else 1
    other = max(0, counts["done"] - counts["failed"] - good)
    cpu_s, busy_s = after.cpu_s - before.cpu_s, after.busy_s - before.busy_s
    return {
        "succeeded": whole, "failed": counts["failed"] + other + wrong, "seconds": seconds,
        "faults": {"status": other, "length": wrong},
        "requests_per_second": whole / seconds, "megabytes_per_second": length / 1e6 / seconds,
        "watched_us_per_request": cpu_s / whole * 1e6 if whole else None,
        "latency_ms": None, "handshake_ms": None, "idle": None, "bytes_down": length, "bytes_up": 0,
        "dropped": None, "dropped_share": None, "own_core_share": None, "own_cpu_s": None,
        "watched": {"cpu_share": cpu_s / seconds, "foreign_share": max(0, busy_s - cpu_s) / seconds,
                    "udp_drops": after.udp_drops - before.udp_drops,
                    "rss_start_kib": before.rss_kib, "rss_end_kib": after.rss_kib, "rss_peak_kib": after.rss_kib},
    }


@dataclass
class Sample:
    """The counters that a run is measured by, at one moment."""

    cpu_s: float        # of the process tree
    busy_s: float       # of the proxy's core
    rss_kib: int        # of the process tree
    udp_drops: int      # datagrams that found a receive buffer full, in this network namespace


def sample(root, core):
    ticks = kib = 0
    for pid in descendants(root):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        # Behind the command name in brackets: utime, stime and those of reaped children are the 12th to 15th.
        ticks += sum(int(field) for field in stat[stat.rindex(")") + 1:].split()[11:15])
        found = re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)
        kib += int(found[1]) if found else 0
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    fields = [int(field) for field in line.split()[1:9]]
    busy = sum(fields) - fields[3] - fields[4]
    return Sample(ticks * TICK_S, busy * TICK_S, kib, udp_drops())


def udp_drops():
    heads, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp: "))
    return int(values[heads.index("RcvbufErrors")])
