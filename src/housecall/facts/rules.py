"""What a statement says that matters in medicine: which words make it a fact, and of what kind."""

from __future__ import annotations

import re
from collections.abc import Iterable

from housecall.facts.base import Kind
from housecall.facts.lexicon import Name

_NAME = "\x00"
"""Stands in for each name of a substance when a statement is read by the patterns below."""

_ALLERGY_WORD = re.compile(
    r"\b(?:all?erg\w+|anaphyla\w+|hyper-?sensitiv\w*|intoleran\w*|(?:epi|auto|jext)-?\s?pens?\b"
    r"|epinephrine auto-?injectors?|angio-?o?edema|nkd?a)"
)
_REACTION = (
    r"(?:hives|urticaria|(?:a |an? \w+ )?rash(?:es)?|welts|blisters?|spots|bumps"
    r"|swell(?:s|ed|ing)?|swollen|puffs? up|itch\w*|scratch\w*|wheez\w*|breathless|short of breath"
    r"|(?:can't|cannot|couldn't|could not|can not|stop(?:ped)?|trouble|struggl\w+|difficulty"
    r"|hard to)"
    r" breath\w*|chok\w+|clos(?:e|es|ed|ing)(?: up| off)?|tight(?:en)?\w*|shock|faint(?:s|ed)?"
    r"|pass(?:ed|es)? out|collaps\w+|vomit\w*|throw(?:s|ing)? up|threw up|violently ill"
    r"|(?:very |really |so |violently |terribly )?(?:sick|ill|unwell)|kill(?:s|ed)?"
    r"|(?:the |in |to |into )*(?:hospital\w*|er|a&e|icu|emergency room|intensive care)"
    r"|(?:bad|severe|serious|terrible|awful|nasty|scary|horrible|allergic|adverse) reactions?"
    r"|react(?:s|ed|ion|ions)?\b)"
)
_CAUSES = (
    r"(?:gives?|gave|gets?|makes?|made|causes?|caused|brings?|brought|triggers?|triggered|sends?"
    r"|sent|puts?|leaves?|left|lands?|landed|had|has|nearly|almost|once|will|would|can|could)"
)
_AFTER = (
    r"(?:from|to|with|after|because of|due to|by|of|on|following"
    r"|(?:when|whenever|if|every time|each time|any time|as soon as|the last time|last time|once)"
    r" (?:i|he|she|we|they|my \w+) \w+|(?:took|take|takes|taking|ate|eat|eats|eating|having|given))"
)
_AVOIDS = (
    r"(?:(?:can't|cannot|can not|couldn't|could not|mustn't|must not|shouldn't|should not"
    r"|must never"
    r"|never|not allowed|not supposed|not meant|unable|not able|told not|advised not"
    r"|not safe for me)"
    r"(?: to)?(?: be)?(?: ever| even| really)?"
    r" (?:take|taking|taken|have|had|eat|eating|be given|given|use|using|tolerate|touch|drink"
    r"|get|handle|stand|go near|be near|be around|come near|be treated with|consume)"
    r"|(?:don't|do not|doesn't|does not|didn't|did not|won't|can't|cannot|never) "
    r"(?:tolerate|do well|get on|get along|cope|handle|agree|sit well|mix|go well)"
    r"|(?:have to |had to |must |need to |should |i |to )?(?:avoid|avoiding|steer clear of"
    r"|stay away from|keep away from|stay off)"
    r"|please (?:no|don't give me|do not give me|never give me|not)|(?:don't|do not|never) give me"
    r"|sensitiv(?:e|ity)|react(?:s|ed|ion|ions)?(?: \w+){0,3}? (?:to|with|from)|badly to)"
)
_ALLERGIES = tuple(
    re.compile(pattern)
    for pattern in (
        # penicillin gave me hives; penicillin nearly killed me
        rf"{_NAME}[^,;]{{0,30}}?\b{_CAUSES}\b[^;]{{0,40}}?\b{_REACTION}",
        # I break out in hives from penicillin; my throat closes when I eat peanuts
        rf"\b{_REACTION}[^;]{{0,50}}?\b{_AFTER}\b[^;,]{{0,30}}?{_NAME}",
        # last time I took penicillin I couldn't breathe; with penicillin my face swells
        rf"\b{_AFTER}\b[^;,]{{0,30}}?{_NAME}[^;]{{0,50}}?\b{_REACTION}",
        # I can't take penicillin; told never to have penicillin again; avoid penicillin
        rf"\b{_AVOIDS}\b[^;,]{{0,40}}?{_NAME}",
        # penicillin is something I can't take; penicillin doesn't agree with me
        rf"{_NAME}[^;]{{0,40}}?\b(?:{_AVOIDS}|off[- ]limits|no-go|out of the question|is a no"
        r"|(?:poison\w*|deadly|lethal|fatal|dangerous|toxic) (?:to|for) (?:me|him|her|them|my))",
        rf"{_NAME} and (?:i|me) (?:don't|do not|never) (?:mix|get along|get on|agree)",
        rf"^no {_NAME}|\bno {_NAME}[^,;]{{0,10}} (?:for me|please|ever)",
        # without a known name: the reaction says enough
        r"\b(?:gives?|gave|brings?|brought|makes?|made) (?:me|him|her|my \w+)"
        r" (?:\w+ ){0,4}?(?:hives|urticaria|rash|welts|swell|wheeze|itch\w*)\b",
        r"\b(?:break|breaks|broke|come|comes|came)(?: \w+)? out in (?:\w+ ){0,2}(?:hives|rash"
        r"|welts)",
        r"\b(?:throat|tongue|lips?|face|airways?)\b[^;,]{0,20}\b(?:swell|swells|swelled|swollen"
        r"|close"
        r"|closes|closed)\b[^;]{0,15}\b(?:when|if|after|whenever|from|because)\b",
    )
)

