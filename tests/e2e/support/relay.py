"""A UDP relay that loses datagrams by a seeded plan, in both directions, so that a failure can be run again. It can also carry
small datagrams only, and forget its clients' ports as a NAT does."""

import random
import select
import socket
import threading


class Relay:
    """Listens on `port`; each client address gets a socket of its own towards the proxy, so the proxy sees one peer per client."""

    def __init__(self, target, loss=0.0, seed=0, clients=None, payload_max=None):
        # With `clients`, later addresses than the first so many are not served: as behind a firewall with a memory.
        self.target, self.loss, self.seed, self.clients = target, loss, seed, clients
        # Larger datagrams vanish without a word. May change while datagrams pass: a route that became a tunnel.
        self.payload_max = payload_max
        self.random = {"up": random.Random(seed), "down": random.Random(seed + 1)}
        self.passed, self.dropped, self.too_large = 0, 0, 0
        self.rebinds, self.rebinds_wanted = 0, 0
        self.front = self.socket()
        self.front.bind(("127.0.0.1", 0))
        self.port = self.front.getsockname()[1]
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, name="relay", daemon=True)
        self.thread.start()

    @staticmethod
    def socket():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # The relay itself must not add losses of its own: room for what arrives while Python does something else.
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            s.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
        s.setblocking(False)
        return s

    def run(self):
        backs, clients = {}, {}
        while not self.ended.is_set():
            if self.rebinds < self.rebinds_wanted:
                # From now on every client comes from another port; what is on its way to the old one is lost.
                for s in backs.values():
                    s.close()
                backs, clients = {}, {}
                self.rebinds += 1
            ready, _, _ = select.select([self.front, *backs.values()], [], [], 0.2)
            for s in ready:
                for _ in range(64):
                    try:
                        data, sender = s.recvfrom(65_536)
                    except (BlockingIOError, ConnectionRefusedError):
                        break
                    if s is self.front:
                        if sender not in backs and len(backs) == self.clients:
                            self.dropped += 1
                            continue
                        if sender not in backs:
                            backs[sender] = self.socket()
                            backs[sender].connect(self.target)
                            clients[backs[sender]] = sender
                        self.forward("up", data, backs[sender].send)
                    else:
                        self.forward("down", data, lambda data, s=s: self.front.sendto(data, clients[s]))
        for s in (self.front, *backs.values()):
            s.close()

    def forward(self, direction, data, send):
        if self.payload_max and len(data) > self.payload_max:
            self.too_large += 1
            return
        if self.random[direction].random() < self.loss:
            self.dropped += 1
            return
        self.passed += 1
        try:
            send(data)
        except OSError:
            self.dropped += 1

    def rebind(self):
        """The NAT forgets: what comes next goes out from other ports."""
        self.rebinds_wanted += 1

    def stop(self):
        self.ended.set()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()

    def __str__(self):
        return (
            f"relay: seed {self.seed:#x}, loss {self.loss:.0%}, {self.passed} passed, {self.dropped} dropped, "
            f"{self.too_large} over {self.payload_max} bytes, {self.rebinds} rebinds"
        )
