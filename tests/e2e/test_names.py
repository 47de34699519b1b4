"""Backends by name: what DNS says is where requests go, and what it stops saying is kept."""

import contextlib
import socket
import threading

import pytest
from support.curl import fetch
from support.dns import NXDOMAIN, SERVFAIL, SILENT, Dns
from support.landmarks import has_ipv6, landmarks
from support.ports import free
from support.process import until
from support.proxy import Upstream, run

ONE, TWO, THREE = "127.0.0.11", "127.0.0.12", "127.0.0.13"


@pytest.fixture
def dns():
    with Dns() as server:
        yield server


def port_of(places):
    return next(iter(places.values())).server_address[1]


def by_name(port, name="app.test", **keys):
    return Upstream("main", f"http://{name}:{port}", **keys)


def body(proxy, path="/", **options):
    response = fetch(proxy, path, timeout=10, **options)
    assert (response.status, response.error) == (200, None), (response, proxy.child.log())
    return response.body.decode()


class Load:
    """Clients that ask without a pause until they are stopped; every answer is kept."""

    def __init__(self, proxy, clients=3):
        self.proxy, self.over, self.answers, self.failed = proxy, threading.Event(), [], []
        self.threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(clients)]

    def ask(self):
        while not self.over.is_set():
            response = fetch(self.proxy, "/", timeout=20)
            good = response.status == 200 and response.error is None
            (self.answers if good else self.failed).append(response.body.decode() if good else response)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        for thread in self.threads:
            thread.join(30)

    def reaches(self, address):
        count = len(self.answers)
        until(lambda: address in self.answers[count:], 20)


def test_a_name_is_resolved_before_ready_and_keeps_its_host(start, dns):
    with landmarks(ONE) as places:
        dns.set("app.test", ONE)
        port = port_of(places)
        proxy = start(by_name(port, host_policy={"mode": "upstream"}), extra=dns.toml())
        assert dns.questions(name="app.test") >= 2, "ready before it was asked"
        assert body(proxy) == ONE
        assert places[ONE].hosts == [f"app.test:{port}"]
        entry = until(proxy.access, 5)[0]
        assert entry["backend_address"] == f"http://app.test:{port}", entry
        assert proxy.total(r'^spooky_resolver_names.*"fresh"') == 1


def test_an_answer_that_changes_under_load_fails_no_request(start, dns):
    with landmarks(ONE, TWO, THREE) as places:
        dns.set("app.test", ONE)
        proxy = start(by_name(port_of(places)), extra=dns.toml(), performance={"worker_threads": 2})
        with Load(proxy) as load:
            load.reaches(ONE)
            for address, gone in ((TWO, ONE), (THREE, TWO), (ONE, THREE)):
                dns.set("app.test", address)
                load.reaches(address)
                # Connections to the one that is gone are closed, not kept.
                until(lambda gone=gone: places[gone].open == 0, 10)
        assert not load.failed, load.failed[:3]
        assert {ONE, TWO, THREE} <= set(load.answers)
        assert proxy.total(r"^spooky_resolver_changes_total") == 3
        assert proxy.total(r'^spooky_backend_closes_total.*"endpoint_gone"') >= 3


def test_a_running_exchange_finishes_where_it_is(start, dns):
    with landmarks(ONE, TWO) as places:
        dns.set("app.test", ONE)
        proxy = start(by_name(port_of(places)), extra=dns.toml(), performance={"backend_timeout": "20s"})
        places[ONE].gate.clear()
        answers = []
        held = threading.Thread(target=lambda: answers.append(body(proxy)))
        held.start()
        until(lambda: places[ONE].hosts, 10)
        dns.set("app.test", TWO)
        until(lambda: proxy.total(r"^spooky_resolver_changes_total") == 1, 10)
        assert body(proxy) == TWO
        places[ONE].gate.set()
        held.join(20)
        assert answers == [ONE]
        until(lambda: places[ONE].open == 0, 10)


