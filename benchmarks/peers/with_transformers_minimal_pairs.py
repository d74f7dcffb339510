"""transformers on PyTorch: each token masked alone, `batch` copies at a time."""

import torch
import transformers
import worker
from transformers import AutoTokenizer, BertForMaskedLM

work = worker.workload()
torch.set_num_threads(work["threads"])
transformers.logging.set_verbosity_error()
model = BertForMaskedLM.from_pretrained(work["model"]).eval()
tokenizer = AutoTokenizer.from_pretrained(work["model"])


def masked_copies(ids: torch.Tensor) -> list[tuple[torch.Tensor, int, int]]:
    """Each copy [S] with the position of its mask, and the token there."""
    copies = []
    for position in range(1, len(ids) - 1):
        copy = ids.clone()
        copy[position] = tokenizer.mask_token_id
        copies.append((copy, position, int(ids[position])))
    return copies


def log_probabilities(copies: list[tuple[torch.Tensor, int, int]]) -> list[float]:
    """Of the masked tokens."""
    ids = torch.nn.utils.rnn.pad_sequence(
        [copy for copy, _, _ in copies],
        batch_first=True,
        padding_value=tokenizer.pad_token_id,
    )
    mask = None
    if len(copies) > 1:
        lengths = torch.tensor([len(copy) for copy, _, _ in copies])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    logits = model(ids, attention_mask=mask).logits
    rows = torch.arange(len(copies))
    chosen = logits[rows, torch.tensor([position for _, position, _ in copies])]
    labels = torch.tensor([label for _, _, label in copies])
    return torch.log_softmax(chosen, -1)[rows, labels].tolist()


def score(pairs: list[list[str]]) -> list[list[float]]:
    """Both sums of each pair."""
    with torch.inference_mode():
        sentences = [
            masked_copies(tokenizer(text, return_tensors="pt")["input_ids"][0])
            for pair in pairs
            for text in pair
        ]
        copies = [copy for sentence in sentences for copy in sentence]
        size, found = work["batch"], []
        for first in range(0, len(copies), size):
            found += log_probabilities(copies[first : first + size])
    sums, first = [], 0
    for sentence in sentences:
        sums.append(sum(found[first : first + len(sentence)]))
        first += len(sentence)
    return [list(both) for both in zip(sums[::2], sums[1::2], strict=True)]


worker.serve(worker.scoring(work, score))
