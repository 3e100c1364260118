"""Learnt prompts on every layout of CLIP: CoOp, CoCoOp, DAPL, TPT, Tip-Adapter, beside their contract."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from prompt_cases import LAYOUTS, NAMES, small_clip

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
    marginal_entropy,
    tip_adapter,
    tip_adapter_f,
)
from seminar_utils.adaptation.prompts import image_features, nearest_words, slot_order
from seminar_utils.adaptation.tpt import text_dispersion
from seminar_utils.adaptation.views import random_crops
from seminar_utils.models.clip import CLIP, ClipConfig
from seminar_utils.models.parity import randomise_
from seminar_utils.models.tokenizers import ClipTokenizer
from seminar_utils.models.zero_shot import ZeroShotModel, zero_shot_classifier
from seminar_utils.runtime import SeminarError
from seminar_utils.torchvision_fix import import_torchvision

FAST = PromptConfig(lr=0.05, epochs=15, batch_size=8, warmup=0)


def images(count=12, seed=0):
    """Images (count, 1, 16, 16) of three classes, by where they are bright; labels (count,)."""
    labels = torch.arange(count) % 3
    x = 0.2 * torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    for image, label in zip(x, labels):
        image[:, 5 * label : 5 * label + 5] += 0.7
    return x, labels


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


layouts = pytest.mark.parametrize("layout", LAYOUTS)

# --- the machinery ------------------------------------------------------------------------------------------


@layouts
def test_a_template_as_context_is_the_zero_shot_classifier(layout):
    clip, tokenizer = small_clip(layout)
    x, _ = images()
    for template in ("a lesion of the {} lesion", "a {}"):
        expected = ZeroShotModel(clip, zero_shot_classifier(clip, tokenizer, NAMES, [template]))(x)
        model = PromptedCLIP.from_template(clip, tokenizer, NAMES, template)
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.classifier()(x), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(clip.encode_image(x)), expected, atol=1e-5, rtol=0)


@layouts
def test_word_vectors_read_as_their_ids(layout):
    clip, tokenizer = small_clip(layout)
    ids = tokenizer(["a dark lesion", "upper left"])
    vectors, end = clip.embed_tokens(ids)
    assert end.tolist() == [4, 3]
    torch.testing.assert_close(clip.encode_tokens(vectors, end), clip.encode_text(ids))
    behind = vectors.clone()
    behind[0, 5:], behind[1, 4:] = 7.0, -7.0  # after the end: never looked at
    torch.testing.assert_close(clip.encode_tokens(behind, end), clip.encode_text(ids))


def test_with_openai_s_tokenizer_the_blanks_lie_where_the_official_placeholders_lie():
    """CoOp's code tokenizes "X X X X name." and replaces what stands at the X."""
    import_torchvision()
    pytest.importorskip("open_clip")
    sizes = {"embed_dim": 16, "image_size": 16, "patch_size": 8, "vision_width": 16, "vision_layers": 1}
    sizes |= {"vision_heads": 2, "text_width": 16, "text_layers": 1, "text_heads": 2}
    clip, tokenizer = randomise_(CLIP(ClipConfig(**sizes)), 1).eval(), ClipTokenizer()
    names = ["no_pneumonia", "pleural effusion"]
    model = PromptedCLIP(clip, tokenizer, names, 4, class_specific=True)
    ids = tokenizer(["X X X X no pneumonia.", "X X X X pleural effusion."])
    vectors, end = clip.embed_tokens(ids)
    length = model.blanks.vectors.shape[1]
    assert torch.equal(model.blanks.end, end) and length == end.max() + 1
    assert torch.equal(model.blanks.vectors[:, 5:], vectors[:, 5:length])
    assert torch.equal(model.blanks.vectors[:, 0], vectors[:, 0])
    words = [int(count) for count in end - 6]  # of the names: without start, four X, full stop
    front = PromptedCLIP(clip, tokenizer, names, 4, position="front").blanks.order
    assert all(row[1 : 1 + n].tolist() == list(range(5, 5 + n)) for row, n in zip(front, words))
    assert all(row[1 + n : 5 + n].tolist() == [1, 2, 3, 4] for row, n in zip(front, words))
    start = PromptedCLIP.from_template(clip, tokenizer, ["dark", "pale grey"], "a photo of a {}.")
    zero_shot = zero_shot_classifier(clip, tokenizer, ["dark", "pale grey"], ["a photo of a {}."])
    torch.testing.assert_close(start.text_features(), zero_shot, atol=1e-5, rtol=0)


