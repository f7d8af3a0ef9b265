"""Answers that teach a model nothing, or something wrong."""

from __future__ import annotations

import re

from housecall.cleaning.base import words
from housecall.cleaning.site import GREETING, count_links, strip_names

_TINY = 8
"""Words below which an answer, its greetings aside, only names a disease or a medicine."""

_PLEASANTRY = re.compile(
    rf"^{GREETING}\s*[,.!]+"
    r"|\b(?:thanks?|thank you)\b[^.!?]{0,60}[.!?]"
    r"|\bI (?:have|had|can|could)?\s*(?:gone|went|read|seen|understand|understood)\b[^.!?]{0,100}"
    r"\b(?:quer(?:y|ies)|questions?|concerns?|post|case|problem|history|message|data|details?"
    r"|reports?|pictures?|images?|photos?|films?|attachments?)\b[^.!?]{0,40}[.!?]"
    r"|\bhope\b[^.!?]{0,40}\b(?:helps?|helpful|answer(?:ed|s)?|solve[ds]|clarified)\b[^.!?]{0,100}[.!?]"
    r"|\bif you have (?:any|further|more)\b[^.!?]{0,40}\b(?:question|quer|doubt)[^.!?]{0,80}[.!?]"
    r"|\b(?:take care|good luck|best wishes|regards)"
    r"\s*(?:[.!]|$)",
    re.IGNORECASE,
)
# A whole sentence that only sends on: what comes with more words is an answer.
_REFERRAL = re.compile(
    r"(?:(?<=[.!?])|^)\s{0,3}"
    r"(?:(?:please|kindly|so|then|i|you|would|should|must|can|may|better|suggest|advise|recommend|need"
    r"|have|it|is|to|that)\s+){0,8}"
    r"(?:consult|contact|see|visit|meet|revert|talk to|speak to)\s+(?:\S+\s+){0,5}?"
    r"(?:doctor|physician|specialist|practitioner|\w+(?:ologist|ician|iatrist)|dentist)s?\b"
    r"[^.!?]{0,30}(?:[.!?]|$)",
    re.IGNORECASE,
)

_ENDS = re.compile(r"[.!?\u2026\u3002]+[\"'\u201d\u2019)\]*_}]*$|[.!?]\s*(?::-?\)|;-?\))$")
_LIST_ITEM = re.compile(r"^\s*(?:\d{1,2}\s?[.)]|[-*\u2022])\s*\S")
# Nothing comes behind what announces it.
_ANNOUNCED_LAST = re.compile(
    r"(?::|\bas follows,?|\bthe following,?)\s*$"
    r"|\b(?:the following|these (?:\w+ )?(?:steps|suggestions|tips)|here (?:is|are) (?:the|my))\b"
    r"[^.?!:]{0,150}\.$"
)
_CLOSING = re.compile(
    r"(?:(?:many )?thanks(?: (?:and|&) (?:take care|regards))?|thank you"
    r"|(?:with |best |kind )*regards"
    r"|take care|good luck|best wishes|all the best|get well soon|wish(?:ing)? you [a-z ]{1,40}"
    r"|hope (?:this|it|that) helps[a-z ]{0,20}|god bless(?: you)?)[\s,]*$",
    re.IGNORECASE,
)

# What announces a list ...
_ANNOUNCES = (
    r"(?:following|follows|these|due to|are|is|include[sd]?|such as|range from|suggest|suggest you"
    r"|would like you to|involves|treated by|details|questions?|tests?|medicines|about|done|if)"
)
# ... and how a sentence goes on when the list is gone.
_GOES_ON = (
    r"(?:I|In|If|As|It|Its|We|Please|Kindly|Finally|However|Considering|Revert|Consult"
    r"|For more|Take care|Try all"
    r"|Avoid|With respect|Regarding|Depending|Based|Besides|Meanwhile|Here|Hope|These|This"
    r"|They|You|Your|So|When|Also|Now|Then|There|Rest of|Treatment|Investigations?|Given"
    r"|Later|Take these)"
)
_LOST_LIST = re.compile(
    rf"\b{_ANNOUNCES}\b[^.:?!\n]{{0,60}}(?::|\b(?:as follows|the following),)\s+{_GOES_ON}\b"
    r"(?![^.!?\n]{0,60}:\s*\d)"
)

_NOTE_TO_PROMPTER = re.compile(
    r"\(?\bend of (?:the )?conversation\b\)?"
    r"|\b(?:(?:one|single) back and forth|(?:the|this|requested) prompt\b|this exercise"
    r"|the sake of (?:the|this) exercise|as an ai(?: language model)?\b|i am an ai\b|i'm an ai\b"
    r"|create a dialogue|generate a new one|patient and doctor continue"
    r"|the (?:doctor|conversation)(?:'s response| has (?:given|provided)| would likely| ends here"
    r"| could continue))",
    re.IGNORECASE,
)


def is_tiny(text: str) -> bool:
    """True when fewer than 8 words are left of an answer without its greetings."""
    return words(_PLEASANTRY.sub(" ", text.strip())) < _TINY


def only_refers(text: str) -> bool:
    """True when fewer than 8 words are left without greetings and "consult a doctor"."""
    rest, links = count_links(strip_names(text))
    rest, referrals = _REFERRAL.subn(" ", _PLEASANTRY.sub(" ", rest))
    return links + referrals > 0 and words(rest) < _TINY


def is_cut(text: str) -> bool:
    """True when the last sentence has no end: no full stop, not the item of a list, no regards."""
    last = text.rstrip().rpartition("\n")[2].strip()
    if _ENDS.search(last) or _CLOSING.search(last):
        return False
    return not _LIST_ITEM.match(last) or last[-1] in ",:;-"


def lost_list(text: str) -> bool:
    """True when a list is announced and what comes next is another sentence, or nothing."""
    return bool(_LOST_LIST.search(text) or _ANNOUNCED_LAST.search(text))


def speaks_of_the_exercise(text: str) -> bool:
    """True when a language model that wrote the answer speaks to whoever prompted it."""
    return bool(_NOTE_TO_PROMPTER.search(text))
