"""A small backend in the test's own loop, for behaviour that `support.origin` has no word for."""

import asyncio


class Backend:
    """Serves each connection by `serve`, which a subclass has, while it is entered."""

    scheme = "http"

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        self.server.close()

    @property
    def address(self):
        return f"{self.scheme}://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"


async def read_request(reader):
    """Reads a whole request of HTTP/1.1, its body too; says its method."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    fields = head.lower().split("\r\n")
    length = next((int(line[15:]) for line in fields if line.startswith("content-length:")), 0)
    await reader.readexactly(length)
    if "transfer-encoding: chunked" in fields:
        await reader.readuntil(b"0\r\n\r\n")
    return head.split(" ", 1)[0]
