"""The contract every adaptation method keeps, over models with BatchNorm, LayerNorm and GroupNorm."""

import copy

import pytest
import torch
from torch import nn

from seminar_utils.adaptation import Adapter, BatchNormAdapt, Source, Tent, batch_statistics
from seminar_utils.adaptation.passes import count_passes
from seminar_utils.models import create_model
from seminar_utils.runtime import SeminarError

MODELS = {
    "bn": lambda: create_model("resnet_small", num_classes=3),
    "gn": lambda: create_model("resnet_small", num_classes=3, norm="gn"),
    "ln": lambda: create_model("vit_tiny", num_classes=3, img_size=16, drop_path=0.5),
}
METHODS = {
    "source-bn": lambda m: Source(m),
    "source-ln": lambda m: Source(m),
    "batch-bn": lambda m: BatchNormAdapt(m),
    "running-bn": lambda m: BatchNormAdapt(m, update_running=True),
    "blend-bn": lambda m: BatchNormAdapt(m, policy="blend", batch_weight=0.3),
    "ema-bn": lambda m: BatchNormAdapt(m, policy="ema"),
    "tent-bn": lambda m: Tent(m, lr=0.01),
    "tent3-bn": lambda m: Tent(m, lr=0.01, steps=3, optimizer="sgd"),
    "episodic-bn": lambda m: Tent(m, lr=0.01, episodic=True),
    "tent-ln": lambda m: Tent(m, lr=0.01, norms=("ln",)),
    "tent-gn": lambda m: Tent(m, lr=0.01, norms=("gn",)),
}


