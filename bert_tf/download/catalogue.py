"""What can be downloaded by name: URLs and sha256 checksums.

Sources of the checksums: tensorflow_datasets' url_checksums (SQuAD, GLUE, MRPC);
NVIDIA's BERT preparation scripts (files in the archives of 2018); BLiMP's is that of
the file in its repository. No checksums of the
archives of 2019 and 2020 are published: unless `--sha256` gives one, that of the first
download is stored next to the file and compared from then on. Wikimedia publishes
checksums next to each dump.
"""

import dataclasses
from collections.abc import Mapping

_SQUAD = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"
_GLUE = "https://dl.fbaipublicfiles.com/glue/data/"
_MRPC = "https://dl.fbaipublicfiles.com/senteval/senteval_data/"
MODELS = "https://storage.googleapis.com/bert_models/"
_DUMPS = "https://dumps.wikimedia.org/"
# The last commit: its archive does not change.
_BLIMP = (
    "https://raw.githubusercontent.com/alexwarstadt/blimp/"
    "3e56b06fcabca9b30822fc66435fca6b1aa40bb1/BLiMP.zip"
)


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """One file to download.

    Attributes:
      url: Its address.
      name: The local file name.
      sha256: Its checksum; empty if none is published.
    """

    url: str
    name: str
    sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Entry:
    """The files that one name of the catalogue downloads.

    Attributes:
      folder: Subfolder of the user's folder for them.
      files: The files.
      is_archive: Whether the only file is an archive, to be unpacked.
      members: Known sha256 of files in the archive.
    """

    folder: str
    files: tuple[RemoteFile, ...]
    is_archive: bool = False
    members: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _squad(version: str, train: str, dev: str) -> Entry:
    return Entry(
        f"squad-{version}",
        tuple(
            RemoteFile(f"{_SQUAD}{name}", name, sha256)
            for name, sha256 in (
                (f"train-v{version}.json", train),
                (f"dev-v{version}.json", dev),
            )
        ),
    )


def _glue(folder: str, sha256: str) -> Entry:
    archive = "QNLIv2.zip" if folder == "QNLI" else f"{folder}.zip"
    return Entry(folder, (RemoteFile(f"{_GLUE}{archive}", archive, sha256),), True)


def model(path: str, members: Mapping[str, str] | None = None) -> Entry:
    """A published BERT.

    Args:
      path: Date and name, such as 2020_02_20/uncased_L-2_H-128_A-2.
      members: Known sha256 of its files.
    """
    name = path.rpartition("/")[2]
    file = RemoteFile(f"{MODELS}{path}.zip", f"{name}.zip")
    return Entry(path, (file,), True, members or {})


def _weights(config: str, data: str, index: str, vocabulary: str) -> dict[str, str]:
    return {
        "bert_config.json": config,
        "bert_model.ckpt.data-00000-of-00001": data,
        "bert_model.ckpt.index": index,
        "vocab.txt": vocabulary,
    }


