"""MediaWiki's text functions, such as {{formatnum:3}}, and language variants.

Source: mediawiki.org, Help:Magic words, Help:Extension:ParserFunctions, and Writing
systems/Syntax.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from bert_tf.data.text.wiki_holes import HOLE
from bert_tf.data.text.wiki_values import LANGUAGES

Function = Callable[[Sequence[str]], str | None]

# Prefixes of templates, in the languages of the large Wikipedias, and of expansions.
PREFIXES = frozenset(
    """template vorlage modèle mall plantilla predefinição szablon шаблон sjabloon
    skabelon mal malline šablona 模板 subst safesubst msg msgnw raw""".split()
)
_CODE = r"(?:zh|gan|sr|sh|kk|ku|tg|uz|iu|shi|crh|tly|wuu|ban|mni)(?:-[a-z]+)*"
_VARIANT = re.compile(rf"\s*({_CODE})\s*:")
_NEXT_VARIANT = re.compile(rf";(?=\s*{_CODE}\s*:|\s*$)")
_PREFERRED = ("zh-hans", "zh-cn", "zh", "sr-ec", "sr-cyrl")
_BRACES = re.compile(r"-\{(?!\{)|\{\{|\}\}|\}-")
# A: a rule for the page, shown here too; D: shown; R: as it is. Others show nothing.
_SHOWN_FLAGS = frozenset("ADRS")
_MAX_DEPTH = 10  # MediaWiki's.


def _number(text: str) -> str:
    return text.replace(",", "").replace("\u00a0", "")


def _plural(texts: Sequence[str]) -> str | None:
    return texts[1 if _number(texts[0]) == "1" else -1] if len(texts) > 1 else None


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


_FUNCTIONS: dict[str, Function] = {
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


def find_function(name: str) -> Function | None:
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
