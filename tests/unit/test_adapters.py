"""What is special about one method. What all of them promise is in test_contract.py."""

import math
import subprocess
import sys

import pytest
import torch
from adapter_cases import batches, source_model
from torch import nn

from seminar_utils.adaptation import (
    EATA,
    ETA,
    LAME,
    MEMO,
    METHODS,
    SAR,
    SHOTIM,
    T3A,
    Adapter,
    BatchNormAdapt,
    CoTTA,
    RDumb,
    Source,
    Tent,
    TentReset,
    batch_statistics,
    class_rows,
    create_method,
    information_maximisation,
    marginal_entropy,
    softmax_entropy,
)
from seminar_utils.adaptation.eata import redundancy_threshold
from seminar_utils.adaptation.heads import find_head
from seminar_utils.adaptation.lame import affinity
from seminar_utils.adaptation.passes import kept_bytes
from seminar_utils.adaptation.views import random_views
from seminar_utils.runtime import SeminarError

ALL = ("bn", "gn", "ln")


def same_weights(method, model):
    expected = model.state_dict()
    return all(torch.equal(value, expected[name]) for name, value in method.model.state_dict().items())


def test_tent_survives_groupnorm_on_channels_last_maps():
    """torch's own backward pass writes to a null pointer there, so a process of its own tries it."""
    code = (
        "import torch; from torch import nn; from seminar_utils.adaptation import Tent\n"
        "body = [nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]\n"
        "model = nn.Sequential(*body, nn.Flatten(), nn.Linear(16, 3)).to(memory_format=torch.channels_last)\n"
        "x = torch.rand(8, 1, 16, 16).to(memory_format=torch.channels_last)\n"
        "assert model[0](x).stride()[1] == 1, 'not channels-last'\n"
        "tent = Tent(model, norms=('gn',), optimizer='sgd', lr=0.1)\n"
        "expected = model(x)\n"
        "torch.testing.assert_close(tent(x), expected.detach())\n"
        "assert (tent(x) - expected).abs().max() > 1e-6\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- base: what only a method of its own can show --


class Remembers(Adapter):
    """Counts its batches in a buffer that no state dict saves, and in an attribute; draws random numbers."""

    def forget(self):
        self.count = 0

    def adapt_batch(self, x):
        self.count += 1
        self.model.drift += 1
        return self.model(x) + self.model.drift + torch.rand(1, generator=self.generator)


def test_reset_restores_unsaved_buffers_own_memory_and_random_numbers_but_restore_goes_on_drawing():
    model = source_model("bn")
    model.register_buffer("drift", torch.zeros(1), persistent=False)
    method, x = Remembers(model), batches(1)[0]
    first, second = method(x), method(x)
    method.restore()
    assert method.model.drift == 0 and method.count == 0 and method.batches_seen == 2
    assert not torch.equal(method(x), first) and not torch.equal(first, second)
    method.reset()
    assert method.batches_seen == 0 and method.cost()["forward"] == 0
    assert torch.equal(method(x), first) and torch.equal(method(x), second)


class Prepared(Adapter):
    needs_source = True

    def learn_source(self, batches):
        self.mean = torch.cat([self.model(x) for x in batches]).mean()


def test_fit_source_comes_first_and_outlives_a_reset():
    method = Prepared(source_model("bn"))
    with pytest.raises(SeminarError, match="fit_source"):
        method(batches(1)[0])
    assert method.fit_source(batches(2)) is method and method.source_images == 16
    mean = method.mean
    method(batches(1)[0])
    method.reset()
    assert method.mean is mean and method.source_images == 16 and method.batches_seen == 0
    with pytest.raises(SeminarError, match="got none"):
        Prepared(source_model("bn")).fit_source([])
    with pytest.raises(SeminarError, match="nothing from the source"):
        Source(source_model("bn")).fit_source(batches(1))


def test_kept_memory_counts_a_shared_tensor_once_and_the_model_not_at_all():
    class Holder:
        def __init__(self):
            self.model = nn.Linear(10, 10)
            self.view = self.model.weight[:2]
            self.queue = [torch.zeros(5), {"again": torch.zeros(3)}]
            self.queue.append(self.queue[0])

    holder = Holder()
    assert kept_bytes(holder, holder.model) == 4 * (5 + 3)


# -- BatchNorm --


def test_source_equals_the_model_in_eval_mode():
    model, x = source_model("bn"), batches(1)[0]
    expected = Source(model)(x)
    with torch.no_grad():
        assert torch.equal(expected, model.eval()(x))
    assert torch.equal(BatchNormAdapt(model, policy="source")(x), expected)


def test_a_batch_of_one_at_one_pixel_with_the_moving_average():
    layer_input = torch.full((1, 4, 1, 1), 3.0)
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Flatten())
    method = BatchNormAdapt(model, policy="ema", batch_weight=0.5)
    assert torch.isfinite(method(layer_input)).all()
    assert torch.allclose(method.model[0].running_mean, torch.full((4,), 1.5))


