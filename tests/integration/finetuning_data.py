"""A few true sentences, questions about them, and a model that is small enough."""

import json
import re

CONTEXTS = {
    "The lighthouse on the northern cliff was built in 1871 by a retired sea captain. "
    "Its lamp could be seen from thirty miles away. Today a family of painters lives "
    "in the tower, and the lamp is dark.": [
        ("Who built the lighthouse?", "a retired sea captain"),
        ("How far away could the lamp be seen?", "thirty miles"),
        ("Who lives in the tower today?", "a family of painters"),
    ],
    "Every spring the village of Oldbrook holds a fair beside the river. Farmers bring "
    "cheese, honey and wool, and children race small boats under the bridge. The "
    "winner is given a silver spoon.": [
        ("When does Oldbrook hold its fair?", "Every spring"),
        ("What do children race under the bridge?", "small boats"),
        ("What is the winner given?", "a silver spoon"),
    ],
    "Maria learned to bake bread from her grandmother. She opened a shop near the "
    "station when she was twenty-six. The rye loaf, which rests for two days, is the "
    "one that people ask for most.": [
        ("Who taught Maria to bake bread?", "her grandmother"),
        ("How long does the rye loaf rest?", "two days"),
        ("Where did Maria open a shop?", "near the station"),
    ],
    "The old library keeps its maps in a cool cellar. A map of the harbour, drawn on "
    "calf skin, is the oldest of them.": [
        ("Where are the maps kept?", "a cool cellar"),
        ("What is the oldest map drawn on?", "calf skin"),
    ],
}
# One for each context, which does not say it.
UNANSWERED = [
    "What colour is the lighthouse?",
    "How many farmers live in Oldbrook?",
    "What is the name of Maria's brother?",
    "Who drew the oldest map?",
]
CLASSES = {
    "weather": [
        "It rained all night and the street was a river.",
        "A cold wind came down from the hills.",
        "The fog did not lift before noon.",
        "Snow fell on the roofs of the old town.",
        "After the storm the sky was clear again.",
    ],
    "food": [
        "The soup needs more salt and a little pepper.",
        "She fried the onions until they were brown.",
        "We ate fresh bread with butter and honey.",
        "His plum cake was gone in five minutes.",
    ],
    "travel": [
        "The night train to the coast leaves at ten.",
        "They crossed the lake in a small boat.",
        "Our bags were lost between two airports.",
        "He walked for a week along the border.",
    ],
}
PAIRS = [
    ("A man is playing a guitar.", "A man plays the guitar.", 4.8),
    ("A dog runs across the field.", "A brown dog is running outside.", 3.6),
    ("Two girls are singing a song.", "Two girls sing together.", 4.2),
    ("The plane lands at night.", "A cook is cutting an onion.", 0.0),
    ("A child reads a book.", "A child is asleep in bed.", 1.0),
    ("The train is late again.", "Once more the train has not come in time.", 4.4),
    ("A woman waters the garden.", "The garden lies under snow.", 1.4),
    ("People wait in front of the shop.", "A queue stands before the shop.", 4.0),
]
ARCHITECTURE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _texts():
    for context, questions in CONTEXTS.items():
        yield from (context, *(question for question, _ in questions))
    yield from UNANSWERED
    for sentences in CLASSES.values():
        yield from sentences
    for first, second, _ in PAIRS:
        yield from (first, second)


def write_model(folder, *, is_cased=False):
    """Writes vocab.txt and bert_config.json: what a model is, without its weights."""
    text = "\n".join(_texts())
    words = set(re.findall(r"\w+|[^\w\s]", text if is_cased else text.lower()))
    letters = sorted({letter for word in words for letter in word})
    pieces = [*_SPECIAL, *letters, *sorted(words), *(f"##{c}" for c in letters)]
    vocabulary = list(dict.fromkeys(pieces))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    config = ARCHITECTURE | {"vocab_size": len(vocabulary)}
    (folder / "bert_config.json").write_text(json.dumps(config))
    return [
        f"--bert_config_file={folder}/bert_config.json",
        f"--vocab_file={folder}/vocab.txt",
    ]


