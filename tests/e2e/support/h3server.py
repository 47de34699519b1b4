"""aioquic as an HTTP/3 server: what `spooky probe` is pointed at. The path of a request names what the server does."""

import asyncio
import contextlib
import os
import threading

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated

from .h3 import GOAWAY, REQUEST_REJECTED, frame, varint

TEXT = ("content-type", "text/plain")


class Protocol(QuicConnectionProtocol):
    """One connection. Requests are noted in `seen`: their fields and how many bytes of body came."""

    seen = None

    def __init__(self, *arguments, **keys):
        super().__init__(*arguments, **keys)
        self.h3, self.requests = None, {}

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            for request in self.requests.values():
                request["closed"] = event.error_code
        if isinstance(event, ProtocolNegotiated):
            self.h3 = H3Connection(self._quic)
        for seen in self.h3.handle_event(event) if self.h3 else ():
            if isinstance(seen, HeadersReceived):
                fields = {name.decode(): value.decode() for name, value in seen.headers}
                request = self.requests[seen.stream_id] = {"fields": fields, "body": bytearray(), "ended": False}
                self.seen.append(request)
                if fields[":path"] == "/early":
                    self.answer(seen.stream_id, 413, body=b"too much")
            elif isinstance(seen, DataReceived):
                self.requests[seen.stream_id]["body"] += seen.data
            if seen.stream_ended and not self.requests[seen.stream_id]["ended"]:
                self.requests[seen.stream_id]["ended"] = True
                self.act(seen.stream_id, self.requests[seen.stream_id])
        self.transmit()

    def answer(self, stream, status, *fields, body=b"", end=True):
        head = [(b":status", str(status).encode()), *((n.encode(), v.encode("latin-1")) for n, v in fields)]
        self.h3.send_headers(stream, head, end and not body)
        if body:
            self.h3.send_data(stream, body, end)

    def act(self, stream, request):
        fields, body = request["fields"], bytes(request["body"])
        word, _, argument = fields[":path"].strip("/").partition("/")
        match word:
            case "status":
                self.answer(stream, int(argument), TEXT, body=f"status {argument}\n".encode())
            case "echo":
                self.answer(stream, 200, ("x-method", fields[":method"]), body=body)
            case "bytes":
                self.answer(stream, 200, body=b"x" * int(argument))
            case "redirect":
                self.answer(stream, 302, ("location", "https://elsewhere.test/"))
            case "informational":
                self.answer(stream, 103, ("link", "</style.css>"), end=False)
                self.answer(stream, 200, TEXT, body=b"late\n")
            case "heads":
                number, size = map(int, argument.split("/"))
                for _ in range(number):
                    self.answer(stream, 103, ("link", "l" * size), end=False)
                self.answer(stream, 200)
            case "trailers":
                self.answer(stream, 200, TEXT, body=b"body\n", end=False)
                self.h3.send_headers(stream, [(b"x-checksum", b"abc")], True)
            case "nasty":
                self.answer(stream, 200, ("x-nasty", "a\x9b31m\xe9"), TEXT, body=b"\x1b[31mred\n")
            case "many":
                self.answer(stream, 200, *((f"x-{number}", "v" * 1000) for number in range(int(argument))))
            case "reset":
                self._quic.reset_stream(stream, REQUEST_REJECTED)
            case "cut":
                self.answer(stream, 200, body=b"half", end=False)
                self.transmit()
                self._quic.reset_stream(stream, 0x102)
            case "close":
                self._quic.close(0x107, reason_phrase="enough")
            case "goaway":
                self._quic.send_stream_data(self.h3._local_control_stream_id, frame(GOAWAY, varint(0)))
            case "stall":
                self.answer(stream, 200, body=b"half", end=False)
            case "forget":
                # A stateless reset (RFC 9000 section 10.3): looks like a short header, ends in the connection's token.
                token = self._quic._host_cids[0].stateless_reset_token
                self._transport.sendto(b"\x41" + os.urandom(40) + token, self._quic._network_paths[0].addr)
            case "silence":
                pass
            case "early":
                pass
            case _:
                self.answer(stream, 200, TEXT, ("server", "aioquic"), body=b"hello\n")


@contextlib.contextmanager
def server(certificate, retry=False, address="127.0.0.1", resume=False, **configuration):
    """Runs one in a thread; `(port, requests)`."""
    settings = QuicConfiguration(is_client=False, alpn_protocols=["h3"], max_datagram_size=1350)
    settings.load_cert_chain(str(certificate.cert), str(certificate.key))
    for key, value in configuration.items():
        setattr(settings, key, value)
    seen, tickets = [], {}
    protocol = type("Noting", (Protocol,), {"seen": seen})
    loop, running, state = asyncio.new_event_loop(), threading.Event(), {}

    async def run():
        ended = asyncio.Event()
        options = {}
        if resume:
            options = {
                "session_ticket_fetcher": tickets.pop,
                "session_ticket_handler": lambda ticket: tickets.update({ticket.ticket: ticket}),
            }
        running_server = await serve(address, 0, configuration=settings, create_protocol=protocol, retry=retry, **options)
        state["port"] = running_server._transport.get_extra_info("sockname")[1]
        state["end"] = ended.set
        running.set()
        await ended.wait()
        running_server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="h3server", daemon=True)
    thread.start()
    assert running.wait(20), "the server did not start"
    try:
        yield state["port"], seen
    finally:
        loop.call_soon_threadsafe(state["end"])
        thread.join(20)
        loop.close()
