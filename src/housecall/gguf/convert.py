"""A model folder as a GGUF file: one tensor after the other, its rows packed on all cores.

Threads are enough: the kernels and numpy's casts let go of Python's lock. So memory is that of one
process, which holds a tensor or two in half precision and a few rows in float32.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from housecall.errors import ArtifactError
from housecall.gguf.files import TensorInfo, empty, pack_rows, write_gguf
from housecall.gguf.llama import extra_tensors, gguf_name, model_shape, to_gguf_order
from housecall.gguf.mixture import tensor_type
from housecall.machine import cpu_count
from housecall.weights import Weights

_CHUNK = 1 << 19  # weights packed by one thread at a time: 2 MB in float32

Importance = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Plan:
    """A tensor on its way: where it comes from, what it becomes, what it should have become.

    ``source`` is its name in the model folder, or its values where the folder has none.
    """

    source: str | NDArray[np.float32]
    target: TensorInfo
    wanted: GGMLQuantizationType | None


def plan(weights: Weights, config: Mapping[str, Any], fmt: str) -> list[Plan]:
    """All tensors of the file and the type each gets.

    Raises ArtifactError for a tensor that has no place in a model of this family.
    """
    shape = model_shape(config)
    plans = [
        Plan(values, TensorInfo(name, values.shape, GGMLQuantizationType.F32), None)
        for name, values in extra_tensors(config).items()
    ]
    for source in weights.names:
        name, dims = gguf_name(source), weights.shape(source)
        kind, wanted = tensor_type(fmt, name, dims, shape)
        plans.append(Plan(source, TensorInfo(name, dims, kind), wanted))
    return plans


def convert(
    weights: Weights,
    config: Mapping[str, Any],
    plans: Iterable[Plan],
    fields: Mapping[str, Any],
    out: Path,
    *,
    importance: Importance | None = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write ``out``; ``advance`` is called after each tensor.

    ``importance`` weighs the columns of the tensors that it names. Raises ArtifactError naming a
    tensor that holds infinities or values that are not numbers.
    """
    plans = list(plans)
    threads = cpu_count()
    with ThreadPoolExecutor(threads) as pool:
        jobs = _jobs(weights, config, plans, importance or {})
        packed = _counted(_in_order(pool, jobs, 2 * threads + 2), advance)
        write_gguf(out, fields, [p.target for p in plans], packed)


Job = Callable[[], "NDArray[Any] | None"]


def _jobs(
    weights: Weights, config: Mapping[str, Any], plans: Iterable[Plan], importance: Importance
) -> Iterator[Job]:
    """A few rows each; the last of a tensor gives the whole tensor."""
    for plan in plans:
        target = plan.target
        if isinstance(plan.source, str):
            tensor = to_gguf_order(target.name, config)(weights[plan.source])
        else:
            tensor = plan.source
        rows = tensor.reshape(-1, tensor.shape[-1])
        packed = empty(target)
        flat = packed.reshape(len(rows), -1)
        step = max(1, _CHUNK // rows.shape[1])
        weighs = importance.get(target.name)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            whole = packed if start + step >= len(rows) else None
            yield partial(_pack, target, rows[part], flat[part], weighs, whole)


def _pack(
    target: TensorInfo,
    rows: NDArray[Any],
    out: NDArray[Any],
    importance: NDArray[np.float32] | None,
    whole: NDArray[Any] | None,
) -> NDArray[Any] | None:
    values = rows.astype(np.float32)
    if not math.isfinite(float(values.sum())) and not np.isfinite(values).all():
        raise ArtifactError(
            f"tensor {target.name}: holds values that are not finite numbers: its file is damaged, "
            "or training went wrong"
        )
    pack_rows(values, target.kind, out, importance)
    return whole


def _in_order(pool: ThreadPoolExecutor, jobs: Iterator[Job], ahead: int) -> Iterator[NDArray[Any]]:
    """The tensors, in order; only ``ahead`` jobs are under way, so that memory stays small."""
    running: deque[Future[NDArray[Any] | None]] = deque()
    try:
        while True:
            while len(running) < ahead and (job := next(jobs, None)):
                running.append(pool.submit(job))
            if not running:
                return
            whole = running.popleft().result()
            if whole is not None:
                yield whole
    finally:
        for future in running:
            future.cancel()


def _counted(packed: Iterable[NDArray[Any]], advance: Callable[[], None]) -> Iterator[NDArray[Any]]:
    for tensor in packed:
        yield tensor
        advance()
