"""Certificates by server name, certificates of clients, misdirected requests, resumption: with clients that we did not write."""

import base64
import json
import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from support import certificate as certificates
from support.authority import Authority
from support.process import until
from support.proxy import Upstream, run

# TLS alerts as QUIC codes (RFC 9001 section 4.8).
REVOKED, EXPIRED, UNKNOWN_CA, REQUIRED = 0x100 + 44, 0x100 + 45, 0x100 + 48, 0x100 + 116


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A certificate for each name."""

    def make(name):
        folder = tmp_path_factory.mktemp("named")
        return certificates.make(folder, names=(name,), addresses=())

    return {name: make(name) for name in ("a.test", "*.b.test", "closed.test", "maybe.test")}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "clients")


def entry(named, name, **keys):
    return {"server_name": name, "cert": str(named[name].cert), "key": str(named[name].key), **keys}


def unverified(name, **keys):
    """A client that asks for `name` and takes any certificate."""
    return {"server_name": name, "verify_mode": ssl.CERT_NONE, **keys}


def presented(client):
    return client.quic.tls._peer_certificate.public_bytes(serialization.Encoding.PEM)


async def fields_at_origin(client, path="/inspect", *fields, **options):
    stream = await client.get(path, *fields, ("x-do", "inspect"), **options)
    assert stream.status == 200, stream
    return {name: value for name, value in json.loads(bytes(stream.body))["fields"]}


async def test_the_server_name_chooses_the_certificate(start, h3, named, certificate):
    proxy = start(tls={"certificates": [entry(named, "a.test"), entry(named, "*.b.test")]})
    for name, expected in [
        ("a.test", named["a.test"]),
        ("A.TEST", named["a.test"]),
        ("x.b.test", named["*.b.test"]),
        ("b.test", certificate),
        ("x.y.b.test", certificate),
        ("localhost", certificate),
    ]:
        async with h3(proxy, **unverified(name)) as client:
            assert presented(client) == expected.cert.read_bytes(), name
            assert (await client.get("/bytes/1", authority=name)).status == 200


async def test_misdirected_requests(start, h3, origins, named, authority):
    on = {"enabled": True, "ca_file": str(authority.path)}
    proxy = start(
        Upstream("main", origins.address("main"), route={"path_prefix": "/bytes"}),
        tls={
            "certificates": [
                entry(named, "a.test"),
                # The same certificate under another policy is another identity.
                {**entry(named, "a.test"), "server_name": "closed.test", "client_auth": on},
            ]
        },
    )
    async with h3(proxy, **unverified("a.test")) as client:
        for host, status in [
            ("a.test", 200),
            ("A.test.:443", 200),
            ("closed.test", 421),
            ("localhost", 421),
            ("unknown.test", 421),
        ]:
            stream = await client.get("/bytes/1", authority=host)
            assert stream.status == status, (host, stream)
        # Decided before routing: no route takes this path.
        assert (await client.get("/none", authority="a.test")).status == 404
        assert (await client.get("/none", authority="localhost")).status == 421
    async with h3(proxy, **unverified("localhost")) as client:
        assert (await client.get("/bytes/1", authority="unknown.test")).status == 200
        assert (await client.get("/bytes/1", authority="closed.test")).status == 421
    async with h3(proxy, **unverified("closed.test", **authority.badge().shown())) as client:
        assert (await client.get("/bytes/1", authority="closed.test")).status == 200
        assert (await client.get("/bytes/1", authority="a.test")).status == 421
    assert proxy.total(r'^spooky_refusals_total.*reason="misdirected"') >= 5
    lines = until(lambda: [line for line in proxy.access() if line["status"] == 421], 10)
    assert all(line["reason"] == "misdirected" and "upstream" not in line for line in lines)


async def test_client_certificates_under_every_policy_with_every_switch(start, h3, named, authority, tmp_path):
    """The server name switches between contexts that ask clients for nothing, for a certificate they may have, and for one they
    must have. A library callback that one context has and another lacks would end the process here."""
    good, expired = authority.badge(), authority.badge(days=-1)
    strange = Authority(tmp_path, "strangers").badge()
    off = {"enabled": False}
    maybe = {"enabled": True, "require_client_cert": False, "ca_file": str(authority.path)}
    must = {"enabled": True, "ca_file": str(authority.path)}
    for own in (off, maybe, must):
        proxy = start(
            tls={
                "client_auth": own,
                "certificates": [
                    entry(named, "a.test", client_auth=off),
                    entry(named, "maybe.test", client_auth=maybe),
                    entry(named, "closed.test", client_auth=must),
                ],
            }
        )
        policies = {"a.test": off, "maybe.test": maybe, "closed.test": must, "localhost": own}
        for name, policy in policies.items():
            for badge, kind in [(None, "none"), (good, "good"), (strange, "strange"), (expired, "expired")]:
                code = {
                    ("none", True): REQUIRED if policy is must else None,
                    ("strange", True): UNKNOWN_CA,
                    ("expired", True): EXPIRED,
                }.get((kind, policy is not off))
                async with h3(proxy, **unverified(name, **(badge.shown() if badge else {}))) as client:
                    if code:
                        assert await client.closed() == code, (name, kind)
                    else:
                        assert (await client.get("/bytes/1", authority=name)).status == 200, (name, kind)
        failures = 'spooky_handshake_failures_total{worker="0",transport="quic",reason="client_certificate_%s"}'
        asking = sum(1 for policy in policies.values() if policy is not off)
        requiring = sum(1 for policy in policies.values() if policy is must)
        expected = {"missing": requiring, "unknown_authority": asking, "expired": asking}
        until(lambda p=proxy, e=expected: all(p.metrics()[failures % word] == n for word, n in e.items()), 10)
        assert proxy.child.alive(), proxy.child.log()


async def test_revoked_certificates(start, h3, authority):
    good, revoked = authority.badge(), authority.badge()
    lists = str(authority.revoke(revoked))
    proxy = start(tls={"client_auth": {"enabled": True, "ca_file": str(authority.path), "crl_file": lists}})
    async with h3(proxy, **unverified("localhost", **good.shown())) as client:
        assert (await client.get("/bytes/1")).status == 200
    async with h3(proxy, **unverified("localhost", **revoked.shown())) as client:
        assert await client.closed() == REVOKED
    until(lambda: proxy.total('reason="client_certificate_revoked"') == 1, 10)


async def test_certificates_are_told_to_backends_that_ask(start, h3, origins, authority):
    maybe = {"enabled": True, "require_client_cert": False, "ca_file": str(authority.path)}
    proxy = start(
        Upstream("off", origins.address("main")),
        Upstream("leaf", origins.address("main"), route={"path_prefix": "/leaf"}, client_cert_header="leaf"),
        Upstream("chain", origins.address("main"), route={"path_prefix": "/chain"}, client_cert_header="chain"),
        tls={"client_auth": maybe},
    )

    def sequence(der):
        return f":{base64.b64encode(der).decode()}:"

    badge = authority.badge()
    issuer = authority.certificate.public_bytes(serialization.Encoding.DER)
    lies = [("client-cert", ":bGllcw==:"), ("client-cert-chain", ":bGllcw==:"), ("client-cert-more", "x")]
    for shown, told in [(badge.shown(authority.certificate), sequence(badge.der)), ({}, None)]:
        async with h3(proxy, **unverified("localhost", **shown)) as client:
            for path, cert, chain in [
                ("/off", None, None),
                ("/leaf", told, None),
                ("/chain", told, told and sequence(issuer)),
            ]:
                for fields in ([], lies):
                    seen = await fields_at_origin(client, path, *fields)
                    assert seen.get("client-cert") == cert, path
                    assert seen.get("client-cert-chain") == chain, path
                    assert "client-cert-more" not in seen


async def test_a_session_is_resumed_and_not_under_another_name(start, h3, named):
    proxy = start(tls={"certificates": [entry(named, "a.test")]})
    async with h3(proxy, **unverified("a.test")) as client:
        assert (await client.get("/bytes/1", authority="a.test")).status == 200
        await client.until(lambda: client.tickets)
        ticket = client.tickets[0]
        # Early data is off.
        assert ticket.max_early_data_size is None
    async with h3(proxy, **unverified("a.test", session_ticket=ticket)) as client:
        assert client.quic.tls.session_resumed
        assert (await client.get("/bytes/1", authority="a.test")).status == 200
        assert (await client.get("/bytes/1", authority="localhost")).status == 421
        await client.until(lambda: client.tickets)
    async with h3(proxy, **unverified("localhost", session_ticket=ticket)) as client:
        assert not client.quic.tls.session_resumed
    lines = until(lambda: len(proxy.access()) >= 3 and proxy.access(), 10)
    told = [(line["server_name"], line["tls_resumed"], line["status"]) for line in lines]
    assert told == [("a.test", False, 200), ("a.test", True, 200), ("a.test", True, 421)]
    assert all(line["tls_cipher"].startswith("TLS_") and line["tls_group"] for line in lines)
    kinds = 'spooky_handshakes_total{worker="0",transport="quic",kind="%s"}'
    until(lambda: (proxy.metrics()[kinds % "full"], proxy.metrics()[kinds % "resumed"]) == (2, 1), 10)


async def test_a_first_flight_of_two_datagrams(start, h3):
    proxy = start()
    async with h3(proxy, quantum_readiness_test=True) as client:
        assert (await client.get("/bytes/1")).status == 200


def test_check_tells_what_is_wrong_with_certificates(tmp_path, certificate, named):
    path = tmp_path / "spooky.toml"
    other = named["a.test"]
    path.write_text(f"""version = 1
[listen]
port = 0
[listen.tls]
cert = "{certificate.cert}"
key = "{other.key}"
certificates = [
  {{ server_name = "a.test", cert = "{other.cert}", key = "{other.key}" }},
  {{ server_name = "A.test.", cert = "{other.cert}", key = "{other.key}" }},
  {{ server_name = "b.test", cert = "{other.cert}", key = "{other.key}" }},
]
[upstream.main]
route = {{ path_prefix = "/" }}
backends = [ {{ id = "b", address = "http://127.0.0.1:8080" }} ]
""")
    done = run("check", path)
    assert done.returncode == 78, done
    for place, words in [
        (f"{path}:6:7", "does not belong to the certificate"),
        (f"{path}:9:19", "two certificates are for `a.test`"),
        (f"{path}:10:36", "is not for `b.test`"),
    ]:
        assert place in done.stderr and words in done.stderr, done.stderr
