"""Captions to token ids: CLIP's own byte-pair encoding, and one id per word for the phantoms' captions.

Both give ids (B, context_length): start token, the caption, end token, zeros. The end token has the largest
id of all, because CLIP reads a caption's feature at `ids.argmax()` (arXiv 2103.00020, section 2.4).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..runtime import SeminarError, unknown_name

PAD, UNKNOWN, START = 0, 1, 2  # ids of WordTokenizer; words follow, then the end token
CHOICES = {"too_long": ("cut", "error"), "unknown": ("warn", "error")}


class WordTokenizer:
    """One id per word, for small closed vocabularies; case and punctuation do not count.

    words: the vocabulary in the order of its ids (keep it with the weights: `list(tokenizer.words)`).
    too_long: what to do with captions over the context length, "cut" (with a warning) or "error".
    unknown: words outside the vocabulary become one common token, after a warning, or are an "error".
    """

    def __init__(
        self, words: Sequence[str], context_length: int = 24, too_long: str = "cut", unknown: str = "warn"
    ):
        check_choice("too_long", too_long)
        check_choice("unknown", unknown)
        if (
            not words
            or len(set(words)) != len(words)
            or [split_words(word) for word in words] != [[w] for w in words]
        ):
            raise SeminarError(f"a vocabulary is a list of different lower-case words, got {words!r:.80}")
        self.words, self.context_length = tuple(words), check_length(context_length)
        self.too_long, self.unknown = too_long, unknown
        self.ids = {word: number for number, word in enumerate(words, start=START + 1)}
        self.end = START + 1 + len(words)
        self.vocab_size = self.end + 1

    @classmethod
    def from_captions(cls, captions: Iterable[str], **options) -> WordTokenizer:
        """A tokenizer that knows the words of these captions, in alphabetical order."""
        return cls(sorted({word for caption in as_captions(captions) for word in split_words(caption)}), **options)

    def __call__(self, captions: str | Sequence[str]) -> Tensor:
        """Ids (B, context_length) of one caption or several. Raises SeminarError as the options say."""
        captions = as_captions(captions)
        split = [split_words(caption) for caption in captions]
        strange = sorted({word for words in split for word in words} - set(self.ids))
        if strange:
            message = f"words that this tokenizer never saw: {', '.join(strange[:6])}"
            if self.unknown == "error":
                raise SeminarError(f"{message}; it knows {', '.join(self.words)}")
            warnings.warn(message, stacklevel=2)
        rows = [[START, *(self.ids.get(word, UNKNOWN) for word in words), self.end] for words in split]
        return pack(rows, captions, self.context_length, self.too_long)

    def decode(self, ids: Tensor) -> list[str]:
        """The words of each row of ids (B, L) up to its end token; `?` for the unknown."""
        names = {UNKNOWN: "?", **{number: word for word, number in self.ids.items()}}
        rows = [row[: row.index(self.end)] if self.end in row else row for row in ids.tolist()]
        return [" ".join(names[number] for number in row if number in names) for row in rows]


class ClipTokenizer:
    """The byte-pair encoding that OpenAI's and open_clip's weights were trained with; 49408 tokens.

    The vocabulary comes from the package open_clip. too_long: see WordTokenizer.
    Raises SeminarError, with the command that installs it, when open_clip is not there.
    """

    vocab_size = 49408

    def __init__(self, context_length: int = 77, too_long: str = "cut"):
        check_choice("too_long", too_long)
        self.context_length, self.too_long = check_length(context_length), too_long
        self.bpe = official_bpe()

    def __call__(self, captions: str | Sequence[str]) -> Tensor:
        """Ids (B, context_length) of one caption or several."""
        captions = as_captions(captions)
        start, end = self.bpe.sot_token_id, self.bpe.eot_token_id
        rows = [[start, *self.bpe.encode(caption), end] for caption in captions]
        return pack(rows, captions, self.context_length, self.too_long)


def official_bpe():
    """open_clip's tokenizer object, imported only here."""
    from ..torchvision_fix import import_torchvision

    try:
        import_torchvision()  # open_clip imports it, and would fail beside a CPU-only torch
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise SeminarError(
            f"CLIP's vocabulary comes with open_clip, which cannot be imported ({error}): "
            'pip install "open_clip_torch>=3"'
        ) from error
    return SimpleTokenizer()


def pack(rows: list[list[int]], captions: Sequence[str], length: int, too_long: str) -> Tensor:
    """Rows of ids as a tensor (B, length), zeros behind; a caption that is cut keeps its end token."""
    over = [caption for caption, row in zip(captions, rows) if len(row) > length]
    if over:
        message = f"{len(over)} of {len(rows)} captions have more than {length - 2} tokens: {over[0]!r:.80}"
        if too_long == "error":
            raise SeminarError(f"{message}; shorten them, or choose too_long='cut'")
        warnings.warn(f"{message}; their ends were cut off", stacklevel=3)
    ids = torch.full((len(rows), length), PAD)
    for target, row in zip(ids, rows):
        row = row if len(row) <= length else [*row[: length - 1], row[-1]]
        target[: len(row)] = torch.tensor(row)
    return ids


def split_words(caption: str) -> list[str]:
    """`A ring-shaped lesion, upper left` -> a, ring-shaped, lesion, upper, left."""
    return re.findall(r"\w+(?:-\w+)*", caption.lower())


def as_captions(captions: str | Iterable[str]) -> list[str]:
    """One caption or several as a list; SeminarError when there are none or they are no strings."""
    found = [captions] if isinstance(captions, str) else list(captions) if isinstance(captions, Iterable) else []
    if not found or not all(isinstance(caption, str) for caption in found):
        raise SeminarError(f"expected at least one caption, all of them strings, got {captions!r:.80}")
    return found


def check_choice(option: str, value: str) -> None:
    """Raise SeminarError for a choice nobody knows."""
    if value not in CHOICES[option]:
        raise unknown_name(option, value, CHOICES[option])


def check_length(context_length: int) -> int:
    """The context length, if start, one word and end have room in it; SeminarError otherwise."""
    if not isinstance(context_length, int) or context_length < 3:
        raise SeminarError(f"the context length is an integer of at least 3, got {context_length!r}")
    return context_length
