"""The command line from outside: check, demo, versions, exit codes, and what goes to which stream."""

import re
import signal
import subprocess
import time

import pytest
from support.ports import free_both
from support.process import Child, until
from support.proxy import binary, run

GOOD = """\
version = 1

[listen]
address = "127.0.0.1"
port = {port}
tls = {{ cert = "{cert}", key = "{key}" }}

[upstream.default]
route = {{ path_prefix = "/" }}
backends = [ {{ id = "backend1", address = "http://127.0.0.1:8080" }} ]
"""

FIVE_MISTAKES = """\
version = 1

[listen]
prot = 9889
tls = {{ cert = "{cert}", key = "{key}" }}

[upstream.default]
route = {{ path_prefix = "api" }}
backends = [
    {{ id = "backend1", address = "http://127.0.0.1:99999" }},
    {{ id = "backend2", address = "http://127.0.0.1:8081", weight = 0 }},
]

[performance]
backend_timeout = "15 parsecs"
"""


@pytest.fixture
def written(tmp_path, certificate):
    def write(text, name="spooky.toml"):
        path = tmp_path / name
        path.write_text(text.format(cert=certificate.cert, key=certificate.key, port=free_both()))
        return path

    return write


@pytest.mark.parametrize("arguments", [["check"], ["check", "-c"], ["-t", "-c"]])
def test_check_of_a_good_file(written, arguments):
    done = run(*arguments, written(GOOD))
    assert done.returncode == 0, done
    # The worst case of the configured limits, for the operator's sums.
    assert re.search(r"\d+(\.\d+)?\s*[KMG]i?B", done.stdout + done.stderr), done


def test_check_names_every_mistake_with_its_position(written):
    path = written(FIVE_MISTAKES)
    done = run("check", path)
    assert done.returncode == 78, done
    positions = {tuple(map(int, at)) for at in re.findall(re.escape(path.name) + r":(\d+):(\d+)", done.stderr)}
    assert {line for line, _ in positions} >= {4, 8, 10, 11, 15}, done.stderr
    assert len(positions) >= 5, done.stderr
    assert "port" in done.stderr, "no suggestion for `prot`"
    assert done.stderr.count("^") >= 5, "the offending text is not underlined"
    assert (4, 1) in positions, "column of `prot`"


def test_check_of_nothing(tmp_path):
    done = run("check", tmp_path / "missing.toml")
    assert done.returncode in (1, 78) and "missing.toml" in done.stderr, done


def test_check_of_binary_nonsense(tmp_path):
    path = tmp_path / "nonsense.toml"
    path.write_bytes(bytes(range(256)) * 100)
    done = run("check", path)
    assert done.returncode == 78 and "panicked" not in done.stderr, done


def test_check_never_prints_a_key(tmp_path, certificate):
    path = tmp_path / "key.toml"
    path.write_text(GOOD.format(cert=certificate.key, key=certificate.cert, port=1))
    done = run("check", path)
    secret = certificate.key.read_text().splitlines()[1]
    assert done.returncode == 78 and secret not in done.stdout + done.stderr, done


def test_include(tmp_path, written):
    (tmp_path / "conf.d").mkdir()
    path = written('include = ["conf.d/*.toml"]\n' + GOOD)
    (tmp_path / "conf.d/a.toml").write_text(
        '[upstream.more]\nroute = { path_prefix = "/more" }\nbackends = [{ id = "m", address = "http://127.0.0.1:8081" }]\n'
    )
    assert run("check", path).returncode == 0
    (tmp_path / "conf.d/b.toml").write_text((tmp_path / "conf.d/a.toml").read_text())
    done = run("check", path)
    assert done.returncode == 78 and "a.toml" in done.stderr and "b.toml" in done.stderr, done


def test_a_backend_has_an_address_or_a_name_that_can_be_resolved(written):
    done = run("check", written(GOOD.replace("127.0.0.1:8080", "backend.test:8080")))
    assert done.returncode == 0, done
    for wrong in ("back_end.test:8080", "10.0.0:8080"):
        done = run("check", written(GOOD.replace("127.0.0.1:8080", wrong)))
        assert done.returncode == 78 and wrong in done.stderr, done


def test_bad_file_stops_the_start(written):
    done = run("-c", written(FIVE_MISTAKES))
    assert done.returncode == 78, done


def test_usage_errors():
    assert run("--no-such-option").returncode == 2
    assert run("no-such-command").returncode == 2


def test_version():
    short, long = run("--version"), run("--version", "--verbose")
    assert short.returncode == 0 and re.match(r"spooky \d+\.\d+\.\d+", short.stdout), short
    assert long.returncode == 0
    for word in ("quiche", "BoringSSL", "io_uring"):
        assert word.lower() in long.stdout.lower(), long.stdout


def test_port_in_use_is_named(written):
    path = written(GOOD)
    first = Child("first", [binary(), "-c", path], path.parent)
    try:
        time.sleep(1)
        assert first.alive(), first.log()
        done = run("-c", path, seconds=20)
        assert done.returncode == 1, done
        assert "in use" in done.stderr, done
    finally:
        first.stop()


def test_demo_once_serves_itself_a_request(tmp_path):
    done = run("demo", "--once", cwd=tmp_path)
    assert done.returncode == 0, done
    assert "h3" in (done.stdout + done.stderr).lower().replace("http/3", "h3"), done
    assert "https://" in done.stdout + done.stderr, done
    assert list(tmp_path.iterdir()) == [], "the demo leaves no files"


def test_demo_runs_until_told_to_stop(tmp_path):
    demo = Child("demo", [binary(), "demo"], tmp_path)
    try:
        until(lambda: "https://" in demo.log() or not demo.alive(), 20)
        assert demo.alive(), demo.log()
        demo.signal(signal.SIGTERM)
        assert demo.wait(20) == 0, demo.log()
    finally:
        demo.stop()


def test_data_and_diagnostics_go_to_their_streams(written):
    done = run("check", written(FIVE_MISTAKES))
    assert done.stdout == "" and done.stderr
    done = run("--version")
    assert done.stdout and done.stderr == ""


def test_closed_output_is_no_crash():
    done = subprocess.run(f"{binary()} --version --verbose | true", shell=True, capture_output=True, text=True, check=False, timeout=30)
    assert "panicked" not in done.stderr, done
