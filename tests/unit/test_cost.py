import copy

import pytest
import torch
from torch import nn

from seminar_utils.adaptation import BatchNormAdapt, Source, Tent
from seminar_utils.evaluation.cost import count_passes, measure_cost, networks_of, peak_memory
from seminar_utils.runtime import SeminarError


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


X = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("build", "forward", "backward"),
    [(Source, 1, 0), (BatchNormAdapt, 1, 0), (Tent, 1, 1), (lambda m: Tent(m, steps=3), 3, 3)],
)
def test_passes_are_those_of_the_method(build, forward, backward):
    method = build(model())
    with count_passes(method) as passes:
        method(X)
    assert (passes.forward, passes.backward) == (forward, backward)
    assert (passes.forward_images, passes.backward_images) == (8 * forward, 8 * backward)
    method(X)
    assert passes.forward == forward  # no longer watched


def test_only_images_that_a_gradient_reached_count_backward():
    network = model()
    with count_passes(network) as passes:
        network(X)[:3].sum().backward()
    assert (passes.backward, passes.backward_images) == (1, 3)


def test_a_teacher_beside_the_student_counts_too_and_a_part_does_not():
    class TwoNetworks:
        def __init__(self):
            self.student, self.teacher = model(), model()
            self.first_layer = self.student[0]

        def __call__(self, x):
            self.teacher(x)
            return self.student(x)

    method = TwoNetworks()
    assert len(networks_of(method)) == 2
    with count_passes(method) as passes:
        method(X)
    assert passes.forward == 2


def test_counting_changes_no_number():
    watched, free = Tent(model()), Tent(model())
    with count_passes(watched):
        assert all(torch.equal(watched(X), free(X)) for _ in range(3))


def test_peak_memory_is_what_lives_at_once():
    def call():
        first = torch.ones(256, 1024)  # 1 MiB
        second = first + 1  # 2 MiB now
        del first
        third = second * 2  # still 2
        return third.view(-1)[:10]  # a view is nothing new

    assert peak_memory(call) == pytest.approx(2)
    assert peak_memory(call) == pytest.approx(2)  # and not what an earlier call left behind


def test_a_gradient_costs_memory():
    network = model()
    with torch.no_grad():
        without = peak_memory(lambda: network.eval()(X))
    assert peak_memory(lambda: network(X).sum().backward()) > 1.2 * without > 0


def test_the_cost_of_tent_is_one_of_each_and_more_memory_than_the_source():
    network = model()
    kept = copy.deepcopy(network.state_dict())
    costs = {build: measure_cost(lambda b=build: b(network), [X, X, X[:3]]) for build in (Source, Tent)}
    assert costs[Source].as_metrics() == pytest.approx(costs[Source].as_metrics() | {"images": 19})
    assert (costs[Source].forward_per_image, costs[Source].backward_per_image) == (1, 0)
    assert (costs[Tent].forward_per_image, costs[Tent].backward_per_image) == (1, 1)
    assert costs[Tent].peak_mib > costs[Source].peak_mib > 0 and costs[Tent].ms_per_image > 0
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())


def test_what_can_t_be_measured_is_named():
    with pytest.raises(SeminarError, match="holds no network"), count_passes(lambda x: x):
        pass
    with pytest.raises(SeminarError, match="at least one batch"):
        measure_cost(lambda: Source(model()), [])
