"""Text that is computed: templates' values, text functions, and language variants.

A function for a template takes the rendered arguments by name, positional ones by
their numbers; `0` is the template's name. Text functions, such as {{formatnum:3}}, take
a list of texts. Both return the text that a reader sees, None if unknown.

Source: mediawiki.org, Help:Magic words, Help:Extension:ParserFunctions, and Writing
systems/Syntax. No library evaluates them without a running wiki.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from bert_tf.data.text.mediawiki.incomplete_sentences import HOLE

Arguments = Mapping[str, str]
TextFunction = Callable[[Sequence[str]], str | None]

# Becomes a blank after a digit: 1{{frac|1|2}} is not 11/2.
AFTER_DIGIT = "\x02"

_RANGES = {"-": "–", "–": "–", "x": " × ", "×": " × ", "*": " × ", "±": "±", "+/-": "±"}
_RANGES |= {"by": " by ", "to": " to ", "and": " and ", "or": " or ", "to(-)": " to "}
_RANGES |= {"and(-)": " and ", "to about": " to about ", ",": ", "}
_UNITS = {
    "c": "°C", "f": "°F", "k": "K", "km2": "km²", "m2": "m²", "cm2": "cm²",
    "mm2": "mm²", "km3": "km³", "m3": "m³", "cm3": "cm³", "sqmi": "sq mi",
    "sqft": "sq ft", "sqkm": "km²", "sqm": "m²", "sqin": "sq in", "sqyd": "sq yd",
    "cuft": "cu ft", "cuyd": "cu yd", "cumi": "cu mi", "usgal": "US gal",
    "impgal": "imp gal", "kph": "km/h", "acre": "acres",
    "m3/s": "m³/s", "cuft/s": "cu ft/s", "g/cm3": "g/cm³", "kg/m3": "kg/m³",
    "pd/sqmi": "per square mile", "pd/km2": "per km²", "/sqmi": "per square mile",
    "/km2": "per km²",
}  # fmt: skip
_SIZES = {"e3": "thousand", "e6": "million", "e9": "billion"}
_SMALLER_UNITS = frozenset("in ft yd oz lb chain cwt furlong mi st qtr pt".split())
_MONTHS = """January February March April May June July August September October
    November December""".split()
_DATE_OPTIONS = frozenset("dmy mdy ymd iso none df mf y yes no".split())
_LAKHS = {"k": "thousand", "l": "lakh", "m": "million", "c": "crore", "b": "billion"}
_LAKHS |= {"t": "trillion", "lc": "lakh crore"}
_ACCIDENTALS = {"flat": "♭", "sharp": "♯", "natural": "♮", "b": "♭", "#": "♯"}
_ACCIDENTALS |= {"doubleflat": "𝄫", "doublesharp": "𝄪"}
_LABELS = frozenset("lang pron us uk also audio local small en us-uk".split())
_NUMBER = re.compile(r"[-−+]?\d[\d,.\s]*(?:/\d+)?")
_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*")
_RAISED = str.maketrans("0123456789-−+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻⁺")


LANGUAGES = dict(
    entry.strip().split(" ", 1)
    for entry in """
    af Afrikaans|am Amharic|ang Old English|ar Arabic|arc Aramaic|az Azerbaijani|
    be Belarusian|bg Bulgarian|bn Bengali|bo Tibetan|br Breton|bs Bosnian|ca Catalan|
    cop Coptic|cs Czech|cy Welsh|da Danish|de German|el Greek|en English|eo Esperanto|
    es Spanish|et Estonian|eu Basque|fa Persian|fi Finnish|fil Filipino|fo Faroese|
    fr French|fro Old French|ga Irish|gd Scottish Gaelic|gem Germanic|gl Galician|
    got Gothic|grc Ancient Greek|gu Gujarati|haw Hawaiian|he Hebrew|hi Hindi|
    hr Croatian|hu Hungarian|hy Armenian|id Indonesian|is Icelandic|it Italian|
    ja Japanese|ka Georgian|kk Kazakh|km Khmer|kn Kannada|ko Korean|ku Kurdish|
    ky Kyrgyz|la Latin|lb Luxembourgish|lo Lao|lt Lithuanian|lv Latvian|mi Māori|
    mk Macedonian|ml Malayalam|mn Mongolian|mr Marathi|ms Malay|mt Maltese|my Burmese|
    nah Nahuatl|ne Nepali|nl Dutch|no Norwegian|non Old Norse|oc Occitan|pa Punjabi|
    pl Polish|ps Pashto|pt Portuguese|qu Quechua|ro Romanian|ru Russian|rus Russian|
    sa Sanskrit|sco Scots|sd Sindhi|sh Serbo-Croatian|si Sinhala|sk Slovak|sl Slovene|
    so Somali|sq Albanian|sr Serbian|sv Swedish|sw Swahili|syr Syriac|ta Tamil|
    te Telugu|tg Tajik|th Thai|tl Tagalog|tr Turkish|tt Tatar|ug Uyghur|uk Ukrainian|
    ur Urdu|uz Uzbek|vi Vietnamese|yi Yiddish|yo Yoruba|zh Chinese|zu Zulu
    """.split("|")
)  # fmt: skip


def raised(text: str) -> str:
    """A number as an exponent; other text as it is."""
    return text.translate(_RAISED) if re.fullmatch(r"[-−+]?\d+", text) else text


def positional(arguments: Arguments) -> list[str]:
    """The arguments 1, 2, ... up to the first that is not given."""
    found: list[str] = []
    while (text := arguments.get(str(len(found) + 1))) is not None:
        found.append(text)
    return found


def convert(arguments: Arguments) -> str | None:
    """{{convert|5|to|10|km|mi}}: the measure that was given, 5 to 10 km."""
    texts = positional(arguments)
    if len(texts) < 2:
        return None
    number, index = texts[0], 1
    while index + 1 < len(texts) and texts[index].lower() in _RANGES:
        number += _RANGES[texts[index].lower()] + texts[index + 1]
        index += 2
    if index == len(texts) or not number or not texts[index]:
        return None
    if arguments.get("disp", "").startswith(("out", "number", "unit", "preunit")):
        return None  # Only a part, or the other measure.
    unit = texts[index]
    joint = "-" if arguments.get("adj") in ("on", "mid", "pre", "1") else " "
    if size := _SIZES.get(unit[:2]):
        unit = unit[2:]
        number += f" {size}"
    measure = number + joint + _UNITS.get(unit.lower(), unit)
    rest = texts[index + 1 : index + 3]
    if len(rest) == 2 and _NUMBER.fullmatch(rest[0]) and rest[1] in _SMALLER_UNITS:
        measure += f" {rest[0]} {rest[1]}"  # {{convert|6|ft|2|in}}
    return measure


def measure(arguments: Arguments) -> str | None:
    """{{unité|3|m|s|-1}}, {{unité|9|m|2}}: 3 m·s⁻¹, 9 m²."""
    number, *units = positional(arguments) or [""]
    power = raised(arguments.get("e", ""))
    text = f"{number}×10{power}" if power else number
    joint = " "
    for unit in filter(None, units):
        is_exponent = joint != " " and re.fullmatch(r"[-−]?\d", unit)
        text += raised(unit) if is_exponent else joint + unit
        joint = "·"
    return text if number else None


def coordinates(arguments: Arguments) -> str | None:
    """{{coord|13|19|N|169|9|W}}: 13°19′N 169°9′W; nothing if the title has it."""
    if arguments.get("display", "inline") in ("title", "t"):
        return ""
    sides: list[str] = []
    numbers: list[str] = []
    for text in positional(arguments):
        if text in ("N", "S", "E", "W", "O"):
            sides.append(
                "".join(map("".join, zip(numbers, "°′″", strict=False))) + text
            )
            numbers = []
        elif _NUMBER.fullmatch(text):
            numbers.append(text)
    if not sides and len(numbers) >= 2:
        north, east = numbers[:2]
        sides.append(f"{north.lstrip('-−')}°{'S' if north[0] in '-−' else 'N'}")
        sides.append(f"{east.lstrip('-−')}°{'W' if east[0] in '-−' else 'E'}")
    return " ".join(sides) if len(sides) == 2 else None


def date(arguments: Arguments) -> str | None:
    """{{start date|1990|3|5}}: March 5, 1990; {{date|3|mars|1990}}: 3 mars 1990."""
    texts = [
        t for t in positional(arguments)[:3] if t and t.lower() not in _DATE_OPTIONS
    ]
    if not texts or not texts[0].isdecimal() or not all(map(str.isdecimal, texts)):
        return " ".join(texts) or None
    day_first = (
        arguments.get("df", "n")[:1] in ("y", "1") or "dmy" in arguments.values()
    )
    return _date(texts, day_first)


def _date(texts: list[str], day_first: bool) -> str | None:
    """Year, month and day, as many as there are, in English."""
    if len(texts) == 1:
        return texts[0]
    if len(texts[0]) < 3:
        return None  # {{date|3|5|1990}}: the month in the language of the article.
    if not 1 <= int(texts[1][:3]) <= 12:
        return " ".join(texts)
    year, month = texts[0], _MONTHS[int(texts[1][:3]) - 1]
    if len(texts) == 2:
        return f"{month} {year}"
    day = texts[2].lstrip("0")
    return f"{day} {month} {year}" if day_first else f"{month} {day}, {year}"


def as_of(arguments: Arguments) -> str | None:
    """{{as of|2014|3|lc=y}}: as of March 2014."""
    if arguments.get("alt"):
        return arguments["alt"]
    texts = [text for text in positional(arguments)[:3] if text]
    if not texts:
        return None
    day_first = arguments.get("df") != "US"
    when = (
        _date(texts, day_first) if all(map(str.isdecimal, texts)) else " ".join(texts)
    )
    words = "Since" if arguments.get("since") else "As of"
    small = arguments.get("lc", "").lower() in ("y", "yes", "on", "true", "1")
    return f"{words.lower() if small else words} {when}"


def age(arguments: Arguments) -> str | None:
    """{{age|1990|3|5|2010|1|1}}: 19. Without a second date it depends on the day."""
    texts = positional(arguments)
    if len(texts) != 6 or not all(text.isdecimal() and len(text) < 5 for text in texts):
        return None
    year, month, day, to_year, to_month, to_day = map(int, texts)
    return str(to_year - year - ((to_month, to_day) < (month, day)))


def rupees(arguments: Arguments) -> str | None:
    """{{INRConvert|5|c}}: ₹5 crore."""
    size = arguments.get("2", "")
    words = ["₹" + arguments.get("1", ""), _LAKHS.get(size, size)]
    return " ".join(filter(None, words)) if arguments.get("1") else None


def accidental(arguments: Arguments) -> str | None:
    """{{music|flat}}: ♭."""
    return _ACCIDENTALS.get(arguments.get("1", "").lower())


def sounds(arguments: Arguments) -> str | None:
    """{{IPAc-en|lang|k|æ|t}}: /kæt/."""
    texts = [t for t in positional(arguments) if t and t.lower() not in _LABELS]
    return f"/{''.join(texts).replace('_', ' ')}/" if texts else None


def interlanguage_link(arguments: Arguments) -> str | None:
    """{{ill|Text|de|Ziel}} and the older {{ill|de|Text|Ziel}}: Text."""
    first = arguments.get("1", "")
    is_old = _LANGUAGE_CODE.fullmatch(first) and len(positional(arguments)) > 2
    names = ("4", "2") if is_old else ("lt", "display", "label", "1")
    return next(filter(None, map(arguments.get, names)), None)


def author_and_year(arguments: Arguments) -> str | None:
    """{{harvtxt|Smith|Jones|1990}}: Smith & Jones (1990)."""
    texts = [text for text in positional(arguments) if text]
    return f"{_authors(texts)} ({texts[-1]})" if len(texts) > 1 else None


def author_year(arguments: Arguments) -> str | None:
    """{{harvnb|Smith|Jones|1990}}: Smith & Jones 1990."""
    texts = [text for text in positional(arguments) if text]
    return f"{_authors(texts)} {texts[-1]}" if len(texts) > 1 else None


def _authors(texts: list[str]) -> str:
    *names, last = texts[:-1]
    return f"{', '.join(names)} & {last}" if names else last


def address(arguments: Arguments) -> str | None:
    """{{url|http://example.org/|Text}}: Text, or example.org."""
    shown = re.sub(r"^\w+://|/$", "", arguments.get("1", ""))
    return arguments.get("2") or shown or None


def ship(arguments: Arguments) -> str | None:
    """{{HMS|Hood|51|6}}, {{ship|HMS|Hood|51|6}}: HMS Hood; its name alone for 2."""
    prefix, *rest = [arguments["0"].upper(), *positional(arguments)]
    if prefix == "SHIP" and rest:
        prefix, *rest = rest
    name = rest[0] if rest else ""
    form = rest[2] if len(rest) > 2 else ""
    return (name if form == "2" else f"{prefix} {name}".strip()) if name else None


# Prefixes of templates, in the languages of the large Wikipedias, and of expansions.
PREFIXES = frozenset(
    """template vorlage modèle mall plantilla predefinição szablon шаблон sjabloon
    skabelon mal malline šablona 模板 subst safesubst msg msgnw raw""".split()
)
_VARIANT_CODE = r"(?:zh|gan|sr|sh|kk|ku|tg|uz|iu|shi|crh|tly|wuu|ban|mni)(?:-[a-z]+)*"
_VARIANT = re.compile(rf"\s*({_VARIANT_CODE})\s*:")
_NEXT_VARIANT = re.compile(rf";(?=\s*{_VARIANT_CODE}\s*:|\s*$)")
_PREFERRED = ("zh-hans", "zh-cn", "zh", "sr-ec", "sr-cyrl")
_BRACES = re.compile(r"-\{(?!\{)|\{\{|\}\}|\}-")
# A: a rule for the page, shown here too; D: shown; R: as it is. Others show nothing.
_SHOWN_FLAGS = frozenset("ADRS")
_MAX_DEPTH = 10  # MediaWiki's.


def _number(text: str) -> str:
    return text.replace(",", "").replace("\u00a0", "")


def _plural(texts: Sequence[str]) -> str | None:
    number = _number(texts[0])  # {{plural:2|a cat|cats}}, also {{plural:2|2=two|cats}}.
    exact = [text.split("=", 1)[1] for text in texts if text.startswith(f"{number}=")]
    forms = [text for text in texts[1:] if not re.match(r"\d+=", text)]
    return next(iter(exact + (forms[:1] if number == "1" else forms[-1:])), None)


def _at(texts: Sequence[str], index: int) -> str:
    return texts[index] if index < len(texts) else ""


def _if(compared: Sequence[str], text: str) -> str | None:
    """The text, unless it depends on something unknown."""
    return None if HOLE in "".join(compared) else text


def _format_number(texts: Sequence[str]) -> str:
    return _number(texts[0]) if "R" in texts[1:] else texts[0]


def _padded(texts: Sequence[str], *, left: bool) -> str:
    digits = _at(texts, 1)
    width = 0
    if digits.isdecimal():
        width = min(int(digits), 500) if len(digits) < 4 else 500
    sign = _at(texts, 2)[:1] or "0"
    return texts[0].rjust(width, sign) if left else texts[0].ljust(width, sign)


_FUNCTIONS: dict[str, TextFunction] = {
    "formatnum|#formatnum|zahlenformat|formateranum|formatteernum|numformatteren|"
    "formatonúmero|formatanum|formatarnum|форматчисла": _format_number,
    "lc|klein|нижний регистр|нрег": lambda texts: texts[0].lower(),
    "uc|gross|верхний регистр|врег": lambda texts: texts[0].upper(),
    "lcfirst|initial klein": lambda texts: texts[0][:1].lower() + texts[0][1:],
    "ucfirst|initial gross": lambda texts: texts[0][:1].upper() + texts[0][1:],
    "plural": _plural,
    # For a reader of unknown gender: the third form, or else the first.
    "gender|geschlecht": lambda texts: _at(texts, 3) or _at(texts, 1),
    "padleft": lambda texts: _padded(texts, left=True),
    "padright": lambda texts: _padded(texts, left=False),
    "#if": lambda texts: _if(texts[:1], _at(texts, 1 if texts[0] else 2)),
    "#ifeq": lambda texts: _if(
        texts[:2], _at(texts, 2 if texts[0] == _at(texts, 1) else 3)
    ),
    "#iferror": lambda texts: texts[0],
    "#formatdate|#dateformat": lambda texts: texts[0],
    "#language": lambda texts: LANGUAGES.get(texts[0].lower()),
    "defaultsort|sortierung|standardsortering|clave de ordenación|tri par défaut|"
    "displaytitle|seitentitel|visatitel|#coordinates|#related|#seo": lambda texts: "",
    "#tag": lambda texts: "" if texts[0] == "ref" else None,
}
_BY_NAME = {
    name: function
    for names, function in _FUNCTIONS.items()
    for name in names.split("|")
}


def find_function(name: str) -> TextFunction | None:
    """The function of this name, which takes one or more texts; None if unknown."""
    return _BY_NAME.get(name.lower())


def resolve_variants(wikitext: str) -> str:
    """Replaces -{zh-hans:..;zh-hant:..}- by the text of one variant.

    Args:
      wikitext: Text with markup; other markup is left as it is.

    Returns:
      The text without markup for variants; rules that show nothing are removed.
    """
    if "-{" not in wikitext:
        return wikitext
    pieces: list[str] = []
    # Open braces, with their indices among the pieces.
    opened: list[tuple[str, int]] = []
    depth = Counter[str]()
    end = 0
    for match in _BRACES.finditer(wikitext):
        sign = match[0]
        pieces.append(wikitext[end : match.start()])
        end = match.end()
        if sign == "{{" or (sign == "-{" and depth["-{"] < _MAX_DEPTH):
            opened.append((sign, len(pieces)))
            depth[sign] += 1
        elif sign == "}}" and depth["{{"]:
            # Braces that are still open inside are text.
            while (inner := opened.pop()[0]) != "{{":
                depth[inner] -= 1
            depth["{{"] -= 1
        elif sign == "}-" and opened and opened[-1][0] == "-{":
            _, begin = opened.pop()
            depth["-{"] -= 1
            content = "".join(pieces[begin + 1 :])
            del pieces[begin:]
            pieces.append(_choose(content))
            continue
        pieces.append(sign)
    return "".join(pieces) + wikitext[end:]


def _choose(content: str) -> str:
    """The text that the content of -{ }- shows."""
    flags, bar, rest = content.partition("|")
    given = {flag.strip() for flag in flags.split(";")}
    if bar and all(re.fullmatch(r"[A-Z+-]|[a-z]{2,4}(-[a-z]+)*", f) for f in given):
        is_variants = all(flag[:1].islower() for flag in given)
        if not (is_variants or given & _SHOWN_FLAGS):
            return ""
        if "R" in given:
            return rest
        content = rest
    if not _VARIANT.match(content.partition("=>")[2] or content):
        return content
    texts = {}
    for rule in _NEXT_VARIANT.split(content):
        if match := _VARIANT.match(rule.partition("=>")[2] or rule):
            texts.setdefault(match[1], match.string[match.end() :].strip())
    for variant in _PREFERRED:
        if variant in texts:
            return texts[variant]
    return next(iter(texts.values()), "")
