"""CLIP's parts: tokenizers, towers, zero-shot by prompt ensembling."""

import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F

from seminar_utils.data import load
from seminar_utils.models import create_model
from seminar_utils.models.clip import ClipConfig
from seminar_utils.models.parity import randomise_, relative_difference
from seminar_utils.models.tokenizers import ClipTokenizer, WordTokenizer
from seminar_utils.models.zero_shot import ZeroShotModel, zero_shot_classifier
from seminar_utils.runtime import SeminarError
from seminar_utils.torchvision_fix import import_torchvision

CAPTIONS = ["a small dark lesion", "a large bright ring-shaped lesion in the upper left of the organ, scanner A"]


@pytest.fixture
def tokenizer():
    return WordTokenizer.from_captions(CAPTIONS)


@pytest.fixture
def model(tokenizer):
    return randomise_(create_model("clip_tiny", vocab_size=tokenizer.vocab_size), seed=1).eval()


def test_words_to_ids_and_back(tokenizer):
    ids = tokenizer(CAPTIONS)
    assert ids.shape == (2, 24) and ids.dtype == torch.int64
    assert tokenizer.decode(ids) == [CAPTIONS[0], CAPTIONS[1].lower().replace(",", "")]
    assert ids[0].argmax() == 5 and ids[0, 5] == tokenizer.end == tokenizer.vocab_size - 1
    assert (ids[0, 6:] == 0).all() and (ids[:, 0] == 2).all()
    assert torch.equal(tokenizer("A small, dark LESION!"), ids[:1])
    assert torch.equal(WordTokenizer(list(tokenizer.words))(CAPTIONS), ids)  # the words are all there is to keep


def test_phantom_captions_fit_the_small_clip():
    captions = load("phantoms", "train", n=400, scanner="AB").captions
    tokenizer = WordTokenizer.from_captions(captions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = tokenizer(captions)
    assert tokenizer.vocab_size <= create_model("clip_tiny").config.vocab_size
    assert len({tuple(row) for row in ids.tolist()}) == len(set(captions))


def test_unknown_words_become_one_token_with_a_warning(tokenizer):
    with pytest.warns(UserWarning, match="never saw: huge, spotted"):
        ids = tokenizer(["a huge lesion", "a spotted lesion"])
    assert torch.equal(ids[0], ids[1]) and tokenizer.decode(ids) == ["a ? lesion"] * 2


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_long_captions_are_cut_with_a_warning_and_keep_their_end(kind):
    if kind == "bpe":
        import_torchvision()
        pytest.importorskip("open_clip")
    make = ClipTokenizer if kind == "bpe" else lambda length: WordTokenizer(["a"], length)
    tokenizer, long = make(8), "a " * 20
    with pytest.warns(UserWarning, match="1 of 2 captions have more than 6 tokens.*cut off"):
        ids = tokenizer([long, "a"])
    assert ids.shape == (2, 8) and ids[0].argmax() == 7 and (ids[0, 1:7] == ids[0, 1]).all()


def test_the_text_tower_looks_back_only_and_reads_at_the_end(model, tokenizer):
    ids = tokenizer(CAPTIONS)
    after = ids.clone()
    after[0, 6:] = 3  # behind the end token: never seen
    assert torch.equal(model.encode_text(after)[0], model.encode_text(ids)[0])
    before = ids.clone()
    before[0, 1] = 7
    assert relative_difference(model.encode_text(before)[0], model.encode_text(ids)[0]) > 1e-3
    assert relative_difference(model.encode_text(ids[:1, :6]), model.encode_text(ids)[:1]) < 1e-5


def test_learnt_prompts_come_in_as_vectors(model, tokenizer):
    ids = tokenizer(CAPTIONS)
    again = model.encode_tokens(model.token_embedding(ids), ids.argmax(dim=1))
    assert torch.equal(again, model.encode_text(ids))


def test_logits_are_scaled_cosines(model, tokenizer):
    x, ids = torch.rand(3, 1, 32, 32), tokenizer(CAPTIONS)
    expected = F.cosine_similarity(model.encode_image(x)[:, None], model.encode_text(ids)[None], dim=-1)
    torch.testing.assert_close(model(x, ids), model.logit_scale.exp() * expected)
    assert torch.equal(model.embed(x), model.encode_image(x)) and model.num_features == 64


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (32, {}),
        (64, {"conv_stem": (32, 64, 64)}),
        (28, {"pool": "class"}),
        (64, {"patch_size": 4, "conv_stem": ()}),
        (32, {"vision_width": 48}),
    ],
)
def test_small_clip_s_options(size, options):
    model = create_model("clip_tiny", image_size=size, **options)
    x = torch.rand(3, 1, size, size)
    assert model.encode_image(x).shape == (3, 64)
    model(x, torch.tensor([[2, 5, 31]])).square().sum().backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert unused <= {"visual.class_embedding"}  # with pool=4 nobody reads the class token directly
    model.eval()
    assert relative_difference(model.encode_image(x[1:2]), model.encode_image(x)[1:2]) < 1e-5


def test_sizes_and_settings():
    assert create_model("clip_tiny").config == ClipConfig(
        embed_dim=64,
        image_size=32,
        patch_size=1,
        in_chans=1,
        vision_width=96,
        vision_layers=2,
        vision_heads=3,
        context_length=24,
        vocab_size=32,
        text_width=64,
        text_layers=2,
        text_heads=2,
        quick_gelu=False,
        conv_stem=(32, 64),
        pool=4,
    )
    with torch.device("meta"):
        model = create_model("clip_vit_b_16")
    assert model.config.quick_gelu and model.visual.positional_embedding.shape == (197, 768)


def test_prompt_ensembling_normalises_twice(model, tokenizer):
    names, templates = ["small", "large"], ["a {} lesion", "{}", "a {} lesion in the organ"]
    classifier = zero_shot_classifier(model, tokenizer, names, templates)
    assert classifier.shape == (2, 64) and not classifier.requires_grad
    for row, name in zip(classifier, names):
        features = [model.encode_text(tokenizer(template.replace("{}", name)))[0] for template in templates]
        mean = sum(feature / feature.norm() for feature in features) / 3
        torch.testing.assert_close(row, mean / mean.norm())
    longer = torch.stack([f * (1 + k) for k, f in enumerate(features)]).mean(0)
    assert (longer / longer.norm() - classifier[1]).abs().max() > 1e-3  # a mean without normalising differs


def test_zero_shot_leaves_the_model_s_mode_alone(model, tokenizer):
    zero_shot_classifier(model.train(), tokenizer, ["small"], ["{}"])
    assert model.training


def test_zero_shot_is_an_ordinary_classifier(model, tokenizer):
    prompts = ["a {} lesion"]
    classifier = zero_shot_classifier(model, tokenizer, ["small", "large", "dark"], prompts)
    x = torch.rand(4, 1, 32, 32)
    logits = ZeroShotModel(model, classifier)(x)
    expected = model(x, tokenizer([prompts[0].replace("{}", name) for name in ("small", "large", "dark")]))
    torch.testing.assert_close(logits, expected)


def test_without_open_clip_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.setitem(sys.modules, "open_clip.tokenizer", None)
    with pytest.raises(SeminarError, match='pip install "open_clip_torch>=3"'):
        ClipTokenizer()


def test_the_models_import_no_reference_package():
    code = (
        "import sys; import seminar_utils.models.tokenizers, seminar_utils.models.zero_shot,"
        "seminar_utils.pretraining.clip, seminar_utils.checkpoints.clip_files;"
        "assert not {'open_clip', 'transformers', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)
