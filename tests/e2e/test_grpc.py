"""gRPC by its own library at both ends, through HTTP/2 and HTTP/3: every kind of call, errors without a body, deadlines."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from support.authority import Authority
from support.h3 import Client as H3
from support.proxy import Proxy, Upstream, quoted

OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


class Echo(grpc.GenericRpcHandler):
    """Messages are bare bytes."""

    def __init__(self):
        self.cancelled = threading.Event()

    def service(self, call):
        return {
            "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/test.Echo/Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "/test.Echo/Count": grpc.unary_stream_rpc_method_handler(self.count),
            "/test.Echo/Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "/test.Echo/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/test.Echo/Break": grpc.unary_stream_rpc_method_handler(self.break_off),
            "/test.Echo/Deadline": grpc.unary_unary_rpc_method_handler(self.deadline),
            "/test.Echo/Hang": grpc.unary_stream_rpc_method_handler(self.hang),
        }.get(call.method)

    def unary(self, request, context):
        context.set_trailing_metadata([("x-trailing", "yes"), ("x-bytes-bin", b"\0\xff")])
        return request

    def collect(self, requests, context):
        return b",".join(requests)

    def count(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number

    def chat(self, requests, context):
        for request in requests:
            yield request.upper()

    def fail(self, request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 100 % gone")

    def break_off(self, request, context):
        yield b"first"
        context.abort(grpc.StatusCode.DATA_LOSS, "broke")

    def deadline(self, request, context):
        return b"%f" % context.time_remaining()

    def hang(self, request, context):
        context.add_callback(self.cancelled.set)
        yield b"begun"
        self.cancelled.wait(30)


class Backend:
    def __init__(self, folder, certificate):
        self.echo = Echo()
        self.server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers([self.echo])
        authority = Authority(folder, "backends")
        cert, key = authority.server("localhost", addresses=["127.0.0.1"]).files()
        credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
        clear, secure = self.server.add_insecure_port("127.0.0.1:0"), self.server.add_secure_port("127.0.0.1:0", credentials)
        self.server.start()
        # One listener in clear and one above TLS; which of them is asked, the name tells.
        upstreams = [
            Upstream("h2c", f"h2c://127.0.0.1:{clear}"),
            Upstream("h2", f"https://127.0.0.1:{secure}", route={"host": "secure.origin.test"}),
        ]
        trust = f"[upstream_tls]\nca_file = {quoted(str(authority.path))}"
        self.proxy = Proxy(folder, certificate, upstreams, extra=trust)
        self.child = self.proxy.child


@pytest.fixture(scope="module")
def backend(tmp_path_factory, certificate):
    running = Backend(tmp_path_factory.mktemp("grpc"), certificate)
    yield running
    assert running.proxy.stop() == 0, running.child.log()
    running.server.stop(None)


@pytest.fixture(params=["h2c", "h2"])
def channel(request, backend, certificate):
    """The library's client: HTTP/2 above TLS to the proxy."""
    credentials = grpc.ssl_channel_credentials(certificate.cert.read_bytes())
    options = [*OPTIONS, ("grpc.default_authority", "secure.origin.test")] if request.param == "h2" else OPTIONS
    with grpc.secure_channel(f"localhost:{backend.proxy.port}", credentials, options) as channel:
        yield channel


def test_unary_call(channel):
    for size in (0, 1, 100_000, 4_000_000):
        answer, call = channel.unary_unary("/test.Echo/Unary").with_call(b"m" * size, timeout=20)
        assert answer == b"m" * size
        trailing = dict(call.trailing_metadata())
        assert (call.code(), trailing["x-trailing"], trailing["x-bytes-bin"]) == (grpc.StatusCode.OK, "yes", b"\0\xff")


def test_client_streams(channel):
    messages = [b"%d" % number for number in range(1000)]
    assert channel.stream_unary("/test.Echo/Collect")(iter(messages), timeout=20) == b",".join(messages)


def test_server_streams(channel):
    assert list(channel.unary_stream("/test.Echo/Count")(b"1000", timeout=20)) == [b"%d" % number for number in range(1000)]


def test_both_stream_in_turns(channel):
    """Each message waits for the answer to the one before: nothing on the way waits for more."""
    ready, said = threading.Semaphore(1), []

    def messages():
        for number in range(100):
            assert ready.acquire(timeout=10), "no answer came"
            yield b"message %d" % number

    for answer in channel.stream_stream("/test.Echo/Chat")(messages(), timeout=30):
        said.append(answer)
        ready.release()
    assert said == [b"MESSAGE %d" % number for number in range(100)]


