"""Backends over TLS: whom the configuration says to believe, what to show, and what a start tells of it."""

import contextlib
import http.server
import json
import ssl
import threading

import pytest
from support.authority import Authority
from support.process import until
from support.proxy import Upstream, plain_get, run


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        shown = self.connection.getpeercert() or {"subject": ()}
        client = [value for pairs in shown["subject"] for name, value in pairs if name == "commonName"]
        told = {"host": self.headers["host"], "client": client, "version": self.connection.version()}
        body = json.dumps({**told, "server_name": self.connection.asked}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Socket(ssl.SSLSocket):
    asked = None


def remember(connection, name, _):
    connection.asked = name


@contextlib.contextmanager
def backend(badge, clients=None):
    """The port of a server of HTTP/1.1 over TLS that tells what it saw; clients have to show what `clients` signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*badge.files())
    context.sslsocket_class = Socket
    context.sni_callback = remember
    if clients:
        context.load_verify_locations(clients.path)
        context.verify_mode = ssl.CERT_REQUIRED

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request, address):
            # In the connection's own thread, so that a client that refuses stops nobody else; its refusal is no news.
            with contextlib.suppress(OSError), context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, address)

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("theirs"), "theirs")


def routed(name, address, **keys):
    return Upstream(name, address, route={"path_prefix": f"/{name}"}, **keys)


def seen(proxy, path):
    status, body = plain_get(proxy.plain_url(path))
    assert status == 200, (path, status, body, proxy.child.log())
    return json.loads(body)


def refused(proxy, path):
    """A request whose backend is not believed."""
    status, _ = plain_get(proxy.plain_url(path))
    until(lambda: any(line["path"] == path for line in proxy.access()), 10)
    line = next(line for line in proxy.access() if line["path"] == path)
    assert (status, line["reason"]) == (502, "upstream_tls"), (line, proxy.child.log())


def test_each_upstream_believes_whom_it_names(start, ours, theirs, tmp_path):
    folder = tmp_path / "authorities"
    folder.mkdir()
    (folder / "theirs.pem").write_bytes(theirs.path.read_bytes())
    by_us = ours.server("localhost", addresses=("127.0.0.1",))
    by_them = theirs.server("localhost", addresses=("127.0.0.1",))
    with backend(by_us) as our_port, backend(by_them) as their_port:
        our, their = f"https://127.0.0.1:{our_port}", f"https://127.0.0.1:{their_port}"
        proxy = start(
            routed("default", our),
            routed("default-wrong", their),
            routed("folder", their, tls={"ca_dir": str(folder)}),
            routed("folder-only", our, tls={"ca_dir": str(folder)}),
            routed("both", our, tls={"ca_file": str(ours.path), "ca_dir": str(folder)}),
            routed("both-too", their, tls={"ca_file": str(ours.path), "ca_dir": str(folder)}),
            extra=f'[upstream_tls]\nca_file = "{ours.path}"\n',
            cleartext="serve",
        )
        for path in ("/default", "/folder", "/both", "/both-too"):
            # An address is what the certificate has to have, and no name that could be sent.
            assert seen(proxy, path)["server_name"] is None, path
        for path in ("/default-wrong", "/folder-only"):
            refused(proxy, path)
        assert "NOT verified" not in proxy.child.log()


def test_the_name_of_the_address_counts_unless_it_is_said_not_to(start, ours):
    other = ours.server("other.test")
    with backend(other) as port, backend(ours.server("localhost")) as right:
        proxy = start(
            routed("right", f"localhost:{right}", host_policy={"mode": "rewrite", "host": "app.test"}),
            routed("wrong", f"https://localhost:{port}"),
            routed("wrong-address", f"https://127.0.0.1:{port}"),
            routed("loose", f"https://localhost:{port}", tls={"strict_sni": False}),
            routed("any", f"https://127.0.0.1:{port}", tls={"verify_certificates": False}),
            extra=f'[upstream_tls]\nca_file = "{ours.path}"\n',
            cleartext="serve",
        )
        told = seen(proxy, "/right")
        # The field follows the policy; the certificate and the name in the handshake follow the address.
        assert (told["server_name"], told["host"], told["version"]) == ("localhost", "app.test", "TLSv1.3")
        assert seen(proxy, "/loose")["server_name"] == "localhost"
        seen(proxy, "/any")
        refused(proxy, "/wrong")
        refused(proxy, "/wrong-address")
        warnings = [line for line in proxy.child.log().splitlines() if "WARN" in line and "NOT verified" in line]
        # With an authority of one's own, names are one's own affair: only what verifies nothing is told.
        assert len(warnings) == 1, warnings
        assert 'upstreams="any"' in warnings[0], warnings


def test_backends_that_ask_see_the_certificate_of_their_upstream(start, ours):
    (cert, key), (other_cert, other_key) = ours.badge("proxy").files(), ours.badge("another").files()
    server = ours.server("localhost", addresses=("127.0.0.1",))
    with backend(server, clients=ours) as asking, backend(server) as silent:
        proxy = start(
            routed("usual", f"https://127.0.0.1:{asking}"),
            routed(
                "own",
                f"https://127.0.0.1:{asking}",
                tls={"client_cert": str(other_cert), "client_key": str(other_key)},
            ),
            routed("unasked", f"https://127.0.0.1:{silent}"),
            extra=f'[upstream_tls]\nca_file = "{ours.path}"\nclient_cert = "{cert}"\nclient_key = "{key}"\n',
            cleartext="serve",
        )
        assert seen(proxy, "/usual")["client"] == ["proxy"]
        assert seen(proxy, "/own")["client"] == ["another"]
        assert seen(proxy, "/unasked")["client"] == []


def test_a_start_is_refused_with_file_and_place(tmp_path, certificate, ours):
    key = ours.badge("another").files()[1]
    cert = ours.badge("proxy").files()[0]

    def check(tls):
        path = tmp_path / "refused.toml"
        path.write_text(
            f'version = 1\n[listen]\ntls = {{ cert = "{certificate.cert}", key = "{certificate.key}" }}\n'
            f'[upstream.app]\nroute = {{}}\nbackends = [{{ id = "a", address = "https://127.0.0.1:1" }}]\n{tls}\n'
        )
        for arguments in (("check", path), ("-c", path)):
            done = run(*arguments)
            assert done.returncode == 78, done
            yield done.stderr

    for told in check(f'tls = {{ ca_file = "{tmp_path}/gone.pem" }}'):
        assert f"cannot read {tmp_path}/gone.pem: No such file" in told, told
        assert "refused.toml:7:19" in told, told
    for told in check(f'tls = {{ ca_file = "{ours.path}", client_cert = "{cert}", client_key = "{key}" }}'):
        assert "this private key does not belong to the certificate" in told, told
    for told in check(f'tls = {{ ca_file = "{ours.path}", client_cert = "{cert}" }}'):
        assert "`client_cert` needs `client_key`" in told, told
