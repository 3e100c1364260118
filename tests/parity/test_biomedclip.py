"""Our BiomedCLIP against open_clip's construction (timm's ViT, transformers' BERT); token ids against BERT's."""

import pytest
import torch
from torch import nn

from seminar_utils.models import create_model
from seminar_utils.models.biomedclip import TextTower
from seminar_utils.models.convert import from_biomedclip, load_weights
from seminar_utils.models.parity import parity_line, parity_report, randomise_
from seminar_utils.models.wordpiece import WordPieceTokenizer
from seminar_utils.models.zero_shot import ZeroShotModel, zero_shot_classifier
from seminar_utils.runtime import SeminarError
from seminar_utils.torchvision_fix import import_torchvision

import_torchvision()
open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}
SMALL |= {"vocab_size": 70, "max_position_embeddings": 40}


def text_reference(embed_dim, **sizes):
    """transformers' BERT as open_clip wraps it."""
    from open_clip.hf_model import HFTextEncoder

    config = transformers.BertConfig(**sizes)
    options = {"pooler_type": "cls_last_hidden_state_pooler", "proj_type": "mlp"}
    text = HFTextEncoder("bert", embed_dim, config=config, **options)
    text.transformer.pooler = None  # not in the file
    return text


class Reference(nn.Module):
    """The two towers as open_clip puts them together for the published file."""

    def __init__(self, embed_dim=512, trunk=None, **sizes):
        from open_clip.timm_model import TimmModel

        super().__init__()
        self.visual = TimmModel("vit_base_patch16_224", embed_dim, pool="", proj="linear")
        if trunk is not None:
            self.visual.trunk = trunk
            self.visual.head.proj = nn.Linear(trunk.num_features, embed_dim, bias=False)
        self.text = text_reference(embed_dim, **sizes)
        self.logit_scale = nn.Parameter(torch.zeros([]))

    def forward(self, images, ids):
        image, text = (nn.functional.normalize(f, dim=-1) for f in (self.visual(images), self.text(ids)))
        return self.logit_scale.exp() * image @ text.T


class Against(nn.Module):
    """The whole model as a function of the images, the captions fixed: gradients reach both towers."""

    def __init__(self, model, ids):
        super().__init__()
        self.model, self.ids = model, ids

    def forward(self, images):
        return self.model(images, self.ids)


def some_ids(batch, length, vocab_size, seed=2):
    """Captions of different lengths: words, then padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocab_size, (batch, length), generator=generator)
    for number, row in enumerate(ids):
        row[length - 5 * number :] = 0 if number else row[length:]
    return ids


def images(batch, size):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def check(title, ours, reference, x, feature, tolerance):
    for name, parameter in [*ours.named_parameters(), *reference.named_parameters()]:
        if name.endswith("key.bias"):  # adds the same to all scores of a query: its gradient is 0, and then noise
            parameter.requires_grad_(False)
    report = parity_report(ours, reference, x, rename=from_biomedclip, feature=feature)
    print("\n" + parity_line(title, report))
    assert all(value <= tolerance for key, value in report.items() if key != "max_difference"), report


def small_pair():
    import timm

    trunk = timm.models.VisionTransformer(
        img_size=32, patch_size=8, num_classes=0, embed_dim=36, depth=2, num_heads=3, global_pool="token"
    )
    vision = {"img_size": 32, "patch_size": 8, "dim": 36, "depth": 2, "num_heads": 3}
    text = {"dim": 48, "depth": 3, "num_heads": 4, "hidden_dim": 80, "positions": 40}
    ours = create_model("biomedclip", embed_dim=20, context_length=30, vocab_size=70, vision=vision, text=text)
    reference = randomise_(Reference(embed_dim=20, trunk=trunk, **SMALL), seed=3).double()
    return load_weights(ours.double(), from_biomedclip(reference.state_dict())), reference


def test_small_biomedclip_equals_open_clip_in_float64():
    """In float64: BERT's eps of 1e-12 (float32 forgives 1e-5) and the exact GELU must show as well."""
    ours, reference = small_pair()
    ids = some_ids(4, 24, 70)
    layer = "text.transformer.encoder.layer.1"
    pair = Against(ours, ids), Against(reference, ids)
    check("small BiomedCLIP (float64)", *pair, images(3, 32).double(), (f"model.{layer}.output",) * 2, 1e-10)
    check("its text tower", ours.text, reference.text, ids, ("transformer.encoder.layer.2.output",) * 2, 1e-10)


