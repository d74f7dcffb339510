"""The text that templates in sentences of Wikipedia show: a table of patterns.

A pattern is what a reader sees. In it
- `{1}` is the first positional argument, `{text|1}` the first of these that is given;
- `{1^}` is an argument with raised digits, `{1@}` the language that has this code,
  `{0}` the template's name as written, `{*, }` all positional ones joined by ", ";
- `<...>` is left out if an argument inside is not given;
- ` || ` separates alternatives: the first one counts whose arguments are all given.

An empty pattern is for a note, an editor's remark or a box, without which the sentence
is complete.

Source: the documentation of the templates in the Wikipedias of en, de, es, fr, it, ja,
nl, pl, pt, ru, sv and zh.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from bert_tf.data.text.mediawiki import functions
from bert_tf.data.text.mediawiki.functions import (
    AFTER_DIGIT,
    LANGUAGES,
    Arguments,
    raised,
)
from bert_tf.data.text.mediawiki.incomplete_sentences import FORMULA

Rendering = str | Callable[[Arguments], str | None]

_FRACTION = " || ".join(
    AFTER_DIGIT + form for form in ("{1} {2}/{3}", "{1}/{2}", "1/{1}")
)

_TABLE: dict[str, str] = {
    # Signs.
    " – ": """snd|spnd|sndash|spndash|spaced ndash|spaced en dash|spaced endash|dash|
        spaced n dash|snds|spnds""",
    "–": "ndash|en dash|endash|n dash|ndashb|–",
    "—": "mdash|em dash|emdash|m dash|mdashb|—|tiret",
    " — ": "spaced mdash|spaced em dash|spaced emdash|spaced m dash|smdash|smd|mdashsp",
    " · ": "·|dot|middot|mdot|interpunct|int|·w|dotsep",
    " • ": "•|bull|bullet|•w",
    " ": """nbsp|spaces|space|thinsp|thin space|hairsp|hair space|hsp|nnbsp|ensp|emsp|
        en space|em space|quad|pad|gap|indent|in5|figure space|espace|espace fine|0|-|
        clear|clr|clearleft|clearright|espacio|tab""",
    "\n": "br|break|crlf|newline",
    "\n\n": "pb|parabr|paragraph break",
    "-": "hyphen|nbhyph|nbh|non-breaking hyphen",
    "'": "'|apos|apostrophe|-'|'-|’",
    "'s": "'s|’s",
    '"': '-"|"-',
    "'\"": "' \"|'\"",
    "\"'": "\" '|\"'",
    "|": "!|pipe|vertical bar",
    "=": "=|equals",
    "{": "(|lcub",
    "}": ")|rcub",
    "{{": "((",
    "}}": "))",
    "[": "bracket|lbrack|(bracket",
    "]": "rbrack|bracket)",
    "/": "\\|/|slash",
    ":": "colon|:|':",
    "*": "*|asterisk",
    "#": "hash|number sign",
    ";": "semicolon",
    "&": "&|amp|ampersand",
    "~": "~|tilde",
    ",": "comma",
    "...": "...|…|ellipsis|hellip",
    "×": "×|times",
    "−": "−|minus",
    "±": "±|+-|plus-minus",
    "°": "°|deg",
    "′": "prime",
    "″": "pprime",
    "→": "→|rarr",
    "π": "pi|π",
    "½": "half|1/2|½",
    "⇌": "eqm",
    "†": "dagger|†",
    "ʻ": "okina|ʻ",
    "ʿ": "ayin",
    "ʾ": "hamza",
    "™": "tm|trademark",
    "M☉": "solar mass",
    "R☉": "solar radius",
    "C": "carbon",
    "H": "hydrogen",
    "O": "oxygen",
    "av. J.-C.": "av jc|avjc|av. j.-c.",
    "apr. J.-C.": "ap jc|apjc|apr. j.-c.",
    # Endings of French numerals: XIX{{e}}, 1{{er}}.
    "{0}": "er|re|ère|nd|nde|ème|os|1er|1re|2e|3e|ier|ire|a.k.a.|bc|bce|ad",
    # Words in some form.
    "{1}": """nowrap|nobr|nobreak|nbr|nwr|j|wrap|sc|sc1|sc2|smallcaps|small caps|
        smallcaps all|aut|allcaps|all caps|petites capitales|pc|versalita|versalitas|
        kapitälchen|maiuscoletto|small|smaller|big|bigger|large|larger|huge|midsize|
        normal|noitalic|noitalics|nobold|em|strong|bold|italic|italics|underline|u|mono|
        monospace|tt|kbd|samp|var|mvar|math|overline|serif|sub|ind|ins|vanchor|
        visible anchor|abbr|abbreviation|abbrlink|abréviation|abréviation discrète|abrd|
        abr|tooltip|hint|подсказка|info|infobulle|angbr|grapheme|vr|ipa link|ipalink|
        unicode|polytonic|polytonisch|hebrew|he-nikkud|arabic|urdu|nastaliq|nq|naskh|
        grec ancien|latin|nihongo2|nihongo foot|hangul|ruby|旧字体|by|要出典範囲|
        citation needed span|cnspan|cns|fact span|clarify span|refsou|
        référence souhaitée|pas clair|number|num|formatnum|format price|nts|
        tal|число|rom-maj|rom|romain|api|phon|esd|tutto attaccato|flag|flagcountry|
        flagu|centre|center|block indent|bi|railgauge|rail gauge|track gauge|
        birth year and age|death year and age|chem2|ce|plain link|plainlink|noprint|
        only in print|stnlnk|stn|rws|crossreference|crossref|
        nobr romains|nombre romain|souverain|souverain2|souverain-|afi|僻字|
        small-caps|ordinal""",
    "\n{text|quote|content|texte|texto|testo|citat|citation|1}\n": """quote|
        blockquote|cquote|quotation|bq|pull quote|
        centered pull quote|long quotation|bquote|poemquote|poem quote|citation bloc|
        citat|citaat|cytat|cita|citação|citazione|zitat|цитата|sitat|indented quote|
        quote1|quote frame""",
    '"{text|1}"': '"|quoted|inline quote',
    "« {1} »": "guil|guillemets|« »",
    "« {1} » || ": "citation",  # In English a note.
    "{1} || ": """comment|refnec|référence nécessaire|要出典|cita requerida|
        senza fonte|fakt|carece de fontes""",
    "{2|text|texte|quote}": """lang|language|langue|dil|rquote|citation étrangère|
        rtl-lang|script|språk|audio|color|colour|resize|font size|fontsize|sort|sortkey|
        hover title|h:title|background color|bgcolor|cuneiform""",
    "{text|3|2}": "font color|font colour|colored link|coloured link|color link|font",
    "{1}{2}": "mp|mpl|s-",
    "{1}-{2}": "simplenuclide|nuclide",
    "U+{1}< {2}>": "unichar",
    "(IATA: {1}<, ICAO: {2}>)": "airport codes",
    "{*}": """linktext|link text|not a typo|notatypo|typo|proper name|as written|gaps|
        chem""",
    "{*, }": """post-nominals|postnominals|hlist|unbulleted list|unbullet|ubl|
        plainlist|bulleted list|flatlist|
        cslist""",
    "{*-}": "respell|usdict|pronunciation respelling",
    "{*+}": "key press|keypress|key|taste|touche",
    "– {1} –": "incise",
    "lit. '{1}' || lit.": "lit|lit.|literal translation|literal",
    "'{1}'": "gloss|single-quoted",
    "transl. {1}": "translation",
    "née {1} || née": "née|nee",
    "né {1} || né": "né",
    # Links.
    "{4|3}": "tsl|translink",
    "{3|1}": "le",
    "{texte|trad|fr|text|1}": "lien",
    "{label|1}": "仮リンク",
    "{2|1}": "w|нп5|не переведено 5|нп3|не переведено 3|iw|нп4|не переведено 4",
    "{надо|есть|2|1}": "не переведено",
    "{last|last1} ({year|date})": "harvs",
    "{1} {2} || {2} {3}": "bibleverse|bibleref|bibleref2|bible verse|bibel",
    "ISBN {1}": "isbn|isbnt",
    "ISSN {1}": "issn",
    "OCLC {1}": "oclc",
    "doi:{1}": "doi",
    "arXiv:{1|eprint}": "arxiv",
    "PMID {1}": "pmid",
    "U.S. Patent {1|number}": "us patent",
    # Languages and sounds.
    "<{1@}: >{2|text}<, {3|translit}><, '{4|lit}'>": "langx",
    "{3|2}": "wikt-lang|wt|transl|transliteration|tlit|translit|xlit",
    "{1@}: [{2}] || {1}": "ipa|ipa all",
    "/{1}/": "ipaslink|ipa slink",
    "[{1}]": "ipablink|ipa blink|brackets",
    "⟨{1}⟩": "angbr ipa|angle bracket|angle brackets",
    "{1} ({2}<, {3}><, {4|extra}>) || {1} ({3}<, {4|extra}>) || {1} || {2}": """nihongo|
        japonais|
        nihongo krt""",
    "{1} ({2}<, {3}>) || {1}": "nihongo3",
    "Chinese: {c|s|t|1}<; pinyin: {p}> || pinyin: {p}": "zh|lang-zh|zh-full|zh-all",
    "Korean: {hangul|1}<; {hanja|2}><; {rr|mr|3}>": "korean|lang-ko|ko-hhrm",
    "{1}（{2}）": "読み仮名|読み仮名 ruby不使用",
    "（{1}<{2}>－<{3}><{4}>）": "bd",
    # Numbers, units and money.
    _FRACTION: "frac|sfrac|fraction|bruch|bråk|brøk",
    "<{p}>{1}<±{2}><{end|s}><×10{e^}>< {u|ul|upl|up}>": "val",
    "{1}<×10{e^}>< {u|ul}>": "m",
    "×10{1^} || e": "e",
    "×10{1^}": "x10|esp",
    "10{1^}": "10^",
    "{1^}": "sup|superscript|exp",
    "√{1}": "sqrt|radic|root",
    "|{1}|": "abs",
    "{b}{p}": "su",
    "{1}< {2}>": "nombre|nb",
    "{1} °C": "temperatur|tmp",
    "{1} m": "höhe",
    "{1} h< {2}>": "heure",
    "n° {1} || n°": "n°|numéro|nº",
    "§ {1}": "§",
    "{1} ft< {2} in>": "ft in|ftin",
    "<{m|1} m>< {cm} cm>< {ft} ft>< {in} in>": "height",
    "<£{l|1}>< {s}s>< {d}d>": "£sd",
    "{2} {1}": "currency",
    "{1}% || %": "percent|percentage",
    # Times.
    "c. {1}<–{2}> || c.": "circa|c.|c|ca|ca.|cca",
    "fl. {1}<–{2}> || fl.": "floruit|fl.|fl",
    "r. {1}<–{2}> || r.": "reign|r.",
    "b. {1} || b.": "b.|born-in",
    "d. {1} || d.": "d.",
    "p. {1}": "p.",
    "pp. {1}": "pp.",
    "{1}< [O.S. {3}]>< {2}>": "oldstyledate|old style date",
    "{1}{2} siècle || {1}": "s|siècle",  # A Russian number, if there is no {2}.
    "{1}{2} {3} {4}{5} siècles || ": "sp",
    "{1}{2} et {3}{4} siècles": "s2",
    "{1}{2} siècle av. J.-C.": "-s",
    "siglo {1}": "siglo",
    "século {1}": "séc|século",
    # Names.
    "{1}-class {2}": "sclass|sclass-|sclass2|sclass2-",
    "German submarine {1}": "gs",
    "M.< {1}>": "m.",
    "MM.< {1}>": "mm.",
    "Mme< {1}>": "mme",
    "Mlle< {1}>": "mlle",
    "Mgr< {1}>": "mgr",
    FORMULA: "code|numblk|bmath|intmath|equation|équation|ecuación|equation box 1",
    # Nothing of the sentence.
    "": """r|ref|refn|note|notetag|note label|ref label|cref|cref2|rp|notelist|reflist|
        ref+|anchor|anchors|anker|ancre|shy|wbr|zwsp|zwj|zwnj|lrm|rlm|nowrap begin|
        nowrap end|fact|cn|clarify|clarification|explain|huh|who|whom|which|when|where|
        why|how|by whom|by who|according to whom|vague|weasel|peacock|peacock term|
        dubious|disputed|discuss|lopsided|pov|pov statement|or|original research|
        synthesis|specify|page|pn|full|better source|unreliable source|verify|
        verify source|verify credibility|tone|failed verification|not in source|
        update after|update|dead link|webarchive|wayback|cbignore|jargon|ambiguous|
        opinion|contradict|contradictory|inconsistent|relevance|undue|undue weight|
        attribution|quantify|elucidate|examples|speculation|buzz|cleanup|self-published|
        self-published source|primary source|third-party|irrelevant|nonspecific|unclear|
        chronology|editorializing|inflation-fn|subscription|registration|
        subscription required|harv|harvcol|see also|main|main article|further|details|
        about|for|other uses|redirect|distinguish|not to be confused with|hatnote|
        italic title|displaytitle|lowercase title|short description|good article|
        featured article|sister project links|commons|commonscat|commons category|
        portal|wikiquote|wiktionary|toc|toc limit|flagicon|flag icon|flagdeco|
        flagicon image|bandera|drapeau|increase|decrease|steady|
        hs|hidden sort key|ntsh|dtsh|quote box|
        external media|source|bots|authority control|defaultsort|listen|multiple image|
        gallery|wikidata|refbegin|refend|div col|div col end|speciesbox|
        automatic taxobox|belege|belege fehlen|fn|fnz|internetquelle|literatur|wer|wann|
        källa behövs|citat behövs|källa|vem|när|förtydliga|bättre källa|quand|qui|où|
        lequel|combien|pourquoi|quoi|précision nécessaire|,|ouvrage|lien web|article|
        chapitre|note de bas de page|cr|bron?|feit|odn|przypis|источник|нет аи|когда|
        кто|что|где|уточнить|книга|статья|ref-en|いつ|誰|要検証|来源请求|谁|何时|noteta""",
}  # fmt: skip

# An amount is their argument, or follows in the sentence.
_CURRENCIES = {
    "US$": "usd|us$|$", "£": "gbp|£|pound sterling", "€": "eur|euro|€",
    "₹": "inr|₹|indian rupee|indian rupees", "¥": "jpy|yen|¥|cny|rmb|cn¥",
    "A$": "aud|a$", "C$": "cad|c$|ca$", "NZ$": "nzd|nz$", "HK$": "hkd|hk$",
    "S$": "sgd|s$", "NT$": "twd|ntd|nt$", "₩": "krw|won|₩", "₱": "php|peso|₱",
    "฿": "thb|฿", "₽": "rub|₽", "₴": "uah|₴", "₺": "try|₺", "₪": "ils|nis|₪",
    "₦": "ngn|₦", "₫": "vnd|₫", "৳": "bdt|৳", "Rp": "idr", "RM": "myr", "R$": "brl|r$",
    "R": "zar", "₨": "pkr|₨", "CHF ": "chf", "SEK ": "sek", "NOK ": "nok",
    "DKK ": "dkk",
}  # fmt: skip


def _sic(arguments: Arguments) -> str:
    """{{sic|hte}}: hte [sic]; {{sic|hide=y|hte}}: hte."""
    text = arguments.get("1", "") + arguments.get("2", "")
    return text if arguments.get("hide") else f"{text} [sic]".strip()


_CALLED: dict[Callable[[Arguments], str | None], str] = {
    functions.convert: "convert|cvt|conv",
    functions.measure: "unité|unidad|unidade|unit|fmtn",
    functions.coordinates: "coord|coor|coords",
    functions.date: """date|date-|dts|start date|end date|start-date|end-date|
        film date|birth date|death date|birth date and age|death date and age|
        start date and age|birth-date|death-date|birth-date and age|death-date and age|
        dob|bda|release date|date de naissance|date de naissance-|date de décès|
        date de décès-|date rapide|datum|fecha|dtlink""",
    functions.as_of: "as of|asof",
    functions.age: "age",
    functions.rupees: "inrconvert",
    functions.accidental: "music",
    functions.address: "url|weblink",
    functions.sounds: "ipac-en",
    functions.interlanguage_link: """ill|interlanguage link|ill2|link-interwiki|
        interlanguage link multi|illm""",
    functions.author_and_year: "harvtxt|harvp|harvcoltxt",
    functions.author_year: "harvnb|harvcolnb",
    functions.ship: "ship",
    _sic: "sic",
}  # fmt: skip

# Patterns of names, tried in this order if the table does not have a name.
_FAMILIES: list[tuple[str, Rendering]] = [
    (
        r"(?:v?cite|citation|cit|sfn|efn|use|infobox|taxobox|navbox)\b.*|info/.*|pp(?:-.*)?|"
        r"sfnm?p?|imdb .*|unreferenced .*|"
        r".*(?:[ -]inline|[ -]needed|\bicon|[ -]stub|\?)",
        "",
    ),
    (
        r"(?:uss|hms|ss|mv|ms|rms|hmcs|hmas|hmnzs|hmis|ins|rv|sms|usns|uscgc|usat|css|"
        r"mt|ps|ts|gts|hmy|hmhs|hnoms|hdms|hswms|hnlms|orp|hmsas|mf|uscs|usrc|arm)",
        functions.ship,
    ),
    (
        r"(?:japanese|german|french|italian|russian|soviet|spanish|chinese|turkish|"
        r"greek|brazilian|chilean|argentine|portuguese|dutch|swedish|ottoman) "
        r"(?:battleship|cruiser|destroyer|aircraft carrier|submarine|gunboat|frigate|"
        r"corvette|battlecruiser|ironclad|torpedo boat|ship)",
        "{0} {1}",
    ),
    (
        r"lang-(?P<code>[a-z]{2,3}(?:-[a-z]+)*)",
        "<{code@}: >{1|text}<, {2|translit}><, '{3|lit}'>",
    ),
    (r"ipac-[a-z]{2,3}", functions.sounds),
    (r"ipa-(?P<code>[a-z]{2,3})", "<{code@}: >[{1}]"),
    (r"(?:script/.*|.*フォント)", "{1}"),
    # German: {{enS|word}}.
    (r"(?:ar|cs|da|de|el|en|es|fr|grc|he|hu|it|ja|la|nl|pl|pt|ru|sk|sv|tr|uk)s", "{1}"),
    (r"(?:link-[a-z]{2,3}|internal link helper/.*)", "{3|1}"),
    # Named after the number.
    (r"[ivxlcdm]+(?:e|er|re) (?:siècle|millénaire)s?(?: .*)?", "{0}"),
    (r"(?P<unit>km|mi|m|ft|cm|in|kg|lb|ha|acre) to [a-z0-9]+", "{1} {unit}"),
]  # fmt: skip


def _entries() -> Iterator[tuple[str, Rendering]]:
    money = {
        f"{sign}{{1}} || {sign.strip()}": names for sign, names in _CURRENCIES.items()
    }
    for rendering, names in [*_TABLE.items(), *money.items(), *_CALLED.items()]:
        for name in filter(None, map(str.strip, names.split("|"))):
            yield name, rendering


_RENDERINGS = dict(_entries())
_COMPILED_FAMILIES = [(re.compile(names), rendering) for names, rendering in _FAMILIES]
_MAX_NAME_CHARS = 100
_TOKENS = re.compile(r"(<[^<>]*>|\{[^{}]+\})")


def find_rendering(name: str) -> tuple[Rendering, Mapping[str, str]] | None:
    """Finds how a template is shown.

    Args:
      name: Its name as written, with single blanks and without underscores.

    Returns:
      A pattern, or a function of the arguments; and the arguments that are part of the
      name. None if the template is unknown.
    """
    return _find(name) if len(name) <= _MAX_NAME_CHARS else None


@lru_cache(maxsize=4096)
def _find(name: str) -> tuple[Rendering, Mapping[str, str]] | None:
    lower = name.lower()
    if lower in _RENDERINGS:
        return _RENDERINGS[lower], {"0": name}
    for names, rendering in _COMPILED_FAMILIES:
        if match := names.fullmatch(lower):
            return rendering, {"0": name, **match.groupdict()}
    return None


def show(rendering: Rendering, arguments: Arguments) -> str | None:
    """The text that a reader sees; None if an argument that it needs is missing."""
    if callable(rendering):
        return rendering(arguments)
    filled = (_fill(form, arguments) for form in rendering.split(" || "))
    return next((text for text in filled if text is not None), None)


def _fill(form: str, arguments: Arguments) -> str | None:
    pieces = []
    for token in _TOKENS.split(form):
        if len(token) > 2 and token[0] == "{":
            text = _argument(token[1:-1], arguments)
            if not text:
                return None
            pieces.append(text)
        elif len(token) > 2 and token[0] == "<":
            pieces.append(_fill(token[1:-1], arguments) or "")
        else:
            pieces.append(token)
    text = "".join(pieces)
    return text if text or not form else None


def _argument(names: str, arguments: Arguments) -> str:
    if names[0] == "*":
        return names[1:].join(filter(None, functions.positional(arguments)))
    text = next(filter(None, map(arguments.get, names.rstrip("^@").split("|"))), "")
    if names[-1] == "^":
        return raised(text)
    return LANGUAGES.get(text, "") if names[-1] == "@" else text
