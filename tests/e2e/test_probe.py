"""`spooky probe` against our own proxy, against aioquic, and against nothing at all."""

import hashlib
import json
import os
import socket

import pytest
from support import certificate as certificates
from support import content
from support.h3 import NO_ERROR
from support.h3server import server
from support.ports import free
from support.process import until
from support.proxy import run
from support.relay import Relay


def probe(url, *options, seconds=60, **keys):
    return run("probe", url, *options, seconds=seconds, **keys)


def facts(url, *options, code=0, **keys):
    """The JSON objects of a probe, one per request; of one request the object itself."""
    done = probe(url, *options, "--format", "json", **keys)
    assert done.returncode == code, done
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    return objects[0] if len(objects) == 1 else objects


@pytest.fixture(scope="module")
def aioquic(certificate):
    """A server that nobody here wrote: `aioquic(path)` is a URL, `aioquic.seen` what it received."""
    with server(certificate, resume=True) as (port, seen):

        def url(path):
            return f"https://localhost:{port}{path}"

        url.port, url.seen, url.ca = port, seen, ("--ca", certificate.cert, "-4")
        yield url


# Our own proxy.


def test_proxy_answers(proxy):
    ca = ("--ca", proxy.certificate.cert)
    told = facts(proxy.url("/bytes/5"), *ca)
    assert (told["status"], told["body_bytes"], told["error"]) == (200, 5, None)
    assert told["address"] == proxy.authority and told["method"] == "GET"
    quic, times = told["quic"], told["timings"]
    assert (quic["version"], quic["alpn"], quic["resumed"]) == (1, "h3", False)
    assert quic["cipher"].startswith("TLS_") and quic["group"] == "X25519MLKEM768"
    assert quic["rtt_ms"] > 0 and quic["packets_sent"] > 0 and quic["packets_received"] > 0
    # An address is not resolved.
    assert times["dns_ms"] is None
    assert 0 < times["handshake_ms"] < times["total_ms"] and times["first_byte_ms"] > 0
    shown = told["certificate"]
    assert shown["verified"] and shown["fault"] is None and "localhost" in shown["names"]
    assert shown["days_left"] in (9, 10) and len(shown["sha256"]) == 64


def test_text_is_for_people(proxy):
    done = probe(proxy.url("/bytes/5"), "--ca", proxy.certificate.cert)
    assert done.returncode == 0 and done.stderr == "", done
    assert done.stdout.startswith("HTTP/3 200\n")
    for word in ("timings", "handshake", "first byte", "quic", "RTT", "packets", "0 lost", "certificate", "verified"):
        assert word in done.stdout, done.stdout


def test_bodies_go_where_they_are_told(proxy, tmp_path):
    ca, path = ("--ca", proxy.certificate.cert), tmp_path / "body"
    done = probe(proxy.url("/bytes?n=2000000"), *ca, "-o", path)
    assert done.returncode == 0 and "HTTP/3 200" in done.stdout, done
    assert hashlib.sha256(path.read_bytes()).hexdigest() == content.sha256(2_000_000)
    done = run("probe", proxy.url("/inspect"), *ca, "-o", "-")
    # The body, and nothing else.
    assert done.returncode == 0 and isinstance(json.loads(done.stdout), dict), done
    assert "HTTP/3 200" in done.stderr and "timings" in done.stderr, done


def test_migration_on_our_proxy(proxy):
    told = facts(proxy.url("/bytes?n=3000000"), "--ca", proxy.certificate.cert, "--migrate")
    assert (told["status"], told["body_bytes"]) == (200, 3_000_000)
    moved = told["migration"]
    assert moved["validated"] and moved["from"] == told["local"] != moved["to"], moved


# aioquic.


def test_aioquic_answers(aioquic):
    told = facts(aioquic("/"), *aioquic.ca)
    assert (told["status"], told["body_bytes"]) == (200, 6)
    assert ["server", "aioquic"] in told["headers"]
    assert told["certificate"]["verified"] and told["timings"]["dns_ms"] > 0
    assert told["url"] == aioquic("/")
    # It says goodbye.
    assert until(lambda: aioquic.seen[-1].get("closed"), 20) == NO_ERROR


