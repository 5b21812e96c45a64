"""The guard while it waits: a process of its own that is there when the daemon is not.

It knows of the daemon's death from the end of the pipe that the daemon holds, waits, and if no new daemon has come up,
takes the journal's lock and becomes `edge.guard.act`. It lives as long as the daemon on a machine with little memory:
it runs without `site`, as a file, and imports nothing that the interpreter has not loaded anyway.

    wait.py AFTER_S LOCK TOKEN_FILE TOKEN ACT…       standard input: what `act` reads, then its end, or GO

The newest daemon's token stands in TOKEN_FILE; a guard that finds another one there has been relieved.
"""

import fcntl
import os
import sys
import time

GO = b"\ngo\n"
"""The daemon's last word to a guard that is needed no more."""

LOOK_S = 1.0
"""How often to look again while another process has the lock: a daemon that comes up, or one that makes safe."""

HELD = "the guard is making machines safe; try again when it has ended"


def relieved(token_file: str, token: str) -> bool:
    """Whether a daemon has come up since, which has a guard of its own. A directory that is gone says nothing."""
    try:
        file = os.open(token_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(file, 100).decode() != token
    finally:
        os.close(file)


def take(lock: int, token_file: str, token: str) -> bool:
    """Take the lock as soon as nobody has it; False if this guard has been relieved."""
    while not relieved(token_file, token):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOK_S)
            continue
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}, {HELD}\n".encode(), 0)
        return True
    return False


def main() -> None:
    """Wait for the end of standard input, then for as long as was said, then act."""
    after_s, lock_file, token_file, token, *act = sys.argv[1:]
    told = b""
    while chunk := os.read(0, 65536):
        told += chunk
    if told.endswith(GO):
        return
    time.sleep(float(after_s))
    try:
        lock = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # the site is gone
    if not take(lock, token_file, token):
        return
    given = os.memfd_create("edge-guard")
    os.write(given, told)
    os.lseek(given, 0, os.SEEK_SET)
    os.dup2(given, 0)
    os.set_inheritable(lock, True)
    os.execv(act[0], [*act, str(lock), token_file, token])


if __name__ == "__main__":
    main()