@pytest.mark.parametrize("method", [BatchNormAdapt, lambda m: Tent(m, norms=("bn",))])
def test_one_value_a_channel_leaves_nothing_to_measure_so_the_stored_statistics_serve(method):
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model[0].running_mean.fill_(1.0)
    alone, many = torch.rand(1, 4, 1, 1), torch.rand(8, 4, 1, 1)
    adapter = method(model)
    assert torch.equal(adapter(alone), Source(model)(alone))
    adapter.reset()
    assert torch.equal(adapter(many), BatchNormAdapt(model)(many))  # and the batch serves again afterwards
    assert not torch.equal(BatchNormAdapt(model)(many), Source(model)(many))


def test_batch_statistics_are_biased_and_per_channel():
    x = torch.randn(4, 3, 5, 5)
    mean, var = batch_statistics(x)
    flat = x.transpose(0, 1).reshape(3, -1)
    assert torch.allclose(mean, flat.mean(1), atol=1e-6)
    assert torch.allclose(var, flat.var(1, unbiased=False), atol=1e-6)


# -- entropy: Tent, in classification and segmentation --


def test_tent_without_a_learning_rate_is_batchnorm_adaptation():
    model = source_model("bn")
    tent, norm = Tent(model, lr=0.0), BatchNormAdapt(model)
    for x in batches():
        assert torch.equal(tent(x), norm(x))


@pytest.mark.parametrize("build", [lambda m: Tent(m, lr=0.01), lambda m: SAR(m, lr=0.01, e_margin=9.0)])
def test_entropy_methods_lower_the_entropy_of_a_repeated_batch(build):
    method, x = build(source_model("bn")), batches(1)[0]
    entropies = [softmax_entropy(method(x)).mean().item() for _ in range(10)]
    assert entropies[-1] < entropies[0] - 1e-3


@pytest.mark.parametrize("method", [Tent, SHOTIM, lambda m, lr: ETA(m, lr, e_margin=9.0), SAR])
def test_the_returned_logits_precede_the_update(method):
    model, x = source_model("bn"), batches(1)[0]
    assert torch.equal(method(model, lr=0.5)(x), BatchNormAdapt(model)(x))


def test_episodic_forgets_the_batch_before():
    model = source_model("bn")
    one, two = batches(2)
    method = Tent(model, lr=0.05, episodic=True, steps=2)
    method(one)
    assert torch.equal(method(two), Tent(model, lr=0.05, steps=2)(two)) and method.batches_seen == 2


def test_a_single_logit_is_a_sigmoid_and_its_entropy_has_both_terms():
    z = torch.tensor([[-3.0], [0.0], [0.4], [100.0]], requires_grad=True)
    p = z.detach().sigmoid()[:, 0]
    by_hand = -torch.xlogy(p, p) - torch.xlogy(1 - p, 1 - p)
    entropy = softmax_entropy(class_rows(z))
    torch.testing.assert_close(entropy.detach(), by_hand, atol=1e-6, rtol=0)
    entropy.sum().backward()
    assert z.grad[0] > 0 > z.grad[2] and torch.isfinite(z.grad).all()  # away from one half on both sides


