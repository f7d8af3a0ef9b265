"""A model file before native code gets it."""

from __future__ import annotations

from pathlib import Path

from housecall.chat_template import ChatTemplate
from housecall.errors import ArtifactError, ConfigError
from housecall.gguf.header import read_header


def check_file(model: Path) -> None:
    """Hold a file to its own bounds, and try its template out, before native code gets them."""
    template = read_header(model).fields.get("tokenizer.chat_template")
    if isinstance(template, str):
        try:
            ChatTemplate(template).try_out()
        except ConfigError as error:
            raise ArtifactError(f"{model}: {error}: use another model") from error