def test_the_environment_may_name_the_authorities(aioquic):
    environment = {**os.environ, "SSL_CERT_FILE": str(aioquic.ca[1])}
    assert facts(aioquic("/"), "-4", env=environment)["certificate"]["verified"]


def test_methods_fields_and_bodies(aioquic, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(content.body(500_000))
    told = facts(aioquic("/echo"), *aioquic.ca, "-d", f"@{body}", "-H", "X-Some: Thing", "-H", "host: other.test")
    request = aioquic.seen[-1]
    assert told["body_bytes"] == 500_000 and bytes(request["body"]) == body.read_bytes()
    assert request["fields"][":method"] == "POST" and request["fields"]["x-some"] == "Thing"
    assert request["fields"][":authority"] == "other.test" and "host" not in request["fields"]
    assert request["fields"]["content-length"] == "500000"
    told = facts(aioquic("/echo"), *aioquic.ca, "-X", "DELETE")
    assert ["x-method", "DELETE"] in told["headers"] and told["method"] == "DELETE"
    assert facts(aioquic("/"), *aioquic.ca, "-X", "HEAD")["status"] == 200


def test_secrets_are_not_shown(aioquic, tmp_path):
    fields = tmp_path / "fields"
    fields.write_text("Authorization: Bearer hush-hush\r\n\nx-two: 2\n")
    done = probe(aioquic("/status/401"), *aioquic.ca, "-H", f"@{fields}", "-H", "Cookie: hush-hush")
    assert aioquic.seen[-1]["fields"]["x-two"] == "2"
    assert aioquic.seen[-1]["fields"]["authorization"] == "Bearer hush-hush"
    assert done.returncode == 0 and "HTTP/3 401" in done.stdout and "hush" not in done.stdout + done.stderr, done


def test_an_early_answer_ends_an_upload(aioquic):
    told = facts(aioquic("/early"), *aioquic.ca, "-d", "x" * 100_000)
    assert told["status"] == 413


def test_trailers_redirects_and_informational_heads(aioquic):
    assert facts(aioquic("/trailers"), *aioquic.ca)["trailers"] == [["x-checksum", "abc"]]
    told = facts(aioquic("/redirect"), *aioquic.ca)
    assert told["status"] == 302 and ["location", "https://elsewhere.test/"] in told["headers"]
    told = facts(aioquic("/informational"), *aioquic.ca)
    assert told["status"] == 200
    assert told["informational"] == [{"status": 103, "headers": [["link", "</style.css>"]]}]


def test_fail_makes_statuses_failures(aioquic):
    assert facts(aioquic("/status/404"), *aioquic.ca)["status"] == 404
    assert facts(aioquic("/status/404"), *aioquic.ca, "--fail", code=22)["error"] is None
    assert facts(aioquic("/status/399"), *aioquic.ca, "--fail")["status"] == 399


def test_a_server_does_not_write_on_the_terminal(aioquic):
    done = probe(aioquic("/nasty"), *aioquic.ca)
    assert done.returncode == 0 and "\\u{fffd}" not in done.stdout, done
    assert "\x1b" not in done.stdout and "\x9b" not in done.stdout and "x-nasty: a" in done.stdout, done
    told = probe(aioquic("/nasty"), *aioquic.ca, "--format", "json").stdout
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in told.rstrip("\n")), told


def test_later_connections_resume(aioquic):
    told = facts(aioquic("/"), *aioquic.ca, "--repeat", "3")
    assert [one["request"] for one in told] == [1, 2, 3]
    assert [one["quic"]["resumed"] for one in told] == [False, True, True], told
    assert all(one["status"] == 200 and one["certificate"]["verified"] for one in told)
    assert len({one["local"] for one in told}) == 3, "a connection each"


def test_what_is_wrong_with_a_certificate_is_remembered_over_resumption(aioquic):
    told = facts(aioquic("/"), "-4", "--insecure", "--repeat", "2")
    assert [one["quic"]["resumed"] for one in told] == [False, True]
    for one in told:
        assert one["certificate"]["verified"] is False and one["certificate"]["fault"]["kind"] == "self_signed"


def test_migration_on_aioquic(aioquic):
    moved = facts(aioquic("/"), *aioquic.ca, "--migrate")["migration"]
    assert moved["validated"] and moved["from"] != moved["to"], moved


