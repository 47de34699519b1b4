"""WebSocket from both ends: clients over HTTP/1.1 (RFC 6455), HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220), and origins over HTTP/1.1
and HTTP/2. The handshakes of HTTP/1.1 are wsproto's, the frames of HTTP/2 are those of python h2, HTTP/3 is aioquic.

Every end of a tunnel is a `Side`: bytes in and out, an end, a reset. What the bytes are is the test's business.
"""

import asyncio
import contextlib
import socket
import ssl
import struct

import h2.config
import h2.connection
import h2.events
import h2.settings
import wsproto
from aioquic.buffer import Buffer
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request

from .h3 import REQUEST_CANCELLED, SETTINGS, Client

PATIENCE = 30
PIECE = 64 * 1024
# RFC 9113 section 6.8.
GOAWAY_FRAME = 7


class Side:
    """One end of a tunnel, or of a request that should have become one."""

    def __init__(self):
        self.status, self.fields, self.received = 0, [], bytearray()
        self.taken, self.ended, self.reset = 0, False, None
        self.changed, self.reading = asyncio.Event(), asyncio.Event()
        self.reading.set()

    def get(self, name):
        return next((value for key, value in self.fields if key.lower() == name), None)

    async def until(self, what, seconds=PATIENCE):
        async with asyncio.timeout(seconds):
            while not what():
                self.changed.clear()
                await self.changed.wait()

    async def receive(self, size):
        """Waits for so many bytes in all, and takes them."""
        try:
            await self.until(lambda: len(self.received) >= size or self.over)
        except TimeoutError:
            raise AssertionError(f"{size} bytes wanted: {self}") from None
        assert len(self.received) >= size, f"{size} bytes wanted: {self}"
        taken = bytes(self.received[:size])
        del self.received[:size]
        self.taken += size
        return taken

    @property
    def over(self):
        return self.ended or self.reset is not None

    async def finish(self):
        """Waits for the other side's end, clean or not."""
        await self.until(lambda: self.over)
        return self

    def __repr__(self):
        return f"<{type(self).__name__} {self.status} {len(self.received)} bytes ended {self.ended} reset {self.reset}>"


class Stream(Side):
    """An end over a TCP connection of its own."""

    def __init__(self, reader, writer, early=b""):
        super().__init__()
        self.reader, self.writer = reader, writer
        self.received += early
        self.task = asyncio.ensure_future(self.pump())

    async def pump(self):
        try:
            while data := await self.take():
                self.received += data
                self.changed.set()
            self.ended = True
        except (ConnectionError, ssl.SSLError) as error:
            self.reset = error
        self.changed.set()

    async def take(self):
        await self.reading.wait()
        return await self.reader.read(PIECE)

    async def send(self, data):
        for at in range(0, len(data), PIECE):
            self.writer.write(data[at : at + PIECE])
            await self.writer.drain()

    async def end(self):
        self.writer.write_eof()

    async def abort(self):
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self):
        self.task.cancel()
        # Not `close`, which waits for whoever does not read.
        self.writer.transport.abort()


class Tls:
    """TLS over a connection, as the reader and the writer of one: asyncio's own knows no half-close."""

    def __init__(self, reader, writer, context, **options):
        self.reader, self.writer, self.transport = reader, writer, writer.transport
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)

    async def step(self, act):
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                self.flush()
                if data := await self.reader.read(PIECE):
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            except ssl.SSLZeroReturnError:
                return b""
            finally:
                self.flush()

    def flush(self):
        if data := self.outgoing.read():
            self.writer.write(data)

    async def handshake(self):
        await self.step(self.tls.do_handshake)
        return self

    async def read(self, size):
        return await self.step(lambda: self.tls.read(size))

    def write(self, data):
        self.tls.write(data)
        self.flush()

    async def drain(self):
        await self.writer.drain()

    def write_eof(self):
        # It says close_notify, and does not wait for the other side's.
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()
        self.writer.write_eof()

    def close(self):
        self.writer.close()


