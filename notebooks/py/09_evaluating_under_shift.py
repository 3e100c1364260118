# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,slideshow,notes,-all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] slideshow={"slide_type": "slide"}
# # 09 · Evaluating under shift: four ways to fool yourself
#
# **Papers.** No single one. Zhao et al. 2023, *On Pitfalls of Test-Time Adaptation*,
# [arXiv 2306.03536](https://arxiv.org/abs/2306.03536) (who chose the settings?); Guo et al. 2017, *On Calibration of
# Modern Neural Networks*, [arXiv 1706.04599](https://arxiv.org/abs/1706.04599) (ECE); Gong et al. 2022, *NOTE*,
# [arXiv 2208.05117](https://arxiv.org/abs/2208.05117), and Yuan et al. 2023, *RoTTA*,
# [arXiv 2303.13899](https://arxiv.org/abs/2303.13899) (correlated streams).
#
# **You will be able to**
# 1. write a calibration error, a bootstrap over patients and a correlated stream, and prove that they equal a library's;
# 2. show with one number each how test labels, a wrong loader, prevalence and a single seed turn a verdict round;
# 3. say what an interval covers and what it does not, and correct for many comparisons;
# 4. tell a real shift from a bug, on data of two laboratories;
# 5. read a clinical report card, and say at which severity you would no longer deploy.
#
# **Needs** [00_start_here](00_start_here.ipynb) (balanced accuracy, a first interval). Three methods are only *used* here:
# **source** is the trained network as it is; **BN** is the same network, but every BatchNorm layer takes mean and variance
# of the batch at hand instead of those it remembers. **Tent** (part 5) is BN with one gradient step a batch that makes the
# answers surer; its learning rate says how long the step is. Lesson [11_tent](11_tent.ipynb) explains both.
# Data and networks ship with the course; no network connection, no GPU.
#
# **Time** about 75 minutes to read and do; the cells take
# <!-- minutes -->about 3 minutes to run (cpu profile)<!-- /minutes --> on a laptop.

# %%
import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy import stats
from skimage.filters import threshold_otsu
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve
from torch import nn

from seminar_utils import (
    by_profile, create_model, exercise, load, load_checkpoint, profile, progress, quiz, seed_everything, set_threads,
)
from seminar_utils.adaptation import BatchNormAdapt, Source, Tent
from seminar_utils.checkpoints import checkpoint_card
from seminar_utils.data.real_shift import real_shift
from seminar_utils.evaluation.calibration import expected_calibration_error, reliability_bins
from seminar_utils.evaluation.differences import are_real, holm, is_real
from seminar_utils.evaluation.intervals import bootstrap_interval, paired_difference, seed_interval
from seminar_utils.evaluation.label_shift import resample_prevalence
from seminar_utils.evaluation.measure import by_method, gain, live_or_stored, measure, summarise
from seminar_utils.evaluation.metrics import accuracy, balanced_accuracy, per_class_recall
from seminar_utils.evaluation.orders import ORDERS
from seminar_utils.evaluation.ranking import auroc, sensitivity_at_specificity
from seminar_utils.evaluation.report import stream_answers
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.segmentation import dice
from seminar_utils.evaluation.selection import select, selection_report
from seminar_utils.evaluation.shifts import SEVERITIES, apply_shift, shift_distance
from seminar_utils.pretraining.supervised import TrainConfig, fit
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import figures, widgets

# The one place where sizes are set. SEMINAR_PROFILE=smoke|cpu|gpu chooses the row.
SIZE = by_profile(
    smoke=dict(images=128, seeds=(0, 1), boot=100, trials=40, patients=60, block=48, blocks=2, clinics=2, ward=96, choose=48,
               answers=128, card=96, severities=(0, 1, 4), real=96, cells=1),
    cpu=dict(images=320, seeds=(0, 1, 2), boot=400, trials=300, patients=400, block=96, blocks=10, clinics=6, ward=400,
             choose=128, answers=640, card=400, severities=(0, 1, 2, 3, 4, 5), real=624, cells=12),
    gpu=dict(images=2000, seeds=(0, 1, 2), boot=1000, trials=1000, patients=1000, block=96, blocks=20, clinics=6, ward=430,
             choose=500, answers=2000, card=2000, severities=(0, 1, 2, 3, 4, 5), real=624, cells=30),
)
seed_everything(0)
set_threads(1)  # small batches on a small network: a second thread waits more than it works
figures.use_course_style()
store = ResultsStore()
print("profile:", profile())

# %% [markdown] slideshow={"slide_type": "slide"} notes="Let the class vote: which of the two lower rows is a new scanner? Do not resolve it before part 6."
# ## 1 · The question, in a picture
#
# Three networks were trained on scanners A and B (phantoms: images drawn by a program, six classes of lesion). Below, the
# same six patients in three rows. In the first row the network is right. In the two others it is often wrong, and
# mostly sure of it. **One of these rows is a new scanner. The other is a mistake in one line of the loader. Which is which?**

# %%
models = {seed: load_checkpoint(f"resnet_small-phantoms-s{seed}") for seed in SIZE["seeds"]}
model = models[0]
STRENGTH = 0.7  # the dial of scanner C: 0 is scanner A, 1 is scanner C


def patients(n, scanner="A", strength=1.0, split="test"):
    """The same patients on some scanner: images (n, 1, 32, 32) in [0, 1], labels (n,)."""
    return load("phantoms", split, n=n, scanner=scanner, strength=strength).torch(size=32)


x_home, labels = patients(SIZE["images"])
x_new, _ = patients(SIZE["images"], "C", STRENGTH)
class_names = load("phantoms", "test", n=8).class_names


def halved(x):
    """12-bit pixels divided by the wrong maximum: everything at half its brightness."""
    return x / 2


def say(x):
    """Answer and confidence of one network for each image, with a mark where it is wrong."""
    with torch.no_grad():
        confidence, k = model(x).softmax(1).max(1)
    marks = ["" if right else " WRONG" for right in (k == labels[: len(x)]).tolist()]
    return [f"{class_names[i]}\n{c:.0%} sure{m}" for i, c, m in zip(k.tolist(), confidence.tolist(), marks)]


rows = [x_home[:6], halved(x_home[:6]), x_new[:6]]
figures.image_grid(torch.cat(rows), titles=[title for row in rows for title in say(row)], columns=6,
                   heading="six patients three times: as in training, and twice 'shifted'")


