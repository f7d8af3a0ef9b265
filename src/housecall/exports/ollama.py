"""A run for Ollama: the promoted GGUF and a Modelfile with its template in Go's syntax."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from housecall.artifact import Artifact, write_text
from housecall.chat_template import ChatTemplate, Segment
from housecall.errors import ArtifactError, ConfigError
from housecall.exports.base import copy_verified, make_folder, promoted_variant
from housecall.lineage import GGUF_FILE, served_model
from housecall.types import Message, Role, Sampling

_TURNS: tuple[Role, ...] = ("system", "user", "assistant", "user")
_Change = tuple[str, str]
"""Two roles that follow each other; "" stands before the first message."""


def export_ollama(run: Path, out: Path) -> None:
    """Write a folder for ``ollama create NAME -f Modelfile``.

    Raises ArtifactError when nothing was promoted, and ConfigError for a chat template that can't
    be written in Go's syntax, or when ``out`` is there already.
    """
    variant = promoted_variant(run)
    merged = next(parent for parent in variant.parents() if parent.kind == "merged")
    text = modelfile(merged, served_model(str(run)).system_prompt)

    def fill(folder: Path) -> None:
        copy_verified(variant, GGUF_FILE, folder / GGUF_FILE)
        write_text(folder / "Modelfile", text)

    make_folder(out, fill)


def modelfile(merged: Artifact, system_prompt: str | None) -> str:
    """The Modelfile of a merged model, with the sampling that ``/generate`` has by default."""
    settings = _json(merged.path / "tokenizer_config.json")
    sampling = Sampling()
    licences = merged.manifest["licences"].values()
    licence = "\n".join(f"{entry['source']}: {entry['licence']}" for entry in licences)
    parameters = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "num_predict": sampling.max_tokens,
    }
    lines = [
        "# Written by Housecall. It informs, it does not diagnose.",
        "# Ollama has none of Housecall's guard, and reads the text of a control token that a",
        "# user types as that token.",
        f"FROM ./{GGUF_FILE}",
        f"TEMPLATE {_quoted(go_template(_template(merged, settings)))}",
        *([f"SYSTEM {_quoted(system_prompt)}"] if system_prompt else []),
        *(f"PARAMETER {name} {value}" for name, value in parameters.items()),
        *(f"PARAMETER stop {json.dumps(s, ensure_ascii=False)}" for s in _stops(merged, settings)),
        f"LICENSE {_quoted(licence)}",
    ]
    return "\n".join(lines) + "\n"


def go_template(template: ChatTemplate) -> str:
    """A chat template in Go's syntax: what stands between two messages, by their roles.

    Raises ConfigError for a template that writes something else between the same two roles
    later on, or changes contents.
    """
    between: dict[_Change, str] = {}
    end = ""
    for turns in (_TURNS, _TURNS[1:], _TURNS[1:] + _TURNS[2:]):
        messages = [Message(role, f"{role} {i}") for i, role in enumerate(turns)]
        segments = template.segments(messages, add_generation_prompt=True)
        *pieces, end = _pieces(segments, messages)
        for change, text in zip(zip(("", *turns), turns, strict=False), pieces, strict=True):
            if between.setdefault(change, text) != text:
                raise _untranslatable("it writes the same turns in two ways")
    branches = "".join(
        f'{{{{ {"if" if i == 0 else "else if"} and (eq $before "{before}") (eq .Role "{role}") }}}}'
        f"{_literal(text)}"
        for i, ((before, role), text) in enumerate(between.items())
    )
    return (
        '{{ $before := "" }}{{ range .Messages }}'
        f"{branches}{{{{ end }}}}{{{{ .Content }}}}{{{{ $before = .Role }}}}{{{{ end }}}}"
        f'{{{{ if eq $before "user" }}}}{_literal(end)}{{{{ end }}}}'
    )


def _pieces(segments: list[Segment], messages: list[Message]) -> list[str]:
    """The template's own text before, between and after the contents."""
    pieces, contents = [""], []
    for segment in segments:
        if segment.kind == "content":
            contents.append(segment.text)
            pieces.append("")
        else:
            pieces[-1] += segment.text
    if contents != [message.content for message in messages]:
        raise _untranslatable("it does not write every message once, in order")
    return pieces


def _literal(text: str) -> str:
    """Text as it stands in a Go template."""
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    """Text in a Modelfile's triple quotes."""
    if '"""' in text:
        raise _untranslatable('a text in it holds """, which a Modelfile can not')
    return f'"""{text}"""'


def _untranslatable(reason: str) -> ConfigError:
    return ConfigError(
        f"the model's chat template can't be written for Ollama ({reason}): "
        "export it as zip or hf instead"
    )


def _template(merged: Artifact, settings: Mapping[str, Any]) -> ChatTemplate:
    file = merged.path / "chat_template.jinja"
    source = file.read_text("utf-8") if file.exists() else settings.get("chat_template")
    if not isinstance(source, str):
        raise ArtifactError(f"{merged.path}: its tokenizer has no chat template")
    return ChatTemplate(
        source, bos_token=_text(settings, "bos_token"), eos_token=_text(settings, "eos_token")
    )


def _stops(merged: Artifact, settings: Mapping[str, Any]) -> list[str]:
    """The texts of the tokens that end an answer."""
    file = merged.path / "generation_config.json"
    ids = _json(file).get("eos_token_id") if file.exists() else None
    wanted = set(ids if isinstance(ids, list) else [ids])
    added = _json(merged.path / "tokenizer.json")["added_tokens"]
    texts = [_text(settings, "eos_token"), *(t["content"] for t in added if t["id"] in wanted)]
    return [text for text in dict.fromkeys(texts) if text]


def _text(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name)
    return str(value["content"] if isinstance(value, Mapping) else value or "")


def _json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: can't be read ({error})") from error
    return value
