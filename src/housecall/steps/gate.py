"""gate: what each variant lost against FP16 on the same held-out tokens, and whether it may.

Weights of GGUF files are dequantised into torch and computed in float32, so that only the
quantisation differs; then the engine itself is asked at a sample of places, so that the program
that serves is covered too. ``int8`` and ``int4`` run as transformers runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housecall.artifact import MANIFEST, Artifact, create, write_json
from housecall.checks.diagnosis import explain
from housecall.checks.provenance import merge_fault
from housecall.checks.questions import lay_out, read_questions
from housecall.config import GateConfig
from housecall.errors import ArtifactError, GateRefused
from housecall.journal import Journal
from housecall.lineage import GGUF_FILE
from housecall.plots import require_matplotlib
from housecall.progress import bar
from housecall.steps.base import HfTokenizer, load_template

if TYPE_CHECKING:
    from housecall.checks.measure import HeldOut

REPORT = "report.json"


def run(config: GateConfig, variants: Sequence[Artifact], dataset: Artifact, out: Path) -> Artifact:
    """Judge all variants and write the report.

    Raises ArtifactError for a variant whose bytes are not those its manifest names, and
    GateRefused when the merged model is not the base with this run's adapter.
    """
    require_matplotlib()  # for the card that follows: found out before minutes of work
    variants = [Artifact.load(v.path) for v in variants]
    merged = next(p for v in variants for p in v.parents() if p.kind == "merged")
    if fault := merge_fault(merged):
        raise GateRefused(f"{fault}: run  housecall merge {merged.path.parent.name}")
    parents = [dataset, *variants]
    journal = Journal(out, [config.of_measuring(), [p.sha256 for p in parents]])
    settings = config.model_dump(mode="json")
    with create(out, "gate", config=settings, parents=parents) as draft:
        figures = _measured_before(config, parents, out) or _measure(
            config, variants, dataset, journal
        )
        report = _judged(config, variants, figures, merged.path)
        write_json(draft.path / REPORT, report)
        draft.metrics["variants"] = report
    journal.forget()
    return Artifact.load(out, verify=False)


def _measured_before(
    config: GateConfig, parents: Sequence[Artifact], out: Path
) -> dict[str, dict[str, Any]] | None:
    """The figures of an earlier gate: other rules need no new measuring."""
    if not (out / MANIFEST).is_file():
        return None
    try:
        gate = Artifact.load(out)
    except ArtifactError:
        return None
    same_parents = [p["sha256"] for p in gate.manifest["parents"]] == [p.sha256 for p in parents]
    before = {k: gate.manifest["config"].get(k) for k in config.of_measuring()}
    if not same_parents or before != config.of_measuring():
        return None
    return {v["format"]: v["figures"] for v in gate.metrics["variants"]}


def _measure(
    config: GateConfig, variants: Sequence[Artifact], dataset: Artifact, journal: Journal
) -> dict[str, dict[str, Any]]:
    """Figures by format; those that an interrupted gate has finished are not computed again."""
    missing = [v for v in variants if journal.get(v.path.name) is None]
    if missing:
        from housecall.checks.measure import Measure

        fp16 = next(v.path for v in variants if v.path.name == "fp16")
        scratch = dataset.path.parent / ".gate.reference"
        with bar("gate", len(variants) + 1) as progress:
            progress.advance(0, "fp16 as reference")
            measure = Measure(fp16, _held_out(config, fp16, dataset), scratch)
            try:
                progress.advance(1 + len(variants) - len(missing))
                for artifact in missing:
                    progress.advance(0, artifact.path.name)
                    journal.put(artifact.path.name, asdict(measure.figures(artifact.path)))
                    progress.advance()
            finally:
                measure.close()
    return {v.path.name: journal.get(v.path.name) for v in variants}


def _held_out(config: GateConfig, fp16: Path, dataset: Artifact) -> HeldOut:
    from housecall.causal_lm import encode_dialogues, read_dialogues, take_tokens
    from housecall.checks.measure import HeldOut

    tokenizer = HfTokenizer(fp16)
    template = load_template(fp16, tokenizer)
    dialogues = read_dialogues(dataset.path / "test.jsonl")
    rows = encode_dialogues(dialogues, template, tokenizer, tokenizer.end_of_turn)
    questions = read_questions(config.questions, config.question_limit)
    system = dataset.metrics["system_prompt"]
    return HeldOut(
        rows=take_tokens(rows, config.tokens),
        questions=lay_out(questions, system, template, tokenizer),
        engine_tokens=config.engine_tokens,
    )


def _judged(
    config: GateConfig,
    variants: Sequence[Artifact],
    figures: Mapping[str, Mapping[str, Any]],
    merged: Path,
) -> list[dict[str, Any]]:
    """An entry a variant: its figures, the rules that it breaks, and what may have caused it."""
    report = []
    for variant in variants:
        name = variant.path.name
        found = figures[name]
        failed = list(_broken_rules(config, variant.size, found, figures["fp16"]))
        search = failed and name.startswith("gguf-")
        report.append(
            {
                "format": name,
                "bytes": variant.size,
                "loss": found["loss"],
                "kl_mean": found["kl_mean"],
                "agreement": found["agreement"],
                "figures": dict(found),
                "failed": failed,
                "causes": explain(variant.path / GGUF_FILE, merged) if search else [],
                "passed": not failed,
            }
        )
    return report


def _broken_rules(
    config: GateConfig, size: int, found: Mapping[str, Any], reference: Mapping[str, Any]
) -> Iterator[str]:
    """Each rule that a variant breaks, with the figure."""
    if not found["kl_mean"] <= config.max_kl:  # so that what is not a number fails too
        yield f"KL {found['kl_mean']:.4f} > {config.max_kl:g}"
    if not found["agreement"] >= config.min_agreement:
        yield f"agreement {found['agreement']:.1%} < {config.min_agreement:.1%}"
    increase = found["loss"] / reference["loss"] - 1
    if not increase <= config.max_loss_increase:
        yield f"loss +{increase:.2%} > +{config.max_loss_increase:.2%}"
    if found["engine"] and not found["engine"]["kl_from_weights"] <= config.max_engine_kl:
        yield (
            f"engine KL {found['engine']['kl_from_weights']:.4f} from its own weights > "
            f"{config.max_engine_kl:g}"
        )
    if config.max_bytes is not None and size > config.max_bytes:
        yield f"size {size / 1e6:.1f} MB > {config.max_bytes / 1e6:.1f} MB"