# %% [markdown] slideshow={"slide_type": "subslide"}
# A method that "adapts" improves both lower rows (parts 6 and 8). In one of them the gain is a fact about a scanner, in the other
# it is a fact about a division. A benchmark that cannot tell them apart is worth nothing, and **most of what can go wrong
# in an evaluation looks just like success.** This lesson shows four such ways. Each comes with *one number that changes
# its sign*, or comes down to nothing, when the evaluation is done properly:
#
# | you fool yourself by | the question you forgot |
# |---|---|
# | choosing settings with the test labels | who chose, and what did they look at? (part 5) |
# | taking wrong preprocessing for a shift | does the pipeline give the old result on the old scanner? (part 6) |
# | taking prevalence for skill | which patients came? (part 7) |
# | reporting one seed without an interval | would it happen again? (part 8) |
#
# First the tools: what to measure, on which stream of patients, and how sure one may be.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2 · What to measure: ranks, thresholds, confidence
#
# Three questions, three kinds of numbers. *Does it rank the ill above the healthy?* AUROC: the chance that a random ill
# patient scores above a random healthy one; it knows no threshold. *Does it decide well?* Sensitivity and specificity at a
# threshold **that somebody fixed before**. *May I believe its 90%?* Calibration.
#
# The expected calibration error (Guo et al., eq. 3): sort the answers into $M$ bins by confidence; in bin $B_m$ compare
# the mean confidence with the share of right answers, and average over the bins by their size:
#
# $$\mathrm{ECE} = \sum_{m=1}^{M} \frac{|B_m|}{n}\,\bigl|\mathrm{acc}(B_m) - \mathrm{conf}(B_m)\bigr|.$$
#
# By hand: four answers with confidence 0.9, of which two are right, and one with confidence 0.6, which is right. In ten
# bins: $\frac45\,|0.5 - 0.9| + \frac15\,|1 - 0.6| = 0.40$.
#
# **Exercise `eval.ece`** (difficulty 1, 8 minutes). Bins of equal width in $(0, 1]$; a confidence on an edge belongs to
# the bin below it.

# %%
def ece(probs, labels, bins):
    """Expected calibration error: probs (N, K), labels (N,) -> one number in [0, 1]."""
    raise NotImplementedError


ece = exercise("eval.ece", ece)

# %% tags=["nbval-check-output"]
five = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]])
print(f"the five answers from above: ECE {ece(five, np.array([0, 0, 1, 1, 0]), 10):.2f}")

# %%
probs_home, probs_new = (stream_answers(Source, model, x) for x in (x_home, x_new))
figure, axes = plt.subplots(1, 2, figsize=(10, 4.3), sharey=True)
for ax, probs, title in zip(axes, (probs_home, probs_new), ("scanner A", f"scanner C at {STRENGTH}")):
    figures.reliability_diagram(reliability_bins(probs, labels), title=title, ax=ax)
plt.show()

honest = stream_answers(BatchNormAdapt, model, x_new)  # (N, 6); each label below is drawn from its own row
drawn = (np.random.default_rng(0).random((len(honest), 1)) > honest.cumsum(1)[:, :-1]).sum(1)
for bins in (5, 15, 50):
    print(f"{bins:2d} bins: ECE of the source model on scanner C {ece(probs_new, labels.numpy(), bins):.3f}; of answers calibrated "
          f"by construction {ece(honest[:100], drawn[:100], bins):.3f} (100 patients), {ece(honest, drawn, bins):.3f} ({len(drawn)})")


# %% [markdown] slideshow={"slide_type": "subslide"}
# On the new scanner the network is much surer than it is right. It errs to the same side in nearly every bin, so its ECE
# hardly depends on how many bins there are. That is a special case. The other two columns belong to answers whose labels
# were drawn from their own probabilities: their true error is zero. Their ECE is not, and it grows with the bins and with
# fewer patients, since each bin's share of right answers wobbles. **State the bins and the number of patients, or an ECE
# means little.**
#
# Next, the threshold. A clinic wants at most one of ten *healthy* patients called ill, a specificity of 0.9. The threshold that gives it is
# fixed on **validation** patients, and then it stays.
#
# **Exercise `eval.operating_point`** (difficulty 2, 10 minutes). A patient is called ill when the score is *above* the
# threshold. Take the lowest validation score of a healthy patient that keeps at least the wanted share of the healthy
# validation patients at or under it. Return sensitivity and specificity on the test patients.

# %%
def operating_point(val_labels, val_scores, labels, scores, specificity):
    """(sensitivity, specificity) on test patients, labels 0 / 1, at a threshold fixed on validation patients."""
    raise NotImplementedError


operating_point = exercise("eval.operating_point", operating_point)

# %%
LARGE = (4, 5)  # the classes with a large lesion: the patients we want to find


def is_large(y):
    """1 where the lesion is large, else 0."""
    return np.isin(np.asarray(y), LARGE).astype(int)


x_val, y_val = patients(SIZE["images"], scanner="AB", split="val")
score_val, score_home, score_new = (p[:, LARGE].sum(1) for p in (stream_answers(Source, model, x_val), probs_home, probs_new))
print("asked for on validation (scanners A and B): specificity 0.90")
for where, scores in (("scanner A", score_home), (f"scanner C at {STRENGTH}", score_new)):
    sensitivity, specificity = operating_point(is_large(y_val), score_val, is_large(labels), scores, 0.9)
    ranks = auroc(is_large(labels), scores)
    print(f"{where:19s} AUROC {ranks:.2f}; at that threshold: sensitivity {sensitivity:.2f}, specificity {specificity:.2f}")

# %% [markdown]
# Compare the two lines. The ranks suffer less than the decisions: all scores have moved, the threshold has not. (A threshold
# chosen on the new test labels would hide it: that is the first way to fool yourself, in miniature.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3 · On what: shifts and streams
#
# **Shifts.** `evaluation/shifts.py` has shifts from the physics of X-ray, MR, CT, ultrasound, stain, fundus and archive,
# each with five severities and one seeded draw per image. **They are ours. They are not the published corruption suite for
# MedMNIST (MedMNIST-C, Di Salvo et al. 2024)**: that suite gives each data set its own kinds, and its severities need not
# grow. Severity 3 of ours is no severity 3 of theirs; never compare numbers across the two.
#
# What we ask of ours is tested: more severity, further from the original image.

# %%
SHOWN = ("exposure", "gamma", "poisson_noise", "blur")
shifted = {(name, s): apply_shift(x_home[:48], name, s) for name in SHOWN for s in SEVERITIES}
moved = {name: [shift_distance(x_home[:48], shifted[name, s]).mean().item() for s in SEVERITIES] for name in SHOWN}
figures.lines_with_intervals(SEVERITIES, {name.replace("_", " "): values for name, values in moved.items()},
                             xlabel="severity", ylabel="distance from the original", title="four of our X-ray shifts")

# %% tags=["nbval-check-output"]
grows = {name: bool((np.diff(values) > 0).all()) for name, values in moved.items()}
print("each step goes further:", grows)
alone = apply_shift(x_home[5:6], "poisson_noise", 3, index=[5])
print("image 5 alone = image 5 in the batch:", torch.equal(alone[0], shifted["poisson_noise", 3][5]))


# %% [markdown] slideshow={"slide_type": "subslide"}
# **Streams.** Patients do not come in random order. A ward fills with one disease, an epidemic comes and goes. NOTE and
# RoTTA imitate it: time is cut into $T$ stretches, and each class $k$ is dealt out over them in shares drawn from a
# Dirichlet law (NOTE, section 4), $q_k \sim \mathrm{Dir}(\delta, \dots, \delta)$. A small $\delta$ puts a class into few
# stretches; a large one gives nearly equal shares, a random order.
#
# **Exercise `eval.deal_out`** (difficulty 2, 10 minutes). One class, `count` patients, shares of $T$ stretches. Shares are
# not whole patients, and rounding each would lose some. So: patient $j$ stands at $(j + \frac12)/\text{count}$ of his class
# and comes in the first stretch whose end, the sum of all shares so far, lies at or beyond that place. (Three patients,
# shares one half and one half: places 1/6, 1/2, 5/6, so stretches 0, 0, 1.)

