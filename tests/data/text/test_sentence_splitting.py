import time

import pytest

from bert_tf.data.text.sentence_splitting import split_sentences

CASES = [
    ["Mr. Smith met Dr. Jones at St. Paul.", "They talked."],
    ["It happened in the U.S. Government offices.", "Nobody knew."],
    ["He lived in the U.S.", "The weather was fine."],
    ["J. R. R. Tolkien and George W. Bush met William P. Frye.", "So it goes."],
    ["It cost 3.14 dollars, or $1.5 million.", "That is much."],
    ['"Stop!" he said.', '"Why?" she asked.', "“I know.”", "‘Good.’", "(Indeed.)"],
    ["He waited... and waited.", "Then he left...", "She stayed…", "Why?!", "No!!"],
    ["See No. 5 and pp. 10-12, fig. 3 by Lee et al. 1999.", "He said no.", "I did."],
    ["It opened at 5 p.m. on Jan. 3 and closed.", "It opened at 5 p.m.", "He left."],
    ["Acme Inc. bought Foo Co. Ltd. in May.", "It was by Acme Inc.", "But why?"],
    ["They sell e.g. apples, i.e. fruit, vs. Roots etc.", "Usually."],
    ["The onset of Alzheimer's.", "Scientists are here."],
    ["In 1999.", "20 people came."],
    ["1. The first item is this.", "2. The second is that."],
    ["It went on . . . and on.", "Done."],
    ["Is it so?", "Élan counts.", "Über alles."],
    ["no stop at all"],
    ["He met Gen. Lee (Maj. Gen. Lee, that is).", "Hon. Members rose."],
    ["It was I.", "The end."],
]


@pytest.mark.parametrize("sentences", CASES, ids=lambda case: case[0][:20])
def test_sentences_are_found(sentences):
    assert split_sentences(" ".join(sentences)) == sentences


def test_full_width_stops_need_no_blanks():
    sentences = ["我在北京。", "他说：“你呢？”", "好！"]
    assert split_sentences("".join(sentences)) == sentences


@pytest.mark.parametrize(
    ("sentences", "between"),
    [
        (["वह घर गया।", "वह सो गया॥", "क्या वह आया?", "हाँ।"], " "),
        (["সে গেল।", "সে এল।", "“কে?”"], " "),
        (["वह गया।", "वह आया।"], ""),
        (["श्लोक ॥ १॥", "दूसरा श्लोक ॥ २ ॥"], " "),
        (
            [
                "他走了。",
                "他说：“你好！”，她笑了。",
                "“好？”",
                "（是。）",
                "对｡",
                "好．",
            ],
            "",
        ),
        (["値は３．１４です。", "彼は「はい。」と言った。", "次！？"], ""),
        (['他说:"你好。"', '"好。"', "对。"], ""),
        (["هل جاء؟", "نعم (جاء.)", "حسنا؟!", "ثم ذهب."], " "),
        (["یہ ہے۔", "پی۔ایچ۔ڈی ہے۔", "وہ ہے۔"], " "),
        (["ሰላም።", "እንዴት ነህ፧", "ደህና፡፡", "ነኝ፨", "ነኝ።"], " "),
        (["ሰላም።", "እንዴት ነህ፧", "ደህና፡፡", "ነኝ።"], ""),
        (["မြန်မာ၊ စာ။", "နောက်။"], " "),
        (["မြန်မာ၊ စာ။", "နောက်။"], ""),
        (["ខ្ញុំទៅ។ល។ ទៅ។", "អ្នក៕", "ទៀត។"], ""),
        (["བཀྲ་ཤིས། །", "བདེ་ལེགས།", "ཡིན༎"], " "),
        (["བཀྲ་ཤིས།", "བདེ་ལེགས།"], ""),
        (["Ինչպե՞ս ես։", "Ժամը 10։30 է։", "Սա թեստ է (այո։)", "Վերջ։"], " "),
        (["ᠮᠣᠩᠭᠣᠯ᠃", "ᠪᠢᠴᠢᠭ᠃"], " "),
        (["ꦲꦏ꧉", "ꦱꦫ꧉"], ""),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0][:8],
)
def test_signs_of_other_scripts_end_sentences(sentences, between):
    assert split_sentences(between.join(sentences)) == sentences


@pytest.mark.parametrize(
    "sign", [".", "。", "。!", "؟!", "؟ .", "।१।", '。"', "。」", "།  "]
)
def test_runs_of_signs_cost_no_time(sign):
    start = time.thread_time()
    split_sentences(sign * 50_000)
    # Tried from every place they take a minute.
    assert time.thread_time() - start < 2


def test_blanks_are_reduced():
    assert split_sentences("  One  is\nhere.\tTwo\u00a0is. ") == [
        "One is here.",
        "Two is.",
    ]


@pytest.mark.parametrize("text", ["", " \n ", "...", ".", "?", '"', ". . ."])
def test_text_without_words_is_kept_whole_or_empty(text):
    assert split_sentences(text) == ([text.strip()] if text.strip() else [])


def test_no_text_is_lost():
    text = "A b. C d! (E f.) “G h?” I. J. K l; e.g. M. N... O? 1. P 2.5. Q"
    assert " ".join(split_sentences(text)) == text


def test_long_text_without_stops_is_fast():
    text = "Mr. Word " * 100_000 + "? ! . " * 10_000
    assert " ".join(split_sentences(text)) == text.strip()
