"""A model file before native code gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from housecall.chat_template import ChatTemplate
from housecall.errors import ArtifactError, ConfigError
from housecall.gguf.header import read_header

# Of the tokenizers in use, those that bring text into this form before they cut it. llama.cpp
# leaves that to whoever calls it.
_COMPOSES = ("qwen2",)


def check_file(model: Path) -> Literal["NFC"] | None:
    """Hold a file to its own bounds, and try its template out, before native code gets them.

    Returns the Unicode form in which its tokenizer wants text, if it wants one.
    """
    fields = read_header(model).fields
    template = fields.get("tokenizer.chat_template")
    if isinstance(template, str):
        try:
            ChatTemplate(template).try_out()
        except ConfigError as error:
            raise ArtifactError(f"{model}: {error}: use another model") from error
    return "NFC" if fields.get("tokenizer.ggml.pre") in _COMPOSES else None
