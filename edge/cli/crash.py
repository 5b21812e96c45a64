"""Where the traceback of an unexpected error goes: the CLI's log, under an id."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import secrets
import traceback
from pathlib import Path


def record_crash(error: BaseException) -> str:
    """Append the traceback to the log; the sentence that tells a person its id and where it is."""
    ident = secrets.token_hex(4)
    log = _log_file()
    text = "".join(traceback.format_exception(error))
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{at} id={ident}\n{text}\n")
    except OSError as problem:
        return f"{type(error).__name__} (id {ident}; its traceback could not be written to {log}: {problem.strerror})"
    return f"{type(error).__name__} (id {ident}; the traceback is in {log})"


def log_to_file() -> None:
    """What drivers log, and tracebacks of their bugs, go to the CLI's log and not to the terminal; if it can be had."""
    handler: logging.Handler = logging.NullHandler()
    with contextlib.suppress(OSError):
        log = _log_file()
        log.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(log, encoding="utf-8")
    logging.basicConfig(handlers=[handler], format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _log_file() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "edge" / "cli.log"