def test_the_pixels_of_a_map_are_predictions():
    maps = torch.randn(2, 3, 4, 5)
    rows = class_rows(maps)
    assert rows.shape == (2 * 4 * 5, 3) and torch.equal(rows[1 * 20 + 2 * 5 + 3], maps[1, :, 2, 3])
    assert class_rows(torch.randn(2, 1, 4, 5)).shape == (40, 2)
    flat = torch.randn(4, 3)
    assert class_rows(flat) is flat


def segmenter(num_classes, norm):
    torch.manual_seed(0)
    layer = {"bn": nn.BatchNorm2d(4), "gn": nn.GroupNorm(2, 4)}[norm]
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), layer, nn.ReLU(), nn.Conv2d(4, num_classes, 1))


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("norm", ["bn", "gn"])
@pytest.mark.parametrize(
    "build",
    [
        lambda m: Tent(m, lr=0.05, norms=ALL),
        lambda m: ETA(m, lr=0.05, e_margin=9.0),
        lambda m: EATA(m, lr=0.05, e_margin=9.0).fit_source(batches(1)),
        lambda m: SAR(m, lr=0.05, e_margin=9.0),
        lambda m: SHOTIM(m, lr=0.05),
        lambda m: RDumb(m, lr=0.05, e_margin=9.0),
    ],
    ids=["tent", "eta", "eata", "sar", "shot", "rdumb"],
)
def test_entropy_methods_adapt_segmentation_networks(build, norm, num_classes):
    model = segmenter(num_classes, norm)
    method, x = build(model), batches(1, size=2)[0]
    maps = [method(x) for _ in range(4)]
    assert maps[0].shape == (2, num_classes, 12, 12) and torch.isfinite(maps[-1]).all()
    assert not same_weights(method, model)
    entropies = [softmax_entropy(class_rows(m)).mean() for m in (maps[0], maps[-1])]
    if not isinstance(method, SHOTIM):  # which wants the mean prediction to stay broad
        assert entropies[1] < entropies[0]
    assert torch.equal(method.model[3].weight, model[3].weight)  # the classifier is nobody's to move


@pytest.mark.parametrize(
    "build",
    [
        Tent,
        SHOTIM,
        lambda m: ETA(m, e_margin=9.0),
        lambda m: SAR(m, e_margin=9.0),
        lambda m: MEMO(m, n_views=2),
        lambda m: CoTTA(m, n_views=2),
    ],
)
def test_a_classifier_with_a_single_logit_learns_too(build):
    model = source_model("bn", 1)
    method, x = build(model), batches(1)[0]
    for _ in range(2):
        assert method(x).shape == (8, 1)
    assert not same_weights(method, model)


@pytest.mark.parametrize("build", [T3A, LAME])
def test_methods_that_compare_classes_want_two(build):
    with pytest.raises(SeminarError, match="at least 2"):
        build(source_model("bn", 1))(batches(1)[0])


@pytest.mark.parametrize("build", [MEMO, CoTTA, T3A, LAME])
def test_methods_that_need_one_answer_an_image_refuse_segmentation(build):
    with pytest.raises(SeminarError, match="classif"):
        build(segmenter(3, "bn"))(batches(1)[0])


# -- EATA --


def test_eata_keeps_what_is_reliable_and_new():
    method = EATA(source_model("bn"), e_margin=0.5, d_margin=0.8)
    rows = torch.tensor([[5.0, 0, 0], [0.0, 0, 0], [0.0, 5, 0]])
    keep = method.select(rows, softmax_entropy(rows), 0.5)
    assert keep.tolist() == [True, False, True]  # the first batch: only the unsure one is refused
    again = torch.tensor([[6.0, 6, 0], [0.0, 0, 5]])
    keep = method.select(again, torch.zeros(2), 0.5)
    assert keep.tolist() == [False, True]  # between the classes seen, as the average; the third class is new
    assert (method.reliable, method.kept) == (4, 3)
    assert torch.allclose(method.average.sum(), torch.tensor(1.0))


