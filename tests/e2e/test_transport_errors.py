"""What QUIC forbids, written by hand on aioquic: frames in a connection, transport parameters and keys in a handshake. Each closes
the connection with the code that the RFC names, and nobody else notices."""

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicPacketType
from support import packets
from support.h3 import varint
from support.packets import Sender, closed_with
from support.process import until

# RFC 9000 section 20.1.
FLOW_CONTROL_ERROR, STREAM_LIMIT_ERROR, STREAM_STATE_ERROR, FINAL_SIZE_ERROR, FRAME_ENCODING_ERROR = 0x03, 0x04, 0x05, 0x06, 0x07
TRANSPORT_PARAMETER_ERROR, PROTOCOL_VIOLATION, CRYPTO_BUFFER_EXCEEDED = 0x08, 0x0A, 0x0D
# TLS alert missing_extension as a QUIC code (RFC 9001 section 8.2).
MISSING_EXTENSION = 0x100 + 109


def stream(number, offset, data, end=False):
    """A STREAM frame with offset and length."""
    return bytes([0x0E | end]) + varint(number) + varint(offset) + varint(len(data)) + data


def connection_id(sequence, retire_prior_to, length=8):
    return b"\x18" + varint(sequence) + varint(retire_prior_to) + bytes([length]) + bytes(length) + bytes(16)


# Streams 0, 2, 4 are the client's, the first one is over; 1 and 3 are ours, of which we open no 1.
FRAMES = {
    "bytes beyond a stream's window": (stream(4, 1 << 40, b"x"), FLOW_CONTROL_ERROR),
    "a stream beyond the limit": (stream(4 << 20, 0, b"x"), STREAM_LIMIT_ERROR),
    "bytes on a stream of ours": (stream(3, 0, b"x"), STREAM_STATE_ERROR),
    "bytes on a stream that we never opened": (stream(1, 0, b"x"), STREAM_STATE_ERROR),
    "a reset of a stream of ours": (b"\x04" + varint(3) + varint(0) + varint(0), STREAM_STATE_ERROR),
    "a window for a stream that only receives": (b"\x11" + varint(2) + varint(1000), STREAM_STATE_ERROR),
    "STOP_SENDING of a stream that only receives": (b"\x05" + varint(2) + varint(0), STREAM_STATE_ERROR),
    "bytes behind the end of a stream": (stream(4, 0, b"12345", end=True) + stream(4, 5, b"6"), FINAL_SIZE_ERROR),
    "a reset with another length": (stream(4, 0, b"12345", end=True) + b"\x04" + varint(4) + varint(0) + varint(4), FINAL_SIZE_ERROR),
    "an unknown frame": (varint(0x3F) + b"\0", FRAME_ENCODING_ERROR),
    # FRAME_ENCODING_ERROR by section 12.4; docs/TESTING.md lists what quiche does otherwise.
    "a frame cut off": (b"\x0e" + varint(0) + varint(0) + varint(100) + b"x", PROTOCOL_VIOLATION),
    "more streams than there can be": (b"\x12" + varint((1 << 60) + 1), FRAME_ENCODING_ERROR),
    "an ID without a byte": (connection_id(1, 0, 0), FRAME_ENCODING_ERROR),
    "an ID that retires itself": (connection_id(1, 2), FRAME_ENCODING_ERROR),
    # PROTOCOL_VIOLATION by section 19.15, which does not ask for any.
    "an ID of another sequence's number": (connection_id(0, 0), FRAME_ENCODING_ERROR),
    "an ID retired that we never gave": (b"\x19" + varint(1000), PROTOCOL_VIOLATION),
    "a token from a client": (b"\x07" + varint(1) + b"x", PROTOCOL_VIOLATION),
    "HANDSHAKE_DONE from a client": (b"\x1e", PROTOCOL_VIOLATION),
    "handshake bytes far ahead": (b"\x06" + varint(1 << 20) + varint(1) + b"x", CRYPTO_BUFFER_EXCEEDED),
    "a datagram that nobody offered": (b"\x31" + varint(1) + b"x", PROTOCOL_VIOLATION),
}


@pytest.mark.parametrize("what", FRAMES)
async def test_frames_that_close_the_connection(proxy, h3, what):
    payload, code = FRAMES[what]
    async with h3(proxy) as client:
        assert (await client.get("/bytes/10")).status == 200
        # Padding at the end is legal everywhere, and makes a short packet long enough to be protected.
        client.send_packets(payload if what == "a frame cut off" else payload + bytes(20))
        assert await client.closed() == code


