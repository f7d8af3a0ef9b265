"""GGUF formats of a finished run, made anew: how fast beside llama.cpp, and with the same bytes?

llama.cpp's side is ``llama_model_quantize``, what its llama-quantize calls, through the package
llama-cpp-python, which may live in a Python of its own (it is compiled on installing, for minutes):

    python benchmarks/quantize_speed.py runs/demo [--llama-python OTHER/bin/python] [--threads 2]

Both begin with float16 weights on disk (safetensors, a GGUF file), use the run's importance matrix
and write a GGUF file. Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FORMATS = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "iq4_xs", "q4_0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run that has merged/ and imatrix/")
    parser.add_argument("--llama-python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--formats", default=",".join(FORMATS))
    arguments = parser.parse_args()
    asked = [arguments.llama_python, "-c", "import llama_cpp"]
    if subprocess.run(asked, capture_output=True).returncode:
        sys.exit(
            f"skipped: {arguments.llama_python} has no llama_cpp: pip install llama-cpp-python "
            "somewhere and pass that Python with --llama-python"
        )
    with tempfile.TemporaryDirectory(prefix="quantize-speed-") as folder:
        report(measure(arguments, Path(folder)))


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Seconds of both for each format, and how many tensors have other bytes."""
    import numpy as np
    from safetensors.numpy import load_file

    from housecall.gguf import convert

    convert.cpu_count = lambda: arguments.threads  # type: ignore[attr-defined]
    matrix = load_file(arguments.run / "imatrix" / "imatrix.safetensors")
    np.savez(folder / "matrix.npz", **matrix)
    make(arguments.run, "gguf-f16", folder / "f16.gguf", None)
    rows = []
    for name in arguments.formats.split(","):
        weighs = name != "q8_0"
        ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
        began = time.perf_counter()
        make(arguments.run, f"gguf-{name}", ours, matrix if weighs else None)
        seconds = time.perf_counter() - began
        job = {
            "source": str(folder / "f16.gguf"),
            "out": str(theirs),
            "type": name.upper(),
            "threads": arguments.threads,
            "matrix": str(folder / "matrix.npz") if weighs else None,
        }
        command = [arguments.llama_python, __file__, "--child"]
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, check=True
        )
        found, expected = tensors(ours), tensors(theirs)
        rows.append(
            {
                "format": name,
                "seconds": round(seconds, 2),
                "llama_cpp_seconds": round(json.loads(done.stdout)["seconds"], 2),
                "tensors": len(expected),
                "other_bytes": sum(found.get(n) != raw for n, raw in expected.items()),
            }
        )
    return rows


def make(run: Path, fmt: str, out: Path, importance: Any) -> None:
    """What the step quantize does for one format."""
    from housecall.causal_lm import load_config
    from housecall.gguf.convert import convert, plan
    from housecall.gguf.llama import hyperparameters
    from housecall.gguf.mixture import file_type
    from housecall.gguf.vocabulary import gguf_vocabulary
    from housecall.weights import Weights

    config = load_config(run / "merged")
    weights = Weights(run / "merged", "np")
    fields = {
        **hyperparameters(config),
        "general.file_type": int(file_type(fmt)),
        **gguf_vocabulary(run / "merged", int(config["vocab_size"])),
    }
    plans = plan(weights, config, fmt)
    convert(weights, config, plans, fields, out, importance=importance)


def tensors(path: Path) -> dict[str, bytes]:
    """Type and bytes of each tensor."""
    from housecall.gguf.header import read_header

    with path.open("rb") as stream:
        found = {}
        for entry in read_header(path).tensors:
            stream.seek(entry.start)
            found[entry.name] = bytes([entry.kind]) + stream.read(entry.nbytes)
    return found


def child() -> None:
    """Quantise as llama-quantize does; runs where llama_cpp is installed."""
    import llama_cpp
    import numpy as np

    job = json.load(sys.stdin)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = job["threads"]
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{job['type']}")
    kept = []
    if job["matrix"]:
        for name, values in np.load(job["matrix"]).items():
            data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entry = llama_cpp.llama_model_imatrix_data(name.encode(), data, values.size)
            kept.append((entry, values))
        array = (llama_cpp.llama_model_imatrix_data * (len(kept) + 1))(*(e for e, _ in kept))
        parameters.imatrix = array
    silence = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silence, None)
    source, out = (os.fsencode(job[key]) for key in ("source", "out"))
    began = time.perf_counter()
    if llama_cpp.llama_model_quantize(source, out, ctypes.byref(parameters)):
        sys.exit("llama_model_quantize failed")
    print(json.dumps({"seconds": time.perf_counter() - began}))


def report(rows: list[dict[str, Any]]) -> None:
    print(f"{'format':<10}{'seconds':>10}{'llama.cpp':>12}{'ratio':>8}{'other bytes':>14}")
    for row in rows:
        ratio = row["seconds"] / row["llama_cpp_seconds"]
        print(
            f"{row['format']:<10}{row['seconds']:>10.2f}{row['llama_cpp_seconds']:>12.2f}"
            f"{ratio:>8.2f}{row['other_bytes']:>8} of {row['tensors']}"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    child() if sys.argv[1:] == ["--child"] else main()