def test_where_the_name_goes():
    rows = {position: slot_order(8, 4, [1, 2], position).tolist() for position in ("end", "middle", "front")}
    assert rows["end"] == [list(range(8))] * 2
    assert rows["middle"] == [[0, 1, 2, 5, 3, 4, 6, 7], [0, 1, 2, 5, 6, 3, 4, 7]]
    assert rows["front"] == [[0, 5, 1, 2, 3, 4, 6, 7], [0, 5, 6, 1, 2, 3, 4, 7]]


@layouts
def test_position_and_class_specific_contexts(layout):
    clip, tokenizer = small_clip(layout)
    found = [
        PromptedCLIP(clip, tokenizer, NAMES, 4, position=p).text_features() for p in ("end", "middle", "front")
    ]
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(found, found[1:]))
    own = PromptedCLIP(clip, tokenizer, NAMES, 4, class_specific=True)
    assert own.context.shape[:2] == (3, 4) and own.context.std().item() == pytest.approx(0.02, rel=0.3)
    own.text_features()[0].sum().backward()
    assert own.context.grad[0].any() and not own.context.grad[1:].any()


@layouts
def test_the_gradient_reaches_the_context(layout):
    clip, tokenizer = small_clip(layout)
    model = PromptedCLIP(clip.double(), tokenizer, NAMES, 3)
    value, step = model.text_features()[1, 0], 1e-6
    (gradient,) = torch.autograd.grad(value, model.context)
    with torch.no_grad():
        model.context[2, 5] += step
        slope = (model.text_features()[1, 0] - value) / step
    assert slope.item() == pytest.approx(gradient[2, 5].item(), rel=1e-3)


def test_words_near_a_context():
    clip, tokenizer = small_clip()
    model = PromptedCLIP.from_template(clip, tokenizer, NAMES, "a lesion of {}")
    found = nearest_words(model.context, clip, tokenizer, ["of", "dark", "a", "lesion"])
    assert [word for word, _ in found] == ["a", "lesion", "of"] and max(d for _, d in found) < 1e-3


def test_shots_are_nested_and_of_every_class():
    labels = np.array([0] * 9 + [1] * 7 + [2] * 5)
    one, four = few_shots(labels, 1, 3), few_shots(labels, 4, 3)
    assert set(one) < set(four) and np.bincount(labels[four]).tolist() == [4, 4, 4]
    assert set(four) != set(few_shots(labels, 4, 4))


# --- CoOp and CoCoOp ----------------------------------------------------------------------------------------


@layouts
@pytest.mark.parametrize("class_specific", [False, True])
def test_coop_learns_and_the_encoders_stay_bit_exact(layout, class_specific):
    clip, tokenizer = small_clip(layout)
    x = zero_shot_classifier(clip, tokenizer, NAMES, ["a {}"]).repeat(4, 1)  # features, one near each class
    labels = (torch.arange(12) + 1) % 3  # but every class is called by another one's name
    before = weights(clip)
    model = fit_coop(clip, tokenizer, NAMES, x, labels, FAST, n_ctx=4, class_specific=class_specific)
    assert model.history[-1] < (0.9 if class_specific else 0.995) * model.history[0]  # one context turns all alike
    assert same(before, weights(clip)) and same(before, weights(model.clip))
    assert all(p.grad is None for p in [*clip.parameters(), *model.clip.parameters()])
    assert all(p.requires_grad for p in clip.parameters())  # the caller's may still be trained
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("fit", [fit_coop, fit_cocoop])
def test_fitting_follows_its_seed_only(fit):
    clip, tokenizer = small_clip()
    x, labels = images()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one = fit(clip, tokenizer, NAMES, x, labels, FAST, n_ctx=2)
    assert torch.rand(1) == expected
    two = fit(clip, tokenizer, NAMES, image_features(clip, x), labels, FAST, n_ctx=2)  # encoded before: the same
    torch.testing.assert_close(one.context, two.context, atol=1e-4, rtol=1e-4)
    assert torch.equal(one.context, fit(clip, tokenizer, NAMES, x, labels, FAST, n_ctx=2).context)
    other = fit(clip, tokenizer, NAMES, x, labels, PromptConfig(0.05, 15, 8, warmup=0, seed=1), n_ctx=2)
    assert not torch.equal(one.context, other.context)


def test_fitting_under_no_grad_learns_as_well():
    clip, tokenizer = small_clip()
    x, labels = images()
    with torch.no_grad():
        held = fit_coop(clip, tokenizer, NAMES, x, labels, FAST, n_ctx=2)
    assert torch.equal(held.context, fit_coop(clip, tokenizer, NAMES, x, labels, FAST, n_ctx=2).context)


def test_the_rate_warms_up_and_falls():
    rates = [PromptConfig(lr=1.0, epochs=5).rate(epoch) for epoch in range(5)]
    assert rates[0] == 1e-5 and rates[1] == 1.0 and rates == sorted(rates[:1]) + sorted(rates[1:], reverse=True)


