"""Small CLIPs of the three layouts at random weights, each with a tokenizer that knows a few words."""

from seminar_utils.models.biomedclip import BiomedCLIP, BiomedClipConfig
from seminar_utils.models.clip import CLIP, ClipConfig, clip_tiny
from seminar_utils.models.parity import randomise_
from seminar_utils.models.tokenizers import WordTokenizer
from seminar_utils.models.wordpiece import WordPieceTokenizer

WORDS = ["a", "dark", "grey", "bright", "lesion", "left", "upper", "of", "the"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, ".", "##er", "up", ",", "image", "photo"]
NAMES = ["dark", "grey", "upper left"]
LAYOUTS = ("tiny", "openai", "biomedclip")


def small_clip(layout: str = "tiny", seed: int = 1):
    """A CLIP in eval mode for grey images of 16 pixels, and its tokenizer."""
    if layout == "biomedclip":
        tokenizer = WordPieceTokenizer(PIECES, context_length=32)
        vision = {"img_size": 16, "patch_size": 8, "in_chans": 1, "dim": 24, "depth": 1, "num_heads": 2}
        text = {"dim": 32, "depth": 2, "num_heads": 4, "hidden_dim": 48, "positions": 40}
        sizes = {"embed_dim": 48, "context_length": 32, "vocab_size": tokenizer.vocab_size}
        clip = BiomedCLIP(BiomedClipConfig(vision=vision, text=text, **sizes))
        clip = randomise_(clip, seed)
    elif layout == "openai":
        tokenizer = WordTokenizer(WORDS, context_length=32)
        vision = {"image_size": 16, "patch_size": 8, "in_chans": 1, "vision_width": 32, "vision_layers": 2}
        text = {"vision_heads": 2, "context_length": 32, "text_width": 32, "text_layers": 2, "text_heads": 4}
        clip = CLIP(ClipConfig(embed_dim=48, vocab_size=tokenizer.vocab_size, **vision, **text))
        clip = randomise_(clip, seed)
    else:
        tokenizer = WordTokenizer(WORDS)
        clip = randomise_(clip_tiny(tokenizer.vocab_size, image_size=16), seed)
    clip.logit_scale.data.fill_(2.5)
    return clip.eval(), tokenizer
