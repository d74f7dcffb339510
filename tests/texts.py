"""The documents of text files."""

from bert_tf.data.text.documents import cut_into_ranges, read_ranges

_BYTES = 16 << 20


def read_documents(paths, input_format):
    """All documents of the files, in order."""
    return read_ranges(cut_into_ranges(paths, input_format, _BYTES), input_format)
