"""From runs to tables: medians over rounds, ratios to references."""

import statistics

from cases import CASES

# heading, key of a run, format
LOAD = [("req/s", "rate", "{:.0f}"), ("MB/s", "megabytes", "{:.1f}"), ("p50 ms", "p50", "{:.2f}"),
        ("p99 ms", "p99", "{:.2f}"), ("CPU µs/req", "cpu_us", "{:.1f}")]
COLUMNS = {
    "load": LOAD,
    "upload": LOAD,
    "churn": [("conn/s", "rate", "{:.0f}"), ("p50 ms", "p50", "{:.2f}"), ("p99 ms", "p99", "{:.2f}"),
              ("handshake p50 ms", "handshake_p50", "{:.2f}"), ("CPU µs/conn", "cpu_us", "{:.1f}")],
    "idle": [("KiB/conn", "idle_kib", "{:.1f}"), ("RSS before MiB", "rss_start", "{:.1f}"),
             ("RSS idle MiB", "rss_idle", "{:.1f}"), ("answered after", "idle_after", "{:.0f}")],
    "hold": [("KiB/stream", "hold_kib", "{:.0f}"), ("RSS before MiB", "rss_start", "{:.1f}"),
             ("RSS after MiB", "rss_end", "{:.1f}"), ("MiB moved", "moved", "{:.1f}")],
}
COMMON = [("peak RSS MiB", "rss_peak", "{:.1f}"), ("failed", "failed", "{:.0f}"),
          ("drops, client", "dropped", "{:.0f}"), ("share", "dropped_share", "{:.2%}"),
          ("drops, all", "udp_drops", "{:.0f}"), ("proxy core", "proxy_share", "{:.0%}"),
          ("foreign", "foreign_share", "{:.0%}"), ("load core", "load_share", "{:.0%}")]
# The figure that ratios are taken of.
PRICE = {"load": "cpu_us", "upload": "cpu_us", "churn": "cpu_us", "idle": "idle_kib", "hold": "hold_kib"}


def median(runs, key):
    values = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(values) if values else None


def cell(value, form):
    return "–" if value is None else form.format(value)


def case_table(case, by_peer, references):
    columns = COLUMNS[case.kind] + COMMON
    price = PRICE[case.kind]
    shown = [ref for ref in references if ref in by_peer]
    heads = ["peer", *(head for head, _, _ in columns), *(f"× {ref}" for ref in shown), "spread"]
    lines = [f"### {case.name}: {case.title} ({case.connections} connections × {case.streams})", "",
             "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, runs in by_peer.items():
        good = [run for run in runs if "error" not in run]
        if not good:
            lines.append(f"| {name} | did not run: {runs[0]['error']} |")
            continue
        cells = [cell(median(good, key), form) for _, key, form in columns]
        own = median(good, price)
        for ref in shown:
            other = median([run for run in by_peer[ref] if "error" not in run], price)
            cells.append(cell(own / other if own is not None and other else None, "{:.2f}"))
        prices = [run[price] for run in good if run.get(price) is not None]
        half = (max(prices) - min(prices)) / 2 if prices else 0
        cells.append(cell(half / own if own else None, "±{:.0%}"))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def render(results, references):
    """Markdown, one table for each case."""
    return "\n\n".join(case_table(CASES[name], by_peer, references) for name, by_peer in results.items()) + "\n"
