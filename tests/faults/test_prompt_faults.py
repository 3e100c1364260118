"""Learnt prompts from wrong names, words, images, labels or models: one clear SeminarError each."""

import numpy as np
import pytest
import torch
from prompt_cases import LAYOUTS, NAMES, small_clip
from torch import nn

from seminar_utils.adaptation import (
    CTPT,
    TPT,
    DomainPrompts,
    PromptConfig,
    PromptedCLIP,
    TipAdapter,
    create_method,
    dapl_loss,
    few_shots,
    fit_cocoop,
    fit_coop,
    fit_dapl,
    tip_adapter_f,
)
from seminar_utils.adaptation.tpt import confident_views
from seminar_utils.models import create_model
from seminar_utils.models.zero_shot import ZeroShotModel
from seminar_utils.runtime import SeminarError

clip, tokenizer = small_clip()
x, labels = torch.rand(6, 1, 16, 16), torch.arange(6) % 3
ONCE = PromptConfig(epochs=1)


def prompts(names=NAMES, n_ctx=4, **options):
    return PromptedCLIP(clip, tokenizer, names, n_ctx, **options)


def coop(x=x, labels=labels, **options):
    return fit_coop(clip, tokenizer, NAMES, x, labels, ONCE, n_ctx=2, **options)


def dapl(x=x, labels=labels, target_x=x, **options):
    options = {"n_ctx": 2, "n_dmx": 2, "naive": "a {}", "ending": " of {}", **options}
    return fit_dapl(clip, tokenizer, NAMES, x, labels, target_x, ONCE, **options)


def domains(*names, **options):
    return DomainPrompts(clip, tokenizer, NAMES, names, 2, 2, naive="a {}", ending=" of {}", **options)


TEXT_TOWER = {
    "an image tower": lambda: PromptedCLIP(clip.visual, tokenizer, NAMES),
    "a classifier": lambda: fit_coop(create_model("resnet_small"), tokenizer, NAMES, x, labels),
    "a zero-shot model": lambda: fit_cocoop(ZeroShotModel(clip, torch.eye(3)), tokenizer, NAMES, x, labels),
    "DAPL": lambda: fit_dapl(nn.Linear(2, 2), tokenizer, NAMES, x, labels, x),
}


@pytest.mark.parametrize("case", TEXT_TOWER)
def test_a_clip_without_text_tower(case):
    with pytest.raises(SeminarError, match="a CLIP or BiomedCLIP is needed.*got"):
        TEXT_TOWER[case]()


NAMING = {
    "none": ([], r"at least one class name, got \[\]"),
    "a string": ("dark", "list of at least one class name, got 'dark'"),
    "doubles": (["dark", "grey", "dark"], "differ from each other, got 'dark' more than once"),
    "doubles by an underscore": (["upper_left", "upper left"], "got 'upper left' more than once"),
    "a line break": (["dark", "grey\n"], r"without line breaks or other signs, got 'grey\\n'"),
    "an invisible sign": (["dark", "gr\u200bey"], "without line breaks or other signs"),
    "a number": (["dark", 3], "got 3"),
    "blank": (["dark", "  "], "got '  '"),
    "punctuation only": (["dark", "?!"], r"the class name '\?!' gives this tokenizer no token"),
    "the same to the tokenizer": (["dark", "DARK!"], "cannot tell the prompts of 'dark', 'DARK!' apart"),
}


@pytest.mark.parametrize("case", NAMING)
def test_class_names(case):
    names, message = NAMING[case]
    for build in (lambda: prompts(names), lambda: fit_coop(clip, tokenizer, names, x, labels, ONCE, n_ctx=2)):
        with pytest.raises(SeminarError, match=message):
            build()