_PREGNANCY = re.compile(
    r"\b(?:pregnan\w+|breast-?\s?feed\w*|breast-?fed|nursing (?:a|my|our|him|her|the)\b"
    r"|expecting (?:a|an|our|my|twins|in|another)\b|(?:baby|child) (?:is )?(?:on the way|due)"
    r"|\d+ (?:weeks|wks|months)(?: and \w+ days?)? (?:along|gone|gestation)|trimester|due date"
    r"|trying (?:to conceive|for a (?:baby|child)|to get pregnant)|ttc|ivf|miscarr\w+|postpartum"
    r"|gave birth|give birth|stillb\w+|c-section|had a baby|ectopic|pre-?eclampsia|antenatal)\b"
)

_PERSON = r"(?:i|he|she|we|they|my \w+)"
_SINCE = (
    r"(?:also |only |still |usually |currently |now |already |just |always |recently |have |had )*"
)
_MEDICINE = re.compile(
    rf"\b{_PERSON} {_SINCE}(?:take|takes|took|taking|use|uses|used|inject|injects|swallow\w*)"
    r" [^,;]{0,30}?\b(?:every|each|once|twice|daily|nightly|weekly|at night|in the morning"
    r"|per day|a day|tablets?|pills?|capsules?|drops|patch(?:es)?|puffs?|injections?|shots?)\b"
    rf"|\b{_PERSON} (?:\w+ ){{0,2}}(?:was|were|been|got|am|is|'m)? ?(?:prescribed|put on)\b"
    r"|\b\d+(?:[.,]\d+)? ?(?:mg|mcg|\u00b5g|ug|ml|iu|units?|milligrams?|micrograms?)\b"
    r"|\b(?:tablets?|pills?|capsules?|prescriptions?|prescribed|overdose\w*)\b"
)

_CONDITION = re.compile(
    r"\b(?:diagnos(?:ed|is)\b|(?:family |medical |past )?history of\b|suffer(?:s|ed"
    r"|ing)? (?:from|with)\b"
    r"|(?:have|has|had|got) (?:a |an )?(?:\w+ )?(?:chronic|autoimmune|genetic|heart|kidney|liver"
    r"|lung"
    r"|blood|thyroid|bleeding|clotting|immune|skin) (?:condition|disease|disorder|problem"
    r"|failure|attack)"
    r"|(?:had|have) (?:my|his|her) \w+ (?:\w+ )?(?:removed|out|replaced)\b|(?:removed"
    r"|taken out) my\b"
    r"|(?:\w+ )?(?:surgery|operation|transplant)\b|test(?:ed)? positive\b|(?:only "
    r"|just )?one kidney"
    r"|pre-?existing|underlying condition|in remission|terminal)\b"
)