async def read_head(reader):
    """The bytes of a head, and what came behind them."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await reader.read(PIECE)
        if not more:
            return data, b""
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def parse(head):
    first, *lines = head.decode("latin-1").split("\r\n")
    return first, [tuple(part.strip() for part in line.split(":", 1)) for line in lines if line]


async def over_h1(proxy, path, *fields, secure=False, raw=None):
    """Asks over HTTP/1.1; `raw` replaces the request that wsproto writes."""
    context = None
    if secure:
        context = ssl.create_default_context(cafile=str(proxy.certificate.cert))
        context.set_alpn_protocols(["http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port if secure else proxy.plain_port)
    if secure:
        reader = writer = await Tls(reader, writer, context, server_hostname="localhost").handshake()
    agent = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    offered = [part.strip() for name, value in fields if name == "sec-websocket-protocol" for part in value.split(",")]
    extra = [(name.encode(), value.encode()) for name, value in fields if name != "sec-websocket-protocol"]
    asked = agent.send(Request(host="localhost", target=path, extra_headers=extra, subprotocols=offered))
    writer.write(asked if raw is None else raw)
    head, rest = await read_head(reader)
    side = Stream(reader, writer, rest)
    first, side.fields = parse(head)
    side.status = int(first.split()[1]) if first else 0
    if raw is None and side.status == 101:
        # It checks the answer to its key.
        agent.receive_data(head)
        assert any(isinstance(event, AcceptConnection) for event in agent.events()), head
    return side


class H2Side(Side):
    """An end that is a stream of HTTP/2."""

    def __init__(self, connection, number):
        super().__init__()
        self.connection, self.number, self.unacknowledged = connection, number, 0

    def took(self, data, counted):
        self.received += data
        self.unacknowledged += counted
        if self.reading.is_set():
            self.acknowledge()
        self.changed.set()

    def acknowledge(self):
        if self.unacknowledged and not self.over:
            self.connection.h2.acknowledge_received_data(self.unacknowledged, self.number)
        self.unacknowledged = 0

    async def send(self, data):
        h2, at = self.connection.h2, 0
        while at < len(data):
            await self.until(lambda: self.reset is not None or h2.local_flow_control_window(self.number) > 0)
            if self.reset is not None:
                raise ConnectionResetError(f"stream reset with {self.reset}")
            piece = min(h2.local_flow_control_window(self.number), h2.max_outbound_frame_size, len(data) - at)
            h2.send_data(self.number, data[at : at + piece])
            at += piece
            await self.connection.flush()

    async def end(self):
        self.connection.h2.end_stream(self.number)
        await self.connection.flush()

    async def abort(self):
        self.connection.h2.reset_stream(self.number, 8)
        await self.connection.flush()

    async def close(self):
        await self.connection.close()


class H2Connection:
    """A connection of HTTP/2 as python h2 speaks it; `asked` is called with each request, on an origin's."""

    def __init__(self, reader, writer, client, asked=None, offers=True, silent=False):
        self.reader, self.writer, self.asked, self.sides = reader, writer, asked, {}
        self.settled, self.partial = asyncio.Event(), b""
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding="latin-1"))
        if not client and offers:
            self.h2.local_settings = h2.settings.Settings(
                client=False, initial_values={h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
            )
        if not silent:
            self.h2.initiate_connection()
            self.writer.write(self.h2.data_to_send())
        self.task = asyncio.ensure_future(self.pump())

    async def flush(self):
        if data := self.h2.data_to_send():
            self.writer.write(data)
        await self.writer.drain()

    async def pump(self):
        error = None
        try:
            while data := await self.reader.read(PIECE):
                for event in self.h2.receive_data(self.skim(data)):
                    self.handle(event)
                self.writer.write(self.h2.data_to_send())
        except (ConnectionError, ssl.SSLError) as failed:
            error = failed
        for side in self.sides.values():
            if not side.over:
                side.reset = error or "the connection ended"
            side.changed.set()

    def skim(self, data):
        """Whole frames without GOAWAY, behind which python h2 takes nothing more, although streams go on."""
        if not self.h2.config.client_side:
            return data
        self.partial += data
        whole, at = b"", 0
        while len(self.partial) - at >= 9 and len(self.partial) - at >= 9 + (
            size := int.from_bytes(self.partial[at : at + 3])
        ):
            frame = self.partial[at : at + 9 + size]
            whole += frame if frame[3] != GOAWAY_FRAME else b""
            at += len(frame)
        self.partial = self.partial[at:]
        return whole

    def handle(self, event):
        side = self.sides.get(getattr(event, "stream_id", None))
        match event:
            case h2.events.RemoteSettingsChanged():
                self.settled.set()
            case h2.events.RequestReceived():
                side = self.sides[event.stream_id] = H2Side(self, event.stream_id)
                side.fields = event.headers
                asyncio.ensure_future(self.asked(side))
            case h2.events.ResponseReceived():
                side.fields = event.headers
                side.status = int(side.get(":status"))
            case h2.events.DataReceived():
                side.took(event.data, event.flow_controlled_length)
            case h2.events.StreamEnded():
                side.ended = True
            case h2.events.StreamReset() if side:
                side.reset = event.error_code
        for one in [side] if side else self.sides.values():
            one.changed.set()

    async def close(self):
        self.task.cancel()
        self.writer.close()


async def over_h2(proxy, path, *fields, protocol="websocket", version="13", end=False):
    """Asks over HTTP/2."""
    context = ssl.create_default_context(cafile=str(proxy.certificate.cert))
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname="localhost")
    connection = H2Connection(reader, writer, True)
    await asyncio.wait_for(connection.settled.wait(), PATIENCE)
    assert connection.h2.remote_settings.enable_connect_protocol == 1
    number = connection.h2.get_next_available_stream_id()
    side = connection.sides[number] = H2Side(connection, number)
    head = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":path", path)]
    head += [(":authority", "localhost"), *([("sec-websocket-version", version)] if version else []), *fields]
    connection.h2.send_headers(number, head, end_stream=end)
    await connection.flush()
    await side.until(lambda: side.status or side.over)
    return side


