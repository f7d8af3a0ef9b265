"""Golden files: what a test computed, compared with what is stored in tests/golden.

``UPDATE_GOLDEN=1 pytest ...`` writes them anew; look at the difference before committing it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden"


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def check(name: str, value: Any) -> None:
    """Fail unless the value equals the stored one."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        (FOLDER / name).write_text(text, encoding="utf-8")
    assert json.loads(text) == read(name), f"{name} differs from what is stored in {FOLDER.name}"
