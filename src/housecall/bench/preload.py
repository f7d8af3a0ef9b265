"""What every process that runs a folder needs loaded: imported once, then forked."""

from __future__ import annotations

import importlib
import importlib.util

from housecall.causal_lm import quiet_libraries

_OURS = ("housecall.bench.folder", "housecall.bench.roofline", "housecall.bench.rounds")
# transformers loads these only when a model of theirs is, which would count as loading the model.
_MODELS = tuple(f"transformers.models.{n}.modeling_{n}" for n in ("llama", "mistral", "qwen2"))
for _name in _OURS + _MODELS:
    importlib.import_module(_name)
quiet_libraries()  # before bitsandbytes, which else looks for kernels to download
if importlib.util.find_spec("bitsandbytes"):
    importlib.import_module("bitsandbytes")
