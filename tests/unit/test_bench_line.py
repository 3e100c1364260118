"""Who takes which cell: each cell once, neighbours together, nobody idle while another has two to do."""

import random

import pytest

from seminar_utils.evaluation import bench_backends
from seminar_utils.evaluation.bench_cells import words
from seminar_utils.evaluation.bench_line import Line
from seminar_utils.evaluation.bench_spec import parse_spec

GRID = {
    "methods": ["source", "bn", "tent"],
    "models": ["resnet_small"],
    "data": [{"name": "phantoms", "scanner": "C"}],
    "shifts": ["blur", "gamma"],
    "severities": [1, 3, 5],
    "seeds": [0, 1, 2],
}


@pytest.fixture(scope="module")
def spec():
    return parse_spec({"name": "line", "images": 64, "grid": [GRID]})


def played(cells, workers, seconds=lambda cell: 1.0):
    """(worker, cell, start, end) of each, when a cell takes `seconds`: who is free first takes the next."""
    line, free, done = Line(cells, workers), [0.0] * workers, []
    while True:
        worker = min(range(workers), key=free.__getitem__)
        turn = line.take(worker)
        if turn is None:
            return done
        done.append((worker, turn[0], free[worker], free[worker] + seconds(turn[0])))
        free[worker] = done[-1][3]


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 54, 60])
def test_every_cell_is_taken_once(spec, workers):
    random.seed(workers)
    taken = [cell.key for _, cell, _, _ in played(spec.cells, workers, lambda cell: random.random())]
    assert sorted(taken) == sorted(cell.key for cell in spec.cells)


def test_what_neighbours_share_is_made_by_one_worker(spec):
    """A condition is a run of the source model. Handed out one by one, nearly all 18 were run twice."""

    def condition(cell):
        return cell.checkpoint, cell.shift, cell.severity, words(cell.stream)

    made = {(worker, condition(cell)) for worker, cell, _, _ in played(spec.cells, 2)}
    assert len(made) <= 18 + 1
    slow = {"source": 0.1, "bn": 1.0, "tent": 3.0}
    made = {(worker, condition(c)) for worker, c, _, _ in played(spec.cells, 2, lambda c: slow[c.method["name"]])}
    assert len(made) <= 18 + 3


@pytest.mark.parametrize("workers", [2, 4])
def test_nobody_waits_longer_than_for_one_cell(spec, workers):
    def seconds(cell):
        return 20.0 if cell.seed == 0 else 1.0  # the first share holds nearly all of the work

    done = played(spec.cells, workers, seconds)
    ends = [max(end for worker, _, _, end in done if worker == one) for one in range(workers)]
    assert max(ends) - min(ends) <= 20


def test_a_cell_that_its_worker_did_not_survive_comes_first(spec):
    line = Line(spec.cells, 2)
    cell, _ = line.take(1)
    line.again(1, cell, 2)
    assert len(line) == len(spec.cells) and line.take(1) == (cell, 2)


def test_a_check_that_fails_ends_the_workers_that_have_started(spec, monkeypatch):
    stopped = []

    class Worker:
        def __init__(self, setup, number):
            self.number = number

        def stop(self):
            stopped.append(self.number)

    def check():
        raise ValueError("no")

    monkeypatch.setattr(bench_backends, "_Worker", Worker)
    with pytest.raises(ValueError, match="no"):
        list(bench_backends.backend(2)(spec.cells, spec.setup, check))
    assert stopped == [0, 1]
