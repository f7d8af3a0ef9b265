"""The whole journey: prepare, train, merge, quantize, gate, bench, each skipped when it is done.

Steps meet on disk. A step is done when its artifact's config is the recipe's and its parents are
the artifacts that are there now, by hash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from housecall.artifact import MANIFEST, Artifact, write_text
from housecall.bench.report import read_report
from housecall.config import Recipe
from housecall.errors import ArtifactError, ConfigError, GateRefused
from housecall.lineage import PROMOTED, RECIPE, read_promoted
from housecall.locks import working
from housecall.machine import process_count, process_rank
from housecall.model_card import write_card
from housecall.progress import console
from housecall.promotion import promote, withdraw
from housecall.recipe import differences, dump_recipe, load_recipe
from housecall.sources import source_hash

STEPS = ("prepare", "train", "merge", "quantize", "gate", "bench")
Report = Callable[[str, float, bool], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder and its recipe."""

    path: Path
    recipe: Recipe

    def artifact(self, name: str) -> Artifact:
        """A finished artifact of this run. Raises ArtifactError when it is not there."""
        return Artifact.load(self.path / name, verify=False)

    def variants(self) -> list[Artifact]:
        """The recipe's variants in its order."""
        return [self.artifact(f"variants/{fmt}") for fmt in self.recipe.quantize.formats]


def open_run(path: Path, recipe: Recipe) -> Run:
    """A run folder for a recipe, new or the same as before.

    Raises ConfigError when the folder belongs to another recipe; nothing in it is touched. Until
    its data set is made, a run has nothing to lose: what could not be had may be named anew.
    """
    file = path / RECIPE
    if file.exists():
        changes = differences(load_recipe(str(file)), recipe)
        made = {manifest.parent.name for manifest in path.glob(f"*/{MANIFEST}")}
        if changes and made <= {"base"}:
            write_text(file, dump_recipe(recipe))
        elif changes:
            raise ConfigError(
                f"{path}: is a run of another recipe ({'; '.join(changes[:3])}): "
                "choose another folder with --out, or change one step: housecall STEP RUN --set ..."
            )
    elif path.exists() and any(path.iterdir()):
        raise ConfigError(f"{path}: is not empty and not a run: choose another folder with --out")
    else:
        path.mkdir(parents=True, exist_ok=True)
        write_text(file, dump_recipe(recipe))
    return Run(path, recipe)


def change_run(path: Path, overrides: tuple[str, ...]) -> Run:
    """An existing run with some keys of its recipe changed; what depends on them is made anew."""
    recipe = load_recipe(str(path / RECIPE), overrides)
    if overrides:
        write_text(path / RECIPE, dump_recipe(recipe))
    return Run(path, recipe)


def execute(
    run: Run,
    *,
    start: str = STEPS[0],
    stop: str = STEPS[-1],
    force: bool = False,
    report: Report | None = None,
) -> None:
    """Run the steps ``start`` to ``stop``; with ``force`` also those that are done.

    ``report`` is told each step's name, seconds and whether it was skipped. Raises what the steps
    raise, and ArtifactError while another process works on the run.
    """
    names = STEPS[STEPS.index(start) : STEPS.index(stop) + 1]
    # Of several processes that train together, the first one holds the lock.
    with working(run.path) if process_rank() == 0 else nullcontext():
        for name in names:
            started = time.monotonic()
            skipped = not force and is_done(run, name)
            if not skipped:
                _may_run(name)
                console().print(f"[bold]{name}[/bold]")
                _RUNNERS[name](run, force)
            if report:
                report(name, time.monotonic() - started, skipped)


def _may_run(step: str) -> None:
    if process_count() > 1 and step != "train":
        raise ConfigError(
            f"{step}: only train works with several processes: first run  housecall prepare RUN, "
            "then  torchrun --standalone --nproc-per-node 2 -m housecall train RUN"
        )


def is_done(run: Run, step: str, *, verify: bool = True) -> bool:
    """True when a step's artifacts are there, whole, and made from what is there now.

    A gate and a bench are of bytes, and hashing all variants takes seconds: without ``verify``
    their sizes do.
    """
    try:
        if not _artifacts_match(run, step) or not _EXTRA.get(step, _nothing_more)(run):
            return False
        if verify and step in ("quantize", "gate", "bench"):
            for fmt in run.recipe.quantize.formats:
                _verified(run, f"variants/{fmt}")
    except ArtifactError:
        return False
    return True


def _artifacts_match(run: Run, step: str) -> bool:
    """Whether a step's artifacts are of this recipe and of the artifacts that are there now."""
    try:
        return all(
            _matches(run.artifact(name), config, [run.artifact(p).sha256 for p in parents])
            for name, config, parents in _expected(run, step)
        )
    except ArtifactError:
        return False


