"""Every error Housecall raises on purpose, in one tree.

HousecallError              a clear message for a person; the command line exits with 1
|- ConfigError              a recipe, setting or flag is wrong
|- DataError                a data set can't be used
|- ArtifactError            a folder or file of a run is missing, broken or of another recipe
|- MissingPackage           an optional package is needed; names the pip line
|- ParityFailed             a GGUF file is not the model that was merged
|- GateRefused              nothing passed the gate; the command line exits with 3
|- NotFound                 a session, answer or run that does not exist
|- SessionInUse             a second request on a session that is being answered
|- StoreUnavailable         the database can't be reached or written: try again later
|- ContextLengthExceeded    the prompt does not fit the window
'- EngineError              the engine failed
   |- EngineUnavailable     it is down, starting or draining: try again later
   |- EngineBusy            its queue is full: try again later
   '- EngineTimeout         it took too long
"""

from __future__ import annotations

import re
import textwrap

_ROOM = 200  # characters


class HousecallError(Exception):
    """Base of all errors that are shown to a person as one line."""

    exit_code = 1


class ConfigError(HousecallError):
    """A recipe, setting or flag is wrong."""


class DataError(HousecallError):
    """A data set can't be used."""


class ArtifactError(HousecallError):
    """A folder or file of a run is missing, broken or belongs to another recipe."""


class MissingPackage(HousecallError):
    """An optional package is needed; the message names the pip line."""

    def __init__(self, what: str, pip: str) -> None:
        super().__init__(f"{what}: run  pip install {pip}")
        self.pip = pip


class ParityFailed(HousecallError):
    """The engine with a GGUF file does not behave as the model that was merged."""


class GateRefused(HousecallError):
    """No variant passed the gate."""

    exit_code = 3


class NotFound(HousecallError):
    """A session, answer or run that does not exist."""


class SessionInUse(HousecallError):
    """Another request is being answered in this session."""


class StoreUnavailable(HousecallError):
    """The database can't be reached, read or written now."""


class ContextLengthExceeded(HousecallError):
    """The prompt does not fit the window of one conversation."""

    def __init__(self, n_prompt_tokens: int, n_ctx: int) -> None:
        super().__init__(
            f"the prompt has {n_prompt_tokens} tokens and the window holds {n_ctx}: "
            "shorten it, or serve with a larger --ctx"
        )
        self.n_prompt_tokens = n_prompt_tokens
        self.n_ctx = n_ctx


class EngineError(HousecallError):
    """The engine failed."""


class EngineUnavailable(EngineError):
    """The engine is down, starting or draining."""


class EngineBusy(EngineError):
    """The engine's queue is full."""


class EngineTimeout(EngineError):
    """The engine took longer than the request may."""


def reason_of(error: BaseException) -> str:
    """What a library's error says, as a part of one line: whole sentences, as many as have room.

    The first one stays whole unless it never ends: then it is cut at a word, and shows it.
    """
    lines = (" ".join(line.split()) for line in str(error).splitlines())
    sentences = [s.rstrip(".") for line in lines for s in re.split(r"(?<=[.!?])\s+", line) if s]
    if not sentences:
        return type(error).__name__
    said = textwrap.shorten(sentences[0], 2 * _ROOM, placeholder=" ...")
    for sentence in sentences[1:]:
        if len(said) + len(sentence) > _ROOM:
            break
        said = f"{said}. {sentence}"
    return said
