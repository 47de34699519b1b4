"""`spooky explain`: prepared questions, and for each the real request, whose answer and log line have to say the same."""

import json
from dataclasses import dataclass, field

import pytest
from support import certificate as certificates
from support.curl import fetch
from support.ports import free
from support.process import until
from support.proxy import Proxy, Upstream, quoted, run

OVER_TLS = pytest.mark.parametrize("down", ["h1s", "h2", "h3"])


def route(name, action, match=None, **more):
    keys = {"name": name, "match": match or {}, "action": action, **more}
    return "\n".join(["[[routes]]", *(f"{key} = {quoted(value)}" for key, value in keys.items()), ""])


ROUTES = [
    route("exact", {"upstream": "one"}, {"host": "exact.origin.test", "path_prefix": "/api"}),
    route("wildcard", {"upstream": "two"}, {"host": "*.origin.test", "path_prefix": "/api"}),
    route("longer", {"upstream": "main", "rewrite": "/v2"}, {"path_prefix": "/api/longer"}),
    route(
        "beta",
        {"upstream": "two"},
        {"path_prefix": "/beta", "headers": [{"name": "x-beta", "exact": "hush-wanted"}]},
    ),
    route("posts", {"upstream": "one"}, {"host": "exact.origin.test", "path_prefix": "/posts", "method": ["POST", "PUT"]}),
    route("inside", {"upstream": "one"}, {"path_prefix": "/inside"}, clients={"allow": ["0.0.0.0/0"], "deny": ["127.0.0.0/8"]}),
    route("limited", {"upstream": "one"}, {"path_prefix": "/limited"}),
    route(
        "split",
        {"upstreams": [{"upstream": "one", "weight": 50}, {"upstream": "two", "weight": 50}], "sticky": "cookie:sid"},
        {"path_prefix": "/split"},
    ),
    route("moved", {"redirect": {"location": "https://new.example/", "keep_path": True}}, {"path_prefix": "/old"}),
    route("gone", {"respond": {"status": 410, "body": "gone"}}, {"path": "/gone"}),
    route("kept", {"upstream": "kept"}, {"path_prefix": "/kept"}),
    route("small", {"upstream": "one"}, {"path_prefix": "/small"}, limits={"max_request_body_bytes": "10B"}),
]
EXTRA = """
[resilience.protocol]
denied_path_prefixes = ["/admin"]
allowed_methods = ["GET", "POST", "PUT", "DELETE"]

[[rate_limits]]
name = "per-tenant"
key = "header:X-Tenant"
requests = 1
period = "1h"
routes = ["limited"]

"""


@pytest.fixture(scope="module")
def explained(tmp_path_factory, certificate, origins):
    """A proxy whose configuration has something of everything, and a certificate for another name."""
    folder = tmp_path_factory.mktemp("explain")
    (folder / "other").mkdir()
    other = certificates.make(folder / "other", ("other.test",))
    backends = [{"id": name, "address": origins.address(name)} for name in ("one", "two", "three")]
    upstreams = [
        Upstream("main", origins.address("main"), route={"path_prefix": "/only"}),
        Upstream("one", origins.address("one"), route=False),
        Upstream("two", origins.address("two"), route=False),
        Upstream("kept", *backends, route=False, load_balancing={"type": "consistent-hash", "key": "cookie:sid"}),
    ]
    tls = {"certificates": [{"server_name": "other.test", "cert": str(other.cert), "key": str(other.key)}]}
    running = Proxy(folder, certificate, upstreams, extra=EXTRA + "\n".join(ROUTES), tls=tls)
    yield running
    code = running.stop()
    assert code == 0, f"the proxy ended with {code}:\n{running.child.log()}"


@dataclass
class Question:
    """A request, and what has to be said of it: members of `decision`, routes with their `why_not`, the check that ends it."""

    name: str
    path: str
    decision: dict
    method: str = "GET"
    host: str = "localhost"
    fields: list = field(default_factory=list)
    body: bytes | None = None
    considered: dict = field(default_factory=dict)
    ended: str | None = None


