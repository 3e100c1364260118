import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils.adaptation import BatchNormAdapt, Source
from seminar_utils.evaluation.checks import Undefined
from seminar_utils.evaluation.intervals import bootstrap_interval
from seminar_utils.evaluation.metrics import balanced_accuracy, harm_rate
from seminar_utils.evaluation.ranking import auroc, sensitivity_at_specificity
from seminar_utils.evaluation.report import report_card, report_card_of, stream_answers
from seminar_utils.evaluation.report_rules import Limits
from seminar_utils.teaching.report_figure import report_card_figure

RNG = np.random.default_rng(0)


def answers(labels, skill, num_classes=2):
    noise = RNG.dirichlet(np.ones(num_classes), len(labels))
    return skill * np.eye(num_classes)[labels] + (1 - skill) * noise


LABELS, VAL = RNG.integers(0, 2, 200), RNG.integers(0, 2, 100)
GOOD, POOR, VAL_GOOD, VAL_POOR = (answers(y, s) for y, s in ((LABELS, 0.3), (LABELS, 0.0), (VAL, 0.4), (VAL, 0.1)))
GROUPS = np.array(["A", "B"])[RNG.integers(0, 2, 200)]
ALL = {
    "val_labels": VAL,
    "val_after": VAL_GOOD,
    "val_before": VAL_POOR,
    "class_names": ("normal", "pneumonia"),
    "groups": GROUPS,
    "n_boot": 100,
}
EASY = Limits(auroc=0, recall=0, ece=1, sensitivity=0, specificity=0.9, slack=0.9, worst=0, harm=1, entropy=0)


def card(**changes):
    return report_card(LABELS, GOOD, POOR, **(ALL | changes))


def test_the_numbers_are_those_of_the_metrics():
    made, n = card(), card().numbers
    assert n.auroc == bootstrap_interval(LABELS, GOOD, statistic=auroc, n_boot=100)
    assert n.operating == sensitivity_at_specificity(VAL, VAL_GOOD[:, 1], LABELS, GOOD[:, 1], 0.9)
    assert made.source.operating == sensitivity_at_specificity(VAL, VAL_POOR[:, 1], LABELS, POOR[:, 1], 0.9)
    assert made.harm == harm_rate(LABELS, POOR.argmax(1), GOOD.argmax(1)) and made.change.real
    by_hand = min((balanced_accuracy(LABELS[GROUPS == g], GOOD[GROUPS == g].argmax(1)), g) for g in "AB")
    assert n.worst == (by_hand[1], by_hand[0])


def test_another_corruption_may_be_the_worst_case():
    bad = {"blur 5": (LABELS, 1 - LABELS, LABELS)}
    assert card(corruptions=bad).numbers.worst == ("blur 5", 0)
    assert card(corruptions=bad).source.worst[0] != "blur 5"


def test_easy_limits_let_it_pass_and_each_limit_alone_can_stop_it():
    assert card(limits=EASY).deploy and card(limits=EASY).verdict.startswith("Yes")
    hard = {"auroc": 1, "recall": 1, "ece": 0, "sensitivity": 1, "slack": 0, "worst": 1, "harm": 0}
    for index, (name, value) in enumerate(hard.items()):
        made = card(limits=Limits(**(vars(EASY) | {name: value})))
        broken = [check.rule for check in made.checks if not check.passed]
        assert len(broken) == 1 and not made.deploy and "No: 1 of 7" in made.verdict, name
        place = [0, 1, 2, 3, 3, 4, 6][index]
        assert broken[0] == made.checks[place].rule


def test_one_answer_for_all_is_called_a_collapse():
    collapsed = np.tile([0.4, 0.6], (200, 1))
    made = report_card(LABELS, collapsed, GOOD, **(ALL | {"limits": Limits(**(vars(EASY) | {"entropy": 0.5}))}))
    assert [check.rule.split(":")[0] for check in made.checks if not check.passed] == ["It has not collapsed"]


def test_rules_state_their_limits_in_words():
    made = card(limits=Limits(auroc=0.91, harm=0.033))
    assert "at least 0.91" in made.checks[0].rule and "at most 0.033" in made.checks[-1].rule
    text = made.markdown()
    assert made.verdict in text and all(check.rule in text for check in made.checks)
    assert "| recall of pneumonia |" in text and made.change.sentence in text


def test_without_adaptation_there_is_one_column_and_no_harm_rule():
    made = report_card(LABELS, GOOD, **(ALL | {"val_before": None}))
    assert len(made.checks) == 6 and len(made.heading()) == 2 and made.change is None
    assert {len(row) for row in made.table()} == {2}


def test_what_cannot_be_computed_does_not_pass_and_says_why():
    made = report_card(np.zeros(50, int), GOOD[:50], n_boot=50, limits=EASY)
    assert isinstance(made.numbers.auroc, Undefined) and isinstance(made.numbers.recall[1], Undefined)
    found = {check.found for check in made.checks if not check.passed}
    words = ("positives and negatives", "no image of class 1", "none were given", "neither groups")
    assert len(found) == 4 and all(any(word in text for text in found) for word in words)
    report_card_figure(made)


def test_more_than_two_classes_need_the_name_of_the_one_to_detect():
    labels, val = RNG.integers(0, 4, 120), RNG.integers(0, 4, 80)
    options = {"val_labels": val, "val_after": answers(val, 0.5, 4), "n_boot": 50}
    without = report_card(labels, answers(labels, 0.5, 4), **options)
    assert "positive=k" in without.numbers.operating.sensitivity.reason
    named = report_card(labels, answers(labels, 0.5, 4), positive=2, **options)
    assert 0 <= named.numbers.operating.sensitivity <= 1 and len(named.numbers.recall) == 4


def test_patients_widen_the_interval():
    twice, patients = np.repeat(LABELS, 2), np.repeat(np.arange(200), 2)
    options = {"n_boot": 200, "clusters": patients}
    wide = report_card(twice, np.repeat(GOOD, 2, 0), **options).numbers.balanced_accuracy
    narrow = report_card(twice, np.repeat(GOOD, 2, 0), n_boot=200).numbers.balanced_accuracy
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()


def test_streamed_answers_come_back_in_the_order_of_the_images(network):
    x = torch.rand(30, 1, 8, 8)
    with torch.no_grad():
        plain = network(x).softmax(1).numpy()
    np.testing.assert_allclose(stream_answers(Source, network, x, batch_size=7, seed=3), plain, atol=1e-6)


def test_a_card_from_streams(network):
    x, y = torch.rand(40, 1, 8, 8), np.arange(40) % 2
    about = {"shift": "contrast 2", "n_boot": 50, "limits": EASY}
    made = report_card_of(BatchNormAdapt, network, (x, y), (x, y), others={"blur 2": (x, y)}, **about)
    assert made.source is not None and made.numbers.worst[0] in ("contrast 2", "blur 2") and made.images == 40
    source = report_card_of(Source, network, (x, y), (x, y), **about)
    assert source.source is None and source.numbers.auroc == made.source.auroc


@pytest.mark.parametrize("num_classes", [2, 11])
def test_the_page_is_one_figure_that_says_everything(num_classes):
    labels = np.arange(110) % num_classes
    made = report_card(labels, answers(labels, 0.5, num_classes), answers(labels, 0.2, num_classes), n_boot=50)
    figure = report_card_figure(made)
    kind, content = figure.encoded()
    assert kind == "image/png" and len(content) < 130_000 and figure.get_figheight() < 14
    words = " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    assert made.verdict in words and words.count("pass") + words.count("FAIL") >= len(made.checks)
    for check in made.checks:
        assert check.rule[:40] in words
