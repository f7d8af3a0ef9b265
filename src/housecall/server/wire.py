"""Bodies of the native endpoints. Unknown fields and values out of range are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from housecall.events import Answer
from housecall.guard.base import Assertion, Level
from housecall.records import PinnedFact, Rating, SessionInfo
from housecall.run_report import RunInfo
from housecall.types import FinishReason, Message, Sampling

LARGEST_SEED = 2**32 - 2  # the engine takes the one above it for "random"


def _characters(text: str) -> str:
    """JSON can bring in half a surrogate pair, which is no text: it can't be saved or sent on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair, which is not a character") from None
    return text


Text = Annotated[str, AfterValidator(_characters)]
StopText = Annotated[Text, Field(min_length=1, max_length=256)]


class Wire(BaseModel):
    """A request: JSON types are not converted, unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SamplingFields(Wire):
    """How the answer is made."""

    model: Text | None = Field(None, description="A name of `GET /models`; none is the default.")
    max_tokens: int = Field(256, ge=1, le=1_000_000, description="Longest answer, in tokens.")
    temperature: float = Field(0.7, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(40, ge=0, le=1_000_000, description="0 leaves all tokens.")
    min_p: float = Field(0.05, ge=0, le=1)
    repeat_penalty: float = Field(1.0, gt=0, le=2)
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED)
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = Field(
        None, description="Up to 16 texts that end the answer, and are not part of it."
    )
    stream: bool = Field(False, description="Answer as server-sent events.")
    json_schema: dict[str, Any] | None = Field(
        None, description="Hold the model's text to this JSON Schema."
    )

    def sampling(self) -> Sampling:
        """The values for the engine."""
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            seed=self.seed,
            stop=stop_texts(self.stop),
            json_schema=self.json_schema,
        )


class GenerateRequest(SamplingFields):
    """One question without a conversation."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "How much water should I drink with a fever?"}]}
    )

    prompt: Text = Field(description="The question.")
    system: Text | None = Field(None, description="System prompt; default: the model's own.")

    @field_validator("prompt")
    @classmethod
    def _said(cls, prompt: str) -> str:
        return not_blank(prompt)

    def messages(self) -> tuple[Message, ...]:
        """The conversation for the model."""
        return _messages(self.system, self.prompt)


class ChatRequest(SamplingFields):
    """The next message of a saved conversation."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"message": "I have had a sore throat for three days."}]}
    )

    message: Text = Field(description="What the user says.")
    session_id: Text | None = Field(None, description="The conversation; none starts a new one.")
    system: Text | None = Field(
        None, description="System prompt from here on; default: the session's, then the model's."
    )

    @field_validator("message")
    @classmethod
    def _said(cls, message: str) -> str:
        return not_blank(message)

    def messages(self) -> tuple[Message, ...]:
        """The new messages of the conversation."""
        return _messages(self.system, self.message)


class _Body(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class UsageBody(_Body):
    """Token counts; `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class TimingsBody(_Body):
    """Null where the model gave no token, or only one."""

    ttft_ms: float | None = Field(description="Milliseconds to the model's first token.")
    total_ms: float
    tokens_per_second: float | None = Field(description="After the first token.")


class GuardMatchBody(_Body):
    """A rule that was found at `start` to `end` (characters) of the message."""

    rule: str
    text: str
    start: int
    end: int
    assertion: Assertion


class GuardBody(_Body):
    """What the guard found in the message; its own message comes before the model's text."""

    level: Level
    matches: list[GuardMatchBody]
    language: str
    message: str
    output: list[dict[str, Any]]


class ModelBody(_Body):
    """The model behind an answer. `sha256` is that of the file that was served."""

    name: str
    format: str
    sha256: str
    run: str | None
    gated: bool = Field(description="Whether it passed the quality gate.")


class ModelList(BaseModel):
    """The models that `model` in a request can name."""

    models: list[ModelBody]


class ContextBody(_Body):
    """What of the conversation the model saw."""

    n_ctx: int
    prompt_tokens: int
    turns_total: int
    turns_in_window: int
    dropped_turns: int = Field(description="The oldest turns; they are saved, but left the window.")
    pinned: list[PinnedFact] = Field(description="Facts of dropped turns that the model still saw.")
    unpinned: list[PinnedFact] = Field(
        default_factory=list,
        description="Facts for which the window had no room; left out when there are none.",
    )

    @model_serializer(mode="wrap")
    def _without_nothing(self, to_dict: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = to_dict(self)
        return body if self.unpinned else {k: v for k, v in body.items() if k != "unpinned"}


class GenerateResponse(_Body):
    """A whole answer. `text` begins with the guard's message, if there is one."""

    id: str = Field(description="Its lineage is at `GET /answers/{id}`.")
    request_id: str
    text: str
    finish_reason: FinishReason
    usage: UsageBody
    timings: TimingsBody
    guard: GuardBody
    model: ModelBody

    @classmethod
    def of(cls, answer: Answer) -> GenerateResponse:
        """The body for an answer."""
        return cls.model_validate(answer)


class ChatResponse(GenerateResponse):
    """A whole answer of a conversation."""

    session_id: str
    turn: int | None = Field(description="From 1; null if the conversation could not be saved.")
    context: ContextBody | None = Field(description="Null when no model was asked.")


class FeedbackRequest(Wire):
    """What a user thinks of an answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rating": "up"}]})

    rating: Rating
    comment: Text = Field("", max_length=4000)


class RenameRequest(Wire):
    """Another title for a conversation."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "Sore throat"}]})

    title: Text = Field(min_length=1, max_length=80)

    @field_validator("title")
    @classmethod
    def _one_line(cls, title: str) -> str:
        return " ".join(not_blank(title).split())


class SessionList(BaseModel):
    """Conversations, newest first."""

    sessions: list[SessionInfo]
    next: str | None = Field(description="Give it as `before` to get more; null at the end.")


class RunList(BaseModel):
    """Runs, the served one first."""

    runs: list[RunInfo]


class Health(BaseModel):
    """The process is alive."""

    status: Literal["ok"] = "ok"
    version: str


class Ready(BaseModel):
    """The model answers."""

    status: Literal["ready"] = "ready"


def not_blank(text: str) -> str:
    """The text, if there is something in it."""
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def stop_texts(stop: str | list[str] | None) -> tuple[str, ...]:
    """``stop`` as the engine takes it."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def _messages(system: str | None, user: str) -> tuple[Message, ...]:
    first = (Message("system", system),) if system and system.strip() else ()
    return (*first, Message("user", user))