def _is_promoted(run: Run) -> bool:
    """Whether what is promoted was chosen by the gate that is there, and has its bytes."""
    if not (run.path / PROMOTED).is_file():
        return False
    promoted = read_promoted(run.path)
    _verified(run, f"variants/{promoted['format']}")
    return bool(promoted["gate"] == run.artifact("gate").sha256)


def _same_rows(run: Run) -> bool:
    """A data set's file that was edited is another data set; one that is not here can't be."""
    now = source_hash(run.recipe.data)
    return now is None or now == run.artifact("dataset").metrics["source_sha256"]


def _is_reported(run: Run) -> bool:
    """Whether the bench left a report that this version can read."""
    read_report(run.path / "bench")
    return True


def _nothing_more(_: Run) -> bool:
    return True


# What a step's being done takes besides its artifacts.
_EXTRA: dict[str, Callable[[Run], bool]] = {
    "prepare": _same_rows,
    "gate": _is_promoted,
    "bench": _is_reported,
}


def _matches(artifact: Artifact, config: dict[str, Any], parents: Sequence[str]) -> bool:
    made_from = [parent["sha256"] for parent in artifact.manifest["parents"]]
    return artifact.manifest["config"] == config and made_from == list(parents)


def _expected(run: Run, step: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Each artifact of a step: its folder, config, and the folders of its parents."""
    recipe = run.recipe
    variants = [f"variants/{fmt}" for fmt in recipe.quantize.formats]
    if step == "prepare":
        yield "base", _plain(recipe.base), []
        yield "dataset", _plain(recipe.data), ["base"]
    elif step == "train":
        yield "adapter", _plain(recipe.train), ["base", "dataset"]
    elif step == "merge":
        yield "merged", _plain(recipe.merge), ["base", "adapter"]
    elif step == "quantize":
        yield "imatrix", recipe.quantize.of_matrix(), ["merged", "dataset"]
        for fmt in recipe.quantize.formats:
            parents = ["merged", "imatrix"] if fmt.startswith("gguf-") else ["merged"]
            yield f"variants/{fmt}", recipe.quantize.of_format(fmt), parents
    elif step == "gate":
        yield "gate", _plain(recipe.gate), ["dataset", *variants]
    else:
        yield "bench", _plain(recipe.bench), ["dataset", *variants]


def _plain(config: Any) -> dict[str, Any]:
    plain: dict[str, Any] = config.model_dump(mode="json")
    return plain


def _prepare(run: Run, force: bool) -> None:
    from housecall.steps import fetch, prepare

    recipe = run.recipe
    base = run.path / "base"
    there = (base / MANIFEST).is_file() and not force
    if there and _matches(run.artifact("base"), _plain(recipe.base), []):
        model = run.artifact("base")
    else:
        model = fetch.run(recipe.base, base)
    prepare.run(recipe.data, model, run.path / "dataset")


def _train(run: Run, _: bool) -> None:
    from housecall.steps import train

    train.run(
        run.recipe.train, _verified(run, "base"), _verified(run, "dataset"), run.path / "adapter"
    )


def _merge(run: Run, _: bool) -> None:
    from housecall.steps import merge

    merge.run(
        run.recipe.merge, _verified(run, "base"), _verified(run, "adapter"), run.path / "merged"
    )


def _quantize(run: Run, force: bool) -> None:
    from housecall.steps import quantize

    quantize.run(
        run.recipe.quantize,
        _verified(run, "merged"),
        _verified(run, "dataset"),
        run.path / "variants",
        anew=force,
    )


def _gate(run: Run, force: bool) -> None:
    from housecall.steps import gate

    variants, dataset = run.variants(), _verified(run, "dataset")
    try:
        if force or not _artifacts_match(run, "gate"):
            gate.run(run.recipe.gate, variants, dataset, run.path / "gate")
        promote(run.path, run.recipe.gate.prefer)
    except GateRefused:
        withdraw(run.path)
        raise
    finally:
        write_card(run.path)


def _bench(run: Run, _: bool) -> None:
    from housecall.steps import bench

    what = bench.Bench(run.path, ("base", *run.recipe.quantize.formats))
    bench.run(what, run.recipe.bench, run.path / "bench")
    if (run.path / PROMOTED).is_file():  # the speeds may choose another of those that passed
        promote(run.path, run.recipe.gate.prefer)
    write_card(run.path)


def _verified(run: Run, name: str) -> Artifact:
    return Artifact.load(run.path / name)


_RUNNERS: dict[str, Callable[[Run, bool], None]] = {
    "prepare": _prepare,
    "train": _train,
    "merge": _merge,
    "quantize": _quantize,
    "gate": _gate,
    "bench": _bench,
}