def squad(*, is_version_2=False):
    """The questions as SQuAD 1.1 or 2.0."""
    paragraphs = []
    items = zip(CONTEXTS.items(), UNANSWERED, strict=True)
    for number, ((context, questions), unanswered) in enumerate(items):
        qas = []
        for place, (question, answer) in enumerate(questions):
            begin = context.index(answer)
            qas.append(
                {
                    "id": f"q{number}{place}",
                    "question": question,
                    "answers": [{"text": answer, "answer_start": begin}],
                }
            )
            if is_version_2:
                qas[-1]["is_impossible"] = False
        if is_version_2:
            nothing = {"id": f"n{number}", "question": unanswered, "answers": []}
            qas.append(nothing | {"is_impossible": True})
        paragraphs.append({"context": context, "qas": qas})
    version = "v2.0" if is_version_2 else "1.1"
    data = [{"title": "Small places", "paragraphs": paragraphs}]
    return {"version": version, "data": data}


def answers():
    """Question id -> answer, of the questions of 1.1."""
    return {
        qa["id"]: qa["answers"][0]["text"]
        for paragraph in squad()["data"][0]["paragraphs"]
        for qa in paragraph["qas"]
    }


def write_squad(path, **version):
    path.write_text(json.dumps(squad(**version)))
    return str(path)


def write_table(path, rows):
    """Writes rows with tabs between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))


def class_rows():
    """Text and class of each sentence, the classes in turn."""
    rows = [
        (place, text, name)
        for name, texts in CLASSES.items()
        for place, text in enumerate(texts)
    ]
    return [row[1:] for row in sorted(rows, key=lambda row: row[0])]


def write_classes(folder):
    """A task of one's own with three labels; the test file has none."""
    rows = class_rows()
    for split in ("train", "dev"):
        write_table(folder / f"{split}.tsv", [("text", "label"), *rows])
    write_table(folder / "test.tsv", [("text",), *((text,) for text, _ in rows)])
    return [f"--data_dir={folder}", "--task_name=tsv"]


def write_pairs(path):
    """Questions and their answers, and sentences of a like meaning: 19 pairs."""
    pairs = [pair for questions in CONTEXTS.values() for pair in questions]
    pairs += [(first, second) for first, second, _ in PAIRS]
    write_table(path, [("anchor", "positive"), *pairs])
    return [f"--train_file={path}", f"--dev_file={path}"]


def write_sts_b(folder):
    rows = [("sentence1", "sentence2", "score"), *PAIRS]
    for split in ("train", "dev"):
        write_table(folder / f"{split}.tsv", rows)
    write_table(folder / "test.tsv", [row[:2] for row in rows])
    return [f"--data_dir={folder}", "--task_name=STS-B"]


def write_mnli(folder):
    """Two dev sets: all pairs, and those of the first half with wrong labels."""
    names = ("contradiction", "entailment", "neutral")
    header = ("sentence1", "sentence2", "gold_label")
    rows = [
        (first, second, names[number % 3])
        for number, (first, second, _) in enumerate(PAIRS)
    ]
    wrong = [
        (first, second, names[number % 3])
        for number, (first, second, _) in enumerate(PAIRS[:4], start=1)
    ]
    write_table(folder / "train.tsv", [header, *rows])
    write_table(folder / "dev_matched.tsv", [header, *rows])
    write_table(folder / "dev_mismatched.tsv", [header, *wrong])
    write_table(folder / "test_matched.tsv", [header[:2], *(r[:2] for r in rows)])
    write_table(folder / "test_mismatched.tsv", [header[:2], *(r[:2] for r in wrong)])
    return [f"--data_dir={folder}", "--task_name=MNLI"]


