"""What a web site wrote into its doctors' answers, and what a search-and-replace did to them.

The ChatDoctor data sets (iCliniq, HealthCareMagic) come from sites whose name was replaced by
"Chat Doctor". The same replacement went over doctors' names, "Dr" up to the next full stop, and
hit the middle of words and sentences: "a dermatologist for hydrocortisone cream." became "a
dermatologist for hy ChatDoctor." Where the site names itself, in a greeting or in thanks, the
phrase is taken out; wherever its name stands after that, words are lost and the row with them.
"""

from __future__ import annotations

import re

# The last one is iCliniq with all the ways in which its doctors mistype it.
_SITE = r"(?:the\s+)?(?:i?chat\s?doctor|health\s?care\s?magic|[icl]{3,6}niq)(?:\.com)?"
GREETING = r"(?:(?:hi+|hello|hey|dear|greetings)(?:\s+(?:there|dear|user|friend|sir|madam|maam))?)"
_END = r"\s*(?:[.!,;:]+|-(?=\s)|$)"

_WELCOME = re.compile(
    rf"^(?P<hello>{GREETING})?[\s,.!-]*(?:and\s+)?(?:a\s+)?(?:warm\s+)?welcome(?:\s+back)?\s+to"
    rf"\s+{_SITE}(?:\s+(?:forum|services?|clinic|family))?{_END}",
    re.IGNORECASE,
)
_TO_SITE = rf"(?:\s+(?:on|at|to|with|in|from|by|using))?\s+{_SITE}"
_THANKS = re.compile(
    r"(?:\b(?:many\s+)?thanks?(?:\s+you)?(?:\s+(?:so|very)\s+much|\s+a\s+lot)?\s+for\s+"
    r"(?:your\s+|the\s+)?(?:[a-z]+\s+){0,3}?[a-z]+"
    rf"{_TO_SITE}(?:\s+(?:forum|services?|with\s+(?:your|the)\s+[a-z]+))?"
    rf"|\bI\s*(?:am|'m)\s+{_SITE}(?:\s+answering\s+your\s+(?:query|question))?"
    rf"|\b(?:(?:thanks|best|kind|warm)\s*(?:and|&)?\s*)?regards,?\s+{_SITE}(?=[\s.]*$)"
    rf"|\bteam\s+{_SITE}(?=[\s.]*$)){_END}",
    re.IGNORECASE,
)
# Links of the site, cut down to their words: "For more information consult a dentist online".
_DOCTOR_ONLINE = r"\ban?\s+(?:[\w-]+[ /]){1,6}?on?[iln]{2,4}e\b|\ban?\s+an\s+(?:i?chat\s?doctor)\b"
_LINK = re.compile(
    r"(?:\bfor (?:more|further) (?:inf\w+|quer\w+),?\s+(?:please\s+)?consult"
    r"|(?:(?<=[.!?:])|(?<=^)|(?<=\s\s))\s{0,3}"
    r"(?:if [^.?!:,]{1,80},\s?)?(?:(?:kindly|please|do|you can)\s+)?"
    r"(?:consult|revert|review|follow[ -]?up|write back|get back"
    r"|if you have any[^.?!:]{0,40}\brevert|attach[^.?!:]{0,60}\bconsult))\b"
    rf"[^.?!:]{{0,100}}?(?:{_DOCTOR_ONLINE})[^.?!]{{0,160}}"
    r"(?:[.?!]|$)(?:-+>?)?",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"\S{0,80}/ask-a-doctor-online\S{0,80}|-{2,}>\s*(?=$|\s)", re.IGNORECASE)
_TAIL = re.compile(r"(?<=[.!?])\s{0,9}[-|>]{1,9}\s{0,9}$")
_NOTE = r"\((?:the )?attachments? removed[^()]{0,60}\)"
_ATTACHMENT = re.compile(rf"(?<=[.!?])\s{{0,9}}{_NOTE}\.?|\s{{0,9}}{_NOTE}", re.IGNORECASE)

_NAME = re.compile(r"chat\s?doctor", re.IGNORECASE)


def strip_site(text: str) -> str:
    """Greetings, thanks, links and addresses of the site out; a plain greeting stays."""
    text = _WELCOME.sub(lambda match: f"{match['hello']}. " if match["hello"] else "", text.strip())
    text = _THANKS.sub("", text)
    text = _LINK.sub("", text)
    text = _ADDRESS.sub("", text)
    return _TAIL.sub("", text).strip()


def strip_attachments(text: str) -> str:
    """The note that an attached picture was removed out."""
    return _ATTACHMENT.sub("", text) if "removed" in text else text


def is_overwritten(text: str) -> bool:
    """True when words were overwritten by "ChatDoctor" (asked after ``strip_site``)."""
    return bool(_NAME.search(text))


def strip_names(text: str) -> str:
    """Greetings and thanks of the site out, its links left."""
    return _THANKS.sub("", _WELCOME.sub("", text.strip()))


def count_links(text: str) -> tuple[str, int]:
    """A text without the site's links to its doctors, and how many there were."""
    return _LINK.subn(" ", text)
