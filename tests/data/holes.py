"""Finds English sentences of extracted text that lost a part in the middle.

The rules look for words and signs that cannot stand side by side. They know nothing of
markup and share no code with what they check.
"""

import re

# What cannot be the end of a phrase, whatever sign follows.
_OPEN_WORDS = "the|an|its|their|whose|every|per|between"
_RULES = {
    "two blanks": r"  ",
    "a blank before a sign": r" [,;:!?)\]](?=\s|$)| \.(?=\s|$)",
    "empty brackets": r"\(\s*[,;:–-]?\s*\)|\[\s*\]|“\s*”",
    "a sign beside a bracket": r"[(\[]\s*[,;:]|[,;]\s*[)\]]",
    "two signs": r"[,;:]\s*[,;:]|[,;]\s*\.(?!\.)",
    "an open word before a sign": rf"(?<![-–])\b(?:{_OPEN_WORDS}) ?[.,;:!?)](?!\w)",
    "of before a sign": r"\b(?:of|than|into|from|at|about|by)\s*[.;!?)](?!\w)",
    "an open word before and": rf"\b(?:{_OPEN_WORDS})\s+"
    r"(?:and|or|of|is|was|were|million|billion)\b",
    "of before of": r"\b(?:of|from|at|into) (?:of|is|was|were|million|billion)\b|"
    r"\bat and\b",
    "a number before of": r"\b(?:around|about|approximately|nearly) (?:of|per|long|"
    r"wide|high|deep|apart|south|north|east|west)\b|\b(?:than (?:of|per)|of of)\b",
    "a range without its numbers": r"\bfrom (?:in|to|on)\b|\bup to (?:of|from|in)\b",
    "a measure without its number": r"\b(?:height|altitude|speed|length|velocity|"
    r"apogee|distance|elevation|depth|weight|population)s? of(?: and| in|,|\.)",
    "a preposition at its begin": r"^(?:At|Of|From|With|By),|(?<=\s)[Aa]n? -\w",
    "a verb before or": r"\b(?:costs?|measures?|weighs?) (?:or|million|billion)\b",
    "and before a sign": r"\b(?:and|or|nor)\s*[.;!?)](?=\s|$)",
    "and twice": r"\b(?:and|or) (?:and|or|million|billion)\b",
    "a clause without its subject": r"\bwhere (?:is|are|was|denotes|and) ",
    "a sentence without its subject": r"^(?:The )?(?:sank|is|was|are|were|has|had)\b",
    "a sign without its number": r"(?<![\w.])[$£€] (?=\w)|\([$£€]\)(?! [A-Z])",
    "a unit without its number": r"\b(?:about|of|is|was|to|the|a|by|over|covers) "
    r"(?:km|kg|cm|mm|mi|ft|m²|km²)\b",
    "joined years": r"\b1\d{3}[12]\d{3}\b",
}
_COMPILED = {reason: re.compile(rule) for reason, rule in _RULES.items()}


def find_holes(sentence: str) -> list[str]:
    """The reasons why a sentence cannot be whole; none for most that are."""
    return [reason for reason, rule in _COMPILED.items() if rule.search(sentence)]