def write_mrpc(folder):
    header = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    rows = [
        (int(score > 3), 2 * number, 2 * number + 1, first, second)
        for number, (first, second, score) in enumerate(PAIRS)
    ]
    for split in ("train", "dev"):
        write_table(folder / f"{split}.tsv", [header, *rows])
    return [f"--data_dir={folder}", "--task_name=MRPC"]


# A word and its tag, B- or I- and a type, or O.
SENTENCES = [
    "Maria:B-PER opened:O a:O shop:O in:O Oldbrook:B-LOC .:O",
    "Old:B-PER Captain:I-PER Brook:I-PER built:O the:O tower:O .:O",
    "The:O lake:O of:O Oldbrook:B-LOC is:O clear:O .:O",
    "A:O boat:O for:O Captain:B-PER Brook:I-PER and:O Maria:B-PER .:O",
    "Farmers:O walked:O from:O North:B-LOC Hills:I-LOC to:O Oldbrook:B-LOC .:O",
    "It:O rained:O all:O night:O .:O",
    "North:B-LOC Hills:I-LOC has:O a:O library:O .:O",
]
LABELS = {
    "It rained all night and the street was a river.": ["weather", "water"],
    "They crossed the lake in a small boat.": ["travel", "water"],
    "The night train to the coast leaves at ten.": ["travel"],
    "A cold wind came down from the hills.": ["weather"],
    "The old library keeps its maps in a cool cellar.": [],
    "Our bags were lost in the snow between two airports.": ["weather", "travel"],
    "Farmers bring cheese, honey and wool.": [],
}
# A context, what the endings begin with, endings, and the number of the right one.
QUESTIONS = [
    ("A woman waters the garden.", "She", "sings.", "is done.", "is a train.", 1),
    ("The plane lands at night.", "It", "is eaten.", "reads.", "stops.", 2),
    ("A cook is cutting an onion.", "He", "cries.", "is snow.", "rains.", 0),
    ("A dog runs across the field.", "It", "bakes.", "barks.", "leaves at ten.", 1),
    ("A child is asleep in bed.", "The child", "dreams.", "runs.", "is a lake.", 0),
]


def tagged():
    """Words and tags of each sentence."""
    pairs = [[word.split(":") for word in each.split()] for each in SENTENCES]
    return [tuple(zip(*each, strict=True)) for each in pairs]


def write_tags(folder):
    """CoNLL 2003's form, of four columns; the test file has words alone."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["-DOCSTART- -X- O O", ""]
    for words, tags in tagged():
        lines += [f"{word} X Y {tag}" for word, tag in zip(words, tags, strict=True)]
        lines.append("")
    for split in ("train", "dev"):
        (folder / f"{split}.conll").write_text("\n".join(lines))
    words = "\n\n".join("\n".join(words) for words, _ in tagged())
    (folder / "test.conll").write_text(words)
    return [f"--data_dir={folder}", "--task_name=conll"]


def write_labels(folder):
    """Lists of labels; the test file has none."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"text": text, "labels": labels} for text, labels in LABELS.items()]
    for split in ("train", "dev", "test"):
        rows = lines if split != "test" else [{"text": each["text"]} for each in lines]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text)
    return [f"--data_dir={folder}", "--task_name=jsonl", "--is_multi_label"]


def write_choices(folder):
    """SWAG's columns; the test file has no labels."""
    folder.mkdir(parents=True, exist_ok=True)
    header = ["sent1", "sent2", "ending0", "ending1", "ending2", "label"]
    for split in ("train", "val", "test"):
        count = len(header) - (split == "test")
        rows = [header[:count], *(row[:count] for row in QUESTIONS)]
        text = "".join(",".join(map(str, row)) + "\n" for row in rows)
        (folder / f"{split}.csv").write_text(text)
    return [f"--data_dir={folder}", "--task_name=swag"]


SQUAD_FLAGS = [
    "--max_seq_length=48",
    "--doc_stride=16",
    "--max_query_length=16",
    "--train_batch_size=8",
    "--num_processes=1",
    "--seed=3",
]
CLASS_FLAGS = ["--max_seq_length=32", "--train_batch_size=8", "--seed=3"]