QUESTIONS = [
    Question(
        "an exact host",
        "/api/longer/x",
        {"action": "forward", "route": "exact", "upstream": "one", "backend": "one-0"},
        host="exact.origin.test",
        considered={"exact": None, "wildcard": "less_specific", "longer": "less_specific", "beta": "path"},
    ),
    Question(
        "a wildcard",
        "//api/./x",
        {"action": "forward", "route": "wildcard", "upstream": "two", "backend": "two-0"},
        host="a.origin.test",
        considered={"exact": "host", "wildcard": None, "longer": "path"},
    ),
    Question(
        "a prefix that is rewritten",
        "/api/longer/x?q=1",
        {"action": "forward", "route": "longer", "upstream": "main", "backend": "main-0"},
        considered={"longer": None, "exact": "host", "wildcard": "host"},
    ),
    Question(
        "a matcher lost by its value",
        "/beta",
        {"action": "refuse", "status": 404, "reason": "no_route", "route": None},
        fields=[("x-beta", "hush-sent")],
        considered={"beta": "header", "main": "path"},
        ended="route",
    ),
    Question(
        "a method that no route takes",
        "/posts",
        {"action": "refuse", "status": 405, "reason": "method_not_allowed", "allow": "POST, PUT"},
        host="exact.origin.test",
        considered={"posts": "method"},
        ended="route",
    ),
    Question(
        "a method that nothing takes",
        "/posts",
        {"action": "refuse", "status": 405, "reason": "method_refused", "allow": "GET, POST, PUT, DELETE"},
        method="PATCH",
        ended="method",
    ),
    Question(
        "a denied path behind an escape",
        "/x/..%2f../%61dmin",
        {"action": "refuse", "status": 403, "reason": "path_denied", "proxy_status": "spooky; error=http_request_denied"},
        ended="denied_paths",
    ),
    Question(
        "a denied network",
        "/inside",
        {"action": "refuse", "status": 403, "reason": "address_denied", "route": "inside"},
        considered={"inside": None},
        ended="clients",
    ),
    Question(
        "a redirect",
        "/old/x",
        {"action": "redirect", "status": 308, "route": "moved", "location": "https://new.example/x", "upstream": None},
    ),
    Question("a fixed response", "/gone", {"action": "respond", "status": 410, "route": "gone", "upstream": None}),
    Question("no route", "/nothing", {"action": "refuse", "status": 404, "reason": "no_route"}, ended="route"),
    Question(
        "a name of another certificate",
        "/gone",
        {"action": "refuse", "status": 421, "reason": "misdirected", "proxy_status": "spooky; error=http_request_denied"},
        fields=[("host", "other.test")],
        ended="identity",
    ),
    Question("a broken escape", "/a%zz", {"action": "refuse", "status": 400, "reason": "target"}, ended="head"),
    Question(
        "a body that is too large",
        "/small",
        {"action": "refuse", "status": 413, "reason": "body_too_large"},
        method="POST",
        body=b"x" * 11,
        ended="body_size",
    ),
]


def explain(proxy, question, down, *more):
    """What `spooky explain` says of a question, plain and as an object."""
    fields = list(question.fields)
    if question.body is not None:
        fields.append(("content-length", str(len(question.body))))
    given = [part for name, value in fields for part in ("-H", f"{name}: {value}")]
    url = f"https://{question.host}:{proxy.port}{question.path}"
    command = ["explain", "-c", proxy.path, question.method, url, *given, "--protocol", down.rstrip("s"), *more]
    plain, answer = run(*command), run(*command, "--format", "json")
    assert (plain.returncode, answer.returncode) == (0, 0), (plain, answer)
    # Warnings of the configuration are diagnostics, not data.
    assert "warning: route" in plain.stderr and "warning" not in plain.stdout, plain
    assert "hush" not in plain.stdout + answer.stdout and answer.stdout.count("\n") == 1, plain
    return plain.stdout, json.loads(answer.stdout)


