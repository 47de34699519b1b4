"""The programmable origin over HTTP/2, by Python's `h2` on asyncio streams: the same behaviours and records as `support.origin`,
and answers that HTTP/2 forbids.

Nothing is checked of what arrives but its framing: the record tells what a proxy sent, legal or not.
"""

import asyncio
import contextlib

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived, WindowUpdated
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from . import origin
from .origin import Gone

WINDOW = 1 << 20
# What HTTP/1.1 says about its connection, and HTTP/2 may not (RFC 9113 section 8.2.2).
OF_THE_CONNECTION = ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")

HEADS = {
    "status-missing": [],
    "status-text": [(":status", "okay")],
    "status-99": [(":status", "99")],
    "status-1000": [(":status", "1000")],
    "status-twice": [(":status", "200"), (":status", "200")],
    "pseudo-unknown": [(":status", "200"), (":path", "/")],
    "pseudo-late": [("x-a", "1"), (":status", "200")],
    "connection": [(":status", "200"), ("connection", "close")],
    "keep-alive": [(":status", "200"), ("keep-alive", "timeout=5")],
    "transfer-encoding": [(":status", "200"), ("transfer-encoding", "chunked")],
    "upgrade": [(":status", "200"), ("upgrade", "h2c")],
    "name-upper": [(":status", "200"), ("X-Upper", "1")],
    "name-space": [(":status", "200"), ("x a", "1")],
    "value-crlf": [(":status", "200"), ("x-a", "1\r\nx-injected: 1")],
    "value-nul": [(":status", "200"), ("x-a", "1\x002")],
    "two-lengths": [(":status", "200"), ("content-length", "5"), ("content-length", "6")],
    "length-list": [(":status", "200"), ("content-length", "5, 6")],
    "length-text": [(":status", "200"), ("content-length", "five")],
    "length-plus": [(":status", "200"), ("content-length", "+5")],
    "unasked-101": [(":status", "101")],
    "head-bomb": [(":status", "200"), *((f"x-{index}", "b" * 1000) for index in range(100))],
}
# (content-length, bytes that come)
LENGTHS = {"body-short": (10, b"12345"), "body-long": (5, b"1234567890"), "body-none": (5, b"")}


class Request:
    """A head as it came; `lines` keeps the fields without the pseudo ones."""

    def __init__(self, fields):
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        self.pseudo = dict(field for field in fields if field[0].startswith(":"))
        self.method, self.target = self.pseudo.get(":method", ""), self.pseudo.get(":path", "")
        self.line = f"{self.method} {self.target} HTTP/2"
        self.fields = fields
        self.lines = [f"{name}: {value}" for name, value in fields]

    get = origin.Request.get
    asked = origin.Request.asked


class Exchange(origin.Exchange):
    """One stream being answered."""

    def __init__(self, link, number, request):
        super().__init__(link.name, link.label, None, None, request)
        self.link, self.stream = link, number
        self.arrived, self.more = [], asyncio.Event()
        self.whole_request, self.over, self.ended, self.begun = False, False, False, False
        self.paused = False

    # What the connection tells.
    def took(self, part):
        self.arrived.append(part)
        self.more.set()

    def end(self):
        self.whole_request = True
        self.more.set()

    def lose(self):
        self.over = True
        self.more.set()
        self.link.room.set()

    # Reading.
    async def body(self):
        if self.body_read:
            return
        self.body_read = True
        while True:
            while self.arrived:
                data, length = self.arrived.pop(0)
                self.link.take(length, self.stream)
                if data:
                    yield data
            if self.over:
                raise Gone("the stream was reset")
            if self.whole_request:
                return
            self.more.clear()
            await self.link.flush()
            await self.more.wait()

    async def gone(self):
        while not self.over:
            self.more.clear()
            await self.more.wait()
        self.record.note("aborted")
        raise Gone

    # Writing.
    async def head(self, status=200, *fields, reason="OK"):
        pairs = [(name.lower(), value.strip()) for name, value in (line.split(":", 1) for line in fields)]
        pairs = [(name, value) for name, value in pairs if name not in OF_THE_CONNECTION]
        pairs = [(":status", str(status)), ("x-origin", self.name), ("x-connection", self.connection), *pairs]
        await self.raw_head(pairs)

    async def raw_head(self, pairs, end=False):
        self.check()
        self.begun, self.ended = True, end
        self.link.h2.send_headers(self.stream, pairs, end_stream=end)
        await self.link.flush()

    async def informational(self, status, *fields):
        self.check()
        pairs = [tuple(part.strip() for part in line.split(":", 1)) for line in fields]
        self.link.h2.send_headers(self.stream, [(":status", str(status)), *pairs])
        await self.link.flush()

    async def write(self, data, end=False):
        data = memoryview(data)
        while len(data) or end:
            self.check()
            room = min(self.link.h2.local_flow_control_window(self.stream), self.link.h2.max_outbound_frame_size)
            if len(data) and not room:
                self.link.room.clear()
                await self.link.room.wait()
                continue
            part, data = data[:room], data[room:]
            last = end and not len(data)
            self.link.h2.send_data(self.stream, bytes(part), end_stream=last)
            self.ended = last
            await self.link.flush()
            if last:
                return

    chunk = write

    async def last(self, *trailers):
        self.check()
        if self.ended:
            return
        self.ended = True
        if trailers:
            self.link.h2.send_headers(self.stream, [tuple(line.split(": ", 1)) for line in trailers], end_stream=True)
        else:
            self.link.h2.end_stream(self.stream)
        await self.link.flush()

    async def no_more(self):
        """The whole answer was sent: the rest of the request is not wanted (RFC 9113 section 8.1)."""
        await self.last()
        self.over = True
        self.link.h2.reset_stream(self.stream, ErrorCodes.NO_ERROR)
        await self.link.flush()
        raise Gone

    def pause(self):
        """Takes nothing: the windows stay as they are."""

    def reset(self):
        self.check()
        self.link.h2.reset_stream(self.stream, ErrorCodes.INTERNAL_ERROR)
        self.over = True
        self.link.flush_now()
        raise Gone

    def check(self):
        if self.over:
            raise Gone("the stream was reset")

    async def run(self):
        try:
            if self.word == "nonsense":
                origin.record(origin.EVERY).facts["requests"] += 1
                await nonsense(self)
                return
            await super().run()
            if not self.keep and not self.ended:
                # Where HTTP/1.1 would close its connection in the middle of an answer.
                self.link.abort()
            elif not self.ended:
                await self.last()
        except (Gone, OSError, ProtocolError):
            pass
        finally:
            self.link.forget(self)