def test_a_path_that_leads_nowhere_is_told(proxy):
    relay = Relay(proxy.address, loss=0, seed=1, clients=1)
    try:
        told = facts(f"https://127.0.0.1:{relay.port}/bytes?n=1000", "--ca", proxy.certificate.cert, "--migrate", "--timeout", "50s")
    finally:
        relay.stop()
    assert (told["status"], told["body_bytes"]) == (200, 1000), "the request does not suffer"
    assert told["migration"]["validated"] is False and "PATH_CHALLENGE" in told["migration"]["reason"], told
    assert relay.dropped > 0


def test_lost_packets_are_told(proxy, tmp_path):
    body, ca = tmp_path / "body", ("--ca", proxy.certificate.cert)
    body.write_bytes(content.body(500_000))
    relay = Relay(proxy.address, loss=0.1, seed=3)
    try:
        told = facts(f"https://127.0.0.1:{relay.port}/inspect", *ca, "-d", f"@{body}", "--timeout", "50s")
    finally:
        relay.stop()
    assert told["status"] == 200 and told["quic"]["packets_lost"] > 0 and told["quic"]["packets_retransmitted"] > 0, told


def test_retry_is_told(certificate):
    with server(certificate, retry=True) as (port, _):
        told = facts(f"https://localhost:{port}/", "--ca", certificate.cert, "-4")
        assert told["status"] == 200 and told["quic"]["retry"] is True


def test_ipv6(certificate):
    with server(certificate, address="::1") as (port, _):
        told = facts(f"https://[::1]:{port}/", "--ca", certificate.cert)
        assert told["status"] == 200 and told["address"] == f"[::1]:{port}" and told["certificate"]["verified"]
        told = facts(f"https://localhost:{port}/", "--ca", certificate.cert, "--resolve", f"localhost:{port}:::1")
        assert told["status"] == 200 and told["timings"]["dns_ms"] is None


def test_the_next_address_is_tried(certificate):
    with server(certificate) as (port, _):
        where = [item for address in ("::1", "127.0.0.1") for item in ("--resolve", f"localhost:{port}:{address}")]
        done = probe(f"https://localhost:{port}/", "--ca", certificate.cert, *where, "--format", "json")
        assert done.returncode == 0 and json.loads(done.stdout)["address"] == f"127.0.0.1:{port}", done
        assert f"[::1]:{port}" in done.stderr and "next address" in done.stderr


# Certificates.


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("expired", {"days": (-9, -2)}),
        ("not_yet_valid", {"days": (2, 9)}),
        ("wrong_host", {"names": ("elsewhere.test",), "addresses": ()}),
    ],
)
def test_bad_certificates_say_why(tmp_path, kind, made):
    bad = certificates.make(tmp_path, **made)
    with server(bad) as (port, seen):
        url = f"https://localhost:{port}/"
        told = facts(url, "--ca", bad.cert, "-4", code=60)
        assert told["error"]["kind"] == "certificate" and told["status"] is None
        assert told["certificate"]["fault"]["kind"] == kind and not told["certificate"]["verified"], told
        done = probe(url, "--ca", bad.cert, "-4")
        assert done.returncode == 60 and "--insecure" in done.stderr and url in done.stderr, done
        assert seen == [], "nothing is asked before the certificate is good"
        told = facts(url, "--ca", bad.cert, "-4", "--insecure")
        assert told["status"] == 200 and told["certificate"]["fault"]["kind"] == kind


def test_names_of_the_wrong_host_are_listed(tmp_path):
    bad = certificates.make(tmp_path, names=("elsewhere.test", "*.else.test"), addresses=("192.0.2.7",))
    with server(bad) as (port, _):
        done = probe(f"https://localhost:{port}/", "--ca", bad.cert, "-4")
        assert "elsewhere.test, *.else.test, 192.0.2.7" in done.stderr, done
        # An address is held against the certificate's addresses, not its names.
        told = facts(f"https://127.0.0.1:{port}/", "--ca", bad.cert, code=60)
        assert told["certificate"]["fault"]["kind"] == "wrong_host"
        told = facts(
            f"https://a.else.test:{port}/", "--ca", bad.cert, "--resolve", f"a.else.test:{port}:127.0.0.1"
        )
        assert told["certificate"]["verified"]