def explain_quiet(proxy, path, down):
    """What is said of a GET where nothing warns of the configuration."""
    done = run("explain", "-c", proxy.path, "GET", proxy.url(path), "--protocol", down.rstrip("s"))
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def ask(proxy, question, down):
    """The answer to the real request, and its line in the access log."""
    before = len(proxy.access())
    host = None if question.host == "localhost" else question.host
    response = fetch(
        proxy,
        question.path,
        version=down,
        method=question.method,
        host=host or "localhost",
        fields=question.fields,
        body=question.body,
    )
    line = until(lambda: proxy.access()[before:], 5)[0]
    return response, line


@OVER_TLS
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name.replace(" ", "-"))
def test_what_is_explained_is_what_happens(explained, question, down):
    plain, answer = explain(explained, question, down)
    decision = answer["decision"]
    assert {name: decision[name] for name in question.decision} == question.decision, plain
    why = {route["route"]: route["why_not"] for route in answer["considered"]}
    assert {name: why[name] for name in question.considered} == question.considered, plain
    refused = [check["check"] for check in answer["checks"] if check["outcome"] == "refused"]
    assert refused == ([question.ended] if question.ended else []), plain
    # People read the same.
    for word in ("action", "route", "upstream", "backend", "reason"):
        assert decision[word] is None or decision[word] in plain, (word, plain)
    if decision["route"]:
        assert f"route        {decision['route']} ({explained.path}:" in plain, plain

    response, line = ask(explained, question, down)
    assert line["protocol"] == down.rstrip("s")
    for word in ("route", "upstream", "reason"):
        assert line.get(word) == decision[word], (word, line, plain)
    if decision["backend"]:
        assert (line["backend"], line["path"]) == (decision["backend"], answer["ways"][0]["forwarded_path"]), line
    assert decision["status"] in (None, response.status) and line["status"] == response.status, (response, plain)
    if decision["action"] == "refuse":
        assert response.get("proxy-status") == decision["proxy_status"], response
    assert response.get("allow") == decision["allow"] and response.get("location") == decision["location"], response


@OVER_TLS
def test_a_rate_limit_is_named_with_its_key_and_the_real_one_runs_out(explained, down):
    question = Question("limited", "/limited", {}, fields=[("x-tenant", f"hush-{down}")])
    plain, answer = explain(explained, question, down)
    limits = next(check for check in answer["checks"] if check["check"] == "rate_limits")
    assert limits["outcome"] == "depends" and "`per-tenant`" in limits["detail"], plain
    assert "counts by the request's header:x-tenant" in limits["detail"], plain
    assert ask(explained, question, down)[0].status == 200
    response, line = ask(explained, question, down)
    assert (response.status, line["reason"], line["rate_limit"]) == (429, "rate_limited", "per-tenant")
    # Without the field it is the address.
    _, answer = explain(explained, Question("limited", "/limited", {}), down)
    limits = next(check for check in answer["checks"] if check["check"] == "rate_limits")
    assert "127.0.0.1/32, because the request has no header:x-tenant" in limits["detail"], limits


