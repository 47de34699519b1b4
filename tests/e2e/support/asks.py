"""How requests are made on a client of any version that has `open` and `authority`."""

PATIENCE = 20


class Asks:
    """Requests in one call."""

    async def get(self, path, *fields, method="GET", seconds=PATIENCE, **options):
        return await self.open(method, path, *fields, **options).finish(seconds)

    async def post(self, path, body, *fields, trailers=(), method="POST", seconds=60, **options):
        stream = self.open(method, path, *fields, end=False, **options)
        stream.send(body, end=not trailers)
        if trailers:
            stream.send_trailers(*trailers)
        return await stream.finish(seconds)

    def pseudo(self, method="GET", path="/inspect", authority=None, scheme="https"):
        authority = self.authority if authority is None else authority
        return [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
