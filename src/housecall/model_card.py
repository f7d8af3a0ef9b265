"""The model card of a run: what the model is, what it was made from, what each variant lost.

``MODEL_CARD.md`` and its picture are derived from the run's artifacts and written anew whenever
one of them changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from housecall.artifact import MANIFEST, Artifact, write_text
from housecall.config import Recipe
from housecall.lineage import PROMOTED, RECIPE, chain, is_unclear, read_promoted
from housecall.plots import size_against_kl
from housecall.recipe import load_recipe
from housecall.training_summary import training_lines

CARD = "MODEL_CARD.md"
PICTURE = "size-kl"
# Identifiers that the Hugging Face hub knows and models of this size come under.
_HUB_LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "llama2", "llama3.2")
_NAMES = {
    "variant": "variant",
    "merged": "merged model",
    "adapter": "adapter",
    "imatrix": "importance matrix",
    "dataset": "data set",
    "base": "base model",
}
_Facts = Mapping[str, Any]


def write_card(run: Path) -> None:
    """Write the card of a run that was judged; before that there is nothing to say."""
    if not (run / "gate" / MANIFEST).is_file():
        return
    recipe = load_recipe(str(run / RECIPE))
    gate = Artifact.read(run / "gate")
    promoted = read_promoted(run) if (run / PROMOTED).is_file() else None
    best = promoted["format"] if promoted else None
    size_against_kl(gate.metrics["variants"], recipe.gate.max_kl, best, run / PICTURE)
    write_text(run / CARD, "\n".join(_lines(run, recipe, gate, promoted)) + "\n")


def _lines(
    run: Path, recipe: Recipe, gate: Artifact, promoted: Mapping[str, Any] | None
) -> Iterator[str]:
    entries = chain(Artifact.read(run / "merged"))
    found = {entry["kind"]: entry for entry in entries}
    yield "---"
    yield yaml.safe_dump(_front_matter(found), sort_keys=False, allow_unicode=True).rstrip()
    yield "---"
    yield f"\n# {run.resolve().name}\n"
    yield (
        f"`{found['base']['source']}`, fine-tuned on dialogues of `{found['dataset']['source']}` "
        f"by the recipe `{recipe.name}`. {recipe.description}".rstrip()
        + "\n"
    )
    yield (
        "**It informs, it does not diagnose.** No clinician has reviewed its answers; it makes "
        "mistakes, and it must not be the only source of a decision about anyone's health.\n"
    )
    yield from _warnings(found)
    yield "## What is served\n"
    yield _served(promoted)
    yield "\n## What each variant costs and what it lost\n"
    yield from _table(gate, _speeds(run), promoted)
    yield f"\n![Size against KL divergence]({PICTURE}.png)\n"
    yield from _how(gate, recipe)
    yield "\n## What training did\n"
    for line in training_lines(Artifact.read(run / "adapter").metrics):
        yield f"- {line[0].upper()}{line[1:]}."
    yield "\n## Where it comes from\n"
    yield "| | sha256 | facts |\n|---|---|---|"
    for entry in entries:
        name = _NAMES.get(entry["kind"], entry["kind"])
        yield f"| {name} | `{entry['sha256'][:16]}` | {_cell(_facts(entry))} |"
    made = gate.manifest["housecall"]
    versions = ", ".join(f"{k} {v}" for k, v in gate.manifest["versions"].items())
    commit = made["commit"] or "unknown"
    yield f"\nMade with Housecall {made['version']} (commit {commit}); {versions}."


def _front_matter(found: Mapping[str, _Facts]) -> dict[str, Any]:
    """What the Hugging Face hub reads. Only sources on the hub can be linked."""
    base, data = found["base"], found["dataset"]
    licence = str(base["licence"]).strip().lower()
    matter: dict[str, Any] = {"license": licence if licence in _HUB_LICENCES else "other"}
    if matter["license"] == "other":
        matter["license_name"] = re.sub(r"[^a-z0-9.]+", "-", licence).strip("-")[:64] or "unclear"
    if str(base["source"]).startswith("hub:"):
        matter["base_model"] = base["source"].removeprefix("hub:").partition("@")[0]
    if str(data["source"]).startswith("hub:"):
        matter["datasets"] = [data["source"].removeprefix("hub:")]
    return {
        **matter,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["housecall", "gguf", "qlora", "medical"],
    }


def _warnings(found: Mapping[str, _Facts]) -> Iterator[str]:
    for kind in ("base", "dataset"):
        entry = found[kind]
        if is_unclear(str(entry["licence"])):
            yield (
                f"> **Warning: the licence of the {_NAMES[kind]} `{entry['source']}` is unclear** "
                f"({entry['licence']}). Find out what you may do before you pass this model on.\n"
            )


def _served(promoted: Mapping[str, Any] | None) -> str:
    if promoted is None:
        return "**Nothing: no variant has passed the gate.**"
    order = "fastest" if promoted.get("order") == "speed" else "smallest"
    return (
        f"`{promoted['format']}`, the {order} GGUF that passed the gate, "
        f"sha256 `{promoted['sha256']}`."
    )


def _speeds(run: Path) -> dict[str, float]:
    if not (run / "bench" / MANIFEST).is_file():
        return {}
    bench = Artifact.read(run / "bench")
    return {v["format"]: v["tokens_per_second"] for v in bench.metrics["variants"]}


def _table(
    gate: Artifact, speeds: Mapping[str, float], promoted: Mapping[str, Any] | None
) -> Iterator[str]:
    yield (
        "| variant | MB | loss (95 %) | perplexity (95 %) | KL mean | KL 99 % | KL max | "
        "same top | questions right (95 %) | engine KL | tokens/s | gate |"
    )
    yield "|---|" + "---:|" * 10 + "---|"
    for entry in gate.metrics["variants"]:
        f = entry["figures"]
        name = f"`{entry['format']}`"
        best = promoted is not None and entry["format"] == promoted["format"]
        speed = speeds.get(entry["format"])
        cells = [
            f"**{name}**" if best else name,
            f"{entry['bytes'] / 1e6:.1f}",
            f"{f['loss']:.3f} ({_interval(f['loss_interval'], '.3f')})",
            f"{f['perplexity']:.2f} ({_interval(f['perplexity_interval'], '.2f')})",
            f"{f['kl_mean']:.4f}",
            f"{f['kl_p99']:.4f}",
            f"{f['kl_max']:.4f}",
            f"{f['agreement']:.1%}",
            f"{f['accuracy']:.0%} ({_interval(f['accuracy_interval'], '.0%')})",
            f"{f['engine']['kl_from_weights']:.4f}" if f["engine"] else "-",
            "-" if speed is None else f"{speed:.1f}",
            _cell(_verdict(entry) + (", promoted" if best else "")),
        ]
        yield "| " + " | ".join(cells) + " |"


def _verdict(entry: _Facts) -> str:
    if entry["passed"]:
        return "passed"
    return "refused: " + "; ".join([*entry["failed"], *entry["causes"][:1]])


def _how(gate: Artifact, recipe: Recipe) -> Iterator[str]:
    figures = gate.metrics["variants"][0]["figures"]
    engines = [v["figures"]["engine"] for v in gate.metrics["variants"]]
    asked = next(filter(None, engines), None)
    yield (
        f"Loss, perplexity, KL divergence from FP16 (nats a token) and the share of equal top "
        f"tokens on the same {figures['tokens']} held-out answer tokens; intervals of 95 % by "
        f"bootstrap over dialogues. {figures['questions']} multiple-choice questions "
        f"({_source(recipe.gate.questions)}), scored by likelihood per byte, Wilson intervals. "
        "GGUF weights are dequantised and computed in float32."
    )
    if asked:
        yield (
            f"*Engine KL*: the serving engine itself against its own dequantised weights at "
            f"{asked['tokens']} of those tokens, forced one by one, by its {asked['top']} most "
            "likely tokens (all others count as one, so it is at least what is said)."
        )
    yield (
        f"\nRules: KL <= {recipe.gate.max_kl:g}, same top >= {recipe.gate.min_agreement:.0%}, loss "
        f"<= +{recipe.gate.max_loss_increase:.1%}, engine KL <= {recipe.gate.max_engine_kl:g}"
        + (f", size <= {recipe.gate.max_bytes / 1e6:.1f} MB" if recipe.gate.max_bytes else "")
        + "."
    )


def _source(questions: str) -> str:
    if questions.startswith("builtin:"):
        return f"`{questions}`: written for this project, not reviewed by clinicians"
    return f"`{Path(questions).name}`"


def _facts(entry: _Facts) -> str:
    hidden = ("kind", "path", "sha256", "created", "housecall", "versions")
    return ", ".join(f"{k} {_value(v)}" for k, v in entry.items() if k not in hidden)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{k}={_value(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _interval(interval: Sequence[float], spec: str) -> str:
    return f"{interval[0]:{spec}} to {interval[1]:{spec}}"


def _cell(text: str) -> str:
    """Text that does not end a cell or a row of a table."""
    return " ".join(text.replace("|", "\\|").split())