def parameters(data):
    """{number: value} of serialised transport parameters (RFC 9000 section 18)."""
    buffer, found = Buffer(data=data), {}
    while not buffer.eof():
        number, length = buffer.pull_uint_var(), buffer.pull_uint_var()
        found[number] = buffer.pull_bytes(length)
    return found


def serialised(found):
    return b"".join(varint(number) + varint(len(value)) + value for number, value in found.items())


PREFERRED = bytes(4 + 2 + 16 + 2) + b"\x08" + bytes(8) + bytes(16)
# What becomes of the parameters that aioquic would send.
PARAMETERS = {
    "datagrams smaller than any path's": lambda p: serialised(p | {0x03: varint(1199)}),
    "an exponent over 20": lambda p: serialised(p | {0x0A: varint(21)}),
    "a delay over 2^14": lambda p: serialised(p | {0x0B: varint(1 << 14)}),
    "fewer IDs than two": lambda p: serialised(p | {0x0E: varint(1)}),
    "more streams than there can be": lambda p: serialised(p | {0x08: varint((1 << 60) + 1)}),
    "one of them twice": lambda p: serialised(p) + serialised({0x01: varint(1000)}),
    "a server's ID": lambda p: serialised(p | {0x00: b"12345678"}),
    "a server's reset token": lambda p: serialised(p | {0x02: bytes(16)}),
    "a server's address": lambda p: serialised(p | {0x0D: PREFERRED}),
    "a server's ID of a Retry": lambda p: serialised(p | {0x10: b"12345678"}),
    "no ID of its own": lambda p: serialised({number: value for number, value in p.items() if number != 0x0F}),
    "another ID than its own": lambda p: serialised(p | {0x0F: b"another1"}),
}


def with_parameters(proxy, change):
    """A new client, and the time it began, whose transport parameters are `change` of aioquic's."""

    def spoil(connection):
        good = connection._serialize_transport_parameters
        connection._serialize_transport_parameters = lambda: change(parameters(good()))

    return packets.connecting(proxy.certificate, prepare=spoil)


@pytest.mark.parametrize("what", PARAMETERS)
def test_transport_parameters_that_close_the_handshake(proxy, what):
    connection, now = with_parameters(proxy, PARAMETERS[what])
    with Sender(proxy.address) as sender:
        for datagram, _ in connection.datagrams_to_send(now):
            sender.send(datagram)
        assert closed_with(connection, sender) == TRANSPORT_PARAMETER_ERROR


def test_transport_parameters_that_are_cut_off_leave_nothing(start):
    """quiche does not tell them from a packet that is noise, so they have no answer."""
    proxy = start()
    connection, now = with_parameters(proxy, lambda good: serialised(good)[:-1])
    with Sender(proxy.address) as sender:
        for datagram, _ in connection.datagrams_to_send(now):
            sender.send(datagram)
        until(lambda: proxy.total(r'^spooky_datagrams_dropped_total\{.*"initial_invalid"') >= 1, 10)
        assert sender.receive(0.3) is None
        assert proxy.total("^spooky_connections_active") == 0


def test_a_hello_without_transport_parameters(proxy):
    def spoil(connection):
        initialize = connection._initialize

        def without(*arguments):
            initialize(*arguments)
            connection.tls.handshake_extensions = []

        connection._initialize = without

    connection, now = packets.connecting(proxy.certificate, prepare=spoil)
    with Sender(proxy.address) as sender:
        for datagram, _ in connection.datagrams_to_send(now):
            sender.send(datagram)
        assert closed_with(connection, sender) == MISSING_EXTENSION


async def test_initial_packets_are_nothing_once_the_handshake_is_done(proxy, h3):
    """RFC 9001 section 4.9: their keys are gone. Whoever saw the first packet can make those of Initial packets, and close nothing with them."""
    async with h3(proxy) as client:
        assert (await client.get("/bytes/10")).status == 200
        keys = CryptoPair()
        keys.setup_initial(client.quic._original_destination_connection_id, is_client=True, version=1)
        close = b"\x1c" + varint(PROTOCOL_VIOLATION) + varint(0) + varint(0) + bytes(1200)
        client.send_packets(close, kind=QuicPacketType.INITIAL, crypto=keys)
        assert (await client.get("/bytes/20")).status == 200
        assert client.terminated is None
