"""curl (libcurl with ngtcp2 and nghttp3, as curl-cffi packs it) as a client: HTTP/3 only, or another version without fallback."""

import asyncio
import contextlib
import hashlib
import time
from dataclasses import dataclass, field

from curl_cffi import AsyncCurl, Curl, CurlError, CurlHttpVersion, CurlInfo, CurlOpt

from .ports import bracketed

WRITE_ERROR = 0xFFFFFFFF
# What to speak, by the names of `support.streams.connect`; h1 is without TLS.
VERSIONS = {
    "h1": CurlHttpVersion.V1_1,
    "h1s": CurlHttpVersion.V1_1,
    "h2": CurlHttpVersion.V2TLS,
    "h3": CurlHttpVersion.V3ONLY,
}


@dataclass
class Response:
    """What curl saw; `error` is its message when the transfer did not end well."""

    status: int = 0
    version: int = 0
    fields: list = field(default_factory=list)
    informational: list = field(default_factory=list)
    body: bytes = b""
    length: int = 0
    sha256: str = ""
    error: str | None = None
    arrivals: list = field(default_factory=list)
    seconds: float = 0.0

    def get(self, name, default=None):
        return next((v for k, v in self.fields if k == name), default)

    def get_all(self, name):
        return [v for k, v in self.fields if k == name]


class Transfer:
    """One prepared curl handle with its callbacks."""

    def __init__(self, proxy, path, method="GET", fields=(), body=None, length=None, keep=True, timeout=60, host=None, port=None,
                 speed=None, abort_after=None, on_body=None, badge=None, handle=None, address=None, version="h3",
                 proxied=None):  # fmt: skip
        self.response, self.keep, self.abort_after, self.on_body = Response(), keep, abort_after, on_body
        self.digest, self.kept, self.started = hashlib.sha256(), [], None
        scheme = "http" if version == "h1" else "https"
        port = port or (proxy.plain_port if version == "h1" else proxy.port)
        host_name = host.split(":")[0] if host else bracketed(address or proxy.host)
        # A handle that is given remembers TLS sessions, not connections.
        curl = self.curl = handle or Curl()
        curl.setopt(CurlOpt.FRESH_CONNECT, 1 if handle else 0)
        if proxied:
            # A header of the PROXY protocol, version 1, that names this client.
            curl.setopt(CurlOpt.HAPROXY_CLIENT_IP, proxied)
        if badge:
            cert, key = badge.files()
            curl.setopt(CurlOpt.SSLCERT, str(cert))
            curl.setopt(CurlOpt.SSLKEY, str(key))
        curl.setopt(CurlOpt.URL, f"{scheme}://{host_name}:{port}{path}".encode())
        if host:
            curl.setopt(CurlOpt.RESOLVE, [f"{host_name}:{port}:127.0.0.1"])
        curl.setopt(CurlOpt.PATH_AS_IS, 1)
        curl.setopt(CurlOpt.HTTP_VERSION, VERSIONS[version])
        curl.setopt(CurlOpt.CAINFO, str(proxy.certificate.cert))
        curl.setopt(CurlOpt.TIMEOUT_MS, int(timeout * 1000))
        curl.setopt(CurlOpt.WRITEFUNCTION, self.take)
        curl.setopt(CurlOpt.HEADERFUNCTION, self.take_field)
        if speed:
            curl.setopt(CurlOpt.MAX_RECV_SPEED_LARGE, speed)
        lines = [f"{name}: {value}" for name, value in fields]
        if body is not None:
            # Not sending Expect keeps a body from waiting for an answer that a test did not ask for.
            if not any(name.lower() == "expect" for name, _ in fields):
                lines.append("Expect:")
            if isinstance(body, bytes):
                length, body = len(body), iter([body])
            self.source, self.rest = iter(body), b""
            curl.setopt(CurlOpt.UPLOAD, 1)
            curl.setopt(CurlOpt.READFUNCTION, self.give)
            if length is not None:
                curl.setopt(CurlOpt.INFILESIZE_LARGE, length)
            curl.setopt(CurlOpt.CUSTOMREQUEST, (method if method != "GET" else "POST").encode())
        elif method == "HEAD":
            curl.setopt(CurlOpt.NOBODY, 1)
        else:
            curl.setopt(CurlOpt.CUSTOMREQUEST, method.encode())
        curl.setopt(CurlOpt.HTTPHEADER, [line.encode("latin-1") for line in lines])

    def give(self, most):
        while not self.rest:
            self.rest = next(self.source, None)
            if self.rest is None:
                self.rest, self.source = b"", iter(())
                return b""
        part, self.rest = self.rest[:most], self.rest[most:]
        return part

    def take(self, data):
        response = self.response
        if not response.arrivals or len(data) < 4096:
            response.arrivals.append(time.monotonic() - self.started)
        response.length += len(data)
        self.digest.update(data)
        if self.keep and response.length <= 1 << 24:
            self.kept.append(data)
        if self.on_body:
            self.on_body(data)
        if self.abort_after is not None and response.length >= self.abort_after:
            return WRITE_ERROR
        return len(data)

    def take_field(self, line):
        response, text = self.response, line.decode("latin-1").rstrip("\r\n")
        if text.startswith("HTTP/") and ":" not in text.split(" ")[0]:
            if 100 <= response.status < 200:
                response.informational.append((response.status, response.fields))
            response.status, response.fields = int(text.split(" ")[1]), []
        elif text:
            name, _, value = text.partition(":")
            response.fields.append((name.lower(), value.strip()))
        return len(line)

    def finish(self, error=None):
        response = self.response
        response.error = str(error) if error else None
        response.seconds = time.monotonic() - self.started
        response.version = self.curl.getinfo(CurlInfo.HTTP_VERSION)
        response.body, response.sha256 = b"".join(self.kept), self.digest.hexdigest()
        return response


def fetch(proxy, path, **options):
    """One request on a connection of its own."""
    transfer = Transfer(proxy, path, **options)
    transfer.started = time.monotonic()
    error = None
    try:
        transfer.curl.perform()
    except CurlError as problem:
        error = problem
    response = transfer.finish(error)
    if not options.get("handle"):
        transfer.curl.close()
    return response


async def fetch_many(proxy, requests):
    """Requests (dicts of fetch's options with `path`) at once; curl puts them on one connection where the limits allow."""
    multi = AsyncCurl()
    transfers = [Transfer(proxy, **request) for request in requests]

    async def one(transfer):
        transfer.curl.setopt(CurlOpt.PIPEWAIT, 1)
        transfer.started = time.monotonic()
        error = None
        try:
            await multi.add_handle(transfer.curl)
        except CurlError as problem:
            error = problem
        response = transfer.finish(error)
        with contextlib.suppress(CurlError):
            multi.remove_handle(transfer.curl)
        transfer.curl.close()
        return response

    try:
        return await asyncio.gather(*(one(transfer) for transfer in transfers))
    finally:
        await multi.close()


def is_h3(response):
    """Whether the answer came over HTTP/3."""
    return response.version == 3 or response.version == CurlHttpVersion.V3
