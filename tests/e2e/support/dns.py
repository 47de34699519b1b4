"""A DNS server whose answers a test changes while it runs: UDP and TCP on one port of 127.0.0.1."""

import socket
import struct
import threading
from ipaddress import ip_address

A, CNAME, AAAA = 1, 5, 28
SERVFAIL, NXDOMAIN = 2, 3
SILENT = object()


def name_bytes(name):
    labels = [label for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def read_name(message, at):
    labels = []
    while message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode())
        at += 1 + message[at]
    return ".".join(labels), at + 1


class Dns:
    """`names[name]` is a list of addresses and `("cname", target)` pairs, or SERVFAIL, NXDOMAIN or SILENT."""

    def __init__(self, ttl=1, **names):
        self.names, self.ttl = {}, ttl
        # Answers over UDP are empty and cut short; forged ones go before the true one.
        self.truncate, self.forge = False, None
        self.asked = []
        self.lock = threading.Lock()
        self.udp, self.tcp = self.bind()
        self.port = self.udp.getsockname()[1]
        for serve in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    @staticmethod
    def bind():
        for _ in range(100):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            tcp = socket.socket()
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                udp.close()
                tcp.close()
                continue
            tcp.listen()
            return udp, tcp
        raise RuntimeError("no port is free for both UDP and TCP")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.udp.close()
        self.tcp.close()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def toml(self, **keys):
        """The `[resolver]` block that asks this server."""
        lines = {"servers": f'["{self.address}"]', "min_ttl": '"100ms"', **{key: f'"{value}"' for key, value in keys.items()}}
        return "[resolver]\n" + "\n".join(f"{key} = {value}" for key, value in lines.items())

    def set(self, name, *records, failure=None):
        with self.lock:
            self.names[name] = failure or list(records)

    def questions(self, over=None, name=None):
        """How often it was asked."""
        with self.lock:
            return sum(1 for seen in self.asked if (not over or seen[0] == over) and (not name or seen[1] == name))

    def answer(self, question, over, peer):
        """The messages that answer one; none: silence."""
        name, at = read_name(question, 12)
        kind = struct.unpack_from("!H", question, at)[0]
        asked = question[12 : at + 4]
        with self.lock:
            self.asked.append((over, name.lower(), kind, peer))
            known = self.names.get(name.lower(), NXDOMAIN)
            truncate, forge = self.truncate and over == "udp", self.forge
        if known is SILENT:
            return []
        failure = known if isinstance(known, int) else 0
        records = [] if failure or truncate else self.records(name.lower(), known, kind)
        flags = 0x8180 | failure | (0x0200 if truncate else 0)
        head = struct.pack("!HHHHHH", struct.unpack_from("!H", question)[0], flags, 1, len(records), 0, 0)
        true = head + asked + b"".join(records)
        if not forge or over != "udp":
            return [true]
        false = self.record(name, A, ip_address(forge).packed)
        head = struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
        wrong_id = struct.unpack_from("!H", question)[0] ^ 0x5555
        return [struct.pack("!H", wrong_id) + head + asked + false, question[:2] + head + asked.swapcase() + false, true]

    def records(self, name, known, kind):
        out = []
        for item in known:
            if isinstance(item, tuple):
                out.append(self.record(name, CNAME, name_bytes(item[1])))
                name = item[1]
                continue
            address = ip_address(item)
            if kind == (A if address.version == 4 else AAAA):
                out.append(self.record(name, kind, address.packed))
        return out

    def record(self, name, kind, data):
        return name_bytes(name) + struct.pack("!HHIH", kind, 1, self.ttl, len(data)) + data

    def serve_udp(self):
        while True:
            try:
                question, peer = self.udp.recvfrom(4096)
                for message in self.answer(question, "udp", peer):
                    self.udp.sendto(message, peer)
            except OSError:
                return

    def serve_tcp(self):
        while True:
            try:
                connection, peer = self.tcp.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    received = connection.makefile("rb")
                    length = struct.unpack("!H", received.read(2))[0]
                    for message in self.answer(received.read(length), "tcp", peer):
                        # In two pieces: the length alone is no message.
                        connection.sendall(struct.pack("!H", len(message)))
                        connection.sendall(message)
                    received.read(1)
                except (OSError, struct.error):
                    pass