def test_strangers_certificates_are_refused(aioquic):
    done = probe(aioquic("/"), "-4")
    assert done.returncode == 60 and "signed by itself" in done.stderr and "--ca FILE" in done.stderr, done


# What goes wrong.


def test_nothing_listens(certificate):
    told = facts(f"https://127.0.0.1:{free(socket.SOCK_DGRAM)}/", "--timeout", "50s", code=7, seconds=40)
    # At once, not after the timeout.
    assert told["error"]["kind"] == "refused" and told["timings"]["total_ms"] < 20_000
    assert told["status"] is None and told["certificate"] is None


def test_silence_is_a_timeout():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        told = facts(f"https://127.0.0.1:{port}/", "--timeout", "700ms", code=28)
        assert told["error"]["kind"] == "timeout" and told["timings"]["total_ms"] >= 700
        assert told["quic"]["packets_received"] == 0 and told["quic"]["packets_sent"] > 0
        done = probe(f"https://127.0.0.1:{port}/", "--timeout", "300ms")
        assert "firewall" in done.stderr and f"UDP port {port}" in done.stderr, done


def test_no_name():
    told = facts("https://no-such-name.invalid/", code=6)
    assert told["error"]["kind"] == "dns" and told["address"] is None
    assert probe("https://localhost:1/", "-6", "--resolve", "localhost:1:127.0.0.1").returncode == 6


@pytest.mark.parametrize(
    ("path", "code", "kind", "words"),
    [
        ("/reset", 1, "stream_reset", "H3_REQUEST_REJECTED"),
        ("/cut", 1, "stream_reset", "H3_INTERNAL_ERROR"),
        ("/close", 1, "closed", 'H3_EXCESSIVE_LOAD, "enough"'),
        ("/goaway", 1, "goaway", "going away"),
        ("/forget", 1, "stateless_reset", "does not know the connection"),
        ("/stall", 28, "timeout", "did not end in time"),
        ("/silence", 28, "timeout", "no response in time"),
        ("/bytes/70000", 63, "too_large", "65536 bytes"),
        ("/heads/33/10", 1, "protocol", "too many informational heads"),
        ("/heads/30/10000", 1, "protocol", "too many fields"),
        ("/many/300", 1, "protocol", "larger than the permitted 256 KiB"),
    ],
)
def test_servers_that_do_not_answer_well(aioquic, path, code, kind, words):
    options = (*aioquic.ca, "--timeout", "1s" if code == 28 else "50s", "--max-body", "64KiB")
    told = facts(aioquic(path), *options, code=code)
    assert told["error"]["kind"] == kind and words in told["error"]["message"], told
    assert told["quic"]["alpn"] == "h3", "the facts of the connection are told all the same"


def test_other_versions_of_quic(certificate):
    with server(certificate, supported_versions=[0x6B3343CF]) as (port, _):
        told = facts(f"https://127.0.0.1:{port}/", code=35)
        assert told["error"]["kind"] == "version" and "0x6b3343cf" in told["error"]["message"], told


def test_no_http3_there(certificate):
    with server(certificate, alpn_protocols=["other"]) as (port, _):
        told = facts(f"https://127.0.0.1:{port}/", "--insecure", code=35)
        assert told["error"]["kind"] == "handshake", told


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["http://localhost/"],
        ["https://user:hush-hush@localhost/"],
        ["https://localhost/", "--repeat", "0"],
        ["https://localhost/", "--timeout", "10"],
        ["https://localhost/", "-H", "no colon hush-hush"],
        ["https://localhost/", "-H", "connection: hush-hush"],
        ["https://localhost/", "--ca", "/no/such/file"],
        ["https://localhost/", "-d", "@/no/such/file"],
        ["https://localhost/", "-4", "-6"],
    ],
)
def test_usage_errors(arguments):
    done = run("probe", *arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr, done
    assert "hush" not in done.stderr, done


def test_output_that_cannot_be_written(aioquic, tmp_path):
    assert probe(aioquic("/"), *aioquic.ca, "-o", tmp_path / "no" / "folder").returncode == 23
    told = facts(aioquic("/bytes/5"), *aioquic.ca, "-o", "/dev/full", code=23)
    assert told["error"]["kind"] == "output"
