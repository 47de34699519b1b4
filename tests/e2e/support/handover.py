"""Starts a program with sockets as systemd does: descriptors from 3 on, and the variables of sd_listen_fds(3).

`python -m support.handover NAME FD,FD… PROGRAM ARGUMENT…`
"""

import fcntl
import os
import sys


def main():
    name, numbers, *command = sys.argv[1:]
    # Out of the way first: one of them may stand where another has to go.
    high = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, 64) for number in numbers.split(",")]
    for at, descriptor in enumerate(high):
        os.dup2(descriptor, 3 + at, inheritable=True)
    os.environ.update(
        LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=":".join([name] * len(high))
    )
    for number in map(int, numbers.split(",")):
        if number >= 3 + len(high):
            os.close(number)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