def test_a_uniform_average_lets_a_sure_prediction_pass_only_below_the_scaled_threshold():
    for num_classes in (2, 6, 9, 10, 100):
        cosine = 1 / math.sqrt(num_classes)
        assert redundancy_threshold("imagenet", num_classes) < cosine < redundancy_threshold("scaled", num_classes)
    assert redundancy_threshold("scaled", 10) == redundancy_threshold("cifar10", 2) == 0.4 / 1
    assert redundancy_threshold(0.3, 7) == 0.3


def test_the_published_threshold_freezes_eata_after_one_batch_of_few_classes():
    method = ETA(source_model("bn"), lr=0.1, e_margin=9.0, d_margin="imagenet")
    for x in batches(4):
        method(x)
    assert (method.reliable, method.kept) == (32, 8)  # the first batch only, when there is no average yet


def test_eata_s_reset_forgets_the_average_where_the_official_one_keeps_it():
    method = ETA(source_model("bn"), e_margin=9.0)
    method(batches(1)[0])
    assert method.average is not None
    method.reset()
    assert method.average is None and method.kept == 0


def test_fisher_pulls_eata_back_home():
    def distance(alpha):
        model = source_model("bn")
        method = EATA(model, lr=0.05, e_margin=9.0, d_margin=2.0, fisher_alpha=alpha).fit_source(
            batches(2, seed=9)
        )
        for x in batches(6):
            method(x)
        home = model.state_dict()
        return sum((method.fisher[n] * (p - home[n]) ** 2).sum() for n, p in method.parameters_to_adapt().items())

    assert distance(100.0) < 0.5 * distance(1e-9)


# -- SAR --


def test_sar_leaves_the_last_stage_alone():
    model = source_model("ln")
    assert "norm.weight" not in SAR(model).parameters_to_adapt()
    assert "norm.weight" in SAR(model, skip=()).parameters_to_adapt()
    names = SAR(model, skip=("blocks.1",)).parameters_to_adapt()
    assert "norm.weight" in names and not any(name.startswith("blocks.1.") for name in names)


def test_sar_climbs_before_it_descends():
    model, x = source_model("gn"), batches(1)[0]
    flat, plain = SAR(model, lr=0.1, rho=0.5, e_margin=9.0), SAR(model, lr=0.1, rho=0.0, e_margin=9.0)
    tent = Tent(model, lr=0.1, norms=("gn",), optimizer="sgd")
    for method in (flat, plain, tent):
        method(x)
    pairs = zip(plain.model.parameters(), tent.model.parameters())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)  # rho = 0 is Tent
    assert any(not torch.equal(a, b) for a, b in zip(flat.model.parameters(), plain.model.parameters()))


def test_the_published_recovery_threshold_fires_at_two_classes_where_the_scaled_one_does_not():
    logits = torch.tensor([[1.6, -1.6]])  # 96% sure: nothing unusual
    entropy = softmax_entropy(logits).item()
    for below, fires in ((0.2, True), ("scaled", False)):
        method = SAR(source_model("bn", 2), reset_below=below)
        method.average = entropy
        method.recover_if_collapsed(2)
        assert method.recovered is fires


# -- views, CoTTA, MEMO --