_AGE = re.compile(
    r"\b(?:\d{1,3}[- ]?(?:years?|yrs?|yo|y/o|y\.o\.?|months?|weeks?|days?)[- ]?(?:old|of age)"
    r"|\d{1,3} ?(?:yo|y/o)\b"
    r"|(?:i'm|i am|im|he's|he is|she's|she is|my \w+ is|my \w+'s|just turned|turned|turning|aged?:?"
    r"|age is|age of|am now|is now) (?:about |nearly |almost |around |only )?\d{1,3}"
    r"(?=$|[.,;!)]|\s+(?:and|but|years?|yrs?|now|with|today|male|female|m\b|f\b))"
    r"|born (?:in|on) |birth ?(?:date|day)|date of birth|dob\b"
    r"|\d{1,3} ?[mf]\b|[mf] ?/? ?\d{2}\b|in my (?:early |mid |late )?\w+ties"
    r"|teenager|pensioner|newborn|toddler)"
)

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DATE = re.compile(
    rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH}|{_MONTH} \d{{1,4}}"
    rf"|(?:in|since|last|next|until|by|early|late|mid|back in|of) {_MONTH}"
    r"|\d{4}-\d{2}-\d{2}|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}"
    r"|(?:in|since|from|of|until|around|before|after|back in|during|till) (?:19|20)\d\d"
    r"|(?:a|an|one|two|three|four|five|six|seven|eight|nine|ten|few|several|couple of|\d+)"
    r" (?:hours?|days?|nights?|weeks?|months?|years?) ago"
    r"|(?:since|for) (?:the (?:last|past) |about |over |almost |nearly |at least )?"
    r"(?:a|an|one|two|three|four|five|six|seven|eight|nine|ten|few|several|\d+)"
    r" (?:hours?|days?|nights?|weeks?|months?|years?)"
    r"|since (?:yesterday|last|this|childhood|birth|monday|tuesday|wednesday|thursday|friday"
    r"|saturday"
    r"|sunday|christmas)|last (?:period|dose|scan|check-?up|blood test|vaccination))\b"
)

_NEGATION = re.compile(
    r"\b(?:not|no|never|none|without|nobody|neither|nor|den(?:y|ies|ied)|free of|\w+n't|cannot)\b"
    r"(?! only| just| sure)"
)
_REACH = 40
"""Characters before a word in which a negation is about it."""

_RELATIVE = re.compile(
    r"(?<=\bmy )(?:son|daughter|child|kid|baby|wife|husband|partner|mother|mum|mom|father|dad"
    r"|sister"
    r"|brother|friend|grandmother|grandfather|grandma|grandpa|aunt|uncle|cousin|boyfriend"
    r"|girlfriend"
    r"|patient|toddler|twin|niece|nephew)\b"
)
_SOMEBODY = re.compile(r"\b(?:he|she|they)\b")
_ME = re.compile(r"\b(?:i|i'm|i've|me|my|mine)\b")
_ME_FIRST = re.compile(r"(?:\w+ ){0,2}?(?:i|i'm|i've)\b")


def kinds(plain: str, names: Iterable[Name]) -> set[Kind]:
    """What kinds of fact a statement holds."""
    names = tuple(names)
    found: set[Kind] = set()
    if is_allergy(plain, names):
        found.add("allergy")
    searches: tuple[tuple[Kind, re.Pattern[str]], ...] = (
        ("pregnancy", _PREGNANCY),
        ("medicine", _MEDICINE),
        ("condition", _CONDITION),
        ("age", _AGE),
        ("date", _DATE),
    )
    found |= {kind for kind, pattern in searches if pattern.search(plain)}
    for name in names:
        if name.kind != "allergen":
            found.add(name.kind)
    return found


def is_allergy(plain: str, names: Iterable[Name]) -> bool:
    """Whether a statement tells of an allergy, a bad reaction, or something not to be given."""
    if _ALLERGY_WORD.search(plain):
        return True
    veiled = _veil(plain, (name for name in names if name.kind != "condition"))
    return any(pattern.search(veiled) for pattern in _ALLERGIES)


def is_negated(plain: str, kind: Kind, names: Iterable[Name]) -> bool:
    """Whether a statement says that something is not so ("I'm not allergic to latex")."""
    if re.match(r"nkd?a\b", plain):
        return True
    if kind == "allergy":
        places = [match.start() for match in _ALLERGY_WORD.finditer(plain)]
    elif kind == "pregnancy":
        places = [match.start() for match in _PREGNANCY.finditer(plain)]
    else:
        places = [name.start for name in names if name.kind == kind]
    return any(_negation_before(plain, place) for place in places)


def about(plain: str) -> str:
    """Who a statement is about: ``me``, or a word for somebody else."""
    if _ME_FIRST.match(plain):
        return "me"
    other = _RELATIVE.search(plain) or (None if _ME.search(plain) else _SOMEBODY.search(plain))
    return other[0] if other else "me"


def _negation_before(plain: str, place: int) -> bool:
    before = plain[max(0, place - _REACH) : place]
    clause = re.split(r"[,;:]|\bbut\b|\band\b", before)[-1]
    return _NEGATION.search(clause) is not None


def _veil(plain: str, names: Iterable[Name]) -> str:
    """The statement with one sign in place of each name."""
    pieces: list[str] = []
    end = 0
    for name in names:
        pieces += [plain[end : name.start], _NAME]
        end = name.end
    return "".join([*pieces, plain[end:]])
