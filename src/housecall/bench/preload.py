"""What every process that runs a folder needs loaded: imported once, then forked."""

from __future__ import annotations

import importlib
import importlib.util

from housecall.causal_lm import quiet_libraries

for _name in ("housecall.bench.folder", "housecall.bench.roofline", "housecall.bench.rounds"):
    importlib.import_module(_name)
quiet_libraries()  # before bitsandbytes, which else looks for kernels to download
if importlib.util.find_spec("bitsandbytes"):
    importlib.import_module("bitsandbytes")
