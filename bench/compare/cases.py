"""What is measured: one table, one line each."""

from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    path: str
    size: int                  # body bytes of a request or response
    connections: int
    streams: int
    kind: str = "load"         # load, upload, churn, idle or hold
    front: str = "h3"          # what the client speaks, with TLS: h3, h2 or h1
    back: str = "h1"           # what the origin speaks, in clear: h1 or h2
    unix: bool = False         # the origin is reached over its unix socket
    sink: bool = False         # the origin is `spooky-bench origin`, not nginx
    extra: tuple = ()          # further options of the generator
    relay: tuple = ()          # options of `spooky-bench relay`, which then stands before the proxy

    def generator_arguments(self, seconds, warmup):
        """The options of `spooky-bench load` that make this case."""
        out = ["--protocol", self.front, "--connections", self.connections, "--streams", self.streams, *self.extra]
        if self.kind == "idle":
            # 400 a second is what the slowest peers can take; five seconds are past any delayed clean-up.
            return out + ["--connect-rate", 400, "--idle", "5s", "--expect-bytes", self.size]
        if self.kind == "hold":
            # Nothing ends here: what counts is the memory it takes meanwhile.
            return out + ["--duration", "8s", "--timeout", "60s"]
        out += ["--warmup", f"{warmup}s", "--duration", f"{seconds}s"]
        if self.kind == "upload":
            return out + ["--body", self.size]
        if self.kind == "churn":
            out += ["--per-connection", 1]
        return out + ["--expect-bytes", self.size]


CASES = {case.name: case for case in (
    Case("1k", "GET 1 KiB", "/1k", KIB, 64, 10),
    Case("1k-one", "GET 1 KiB, one connection", "/1k", KIB, 1, 64),
    Case("1k-crowd", "GET 1 KiB, a thousand connections", "/1k", KIB, 1000, 1),
    Case("1k-unix", "GET 1 KiB, origin on a unix socket", "/1k", KIB, 64, 10, unix=True),
    Case("64k", "GET 64 KiB", "/64k", 64 * KIB, 32, 4),
    Case("1m", "GET 1 MiB", "/1m", MIB, 16, 2),
    Case("1m-bursts", "GET 1 MiB, client without GRO", "/1m", MIB, 16, 2, extra=("--no-gro",)),
    Case("upload1m", "POST 1 MiB", "/upload", MIB, 8, 2, kind="upload"),
    Case("churn", "new connection, one GET of 1 KiB", "/1k", KIB, 32, 1, kind="churn"),
    Case("churn-resumed", "new connection that resumes a session, one GET of 1 KiB", "/1k", KIB, 32, 1, kind="churn",
         extra=("--resume",)),
    Case("far", "GET 10 MiB, round trip 20 ms", "/10m", 10 * MIB, 4, 1, relay=("--delay", "10ms")),
    Case("far-loss", "GET 10 MiB, round trip 20 ms, 1 % lost", "/10m", 10 * MIB, 4, 1,
         relay=("--delay", "10ms", "--loss", 1, "--seed", 7)),
    Case("idle", "idle connections", "/1k", KIB, 2000, 1, kind="idle"),
    Case("hold-down", "1 GiB read at 1 KiB/s", "/1g", GIB, 4, 1, kind="hold", extra=("--read-rate", 1)),
    Case("hold-up", "1 GiB sent to an origin that reads nothing", "/sink", GIB, 4, 1, kind="hold", sink=True,
         extra=("--body", GIB)),
    Case("latency1", "GET 1 KiB, one at a time", "/1k", KIB, 1, 1),
    Case("h2-h1-1k", "GET 1 KiB, HTTP/2 to HTTP/1.1", "/1k", KIB, 64, 10, front="h2"),
    Case("h1-h1-1k", "GET 1 KiB, HTTP/1.1 to HTTP/1.1", "/1k", KIB, 256, 1, front="h1"),
    Case("h3-h2-1k", "GET 1 KiB, HTTP/3 to HTTP/2", "/1k", KIB, 64, 10, back="h2"),
    Case("h2-h2-1k", "GET 1 KiB, HTTP/2 to HTTP/2", "/1k", KIB, 64, 10, front="h2", back="h2"),
    Case("h2-1m", "GET 1 MiB, HTTP/2 to HTTP/1.1", "/1m", MIB, 16, 2, front="h2"),
    Case("h1-idle", "idle connections of HTTP/1.1", "/1k", KIB, 2000, 1, kind="idle", front="h1"),
    Case("h2-idle", "idle connections of HTTP/2", "/1k", KIB, 2000, 1, kind="idle", front="h2"),
)}
