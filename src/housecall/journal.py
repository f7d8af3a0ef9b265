"""What a step that is not done yet has finished, so that it goes on after an interrupt."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from housecall.artifact import write_json


class Journal:
    """Finished pieces of a step that is not done yet, so that an interrupted step goes on.

    ``identity`` is what the pieces depend on; a journal of another identity is forgotten.
    """

    def __init__(self, out: Path, identity: Any) -> None:
        self._path = out.parent / f".{out.name}.journal"
        text = json.dumps(identity, sort_keys=True)
        self._identity = hashlib.sha256(text.encode()).hexdigest()
        self._pieces: dict[str, Any] = {}
        try:
            saved = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if saved["identity"] == self._identity:
            self._pieces = saved["pieces"]

    def get(self, key: str) -> Any:
        """A piece that was finished before, or None."""
        return self._pieces.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a finished piece (plain JSON)."""
        self._pieces[key] = value
        write_json(self._path, {"identity": self._identity, "pieces": self._pieces})

    def forget(self) -> None:
        """The step is done."""
        self._path.unlink(missing_ok=True)
