"""What the steps share: reading a model folder without loading the model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housecall.chat_template import ChatTemplate
from housecall.errors import ArtifactError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "chat_template.jinja",
)
CONFIG_FILES = ("config.json", "generation_config.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ArtifactError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: not a JSON object")
    return value


class HfTokenizer:
    """The tokenizer of a model folder: ``tokenizers`` alone, in Rust, without transformers.

    Calling it gives ids without BOS and EOS, as ``chat_template.encode`` wants them.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.settings = read_json(folder / "tokenizer_config.json")
        self._controls = self._load(Tokenizer, folder)
        self._plain = self._load(Tokenizer, folder)
        self._plain.encode_special_tokens = True
        self.end_of_turn = self._end_of_turn(folder)

    @staticmethod
    def _load(tokenizer: type[Tokenizer], folder: Path) -> Tokenizer:
        try:
            return tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the Rust code raises bare Exception
            raise ArtifactError(f"{folder / 'tokenizer.json'}: {error}") from error

    def __call__(self, text: str, *, special: bool) -> list[int]:
        """Ids of ``text``; with ``special``, the text of a control token is that token."""
        tokenizer = self._controls if special else self._plain
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, control tokens left out."""
        return str(self._controls.decode(ids, skip_special_tokens=True)).strip()

    def token(self, name: str) -> str:
        """The text of ``bos_token``, ``eos_token``...; empty when there is none."""
        value = self.settings.get(name)
        return str(value["content"] if isinstance(value, dict) else value or "")

    def _end_of_turn(self, folder: Path) -> frozenset[int]:
        generation = folder / "generation_config.json"
        found = read_json(generation).get("eos_token_id") if generation.exists() else None
        ids = found if isinstance(found, list) else [] if found is None else [found]
        eos = self._controls.token_to_id(self.token("eos_token"))
        return frozenset(ids) | ({eos} if eos is not None else frozenset())


def load_template(folder: Path, tokenizer: HfTokenizer) -> ChatTemplate:
    """The chat template of a model folder. Raises ArtifactError when it has none."""
    file = folder / "chat_template.jinja"
    source = file.read_text("utf-8") if file.exists() else tokenizer.settings.get("chat_template")
    if not isinstance(source, str):
        raise ArtifactError(
            f"{folder}: its tokenizer has no chat template: use a chat (instruct) model as base"
        )
    return ChatTemplate(
        source, bos_token=tokenizer.token("bos_token"), eos_token=tokenizer.token("eos_token")
    )


def link_or_copy(source: Path, target: Path) -> None:
    """The same bytes at ``target``: a hard link where the disk allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy those of ``names`` that exist."""
    for name in names:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