@layouts
def test_cocoop_has_a_prompt_for_every_image(layout):
    clip, tokenizer = small_clip(layout)
    x, labels = images()
    before = weights(clip)
    model = fit_cocoop(clip, tokenizer, NAMES, x, labels, FAST, n_ctx=3)
    assert model.history[-1] < model.history[0] and same(before, weights(model.clip))
    together, alone = model(x), torch.cat([model(image) for image in x.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    model.meta_net[0].bias.data.fill_(1.0)  # some of its units are awake
    text = model.text_features_for(image_features(clip, x))
    assert text.shape == (12, 3, clip.num_features) and (text[0] - text[1]).abs().max() > 1e-4
    for layer in (model.meta_net[0], model.meta_net[2]):
        layer.weight.data.zero_(), layer.bias.data.zero_()
    plain = PromptedCLIP(clip, tokenizer, NAMES, 3)
    plain.context.data.copy_(model.context)
    torch.testing.assert_close(model(x), plain(x), atol=1e-5, rtol=1e-5)


# --- DAPL ---------------------------------------------------------------------------------------------------

DAPL = {"n_ctx": 3, "n_dmx": 2, "naive": "a {} lesion", "ending": " of {}"}


def dapl(clip, tokenizer, threshold=0.0, config=FAST, **options):
    x, labels = images()
    domains = np.array(["upper", "left"] * 6)
    target, _ = images(10, seed=5)
    options = {**DAPL, "domains": domains, "target": "the", "threshold": threshold, **options}
    return fit_dapl(clip, tokenizer, NAMES, x, labels, target, config, **options), target


@layouts
@pytest.mark.parametrize("softmax", ["code", "paper"])
def test_dapl_learns_every_domain_and_the_encoders_stay(layout, softmax):
    clip, tokenizer = small_clip(layout)
    before = weights(clip)
    model, target = dapl(clip, tokenizer, softmax=softmax)
    assert model.domains == ("left", "upper", "the") and model.kept == 1.0 and model.steps_without_target == 0
    assert model.history[-1] < model.history[0] and same(before, weights(model.clip))
    start = DomainPrompts(clip, tokenizer, NAMES, model.domains, **DAPL)
    moved = (model.domain_context - start.domain_context).flatten(1).norm(dim=1)
    assert (moved > 0).all() and not torch.equal(model.context, start.context)
    assert torch.equal(model(target), model(target, "the"))
    assert (model(target) - model(target, "left")).abs().max() > 1e-4
    expected = ZeroShotModel(clip, zero_shot_classifier(clip, tokenizer, NAMES, ["a {} lesion"]))(target)
    torch.testing.assert_close(model.zero_shot(target), expected, atol=1e-5, rtol=0)


def test_dapl_with_nothing_above_the_threshold_says_so_and_stays_finite():
    clip, tokenizer = small_clip()
    config = PromptConfig(0.05, 15, 8, warmup=0, weight_decay=0.0)
    model, target = dapl(clip, tokenizer, threshold=1.1, config=config)
    assert model.kept == 0.0 and model.steps_without_target == 30 and torch.isfinite(model(target)).all()
    start = DomainPrompts(clip, tokenizer, NAMES, model.domains, **DAPL)
    assert torch.equal(model.domain_context[2], start.domain_context[2])  # nothing was learnt of the target


def test_the_two_softmaxes_by_hand():
    K, rows = 3, torch.arange(4)
    source, target = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0)).unbind()
    labels = torch.tensor([0, 2, 1, 1])
    for kind in ("code", "paper"):
        found = dapl_loss(source, labels, target, K, threshold=0.0, softmax=kind)
        pseudo = target[:, 6:].argmax(1)
        assert torch.equal(found.pseudo, pseudo) and found.kept == 4
        over = (source[:, :3], target[:, 3:6]) if kind == "code" else (source[:, :6], target[:, :6])
        on_source = -(source[rows, labels] - over[0].logsumexp(1)).mean()
        on_target = -(target[rows, 3 + pseudo] - over[1].logsumexp(1)).mean()
        torch.testing.assert_close(found.source, on_source)
        torch.testing.assert_close(found.target, on_target)


def test_pseudo_labels_give_no_gradient_to_the_fixed_prompts():
    target = torch.randn(4, 9, requires_grad=True)
    dapl_loss(torch.randn(4, 9), torch.zeros(4, dtype=torch.long), target, 3, threshold=0.0).loss.backward()
    assert not target.grad[:, :3].any() and target.grad[:, 3:6].any() and not target.grad[:, 6:].any()


# --- TPT ----------------------------------------------------------------------------------------------------


