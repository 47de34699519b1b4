"""aioquic as a client, in two manners: well-behaved through its own HTTP/3 layer, or raw, where a test writes every frame itself."""

import asyncio
import hashlib
import socket
import time

import pylsqpack
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio import connect as quic_connect
from aioquic.buffer import Buffer, BufferReadError, encode_uint_var
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch

from .asks import PATIENCE, Asks

# Frame types, settings and codes of RFC 9114 and RFC 9204.
DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0x0, 0x1, 0x3, 0x4, 0x5, 0x7, 0xD
CONTROL_STREAM, PUSH_STREAM, ENCODER_STREAM, DECODER_STREAM = 0x0, 0x1, 0x2, 0x3
NO_ERROR, GENERAL_PROTOCOL_ERROR, INTERNAL_ERROR = 0x100, 0x101, 0x102
STREAM_CREATION_ERROR, CLOSED_CRITICAL_STREAM, FRAME_UNEXPECTED, FRAME_ERROR = 0x103, 0x104, 0x105, 0x106
EXCESSIVE_LOAD, ID_ERROR, SETTINGS_ERROR, MISSING_SETTINGS = 0x107, 0x108, 0x109, 0x10A
REQUEST_REJECTED, REQUEST_CANCELLED, REQUEST_INCOMPLETE, MESSAGE_ERROR = 0x10B, 0x10C, 0x10D, 0x10E
QPACK_DECOMPRESSION_FAILED, QPACK_ENCODER_STREAM_ERROR, QPACK_DECODER_STREAM_ERROR = 0x200, 0x201, 0x202


def varint(value):
    return encode_uint_var(value)


def frame(kind, payload=b""):
    return varint(kind) + varint(len(payload)) + payload


def settings(*pairs):
    return frame(SETTINGS, b"".join(varint(key) + varint(value) for key, value in pairs))


def prefixed(value, bits, first):
    """An HPACK/QPACK integer with a prefix of `bits` bits, `first` holding the bits before it."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out = bytearray([first | most])
    value -= most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field_section(fields):
    """Fields as QPACK literals with literal names: what is written arrives as it is, legal or not."""
    out = b"\0\0"
    for name, value in fields:
        out += prefixed(len(name), 3, 0b0010_0000) + name + prefixed(len(value), 7, 0) + value
    return out


def headers(*fields):
    return frame(HEADERS, field_section([(_bytes(name), _bytes(value)) for name, value in fields]))


def frames_of(data):
    """[(type, payload)] of the whole frames in `data`."""
    buffer, found = Buffer(data=data), []
    try:
        while not buffer.eof():
            kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
            found.append((kind, buffer.pull_bytes(length)))
    except BufferReadError:
        pass
    return found


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


class Stream:
    """One request stream as the client sees it."""

    def __init__(self, client, number):
        self.client, self.number = client, number
        self.informational, self.status, self.fields, self.trailers = [], 0, [], None
        self.body, self.arrivals, self.raw = bytearray(), [], bytearray()
        self.ended, self.reset, self.stopped = False, None, None
        self.opened = time.monotonic()

    def get(self, name, default=None):
        return next((value for key, value in self.fields if key == name), default)

    @property
    def sha256(self):
        return hashlib.sha256(self.body).hexdigest()

    @property
    def over(self):
        if self.stopped not in (None, NO_ERROR) and self.client.is_raw:
            return True
        return self.ended or self.reset is not None or self.client.terminated is not None

    # Sending.
    def send(self, data, end=False):
        """A DATA frame (or its raw bytes on a raw connection)."""
        if self.client.h3:
            self.client.h3.send_data(self.number, data, end)
        else:
            self.client.quic.send_stream_data(self.number, data, end)
        self.client.transmit()

    def send_trailers(self, *fields):
        self.client.h3.send_headers(self.number, [(_bytes(k), _bytes(v)) for k, v in fields], True)
        self.client.transmit()

    def abort(self, code=REQUEST_CANCELLED):
        """What a browser does on cancel: resets its direction and stops the other."""
        if not self.client.quic._streams[self.number].sender.is_finished:
            self.client.quic.reset_stream(self.number, code)
        self.client.quic.stop_stream(self.number, code)
        self.client.transmit()

    # Waiting.
    async def until(self, what, seconds=PATIENCE):
        await self.client.until(lambda: what() or self.over, seconds)
        return self.decoded() if self.client.is_raw else self

    async def refused(self, *codes, statuses=(), seconds=PATIENCE):
        """Waits for the end and checks that it was a stream error of `codes`, or an answer of `statuses`."""
        await self.finish(seconds)
        assert self.client.terminated is None, f"the whole connection was closed: {self}"
        assert self.reset in codes or self.stopped in codes or self.status in statuses, self
        return self

    async def head(self, seconds=PATIENCE):
        return await self.until(lambda: self.status >= 200, seconds)

    async def finish(self, seconds=PATIENCE):
        """Waits until the answer ended, was reset, or the connection closed."""
        return await self.until(lambda: False, seconds)

    def took(self, event):
        match event:
            case HeadersReceived():
                fields = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in event.headers]
                status = next((int(v) for k, v in fields if k == ":status"), None)
                if status and 100 <= status < 200:
                    self.informational.append((status, fields))
                elif status:
                    self.status, self.fields = status, fields
                else:
                    self.trailers = fields
            case DataReceived():
                if event.data:
                    self.arrivals.append(time.monotonic() - self.opened)
                    self.body += event.data

    def decoded(self):
        """On a raw connection: takes apart the frames that came so far, as `took` does for aioquic's."""
        self.informational, self.status, self.trailers, self.body = [], 0, None, bytearray()
        for kind, payload in frames_of(bytes(self.raw)):
            if kind == HEADERS:
                _, fields = pylsqpack.Decoder(0, 0).feed_header(self.number, payload)
                self.took(HeadersReceived(headers=fields, stream_id=self.number, stream_ended=False))
            elif kind == DATA:
                self.body += payload
        return self

    def __repr__(self):
        return (
            f"<stream {self.number}: status {self.status}, {len(self.body)} bytes, ended {self.ended}, reset {self.reset}, "
            f"stopped {self.stopped}, raw {bytes(self.raw[:200])!r}, connection {self.client.terminated}>"
        )