def test_views_keep_shape_and_range_follow_the_seed_and_differ_by_image():
    x = torch.rand(1, 2, 9, 14).repeat(6, 1, 1, 1) * 3 - 1
    one, two, other = (random_views(x, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert one.shape == x.shape and one.dtype == x.dtype
    assert one.min() >= x.min() - 1e-6 and one.max() <= x.max() + 1e-6
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert all(not torch.allclose(one[0], one[i], atol=1e-3) for i in range(1, 6))
    assert torch.isfinite(random_views(torch.full((2, 1, 8, 8), 0.5), torch.Generator())).all()


def test_a_view_resembles_its_image_and_is_mirrored_only_if_asked():
    ramp = torch.linspace(0, 1, 32).expand(64, 1, 32, 32)  # brighter to the right
    for flip, mirrored in ((False, {False}), (True, {False, True})):
        views = random_views(ramp, torch.Generator().manual_seed(0), flip)
        assert set((views[..., :8].mean((1, 2, 3)) > views[..., -8:].mean((1, 2, 3))).tolist()) == mirrored


def test_tone_and_scale_of_a_view_can_be_switched_off():
    disc = torch.zeros(32, 1, 33, 33)
    disc[:, :, 10:23, 10:23] = 0.5
    disc[:, :, 0, 0] = 1.0  # so that the range of the batch is [0, 1]

    def spread(**options):
        views = random_views(disc, torch.Generator().manual_seed(0), **options)
        bright = views[:, :, 14:19, 14:19].mean((1, 2, 3)).std()
        return bright, (views > 0.25).float().sum((1, 2, 3)).std()

    assert spread(tone=0.0)[0] < 0.01 < 0.05 < spread()[0]
    assert spread(tone=0.0, scale=0.0)[1] < 0.6 * spread(tone=0.0)[1]


def test_cotta_returns_the_teacher_and_the_teacher_is_slow():
    model, x = source_model("bn"), batches(1)[0]
    method = CoTTA(model, lr=0.05, threshold=0.0, restore_rate=0.0, momentum=0.9)
    before = {name: p.clone() for name, p in method.teacher.named_parameters()}
    assert torch.equal(method(x), BatchNormAdapt(model)(x))
    for (name, slow), fast in zip(method.teacher.named_parameters(), method.model.parameters()):
        torch.testing.assert_close(slow, 0.9 * before[name] + 0.1 * fast)
    assert all(torch.equal(p, before[name]) for name, p in method.source.named_parameters())


def test_cotta_restores_about_the_share_it_says():
    model = source_model("ln")
    method = CoTTA(model, restore_rate=0.3, n_views=1)
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.add_(1.0)
    method.restore_some()
    home = dict(model.named_parameters())
    back = torch.cat([(p == home[name]).flatten() for name, p in method.model.named_parameters()])
    assert back.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_the_marginal_entropy_sees_views_that_disagree_surely():
    agree, disagree = torch.tensor([[9.0, 0], [9, 0]]), torch.tensor([[9.0, 0], [0, 9]])
    assert marginal_entropy(agree) < 0.01 and marginal_entropy(disagree) == pytest.approx(math.log(2), abs=1e-3)
    assert softmax_entropy(disagree).mean() < 0.01  # the mean of the entropies would not


def test_memo_treats_each_image_as_if_it_were_alone():
    model, x = source_model("bn"), batches(1, size=3)[0]

    def views(image, n, generator):
        return image + torch.linspace(0, 0.3, n)[:, None, None, None]

    together = MEMO(model, lr=0.05, n_views=4, views=views)(x)
    alone = torch.cat([MEMO(model, lr=0.05, n_views=4, views=views)(image) for image in x.split(1)])
    assert torch.equal(together, alone)


# -- T3A, LAME, SHOT, RDumb --


def test_t3a_keeps_the_surest_of_each_class():
    method = T3A(source_model("bn"), filter_k=3)
    for x in batches(3):
        method(x)
    assert method.labels.bincount(minlength=3).max() <= 3
    for k in range(3):
        mine = method.entropies[method.labels == k]
        assert torch.equal(mine, mine.sort().values)


def test_lame_makes_neighbours_agree():
    features = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.1], [1, -0.1], [0, 1]]), dim=1)
    W = affinity(features, k=2)
    assert W.diagonal().sum() == 0 and W[0].tolist() == [0, 1, 1, 0]
    assert torch.equal(affinity(features[:1], k=5), torch.zeros(1, 1))  # nobody near
    assert torch.isfinite(affinity(features[:1].repeat(3, 1), "rbf")).all()  # all the same


