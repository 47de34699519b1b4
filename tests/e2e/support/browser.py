"""Headless Chromium, told to speak QUIC to the proxy at once and to trust its key."""

import shutil

from .process import Child
from .proxy import tool


class Chromium:
    """One run of the browser on a page; the page reports through the origin, so nothing here waits for a render."""

    def __init__(self, folder, proxy, path, host="127.0.0.1"):
        address = f"{host}:{proxy.port}"
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
            f"--origin-to-force-quic-on={address}",
            f"--ignore-certificate-errors-spki-list={proxy.certificate.spki}",
            f"https://{address}{path}",
        ]
        self.child = Child("chromium", [browser(), *arguments], folder)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.child.stop()


def browser():
    """Debian's Chromium (without its wrapper script, so that ending the process ends the browser)."""
    for path in ("/usr/lib/chromium/chromium", "/usr/lib64/chromium/chromium"):
        if shutil.which(path):
            return path
    return tool("chromium")
