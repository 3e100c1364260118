"""Wrong answers to the exercises of lesson 09_evaluating_under_shift: the mistakes that students really make."""

import math

import numpy as np

from seminar_utils.evaluation.calibration import adaptive_calibration_error


def ece(confidence=lambda p, y: p.max(1), index=None, weigh=True, gap=abs, middle=False, right=None):
    """The calibration error with one bad habit."""

    def expected_calibration_error(probs, labels, bins):
        sure = confidence(probs, labels)
        correct = (probs.argmax(1) == labels).astype(float) if right is None else right(probs, labels)
        where = np.ceil(sure * bins).astype(int) - 1 if index is None else index(sure, bins)
        gaps, shares = [], []
        for b in np.unique(where):
            inside = where == b
            said = (b + 0.5) / bins if middle else sure[inside].mean()
            gaps.append(gap(said - correct[inside].mean()))
            shares.append(inside.mean() if weigh else 1 / len(np.unique(where)))
        return float(np.dot(gaps, shares))

    return expected_calibration_error


def overall_gap(probs, labels, bins):
    return float(abs(probs.max(1).mean() - (probs.argmax(1) == labels).mean()))


def empty_bins_count(probs, labels, bins):
    unweighted = ece(weigh=False)(probs, labels, bins)
    used = len(np.unique(np.ceil(probs.max(1) * bins)))
    return unweighted * used / bins


def floor_without_care(probs, labels, bins):
    sure, correct = probs.max(1), probs.argmax(1) == labels
    where = (sure * bins).astype(int)
    found = 0.0
    for b in range(bins):  # a certain answer falls out of the last bin
        inside = where == b
        if inside.any():
            found += inside.mean() * abs(sure[inside].mean() - correct[inside].mean())
    return float(found)


def point(quantile=None, use="val", above=np.greater, whose=0, keep=math.ceil):
    """The operating point with one bad habit."""

    def operating_point(val_labels, val_scores, labels, scores, specificity):
        y, s = (val_labels, val_scores) if use == "val" else (labels, scores)
        pool = np.sort(s if whose is None else s[y == whose])
        if quantile is None:
            t = pool[max(0, keep(specificity * len(pool) - 1e-9) - 1)]
        else:
            t = np.quantile(pool, specificity, method=quantile)
        called = above(scores, t)
        return float(called[labels == 1].mean()), float((~called[labels == 0]).mean())

    return operating_point


def promised_specificity(val_labels, val_scores, labels, scores, specificity):
    sensitivity, _ = point()(val_labels, val_scores, labels, scores, specificity)
    return sensitivity, specificity


def validation_rates(val_labels, val_scores, labels, scores, specificity):
    return point()(val_labels, val_scores, val_labels, val_scores, specificity)


def precision_for_sensitivity(val_labels, val_scores, labels, scores, specificity):
    healthy = np.sort(val_scores[val_labels == 0])
    called = scores > healthy[math.ceil(specificity * len(healthy) - 1e-9) - 1]
    return float(labels[called].mean()), float((~called[labels == 0]).mean())


def swapped(val_labels, val_scores, labels, scores, specificity):
    return point()(val_labels, val_scores, labels, scores, specificity)[::-1]


def rounded_shares(count, shares):
    return np.repeat(np.arange(len(shares)), np.round(shares * count).astype(int))


def rest_to_the_last(count, shares):
    whole = np.floor(shares * count).astype(int)
    whole[-1] += count - whole.sum()
    return np.repeat(np.arange(len(shares)), whole)


def drawn_at_random(count, shares):
    return np.sort(np.random.default_rng(0).choice(len(shares), count, p=shares))


def one_row_a_patient(patients, drawn):
    return np.array([np.flatnonzero(patients == patient)[0] for patient in drawn])


def images_not_patients(patients, drawn):
    return np.random.default_rng(0).integers(0, len(patients), len(patients))


def adjusted(multiply, running=True, clip=True, back=True):
    """Sorted p-values times something, with one bad habit."""

    def holm(p):
        order = np.argsort(p)
        steps = multiply(np.arange(len(p)), len(p)) * p[order]
        steps = np.maximum.accumulate(steps) if running else steps
        steps = np.minimum(steps, 1) if clip else steps
        if not back:
            return steps
        out = np.empty(len(p))
        out[order] = steps
        return out

    return holm


def benjamini_hochberg(p):
    order, m = np.argsort(p), len(p)
    steps = np.minimum.accumulate((p[order] * m / np.arange(1, m + 1))[::-1])[::-1]
    out = np.empty(m)
    out[order] = np.minimum(steps, 1)
    return out