# %%
def deal_out(count, shares):
    """Number of the stretch, 0 .. T-1, in which each of the patients comes: shares (T,) -> integers (count,)."""
    raise NotImplementedError


deal_out = exercise("eval.deal_out", deal_out)


# %% [markdown]
# The whole stream, then, in eight lines:

# %%
def dirichlet_order(labels, seed, delta=0.1, stretches=100):
    """Indices (N,) of all patients in a correlated order."""
    rng = np.random.default_rng(seed)
    stretch = np.empty(len(labels), dtype=int)  # (N,)
    for k in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == k))
        stretch[of_class] = deal_out(len(of_class), rng.dirichlet(np.full(stretches, delta)))
    return np.lexsort((rng.random(len(labels)), stretch))  # by stretch, at random within one


many = load("phantoms", "test", n=960, task="size_tone").labels  # (960,)
orders = {"i.i.d.": ORDERS["iid"](many, 0), "delta 10": dirichlet_order(many, 0, 10.0), "delta 0.1": dirichlet_order(many, 0),
          "by class": ORDERS["class"](many, 0)}
figure, axes = plt.subplots(len(orders), 1, figsize=(10, 3.4), sharex=True)
for ax, (name, order) in zip(axes, orders.items()):
    ax.imshow(many[order][None], aspect="auto", cmap="viridis", interpolation="nearest")
    ax.set_yticks([])
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
    ax.grid(False)
axes[-1].set_xlabel("patient (colour: class)")
plt.show()

# %% [markdown]
# Is that a detail? The same networks, the same patients, the same scanner, in three orders. The source model does not care;
# BN takes each batch of 64 patients for the world.
#
# The intervals here are over **three training seeds**: the mean plus and minus 4.3 standard errors (Student's t with two
# degrees of freedom). They know how networks differ that were trained alike; they know nothing of other patients (part 4).
# With two seeds, as in the smoke profile, such an interval says nothing.

# %%
METHODS = {"source": Source, "BN": BatchNormAdapt}
x_mid, y_mid = patients(SIZE["answers"], "C", 0.5)
about = {"data": "phantoms", "scanner": "C", "strength": 0.5}
in_order = {order: measure("eval.order", METHODS, models, x_mid, y_mid, order=order, params=about)
            for order in ("iid", "dirichlet", "class")}


def points(interval):
    """A difference in percentage points with its interval."""
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}] points"


random_order = by_method(in_order["iid"])["BN"]
for order, rows in in_order.items():
    here = by_method(rows)["BN"]
    lost = paired_difference([random_order[s] for s in models], [here[s] for s in models])
    print(f"{order:10s} BN - source {points(gain(rows, 'source', 'BN'))};   BN against itself in random order {points(lost)}")


# %% [markdown]
# So the order belongs to the result as much as the data do. In random order BN's mean lies above the source model's, though
# three seeds do not settle it; on sorted patients it lies far below; the Dirichlet stream is between. The first column has wide intervals, because the *source* networks of the
# three seeds differ so much on this scanner. The second one compares each network with itself: what the order alone costs
# is found with three seeds. Choose the comparison that answers your question. Lesson 11 takes the cause apart.

# %% [markdown] slideshow={"slide_type": "slide"} notes="Ask: I have six X-rays each of forty people. How many independent observations are that?"
# ## 4 · How sure: a bootstrap from scratch
#
# Another forty patients would have given another number. The bootstrap (Efron and Tibshirani 1993) asks how much it would
# move: draw as many **units** as there are, with replacement, compute the number again, many times; the interval runs from
# the 2.5% to the 97.5% quantile. The whole art is in one word: *what is a unit?* What is independent. Six images of one
# patient are not six patients.
#
# **Exercise `eval.draw_patients`** (difficulty 2, 8 minutes). From the ids of the drawn patients (with repeats) to the rows
# of their images.

# %%
def draw_patients(patients, drawn):
    """Rows (M,) of all images of the drawn patients: patients (N,) says whose each row is; drawn (P,) holds ids."""
    raise NotImplementedError


draw_patients = exercise("eval.draw_patients", draw_patients)


# %%
def bootstrap(values, units, n_boot, seed):
    """95% percentile interval (low, high) of the mean of values (N,), drawing whole units (N,)."""
    names = np.unique(units)
    drawn = names[np.random.default_rng(seed).integers(0, len(names), (n_boot, len(names)))]  # (n_boot, P)
    means = [values[draw_patients(units, ids)].mean() for ids in drawn]
    return np.quantile(means, [0.025, 0.975])


VISITS = 6  # each patient was seen six times, each time with another exposure
x_seen, y_seen = patients(SIZE["patients"], "C", 0.35)
visits = [stream_answers(Source, model, apply_shift(x_seen, "exposure", 1, seed=v)).argmax(1) for v in range(VISITS)]
right = np.stack([answers == y_seen.numpy() for answers in visits], axis=1)  # (patients, visits)

few = right[:40]
whose = np.repeat(np.arange(len(few)), VISITS)  # (240,): the patient of each image
print(f"{few.size} images of {len(few)} patients, accuracy {few.mean():.3f}")
for unit, ids in (("images", np.arange(few.size)), ("patients", whose)):
    low, high = bootstrap(few.ravel(), ids, SIZE["boot"], 0)
    print(f"  drawing {unit:9s} [{low:.3f}, {high:.3f}]")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Which of the two is right can be *tested*, since here we own the hospital: draw forty patients from all of them, make both
# intervals, and see how often each contains the accuracy over everybody. It promised 95 in 100.

# %%
rng, truth, hits = np.random.default_rng(0), right.mean(), {"images": 0, "patients": 0}
for _ in range(SIZE["trials"]):
    sample = right[rng.choice(len(right), 40, replace=False)].astype(float)  # (40, visits)
    draws = {"images": sample.ravel()[rng.integers(0, sample.size, (SIZE["boot"], sample.size))].mean(1),
             "patients": sample.mean(1)[rng.integers(0, 40, (SIZE["boot"], 40))].mean(1)}
    for unit, means in draws.items():
        low, high = np.quantile(means, [0.025, 0.975])
        hits[unit] += low <= truth <= high
for unit, count in hits.items():
    print(f"intervals that draw {unit:9s} contain the truth in {count / SIZE['trials']:.0%} of {SIZE['trials']} trials")

# %% [markdown]
# Drawing images promises 95% and keeps far less: the six visits repeat each other. Drawing patients comes close (with forty
# patients and an accuracy near one, the percentile interval is still a little short; `method="bca"` corrects some of it).
# In the package it is one argument, `clusters=patient_ids`.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The parity cell.** What you built, the package, and scipy or scikit-learn must agree. scikit-learn has no ECE but its
# bins: `calibration_curve` gives confidence and accuracy of each bin that is not empty.