@pytest.mark.parametrize("failure", [NXDOMAIN, SERVFAIL, SILENT], ids=["nxdomain", "servfail", "silent"])
def test_a_name_that_stops_resolving_keeps_its_last_answer(start, dns, failure):
    with landmarks(ONE) as places:
        dns.set("app.test", ONE)
        proxy = start(by_name(port_of(places)), extra=dns.toml(timeout="200ms"))
        assert body(proxy) == ONE
        dns.set("app.test", failure=failure)
        until(lambda: proxy.total(r'^spooky_resolver_names.*"kept"') == 1, 20)
        before = dns.questions()
        assert body(proxy) == ONE
        until(lambda: dns.questions() > before, 20)
        assert body(proxy) == ONE
        log = proxy.child.log()
        assert log.count("the last answer is kept") == 1, log
        dns.set("app.test", ONE)
        until(lambda: proxy.total(r'^spooky_resolver_names.*"fresh"') == 1, 60)
        assert "resolves again" in proxy.child.log()


@pytest.mark.parametrize(
    ("failure", "status", "error", "cause"),
    [(NXDOMAIN, 502, "dns_error", "no_such_name"), (SERVFAIL, 502, "dns_error", "server_failure"),
     (SILENT, 504, "dns_timeout", "timeout")],
    ids=["nxdomain", "servfail", "silent"],
)  # fmt: skip
def test_a_name_that_never_resolved_is_told_to_clients_until_it_does(start, dns, failure, status, error, cause):
    with landmarks(ONE) as places:
        dns.set("app.test", failure=failure)
        proxy = start(by_name(port_of(places)), extra=dns.toml(timeout="200ms"))
        response = fetch(proxy, "/", timeout=10)
        assert response.status == status, response
        assert error in response.get("proxy-status", ""), response.fields
        assert '"names_unresolved":1' in proxy.control("/ready")[1].replace(" ", "")
        assert proxy.total(rf'^spooky_refusals_total.*"{error}"') == 1
        assert proxy.total(rf'^spooky_resolver_resolutions_total.*"{cause}"') >= 1
        assert f'cause="{cause}"' in proxy.child.log()
        dns.set("app.test", ONE)
        until(lambda: fetch(proxy, "/", timeout=10).status == 200, 60)
        assert '"names_unresolved":0' in proxy.control("/ready")[1].replace(" ", "")


def test_the_start_does_not_wait_for_ever(start, dns):
    dns.set("app.test", failure=SILENT)
    with landmarks(ONE) as places:
        there = Upstream("there", f"http://{ONE}:{port_of(places)}", route={"path_prefix": "/there"})
        # Twice ten seconds for one answer; the start waits for a tenth of a second.
        proxy = start(by_name(port_of(places)), there, extra=dns.toml(timeout="10s", start_timeout="100ms"))
        assert body(proxy, "/there") == ONE
        assert fetch(proxy, "/", timeout=10).status == 504


def test_an_unresolved_backend_leaves_the_others_to_serve(start, dns):
    with landmarks(ONE) as places:
        port = port_of(places)
        proxy = start(Upstream("main", f"http://gone.test:{port}", f"http://{ONE}:{port}"), extra=dns.toml())
        assert [body(proxy) for _ in range(4)] == [ONE] * 4


def test_aliases_are_followed(start, dns):
    with landmarks(ONE) as places:
        dns.set("app.test", ("cname", "www.test"), ("cname", "edge.test"), ONE)
        proxy = start(by_name(port_of(places)), extra=dns.toml())
        assert body(proxy) == ONE


def test_a_truncated_answer_is_asked_for_over_tcp(start, dns):
    with landmarks(ONE) as places:
        dns.truncate = True
        dns.set("app.test", ONE)
        proxy = start(by_name(port_of(places)), extra=dns.toml())
        assert body(proxy) == ONE
        assert dns.questions("tcp") >= 2
        assert proxy.total(r'^spooky_resolver_questions_total.*"tcp"') >= 2


def test_forged_answers_are_not_believed(start, dns):
    with landmarks(ONE, TWO) as places:
        dns.set("app.test", ONE)
        dns.forge = TWO
        proxy = start(by_name(port_of(places)), extra=dns.toml())
        assert {body(proxy) for _ in range(5)} == {ONE}
        assert proxy.total(r"^spooky_resolver_answers_ignored_total") >= 1
        peers = {seen[3] for seen in dns.asked if seen[0] == "udp"}
        assert len(peers) == dns.questions("udp"), "a port was used twice"