def noisy(x, count, generator):
    """Views that are the same for the same image, whatever the generator says."""
    noise = torch.randn(count, *x.shape[1:], generator=torch.Generator().manual_seed(3))
    return x + 0.1 * noise.to(x)


def prompted():
    clip, tokenizer = small_clip()
    return PromptedCLIP.from_template(clip, tokenizer, NAMES, "a {} lesion")


def test_no_image_spoils_the_next_one_s_prompt():
    x, _ = images(4)
    method = TPT(prompted(), lr=0.1, n_views=8, share=0.5, views=noisy)
    together = method(x)
    assert torch.equal(method(x[2:3]), together[2:3]) and torch.equal(method(x.flip(0)), together.flip(0))


def test_tuning_makes_the_views_agree_and_the_image_is_a_view():
    model, (x, _) = prompted(), images(1)
    method = TPT(model, lr=0.05, n_views=8, share=1.0, views=noisy)
    seen = torch.cat([x, noisy(x, 7, None)])
    before = marginal_entropy(model(seen))
    after = method(x)
    assert marginal_entropy(method.model(seen)) < before
    torch.testing.assert_close(after, method.model(x).detach())
    assert method.optimizer.param_groups[0]["weight_decay"] == 0.01


def test_c_tpt_spreads_the_text_features():
    model, (x, _) = prompted(), images(1)
    options = {"lr": 0.02, "steps": 3, "n_views": 8, "share": 0.5, "views": noisy}
    plain, spread = TPT(model, **options), CTPT(model, **options)
    plain(x), spread(x)
    found = [text_dispersion(method.model.text_features()) for method in (plain, spread)]
    assert found[1] > found[0] and found[1] > text_dispersion(model.text_features())
    none = CTPT(model, **options, weight=0.0)
    assert torch.equal(none(x), plain(x))
    features = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert text_dispersion(features) == 1.0


def test_crops_show_a_part_of_the_image_seeded():
    x = torch.arange(64.0).reshape(1, 1, 8, 8).expand(50, -1, -1, -1)
    one, two = (random_crops(x, torch.Generator().manual_seed(s)) for s in (0, 0))
    assert torch.equal(one, two) and one.shape == x.shape and one.min() >= 0 and one.max() <= 63
    mirrored = one[:, 0, 0, 0] > one[:, 0, 0, -1]
    assert 10 < mirrored.sum() < 40 and (one[:, 0, 0, 0] < one[:, 0, -1, 0]).all()  # left-right only
    whole = random_crops(x, torch.Generator().manual_seed(0), area=(1.0, 1.0))
    flipped = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    torch.testing.assert_close(whole, flipped)


def test_tpt_never_moves_an_encoder():
    model, (x, _) = prompted(), images(3)
    method = create_method("tpt", model, n_views=10)
    method(x)
    assert same(weights(model.clip), weights(method.model.clip))
    assert not torch.equal(model.context, method.model.context)


# --- Tip-Adapter --------------------------------------------------------------------------------------------


def test_tip_adapter_by_its_formula():
    clip, tokenizer = small_clip()
    x, labels = images()
    classes = zero_shot_classifier(clip, tokenizer, NAMES, ["a {} lesion"])
    model, (test, _) = tip_adapter(clip, classes, x, labels, alpha=2.0, beta=3.0), images(5, seed=4)
    f, keys = image_features(clip, test), image_features(clip, x)
    zero = clip.logit_scale.exp() * f @ classes.T
    vote = torch.stack([(-3.0 * (1 - f @ keys[labels == k].T)).exp().sum(1) for k in range(3)], dim=1)
    torch.testing.assert_close(model(f), zero + 2 * vote, atol=1e-4, rtol=1e-4)
    assert torch.equal(
        tip_adapter(clip, classes, x, labels, alpha=0.0)(f),
        tip_adapter(clip, classes, x[:3], labels[:3], alpha=0.0)(f),
    )


def test_tip_adapter_f_fits_its_images_better_and_leaves_the_start_alone():
    clip, tokenizer = small_clip()
    x, labels = images()
    start = tip_adapter(clip, zero_shot_classifier(clip, tokenizer, NAMES, ["a {} lesion"]), x, labels)
    before, f = weights(start), image_features(clip, x)
    tuned = tip_adapter_f(start, lr=0.02, epochs=30)
    assert same(before, weights(start)) and isinstance(tuned, TipAdapter)
    assert F.cross_entropy(tuned(f), labels) < F.cross_entropy(start(f), labels)
    torch.testing.assert_close(tuned.classifier, start.classifier)


def test_a_copy_of_a_prompt_is_independent():
    model = prompted()
    other = copy.deepcopy(model)
    other.context.data.zero_()
    assert model.context.any()
    with pytest.raises(SeminarError):
        PromptedCLIP.from_template(*small_clip(), NAMES, "{} lesion")
