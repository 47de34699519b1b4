"""A generator that is not ours: nghttp2's h2load, for the cases over TCP that are plain load.

It checks no more than the status and the sum of the bytes, and tells no quantiles. CPU time is read here, around a run
without warm-up: the connections' handshakes are in it.
"""

import re
import shutil
import subprocess
from pathlib import Path

from machine import descendants

TICK_S = 0.01


def refuses(case):
    """Why h2load cannot drive a case; an empty string if it can."""
    if not shutil.which("h2load"):
        return "no h2load: it is in Debian's nghttp2-client"
    if case.kind != "load" or case.front == "h3" or case.extra or case.relay:
        return "h2load runs plain load over TCP only"
    return ""


def run(case, name, port, seconds, core, pid, proxy_core):
    """One run; a report with the keys of `spooky-bench load`'s that can be known."""
    command = ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", str(core), "h2load",
               "--clients", case.connections, "--max-concurrent-streams", case.streams, "--duration", f"{seconds * 1000:.0f}ms",
               "--connect-to", f"127.0.0.1:{port}", "--window-bits", 23, "--connection-window-bits", 24,
               *(["--h1"] if case.front == "h1" else []), f"https://{name}:{port}{case.path}"]
    before = sample(pid, proxy_core)
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        return {"succeeded": 0, "error": f"h2load did not end within {seconds + 60} s"}
    cpu_s, busy_s, kib = (after - first for after, first in zip(sample(pid, proxy_core), before))
    return read(done.stdout + done.stderr, case.size, seconds, cpu_s, busy_s, before[2], kib + before[2])


def read(text, size, seconds, cpu_s, busy_s, rss_start_kib, rss_end_kib):
    """The report in h2load's text."""
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (started|done|failed|2xx)\b", text)}
    body = re.search(r"\((\d+)\) data", text)
    good = counts.get("2xx", 0)
    if not good or not body:
        return {"succeeded": 0, "error": f"h2load: {' '.join(text.split())[-200:]}"}
    # Those under way when the time was over brought bytes, and are not done.
    whole, length = min(good, counts["done"] - counts["failed"]), int(body[1])
    wrong = 0 if whole * size <= length <= counts["started"] * size else 1
    other = max(0, counts["done"] - counts["failed"] - good)
    return {
        "succeeded": whole, "failed": counts["failed"] + other + wrong, "seconds": seconds,
        "faults": {"status": other, "length": wrong},
        "requests_per_second": whole / seconds, "megabytes_per_second": length / 1e6 / seconds,
        "watched_us_per_request": cpu_s / whole * 1e6 if whole else None,
        "latency_ms": None, "handshake_ms": None, "idle": None, "bytes_down": length, "bytes_up": 0,
        "dropped": 0, "dropped_share": 0, "own_core_share": None, "own_cpu_s": None,
        "watched": {"cpu_share": cpu_s / seconds, "foreign_share": max(0, busy_s - cpu_s) / seconds, "udp_drops": 0,
                    "rss_start_kib": rss_start_kib, "rss_end_kib": rss_end_kib, "rss_peak_kib": rss_end_kib},
    }


def sample(root, core):
    """CPU seconds of a process tree, busy seconds of a core, resident KiB of the tree."""
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
    return ticks * TICK_S, busy * TICK_S, kib