def test_hundred_calls_at_once(channel):
    calls = [channel.unary_unary("/test.Echo/Unary").future(b"%d" % number, timeout=20) for number in range(100)]
    assert [call.result() for call in calls] == [b"%d" % number for number in range(100)]


def test_error_without_a_body(channel):
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/test.Echo/Fail")(b"", timeout=20)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing: 100 % gone")


def test_error_behind_messages(channel):
    call = channel.unary_stream("/test.Echo/Break")(b"", timeout=20)
    assert next(call) == b"first"
    with pytest.raises(grpc.RpcError) as raised:
        next(call)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.DATA_LOSS, "broke")


def test_deadline_is_passed_on(channel):
    left = float(channel.unary_unary("/test.Echo/Deadline")(b"", timeout=17))
    assert 0 < left <= 17


def test_cancelling_reaches_the_server(channel, backend):
    backend.echo.cancelled.clear()
    call = channel.unary_stream("/test.Echo/Hang")(b"", timeout=60)
    assert next(call) == b"begun"
    call.cancel()
    assert backend.echo.cancelled.wait(10), "the server was not told"


def test_method_that_is_not_there(channel):
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/test.Echo/None")(b"", timeout=20)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Over HTTP/3, whose library for gRPC does not exist in Python: aioquic, and frames by hand.


def framed(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


def messages_of(body):
    found, body = [], bytes(body)
    while body:
        length = int.from_bytes(body[1:5], "big")
        assert body[:1] == b"\0" and len(body) >= 5 + length, body
        found.append(body[5 : 5 + length])
        body = body[5 + length :]
    return found


FIELDS = ("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "17S")


@contextlib.asynccontextmanager
async def calling(backend, up):
    async with H3(backend.proxy) as client:
        name = {"authority": f"secure.origin.test:{backend.proxy.port}"} if up == "h2" else {}
        yield lambda method: client.open("POST", f"/test.Echo/{method}", *FIELDS, end=False, **name)


every_backend = pytest.mark.parametrize("up", ["h2c", "h2"])


@every_backend
async def test_calls_over_http3(backend, up):
    async with calling(backend, up) as call:
        for method, sent, expected in [
            ("Unary", [b"hello"], [b"hello"]),
            ("Unary", [b"m" * 1_000_000], [b"m" * 1_000_000]),
            ("Collect", [b"a", b"b", b"c"], [b"a,b,c"]),
            ("Count", [b"300"], [b"%d" % number for number in range(300)]),
        ]:
            stream = call(method)
            stream.send(b"".join(map(framed, sent)), end=True)
            await stream.finish()
            assert (stream.status, stream.ended, messages_of(stream.body)) == (200, True, expected), stream
            assert dict(stream.trailers)["grpc-status"] == "0", stream.trailers


@every_backend
async def test_both_stream_in_turns_over_http3(backend, up):
    async with calling(backend, up) as call:
        stream = call("Chat")
        for number in range(50):
            before = len(stream.body)
            stream.send(framed(b"message %d" % number))
            await stream.until(lambda before=before: len(stream.body) > before)
        stream.send(b"", end=True)
        await stream.finish()
        assert messages_of(stream.body) == [b"MESSAGE %d" % number for number in range(50)], stream
        assert dict(stream.trailers)["grpc-status"] == "0", stream.trailers


@every_backend
async def test_errors_and_deadlines_over_http3(backend, up):
    async with calling(backend, up) as call:
        stream = call("Fail")
        stream.send(framed(b""), end=True)
        await stream.finish()
        # All there is stands in the one head (trailers only).
        assert (stream.status, stream.ended, len(stream.body), stream.trailers) == (200, True, 0, None), stream
        assert (stream.get("grpc-status"), stream.get("grpc-message")) == ("5", "no such thing: 100 %25 gone"), stream.fields
        stream = call("Deadline")
        stream.send(framed(b""), end=True)
        await stream.finish()
        assert 0 < float(messages_of(stream.body)[0]) <= 17, stream


@every_backend
async def test_cancelling_over_http3_reaches_the_server(backend, up):
    backend.echo.cancelled.clear()
    async with calling(backend, up) as call:
        stream = call("Hang")
        stream.send(framed(b""), end=True)
        await stream.until(lambda: messages_of(stream.body) == [b"begun"])
        stream.abort()
        assert await asyncio.to_thread(backend.echo.cancelled.wait, 10), "the server was not told"
