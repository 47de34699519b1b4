"""QUIC packets for hostile hands: real first flights taken from aioquic without a socket, and ways to spoil them."""

import socket

from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

# What a client without a socket takes for its server.
SERVER = ("127.0.0.1", 1)


def connecting(certificate, server_name="localhost", prepare=lambda connection: None):
    """A new client without a socket, and the time it began; `prepare` has it before it makes its ClientHello."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=server_name)
    configuration.load_verify_locations(str(certificate.cert))
    connection = QuicConnection(configuration=configuration)
    prepare(connection)
    connection.connect(SERVER, now=0.0)
    return connection, 0.0


def first_flight(certificate, server_name="localhost"):
    """The datagrams of a new client's first flight (Initial packets, padded)."""
    connection, now = connecting(certificate, server_name)
    return [data for data, _ in connection.datagrams_to_send(now)]


def is_retry(packet):
    """Whether it is a Retry packet of version 1."""
    return packet[0] & 0xF0 == 0xF0


def token_at(packet):
    """Where the token of an Initial packet begins (RFC 9000 17.2.2)."""
    buffer = Buffer(data=bytes(packet))
    buffer.seek(5)
    buffer.pull_bytes(buffer.pull_uint8())
    buffer.pull_bytes(buffer.pull_uint8())
    assert buffer.pull_uint_var() > 0, "no token"
    return buffer.tell()


def long_header(version, destination, source, rest=b"", first=0xC0):
    """A long-header packet of any version."""
    ids = bytes([len(destination)]) + destination + bytes([len(source)]) + source
    return bytes([first]) + version.to_bytes(4, "big") + ids + rest


def negotiated(packet):
    """(destination id, source id, versions) of a Version Negotiation packet."""
    buffer = Buffer(data=packet)
    assert buffer.pull_uint8() & 0x80 and buffer.pull_uint32() == 0
    destination = buffer.pull_bytes(buffer.pull_uint8())
    source = buffer.pull_bytes(buffer.pull_uint8())
    versions = []
    while not buffer.eof():
        versions.append(buffer.pull_uint32())
    return destination, source, versions


class Sender:
    """A bare UDP socket towards the proxy, from an address of this machine."""

    def __init__(self, address, source="127.0.0.1"):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # Many clients may share it, and all have their answers at once.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((source, 0))
        self.socket.connect(address)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.send(data)
        except ConnectionRefusedError as error:
            raise AssertionError("nobody listens any more") from error

    def receive(self, seconds):
        """One datagram, or None after `seconds`."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(65_536)
        except TimeoutError:
            return None


def closed_with(connection, sender):
    """The code of the CONNECTION_CLOSE that comes, as aioquic reads it."""
    while (answer := sender.receive(10)) is not None:
        if is_retry(answer):
            continue
        connection.receive_datagram(answer, SERVER, 0.0)
        connection.handle_timer(60.0)
        while event := connection.next_event():
            if hasattr(event, "error_code"):
                return event.error_code
    return None
