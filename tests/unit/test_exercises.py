"""The exercises: blanks, references, the wrong answers students really give, and the progress file."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import exercises
from seminar_utils.teaching.exercise_bank import all_exercises, find_exercise
from seminar_utils.teaching.exercise_bank import lesson_01_resnet as resnet
from seminar_utils.teaching.exercise_bank import lesson_02_vision_transformer as vit
from seminar_utils.teaching.exercise_bank import lesson_11_tent as tent
from seminar_utils.teaching.exercises import exercise, hint, progress, solution
from seminar_utils.teaching.judging import compare, judge

IDS = list(all_exercises())
LESSONS = ("00_start_here", "01_resnet", "02_vision_transformer", "11_tent")


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("SEMINAR_STATIC", raising=False)
    exercises._progress_at.cache_clear()
    return tmp_path / "progress.json"


def blank(*arguments):
    """As it stands in the notebook."""
    raise NotImplementedError


# ---- wrong answers, per exercise -------------------------------------------------------------------


def channels_by_reshape(images):
    n, h, w, c = images.shape
    return torch.from_numpy(images).reshape(n, c, h, w).float() / 255


def plain_accuracy(labels, predictions):
    return float((labels == predictions).mean())


def precision(labels, predictions):
    return float(np.mean([(labels[predictions == c] == c).mean() for c in np.unique(predictions)]))


def absent_counts_as_zero(labels, predictions):
    k = max(labels.max(), predictions.max()) + 1
    return float(np.mean([(predictions[labels == c] == c).mean() if (labels == c).any() else 0 for c in range(k)]))


def bootstrap(quantiles=(0.025, 0.975), replace=True):
    def interval(correct, n_boot, seed):
        rng = np.random.default_rng(seed)
        n = len(correct)
        means = [rng.choice(correct, n, replace=replace).mean() for _ in range(n_boot)]
        return tuple(np.quantile(means, quantiles))

    return interval


def normal_interval(correct, n_boot, seed):
    half = 1.96 * correct.std() / math.sqrt(len(correct))
    return correct.mean() - half, correct.mean() + half


def spread_not_quantiles(correct, n_boot, seed):
    rng = np.random.default_rng(seed)
    means = correct[rng.integers(0, len(correct), (n_boot, len(correct)))].mean(1)
    return float(means.mean() - means.std()), float(means.mean() + means.std())


def normalise(axes=(0, 2, 3), unbiased=False, eps_outside=False, broadcast_last=False, in_place=False):
    def batch_norm(x, gamma, beta, eps):
        mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=unbiased)
        scale = var.sqrt() + eps if eps_outside else (var + eps).sqrt()
        y = x.sub_(mean).div_(scale) if in_place else (x - mean) / scale
        if broadcast_last:
            return gamma * y + beta
        return gamma.view(1, -1, 1, 1) * y + beta.view(1, -1, 1, 1)

    return batch_norm


def add_in_place(x, branch, shortcut):
    out = shortcut(x)
    out += branch(x)
    return torch.relu(out)


def field(order="kernel first", grow=lambda k, jump: (k - 1) * jump, start=1):
    def receptive_field(layers):
        size, jump = start, 1
        for kernel, stride in layers:
            jump = jump * stride if order == "stride first" else jump
            size += grow(kernel, jump)
            jump = jump * stride if order == "kernel first" else jump
        return size

    return receptive_field


def cut(permutation):
    def patchify(x, p):
        b, c, h, w = x.shape
        return x.reshape(b, c, h // p, p, w // p, p).permute(permutation).reshape(b, -1, c * p * p)

    return patchify


def positions_on_patches_only(x_patches, cls_token, pos_embed):
    return torch.cat([cls_token.expand(len(x_patches), -1, -1), x_patches + pos_embed[:, 1:]], 1)


def attend(scale=True, dim=-1, by_hand=False):
    def attention(q, k, v):
        scores = q @ k.transpose(-2, -1)
        scores = scores / (math.sqrt(q.shape[-1]) if scale is True else scale)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True) if by_hand else scores.softmax(dim)
        return weights @ v

    return attention


def mean_of_image_variances(x):
    return x.mean((0, 2, 3)), x.var((2, 3), unbiased=False).mean(0)


def centred_in_place(x):
    mean = x.mean((0, 2, 3))
    x -= mean.view(1, -1, 1, 1)
    return mean, x.pow(2).mean((0, 2, 3))


def running_statistics(x):
    layer = torch.nn.BatchNorm2d(x.shape[1], momentum=1.0)
    layer(x)
    return layer.running_mean, layer.running_var


def entropy(base=math.e, sign=-1, reduce=lambda t: t.sum(1)):
    return lambda z: sign * reduce(z.softmax(1) * z.log_softmax(1)) / math.log(base)


def underflowing_entropy(logits):
    p = logits.softmax(1)
    return -(p * p.log()).sum(1)


def step(**habits):
    """A Tent step with one bad habit."""

    def tent_step(model, x, optimizer):
        if "mode" in habits:
            getattr(model, habits["mode"])()
        logits = model(x)
        h = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
        loss = habits.get("loss", lambda h, z: h.mean())(h, logits)
        if habits.get("zero", True):
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if habits.get("all_move"):
            with torch.no_grad():
                for parameter in model[6].parameters():
                    parameter -= 0.5 * parameter.grad
        return model(x) if habits.get("late") else logits

    return tent_step


def alarm(unit=True, window=None, pooled=True, above=False, empty_classes=False, early=True):
    def collapse_alarm(predictions, num_classes, window_asked, threshold):
        def h(values):
            p = np.bincount(values.ravel(), minlength=num_classes) / values.size
            p = p if empty_classes else p[p > 0]
            with np.errstate(all="ignore"):
                value = -(p * np.log(p)).sum()
            return value / np.log(num_classes) if unit else value

        alarms = []
        for t in range(len(predictions)):
            batches = predictions[max(0, t - (window or window_asked) + 1) : t + 1]
            value = h(batches) if pooled else np.mean([h(batch) for batch in batches])
            ready = early or t + 1 >= window_asked
            alarms.append(bool(ready and (value > threshold if above else value < threshold)))
        return alarms

    return collapse_alarm


WRONG = {
    "start.to_float": {
        "forgot to divide": lambda i: torch.from_numpy(i).permute(0, 3, 1, 2).float(),
        "reshape for permute": channels_by_reshape,
        "height and width swapped": lambda i: torch.from_numpy(i).permute(0, 3, 2, 1).float() / 255,
        "divided by 256": lambda i: torch.from_numpy(i).permute(0, 3, 1, 2).float() / 256,
        "double precision": lambda i: torch.from_numpy(i / 255.0).permute(0, 3, 1, 2),
        "numpy": lambda i: (i.transpose(0, 3, 1, 2) / 255).astype(np.float32),
    },
    "start.balanced_accuracy": {
        "plain accuracy": plain_accuracy,
        "precision": precision,
        "absent classes count": absent_counts_as_zero,
        "per cent": lambda y, p: 100 * find_exercise("start.balanced_accuracy").reference(y, p),
    },
    "start.accuracy_interval": {
        "90 per cent": bootstrap((0.05, 0.95)),
        "without replacement": bootstrap(replace=False),
        "normal approximation": normal_interval,
        "one standard deviation": spread_not_quantiles,
        "high before low": bootstrap((0.975, 0.025)),
    },
    "resnet.output_size": {
        "true division": lambda n, k, s, p: (n + 2 * p - k) / s + 1,
        "padding once": lambda n, k, s, p: (n + p - k) // s + 1,
        "no plus one": lambda n, k, s, p: (n + 2 * p - k) // s,
        "rounded up": lambda n, k, s, p: math.ceil((n + 2 * p - k) / s) + 1,
    },
    "resnet.batch_norm": {
        "unbiased variance": normalise(unbiased=True),
        "per image": normalise(axes=(2, 3)),
        "per pixel": normalise(axes=(0,)),
        "eps outside of the root": normalise(eps_outside=True),
        "gamma along the width": normalise(broadcast_last=True),
        "in place": normalise(in_place=True),
    },
    "resnet.residual": {
        "relu before the sum": lambda x, b, s: torch.relu(b(x)) + s(x),
        "no relu": lambda x, b, s: b(x) + s(x),
        "shortcut left out": lambda x, b, s: torch.relu(b(x) + x),
        "no shortcut": lambda x, b, s: torch.relu(b(x)),
        "in place": add_in_place,
    },
    "resnet.receptive_field": {
        "sum of kernels": field(grow=lambda k, jump: k, start=0),
        "strides ignored": field(grow=lambda k, jump: k - 1),
        "stride first": field(order="stride first"),
        "from zero": field(start=0),
    },
    "vit.num_tokens": {
        "no class token": lambda i, p: (i // p) ** 2,
        "one direction": lambda i, p: i // p + 1,
        "float": lambda i, p: (i / p) ** 2 + 1,
    },
    "vit.patchify": {
        "reshape alone": lambda x, p: x.reshape(len(x), -1, x.shape[1] * p * p),
        "channels last in a patch": cut((0, 2, 4, 3, 5, 1)),
        "patches column by column": cut((0, 4, 2, 1, 3, 5)),
        "transposed patches": cut((0, 2, 4, 1, 5, 3)),
        "unfold not transposed": lambda x, p: F.unfold(x, p, stride=p),
    },
    "vit.sequence": {
        "class token last": lambda x, c, e: torch.cat([x, c.expand(len(x), -1, -1)], 1) + e,
        "class token without position": positions_on_patches_only,
        "not expanded": lambda x, c, e: torch.cat([c, x], 1) + e,
        "no positions": lambda x, c, e: torch.cat([c.expand(len(x), -1, -1), x], 1),
        "in place": lambda x, c, e: torch.cat([c.expand(len(x), -1, -1), x.add_(e[:, 1:])], 1) + e,
    },
    "vit.attention": {
        "not scaled": attend(scale=1.0),
        "softmax over queries": attend(dim=-2),
        "softmax over heads": attend(dim=1),
        "overflow": attend(by_hand=True),
        "values not used": lambda q, k, v: (q @ k.transpose(-2, -1)).softmax(-1),
    },
    "norm.batch_statistics": {
        "unbiased": lambda x: (x.mean((0, 2, 3)), x.var((0, 2, 3))),
        "wrong axes": lambda x: (x.mean((2, 3)), x.var((2, 3), unbiased=False)),
        "mean of image variances": mean_of_image_variances,
        "running statistics": running_statistics,
        "standard deviation": lambda x: (x.mean((0, 2, 3)), x.std((0, 2, 3), unbiased=False)),
        "changed in place": centred_in_place,
        "swapped": lambda x: (x.var((0, 2, 3), unbiased=False), x.mean((0, 2, 3))),
    },
    "tent.entropy": {
        "log of an underflowing softmax": underflowing_entropy,
        "base 2": entropy(base=2),
        "mean over classes": entropy(reduce=lambda t: t.mean(1)),
        "mean over the batch": entropy(reduce=lambda t: t.sum(1).mean()),
        "sign": entropy(sign=1),
        "wrong axis": entropy(reduce=lambda t: t.sum(0)),
        "detached": lambda z: entropy()(z.detach()),
        "float": lambda z: 0.5,
    },
    "tent.step": {
        "answer after the update": step(late=True),
        "every parameter moves": step(all_move=True),
        "dropout on": step(mode="train"),
        "source statistics": step(mode="eval"),
        "gradients not cleared": step(zero=False),
        "sum for mean": step(loss=lambda h, z: h.sum()),
        "entropy maximised": step(loss=lambda h, z: -h.mean()),
        "labels invented": step(loss=lambda h, z: F.cross_entropy(z, z.argmax(1))),
        "no update": lambda m, x, o: m(x),
    },
    "tent.alarm": {
        "never": lambda p, k, w, t: [False] * len(p),
        "always (fires on a balanced stream)": lambda p, k, w, t: [True] * len(p),
        "nats against units of ln K": alarm(unit=False),
        "whole history": alarm(window=10**6),
        "last batch only (fires on sorted batches)": alarm(window=1),
        "mean of batch entropies": alarm(pooled=False),
        "above the threshold": alarm(above=True),
        "0 log 0 silences it": alarm(empty_classes=True),
        "waits for a full window": alarm(early=False),
    },
}

RIGHT = {
    "start.to_float": lambda i: torch.tensor(np.moveaxis(i, -1, 1).copy()).float().div(255),
    "start.accuracy_interval": bootstrap(),
    "resnet.batch_norm": lambda x, g, b, e: F.batch_norm(x, None, None, g, b, training=True, eps=e),
    "vit.patchify": lambda x, p: F.unfold(x, p, stride=p).transpose(1, 2),
    "vit.attention": F.scaled_dot_product_attention,
    "tent.entropy": lambda z: torch.distributions.Categorical(logits=z).entropy(),
    "tent.step": step(),
    "tent.alarm": alarm(),
    "norm.batch_statistics": lambda x: torch.var_mean(x, (0, 2, 3), unbiased=False)[::-1],
}

MUTANTS = [(i, name) for i, wrong in WRONG.items() for name in wrong]


# ---- every exercise --------------------------------------------------------------------------------


def test_every_lesson_has_three_exercises_or_more_and_every_exercise_three_wrong_answers():
    by_lesson = {lesson: [e for e in all_exercises().values() if e.lesson == lesson] for lesson in LESSONS}
    assert all(len(found) >= 3 for found in by_lesson.values())
    assert set(WRONG) == set(IDS)
    assert all(len(wrong) >= 3 for wrong in WRONG.values())
    for task in all_exercises().values():
        assert task.difficulty in (1, 2, 3) and 1 <= task.minutes <= 30 and len(task.hints) == 3


@pytest.mark.parametrize("exercise_id", IDS)
def test_blank_is_to_do_and_the_reference_comes_back(exercise_id, capsys, own_progress):
    assert exercise(exercise_id, blank) is find_exercise(exercise_id).reference
    first = capsys.readouterr().out
    assert first.startswith(f"to do   {exercise_id}")
    exercise(exercise_id, find_exercise(exercise_id).reference)
    capsys.readouterr()
    exercise(exercise_id, blank)
    assert capsys.readouterr().out == first  # whatever the progress file says


@pytest.mark.parametrize("exercise_id", IDS)
def test_reference_passes_its_own_cases(exercise_id):
    def mine(*arguments):
        return find_exercise(exercise_id).reference(*arguments)

    assert exercise(exercise_id, mine) is mine


@pytest.mark.parametrize("exercise_id", list(RIGHT))
def test_right_answer_written_differently_passes(exercise_id):
    verdict = judge(find_exercise(exercise_id), RIGHT[exercise_id])
    assert verdict.state == "right", verdict.lines


@pytest.mark.parametrize("exercise_id, name", MUTANTS)
def test_wrong_answer_fails_with_counterexample_and_hint(exercise_id, name, capsys):
    returned = exercise(exercise_id, WRONG[exercise_id][name])
    shown = capsys.readouterr().out
    assert returned is find_exercise(exercise_id).reference
    assert shown.startswith(f"not yet {exercise_id}: attempt 1")
    assert "input: " in shown and "problem: " in shown
    assert "hint 1: " + find_exercise(exercise_id).hints[0] in shown
    assert len(shown) < 2500 and " at 0x" not in shown


# ---- what the reference functions compute ----------------------------------------------------------


def test_patchify_is_the_convolution_of_lesson_02():
    x, conv = torch.randn(2, 3, 8, 12), torch.nn.Conv2d(3, 5, 4, stride=4)
    tokens = vit.patchify(x, 4) @ conv.weight.flatten(1).T + conv.bias
    torch.testing.assert_close(tokens, conv(x).flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_output_size_and_receptive_field_agree_with_torch():
    for values in [(8, 3, 1, 1), (28, 5, 3, 2), (225, 7, 2, 3)]:
        n, k, s, p = values
        conv = torch.nn.Conv2d(1, 1, k, stride=s, padding=p)
        assert resnet.output_size(*values) == conv(torch.zeros(1, 1, n, n)).shape[-1]
    layers = [(3, 2), (3, 1), (5, 2)]
    net = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, k, stride=s, bias=False) for k, s in layers))
    for conv in net:
        torch.nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 61, 61, requires_grad=True)
    middle = net(x)[0, 0, 5, 5]
    touched = torch.autograd.grad(middle, x)[0][0, 0].any(0).sum().item()
    assert resnet.receptive_field(layers) == touched


def test_alarm_cases_keep_away_from_the_threshold():
    for case in tent.alarm_cases():
        arguments = case.make()
        shares = tent.collapse_alarm(**arguments)
        for nudge in (-1e-4, 1e-4):
            arguments["threshold"] += nudge
            assert tent.collapse_alarm(**arguments) == shares
            arguments["threshold"] -= nudge


# ---- how answers are judged ------------------------------------------------------------------------


def test_first_failing_case_is_the_smallest():
    verdict = judge(find_exercise("tent.entropy"), WRONG["tent.entropy"]["base 2"])
    assert dict(verdict.lines)["input"] == "logits = tensor float32 (1, 2): [[0., 0.]]"


def test_hints_grow_with_new_wrong_answers_and_not_with_the_same_one(capsys):
    answers = [lambda i, p: 1, lambda i, p: 2, lambda i, p: 3, lambda i, p: 4]
    seen = []
    for answer in [answers[0], answers[0], *answers[1:]]:
        exercise("vit.num_tokens", answer)
        seen.append(next(line for line in capsys.readouterr().out.splitlines() if "hint " in line).strip()[:6])
    assert seen == ["hint 1", "hint 1", "hint 2", "hint 3", "hint 3"]


@pytest.mark.parametrize(
    "answer, expected",
    [
        (lambda logits: None, "`return` missing"),
        (lambda logits: logits.sofmax(1), "AttributeError"),
        (lambda logits: logits, "expected shape (1,), got (1, 2)"),
        (lambda logits: logits.sum(1) * float("nan"), "there is a nan"),
        (lambda logits: logits.double().sum(1), "expected dtype torch.float32, got torch.float64"),
        (lambda a, b: a, "TypeError"),
    ],
)
def test_problem_is_named(answer, expected):
    task = find_exercise("tent.entropy")
    if expected == "`return` missing":
        task = find_exercise("vit.num_tokens")
        answer = lambda i, p: None  # noqa: E731
    assert expected in dict(judge(task, answer).lines)["problem"]


def test_error_names_the_students_line():
    def answer(image_size, patch_size):
        return image_size.shape[0]

    problem = dict(judge(find_exercise("vit.num_tokens"), answer).lines)["problem"]
    assert "in your line: return image_size.shape[0]" in problem


def test_not_implemented_error_from_elsewhere_is_a_wrong_answer():
    def answer(x, p):
        blank(x)

    assert judge(find_exercise("vit.patchify"), answer).state == "wrong"


def test_judging_leaves_the_notebooks_random_numbers_alone():
    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    exercise("tent.step", step())
    assert draws() == expected


def test_numbers_are_compared_by_kind():
    assert compare(np.float64(0.5), 0.5, 1e-6) is None
    assert compare(torch.tensor(0.5), 0.5, 1e-6) is None
    assert compare(3.0, 3, 1e-6).problem.startswith("expected one int")
    assert compare(True, 1.0, 1e-6) is not None
    assert compare([np.bool_(True)], [True], 1e-6) is None
    assert compare([1], [True], 1e-6) is not None
    assert compare(float("inf"), 1.0, 1e-6) is not None
    assert compare((1.0, 2.0, 3.0), (1.0, 2.0), 1e-6).problem == "expected 2 values, got 3 values"


@pytest.mark.parametrize("call", [lambda: exercise("tent.entopy", blank), lambda: hint("tent.entopy")])
def test_unknown_id_names_the_nearest(call):
    with pytest.raises(SeminarError, match="did you mean 'tent.entropy'"):
        call()


def test_bad_calls():
    with pytest.raises(SeminarError, match="takes a function, got int"):
        exercise("tent.entropy", 3)
    with pytest.raises(SeminarError, match="hints 1 to 3, got level 7"):
        hint("tent.entropy", level=7)


# ---- hint, solution, progress ----------------------------------------------------------------------


def test_hint_goes_on_to_the_next_and_stays_at_the_last(capsys):
    for expected in (1, 2, 3, 3):
        hint("vit.patchify")
        assert capsys.readouterr().out.startswith(f"hint {expected} of 3")
    hint("vit.patchify", level=1)
    assert capsys.readouterr().out.startswith("hint 1 of 3")


def test_solution_shows_the_packages_own_source(capsys):
    solution("tent.entropy")
    shown = capsys.readouterr().out
    assert "seminar_utils/adaptation/tent.py" in shown and "log_softmax(dim=1)" in shown
    for exercise_id in IDS:
        solution(exercise_id)
        assert "\ndef " in capsys.readouterr().out


def test_progress_shows_the_whole_course_and_remembers(capsys, own_progress):
    exercise("resnet.residual", find_exercise("resnet.residual").reference)
    exercise("vit.patchify", WRONG["vit.patchify"]["reshape alone"])
    exercises._progress_at.cache_clear()  # a new kernel
    capsys.readouterr()
    progress()
    lines = capsys.readouterr().out.splitlines()
    state = {line.split()[1]: line.rsplit("  ", 1)[-1].strip() for line in lines if line[:2].isdigit()}
    assert {i for i in IDS if i in state} == set(IDS)
    assert state["resnet.residual"] == "right" and state["vit.patchify"] == "wrong"
    assert f"1 of {len(IDS)} exercises are right." in lines
    assert [p.name for p in own_progress.parent.iterdir()] == ["progress.json"]  # no temporary left


def test_what_was_solved_stays_solved(own_progress):
    exercise("resnet.residual", find_exercise("resnet.residual").reference)
    exercise("resnet.residual", WRONG["resnet.residual"]["no relu"])
    assert json.loads(own_progress.read_text())["exercises"]["resnet.residual"]["state"] == "right"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"version": 1, "exercises": {"a": 3}}', '{"version": 99}', "\x00"]
)
def test_damaged_progress_file_is_told_and_kept_aside(content, own_progress):
    own_progress.write_text(content)
    with pytest.warns(UserWarning, match="damaged: kept as progress.json.broken"):
        hint("tent.step")
    assert own_progress.with_name("progress.json.broken").read_text() == content
    assert json.loads(own_progress.read_text())["exercises"]["tent.step"]["hints"] == 1


def test_undecodable_progress_file_is_kept_aside(own_progress):
    own_progress.write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="damaged"):
        hint("tent.step")


def test_unwritable_place_warns_once_and_works_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("SEMINAR_PROGRESS", str(tmp_path / "a_file" / "progress.json"))
    with pytest.warns(UserWarning, match="cannot be kept") as told:
        hint("tent.step")
        hint("tent.step")
    assert len(told) == 1
    assert "hint 2 of 3" in capsys.readouterr().out


def test_the_course_itself_neither_reads_nor_writes_progress(own_progress, monkeypatch, capsys):
    exercise("resnet.residual", find_exercise("resnet.residual").reference)
    before = own_progress.read_text()
    monkeypatch.setenv("SEMINAR_STATIC", "1")
    capsys.readouterr()
    progress()
    assert f"0 of {len(IDS)} exercises are right." in capsys.readouterr().out
    exercise("vit.num_tokens", find_exercise("vit.num_tokens").reference)
    assert own_progress.read_text() == before


def test_notes_have_a_form_for_notebooks():
    note = exercises.wrong_note(
        find_exercise("tent.entropy"), judge(find_exercise("tent.entropy"), WRONG["tent.entropy"]["sign"]), 2
    )
    assert "<pre" in note._repr_html_() and "hint 2" in note._repr_html_() and "&quot;" in note._repr_html_()


def test_importing_the_machine_touches_no_file(tmp_path):
    code = "import seminar_utils.teaching.exercises as e; e.all_exercises()"
    environment = {**os.environ, "SEMINAR_PROGRESS": str(tmp_path / "p.json")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
    assert not list(tmp_path.iterdir())


def test_nothing_warns_on_the_normal_way():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exercise("vit.num_tokens", lambda i, p: 3)
        exercise("tent.entropy", find_exercise("tent.entropy").reference)
