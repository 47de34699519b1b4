"""What is measured: one table, one line each."""

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    path: str
    size: int                  # body bytes of a request or response
    connections: int
    streams: int
    kind: str = "load"         # load, upload, churn or idle
    unix: bool = False         # the origin is reached over its unix socket

    def generator_arguments(self, seconds, warmup):
        """The options of `spooky-bench load` that make this case."""
        out = ["--connections", self.connections, "--streams", self.streams]
        if self.kind == "idle":
            # 400 a second is what the slowest peers can take; five seconds are past any delayed clean-up.
            return out + ["--connect-rate", 400, "--idle", "5s", "--expect-bytes", self.size]
        out += ["--warmup", f"{warmup}s", "--duration", f"{seconds}s"]
        if self.kind == "upload":
            return out + ["--body", self.size]
        if self.kind == "churn":
            out += ["--per-connection", 1]
        return out + ["--expect-bytes", self.size]


CASES = {case.name: case for case in (
    Case("1k", "GET 1 KiB", "/1k", KIB, 64, 10),
    Case("1k-unix", "GET 1 KiB, origin on a unix socket", "/1k", KIB, 64, 10, unix=True),
    Case("64k", "GET 64 KiB", "/64k", 64 * KIB, 32, 4),
    Case("1m", "GET 1 MiB", "/1m", MIB, 16, 2),
    Case("upload1m", "POST 1 MiB", "/upload", MIB, 8, 2, kind="upload"),
    Case("churn", "new connection, one GET of 1 KiB", "/1k", KIB, 32, 1, kind="churn"),
    Case("idle", "idle connections", "/1k", KIB, 2000, 1, kind="idle"),
    Case("latency1", "GET 1 KiB, one at a time", "/1k", KIB, 1, 1),
)}
