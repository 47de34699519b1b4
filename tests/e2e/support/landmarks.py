"""Origins on several loopback addresses and one port, so that an answer tells which address of a name it came from."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A whole response in one segment.
    wbufsize = -1

    def do_GET(self):
        with self.server.lock:
            self.server.hosts.append(self.headers["Host"])
        self.server.gate.wait(20)
        body = self.server.server_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Landmark(ThreadingHTTPServer):
    """One origin; its body is its address. `gate` holds answers back while it is clear."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, port):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.hosts, self.lock, self.gate, self.open = [], threading.Lock(), threading.Event(), 0
        self.gate.set()
        super().__init__((address, port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def process_request(self, request, client_address):
        with self.lock:
            self.open += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        super().shutdown_request(request)
        with self.lock:
            self.open -= 1

    def handle_error(self, *_):
        """A connection that the proxy closed is no news."""


@contextlib.contextmanager
def landmarks(*addresses):
    """Landmarks at these addresses, all on one port: {address: landmark}."""
    for _ in range(50):
        with contextlib.ExitStack() as stack:
            try:
                port, running = 0, {}
                for address in addresses:
                    one = running[address] = Landmark(address, port)
                    stack.callback(one.server_close)
                    stack.callback(one.shutdown)
                    port = one.server_address[1]
            except OSError:
                continue
            yield running
            return
    raise RuntimeError("no port is free at all addresses")


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as s:
        s.bind(("::1", 0))
        return True
    return False
