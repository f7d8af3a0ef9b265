"""gate: what each variant lost against FP16 on the same held-out tokens, and which is promoted.

Weights of GGUF files are dequantised into the torch model and computed in float32, so that only
the quantisation differs; ``int8`` and ``int4`` run as transformers runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housecall.artifact import Artifact, Journal, create, write_json
from housecall.config import GateConfig
from housecall.errors import ArtifactError, GateRefused
from housecall.lineage import GGUF_FILE, PROMOTED
from housecall.progress import bar
from housecall.steps.base import HfTokenizer, load_template, read_json

if TYPE_CHECKING:
    import torch

    from housecall.causal_lm import Batch


@dataclass(frozen=True, slots=True)
class Verdict:
    """One variant against FP16. Loss and KL divergence in nats a token, on ``tokens`` tokens."""

    format: str
    bytes: int
    tokens: int
    loss: float
    kl_mean: float
    kl_p99: float
    kl_max: float
    agreement: float
    failed: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True when no rule failed."""
        return not self.failed


def run(config: GateConfig, variants: Sequence[Artifact], dataset: Artifact, out: Path) -> Artifact:
    """Judge all variants and write the report; ``promote`` then takes the best.

    Raises ArtifactError for a variant whose bytes are not those its manifest names.
    """
    variants = [Artifact.load(v.path) for v in variants]
    parents = [dataset, *variants]
    settings = config.model_dump(mode="json")
    journal = Journal(out, [settings, [p.sha256 for p in parents]])
    with create(out, "gate", config=settings, parents=parents) as draft:
        verdicts = [Verdict(**v) for v in _measure(config, variants, dataset, journal)]
        reference = next(v for v in verdicts if v.format == "fp16")
        judged = [_judge(v, reference, config) for v in verdicts]
        report = [{**asdict(v), "passed": v.passed} for v in judged]
        write_json(draft.path / "report.json", report)
        draft.metrics["variants"] = report
    journal.forget()
    return Artifact.load(out, verify=False)


def promote(gate: Artifact, variants: Sequence[Artifact], run: Path) -> dict[str, Any]:
    """Name the smallest GGUF that passed in ``promoted.json``; formats others run are not ranked.

    Raises GateRefused when none passed; then nothing is promoted.
    """
    file = run / PROMOTED
    judged = [v for v in gate.metrics["variants"] if v["format"].startswith("gguf-")]
    passed = sorted((v for v in judged if v["passed"]), key=lambda v: v["bytes"])
    if not passed:
        file.unlink(missing_ok=True)
        why = "; ".join(f"{v['format']}: {v['failed'][0]}" for v in judged)
        raise GateRefused(f"the gate refused every variant: {why}")
    best = next(v for v in variants if v.path.name == passed[0]["format"])
    promoted = {
        "format": passed[0]["format"],
        "sha256": best.file(GGUF_FILE)["sha256"],
        "gate": gate.sha256,
    }
    write_json(file, promoted)
    return promoted


def _judge(verdict: Verdict, reference: Verdict, config: GateConfig) -> Verdict:
    increase = verdict.loss / reference.loss - 1
    rules = (
        (verdict.kl_mean > config.max_kl, f"KL {verdict.kl_mean:.4f} > {config.max_kl}"),
        (
            verdict.agreement < config.min_agreement,
            f"agreement {verdict.agreement:.1%} < {config.min_agreement:.1%}",
        ),
        (
            increase > config.max_loss_increase,
            f"loss +{increase:.2%} > +{config.max_loss_increase:.2%}",
        ),
    )
    failed = tuple(text for broken, text in rules if broken)
    return Verdict(**{**asdict(verdict), "failed": failed})


def _measure(
    config: GateConfig, variants: Sequence[Artifact], dataset: Artifact, journal: Journal
) -> list[dict[str, Any]]:
    by_format = {v.path.name: v for v in variants}
    missing = [v for v in variants if journal.get(v.path.name) is None]
    if missing:
        judge = _Judge(by_format["fp16"].path, _batches(config, by_format["fp16"], dataset))
        with bar("gate", len(variants)) as progress:
            progress.advance(len(variants) - len(missing))
            for artifact in missing:
                progress.advance(0, artifact.path.name)
                journal.put(artifact.path.name, asdict(judge.verdict(artifact)))
                progress.advance()
    return [journal.get(v.path.name) for v in variants]


def _batches(config: GateConfig, fp16: Artifact, dataset: Artifact) -> list[Batch]:
    from housecall.causal_lm import encode_dialogues, make_batches, read_dialogues, take_tokens

    tokenizer = HfTokenizer(fp16.path)
    template = load_template(fp16.path, tokenizer)
    dialogues = read_dialogues(dataset.path / "test.jsonl")
    rows = encode_dialogues(dialogues, template, tokenizer, tokenizer.end_of_turn)
    return make_batches(take_tokens(rows, config.tokens), 1024)


class _Judge:
    """Holds FP16's log-probabilities on the held-out tokens, and compares others with them."""

    def __init__(self, fp16: Path, batches: list[Batch]) -> None:
        import torch

        from housecall.causal_lm import load_model

        self._batches = batches
        self._config = read_json(fp16 / "config.json")
        self._model = load_model(fp16, dtype=torch.float32)
        self._reference = [self._log_probabilities(self._model, batch) for batch in batches]

    def verdict(self, variant: Artifact) -> Verdict:
        """Measure one variant."""
        import torch

        model = self._load(variant.path)
        losses, divergences, agreements = [], [], []
        for batch, (reference, targets) in zip(self._batches, self._reference, strict=True):
            found, _ = self._log_probabilities(model, batch)
            losses.append(-found.gather(1, targets[:, None])[:, 0])
            divergences.append((reference.exp() * (reference - found)).sum(dim=1))
            agreements.append(reference.argmax(dim=1) == found.argmax(dim=1))
        kl = torch.cat(divergences)
        return Verdict(
            format=variant.path.name,
            bytes=variant.size,
            tokens=len(kl),
            loss=float(torch.cat(losses).mean()),
            kl_mean=float(kl.mean()),
            kl_p99=float(kl.quantile(0.99)),
            kl_max=float(kl.max()),
            agreement=float(torch.cat(agreements).float().mean()),
        )

    @staticmethod
    def _log_probabilities(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        from housecall.causal_lm import label_logits

        with torch.no_grad():
            logits, targets = label_logits(model, batch)
            return logits.float().log_softmax(dim=-1), targets

    def _load(self, folder: Path) -> Any:
        from housecall.causal_lm import load_model

        if not folder.name.startswith("gguf-"):
            return load_model(folder) if folder.name.startswith("int") else self._model
        self._fill(folder / GGUF_FILE)
        return self._model

    def _fill(self, path: Path) -> None:
        """Put a GGUF file's dequantised weights into the float32 model."""
        import torch

        from housecall.gguf.files import GgufFile
        from housecall.gguf.llama import hf_name, to_hf_order

        file = GgufFile(path)
        state = self._model.state_dict()
        tied = {"lm_head.weight"} if self._config.get("tie_word_embeddings") else set()
        names = {hf_name(name): name for name in file.names}
        if missing := set(state) - tied - set(names):
            raise ArtifactError(f"{path}: lacks tensors, such as {sorted(missing)[0]}")
        for target, name in names.items():
            weights = to_hf_order(name, self._config)(file.tensor(name))
            state[target].copy_(torch.from_numpy(weights.copy()))