def holm_by_hand(p):
    m, out, worst = len(p), np.zeros(len(p)), 0.0
    for rank, place in enumerate(sorted(range(m), key=lambda i: p[i])):
        worst = max(worst, (m - rank) * p[place])
        out[place] = min(1.0, worst)
    return out


WRONG = {
    "eval.ece": {
        "probability of the label for confidence": ece(confidence=lambda p, y: p[np.arange(len(y)), y]),
        "probability of class 1 for confidence": ece(confidence=lambda p, y: p[:, 1]),
        "label for correctness": ece(right=lambda p, y: (y == 1).astype(float)),
        "bins not weighted": ece(weigh=False),
        "empty bins count": empty_bins_count,
        "gaps with a sign": ece(gap=lambda g: g),
        "squared gaps": ece(gap=lambda g: g * g),
        "one bin for all": overall_gap,
        "the middle of the bin for confidence": ece(middle=True),
        "edge goes up": ece(index=lambda c, m: np.minimum((c * m).astype(int), m - 1)),
        "certain answers fall out": floor_without_care,
        "equal-mass bins": lambda p, y, bins: adaptive_calibration_error(p, y, bins),
        "always 15 bins": lambda p, y, bins: ece()(p, y, 15),
        "per cent": lambda p, y, bins: 100 * ece()(p, y, bins),
    },
    "eval.operating_point": {
        "threshold from the test": point(use="test"),
        "the threshold itself is called ill": point(above=np.greater_equal),
        "quantile of the ill": point(whose=1),
        "quantile of everybody": point(whose=None),
        "interpolated quantile": point(quantile="linear"),
        "rounded down": point(keep=math.floor),
        "rounded": point(keep=round),
        "the specificity that was asked for": promised_specificity,
        "rates on validation": validation_rates,
        "precision for sensitivity": precision_for_sensitivity,
        "swapped": swapped,
    },
    "eval.deal_out": {
        "each share rounded": rounded_shares,
        "the rest to the last stretch": rest_to_the_last,
        "drawn at random": drawn_at_random,
        "left end of the place": lambda n, s: np.searchsorted(np.cumsum(s), np.arange(n) / n),
        "right end of the place": lambda n, s: np.searchsorted(np.cumsum(s) + 1e-9, (np.arange(n) + 1) / n),
        "ties go to the next stretch": lambda n, s: np.minimum(
            np.searchsorted(np.cumsum(s), (np.arange(n) + 0.5) / n, side="right"), len(s) - 1
        ),
        "shares not added up": lambda n, s: np.minimum(np.searchsorted(s, (np.arange(n) + 0.5) / n), len(s) - 1),
        "stretches counted from one": lambda n, s: 1 + np.searchsorted(np.cumsum(s), (np.arange(n) + 0.5) / n),
        "how many for who": lambda n, s: np.bincount(
            np.searchsorted(np.cumsum(s), (np.arange(n) + 0.5) / n), minlength=len(s)
        ),
    },
    "eval.draw_patients": {
        "twice counts once": lambda patients, drawn: np.flatnonzero(np.isin(patients, drawn)),
        "ids taken for rows": lambda patients, drawn: np.asarray(drawn),
        "one image a patient": one_row_a_patient,
        "images drawn": images_not_patients,
        "a mask": lambda patients, drawn: np.isin(patients, drawn),
        "ids returned": lambda patients, drawn: np.concatenate([patients[patients == i] for i in drawn]),
    },
    "eval.holm": {
        "no correction": lambda p: p.copy(),
        "Bonferroni": lambda p: np.minimum(p * len(p), 1),
        "no running maximum": adjusted(lambda i, m: m - i, running=False),
        "above one": adjusted(lambda i, m: m - i, clip=False),
        "left sorted": adjusted(lambda i, m: m - i, back=False),
        "largest first": adjusted(lambda i, m: i + 1),
        "one rival too few": adjusted(lambda i, m: np.maximum(m - i - 1, 1)),
        "Benjamini-Hochberg": benjamini_hochberg,
        "one rival too many": adjusted(lambda i, m: m - i + 1),
        "verdicts for p-values": lambda p: p < 0.05 / len(p),
    },
}

RIGHT = {
    "eval.ece": ece(),
    "eval.operating_point": point(quantile="inverted_cdf"),
    "eval.deal_out": lambda n, s: [int((np.cumsum(s) < (j + 0.5) / n).sum()) for j in range(n)],
    "eval.draw_patients": lambda patients, drawn: [i for d in drawn for i, q in enumerate(patients) if q == d],
    "eval.holm": holm_by_hand,
}
