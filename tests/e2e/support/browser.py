"""Headless Chromium, told to speak QUIC to the proxy at once, or left to find out by Alt-Svc, and to trust its key."""

import re
import shutil

from .ports import bracketed
from .process import Child
from .proxy import tool


class Chromium:
    """One run of the browser on a page; the page reports through the origin, so nothing here waits for a render."""

    def __init__(self, folder, proxy, path, port=None, address=None, netlog=False, more=(), force=True):
        more, host = list(more), address or proxy.host
        if ":" in host:
            # Chromium cannot be forced to QUIC on the literal of an IPv6 address, but on a name that leads there.
            more.append(f"--host-resolver-rules=MAP six.origin.test {bracketed(host)}")
            host = "six.origin.test"
        address = f"{host}:{port or proxy.port}"
        # Over QUIC Chromium believes no authority of a test's own but on hosts for which it is forced: of another port, then.
        forced = address if force else f"{host}:1"
        self.netlog = folder / "netlog.json"
        if netlog:
            more.append(f"--log-net-log={self.netlog}")
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            f"--user-data-dir={folder / 'profile'}",
            "--enable-quic",
            f"--origin-to-force-quic-on={forced}",
            f"--ignore-certificate-errors-spki-list={proxy.certificate.spki}",
            *more,
            f"https://{address}{path}",
        ]
        self.child = Child("chromium", [browser(), *arguments], folder)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.child.stop()

    def events(self, name):
        """How many events of that name the network log (`netlog=True`) has; it is whole when the browser has ended."""
        text = self.netlog.read_text(errors="replace")
        number = re.search(rf'"{name}":(\d+)', text)
        assert number, f"this Chromium has no event {name}"
        return len(re.findall(rf'"type":{number[1]}\b', text))


def browser():
    """Debian's Chromium (without its wrapper script, so that ending the process ends the browser)."""
    for path in ("/usr/lib/chromium/chromium", "/usr/lib64/chromium/chromium"):
        if shutil.which(path):
            return path
    return tool("chromium")