def test_the_text_tower_equals_open_clip_s_in_float32():
    """Full width, two layers: with random weights the tokens of deeper layers become alike, and the gradients
    of their queries noise. The image tower is test_vit.py's; the whole file is in test_official_layouts.py."""
    reference = randomise_(text_reference(512, num_hidden_layers=2), seed=3)
    ours = load_weights(TextTower(512, 30522, {"depth": 2}), from_biomedclip(reference.state_dict()))
    layer = ("transformer.encoder.layer.1.output",) * 2
    check("BiomedCLIP's text tower vs open_clip", ours, reference, some_ids(3, 24, 30522), layer, 1e-5)


def test_padding_changes_nothing_and_must_not_come_first():
    ours, _ = small_pair()
    ids = some_ids(1, 12, 70)
    padded = nn.functional.pad(ids, (0, 9))
    torch.testing.assert_close(ours.encode_text(ids), ours.encode_text(padded), rtol=0, atol=1e-12)
    with pytest.raises(SeminarError, match="starts with its class token"):
        ours.encode_text(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(SeminarError, match="1 to 30 tokens"):
        ours.encode_text(torch.ones(2, 31, dtype=torch.int64))
    with pytest.raises(SeminarError, match="0..69"):
        ours.encode_text(torch.full((2, 5), 70))


PIECES = """the chest x ray of a pneumo ##thorax ##x lesion ##s left in 3 . 5 cm - ( ) , no naive ##ve na ##i
reader s ' un ##aff ##able card ##io ##meg ##aly ##a 肺 ? ! [ ] cls sep""".split()
CAPTIONS = [
    "The chest X-ray of a PNEUMOTHORAX",
    "lesions, left (3.5 cm): naïve reader's\tnote\u00a0!\nin\x85the \u2ee0 \ufffd\u2028chest",
    "unaffable cardiomegaly\u200b 肺肺 [CLS]? \x00 no",
    "thorax " + "a" * 101 + " pneumo" + "x" * 20,
    "",
]


def test_token_ids_equal_bert_s(tmp_path):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(PIECES)]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    reference = transformers.BertTokenizer(vocab={token: i for i, token in enumerate(vocabulary)})
    ours = WordPieceTokenizer(vocabulary, context_length=64)
    captions = [caption.replace("[CLS]", "[ CLS ]") for caption in CAPTIONS]  # the reference would see a mark
    expected = reference(captions, padding="max_length", max_length=64, truncation=True, return_tensors="pt")
    assert torch.equal(ours(CAPTIONS), expected["input_ids"])
    assert (ours(CAPTIONS) == 1).sum() > 3  # some words are unknown, so that this is tested too
    with pytest.warns(UserWarning, match="cut off"):
        cut = ours("lesions " * 100)
    expected = reference("lesions " * 100, max_length=64, truncation=True, return_tensors="pt")
    assert torch.equal(cut, expected["input_ids"])


def test_classes_in_words_work_as_with_clip():
    model = small_pair()[0].float().eval()
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abc"], context_length=8)
    classifier = zero_shot_classifier(model, tokenizer, ["a", "b b"], ["{} c"])
    x = images(2, 32)
    logits = ZeroShotModel(model, classifier)(x)
    assert logits.shape == (2, 2)
    torch.testing.assert_close(logits, model(x, tokenizer(["a c", "b b c"])))


@pytest.mark.parametrize(
    "vocabulary", [[], ["a", "[PAD]", "[UNK]", "[CLS]", "[SEP]"], ["[PAD]", "[UNK]", "[CLS]"]]
)
def test_a_vocabulary_that_is_not_bert_s(vocabulary):
    with pytest.raises(SeminarError, match=r"starts with \[PAD\]"):
        WordPieceTokenizer(vocabulary)