@pytest.mark.filterwarnings("ignore:words that this tokenizer never saw")
def test_two_unknown_names_are_one_to_the_tokenizer():
    with pytest.raises(SeminarError, match="cannot tell the prompts of 'spotted', 'striped' apart"):
        prompts(["dark", "spotted", "striped"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_longer_than_the_context(layout):
    some, words = small_clip(layout)
    limit = some.config.context_length
    free = (
        limit - words(NAMES).count_nonzero(dim=1).max().item() - (layout == "biomedclip")
    )  # its full stop counts
    assert PromptedCLIP(some, words, NAMES, free).text_features().shape[0] == 3
    with pytest.raises(SeminarError, match=f"at most {limit} tokens in this CLIP, these would have {limit + 1}: "):
        PromptedCLIP(some, words, NAMES, free + 1)
    with pytest.raises(SeminarError, match=f"{free + 1} of the context.*Take a smaller n_ctx"):
        DomainPrompts(some, words, NAMES, ["upper", "the"], free, 1, naive="a {}", ending=".")


def test_contexts_and_templates():
    with pytest.raises(SeminarError, match="a context has at least one vector, got n_ctx=0"):
        prompts(n_ctx=0)
    with pytest.raises(SeminarError, match="unknown position 'start'"):
        prompts(position="start")
    with pytest.raises(SeminarError, match="a context starts from at least one word, got '!'"):
        prompts(words="!")
    for template in ("a lesion", "{} lesion"):
        with pytest.raises(SeminarError, match="words and then {} where the class name goes, got"):
            PromptedCLIP.from_template(clip, tokenizer, NAMES, template)


IMAGES = {
    "none": (x[:0], r"at least one, got torch.float32 \(0, 1, 16, 16\)"),
    "integers": (x.int(), "images .* got torch.int32"),
    "one image": (x[0], r"got torch.float32 \(1, 16, 16\)"),
    "features of another width": (torch.rand(6, 7), r"features \(N, 64\).*got torch.float32 \(6, 7\)"),
    "NaN": (x * float("nan"), "NaN or infinite"),
    "an array": (x.numpy(), "got ndarray"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_images(case):
    bad, message = IMAGES[case]
    with pytest.raises(SeminarError, match=message):
        coop(x=bad)
    with pytest.raises(SeminarError, match=message):
        dapl(target_x=bad)


LABELS = {
    "too few": (labels[:5], r"one integer label an image.*6 images, labels \(5,\)"),
    "floats": (labels.float(), "one integer label an image"),
    "too large": (labels + 1, r"labels lie in 0\.\.2, got 1\.\.3"),
    "negative": (labels - 1, r"got -1\.\.1"),
}


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("fit", [coop, dapl])
def test_labels(case, fit):
    bad, message = LABELS[case]
    with pytest.raises(SeminarError, match=message):
        fit(labels=bad)


def test_shots():
    for shots in (0, -1, 1.5):
        with pytest.raises(SeminarError, match=f"at least one labelled image a class.*got {shots} shots"):
            few_shots([0, 1], shots, 0)
    with pytest.raises(SeminarError, match="class 1 has 1 labelled images, 2 shots were asked for"):
        few_shots([0, 0, 1], 2, 0)
    with pytest.raises(SeminarError, match="class 2 has 0 labelled images"):
        few_shots([0, 1], 1, 0, num_classes=3)
    with pytest.raises(SeminarError, match=r"labels \(N,\), got shape \(0,\)"):
        few_shots([], 1, 0)
    with pytest.raises(SeminarError, match="at least one labelled image"):
        TipAdapter(torch.eye(3), torch.zeros(0, 3), [], 1.0)


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch_size": 0}, {"lr": -1.0}, {"warmup": -1}])
def test_settings(bad):
    with pytest.raises(SeminarError, match="training needs epochs and batch_size >= 1"):
        PromptConfig(**bad)


def test_a_rate_that_is_too_large():
    wild = PromptConfig(lr=1e38, epochs=20, warmup=0, momentum=0.0)
    with pytest.raises(SeminarError, match="the loss is no number after epoch .*take a smaller lr than 1e"):
        fit_coop(clip, tokenizer, NAMES, x, labels, wild, n_ctx=2)


def test_domains():
    with pytest.raises(SeminarError, match=r"domain \(never seen in training\) 'dark': .*known: left, the"):
        domains("left", "the")(x, "dark")
    with pytest.raises(SeminarError, match="a source and a target domain"):
        domains("the")
    with pytest.raises(SeminarError, match="'the' more than once"):
        domains("the", "the")
    with pytest.raises(SeminarError, match="none of them 'left'"):
        dapl(domains=["left"] * 6, target="left")
    with pytest.raises(SeminarError, match="one source domain an image"):
        dapl(domains=np.array(["upper"] * 5), target="left")
    with pytest.raises(SeminarError, match="unknown softmax 'joint'"):
        dapl_loss(torch.zeros(2, 9), torch.zeros(2).long(), torch.zeros(2, 9), 3, softmax="joint")


def test_tpt():
    model = prompts()
    for method in (TPT, CTPT):
        with pytest.raises(SeminarError, match=f"{method.__name__} tunes a prompt: give a PromptedCLIP, got CLIP"):
            method(clip)
    for bad in ({"steps": 0}, {"n_views": 9}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(SeminarError, match="at least one step, and one view in the share that stays"):
            TPT(model, **bad)
    with pytest.raises(SeminarError, match="of 3 views a share of 0.1 is none"):
        confident_views(torch.zeros(3, 2))
    with pytest.raises(SeminarError, match="unknown setting of tpt 'view'"):
        create_method("tpt", model, view=3)
    with pytest.raises(SeminarError, match="needs nothing from the source"):
        TPT(model).fit_source([x])


def test_tip_adapter():
    with pytest.raises(SeminarError, match=r"as wide as the classes' features, got \(2, 4\) beside \(3, 3\)"):
        TipAdapter(torch.eye(3), torch.zeros(2, 4), [0, 1], 1.0)
    with pytest.raises(SeminarError, match="alpha and beta are not negative"):
        TipAdapter(torch.eye(3), torch.eye(3), [0, 1, 2], 1.0, alpha=-1.0)
    with pytest.raises(SeminarError, match="fine-tuning needs epochs"):
        tip_adapter_f(TipAdapter(torch.eye(3), torch.eye(3), [0, 1, 2], 1.0), epochs=0)
