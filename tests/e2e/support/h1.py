"""A client for HTTP/1.1 that sends exactly the bytes it is given; answers are read by Python's http.client."""

import http.client
import socket
import ssl


class Answer:
    """One response, or `status` 0 if the connection ended before one."""

    def __init__(self, status=0, fields=(), body=b"", whole=True):
        self.status, self.fields, self.body, self.whole = status, list(fields), body, whole

    def get(self, name):
        return next((value for field, value in self.fields if field.lower() == name), None)

    def __repr__(self):
        return f"Answer({self.status}, {self.fields}, {len(self.body)} bytes{'' if self.whole else ', cut'})"


class Client:
    """One connection. `context`: TLS above it, `alpn` what it offers there."""

    def __init__(self, address, context=None, server_name="localhost", timeout=20):
        self.socket = socket.create_connection(address, timeout=timeout)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname=server_name)
        self.reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))

    def end(self):
        """FIN."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.close()

    def close(self):
        self.reader.close()
        self.socket.close()

    def answer(self, method="GET"):
        """The next response, 1xx included."""
        line = self.line()
        if line is None:
            return Answer()
        version, status, *_ = line.split(" ", 2)
        assert version == "HTTP/1.1", line
        fields = []
        while line := self.line():
            name, value = line.split(":", 1)
            fields.append((name.lower(), value.strip(" ")))
        answer = Answer(int(status), fields)
        if answer.status < 200 or answer.status in (204, 304) or method == "HEAD":
            return answer
        try:
            answer.body = self.body(answer)
        except (http.client.IncompleteRead, ConnectionResetError, EOFError):
            answer.whole = False
        return answer

    def line(self):
        try:
            line = self.reader.readline(65_537)
        except ConnectionResetError:
            return None
        if not line:
            return None
        assert line.endswith(b"\r\n"), line
        return line[:-2].decode("latin-1")

    def body(self, answer):
        if "chunked" in (answer.get("transfer-encoding") or ""):
            body = b""
            while size := int((self.line() or "").split(";")[0] or "x", 16) if self.reader.peek(1) else self.cut():
                body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            while line := self.line():
                answer.fields.append(tuple(part.strip() for part in line.split(":", 1)))
            return body
        length = answer.get("content-length")
        return self.exactly(int(length)) if length is not None else self.reader.read()

    def exactly(self, count):
        data = self.reader.read(count)
        if len(data) < count:
            self.cut()
        return data

    @staticmethod
    def cut():
        raise EOFError

    def is_closed(self):
        """Whether nothing more comes: the other side closed or reset the connection. Waits for it."""
        try:
            return self.reader.read(1) == b""
        except ConnectionResetError:
            return True


def trusting(certificate, *alpn, verify=True):
    """A TLS context that trusts a certificate and offers protocols."""
    context = ssl.create_default_context(cafile=str(certificate.cert))
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