def test_the_second_term_of_shot_forbids_one_class_for_all():
    collapsed, diverse = torch.tensor([[20.0, 0], [20, 0]]), torch.tensor([[20.0, 0], [0, 20]])
    assert information_maximisation(collapsed) == pytest.approx(0, abs=1e-6)
    assert information_maximisation(diverse) == pytest.approx(-math.log(2), abs=1e-6)
    logits = torch.randn(1, 4, requires_grad=True)
    information_maximisation(logits).backward()
    assert logits.grad.abs().max() < 1e-6  # one image: the terms cancel


def test_shot_leaves_the_classifier_where_the_source_put_it():
    model = source_model("ln")
    method = SHOTIM(model, lr=0.1)
    method(batches(1)[0])
    assert torch.equal(method.model.head.weight, model.head.weight)
    assert not torch.equal(method.model.patch_embed.proj.weight, model.patch_embed.proj.weight)
    assert find_head(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))[0] == "2"


@pytest.mark.parametrize(("build", "more"), [(RDumb, {"e_margin": 9.0}), (TentReset, {})])
def test_a_periodic_reset_starts_again_and_counts_on(build, more):
    model = source_model("bn")
    method = build(model, every=2, lr=0.1, **more)
    first, x = batches(2, seed=3)[0], batches(1)[0]
    expected = method(x)
    method(first)
    assert not same_weights(method, model)
    assert torch.equal(method(x), expected) and method.batches_seen == 3


# -- bad settings --


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Tent(source_model("ln")), "norms|layer"),
        (lambda: Tent(source_model("bn"), steps=0), "at least one step"),
        (lambda: Tent(source_model("bn"), lr=-1.0), "learning rate"),
        (lambda: Tent(source_model("bn"), optimizer="adamm"), "adam"),
        (lambda: Tent(source_model("bn"), norms=("bm",)), "bn"),
        (lambda: Tent(source_model("bn"), policy="bach"), "batch"),
        (lambda: BatchNormAdapt(source_model("ln")), "no BatchNorm"),
        (lambda: BatchNormAdapt(source_model("bn"), policy="bach"), "batch"),
        (lambda: BatchNormAdapt(source_model("bn"), policy="blend", batch_weight=1.5), r"\[0, 1\]"),
        (lambda: Source(lambda x: x), "nn.Module"),
        (lambda: ETA(source_model("bn"), d_margin="imagnet"), "imagenet"),
        (lambda: EATA(source_model("bn"), fisher_alpha=-1.0), "fisher_alpha"),
        (lambda: EATA(source_model("bn"))(batches(1)[0]), "fit_source"),
        (lambda: SAR(source_model("bn"), rho=-1.0), "rho"),
        (lambda: SAR(source_model("bn"), reset_below="sclaed"), "scaled"),
        (lambda: SAR(source_model("bn"), skip=("bn1", "layer1", "layer2")), "outside"),
        (lambda: CoTTA(source_model("bn"), momentum=2.0), "momentum"),
        (lambda: CoTTA(source_model("bn"), n_views=0), "n_views"),
        (lambda: MEMO(source_model("bn"), n_views=0), "one view"),
        (lambda: T3A(source_model("bn"), filter_k=0), "filter_k"),
        (lambda: T3A(source_model("bn"), head="last"), "last"),
        (lambda: LAME(source_model("bn"), kernel="kn"), "knn"),
        (lambda: LAME(source_model("bn"), k=0), "neighbour"),
        (lambda: LAME(source_model("bn"), max_steps=0), "max_steps"),
        (lambda: SHOTIM(source_model("bn"), steps=0), "at least one step"),
        (lambda: SHOTIM(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))), "classifier"),
        (lambda: RDumb(source_model("bn"), every=0), "every"),
        (lambda: create_method("tnt", source_model("bn")), "tent"),
        (lambda: create_method("tent", source_model("bn"), learning=1), "lr"),
    ],
)
def test_bad_settings_are_named(build, message):
    with pytest.raises(SeminarError, match=message):
        build()


def test_methods_are_made_by_name():
    method = create_method("rdumb", source_model("bn"), every=5, lr=0.1)
    assert type(method) is METHODS["rdumb"] is RDumb and (method.every, method.lr) == (5, 0.1)
