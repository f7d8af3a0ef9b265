"""What stands behind an answer, in Markdown for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from housecall.ui.escape import plain

Facts = Mapping[str, Any]

_DIGITS_OF_HASH = 12
_NAMES = {
    "variant": "Variant",
    "gate": "Gate",
    "merged": "Merged model",
    "adapter": "Adapter",
    "imatrix": "Importance matrix",
    "dataset": "Data",
    "base": "Base model",
}
_SHOWN = {
    "gate": {"kl_mean": "KL {:.3f}", "agreement": "same top token {:.1%}"},
    "adapter": {
        "steps": "{:,} steps",
        "tokens": "{:,} tokens",
        "held_out_loss_after": "held-out loss {:.2f}",
    },
    "dataset": {"source": "{}", "rows": "rows: {}", "licence": "licence {}"},
    "base": {"origin": "{}", "parameters": "{:,} parameters", "licence": "licence {}"},
}


def describe_model(model: Facts) -> str:
    """A model in one line."""
    passed = ":green-badge[gated]" if model["gated"] else ":orange-badge[not gated]"
    return f"**{plain(model['name'])}** · {plain(model['format'])} {passed}"


def describe(facts: Facts) -> str:
    """All that is known of an answer but its lineage, a line each."""
    model = facts["model"]
    lines = [
        f"**Model** {describe_model(model).replace('**', '')}",
        f"**File** sha256 {_hash(model['sha256'])}",
        f"**Speed** {_speed(facts)}",
        f"**Guard** {_guard(facts)}",
        f"**Context** {_context(facts['context'])}",
    ]
    if "sampling" in facts:
        lines.append(f"**Sampling** {_sampling(facts['sampling'])}")
    return "  \n".join(lines)


def describe_lineage(lineage: Sequence[Facts]) -> str:
    """From the variant to the data, each with its hash."""
    if not lineage:
        return "This model is a bare file: where it comes from is not known here."
    return "\n".join(f"1. {_artifact(entry)}" for entry in lineage)


def _artifact(entry: Facts) -> str:
    kind = entry["kind"]
    parts = [f"**{_NAMES.get(kind, plain(kind))}** {_hash(entry['sha256'])}"]
    for key, form in _SHOWN.get(kind, {}).items():
        if entry.get(key) is not None:
            parts.append(form.format(_value(entry[key])))
    return " · ".join(parts)


def _speed(facts: Facts) -> str:
    timings, tokens = facts["timings"], facts["usage"]["completion_tokens"]
    if timings["ttft_ms"] is None:
        return "no model was asked"
    parts = [f"first token after {timings['ttft_ms'] / 1000:.2f} s", f"tokens: {tokens}"]
    if timings["tokens_per_second"] is not None:
        parts.insert(0, f"{timings['tokens_per_second']:.1f} tokens/s")
    return ", ".join(parts)


def _guard(facts: Facts) -> str:
    guard = facts["guard"]
    rules = sorted({plain(match["rule"]) for match in guard["matches"]})
    found = plain(guard["level"].replace("_", " ")) if guard["level"] != "none" else "nothing found"
    parts = [f"{found} ({', '.join(rules)})" if rules else found]
    if guard["output"]:
        parts.append(f"changes in the answer: {len(guard['output'])}")
    if "guard_version" in facts:
        parts.append(f"rules {plain(facts['guard_version'])}")
    return " · ".join(parts)


def _context(context: Facts | None) -> str:
    if context is None:
        return "no model was asked"
    dropped = context["dropped_turns"]
    turns = f"{context['turns_in_window']} of {context['turns_total']} turns read"
    if dropped:
        turns += f", the oldest {dropped} dropped"
    return f"{turns} · {context['prompt_tokens']:,} of {context['n_ctx']:,} tokens"


def _sampling(sampling: Facts) -> str:
    if sampling["temperature"] == 0:
        return "the likeliest token each time (temperature 0)"
    seed = "random" if sampling["seed"] is None else sampling["seed"]
    return f"temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}, seed {seed}"


def _hash(digest: str) -> str:
    return f"`{digest[:_DIGITS_OF_HASH]}`"


def _value(value: object) -> object:
    """Numbers as they are, everything else as harmless text."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(key)} {_value(part)}" for key, part in value.items())
    return plain(value)
