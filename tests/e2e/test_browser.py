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
