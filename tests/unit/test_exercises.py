"""The exercises: blanks, references, the wrong answers students really give, and the progress file."""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from wrong_answers import RIGHT, WRONG

from seminar_utils.adaptation.dapl import dapl_loss
from seminar_utils.adaptation.prompts import insert_context, slot_order
from seminar_utils.evaluation.intervals import draw_units, resample
from seminar_utils.evaluation.orders import ORDERS
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import exercises
from seminar_utils.teaching.exercise_bank import all_exercises, find_exercise
from seminar_utils.teaching.exercise_bank import lesson_01_resnet as resnet
from seminar_utils.teaching.exercise_bank import lesson_02_vision_transformer as vit
from seminar_utils.teaching.exercise_bank import lesson_09_evaluating_under_shift as shift
from seminar_utils.teaching.exercise_bank import lesson_11_tent as tent
from seminar_utils.teaching.exercise_bank import lesson_14_prompt_adaptation as prompts
from seminar_utils.teaching.exercises import exercise, hint, progress, solution
from seminar_utils.teaching.judging import compare, judge

IDS = list(all_exercises())
LESSONS = sorted({task.lesson for task in all_exercises().values()})


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("SEMINAR_STATIC", raising=False)
    exercises._progress_at.cache_clear()
    return tmp_path / "progress.json"


def blank(*arguments):
    """As it stands in the notebook."""
    raise NotImplementedError


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


def test_dealing_out_every_class_gives_the_package_s_dirichlet_stream():
    labels, rng = np.random.default_rng(3).integers(0, 4, 150), np.random.default_rng(7)
    stretch = np.empty(150, dtype=int)
    for k in range(4):
        patients = rng.permutation(np.flatnonzero(labels == k))
        stretch[patients] = shift.deal_out(len(patients), rng.dirichlet(np.full(20, 0.3)))
    expected = ORDERS["dirichlet"](labels, 7, delta=0.3, slots=20)
    np.testing.assert_array_equal(np.lexsort((rng.random(150), stretch)), expected)


def test_drawing_patients_gives_the_package_s_bootstrap_over_clusters():
    patients, values = np.array([3, 3, 8, 5, 8, 8]), np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    drawn = np.array([3, 5, 8])[draw_units(3, 200, 0)]
    means = [values[shift.draw_patients(patients, ids)].mean() for ids in drawn]
    package = resample(values, statistic=np.mean, n_boot=200, clusters=patients).values
    np.testing.assert_allclose(means, package, atol=1e-12)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_prompt_built_by_hand_is_the_package_s(position):
    vectors, context = torch.randn(1, 9, 4), torch.randn(3, 4)  # start, 3 blanks, 2 of the name, 3 of the rest
    order = slot_order(9, 3, [2], position)
    start, _, name, rest = vectors[0].split([1, 3, 2, 3])
    by_hand = prompts.build_prompt(start, context, name, rest, position)
    torch.testing.assert_close(by_hand, insert_context(vectors, context, order)[0], rtol=0, atol=0)


@pytest.mark.parametrize("threshold", [0.4, 0.9, 1.0])
def test_the_loss_without_labels_is_the_package_s(threshold):
    logits = 2 * torch.randn(16, 9, generator=torch.Generator().manual_seed(0))
    package = dapl_loss(logits, torch.zeros(16).long(), logits, 3, threshold=threshold)
    torch.testing.assert_close(prompts.target_loss(logits[:, 3:6], logits[:, 6:], threshold), package.target)


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


def test_answers_that_differ_in_a_comprehension_a_default_or_an_option_are_different():
    def per_class(reduce):
        def mine(labels, predictions, scale=1.0):
            return scale * sum([reduce(labels == k) for k in (0, 1)])

        return mine

    def summed(labels, predictions):
        return sum([(labels == k).sum() for k in (0, 1)])

    def averaged(labels, predictions):
        return sum([(labels == k).mean() for k in (0, 1)])

    assert exercises.fingerprint(summed) != exercises.fingerprint(averaged)
    options = [functools.partial(per_class(np.mean), scale=scale) for scale in (1.0, 2.0)]
    assert exercises.fingerprint(options[0]) != exercises.fingerprint(options[1])
    assert exercises.fingerprint(per_class(np.mean)) == exercises.fingerprint(per_class(np.mean))


def test_a_note_says_what_the_printed_arguments_do_not_show(capsys):
    exercise("tent.step", WRONG["tent.step"]["gradients not cleared"])
    assert "note: an earlier computation left its gradients in the parameters" in capsys.readouterr().out


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
    exercise("tent.step", RIGHT["tent.step"])
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
    solution("start.balanced_accuracy")
    assert "def per_class_recall" in capsys.readouterr().out  # the helper that does the work
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
