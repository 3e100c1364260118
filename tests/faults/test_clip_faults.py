"""Wrong input to CLIP, its tokenizers, its training, and to Swin's windows: one clear SeminarError each."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from seminar_utils.data import load
from seminar_utils.models import create_model
from seminar_utils.models.clip import ClipConfig
from seminar_utils.models.clip_blocks import PackedAttention
from seminar_utils.models.swin import SwinTransformer
from seminar_utils.models.tokenizers import ClipTokenizer, WordTokenizer
from seminar_utils.models.windows import window_partition, window_reverse
from seminar_utils.models.zero_shot import zero_shot_classifier
from seminar_utils.pretraining.captions import hard_negative_batches
from seminar_utils.pretraining.clip import ClipTrainConfig, clip_loss, fit_clip
from seminar_utils.runtime import SeminarError
from seminar_utils.torchvision_fix import import_torchvision


@pytest.fixture(scope="module")
def tokenizer():
    return WordTokenizer(["a", "dark", "lesion"], context_length=8)


@pytest.fixture(scope="module")
def model(tokenizer):
    return create_model("clip_tiny", vocab_size=tokenizer.vocab_size)


BAD_IDS = {
    "floats": (torch.zeros(2, 8), r"integer tensor \(B, L\).*got torch.float32 of shape \(2, 8\)"),
    "one caption": (torch.zeros(8, dtype=torch.long), r"got torch.int64 of shape \(8,\)"),
    "strings": (["a lesion"], "as tokenizers give, got list"),
    "too long": (torch.zeros(1, 25, dtype=torch.long), r"1 to 24 tokens in this CLIP, got shape \(1, 25\)"),
    "no captions": (torch.zeros(0, 8, dtype=torch.long), r"got shape \(0, 8\)"),
    "empty": (torch.zeros(2, 0, dtype=torch.long), r"got shape \(2, 0\)"),
    "of another tokenizer": (
        torch.tensor([[49406, 320, 49407]]),
        r"ids lie in 0\.\.6, got 320\.\.49407: from another",
    ),
    "negative": (torch.tensor([[-1, 3]]), r"got -1\.\.3"),
}


@pytest.mark.parametrize("case", BAD_IDS)
def test_bad_ids(model, case):
    ids, message = BAD_IDS[case]
    with pytest.raises(SeminarError, match=message):
        model.encode_text(ids)


def test_image_sizes(model):
    with pytest.raises(
        SeminarError, match="learnt positions for 32 x 32 images, got 64 x 40: resize.*interpolation="
    ):
        model.encode_image(torch.zeros(1, 1, 64, 40))
    with pytest.raises(SeminarError, match="multiples of 4 for this CLIP, got 30 x 32"):
        model.encode_image(torch.zeros(1, 1, 30, 32))
    stretched = create_model("clip_tiny", interpolation="timm")
    assert stretched.encode_image(torch.zeros(1, 1, 64, 40)).shape == (1, 64)


def test_impossible_models():
    with pytest.raises(SeminarError, match="pool is .class. or the side of a grid, at least 1, got 'mean'"):
        ClipConfig(pool="mean")
    with pytest.raises(SeminarError, match="got 0"):
        create_model("clip_tiny", pool=0)
    with pytest.raises(SeminarError, match=r"widths of the stem are multiples of 8, got \(12,\)"):
        create_model("clip_tiny", conv_stem=(12,))
    with pytest.raises(SeminarError, match="stem_extra counts convolutions, from 0 on, got -1"):
        create_model("clip_tiny", stem_extra=-1)
    with pytest.raises(SeminarError, match="must divide the width, got width=10, heads=3"):
        PackedAttention(10, 3)
    with pytest.raises(SeminarError, match=r"create_model\('clip_tiny'\).*vison_width"):
        create_model("clip_tiny", vison_width=3)
    with pytest.raises(SeminarError, match="unknown position convention 'cubic'"):
        create_model("clip_tiny", interpolation="cubic")
    with pytest.raises(SeminarError, match=r"must name the same stages.*got \(2, 2\), \(2,\)"):
        SwinTransformer(depths=(2, 2), num_heads=(2,))
    with pytest.raises(SeminarError, match="at least 1"):
        create_model("swin_tiny", window=0)
    with pytest.raises(SeminarError, match="must divide the width, got dim=32, heads=5"):
        create_model("swin_tiny", num_heads=(5, 5, 5))


def test_windows_that_do_not_tile():
    with pytest.raises(SeminarError, match="windows of 4 do not tile a map of 6 x 8: pad it first"):
        window_partition(torch.zeros(1, 6, 8, 2), 4)
    with pytest.raises(SeminarError, match="windows of 0 do not tile"):
        window_partition(torch.zeros(1, 6, 8, 2), 0)
    with pytest.raises(SeminarError, match="3 windows of 4 do not fill maps of 8 x 8"):
        window_reverse(torch.zeros(3, 16, 2), 4, 8, 8)
    with pytest.raises(SeminarError, match="1 windows of 4 do not fill maps of 2 x 2"):
        window_reverse(torch.zeros(1, 16, 2), 4, 2, 2)


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_captions_over_the_context_length(kind):
    if kind == "bpe":
        import_torchvision()
        pytest.importorskip("open_clip")
    options = {"context_length": 8, "too_long": "error"}
    tokenizer = ClipTokenizer(**options) if kind == "bpe" else WordTokenizer(["a"], **options)
    tokenizer("a a a a a a")
    with pytest.raises(SeminarError, match="1 of 2 captions have more than 6 tokens: 'a a a a a a a'"):
        tokenizer(["a", "a a a a a a a"])


@pytest.mark.parametrize("captions", [[], None, 3, ["a", 3], [None]])
def test_captions_that_are_none(tokenizer, captions):
    with pytest.raises(SeminarError, match="at least one caption, all of them strings"):
        tokenizer(captions)


def test_tokenizers_refuse_nonsense():
    with pytest.raises(SeminarError, match="never saw: spotted; it knows a, lesion"):
        WordTokenizer(["a", "lesion"], unknown="error")("a spotted lesion")
    for words in ([], ["a", "a"], ["two words"], ["Upper"], [""]):
        with pytest.raises(SeminarError, match="a vocabulary is a list of different lower-case words"):
            WordTokenizer(words)
    for length in (2, 8.0, None):
        with pytest.raises(SeminarError, match="context length is an integer of at least 3"):
            WordTokenizer(["a"], length)
    with pytest.raises(SeminarError, match="unknown too_long 'truncate'"):
        WordTokenizer(["a"], too_long="truncate")
    with pytest.raises(SeminarError, match="unknown unknown 'skip'"):
        WordTokenizer(["a"], unknown="skip")


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        ([], ["a {}"], r"at least one class name, got \[\]"),
        (["dark"], [], r"at least one prompt, got \[\]"),
        ("dark", ["a {}"], "list of at least one class name, got 'dark'"),
        (["dark"], "a {}", "list of at least one prompt, got 'a {}'"),
        (["dark"], ["a lesion"], r"needs {} where the class name goes, got 'a lesion'"),
    ],
)
def test_zero_shot_without_classes_or_prompts(model, tokenizer, names, templates, message):
    with pytest.raises(SeminarError, match=message):
        zero_shot_classifier(model, tokenizer, names, templates)


def test_features_that_are_no_pairs():
    scale = torch.tensor(1.0)
    with pytest.raises(SeminarError, match=r"both \(B, D\), got \(4, 3\) and \(5, 3\)"):
        clip_loss(torch.zeros(4, 3), torch.zeros(5, 3), scale)
    with pytest.raises(SeminarError, match=r"both \(B, D\), got \(3,\)"):
        clip_loss(torch.zeros(3), torch.zeros(3), scale)


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"batch_size": 1}, {"lr": 0.0}, {"caption_dropout": 1.0}, {"hard_share": 1.1}]
)
def test_bad_settings(bad):
    with pytest.raises(SeminarError, match="training needs|lies in"):
        ClipTrainConfig(**bad)


def test_sets_that_cannot_be_trained_on(model, tokenizer):
    data = load("phantoms", "train", n=4)
    with pytest.raises(SeminarError, match="learns from captions, the data set 'phantoms' has none"):
        fit_clip(model, tokenizer, replace(data, captions=None), ClipTrainConfig(batch_size=2))
    with (
        pytest.warns(UserWarning),
        pytest.raises(SeminarError, match="4 captioned images do not fill one batch of 8"),
    ):
        fit_clip(model, tokenizer, data, ClipTrainConfig(batch_size=8), progress=False)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({}, "at least one"),
        ({"a": np.zeros((3, 2), int)}, "integers"),
        ({"a": np.zeros(3)}, "integers"),
        ({"a": np.zeros(3, int)}, "no two captions differ in only one of a"),
        ({"a": np.arange(3), "b": np.arange(3)}, "no two captions differ in only one of a, b"),
        ({"a": np.arange(3), "b": np.arange(4)}, "the same number"),
    ],
)
def test_factors_without_hard_negatives(factors, message):
    with pytest.raises(SeminarError, match=message):
        next(hard_negative_batches(factors, 4, np.random.default_rng(0)))


def test_factors_to_vary_must_exist():
    factors = {"tone": np.array([0, 1]), "size": np.array([0, 0])}
    with pytest.raises(SeminarError, match="unknown factor 'tones': did you mean 'tone'"):
        next(hard_negative_batches(factors, 2, np.random.default_rng(0), ("tones",)))
    with pytest.raises(SeminarError, match="no two captions differ in only one of size"):
        next(hard_negative_batches(factors, 2, np.random.default_rng(0), ("size",)))
