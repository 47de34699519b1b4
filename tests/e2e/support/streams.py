"""Clients over TCP that we did not write, in the manner of `support.h3`: h11 for HTTP/1.1, Python's `h2` for HTTP/2.

`async with H1(proxy) as client`, `async with H2(proxy) as client`: `open`, `get` and `post` make streams that are asked and
waited for as those of aioquic are.
"""

import asyncio
import hashlib
import socket
import ssl
import time

import h2.exceptions
import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

from .asks import PATIENCE, Asks
from .h1 import trusting

WINDOW = 1 << 20


def text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value


def plain(fields):
    return [(text(name), text(value)) for name, value in fields]


class Stream:
    """One request and its answer, as the client sees them."""

    def __init__(self, client):
        self.client = client
        self.informational, self.status, self.fields, self.trailers = [], 0, [], None
        self.body, self.arrivals = bytearray(), []
        self.ended, self.reset, self.stopped = False, None, None
        self.opened = time.monotonic()

    def get(self, name, default=None):
        return next((value for key, value in self.fields if key == name), default)

    @property
    def sha256(self):
        return hashlib.sha256(self.body).hexdigest()

    @property
    def over(self):
        return self.ended or self.reset is not None or self.client.terminated is not None

    def send_trailers(self, *fields):
        self.send(b"", end=True, trailers=fields)

    async def until(self, what, seconds=PATIENCE):
        await self.client.until(lambda: what() or self.over, seconds)
        return self

    async def head(self, seconds=PATIENCE):
        return await self.until(lambda: self.status >= 200, seconds)

    async def finish(self, seconds=PATIENCE):
        """Waits until the answer ended, was reset, or the connection closed."""
        return await self.until(lambda: False, seconds)

    def took_head(self, status, fields):
        if status < 200:
            self.informational.append((status, fields))
        else:
            self.status, self.fields = status, fields

    def took_body(self, data):
        if data:
            self.arrivals.append(time.monotonic() - self.opened)
            self.body += data

    def __repr__(self):
        return (
            f"<{type(self).__name__}: status {self.status}, {len(self.body)} bytes, ended {self.ended}, reset {self.reset}, "
            f"stopped {self.stopped}, fields {self.fields}, connection {self.client.terminated}>"
        )


class Client(Asks):
    """One connection over TCP; `terminated` says why it ended. `before` is sent before anything else, TLS included; `source` is the
    address it comes from.
    """

    alpn = None

    def __init__(self, proxy, secure=True, port=None, alpn=None, before=b"", source=None):
        self.proxy, self.secure, self.before, self.source = proxy, secure, before, source
        self.port = port or (proxy.port if secure else proxy.plain_port)
        self.offered = alpn or self.alpn
        self.streams, self.terminated, self.chosen = [], None, None

    @property
    def authority(self):
        return f"localhost:{self.port}"

    async def __aenter__(self):
        self.changed = asyncio.Event()
        context = trusting(self.proxy.certificate, self.offered) if self.secure else None
        name = "localhost" if self.secure else None
        source = (self.source, 0) if self.source else None
        connected = socket.create_connection((self.proxy.host, self.port), PATIENCE, source)
        self.local = connected.getsockname()
        connected.sendall(self.before)
        self.reader, self.writer = await asyncio.open_connection(sock=connected, ssl=context, server_hostname=name)
        if self.secure:
            self.chosen = self.writer.get_extra_info("ssl_object").selected_alpn_protocol()
        self.begin()
        self.listening = asyncio.create_task(self.listen())
        return self

    async def __aexit__(self, *_):
        self.listening.cancel()
        self.writer.transport.abort()
        await asyncio.gather(self.listening, return_exceptions=True)

    async def listen(self):
        try:
            while data := await self.reader.read(1 << 18):
                self.took(data)
                self.changed.set()
            self.took(b"")
            self.ends("closed")
        except (OSError, ssl.SSLError, h11.RemoteProtocolError, h2.exceptions.ProtocolError) as error:
            self.ends(repr(error))

    def ends(self, why):
        self.terminated = self.terminated or why
        self.changed.set()

    async def until(self, what, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while not what():
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise AssertionError(f"not within {seconds} s; connection {self.terminated}, {self.streams[-1:]}") from None


class H1Stream(Stream):
    def send(self, data, end=False, trailers=()):
        machine = self.client.machine
        if self.over or self.client.closing or machine.our_state is not h11.SEND_BODY:
            return
        out = machine.send(h11.Data(data=data)) if data else b""
        if end:
            out += machine.send(h11.EndOfMessage(headers=list(trailers)))
        self.client.writer.write(out)

    def abort(self, code=None):
        """The only way HTTP/1.1 has."""
        self.client.writer.transport.abort()


class H1(Client):
    """One request at a time."""

    alpn = "http/1.1"

    def begin(self):
        self.machine, self.closing = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 18), False

    def open(self, method, path, *fields, end=True, authority=None):
        if self.machine.our_state is h11.DONE:
            self.machine.start_next_cycle()
        stream = H1Stream(self)
        self.streams.append(stream)
        names = {name.lower() for name, _ in fields}
        framing = [] if end or "content-length" in names else [("transfer-encoding", "chunked")]
        request = h11.Request(method=method, target=path, headers=[("host", authority or self.authority), *fields, *framing])
        out = self.machine.send(request)
        if end:
            out += self.machine.send(h11.EndOfMessage())
        self.writer.write(out)
        return stream

    def took(self, data):
        try:
            self.machine.receive_data(data)
            self.events()
        except h11.RemoteProtocolError:
            if self.streams:
                self.streams[-1].reset = "cut"
            raise

    def events(self):
        while True:
            event = self.machine.next_event()
            stream = self.streams[-1] if self.streams else None
            match event:
                case h11.NEED_DATA | h11.PAUSED:
                    return
                case h11.InformationalResponse() | h11.Response():
                    stream.took_head(event.status_code, plain(event.headers))
                    self.closing = self.closing or stream.get("connection") == "close"
                case h11.Data():
                    stream.took_body(event.data)
                case h11.EndOfMessage():
                    stream.trailers = plain(event.headers) or None
                    stream.ended = True
                    return
                case h11.ConnectionClosed():
                    return