@OVER_TLS
@pytest.mark.parametrize("kind", ["split", "kept"])
def test_what_a_key_keeps_together_is_computed_as_it_is_served(explained, kind, down):
    """The way of a split, and the backend that a hash under the process's secret gives."""
    chosen = set()
    for number in range(8):
        question = Question(kind, f"/{kind}", {}, fields=[("cookie", f"a=b; sid=hush-{number}")])
        plain, answer = explain(explained, question, down)
        decision = answer["decision"]
        picked = [score["backend"] for score in decision["backend_scores"] if score["picked"]]
        assert picked == [decision["backend"]], plain
        _, line = ask(explained, question, down)
        assert (line["route"], line["upstream"], line["backend"]) == (kind, decision["upstream"], decision["backend"]), plain
        chosen.add((decision["upstream"], decision["backend"]))
    assert len(chosen) > 1
    # Without its key nobody can say.
    _, answer = explain(explained, Question(kind, f"/{kind}", {}), down)
    assert answer["decision"]["backend"] is None
    assert abs(sum(way["share"] for way in answer["ways"]) - 1) < 1e-9


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("full", 'spooky; error=destination_not_found; details="no_route"'), ("error", "spooky; error=destination_not_found"), ("off", None)],
)
def test_proxy_status_says_as_much_as_it_is_told_to(start, origins, mode, expected):
    upstream = Upstream("main", origins.address("main"), route={"path_prefix": "/only"})
    proxy = start(upstream, observability={"proxy_status": mode})
    question = Question("nothing", "/nothing", {})
    for down in ("h1s", "h2", "h3"):
        done = run("explain", "-c", proxy.path, "GET", proxy.url("/nothing"), "--protocol", down.rstrip("s"), "--format", "json")
        assert json.loads(done.stdout)["decision"]["proxy_status"] == expected, done
        response, line = ask(proxy, question, down)
        assert (response.status, response.get("proxy-status"), line["reason"]) == (404, expected, "no_route")


@OVER_TLS
def test_a_retry_leaves_in_the_log_what_it_was_for(start, origins, down):
    proxy = start(Upstream("main", {"id": "dead", "address": f"http://127.0.0.1:{free()}"}, {"id": "well", "address": origins.address("main")}))
    question = Question("retried", "/bytes/5", {})
    # In turn: one of two requests meets the dead one first.
    lines = [ask(proxy, question, down)[1] for _ in range(2)]
    assert [line["status"] for line in lines] == [200, 200] and {line["backend"] for line in lines} == {"well"}, lines
    assert sorted((line["attempts"], line.get("retried_for")) for line in lines) == [(1, None), (2, "connect_refused")], lines
    assert all("reason" not in line for line in lines)


@OVER_TLS
def test_who_was_passed_over_is_told_with_why(start, origins, down):
    backends = [{"id": "dead", "address": f"http://127.0.0.1:{free()}"}, {"id": "well", "address": origins.address("main")}]
    proxy = start(
        Upstream("main", *backends), extra='[resilience.circuit_breaker]\nfailures = 1\nopen_for = "10m"\n'
    )
    plain = explain_quiet(proxy, "/bytes/5", down)
    assert "opens after 1 failures in a row, for 600s" in plain and "outlier_ejection" in plain, plain
    question = Question("skipped", "/bytes/5", {})
    # In turn: the first two find out that one is dead, and then it is left out.
    lines = [ask(proxy, question, down)[1] for _ in range(4)]
    assert [line["status"] for line in lines] == [200] * 4, lines
    seen = [(line["attempts"], line.get("skipped")) for line in lines]
    assert (2, None) in seen[:2] or (2, "tried") in seen[:2], seen
    assert (1, "breaker_open") in seen[2:], seen


def test_exit_codes_and_streams(explained, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text(explained.path.read_text().replace("path_prefix", "path_prefixes", 1))
    done = run("explain", "-c", bad, "GET", "https://localhost/")
    assert (done.returncode, done.stdout) == (78, "") and "did you mean `path_prefix`" in done.stderr, done
    for arguments in (["GET"], ["GET", "gopher://localhost/"], ["GET", "https://localhost/", "-H", "hush"], ["GET", "http://localhost/"]):
        done = run("explain", "-c", explained.path, *arguments)
        assert (done.returncode, done.stdout) == (2, "") and "hush" not in done.stderr, done
    done = run("explain", "--help")
    assert done.returncode == 0 and "--from" in done.stdout and "Exit codes" in done.stdout
