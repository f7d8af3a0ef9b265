"""Characters that were damaged on the way: encodings, controls, HTML."""

from __future__ import annotations

import html
import re

from ftfy import TextFixerConfig, fix_text

# Mojibake, controls, line ends and composed accents; quotation marks, ligatures and wide
# characters are the writer's own and stay.
_FTFY = TextFixerConfig(
    unescape_html=False,
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    explain=False,
)
_TAGS = (
    "a|abbr|b|big|blockquote|body|br|center|cite|code|dd|div|dl|dt|em|embed|font|form|h[1-6]|head|"
    "hr|html|i|iframe|img|input|ins|label|li|link|meta|object|ol|p|pre|q|s|section|small|span|"
    "strike|strong|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul"
)
# Named one by one: "BP <140 and >90" is not HTML.
_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]{{0,1000}})?\s*/?>", re.IGNORECASE)
_BLOCK = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6]|hr)(?:\s[^<>]{0,1000})?\s*/?>", re.IGNORECASE)
_HIDDEN = re.compile(
    r"<(script|style)\b[^<>]{0,1000}>.{0,5000}?</\1\s*>|<!--.{0,5000}?-->",
    re.IGNORECASE | re.DOTALL,
)
_ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,30}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")

_BYTES = re.compile(r"(?:\\x[0-9a-f]{2})+")
_APOSTROPHE = re.compile(r"(?<=\w)\\(?=(?:s|t|m|d|re|ve|ll|clock)\b)")
_FEET = re.compile(r"(?<=\b\d)\\(?=\d{1,2}\b)|(?<=\b\d)\\(?=\s*(?:ft\b|feet\b))")
_INCHES = re.compile(r"(?<=\d)\\\\")
_QUOTED = re.compile(r"(?<!\w)\\([^\\\n]{1,100})\\(?!\w)")
_PLURAL = re.compile(r"(?<=s)\\(?=\W|$)")

_BROKEN = re.compile(r"[\x00\ud800-\udfff\ufffd]")


def is_broken(text: str) -> bool:
    """True for characters that nobody can read any more: NUL, half characters, replacement."""
    return bool(_BROKEN.search(text))


def has_lost_bytes(text: str) -> bool:
    """True when mending has left characters that can't be read, or bytes written as ``\\xNN``."""
    return is_broken(text) or bool(_BYTES.search(text))


def mend_encoding(text: str) -> str:
    """Undo mojibake, control characters and other line ends, with the package ftfy."""
    if text.isascii() and text.isprintable():
        return text
    return fix_text(text, _FTFY)


def mend_backslashes(text: str) -> str:
    r"""Undo what one export of iCliniq did: quotation marks are backslashes, bytes are ``\xNN``.

    It wrote ``child\s`` for "child's", ``5\4"`` for 5 feet 4, ``\bad eye\`` for a quotation, and
    dropped the first byte of curly quotes (``\x80\x9c``).
    """
    if "\\" not in text:
        return text
    text = _BYTES.sub(lambda match: _decode(match.group()), text)
    text = _INCHES.sub('"', text)
    text = _FEET.sub("'", text)
    text = _APOSTROPHE.sub("'", text)
    text = _QUOTED.sub(r'"\1"', text)
    return _PLURAL.sub("'", text)


def _decode(escaped: str) -> str:
    raw = bytes.fromhex(escaped.replace("\\x", ""))
    for candidate in (raw, b"\xe2" + raw):
        try:
            return candidate.decode("utf-8").replace("\u200b", "")
        except UnicodeDecodeError:
            continue
    # Latin letters and signs stand alone; anything else stays, and is_broken finds it.
    return raw.decode("latin-1") if len(raw) == 1 and raw[0] >= 0xA0 else escaped


def strip_html(text: str) -> str:
    """Tags out, with what browsers don't show; entities become their characters."""
    if "&" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match.group()), text)
        text = text.replace("\xa0", " ")
    if "<" in text:
        if "-->" in text or "</s" in text.lower():
            text = _HIDDEN.sub(" ", text)
        text = _BLOCK.sub("\n", text)
        text = _TAG.sub("", text)
    return text


_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n(?: ?\n)+ ?")


def tidy_space(text: str) -> str:
    """Single spaces, at most one empty line, nothing outside."""
    return _LINES.sub("\n\n", _SPACES.sub(" ", text)).replace(" \n", "\n").strip()