# %% tags=["nbval-check-output"]
y = labels.numpy()
sure, correct = probs_new.max(1), (probs_new.argmax(1) == y).astype(float)
share, said = calibration_curve(correct, sure, n_bins=15, strategy="uniform")
inside = np.bincount(np.searchsorted(np.linspace(0, 1, 16)[1:-1], sure), minlength=15)
by_sklearn = (inside[inside > 0] * np.abs(share - said)).sum() / len(y)
ece_gap = max(abs(ece(probs_new, y, 15) - other) for other in (expected_calibration_error(probs_new, y), by_sklearn))
print("ECE: notebook = package = scikit-learn's bins:", ece_gap < 1e-12)

ours = bootstrap(correct, np.arange(len(correct)), SIZE["boot"], 0)
package = bootstrap_interval(correct, statistic=np.mean, n_boot=SIZE["boot"], seed=0)
by_scipy = stats.bootstrap((correct,), np.mean, n_resamples=SIZE["boot"], method="percentile", rng=np.random.default_rng(0))
bounds = np.array([[package.low, package.high], by_scipy.confidence_interval])
boot_gap = np.abs(ours - bounds).max()
print("bootstrap over images: notebook = package = scipy:", boot_gap < 1e-12)
ours = bootstrap(few.ravel(), whose, SIZE["boot"], 0)
package = bootstrap_interval(few.ravel(), statistic=np.mean, n_boot=SIZE["boot"], seed=0, clusters=whose)
patient_gap = np.abs(ours - np.array([package.low, package.high])).max()
print("bootstrap over patients: notebook = package:", patient_gap < 1e-12)

same = [np.array_equal(dirichlet_order(many, seed), ORDERS["dirichlet"](many, seed)) for seed in range(5)]
print("Dirichlet stream: notebook = package, order for order, five seeds:", all(same))

point = operating_point(is_large(y_val), score_val, is_large(y), score_new, 0.9)
found = sensitivity_at_specificity(is_large(y_val), score_val, is_large(y), score_new, 0.9)
false_alarms, true_alarms, cuts = roc_curve(is_large(y), score_new, drop_intermediate=False)
place = np.flatnonzero(cuts > found.threshold)[-1]  # scikit-learn calls ill at or above its cut
others = [(found.sensitivity, found.specificity), (true_alarms[place], 1 - false_alarms[place])]
point_gap = np.abs(np.array(point) - others).max()
print("operating point: notebook = package = a point of scikit-learn's ROC curve:", point_gap < 1e-12)

# %%
print("max |difference|:", ", ".join(f"{what} {gap:.1e}" for what, gap in (
    ("ECE", ece_gap), ("bootstrap", boot_gap), ("over patients", patient_gap), ("operating point", point_gap))))

# %% [markdown] slideshow={"slide_type": "slide"} notes="The commonest objection: 'but I only tried five'. Go back to the curve: five is enough."
# ## 5 · First way: the test labels chose
#
# "We tuned the learning rate." On what? Suppose $M$ settings are *equally good*, each right with probability 0.8, and the
# best on $n$ patients is reported. How good does it look? (No network here: binomial numbers.)

# %%
rng, tried = np.random.default_rng(0), np.array([1, 2, 5, 10, 20, 50])
looks = {f"{n} test patients": [rng.binomial(n, 0.8, (2000, m)).max(1).mean() / n for m in tried] for n in (50, 100, 500)}
figures.lines_with_intervals(tried, looks | {"the truth": [0.8] * len(tried)}, xlabel="settings that were tried",
                             ylabel="accuracy of the best one", title="luck, sold as tuning")

# %% [markdown]
# Real settings are neither independent nor equally good, so let us do it with Tent's learning rate: the published one, and
# four others. Each small hospital (a block of patients of its own on scanner C) lets its **test labels** choose, and reports
# the gain over the published setting. Then the same choice is used in *the other* hospitals, which had no say.