class H2Stream(Stream):
    def __init__(self, client, number):
        super().__init__(client)
        self.number, self.pending, self.ending, self.last = number, bytearray(), False, ()

    def send(self, data, end=False, trailers=()):
        self.pending += data
        self.ending, self.last = self.ending or end, trailers or self.last
        self.pump()

    def pump(self):
        """As much as the windows allow."""
        machine = self.client.machine
        if self.reset is not None or self.client.terminated:
            return
        while self.pending:
            room = min(machine.local_flow_control_window(self.number), machine.max_outbound_frame_size)
            if not room:
                break
            part = bytes(self.pending[:room])
            del self.pending[:room]
            machine.send_data(self.number, part, end_stream=self.ending and not self.pending and not self.last)
            if self.ending and not self.pending and not self.last:
                self.ending = False
        if self.ending and not self.pending:
            self.ending = False
            if self.last:
                machine.send_headers(self.number, list(self.last), end_stream=True)
            else:
                machine.end_stream(self.number)
        self.client.transmit()

    def abort(self, code=ErrorCodes.CANCEL):
        self.pending.clear()
        self.client.machine.reset_stream(self.number, code)
        self.client.transmit()


class H2(Client):
    """`raw=True`: fields go out as they are written, legal or not."""

    alpn = "h2"

    def __init__(self, proxy, raw=False, **options):
        super().__init__(proxy, **options)
        self.is_raw = raw

    def begin(self):
        checked = not self.is_raw
        configuration = H2Configuration(
            client_side=True,
            header_encoding="latin-1",
            validate_outbound_headers=checked,
            normalize_outbound_headers=checked,
        )
        self.machine, self.by_number = H2Connection(configuration), {}
        self.machine.local_settings = type(self.machine.local_settings)(
            client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: WINDOW, SettingCodes.ENABLE_PUSH: 0}
        )
        self.machine.initiate_connection()
        self.machine.increment_flow_control_window(8 * WINDOW)
        self.transmit()

    def transmit(self):
        if data := self.machine.data_to_send():
            self.writer.write(data)

    def open(self, method, path, *fields, end=True, authority=None, scheme="https"):
        return self.send_fields([*self.pseudo(method, path, authority, scheme), *fields], end)

    def send_fields(self, fields, end=True):
        number = self.machine.get_next_available_stream_id()
        stream = self.by_number[number] = H2Stream(self, number)
        self.streams.append(stream)
        self.machine.send_headers(number, fields, end_stream=end)
        self.transmit()
        return stream

    def raw_data(self, stream, data, end=False):
        """A DATA frame that no rule is asked about."""
        self.transmit()
        self.writer.write(len(data).to_bytes(3, "big") + bytes([0, int(end)]) + stream.number.to_bytes(4, "big") + data)

    def took(self, data):
        try:
            events = self.machine.receive_data(data)
        finally:
            self.transmit()
        for event in events:
            stream = self.by_number.get(getattr(event, "stream_id", None))
            match event:
                case InformationalResponseReceived() | ResponseReceived():
                    fields = plain(event.headers)
                    stream.took_head(int(dict(fields)[":status"]), fields)
                case DataReceived():
                    stream.took_body(event.data)
                    self.machine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case TrailersReceived():
                    stream.trailers = plain(event.headers)
                case StreamEnded():
                    stream.ended = True
                case StreamReset() if stream.ended:
                    stream.stopped = int(event.error_code)
                case StreamReset():
                    stream.reset = int(event.error_code)
                case ConnectionTerminated():
                    self.ends(int(event.error_code))
        for stream in self.by_number.values():
            if not stream.ended and stream.stopped is None and (stream.pending or stream.ending):
                stream.pump()
        self.transmit()


def connect(protocol, proxy, **options):
    """A client of that protocol: h1 (without TLS), h1s, h2, h3."""
    from .h3 import Client as H3

    match protocol:
        case "h1":
            return H1(proxy, secure=False, **options)
        case "h1s":
            return H1(proxy, **options)
        case "h2":
            return H2(proxy, **options)
        case "h3":
            return H3(proxy, **options)