async def nonsense(x):
    """Answers with one of the heads or bodies that HTTP/2 forbids, `ended=1` at once with its head."""
    await x.discard()
    kind = x.arguments["n"]
    if kind in LENGTHS:
        said, body = LENGTHS[kind]
        await x.raw_head([(":status", "200"), ("content-length", str(said))])
        await x.write(body, end=True)
    elif kind == "data-before-head":
        x.link.raw(b"\0\0\5\0\1" + x.stream.to_bytes(4, "big") + b"hello")
    elif kind == "goaway":
        x.link.h2.close_connection(ErrorCodes.INTERNAL_ERROR, last_stream_id=x.stream)
        x.link.flush_now()
        x.link.abort()
    else:
        end = "ended" in x.arguments
        # Past the library's own idea of a stream: it would refuse most of these.
        block = x.link.h2.encoder.encode(HEADS[kind])
        x.link.raw_headers(x.stream, block, end)
        if not end:
            x.link.raw(b"\0\0\5\0\1" + x.stream.to_bytes(4, "big") + b"hello")
        x.ended = True
    await x.link.flush()
    x.record.note("sent")


class Link:
    """One connection."""

    def __init__(self, name, label, reader, writer):
        self.name, self.label, self.reader, self.writer = name, label, reader, writer
        configuration = H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
        self.h2, self.exchanges, self.tasks = H2Connection(configuration), {}, set()
        self.room = asyncio.Event()

    async def serve(self):
        self.h2.local_settings = type(self.h2.local_settings)(
            client=False,
            initial_values={SettingCodes.INITIAL_WINDOW_SIZE: WINDOW, SettingCodes.MAX_CONCURRENT_STREAMS: 100},
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(4 * WINDOW)
        self.flush_now()
        try:
            while data := await self.reader.read(1 << 18):
                for event in self.h2.receive_data(data):
                    self.happened(event)
                await self.flush()
        except (OSError, ProtocolError, asyncio.IncompleteReadError):
            self.flush_now()
        finally:
            for exchange in list(self.exchanges.values()):
                exchange.lose()
            self.writer.close()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def happened(self, event):
        exchange = self.exchanges.get(getattr(event, "stream_id", None))
        match event:
            case RequestReceived():
                exchange = Exchange(self, event.stream_id, Request(event.headers))
                self.exchanges[event.stream_id] = exchange
                task = asyncio.get_running_loop().create_task(exchange.run())
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            case DataReceived() if exchange:
                exchange.took((event.data, event.flow_controlled_length))
            case DataReceived():
                self.take(event.flow_controlled_length, event.stream_id)
            case TrailersReceived() if exchange:
                exchange.trailers = [f"{name.decode()}: {value.decode()}" for name, value in event.headers]
            case StreamEnded() if exchange:
                exchange.end()
            case StreamReset() if exchange:
                exchange.lose()
            case WindowUpdated():
                self.room.set()
        # Settings change windows too.
        self.room.set()

    def take(self, length, stream):
        """Lets as much more come."""
        if length:
            with contextlib.suppress(ProtocolError):
                self.h2.acknowledge_received_data(length, stream)

    def forget(self, exchange):
        for _, length in exchange.arrived:
            self.take(length, exchange.stream)
        self.exchanges.pop(exchange.stream, None)
        self.flush_now()

    def raw(self, data):
        self.flush_now()
        self.writer.write(data)

    def raw_headers(self, stream, block, end):
        """HEADERS and CONTINUATION frames of a field block."""
        parts = [block[at : at + 16_384] for at in range(0, len(block), 16_384)] or [b""]
        for index, part in enumerate(parts):
            flags = (4 if index == len(parts) - 1 else 0) | (1 if end and index == 0 else 0)
            kind = 1 if index == 0 else 9
            self.raw(len(part).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + part)

    def flush_now(self):
        if data := self.h2.data_to_send():
            self.writer.write(data)

    async def flush(self):
        self.flush_now()
        await self.writer.drain()

    def abort(self):
        self.writer.close()


class Origin:
    """One named listener; numbers its connections so that reuse can be seen."""

    def __init__(self, name):
        self.name, self.connections = name, 0

    async def serve(self, reader, writer):
        self.connections += 1
        await Link(self.name, f"{self.name}-{self.connections}", reader, writer).serve()