# %%
PUBLISHED = {"lr": 1e-3}
CANDIDATES = [PUBLISHED, {"lr": 1e-4}, {"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2}]
TENTS = {f"Tent {c['lr']:g}": (lambda m, c=c: Tent(m, **c)) for c in CANDIDATES}
x_pool, y_pool = patients(SIZE["block"] * SIZE["blocks"], "C", STRENGTH)
scores = {}  # (seed, block) -> learning rate -> balanced accuracy
for block in range(SIZE["blocks"]):
    here = slice(block * SIZE["block"], (block + 1) * SIZE["block"])
    rows = measure("eval.selection", {"BN": BatchNormAdapt, **TENTS}, models, x_pool[here], y_pool[here], batch_size=16,
                   params={"data": "phantoms", "scanner": "C", "strength": STRENGTH, "block": block})
    for method, by_seed in by_method(rows).items():
        for seed, value in by_seed.items():
            scores.setdefault((seed, block), {})[method] = value


def of(settings, seed, block):
    """The score of Tent with these settings in one hospital."""
    return scores[seed, block][f"Tent {settings['lr']:g}"]


own, elsewhere, chosen = {}, {}, []
for seed, block in scores:
    name = f"hospital {block}"
    choice = select("oracle", CANDIDATES, score=lambda c: of(c, seed, block), scored_on=name, tested_on=name)
    others = [b for b in range(SIZE["blocks"]) if b != block]
    own.setdefault(seed, []).append(of(choice.settings, seed, block) - of(PUBLISHED, seed, block))
    elsewhere.setdefault(seed, []).append(np.mean([of(choice.settings, seed, b) - of(PUBLISHED, seed, b) for b in others]))
    chosen.append(choice.settings["lr"])
print("learning rates that were chosen:", {lr: chosen.count(lr) for lr in sorted(set(chosen))})
selected = {"reported: on the patients\nwhose labels chose": seed_interval([np.mean(v) for v in own.values()]),
            "honest: the same choice\non other patients": seed_interval([np.mean(v) for v in elsewhere.values()])}
for what, interval in selected.items():
    print(f"{what.replace(chr(10), ' '):50s} {points(interval)}")
by_luck = paired_difference([np.mean(v) for v in elsewhere.values()], [np.mean(v) for v in own.values()])
print(f"{'the difference: what looking at the labels added':50s} {points(by_luck)}")


# %%
def gain_plot(ax, found, title):
    """Dots with intervals around zero, in points: the look of all four flips."""
    for place, interval in enumerate(found.values()):
        colour = figures.PALETTE[2] if interval.low > 0 else figures.PALETTE[1] if interval.high < 0 else "#777777"
        ax.plot([100 * interval.low, 100 * interval.high], [place, place], "-|", color=colour, markersize=12)
        ax.plot(100 * interval.mean, place, "o", color=colour, markersize=9)
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set_yticks(range(len(found)), found)
    ax.set(ylim=(len(found) - 0.5, -0.5), xlabel="gain in points", title=title)


figure, ax = plt.subplots(figsize=(8, 2.4))
gain_plot(ax, selected, "Tent's tuned learning rate against the published one")
plt.show()


# %% [markdown] slideshow={"slide_type": "subslide"}
# **The number that flips.** With the labels that chose, tuning wins. It *cannot* do otherwise: the published setting is
# among the candidates, and the maximum is never below one of its members. On patients who had no say the gain is gone and
# its middle lies on the other side (the interval, over seeds, says how far that may be trusted). Green: the interval lies above
# zero; red: below; grey: it holds both signs.
#
# Honest ways exist. The package knows four rules; `measure(..., selections=)` and the benchmark (part 12) write into each
# row which one chose, and the oracle never goes without its name. Here for one network, on fresh patients:

# %%
def tent_score(x, y):
    """settings -> balanced accuracy of Tent on these patients, batches of 16, one network."""
    return lambda settings: balanced_accuracy(y, stream_answers(lambda m: Tent(m, **settings), model, x, 16).argmax(1))


n = SIZE["choose"]
fresh_x, fresh_y = (part[-n:] for part in patients(2000, "C", STRENGTH))
home_x, home_y = x_val[:n], y_val[:n]
report = selection_report(CANDIDATES, PUBLISHED, {
    "source_validation": ("scanners A and B, validation", tent_score(home_x, home_y)),
    "held_out_shift": ("contrast 2", tent_score(apply_shift(home_x, "contrast", 2), home_y)),
    "oracle": (f"scanner C at {STRENGTH}", tent_score(fresh_x, fresh_y)),
})
print(report)


# %% [markdown]
# The last line, oracle minus default, is what tuning could win at the very most *on these patients*, luck included. With so
# few patients one of them is nearly a point: the four rules cannot be told apart here. A gain in
# a paper that only the oracle reaches is no gain. Two published methods that the course reads later let test labels stop the
# training (TTT++) or choose the checkpoint (DAPL) in their public code; the course says so where they appear.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6 · Second way: a bug, taken for a shift
#
# Back to the picture. The middle row was the bug: pixels at half their brightness. Here are five pipelines, the right one and
# four wrong ones, **all on scanner A, one of the two on which the networks were trained**, so that nothing has shifted:

# %%
def squashed(x):
    """Mean and deviation 0.5, as many networks want, but not these."""
    return (x - 0.5) / 0.5


def windowed(x):
    """Each image stretched to its own minimum and maximum, as MedSAM wants, but not these."""
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low)


x_small = load("phantoms", "test", n=SIZE["images"]).torch(size=28)[0]
PIPELINES = {"as in training": x_home, "half the brightness": halved(x_home), "mean and std 0.5": squashed(x_home),
             "own window": windowed(x_home), "28 pixels for 32": x_small}
loaded = {}
for name, x in PIPELINES.items():
    loaded[name] = measure("eval.preprocessing", METHODS, models, x, labels,
                           params={"data": "phantoms", "scanner": "A", "pipeline": name})
for name, rows in loaded.items():
    found = summarise(rows)
    print(f"{name:20s} source {found['source']}   BN {found['BN']}   BN - source {points(gain(rows, 'source', 'BN'))}")
figure, ax = plt.subplots(figsize=(8, 3.2))
gain_plot(ax, {name: gain(rows, "source", "BN") for name, rows in loaded.items()}, "what adaptation 'gains' on scanner A")
plt.show()

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The number that flips.** With a wrong loader adaptation "gains", up to dozens of points; with the right one there is
# nothing to gain (on X-rays, in part 11, it even loses). Batch statistics undo a wrong scale, so **adaptation looks best
# exactly where the pipeline is broken.** In a public ImageNet-C comparison a ViT that had been fed the wrong mean and
# deviation went from 29.9 to 51.1% accuracy when that was mended, without any adaptation (facts collected for this course).
#
# The check costs one line: *before you adapt, run the whole pipeline on the old scanner.* The checkpoint's card says what it
# expects, and what it reached:

# %%
card = checkpoint_card("resnet_small-phantoms-s0")
print("the card: input", card["input"], "| accuracy on its own test split", f"{card['metrics']['accuracy']:.3f}")
for name, x in PIPELINES.items():
    got = accuracy(labels, stream_answers(Source, model, x).argmax(1))
    print(f"{name:20s} shape {tuple(x.shape[1:])}, values {x.min():+.2f} to {x.max():+.2f}, accuracy here {got:.3f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7 · Third way: prevalence, taken for skill
#
# Six clinics with the same scanner C. In each, seven of ten patients have the same finding, another one in each clinic.
# Nothing else differs. Should they switch on BN? They look at the accuracy.

# %%
everyone = load("phantoms", "test", n=2000, scanner="C", strength=STRENGTH)
about, clinics = {"data": "phantoms", "scanner": "C", "strength": STRENGTH, "share": 0.7}, {}
for k in range(6)[-SIZE["clinics"]:]:
    shares = np.full(6, 0.3 / 5)
    shares[k] = 0.7
    ward = resample_prevalence(everyone, shares, n=SIZE["ward"], seed=0)
    x, y = ward.torch(size=32)
    clinics[class_names[k]] = measure("eval.prevalence", METHODS, models, x, y, params={**about, "clinic": class_names[k]})
by_metric = {metric: {name: gain(rows, "source", "BN", metric) for name, rows in clinics.items()}
             for metric in ("accuracy", "balanced_accuracy")}
for name in clinics:
    said = "   ".join(f"{metric.replace('_', ' ')} {points(found[name])}" for metric, found in by_metric.items())
    print(f"clinic of '{name}':".ljust(28) + said)
figure, axes = plt.subplots(1, 2, figsize=(13, 3.6), sharex=True, sharey=True)
for ax, (metric, found) in zip(axes, by_metric.items()):
    gain_plot(ax, found, f"BN - source, {metric.replace('_', ' ')}")
plt.show()

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The number that flips.** In accuracy, the answer depends on the clinic: some gain by BN, for one the loss is beyond
# doubt, and for others three seeds do not decide. Nothing about the networks changed, only who came. In balanced accuracy every dot lies on the
# same side (not every interval does: three seeds, and few patients of the rare classes).
#
# The reason is one formula. With recalls $r_k$ and prevalences $\pi_k$, $\;\text{accuracy} = \sum_k \pi_k\, r_k$. On this
# scanner the source model calls most lesions large. That is poor skill, and a splendid habit where most lesions *are*
# large. From its recalls on a balanced sample its accuracy in every clinic can be computed (the wards are drawn from the
# same pool of patients, so it should fit):

# %%
x, y = everyone.torch(size=32)
source_says = stream_answers(Source, model, x[: SIZE["answers"]]).argmax(1)
recalls = per_class_recall(y[: SIZE["answers"]], source_says, 6)
print("recall of each class:", dict(zip(class_names, recalls.round(2).tolist())))
print(f"called large: {np.isin(source_says, [k for k, name in enumerate(class_names) if 'large' in name]).mean():.0%} of all patients")
for name, rows in clinics.items():
    shares = np.where(np.array(class_names) == name, 0.7, 0.3 / 5)
    measured = by_method(rows, "accuracy")["source"][0]
    print(f"clinic of '{name}':".ljust(28) + f"computed {shares @ recalls:.2f}, measured {measured:.2f}")

# %% [markdown]
# So never compare accuracies (nor AUPRC, whose chance level is the prevalence, nor predictive values) across sites. Report
# the recall of each class; then every reader can put in the prevalence of their own ward. And mind the other direction:
# balanced accuracy is not what a ward experiences. If nine of ten patients are healthy, a false alarm rate of 10% means that
# about half of all alarms are false, even for a test that misses nobody.

# %% [markdown] slideshow={"slide_type": "slide"} notes="Show the first two lines only and ask who would publish. Then say what A, B and C are."
# ## 8 · Fourth way: one seed, no interval
#
# Recipe B is better than recipe A on the new scanner. The bootstrap over hundreds of patients is clear about it. So is the
# next line:

# %%
answers = {name: [stream_answers(build, m, x_mid).argmax(1) for m in models.values()]
           for name, build in {"source": Source, "BN": BatchNormAdapt, "Tent": lambda m: Tent(m, **PUBLISHED)}.items()}
letters = "ABC"[: len(models)]
pairs = [(i, (i + 1) % len(models)) for i in range(len(models))]
pairwise = {}
for i, j in pairs:
    difference = is_real(answers["source"][i], answers["source"][j], y_mid, n_boot=SIZE["boot"])
    pairwise[f"recipe {letters[j]}\nagainst {letters[i]}"] = difference.interval
    print(f"recipe {letters[j]} against recipe {letters[i]}: {difference}")
for i, seed in enumerate(models):
    at_home = accuracy(labels, stream_answers(Source, models[seed], x_home).argmax(1))
    here = [balanced_accuracy(y_mid, answers[name][i]) for name in ("source", "BN")]
    print(f"recipe {letters[i]}: accuracy at home {at_home:.3f}; on the new scanner source {here[0]:.3f}, BN {here[1]:.3f}")

# %% [markdown]
# The recipes are the same recipe. A, B and C are three training seeds of one network, trained alike to the last digit and
# equally good at home. Call one of them "old" and another "new", and you may report a gain or a loss, **the number that
# flips**, each with an interval that excludes zero. The true difference of the *recipes* is zero: the bootstrap over patients answered another question. It says that these two *networks* differ,
# for patients like these; it knows nothing about the next training.

# %%
for name in ("BN", "Tent"):
    both = is_real(answers["source"], answers[name], y_mid, seeds=True, n_boot=SIZE["boot"])
    print(f"{name} against source at 0.5, seeds and patients: {both}")
further = [[stream_answers(build, m, x_pool).argmax(1) for m in models.values()] for build in METHODS.values()]
print(f"BN against source at {STRENGTH}, seeds and patients: {is_real(*further, y_pool, seeds=True, n_boot=SIZE['boot'])}\n")
for seed, before, after in zip(models, answers["BN"], answers["Tent"]):
    print(f"Tent against BN, seed {seed}: {is_real(before, after, y_mid, n_boot=SIZE['boot'])}")
together = is_real(answers["BN"], answers["Tent"], y_mid, seeds=True, n_boot=SIZE["boot"])
print(f"Tent against BN, all seeds and patients: {together}")
signs = [np.sign(value["Tent 0.001"] - value["BN"]) for value in scores.values()]
print(f"\nof the {len(signs)} small hospitals of part 5 (each with each seed), Tent is above BN in {signs.count(1)}, "
      f"below in {signs.count(-1)}, equal in {signs.count(0)}")


# %% [markdown] slideshow={"slide_type": "subslide"}
# Read these lines slowly. *Resample what the claim is about*: patients for a claim about one network, seeds as well for a
# claim about a method. *Three seeds are few*: at 0.5 BN is above the source in each of them, but by so different amounts that
# the honest interval reaches past zero; at 0.7, where all gain much, it does not. And *one seed has some sign*: of Tent
# against BN a seed alone can say "yes, real" where all of them together say "not shown"; and among the small hospitals, most
# of which see no difference at all, one could have picked a better Tent as well as a worse one.
#
# **Many comparisons.** A useless method has a $p$ that is uniform in $(0, 1)$: one in twenty is below 0.05. Try twenty, and
# "one was significant". Holm's correction (1979): sort the $m$ values, multiply the smallest by $m$, the next by $m - 1$,
# and so on; none may fall below one before it, and none may exceed 1.
#
# **Exercise `eval.holm`** (difficulty 3, 12 minutes).

# %%
def holm_adjusted(p_values):
    """Holm's adjusted p-values, in the order given: (m,) -> (m,)."""
    raise NotImplementedError


holm_adjusted = exercise("eval.holm", holm_adjusted)

# %% tags=["nbval-check-output"]
p = np.random.default_rng(0).random((1000, 20))  # 1000 laboratories try 20 useless methods each
adjusted = np.stack([holm_adjusted(row) for row in p])
print("notebook = package:", np.abs(adjusted - np.stack([holm(row) for row in p])).max() < 1e-12)
plain, corrected = ((values.min(1) < 0.05).mean() for values in (p, adjusted))
print(f"laboratories that 'found' something: {plain:.0%} without correction, {corrected:.0%} with Holm's")

# %%
tuned = {name: stream_answers(build, model, x_mid).argmax(1) for name, build in TENTS.items()}
for name, difference in are_real(answers["BN"][0], tuned, y_mid, n_boot=SIZE["boot"]).items():
    print(f"{name:12s} against BN: {difference}")

# %% [markdown]
# Five Tents against BN, for one network: an interval that excludes zero by itself need not survive the count of
# comparisons. The sentence of `are_real` says which is which.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 9 · The four in one figure
#
# In each panel: above what one might have reported, below what the same networks give when the question is asked properly. In
# the last panel both lines might have been reported; the proper answer, for one recipe trained three times, is zero. (The
# clinic of the third panel was picked out of six for its clear interval: it shows what *can* happen, not how often.)

# %% tags=["readme-figure:four-ways"]
worst = min(by_metric["accuracy"], key=lambda name: by_metric["accuracy"][name].high)
four = {
    "chosen by test labels": dict(zip(("on the patients that chose", "on other patients"), selected.values())),
    "a bug for a shift": {"wrong range": gain(loaded["half the brightness"], "source", "BN"),
                          "right range": gain(loaded["as in training"], "source", "BN")},
    "prevalence for skill": {f"accuracy, clinic of\n'{worst}'": by_metric["accuracy"][worst],
                             "balanced accuracy": by_metric["balanced_accuracy"][worst]},
    "one seed": dict(list(pairwise.items())[:2]),
}
figure, axes = plt.subplots(2, 2, figsize=(12.5, 4.8))
for ax, (way, found) in zip(axes.flat, four.items()):
    gain_plot(ax, found, way)
plt.show()


# %% [markdown]
# (Intervals over seeds, but in the last panel, where they are over patients: that is its point. A grey dot holds both signs.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 10 · Would you deploy it? The report card
#
# No single number decides. The course's report card puts on one page what a clinic would ask, with rules **whose limits are
# written down before anybody looks** (`evaluation/report_rules.py`): lower end of the AUROC's interval, recall of every
# class, calibration, sensitivity and specificity at the threshold from validation, worst corruption, collapse, and harm
# (right before adaptation, wrong after it). For the question "is the lesion large?":

# %%
class LargeOrNot(nn.Module):
    """The six-class network, asked one question: is the lesion large? Logits (B, 2)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        z = self.network(x)  # (B, 6)
        return torch.stack([z[:, :4].logsumexp(1), z[:, 4:].logsumexp(1)], dim=1)


ask = LargeOrNot(model).eval()
x_card, y_card = patients(SIZE["card"], scanner="AB")
table = widgets.card_table(
    METHODS, ask, (x_card, is_large(y_card)), (x_val, is_large(y_val)), "gamma", SIZE["severities"],
    others=[("blur", 2), ("exposure", 2)], model="ResNet-small", class_names=("not large", "large"), n_boot=SIZE["boot"],
)
widgets.report_dial_figure("source", 1, table)

# %% [markdown]
# Read it from the rules upwards: the network ranks almost perfectly, and the card says no. Then turn the dial: gamma is our
# model of a display curve that darkens the mid-tones (without a kernel: all severities at once; a cross is a rule that is
# broken).

# %%
widgets.report_dial(table)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Three things to read.
#
# 1. **For the source model the first rule to break is the threshold**, while AUROC and accuracy still look fine. The classes here are easy, so the
#    threshold that keeps nine of ten healthy patients under it lies very low, and scores that move a little pass over it.
# 2. The collapse alarm, the one rule that needs no label, rings late, and may fall silent again at a higher severity while
#    other rules still fail: a model that is wrong in a varied way looks healthy to it.
# 3. BN pushes the first "no" to a higher severity. It does not abolish it, and its last "yes" hangs by a hair: move the
#    slider there and see how near the numbers are to their limits. Only the AUROC's rule asks for the lower end of an
#    interval; that is a choice, written down, and you may write another.
#
# What the card does not say: anything about another hospital, another order of patients, or another seed. It was made with
# one network on one stream.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 11 · On real images
#
# **Chest X-rays** (PneumoniaMNIST, CC BY 4.0, MedMNIST v2; rebuilt from public copies, official counts, another order).
# Three ResNets of the course, trained on it class-balanced. First the second way, on the *validation* split, which is drawn
# like the training split; then the third, on the test split. Live when the data is found, else from the results store.

# %%
try:
    xray = {split: load("pneumoniamnist", split) for split in ("val", "test")}
except SeminarError:
    xray = None


def xray_nets():
    """The three X-ray networks."""
    return {seed: load_checkpoint(f"resnet_small-pneumoniamnist-s{seed}") for seed in SIZE["seeds"]}


def xray_pipelines():
    """Source and BN on validation X-rays, loaded rightly and wrongly."""
    x, y = xray["val"].subset(range(min(SIZE["real"], len(xray["val"])))).torch()
    loads = {"as in training": x, "half the brightness": halved(x), "mean and std 0.5": squashed(x), "own window": windowed(x)}
    about, nets = {"data": "pneumoniamnist", "split": "val"}, xray_nets()
    return [row for name, images in loads.items()
            for row in measure("eval.xray", METHODS, nets, images, y, params={**about, "pipeline": name})]


xray_rows = live_or_stored("eval.xray", xray is not None, xray_pipelines)
xray_found = {}
for name in dict.fromkeys(row["params"]["pipeline"] for row in xray_rows):
    rows = [row for row in xray_rows if row["params"]["pipeline"] == name]
    xray_found[name] = gain(rows, "source", "BN")
    found = summarise(rows)
    print(f"{name:20s} source {found['source']}   BN {found['BN']}   BN - source {points(xray_found[name])}")
figure, ax = plt.subplots(figsize=(8, 2.8))
gain_plot(ax, xray_found, "chest X-rays without any shift: what BN 'gains'")
plt.show()


# %% [markdown] slideshow={"slide_type": "subslide"}
# With the right loader BN *costs* balanced accuracy here; with pixels at half their brightness it "gains" tens of points. A
# paper that had loaded these images wrongly would have reported a triumph. Not every mistake shows: the own window hardly
# matters on these images, and mattered much on the phantoms.
#
# The third way: the same networks in three imaginary hospitals with few, half and many pneumonias, beside the "doctor"
# who always says *normal*.

# %%
def xray_prevalence():
    """Source, and a constant answer, at three prevalences of the test split."""
    def always_normal(_):
        return lambda batch: torch.tensor([[9.0, 0.0]]).repeat(len(batch), 1)

    rows = []
    for share in (0.05, 0.5, 0.9):
        x, y = resample_prevalence(xray["test"], share, seed=0).torch()
        rows += measure("eval.xray_prevalence", {"source": Source, "always normal": always_normal}, xray_nets(), x, y,
                        params={"data": "pneumoniamnist", "split": "test", "pneumonia": share})
    return rows


rows_by_share = live_or_stored("eval.xray_prevalence", xray is not None, xray_prevalence)
for share in dict.fromkeys(row["params"]["pneumonia"] for row in rows_by_share):
    rows = [row for row in rows_by_share if row["params"]["pneumonia"] == share]
    for metric in ("accuracy", "balanced_accuracy"):
        found, ahead = summarise(rows, metric), gain(rows, "always normal", "source", metric)
        print(f"{share:4.0%} pneumonia, {metric:18s} source {found['source']}   source - constant {points(ahead)}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# At five in a hundred the constant beats three trained networks in accuracy. Across the hospitals the networks' accuracy
# moves by many points, and nothing about them has changed: their balanced accuracy stays where it was.
#
# **White blood cells from three laboratories** (d1: Motic microscope, rapid stain; d2: CellaVision; d3: BCCD; sources and
# licences in the data set's card; some 700 cells in all). A *real* change of microscope, stain and people. Small ResNets are
# trained here and now on d1's training cells, three seeds. As a control, d1's own test cells are loaded once as a popular
# library reads colour files: blue first.

# %%
try:
    cells = {split: real_shift("wbc").load_source(split) for split in ("train", "val", "test")}
    cells |= {name: real_shift("wbc").load_target(name) for name in ("d2", "d3")}
except SeminarError:
    cells = None


def flipped(x):
    """Random mirror images: cells have no up and no left."""
    for axis in (-1, -2):
        x = x.flip(axis) if torch.rand(()) < 0.5 else x
    return x


def on_cells():
    """Train on d1, then source and BN on d1, d1 with swapped channels, d2 and d3."""
    nets = {}
    for seed in SIZE["seeds"]:
        seed_everything(seed)
        nets[seed] = create_model("resnet_small", num_classes=4, in_chans=3)
        settings = TrainConfig(epochs=SIZE["cells"], lr=4e-3, batch_size=32, label_smoothing=0.0, seed=seed)
        fit(nets[seed], cells["train"], cells["val"], settings, size=32, augment=flipped, progress=False)
    found = []
    for domain in ("d1", "d1, blue first", "d2", "d3"):
        x, y = cells["test" if domain.startswith("d1") else domain].torch(size=32)
        x = x.flip(1) if "blue" in domain else x
        found += measure("eval.wbc", METHODS, nets, x, y, params={"data": "wbc", "domain": domain})
    return found


cell_rows = live_or_stored("eval.wbc", cells is not None, on_cells)
cell_found = {}
for domain in dict.fromkeys(row["params"]["domain"] for row in cell_rows):
    rows = [row for row in cell_rows if row["params"]["domain"] == domain]
    found, cell_found[domain] = summarise(rows), gain(rows, "source", "BN")
    print(f"{domain:15s} {rows[0]['params']['images']:3d} cells: source {found['source']}   BN {found['BN']}   "
          f"BN - source {points(cell_found[domain])}")
figure, ax = plt.subplots(figsize=(8, 2.8))
gain_plot(ax, cell_found, "white blood cells: what BN gains (95%, seeds)")
plt.show()

# %% [markdown] slideshow={"slide_type": "subslide"}
# Read the intervals, not the dots: three seeds and a hundred cells say little. What can be said: between laboratories the
# networks fall far below what they reach at home; BN leaves them far below it, too; and the swapped channels alone make a
# "shift" of the same kind, for which BN looks like a remedy. With four classes chance is 0.25, and the rarest class has a
# handful of cells, so that one of them moves the balanced accuracy by points. The cells of one patient are not known as such, so even these intervals are too narrow.
#
# **Nuclei** (Data Science Bowl 2018, CC0; domains by a colour heuristic of the course): fluorescence, H&E-like, bright
# grey. No network at all: Otsu's threshold, which splits the grey levels of an image into two groups as even as possible, and
# "bright is nucleus". Is the fall to the other domains a shift, or a wrong sign?

# %%
try:
    slides = {"fluorescence": real_shift("nuclei").load_source("test")}
    slides |= {name: real_shift("nuclei").load_target(name) for name in ("histology", "brightfield")}
except SeminarError:
    slides = None


def otsu_says(image, side):
    """A mask (H, W) of a grey image: the bright side of Otsu's threshold, the dark one, or the darker part of the dark one."""
    level = threshold_otsu(image)
    if side == "dark, twice":
        inside = image[image <= level]
        return image <= (threshold_otsu(inside) if np.ptp(inside) > 0 else level)
    return (image > level) == (side == "bright")


def otsu_dice(dataset, side):
    """Dice (N,) of what Otsu says of every image."""
    grey = dataset.images.mean(axis=-1)  # (N, H, W)
    return np.array([dice(mask > 0, otsu_says(image, side)) for image, mask in zip(grey, dataset.masks)])


def on_nuclei():
    """Three rows a domain: Dice with its bootstrap interval over images."""
    rows = []
    for name, dataset in slides.items():
        for side in ("bright", "dark", "dark, twice"):
            values = otsu_dice(dataset, side)
            found = bootstrap_interval(values, statistic=np.nanmean, n_boot=SIZE["boot"])
            rows.append(store.append("eval.nuclei", {"method": f"Otsu, {side}", "domain": name, "images": len(values)},
                                     {"dice": found.mean}, {"dice": [found.low, found.high]}))
    return rows


nuclei_rows = live_or_stored("eval.nuclei", slides is not None, on_nuclei)
for row in {(row["params"]["domain"], row["params"]["method"]): row for row in nuclei_rows}.values():  # the newest of each
    about, (low, high) = row["params"], row["intervals"]["dice"]
    print(f"{about['domain']:13s} {about['images']:3d} images, {about['method']:18s} "
          f"Dice {row['metrics']['dice']:.2f} [{low:.2f}, {high:.2f}] over images")

# %% [markdown]
# From fluorescence to histology the method is ruined, and one sign mends it: nuclei are dark there. It would have been easy
# to write a paper about this "domain gap". In the bright grey images the sign alone does not help: Otsu finds the dark cells, not the nuclei
# in them. The same threshold once more, inside the dark part, wins a good part back. How much of a "gap" is left depends on
# how many simple corrections were tried before it got its name.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 12 · From one lesson to a benchmark
#
# This notebook ran a few dozen cells of a large table by hand. `seminar bench run SPEC.toml` runs the whole table: **method x
# model x data x shift x severity x stream x batch x reset x seed**, as the file says. Each cell's row is appended to the
# results store as soon as it is measured, so a killed run goes on where it stopped, with no row twice and none lost; a failure
# is a row, too. It runs in this process, in several local ones, or on a Dask cluster, with the same numbers. `seminar bench
# table` and `seminar bench plot` make tables and figures of the rows: ranking with intervals, severity curves, harm against
# gain. Everything this lesson asks for is in a row: who chose the settings, the order of the stream, the seed, the interval.
# Lesson 15 builds on it.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 13 · In the clinic
#
# Before you believe a gain, ask for these, in this order:
#
# 1. **The old result on the old scanner**, through the same pipeline (part 6). Without it, stop.
# 2. **Who chose, on what?** Default, validation, a held-out shift; "oracle" only under that name (part 5).
# 3. **Who came, in which order?** Prevalence and stream in every table; recall of each class (parts 3 and 7).
# 4. **What was resampled?** Patients, and seeds for a claim about a method; every comparison counted (parts 4 and 8).
# 5. **Limits before looks.** The rules of the card are written, with the clinic, before the card is made (part 10).
# 6. **Harm beside gain.** Patients who swapped places do not appear in a mean.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 14 · Quiz, claims, reading, poster

# %%
quiz("09_evaluating_under_shift")

# %% [markdown]
# | claim | here |
# |---|---|
# | "Tuned settings beat the published ones" (when the test labels tune) | not found on patients who had no say; what looking at the labels added is printed with its interval (part 5) |
# | Hyper-parameter selection without labels of the target is unreliable (Zhao et al. 2023) | not testable here: on so few patients the four rules lie within a point or so (part 5); their study is far larger |
# | "Adaptation recovers tens of points" | reproduced on scanner A, where nothing had shifted: the loader was wrong (part 6, and on X-rays and cells in part 11) |
# | Modern networks are too sure, on data like their training data (Guo et al. 2017) | not tested at home, where these easy classes are all answered rightly; far too sure under shift (part 2) |
# | Correlated streams break batch statistics (NOTE, RoTTA) | reproduced in direction; sorted patients far more than our Dirichlet stream (part 3) |
# | "The bootstrap gives 95%" | for the right unit, nearly; over images of few patients, no (part 4) |
# | "AUROC is fine, so the model is fine" | contradicted: the threshold broke first (parts 2 and 10) |
# | Published numbers of MedMNIST-C | not comparable: our shifts are others |
#
# **Read further.** Zhao et al. 2023 ([2306.03536](https://arxiv.org/abs/2306.03536)): how much of test-time adaptation's
# progress is a matter of who chose the settings. Cygert et al. 2024 ([2407.14231](https://arxiv.org/abs/2407.14231)): which
# rules can choose without target labels (few, and those with a little supervision do best). Press et al. 2023, RDumb ([2306.05401](https://arxiv.org/abs/2306.05401)):
# on long streams a plain reset beats most methods. Nixon et al. 2019 ([1904.01685](https://arxiv.org/abs/1904.01685)):
# what is wrong with ECE's bins. Maier-Hein et al. 2024, *Metrics reloaded*
# ([2206.01653](https://arxiv.org/abs/2206.01653)): which metric for which clinical question, and how each misleads. Di Salvo
# et al. 2024, MedMNIST-C ([2406.17536](https://arxiv.org/abs/2406.17536)): the published corruption suite that ours is not.
#
# **For your poster.** The four-panel figure (part 9) and the severity dial (part 10). Rows: `seminar results --where
# experiment=eval.preprocessing`, `eval.selection`, `eval.prevalence`, `eval.order`.

# %%
progress()