_UNCASED = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_CASED = "eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02"
_MODELS_WITH_SUMS = {
    "2018_10_18/uncased_L-12_H-768_A-12": _weights(
        "7b4e5f53efbd058c67cda0aacfafb340113ea1b5797d9ce6ee411704ba21fcbc",
        "58580dc5e0bf0ae0d2efd51d0e8272b2f808857f0a43a88aaf7549da6d7a8a84",
        "04c1323086e2f1c5b7c0759d8d3e484afbb0ab45f51793daab9f647113a0117b",
        _UNCASED,
    ),
    "2018_10_18/uncased_L-24_H-1024_A-16": _weights(
        "bfa42236d269e2aeb3a6d30412a33d15dbe8ea597e2b01dc9518c63cc6efafcb",
        "bc6b3363e3be458c99ecf64b7f472d2b7c67534fd8f564c0556a678f90f4eea1",
        "68b52f2205ffc64dc627d1120cf399c1ef1cbc35ea5021d1afc889ffe2ce2093",
        _UNCASED,
    ),
    "2018_10_18/cased_L-12_H-768_A-12": _weights(
        "f11dfb757bea16339a33e1bf327b0aade6e57fd9c29dc6b84f7ddb20682f48bc",
        "734d5a1b68bf98d4e9cb6b6692725d00842a1937af73902e51776905d8f760ea",
        "517d6ef5c41fc2ca1f595276d6fccf5521810d57f5a74e32616151557790f7b1",
        _CASED,
    ),
    "2018_10_18/cased_L-24_H-1024_A-16": _weights(
        "7adb2125c8225da495656c982fd1c5f64ba8f20ad020838571a3f8a954c2df57",
        "6ff33640f40d472f7a16af0c17b1179ca9dcc0373155fb05335b6a4dd1657ef0",
        "ef42a53f577fbe07381f4161b13c7cab4f4fc3b167cec6a9ae382c53d18049cf",
        _CASED,
    ),
    "2018_11_23/multi_cased_L-12_H-768_A-12": _weights(
        "e76c3964bc14a8bb37a5530cdc802699d2f4a6fddfab0611e153aa2528f234f0",
        "55b8a2df41f69c60c5180e50a7c31b7cdf6238909390c4ddf05fbc0d37aa1ac5",
        "7d8509c2a62b4e300feb55f8e5f1eef41638f4998dd4d887736f42d4f6a34b37",
        "fe0fda7c425b48c516fc8f160d594c8022a0808447475c1a7c6d6479763f310c",
    ),
    "2018_11_03/chinese_L-12_H-768_A-12": _weights(
        "7aaad0335058e2640bcb2c2e9a932b1cd9da200c46ea7b8957d54431f201c015",
        "756699356b78ad0ef1ca9ba6528297bcb3dd1aef5feadd31f4775d7c7fc989ba",
        "46315546e05ce62327b3e2cd1bed22836adcb2ff29735ec87721396edb21b82e",
        "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c",
    ),
}
_MODELS_WITHOUT_SUMS = [
    *(f"2019_05_30/wwm_{case}_L-24_H-1024_A-16" for case in ("uncased", "cased")),
    *(
        f"2020_02_20/uncased_L-{layers}_H-{width}_A-{width // 64}"
        for layers in (2, 4, 6, 8, 10, 12)
        for width in (128, 256, 512, 768)
    ),
]

# Task -> the sha256 of its archive.
_GLUE_SUMS = {
    "CoLA": "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff",
    "MNLI": "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633",
    "QNLI": "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5",
    "QQP": "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0",
    "RTE": "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee",
    "SST-2": "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
    "STS-B": "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85",
    "WNLI": "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46",
}
WIKIPEDIA = "wikipedia"
MRPC = "mrpc"
CATALOGUE: dict[str, Entry] = {
    "squad-1.1": _squad(
        "1.1",
        "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955",
        "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
    ),
    "squad-2.0": _squad(
        "2.0",
        "68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002",
        "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8",
    ),
    MRPC: Entry(
        "MRPC",
        (
            RemoteFile(
                f"{_MRPC}msr_paraphrase_train.txt",
                "msr_paraphrase_train.txt",
                "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
            ),
            RemoteFile(
                f"{_MRPC}msr_paraphrase_test.txt",
                "msr_paraphrase_test.txt",
                "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
            ),
            # The file is that on Firebase, whose checksum tensorflow_datasets has.
            RemoteFile(
                f"{_GLUE}mrpc_dev_ids.tsv",
                "mrpc_dev_ids.tsv",
                "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7",
            ),
        ),
    ),
    **{folder.lower(): _glue(folder, sums) for folder, sums in _GLUE_SUMS.items()},
    "blimp": Entry(
        "blimp",
        (
            RemoteFile(
                _BLIMP,
                "BLiMP.zip",
                "172a1a714d72e72a89e8384dd531483f3d0f8a9aee3d33dccaf7992d8cecbb73",
            ),
        ),
        True,
    ),
    **{path: model(path, sums) for path, sums in _MODELS_WITH_SUMS.items()},
    **{path: model(path) for path in _MODELS_WITHOUT_SUMS},
}
GLUE_TASKS = (MRPC, *map(str.lower, _GLUE_SUMS))


def wikipedia(language: str, date: str) -> tuple[RemoteFile, str]:
    """A dump of Wikipedia's articles, and where its sha1 is listed.

    Args:
      language: Such as en or simple.
      date: latest, or the date of a dump.
    """
    wiki = f"{language}wiki"
    folder = f"{_DUMPS}{wiki}/{date}/{wiki}-{date}-"
    name = f"{wiki}-{date}-pages-articles.xml.bz2"
    return RemoteFile(f"{folder}pages-articles.xml.bz2", name), f"{folder}sha1sums.txt"