class Protocol(QuicConnectionProtocol):
    """Hands QUIC events to the client."""

    client = None

    def datagram_received(self, data, addr):
        super().datagram_received(data, addr)
        # Windows, acknowledgements and connection IDs come without an event.
        if self.client:
            self.client.changed.set()

    def quic_event_received(self, event):
        if self.client:
            self.client.took(event)


class Client(Asks):
    """One connection: `async with Client(proxy) as client`. `raw=True` leaves HTTP/3 to the test."""

    def __init__(self, proxy, raw=False, port=None, control=True, local_port=0, address=None, **configuration):
        self.proxy, self.is_raw, self.with_control, self.local_port = proxy, raw, control, local_port
        self.port, self.address = port or proxy.port, address or proxy.host
        self.configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost")
        self.configuration.load_verify_locations(str(proxy.certificate.cert))
        self.configuration.max_datagram_size = 1350
        for key, value in configuration.items():
            setattr(self.configuration, key, value)
        self.streams, self.server_streams = {}, {}
        self.terminated, self.h3 = None, None
        # Session tickets that came, to be given to a later client.
        self.tickets = []

    async def __aenter__(self):
        self.changed = asyncio.Event()
        self.connecting = quic_connect(
            self.address,
            self.port,
            configuration=self.configuration,
            create_protocol=Protocol,
            session_ticket_handler=self.tickets.append,
            local_port=self.local_port,
            wait_connected=False,
        )
        self.protocol = await self.connecting.__aenter__()
        self.quic, self.protocol.client = self.protocol._quic, self
        self.transmit()
        await asyncio.wait_for(self.protocol.wait_connected(), PATIENCE)
        if not self.is_raw:
            self.h3 = H3Connection(self.quic)
            self.transmit()
        elif self.with_control:
            self.control = self.open_uni(varint(CONTROL_STREAM) + settings())
        return self

    async def __aexit__(self, *error):
        self.protocol.close(NO_ERROR)
        await self.connecting.__aexit__(*error)

    def transmit(self):
        self.protocol.transmit()

    async def move(self, port=0, new_id=False, address="::"):
        """Goes on from another local port or address: as behind a NAT that forgot us, or on purpose with a connection ID of its own."""
        moved = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        moved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        moved.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        moved.bind((address, port))
        before = self.protocol._transport
        # The protocol takes the new transport as its own.
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self.protocol, sock=moved)
        before.close()
        if new_id:
            self.quic.change_connection_id()
        self.quic.send_ping(0)
        self.transmit()
        return moved.getsockname()[1]

    @property
    def authority(self):
        return f"localhost:{self.proxy.port}"

    # Well-behaved requests.
    def open(self, method, path, *fields, end=True, authority=None, scheme="https"):
        """Sends a request head."""
        number = self.quic.get_next_available_stream_id()
        stream = self.streams[number] = Stream(self, number)
        pseudo = self.pseudo(method, path, authority, scheme)
        self.h3.send_headers(number, [(_bytes(k), _bytes(v)) for k, v in [*pseudo, *fields]], end)
        self.transmit()
        return stream

    # Raw ones.
    def send_raw(self, *parts, end=False):
        """A request stream with these bytes."""
        number = self.quic.get_next_available_stream_id()
        stream = self.streams[number] = Stream(self, number)
        self.quic.send_stream_data(number, b"".join(parts), end)
        self.transmit()
        return stream

    def open_uni(self, data, end=False):
        number = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.quic.send_stream_data(number, data, end)
        self.transmit()
        return number

    def send_packets(self, *payloads, kind=QuicPacketType.ONE_RTT, crypto=None):
        """One datagram for each payload of QUIC frames, past aioquic's congestion control and loss recovery; `crypto` has other keys
        than those of the connection."""
        builder = QuicPacketBuilder(
            host_cid=self.quic.host_cid,
            peer_cid=self.quic._peer_cid.cid,
            version=self.quic._version,
            is_client=True,
            max_datagram_size=1350,
            packet_number=self.quic._packet_number,
        )
        for payload in payloads:
            builder.start_packet(kind, crypto or self.quic._cryptos[Epoch.ONE_RTT])
            builder.start_frame(payload[0], capacity=len(payload)).push_bytes(payload[1:])
        datagrams, _ = builder.flush()
        self.quic._packet_number = builder.packet_number
        for datagram in datagrams:
            self.protocol._transport.sendto(datagram, self.quic._network_paths[0].addr)

    # Events.
    def took(self, event):
        match event:
            case ConnectionTerminated():
                self.terminated = (event.error_code, event.reason_phrase)
            case StreamReset() if event.stream_id in self.streams:
                self.streams[event.stream_id].reset = event.error_code
            case StopSendingReceived() if event.stream_id in self.streams:
                self.streams[event.stream_id].stopped = event.error_code
            case StreamDataReceived() if event.stream_id % 4 == 3:
                self.server_streams.setdefault(event.stream_id, bytearray()).extend(event.data)
            case StreamDataReceived() if event.stream_id in self.streams:
                self.streams[event.stream_id].raw += event.data if self.is_raw else b""
        if self.h3:
            for seen in self.h3.handle_event(event):
                if stream := self.streams.get(getattr(seen, "stream_id", None)):
                    stream.took(seen)
        if isinstance(event, StreamDataReceived) and event.end_stream and event.stream_id in self.streams:
            self.streams[event.stream_id].ended = True
        self.changed.set()

    async def until(self, what, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while not what():
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise AssertionError(
                    f"not within {seconds} s; connection {self.terminated}, {len(self.streams)} streams, first and last: "
                    f"{[*self.streams.values()][:1]} {[*self.streams.values()][-1:]}"
                ) from None

    async def closed(self, seconds=PATIENCE):
        """Waits for the connection's end and returns its error code."""
        await self.until(lambda: self.terminated is not None, seconds)
        return self.terminated[0]

    def control_frames(self):
        """The frames on the server's control stream so far."""
        for data in self.server_streams.values():
            if data[:1] == b"\0":
                return frames_of(bytes(data[1:]))
        return []

    def goaways(self):
        return [Buffer(data=payload).pull_uint_var() for kind, payload in self.control_frames() if kind == GOAWAY]

    def streams_allowed(self):
        """How many request streams the server has allowed in all."""
        return self.quic._remote_max_streams_bidi