def test_requests_are_spread_over_the_addresses(start, dns):
    with landmarks(ONE, TWO, THREE) as places:
        dns.set("app.test", ONE, TWO, THREE)
        # Without a pool, each request makes a connection.
        performance = {"pool_idle_connections_per_worker": 0}
        proxy = start(by_name(port_of(places)), extra=dns.toml(), performance=performance)
        answers = [body(proxy) for _ in range(9)]
        assert sorted(answers) == sorted([ONE, TWO, THREE] * 3), answers


def test_an_address_that_refuses_is_passed_over_at_once(start, dns):
    with landmarks(ONE) as places:
        dns.set("app.test", TWO, ONE, THREE)
        performance = {"pool_idle_connections_per_worker": 0}
        proxy = start(by_name(port_of(places)), extra=dns.toml(), performance=performance)
        assert [body(proxy) for _ in range(6)] == [ONE] * 6
        # Within one attempt: no other backend was tried, and none failed.
        assert proxy.total(r"^spooky_backend_retries_total") == 0
        assert proxy.total(r'^spooky_backend_connect_failures_total.*"refused"') >= 1


def test_all_addresses_refuse(start, dns):
    dns.set("app.test", ONE, TWO)
    proxy = start(by_name(free()), extra=dns.toml())
    response = fetch(proxy, "/", timeout=10)
    assert response.status == 502 and "connection_refused" in response.get("proxy-status", ""), response
    assert proxy.total(r'^spooky_backend_connect_failures_total.*"refused"') == 2


@contextlib.contextmanager
def silent(address, port):
    """An address that neither accepts nor refuses: its accept queue is full, so the kernel drops further SYNs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket(listener.family))
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname()[:2])
        yield


def test_a_silent_first_address_costs_a_quarter_of_a_second_and_then_nothing(start, dns):
    with landmarks(ONE) as places, silent(TWO, port_of(places)):
        dns.set("app.test", TWO, ONE)
        performance = {"pool_idle_connections_per_worker": 0, "backend_connect_timeout": "20s"}
        proxy = start(by_name(port_of(places)), extra=dns.toml(), performance=performance)
        assert [body(proxy) for _ in range(5)] == [ONE] * 5
        # Raced once; from then on the one that accepts goes first.
        assert proxy.total(r'^spooky_backend_closes_total.*"race_lost"') == 1
        assert proxy.total(r"^spooky_backend_connects_total") == 6


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6_goes_first_and_ipv4_takes_over_where_it_is_silent(start, dns):
    with landmarks("127.0.0.1", "::1") as places:
        dns.set("app.test", "127.0.0.1", "::1")
        proxy = start(by_name(port_of(places)), extra=dns.toml())
        assert body(proxy) == "::1"
    with landmarks("127.0.0.1") as places, silent("::1", port_of(places)):
        proxy = start(by_name(port_of(places)), extra=dns.toml(), performance={"backend_connect_timeout": "20s"})
        assert body(proxy) == "127.0.0.1"
        assert proxy.total(r'^spooky_backend_closes_total.*"race_lost"') == 1


def test_a_race_stays_within_the_connect_timeout(start, dns):
    with landmarks(ONE) as places, silent(TWO, port_of(places)), silent(THREE, port_of(places)):
        dns.set("app.test", TWO, THREE)
        proxy = start(by_name(port_of(places)), extra=dns.toml(), performance={"backend_connect_timeout": "600ms"})
        response = fetch(proxy, "/", timeout=10)
        assert response.status == 504 and "connection_timeout" in response.get("proxy-status", ""), response
        assert proxy.total(r"^spooky_backend_connects_total") == 2
        until(lambda: proxy.total(r"^spooky_backend_connections_active") == 0, 5)


def test_check_asks_nobody(start, dns, tmp_path, certificate):
    path = tmp_path / "check.toml"
    path.write_text(
        f'version = 1\n[listen]\ntls = {{ cert = "{certificate.cert}", key = "{certificate.key}" }}\n'
        f'[upstream.main]\nroute = {{ path_prefix = "/" }}\nbackends = [{{ id = "a", address = "http://app.test:80" }}]\n'
        + dns.toml()
    )
    checked = run("check", "-c", path)
    assert checked.returncode == 0, checked
    assert dns.questions() == 0