class H3Side(Side):
    """An end that is a stream of aioquic's."""

    def __init__(self, client, stream):
        super().__init__()
        self.client, self.stream, self.at = client, stream, 0

    @property
    def over(self):
        self.look()
        return self.ended or self.reset is not None

    def look(self):
        """What came since the last look."""
        stream = self.stream
        self.status, self.fields = stream.status, stream.fields
        self.received += stream.body[self.at :]
        self.at = len(stream.body)
        self.ended, self.reset = stream.ended, stream.reset if stream.reset is not None else self.client.terminated

    async def until(self, what, seconds=PATIENCE):
        def looked():
            self.look()
            return what()

        await self.client.until(looked, seconds)

    async def send(self, data):
        quic = self.client.quic
        for at in range(0, len(data), PIECE):
            self.stream.send(data[at : at + PIECE])
            # aioquic queues without a bound.
            await self.until(lambda: quic._streams[self.stream.number].sender._buffer_stop
                             - quic._streams[self.stream.number].sender._buffer_start < 8 * PIECE or self.over)
            if self.reset is not None:
                raise ConnectionResetError(f"stream reset with {self.reset}")

    async def end(self):
        self.stream.send(b"", end=True)

    async def abort(self):
        self.client.quic.reset_stream(self.stream.number, REQUEST_CANCELLED)
        self.client.quic.stop_stream(self.stream.number, REQUEST_CANCELLED)
        self.client.transmit()

    async def close(self):
        await self.client.__aexit__(None, None, None)


async def over_h3(proxy, path, *fields, protocol="websocket", version="13", end=False, **configuration):
    """Asks over HTTP/3."""
    client = await Client(proxy, max_data=64 << 20, max_stream_data=16 << 20, **configuration).__aenter__()
    extra = [("sec-websocket-version", version)] if version else []
    await client.until(client.control_frames)
    kind, payload = client.control_frames()[0]
    buffer, settings = Buffer(data=payload), {}
    while not buffer.eof():
        name = buffer.pull_uint_var()
        settings[name] = buffer.pull_uint_var()
    # SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 9220 section 5).
    assert kind == SETTINGS and settings.get(8) == 1, (kind, settings)
    stream = client.open("CONNECT", path, (":protocol", protocol), *extra, *fields, end=end)
    side = H3Side(client, stream)
    await side.until(lambda: side.status or side.over)
    return side


