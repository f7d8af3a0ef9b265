"""Text from elsewhere, made safe for Streamlit's Markdown."""

from __future__ import annotations

import re

_IMAGE = re.compile(r"!\[")
_DOLLAR = re.compile(r"(?<!\\)\$")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def formatted(text: str) -> str:
    """Markdown whose images stay text: loading one would tell its host what was said here.

    A dollar sign is money, not mathematics.
    """
    return _DOLLAR.sub(r"\\$", _IMAGE.sub(r"!\\[", text))


def plain(text: object) -> str:
    """One line that is shown as it is, whatever is in it."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(str(text).split()))
