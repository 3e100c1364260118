"""Captions to token ids as BERT reads them: words, cut into the longest pieces that the vocabulary knows.

Devlin et al., 2018 (arXiv 1810.04805, section 3): WordPiece, uncased. `pneumothorax` may become `pneumo`,
`##thorax`; the two marks say that a piece continues a word. PubMedBERT's vocabulary, which BiomedCLIP needs,
comes beside the weights: `checkpoints.load_vocabulary("biomedclip")`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from torch import Tensor

from ..runtime import SeminarError
from .tokenizers import as_captions, check_choice, check_length, pack

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # BiomedCLIP's text tower takes id 0 for padding
LONGEST_WORD = 100  # letters; longer ones are unknown, as in BERT


class WordPieceTokenizer:
    """Ids (B, context_length): [CLS], the pieces, [SEP], zeros. Case and accents do not count.

    vocabulary: the tokens in the order of their ids, the lines of a `vocab.txt`; [PAD] comes first.
    too_long: what to do with captions over the context length, "cut" (with a warning) or "error".
    Raises SeminarError when the vocabulary lacks one of BERT's own tokens.
    """

    def __init__(self, vocabulary: Sequence[str], context_length: int = 256, too_long: str = "cut"):
        check_choice("too_long", too_long)
        self.context_length, self.too_long = check_length(context_length), too_long
        self.ids = {token: number for number, token in enumerate(vocabulary)}
        absent = [token for token in SPECIAL if token not in self.ids]
        if absent or self.ids["[PAD]"] != 0:
            raise SeminarError(
                f"a BERT vocabulary starts with [PAD] and holds {', '.join(SPECIAL)}; got {len(self.ids)} tokens "
                f"that start with {list(self.ids)[:4]}" + (f", without {', '.join(absent)}" if absent else "")
            )
        self.vocab_size = len(self.ids)

    def __call__(self, captions: str | Sequence[str]) -> Tensor:
        """Ids (B, context_length) of one caption or several."""
        captions = as_captions(captions)
        start, end = self.ids["[CLS]"], self.ids["[SEP]"]
        rows = [[start, *self.encode(caption), end] for caption in captions]
        return pack(rows, captions, self.context_length, self.too_long)

    def encode(self, caption: str) -> list[int]:
        """The ids of a caption's pieces, without start and end."""
        return [self.ids[piece] for word in split_words(caption) for piece in self.pieces(word)]

    def pieces(self, word: str) -> list[str]:
        """Cut a word from the left, each time the longest known piece; [UNK] for the whole word if none fits."""
        found, start = [], 0
        while start < len(word) <= LONGEST_WORD:
            ends = range(len(word), start, -1)
            candidates = (("##" if start else "") + word[start:end] for end in ends)
            piece = next((candidate for candidate in candidates if candidate in self.ids), None)
            if piece is None:
                return ["[UNK]"]
            found.append(piece)
            start += len(piece) - (2 if start else 0)
        return found or ["[UNK]"]


def split_words(caption: str) -> list[str]:
    """Lower case without accents; every punctuation mark and every Chinese sign is a word of its own."""
    text = unicodedata.normalize("NFD", caption.lower())
    spaced = []
    for letter in text:
        kind = unicodedata.category(letter)
        if letter in "\t\n\r" or (letter.isspace() and kind != "Cc"):
            spaced.append(" ")
        elif kind in ("Mn", "Cc", "Cf", "Co") or letter == "\ufffd":
            continue  # accents, and signs that cannot be seen
        else:
            alone = kind.startswith("P") or (letter.isascii() and not letter.isalnum()) or is_chinese(letter)
            spaced.append(f" {letter} " if alone else letter)
    return "".join(spaced).split()


def is_chinese(letter: str) -> bool:
    """Whether a sign is one of the CJK ideographs, which are written without spaces."""
    return unicodedata.name(letter, "").startswith(("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH"))
