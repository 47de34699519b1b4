"""Free ports, and a port that answers nothing."""

import collections
import contextlib
import socket

# What was given lately: until it is bound, the kernel may name a port again.
_given = collections.deque(maxlen=100)


def bracketed(address):
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def free(kind=socket.SOCK_STREAM):
    """A port nobody listens on now, and none of those given lately."""
    while True:
        with socket.socket(type=kind) as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port not in _given:
            _given.append(port)
            return port


def free_both():
    """A port free for UDP and TCP alike."""
    for _ in range(100):
        port = free(socket.SOCK_DGRAM)
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free for both UDP and TCP")


@contextlib.contextmanager
def black_hole():
    """A TCP port whose accept queue is full: the kernel drops further SYNs, so a connect neither succeeds nor fails."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]
