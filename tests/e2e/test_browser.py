"""Headless Chromium over HTTP/3: its page fetches bodies, uploads, listens to events, and reports the protocol it used."""

from support import content
from support.browser import Chromium


def test_page_in_chromium(proxy, origins, tmp_path):
    with Chromium(tmp_path, proxy, "/page") as browser:
        try:
            report = origins.record("page", until="report", seconds=90)["report"]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{browser.child.log()}") from error
    assert report["errors"] == []
    assert report["protocols"] and set(report["protocols"]) == {"h3"}
    assert report["hashes"] == {str(n): content.sha256(n) for n in (1, 13_000, 14_000, 1 << 20, 100 << 20)}
    assert report["parallel"] == [content.sha256(1000 + index) for index in range(100)]
    assert report["posted"]["length"] == 1 << 20
    assert report["posted"]["sha256"] == report["posted"]["expected"]
    assert report["events"] == ["event 0", "event 1", "event 2"]


def test_chromium_upgrades_itself_to_http3(proxy, origins, tmp_path, tag):
    """It comes by HTTP/2, reads Alt-Svc, and goes on by HTTP/3: nobody told it to."""
    asked = f"/visit?tag={tag}&sizes=1000,13000&pause=2000"
    with Chromium(tmp_path, proxy, asked, force=False) as browser:
        try:
            report = origins.record(tag, until="report", seconds=60)["report"]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{browser.child.log()}") from error
    assert report["errors"] == [], report
    assert report["protocols"][0] == "h2", report
    assert report["protocols"][-1] == "h3", report
    assert report["again"] == {str(size): content.sha256(size) for size in (1000, 13_000)}
