"""What every adaptation method promises, tried on all of them with BatchNorm, GroupNorm and LayerNorm networks.

The list of methods is adapter_cases.py; what is special about one method is tested in test_adapters.py.
"""

import copy
import inspect

import pytest
import torch
from adapter_cases import ALL, CASES, batches
from torch import nn

from seminar_utils.adaptation import METHODS, Source
from seminar_utils.adaptation.passes import count_passes, networks_of
from seminar_utils.evaluation.streams import run_stream
from seminar_utils.runtime import SeminarError

PAIRS = [(case, kind) for case in CASES for kind in case.kinds]


def tried_on(pairs):
    return pytest.mark.parametrize(("case", "kind"), pairs, ids=[f"{case.name}-{kind}" for case, kind in pairs])


every = tried_on(PAIRS)


def everything(value, path="", seen=None):
    """All that an adapter holds, flat: {path: tensor or plain value}, networks, optimisers, generators opened."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        return {path: value.detach().clone(), f"{path}.grad": value.grad is not None if value.is_leaf else False}
    if isinstance(value, torch.Generator):
        return {path: value.get_state()}
    if isinstance(value, torch.optim.Optimizer):
        value = value.state_dict()
    elif isinstance(value, nn.Module):
        tensors = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        modes = {name: module.training for name, module in value.named_modules()}
        value = {**tensors, "training": modes}
    elif hasattr(value, "__dict__") and not callable(value):
        value = vars(value)
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        found = {}
        for key, part in value.items():
            found |= everything(part, f"{path}/{key}", seen)
        return found
    return {path: value} if value is None or isinstance(value, bool | int | float | str) else {}


def state(method):
    return everything(vars(method))


def differences(one, other):
    def same(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b

    return sorted(
        k for k in one.keys() | other.keys() if k not in one or k not in other or not same(one[k], other[k])
    )


def number_of_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_every_method_of_the_registry_is_tried():
    ours = {name for name, method in METHODS.items() if method.__module__.startswith("seminar_utils.")}
    assert {case.method for case in CASES} == ours  # other modules may add their own, as tests of the benchmark do
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.kinds == ALL or case.method == "bn" for case in CASES)  # only BN alone needs BatchNorm


@every
def test_reset_is_bit_exact_in_all_that_the_method_holds(case, kind):
    model = case.model(kind)
    method = case.build(model)
    before = state(method)
    first = [method(x) for x in batches()]
    assert differences(before, state(method))  # something is there to forget: the count at least
    method.reset()
    assert differences(before, state(method)) == []
    assert all(torch.equal(method(x), logits) for x, logits in zip(batches(), first))


@every
def test_the_caller_s_model_is_untouched(case, kind):
    model = case.model(kind)
    before, hooks = everything(model), number_of_hooks(model)
    method = case.build(model)
    run = [method(x) for x in batches()]
    assert len(run) == 3 and differences(before, everything(model)) == []
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert hooks == number_of_hooks(model)


@tried_on([(case, kind) for case, kind in PAIRS if case.no_op is not None])
def test_a_no_op_equals_the_source_model(case, kind):
    model = case.model(kind)
    method, source = case.build(model, **case.no_op), Source(model)
    for x in batches():  # image by image and as a batch the sums are rounded otherwise, hence a tolerance
        torch.testing.assert_close(method(x).softmax(1), source(x).softmax(1), atol=1e-6, rtol=0)
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in method.model.named_parameters())


@every
def test_labels_never_enter(case, kind):
    model = case.model(kind)
    method = case.build(model)
    assert list(inspect.signature(method.__call__).parameters) == ["x"]
    assert list(inspect.signature(method.fit_source).parameters) == ["batches"]
    labels = torch.arange(8) % 3
    said = run_stream(method, [(x, labels) for x in batches(2)]).logits
    method.reset()
    assert (said == run_stream(method, [(x, labels.flip(0)) for x in batches(2)]).logits).all()


@every
def test_only_what_is_declared_moves(case, kind):
    model = case.model(kind)
    method = case.build(model)
    declared = set(method.parameters_to_adapt())
    assert declared == {name for name, p in method.model.named_parameters() if p.requires_grad}
    before = everything(method.model)
    method(batches(1)[0])
    moved = {name.removeprefix("/") for name in differences(before, everything(method.model))}
    moved = {name for name in moved if not name.endswith(".grad")}
    names = {name for name, _ in method.model.named_parameters()}
    if case.name != "sar-recovers":  # which is back already
        assert bool(moved & names) == bool(declared)
    assert moved & names <= declared
    assert bool(moved - names) == case.buffers_move


@every
def test_dropout_and_drop_path_stay_off(case, kind):
    model = case.model(kind)
    method = case.build(model)
    method(batches(1)[0])
    training = {type(m) for network in networks_of(method) for m in network.modules() if m.training}
    assert training <= {nn.BatchNorm2d, nn.BatchNorm1d}


@every
def test_batches_of_one_and_short_last_batches_stay_finite_with_two_classes_too(case, kind):
    for num_classes in (2, 3):
        method = case.build(case.model(kind, num_classes))
        for size in (8, 3, 1):
            logits = method(batches(1, size)[0])
            assert logits.shape == (size, num_classes) and torch.isfinite(logits).all()
        assert all(torch.isfinite(p).all() for p in method.model.parameters())


@tried_on([(case, kind) for case, kind in PAIRS if case.empty is not None])
def test_an_empty_selection_moves_nothing(case, kind):
    model = case.model(kind)
    method = case.build(model, **case.empty)
    before = everything(method.model)
    for x in batches(2):
        assert torch.isfinite(method(x)).all()
    assert [name for name in differences(before, everything(method.model)) if not name.endswith(".grad")] == []


@every
def test_dtype_follows_the_input_and_no_graph_is_returned(case, kind):
    model = case.model(kind)
    method = case.build(model)
    x = batches(1)[0].double()
    logits = method(x)
    assert logits.dtype == torch.float64 and logits.device == x.device and not logits.requires_grad
    method = case.build(copy.deepcopy(model).double())
    assert method(x).dtype == torch.float64
    kept = [v for v in state(method).values() if isinstance(v, torch.Tensor) and v.is_floating_point() and v.ndim]
    assert {v.dtype for v in kept} == {torch.float64}


@every
def test_the_price_of_a_batch_is_reported(case, kind):
    model = case.model(kind)
    method = case.build(model)
    with count_passes(method) as seen:
        method(batches(1)[0])
    cost = method.cost()
    assert tuple(cost[name] for name in vars(seen)) == tuple(vars(seen).values()) == case.passes
    weights = sum(v.numel() * v.element_size() for v in method.model.state_dict().values())
    assert cost["extra_mib"] * 2**20 >= weights  # the snapshot at least


@every
def test_the_global_random_numbers_are_left_alone(case, kind):
    model = case.model(kind)
    method = case.build(model)
    before = torch.get_rng_state()
    torch.manual_seed(5)
    one = method(batches(1)[0])
    method.reset()
    torch.manual_seed(6)
    after = torch.get_rng_state()
    assert torch.equal(one, method(batches(1)[0])) and torch.equal(after, torch.get_rng_state())
    torch.set_rng_state(before)


def test_a_caller_s_no_grad_stops_nothing():
    for case in {case.method: case for case in CASES}.values():  # one a method
        free, held, inferring = (case.build(case.model("bn")) for _ in range(3))
        x = batches(1)[0]
        free(x)
        with torch.no_grad():
            held(x)
        with torch.inference_mode():
            inferring(x.clone())
        second = free(x)
        assert torch.equal(second, held(x)) and torch.equal(second, inferring(x)), case.name


@every
def test_a_bad_batch_is_refused_before_anything_moves(case, kind):
    model = case.model(kind)
    method = case.build(model)
    before = state(method)
    for x in (
        torch.zeros(0, 1, 12, 12),
        torch.full((2, 1, 12, 12), float("nan")),
        torch.zeros(2, 1, 12, 12).int(),
    ):
        with pytest.raises(SeminarError, match="float tensor|NaN"):
            method(x)
    assert differences(before, state(method)) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_device_follows_the_model_and_the_answer_the_input():
    for case, kind in PAIRS:
        method = case.build(case.model(kind).cuda())
        x = batches(1)[0]
        assert method(x).device == x.device and method(x.cuda()).is_cuda
        tensors = {k: v for k, v in state(method).items() if isinstance(v, torch.Tensor) and v.ndim}
        assert [k for k, v in tensors.items() if not v.is_cuda and "generator" not in k] == [], case.name
