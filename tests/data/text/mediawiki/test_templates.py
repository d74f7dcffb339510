"""What a reader of the article sees of a template."""

import pytest

from bert_tf.data.text.mediawiki.markup import complete_text

SENTENCES = [
    # Signs.
    ("It is 5{{nbsp}}km long.", "It is 5 km long."),
    ("From 1990{{ndash}}1995{{snd}}five years.", "From 1990–1995 – five years."),
    ("(11 August 1848{{spnd}}27 June 1934)", "(11 August 1848 – 27 June 1934)"),
    ("So{{mdash}}it{{spaced ndash}}is{{thinsp}}a{{spaces|3}}b.", "So—it – is a b."),
    ("The ''Eagle''{{'}}s and ''Eagle''{{'s}} crew.", "The Eagle's and Eagle's crew."),
    ("a{{·}}b{{dot}}c{{bullet}}d{{!}}e{{=}}f", "a · b · c • d|e=f"),
    ("One,{{-}}two{{clear}}three", "One, two three"),
    # Names are written in many ways.
    ("1{{Spaced_ndash}}2{{ spaced  ndash\n}}3{{Template:snd}}4", "1 – 2 – 3 – 4"),
    ("1{{snd<!-- a blank -->}}2{{Vorlage:Snd}}3{{subst:ndash}}4", "1 – 2 – 3–4"),
    ("{{Lang|fr|mot}} {{LANG|fr|mot}} {{lang |1=fr |2=mot }}", "mot mot mot"),
    # Words, whatever their argument's name.
    ("A {{nowrap|big {{lang|fr|chat}}}} sat.", "A big chat sat."),
    ("{{quote|text=He said so.|author=X}}", "He said so."),
    ("{{quote|1=One = one.}}{{blockquote|Two.|X}}", "One = one.\n\nTwo."),
    ("{{abbr|US|United States}} {{tooltip|a|b}} {{sc|bc}}", "US a bc"),
    (
        "{{lang-ru|Москва|Moskva}} {{langx|la|mus}}",
        "Russian: Москва, Moskva Latin: mus",
    ),
    ("{{transl|ar|ALA|Allāh}} {{transl|ar|Allāh}}", "Allāh Allāh"),
    ("{{IPA|/a/}} {{IPAc-en|k|æ|t}} {{IPA-de|tʃ|lang}}", "/a/ /kæt/ German: [tʃ]"),
    ("{{nihongo|Tea|茶|cha}} {{nihongo|Tea||cha}}", "Tea (茶, cha) Tea (cha)"),
    ("{{ill|A|de|B}} {{ill|de|A|B}} {{ill|A|de|B|lt=C}}", "A A C"),
    ("{{linktext|a|b}} {{respell|FEE|bəs}}", "ab FEE-bəs"),
    ("As {{harvtxt|Smith|1990}} says.", "As Smith (1990) says."),
    # Units and numbers.
    ("{{convert|5|–|10|km|mi|abbr=on}} {{cvt|20|C|F}}", "5–10 km 20 °C"),
    ("{{convert|6|ft|2|in|m}} {{convert|2|by|3|m2}}", "6 ft 2 in 2 by 3 m²"),
    ("a {{convert|5|km|mi|adj=on}} race", "a 5-km race"),
    ("{{convert|5|km|0}} {{convert|1|km|mi||abbr=on}}", "5 km 1 km"),
    ("{{val|6.24|0.01|e=18|ul=C}} {{e|-3}}", "6.24±0.01×10¹⁸ C ×10⁻³"),
    ("1{{frac|1|2}} {{frac|3}} ({{sfrac|1|2|3}})", "1 1/2 1/3 (1 2/3)"),
    ("{{chem|H|2|O}} {{chem2|H2O}} x{{sup|2}} {{sub|3}}", "H2O H2O x² 3"),
    ("It cost {{USD|5}} or {{GBP|3}} million.", "It cost US$5 or £3 million."),
    (
        "{{INRConvert|5|c}} {{€|7}} {{US$|3 million|year=1990}}",
        "₹5 crore €7 US$3 million",
    ),
    ("At {{Coord|13|19|N|169|9|W|type:event}}, it", "At 13°19′N 169°9′W, it"),
    ("It is {{coord|1.5|-2|display=inline,title}}.", "It is 1.5°N 2°W."),
    ("x{{coord|1|N|2|E|display=title}} y", "x y"),
    (
        "{{sic|hte}} {{sic|h|te}} {{sic|hide=y|hte}}{{sic}}",
        "hte [sic] hte [sic] hte[sic]",
    ),
    ("11 August{{snds}}27 June", "11 August – 27 June"),
    # Dates.
    (
        "{{start date|1990|3|5}} {{dts|1990|3|5|format=dmy}}",
        "March 5, 1990 5 March 1990",
    ),
    ("{{birth date and age|df=y|1990|3|5}}", "5 March 1990"),
    ("{{As of|2014|3|lc=y}} {{as of|2014}}", "as of March 2014 As of 2014"),
    ("{{circa|1990}} {{c.|1990|1995}} {{fl.|1200}}", "c. 1990 c. 1990–1995 fl. 1200"),
    ("{{reign|1200|1250}} {{age|1990|3|5|2010|3|4}}", "r. 1200–1250 19"),
    # Names.
    ("The {{HMS|Victory}} sank.", "The HMS Victory sank."),
    ("The {{USS|Hornet|CV-12|6}} and {{HMS|Hood||2}}.", "The USS Hornet and Hood."),
    (
        "{{ship|HMS|Hood|51|6}} {{sclass|Nimitz|carrier}}",
        "HMS Hood Nimitz-class carrier",
    ),
    ("{{Japanese battleship|Yamato}}", "Japanese battleship Yamato"),
    ("{{flagicon|FRA}} {{flag|France}} won.", "France won."),
    ("{{url|http://a.org|the site}} {{URL|http://a.org/}}", "the site a.org"),
    (
        "Hawai{{okina}}i, {{ISBN|123}} {{convert|5|e6km2}}",
        "Hawaiʻi, ISBN 123 5 million km²",
    ),
    # Notes leave nothing.
    ("It{{efn|x}} is{{sfn|A|1990}} so{{citation needed|date=May 2010}}.", "It is so."),
    ("All{{who|date=May 2010}} say{{unheard of|date=May 2010}} so.", "All say so."),
    # Other languages.
    ("{{Zitat|Text=Das ist so.|Autor=X}}", "Das ist so."),
    ("{{Cita|texto=Es así.}}", "Es así."),
    ("{{Citation bloc|texte=C'est ainsi.}}", "C'est ainsi."),
    ("La {{nb|3|km}} route.", "La 3 km route."),
    ("Il pèse {{unité|12|km}}, {{nombre|12000}}.", "Il pèse 12 km, 12000."),
    ("{{unité|3|m|s|-1}} {{unité|9|m|2}}", "3 m·s⁻¹ 9 m²"),
    ("Le {{date|3|mars|1990}}, {{date-|3 mars 1990}}", "Le 3 mars 1990, 3 mars 1990"),
    ("Au {{s|XIX|e}}, {{XIXe siècle}}, XIX{{e}}", "Au XIXe siècle, XIXe siècle, XIXe"),
    ("{{lien|langue=en|trad=A|fr=B|texte=C}}", "C"),
    ("{{enS|word}} {{Höhe|12|DE-NN}}", "word 12 m"),
    ("{{仮リンク|猫|en|Cat}} {{link-en|猫|Cat}} {{le|猫|Cat|貓}}", "猫 猫 貓"),
    ("{{нп5|Кот||en|Cat}} {{num|12|км}}", "Кот 12"),
]


@pytest.mark.parametrize(("markup", "expected"), SENTENCES, ids=lambda text: text[:30])
def test_known_templates_become_what_a_reader_sees(markup, expected):
    assert complete_text(markup) == (expected, 0)


@pytest.mark.parametrize(
    "template",
    [
        *("lang|fr", "convert|5", "HMS", "convert||km", "ill", "music|x"),
        *("age|1990|1|1", "as of", "as of||lc=y", "convert|5|km|mi|disp=out"),
    ],
)
def test_known_templates_without_their_arguments_are_holes(template):
    assert complete_text(f"One. A {{{{{template}}}}} b. Two.") == ("One. Two.", 1)


def test_a_month_without_its_name_drops_the_sentence():
    found = complete_text("Le {{date|3|5|1990}} il part. Il revient.")
    assert found == ("Il revient.", 1)
