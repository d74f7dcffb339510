"""Splits plain text into sentences by rules, for English and stops of other scripts.

A stop ends a sentence if blanks and a possible first word follow, and the word before
it is neither an initial nor an abbreviation that belongs to the next word. The stops of
other scripts are never part of words, so they need fewer rules. Libraries need a
trained model for each language (NLTK, Stanza), or end a sentence at every stop.
"""

import re

# For use in character classes of patterns. The stops are those of Unicode's property
# Sentence_Terminal, without the Burmese comma, with the Tibetan shad.
CLOSING = "\"'”’»›)\\]」』）】》〉〕］｝〗〙〛｣༽"
_OPENING = "\"'“‘«(\\["
_LATIN = ".!?…"
# Blanks follow them. Without any, ۔ is part of an abbreviation, ։ of a time of day.
_SPACED = "۔։؟؝؞܀܁܂‼‽⁇⁈⁉⸮⸼"
# Blanks need not follow: danda, Tibetan, Burmese, Ethiopic, Khmer, full-width, others.
_UNSPACED = "।॥།༎༏༐༑။።፧፨។៕。！？｡﹒﹖﹗᠃᠉߹᙮᜵᜶᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫"
STOPS = f"{_LATIN}{_SPACED}{_UNSPACED}．"

# A Khmer ។ល។ is an abbreviation, a full-width stop before a digit a decimal point.
_UNSPACED_STOP = rf"(?:(?<!។ល)[{_UNSPACED}](?!ល។)|．(?!\d)|፡፡)"
_STOP = re.compile(
    # First any stop, since a pattern that begins with a character class is fast.
    rf"(?P<sign>[{STOPS}፡])(?:"
    # Stops with closing quotes, then blanks before a sentence's first character.
    rf"(?<=[{_LATIN}])(?<![{_LATIN}]{{2}})(?P<more>[{_LATIN}]*+)[{CLOSING}]*+\s++"
    rf"(?=(?P<opening>[{_OPENING}]*)(?P<next>\w+))"
    rf"|(?<=[{_SPACED}])(?P<spaced>[{_SPACED}{_LATIN}]*+[{CLOSING}]*+)(?P<blanks>\s*+)"
    rf"|(?:(?<=[{_UNSPACED}])(?<!។ល.)(?!ល។)|(?<=．)(?!\d)|(?<=፡)፡)"
    rf"(?:{_UNSPACED_STOP}|[!?…])*+"
    # The number of a verse is between two signs; Tibetan signs have a blank between.
    r"(?:(?<=[।॥])\s?\d{1,4}\s?[।॥]++|(?<=[།༎])\s[།༎]++)?+"
    rf"(?P<closing>(?:(?![\"'])[{CLOSING}]|[\"'](?=\s))*+)\s*+)"
)
# After quoted speech, these continue the sentence around it.
_AFTER_SPEECH = frozenset("と、，；：,;:")
_LAST_WORD = re.compile(rf"(?:^|(?<=[\s—–/{_OPENING}-]))[^\s—–/\"“‘«(\[-]*\Z")
_MAX_WORD_CHARS = 64

# A name or a number always follows, so these never end a sentence.
_TITLES = frozenset(
    """mr mrs ms messrs mme mlle dr prof rev hon gen brig col capt lt sgt maj cmdr adm
    sen rep gov pres amb st mt ft fr vs v viz cf e.g i.e al ca approx incl esp
    lieut asst supt""".split()
)
# These may end a sentence: they do if one of `_STARTERS` follows.
_ABBREVIATIONS = frozenset(
    """inc ltd co corp bros jr sr esq dept univ assn ave blvd rd a.m p.m a.d b.c
    ph.d m.d b.a m.a ll.d d.c u.s u.k u.n u.s.a u.s.s.r e.u n.y jan feb mar apr jun jul
    aug sept sep oct nov dec est""".split()
)
# These are abbreviations only before a number: No. 5, pp. 10-12.
_BEFORE_NUMBERS = frozenset(
    """no nos p pp vol vols fig figs eq eqs art arts sec secs ch chap c b d r op cap par
    ver v stat fl""".split()
)
_STARTERS = frozenset(
    """The This That These Those There Then They Their It Its He His She Her We Our I
    You Your In On At By For From With Without As If When While Where What Who Why How
    But And Or So Yet Although Though Because Since After Before During However
    Therefore Thus Nor Not No Let To My All Some Many Most Each Every Such Under Upon
    One An A""".split()
)


def split_sentences(paragraph: str) -> list[str]:
    """Splits a paragraph where a sentence ends.

    Args:
      paragraph: Plain text; line ends count as blanks.

    Returns:
      The sentences, blanks inside reduced to one; none for a blank paragraph.
    """
    text = " ".join(paragraph.split())
    sentences = []
    begin = 0
    for match in _STOP.finditer(text):
        if match["next"] and not _ends_sentence(text, begin, match):
            continue
        if match["blanks"] == "":
            continue
        end = match.end()
        following = text[end : end + 1]
        if match["closing"] and following in _AFTER_SPEECH:
            continue
        # A straight quote that ends a speech, and does not begin the next one.
        if (
            following == '"'
            and text[end - 1] != " "
            and text.count('"', begin, end) % 2
        ):
            end += 1
        sentences.append(text[begin:end].rstrip())
        begin = end
    if begin < len(text):
        sentences.append(text[begin:].strip())
    return sentences


def _ends_sentence(text: str, begin: int, match: re.Match[str]) -> bool:
    """Whether the sentence that began at `begin` ends at this stop."""
    following = match["next"]
    if following[0].islower():
        return False
    if match["sign"] != "." or match["more"]:
        return True
    # No abbreviation is longer; without a limit this would take quadratic time.
    before = text[max(begin, match.start() - _MAX_WORD_CHARS) : match.start()]
    word = _LAST_WORD.search(before)[0]
    if not word:
        # ". . ." or a stop alone; after closing brackets and quotes it is an end.
        return before.endswith(tuple("\"'”’»)]."))
    closed = match.end("more") < len(match[0].rstrip()) + match.start()
    return closed or not _expects_more(word, word == before, following)


def _expects_more(word: str, is_first: bool, following: str) -> bool:
    """Whether the stop after `word` belongs to the word, and the sentence continues."""
    lower = word.lower()
    if lower in _TITLES:
        return True
    if lower in _BEFORE_NUMBERS and (len(word) > 1 or word.islower()):
        return following[0].isdigit() or lower == "v"
    if is_first and (word.isdigit() or len(word) == 1):
        return True  # the number of an item: 1. or a.
    is_initial = len(word) == 1 and word.isalpha() and word != "I"
    # U.S, N.A.T.O, J.R: single letters with stops between them.
    is_initials = re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", word) is not None
    if is_initial or is_initials or lower in _ABBREVIATIONS:
        return following not in _STARTERS
    return False