CLIENTS = {"h1": over_h1, "h2": over_h2, "h3": over_h3}


class Origin:
    """An origin of WebSocket: HTTP/1.1, with TLS if it has a certificate, or HTTP/2 without. The first segment of the path says how it answers; the ends
    of the tunnels it opened are waited for with `accepted`."""

    def __init__(self, kind, offers=True, slow_settings=None, certificate=None):
        self.kind, self.offers, self.sides, self.asked = kind, offers, asyncio.Queue(), []
        self.certificate = certificate
        self.settings_may_go, self.open = slow_settings, []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.h1 if self.kind == "h1" else self.h2, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for one in self.open:
            with contextlib.suppress(Exception):
                await one.close()

    @property
    def address(self):
        scheme = "https" if self.certificate else {"h1": "http", "h2": "h2c"}[self.kind]
        return f"{scheme}://127.0.0.1:{self.port}"

    async def accepted(self):
        return await asyncio.wait_for(self.sides.get(), PATIENCE)

    async def serve(self, side, path):
        if path.startswith("/echo"):
            asyncio.ensure_future(echo(side))
        self.sides.put_nowait(side)

    async def h1(self, reader, writer):
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(str(self.certificate.cert), str(self.certificate.key))
            reader = writer = await Tls(reader, writer, context, server_side=True).handshake()
        head, rest = await read_head(reader)
        if not head:
            writer.close()
            return
        first, fields = parse(head)
        self.asked.append((first, fields))
        _, path, _ = first.split()
        word = path.split("/")[1]
        if word == "drop":
            writer.close()
            return
        if word == "plain":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain")
            return
        if word == "unasked":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            return
        agent = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        agent.receive_data(head)
        assert any(isinstance(event, Request) for event in agent.events()), head
        if word == "refuse":
            refusal = agent.send(RejectConnection(status_code=403, headers=[(b"content-length", b"2")], has_body=True))
            writer.write(refusal + agent.send(RejectData(data=b"no")))
            return
        protocol = dict(fields).get("sec-websocket-protocol")
        answer = agent.send(AcceptConnection(subprotocol=protocol.split(",")[0] if protocol else None))
        if word == "wrong":
            answer = answer.replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x")
        writer.write(answer)
        side = Stream(reader, writer, rest)
        self.open.append(side)
        side.fields = fields
        await self.serve(side, path)

    async def h2(self, reader, writer):
        async def asked(side):
            self.asked.append((side.get(":method"), side.fields))
            path, protocol = side.get(":path"), side.get("sec-websocket-protocol")
            word = path.split("/")[1]
            if word == "refuse" or side.get(":protocol") != "websocket":
                connection.h2.send_headers(side.number, [(":status", "403"), ("content-length", "2")])
                connection.h2.send_data(side.number, b"no", end_stream=True)
                return await connection.flush()
            head = [(":status", "200"), *([("sec-websocket-protocol", protocol.split(",")[0])] if protocol else [])]
            connection.h2.send_headers(side.number, head)
            await connection.flush()
            await self.serve(side, path)

        connection = H2Connection(reader, writer, False, asked, self.offers, silent=self.settings_may_go is not None)
        self.open.append(connection)
        if self.settings_may_go is not None:
            await self.settings_may_go.wait()
            connection.h2.initiate_connection()
            await connection.flush()


async def echo(side):
    """Sends back what comes, piece by piece, and ends when the other side did."""
    with contextlib.suppress(ConnectionError):
        while True:
            await side.until(lambda: side.received or side.over, 600)
            if side.received:
                await side.send(await side.receive(len(side.received)))
            elif side.ended:
                return await side.end()
            else:
                return None
