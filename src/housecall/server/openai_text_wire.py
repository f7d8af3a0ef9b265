"""Bodies of OpenAI's completions and embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from housecall.server.openai_wire import CompletionFields, without
from housecall.server.wire import Text, Wire, not_blank
from housecall.types import Message, Sampling

_OneText = Text | Annotated[list[Text], Field(min_length=1, max_length=1)]
_Texts = Text | Annotated[list[Text], Field(min_length=1, max_length=256)]


class CompletionRequest(CompletionFields):
    """OpenAI's request for a text that is gone on with, without a chat template.

    One text, never token ids: what a client sends is not control. The same fields are ignored as in
    chats; `echo`, `suffix`, `best_of` and several texts at once are refused.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "demo", "prompt": "A fever is"}]}
    )

    prompt: _OneText = Field(description="The text; a list of one text is taken too.")
    max_tokens: int = Field(16, ge=1, le=1_000_000)  # OpenAI's default
    logprobs: int | None = Field(
        None, ge=0, le=5, description="Tell how likely each token was, and as many beside it."
    )
    echo: Literal[False] = False
    best_of: Literal[1] = 1

    @field_validator("prompt")
    @classmethod
    def _said(cls, prompt: str | list[str]) -> str | list[str]:
        not_blank(prompt if isinstance(prompt, str) else prompt[0])
        return prompt

    def messages(self) -> tuple[Message, ...]:
        """The text, as what the user says."""
        return (Message("user", self.prompt if isinstance(self.prompt, str) else self.prompt[0]),)

    def sampling(self) -> Sampling:
        """The values for the engine."""
        return replace(super().sampling(), top_logprobs=self.logprobs)


class EmbeddingRequest(Wire):
    """OpenAI's request for vectors of texts; `user` is ignored, `dimensions` refused."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "demo", "input": "I have a headache."}]}
    )

    model: Text = Field(description="A name of `GET /v1/models`.")
    input: _Texts = Field(description="A text, or up to 256; never token ids.")
    encoding_format: Literal["float", "base64"] = "float"

    @model_validator(mode="before")
    @classmethod
    def _known(cls, body: Any) -> Any:
        return without(body, frozenset({"user"}))

    @field_validator("input")
    @classmethod
    def _said(cls, texts: str | list[str]) -> str | list[str]:
        for text in [texts] if isinstance(texts, str) else texts:
            not_blank(text)
        return texts

    def texts(self) -> list[str]:
        """The texts."""
        return [self.input] if isinstance(self.input, str) else self.input


class Embedding(BaseModel):
    """The vector of one text, of length 1; as base64, 32-bit floats in little-endian order."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
