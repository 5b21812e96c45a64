"""The uploads of a simulated OctoPrint and what it remembers of them, on disk: they outlive the process."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any


class Files:
    """Paths are relative to the uploads. Metadata is written with every change, as OctoPrint does."""

    def __init__(self, folder: Path, with_hash: bool = True) -> None:
        self._uploads = folder / "uploads"
        self._uploads.mkdir(parents=True, exist_ok=True)
        self._notes_file = folder / "metadata.json"
        self._with_hash = with_hash
        self._notes: dict[str, dict[str, Any]] = {}
        if self._notes_file.exists():
            self._notes = json.loads(self._notes_file.read_text(encoding="utf-8"))

    def place(self, path: str) -> Path:
        """Where a file is, or would be."""
        return self._uploads / path

    def put(self, path: str, content: bytes, user: str, userdata: Any) -> None:
        """Other content forgets what was printed of the old."""
        place = self.place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        same = place.exists() and place.read_bytes() == content
        place.write_bytes(content)
        kept = self._notes.get(path, {}) if same else {}
        about = {} if userdata is None else {"userdata": userdata}
        self._notes[path] = {**kept, "user": user, "date": int(time.time()), **about}
        self._write()

    def remove(self, path: str) -> None:
        self.place(path).unlink()
        self._notes.pop(path, None)
        self._write()

    def lose(self) -> None:
        """Everything is gone, as after a card that broke."""
        shutil.rmtree(self._uploads)
        self._uploads.mkdir()
        self._notes.clear()
        self._write()

    def count(self, path: str, *, success: bool, seconds: float) -> None:
        """A print of this file has ended."""
        if path not in self._notes:
            return
        prints = self._notes[path].setdefault("prints", {"success": 0, "failure": 0})
        prints["success" if success else "failure"] += 1
        prints["last"] = {"date": time.time(), "success": success} | ({"printTime": seconds} if success else {})
        self._write()

    def entry(self, path: str) -> dict[str, Any]:
        """As the API shows a file or a folder."""
        place = self.place(path)
        shown: dict[str, Any] = {"name": place.name, "display": place.name, "path": path, "origin": "local"}
        if place.is_dir():
            names = sorted(f"{path}/{child.name}".strip("/") for child in place.iterdir())
            return shown | {"type": "folder", "typePath": ["folder"], "children": [self.entry(name) for name in names]}
        shown |= {"type": "machinecode", "typePath": ["machinecode", "gcode"], "size": place.stat().st_size}
        if self._with_hash:
            shown["hash"] = hashlib.sha1(place.read_bytes(), usedforsecurity=False).hexdigest()
        return shown | self._notes.get(path, {})

    def _write(self) -> None:
        half = self._notes_file.with_suffix(".half")
        half.write_text(json.dumps(self._notes), encoding="utf-8")
        half.replace(self._notes_file)
