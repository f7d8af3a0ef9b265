"""Bodies of the OpenAI endpoints: the fields that have an effect, and those that are ignored."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from housecall.server.wire import LARGEST_SEED, StopText, Text, Wire, not_blank, stop_texts
from housecall.types import Message, Sampling

IGNORED = frozenset(
    {
        "frequency_penalty",
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
"""OpenAI's fields that are taken and have no effect here."""

_IGNORED_IN_MESSAGES = frozenset({"name", "refusal", "annotations"})
_REST_OF_WINDOW = 1_000_000  # OpenAI's default: as long as the model can


def without(body: Any, ignored: frozenset[str]) -> Any:
    """A body without ignored fields, and without nulls: clients send them for "not given"."""
    if not isinstance(body, dict):
        return body
    return {key: value for key, value in body.items() if value is not None and key not in ignored}


class TextPart(Wire):
    """A part of a message; only text is served."""

    type: Literal["text"]
    text: Text


class ChatMessage(Wire):
    """A message of the conversation; `name`, `refusal` and `annotations` are ignored."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart] = ""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, body: Any) -> Any:
        return without(body, _IGNORED_IN_MESSAGES)

    def message(self) -> Message:
        """The message for the model; ``developer`` is OpenAI's newer name of ``system``."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(Wire):
    """What a stream tells beside the answer; `include_obfuscation` has no effect here."""

    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchema(Wire):
    """A JSON Schema that the answer is held to; `name`, `description`, `strict` are ignored."""

    name: str = ""
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")


class ResponseFormat(Wire):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    def schema_for_engine(self) -> dict[str, Any] | None:
        """The JSON Schema to hold the answer to."""
        if self.type == "text":
            return None
        return {"type": "object"} if self.json_schema is None else self.json_schema.schema_


class CompletionFields(Wire):
    """What chats and completions have in common."""

    model: Text = Field(description="A name of `GET /v1/models`.")
    max_tokens: int | None = Field(None, ge=1, le=_REST_OF_WINDOW)
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(40, ge=0, le=1_000_000)
    min_p: float = Field(0.05, ge=0, le=1)
    repeat_penalty: float = Field(1.0, gt=0, le=2)
    seed: int | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: Literal[1] = 1

    @model_validator(mode="before")
    @classmethod
    def _known(cls, body: Any) -> Any:
        return without(body, IGNORED)

    def sampling(self) -> Sampling:
        """The values for the engine."""
        return Sampling(
            max_tokens=self.max_tokens or _REST_OF_WINDOW,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            seed=None if self.seed is None else self.seed % (LARGEST_SEED + 1),
            stop=stop_texts(self.stop),
        )


class ChatCompletionRequest(CompletionFields):
    """OpenAI's request, with `top_k`, `min_p` and `repeat_penalty` added.

    Ignored: `frequency_penalty`, `metadata`, `parallel_tool_calls`, `prediction`,
    `presence_penalty`, `prompt_cache_key`, `prompt_cache_retention`, `reasoning_effort`,
    `safety_identifier`, `service_tier`, `store`, `user`, `verbosity`. Other fields are refused.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}]
        }
    )

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=_REST_OF_WINDOW)
    response_format: ResponseFormat = ResponseFormat()
    logprobs: bool = Field(False, description="Tell how likely each token was.")
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="Likely tokens to tell beside each.",
    )

    @field_validator("top_logprobs")
    @classmethod
    def _with_logprobs(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count is not None and not info.data.get("logprobs"):
            raise ValueError("needs logprobs: true")
        return count

    @field_validator("messages")
    @classmethod
    def _ends_with_user(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages[-1].role != "user":
            raise ValueError("the last message must be the user's")
        not_blank(messages[-1].message().content)
        return messages

    def sampling(self) -> Sampling:
        """The values for the engine."""
        return replace(
            super().sampling(),
            max_tokens=self.max_completion_tokens or self.max_tokens or _REST_OF_WINDOW,
            json_schema=self.response_format.schema_for_engine(),
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class OpenAIModel(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Since when it is served, in seconds since 1970.")
    owned_by: str = "housecall"


class OpenAIModelList(BaseModel):
    """The models that `model` can name."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]