def source_model(kind: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[kind]()
    for module in model.modules():  # training statistics that differ from the batch's
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return model.train()  # the caller's mode must not matter


def batches(count=3, size=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(size, 1, 16, 16, generator=generator) for _ in range(count)]


def same_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def frozen_copy(module):
    return copy.deepcopy(module.state_dict())


@pytest.fixture(params=METHODS, ids=str)
def case(request):
    model = source_model(request.param.split("-")[1])
    return model, METHODS[request.param](model)


def test_reset_is_bit_exact(case):
    model, method = case
    first = [method(x) for x in batches()]
    method.reset()
    assert same_state(frozen_copy(method.model), frozen_copy(model))
    assert method.batches_seen == 0 and (method.optimizer is None or not method.optimizer.state)
    for x, logits in zip(batches(), first):
        assert torch.equal(method(x), logits)


def test_the_callers_model_is_untouched(case):
    model, method = case
    before = frozen_copy(model)
    modes = {name: module.training for name, module in model.named_modules()}
    for x in batches():
        method(x)
    assert same_state(before, frozen_copy(model))
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_only_declared_parameters_move(case):
    model, method = case
    declared = set(method.parameters_to_adapt())
    before = {name: value.clone() for name, value in method.model.named_parameters()}
    for x in batches():
        method(x)
    moved = {name for name, value in method.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved <= declared
    assert bool(moved) == bool(declared)


def test_dropout_and_drop_path_stay_off(case):
    _, method = case
    training = {type(m).__name__ for m in method.model.modules() if m.training}
    assert training <= {"BatchNorm2d"}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_small_batches_stay_finite(case, size):
    _, method = case
    for x in batches(size=size):
        assert torch.isfinite(method(x)).all()
    assert all(torch.isfinite(p).all() for p in method.model.parameters())


def test_dtype_follows_the_input_and_the_logits_carry_no_graph(case):
    _, method = case
    logits = method(batches(1)[0].double())
    assert logits.dtype == torch.float64 and not logits.requires_grad
    assert all(p.dtype == torch.float32 for p in method.model.parameters())


def test_the_price_of_a_batch_is_reported(case):
    _, method = case
    with count_passes(method) as seen:
        method(batches(1)[0])
    cost = method.cost()
    assert {name: cost[name] for name in vars(seen)} == vars(seen)
    weights = sum(v.numel() * v.element_size() for v in method.model.state_dict().values())
    assert cost["extra_mib"] * 2**20 >= weights  # the snapshot at least


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
    for build, message in [
        (lambda: Prepared(source_model("bn")).fit_source([]), "got none"),
        (lambda: Source(source_model("bn")).fit_source(batches(1)), "nothing from the source"),
    ]:
        with pytest.raises(SeminarError, match=message):
            build()


def test_source_equals_the_model_in_eval_mode():
    model = source_model("bn")
    x = batches(1)[0]
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(x)
    assert torch.equal(Source(model)(x), expected)
    assert torch.equal(BatchNormAdapt(model, policy="source")(x), expected)
    assert torch.allclose(BatchNormAdapt(model, policy="blend", batch_weight=0.0)(x), expected, atol=1e-6)


def test_tent_without_a_learning_rate_is_batchnorm_adaptation():
    model = source_model("bn")
    tent, norm = Tent(model, lr=0.0), BatchNormAdapt(model)
    for x in batches():
        assert torch.equal(tent(x), norm(x))


def test_tent_lowers_the_entropy_of_a_repeated_batch():
    from seminar_utils.adaptation import softmax_entropy

    method, x = Tent(source_model("bn"), lr=0.01), batches(1)[0]
    entropies = [softmax_entropy(method(x)).mean().item() for _ in range(10)]
    assert entropies[-1] < entropies[0] - 1e-3


def test_the_returned_logits_precede_the_update():
    model, x = source_model("bn"), batches(1)[0]
    assert torch.equal(Tent(model, lr=0.5)(x), BatchNormAdapt(model)(x))


def test_episodic_forgets_the_batch_before():
    model = source_model("bn")
    one, two = batches(2)
    method = Tent(model, lr=0.05, episodic=True, steps=2)
    method(one)
    assert torch.equal(method(two), Tent(model, lr=0.05, steps=2)(two))


def test_a_batch_of_one_at_one_pixel_with_the_moving_average():
    layer_input = torch.full((1, 4, 1, 1), 3.0)
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Flatten())
    method = BatchNormAdapt(model, policy="ema", batch_weight=0.5)
    assert torch.isfinite(method(layer_input)).all()
    assert torch.allclose(method.model[0].running_mean, torch.full((4,), 1.5))


def test_batch_statistics_are_biased_and_per_channel():
    x = torch.randn(4, 3, 5, 5)
    mean, var = batch_statistics(x)
    flat = x.transpose(0, 1).reshape(3, -1)
    assert torch.allclose(mean, flat.mean(1), atol=1e-6)
    assert torch.allclose(var, flat.var(1, unbiased=False), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Tent(source_model("ln")), "norms|layer"),
        (lambda: Tent(source_model("bn"), steps=0), "at least one step"),
        (lambda: Tent(source_model("bn"), lr=-1.0), "learning rate"),
        (lambda: Tent(source_model("bn"), optimizer="adamm"), "adam"),
        (lambda: Tent(source_model("bn"), norms=("bm",)), "bn"),
        (lambda: BatchNormAdapt(source_model("ln")), "no BatchNorm"),
        (lambda: BatchNormAdapt(source_model("bn"), policy="bach"), "batch"),
        (lambda: BatchNormAdapt(source_model("bn"), policy="blend", batch_weight=1.5), r"\[0, 1\]"),
        (lambda: Source(lambda x: x), "nn.Module"),
    ],
)
def test_bad_settings_are_named(build, message):
    with pytest.raises(SeminarError, match=message):
        build()


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(0, 1, 16, 16),
        torch.zeros(1, 16, 16),
        torch.zeros(2, 1, 16, 16, dtype=torch.uint8),
        torch.full((2, 1, 16, 16), float("nan")),
        [[0.0]],
    ],
)
def test_a_bad_batch_is_refused_before_anything_moves(x):
    method = Tent(source_model("bn"))
    before = frozen_copy(method.model)
    with pytest.raises(SeminarError, match="float tensor|NaN"):
        method(x)
    assert same_state(before, frozen_copy(method.model)) and method.batches_seen == 0
