"""The child process that runs llama.cpp's server, so that a crash in it takes nothing else along.

Standard input brings the configuration as one JSON line and then stays open: when it closes, the
parent is gone and so is this process. Standard output takes one JSON line with the address.
Run as a script by ``llama_process``; imports nothing of Housecall.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Load the model, say where it listens, and serve until the parent goes."""
    # These reach the whole group of processes; the parent drains first and then closes the input.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    config = json.loads(sys.stdin.buffer.readline())
    _die_with(config["parent_pid"])
    threading.Thread(target=_exit_when_input_closes, daemon=True).start()
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever native code prints is log
    server = _serve(config)
    print(json.dumps({"address": server.listening_address}), file=report, flush=True)
    threading.Event().wait()


def _serve(config: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.n_parallel = config["parallel"]
    params.n_ctx = config["n_ctx"] * config["parallel"]  # divided among the slots by the engine
    params.kv_unified = False  # so that no conversation can take the window of another
    params.fit_params = False  # what was asked for, or an error: no silently smaller window
    params.n_gpu_layers = config["gpu_layers"]
    tuning = config["tuning"]
    modes, attention = xllamacpp.llama_load_mode, xllamacpp.llama_flash_attn_type
    if not tuning["map_file"]:
        params.load_mode = modes.LLAMA_LOAD_MODE_NONE
    if not tuning["flash_attention"]:
        params.flash_attn_type = attention.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.no_extra_bufts = not tuning["repack"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
    # A request is cancelled, and other streams go on, only between two batches of a prompt.
    params.n_batch = params.n_ubatch = 512 if config["gpu_layers"] else 128
    params.n_cache_reuse = 32 if config["cache_reuse"] else 0
    params.cache_ram_mib = config["prompt_cache_mib"]
    if config["embeddings"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        params.n_batch = params.n_ubatch = params.n_ctx  # a mean is taken over one batch
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["api_key"]]
    params.ui = False
    params.verbosity = 2  # errors and warnings; above that a few lines for every request
    return xllamacpp.Server(params)


def _die_with(parent: int) -> None:
    """On Linux the kernel ends this process with its parent, even while native code is busy."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


def _exit_when_input_closes() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
