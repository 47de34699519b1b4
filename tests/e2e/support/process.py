"""Child processes of a test: started with their output in a file, ended by pid, and their log shown when a test fails."""

import contextlib
import os
import signal
import subprocess
import time


class Child:
    """A running program and its log file."""

    def __init__(self, name, arguments, folder, stdin=subprocess.DEVNULL, stdout=None, environment=None, pass_fds=()):
        self.name = name
        self.log_path = folder / f"{name}.log"
        self.log_file = self.log_path.open("wb")
        self.process = subprocess.Popen(
            [str(a) for a in arguments],
            stdin=stdin,
            stdout=self.log_file if stdout is None else stdout,
            stderr=self.log_file,
            env={**os.environ, **(environment or {})},
            pass_fds=pass_fds,
        )

    @property
    def pid(self):
        return self.process.pid

    def log(self, most=20_000):
        return self.log_path.read_bytes()[-most:].decode(errors="replace")

    def alive(self):
        return self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds):
        """The exit code, within `seconds`."""
        return self.process.wait(seconds)

    def stop(self, seconds=5):
        """TERM, then KILL; returns the exit code."""
        if self.alive():
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        if self.alive():
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
        self.log_file.close()
        return self.process.returncode

    def resident(self, kind="VmRSS"):
        """Resident memory in bytes."""
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{kind}:"))

    def peak(self):
        """The most memory that was resident since `forget_peak`."""
        return self.resident("VmHWM")

    def forget_peak(self):
        with open(f"/proc/{self.pid}/clear_refs", "w") as file:
            file.write("5")


def until(what, seconds, poll=0.02):
    """Polls `what` until it returns something true and returns that; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if value := what():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(poll)
