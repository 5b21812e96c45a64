"""The daemon's log: one line a fact for people; tracebacks only in the file, under an id."""

from __future__ import annotations

import logging
import logging.handlers
import secrets
import sys
from pathlib import Path

FILE_BYTES = 1_000_000
FILES_KEPT = 3
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class _OneLine(logging.Formatter):
    """For a terminal or journald: no traceback, a word before what is not as it should be, and nothing that a terminal
    would obey: machines and others have written parts of it.
    """

    def format(self, record: logging.LogRecord) -> str:
        calm = record.levelno <= logging.INFO
        message = "".join(c if c.isprintable() else REPLACEMENT for c in " ".join(record.getMessage().split()))
        return message if calm else f"{record.levelname.lower()}: {message}"


class _File(logging.handlers.RotatingFileHandler):
    """A file on a disk that may be full: that is told once, and not by a traceback for each line."""

    told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.told:
            self.told = True
            why = "cannot be written, what follows is told here only"
            sys.stderr.write(f"error: {self.baseFilename} {why}: {error.strerror}\n")


def set_up(state_dir: Path, *, verbose: bool = False, screen: bool = True) -> Path:
    """Log to a rotating file below `state_dir`, and with `screen` to standard error; the file's path."""
    path = state_dir / "log" / "edge.log"
    path.parent.mkdir(exist_ok=True)
    file = _File(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers: list[logging.Handler] = [file]
    if screen:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(_OneLine())
        terminal.setLevel(logging.DEBUG if verbose else logging.INFO)
        handlers.append(terminal)
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for handler in handlers:
        root.addHandler(handler)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    return path


def log_bug(log: logging.Logger, error: BaseException) -> str:
    """Write the traceback of an unexpected error to the log; ``id …``, for the message that a person sees."""
    ident = secrets.token_hex(4)
    log.error("internal error, id %s: %s", ident, type(error).__name__, exc_info=error)
    return f"id {ident}"
