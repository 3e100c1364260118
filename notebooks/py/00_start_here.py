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
# # 00 · Start here: from general to clinical
#
# **What this is.** The front door of the course: its question, its data, its way of measuring, and how its exercises
# work. No paper yet; the question is that of Bommasani et al., *On the opportunities and risks of foundation models*,
# [arXiv 2108.07258](https://arxiv.org/abs/2108.07258).
#
# **You will be able to**
# 1. say the three questions of the seminar, and what a domain shift is;
# 2. load a data set of the course, read its card, and turn it into tensors;
# 3. train a first classifier in ten lines, and judge it by a number that prevalence cannot buy;
# 4. put an interval on an accuracy, and say what it does and does not cover;
# 5. hand in an exercise, ask for a hint, and find every number again in the results store.
#
# **Needs** Python and the idea of a gradient. No GPU, no network.
#
# **Time** about 40 minutes to read and do; the cells take
# <!-- minutes -->less than a minute to run (cpu profile)<!-- /minutes --> on a laptop.

# %%
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt

from seminar_utils import (
    ResultsStore, SeminarError, by_profile, exercise, hint, load, load_checkpoint, profile, progress, quiz,
    seed_everything, set_threads, solution,
)
from seminar_utils.adaptation import Source
from seminar_utils.data.phantoms import SCANNERS, scanner
from seminar_utils.evaluation.intervals import bootstrap_interval
from seminar_utils.evaluation.measure import live_or_stored, measure, summarise
from seminar_utils.evaluation.metrics import accuracy, per_class_recall
from seminar_utils.teaching import figures, widgets
from seminar_utils.teaching.lessons import COURSE

# The one place where sizes are set. SEMINAR_PROFILE=smoke|cpu|gpu chooses the row.
SIZE = by_profile(
    smoke=dict(images=96, seeds=(0, 1), strengths=(0.0, 0.7), boot=100, steps=30, real=64),
    cpu=dict(images=600, seeds=(0, 1, 2), strengths=(0.0, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0), boot=1000, steps=30, real=624),
    gpu=dict(images=5000, seeds=(0, 1, 2), strengths=(0.0, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0), boot=1000, steps=30, real=624),
)
seed_everything(0)
set_threads()
figures.use_course_style()
print("profile:", profile())

# %% [markdown] slideshow={"slide_type": "slide"} notes="Let the class guess the accuracy in the lower row before you scroll on."
# ## 1 · The question, in a picture
#
# Six patients, each seen by three scanners. A network learnt from scanners A and B to name the size and the tone of
# the lesion. Scanner C is new in the house. Above each image: what the network says, and how sure it is.

# %% tags=["readme-figure:scanners"]
model = load_checkpoint("resnet_small-phantoms-s0")
class_names = load("phantoms", "test", n=6).class_names
STRENGTH = {"A": 1.0, "B": 1.0, "C": 0.7}  # how far from the neutral scanner


def seen_by(name, n=SIZE["images"]):
    """The same test patients on one scanner: images (n, 1, 32, 32) in [0, 1], labels (n,)."""
    return load("phantoms", "test", n=n, scanner=name, strength=STRENGTH[name]).torch(size=32)


def say(x, y):
    """Answer and confidence of the network for each image, with a mark where it is wrong."""
    with torch.no_grad():
        confidence, answer = model(x).softmax(dim=1).max(dim=1)
    marks = ["" if right else " WRONG" for right in (answer == y).tolist()]
    return [f"{class_names[k]}\n{c:.0%} sure{m}" for k, c, m in zip(answer.tolist(), confidence.tolist(), marks)]


pictures, titles = [], []
for name in "ABC":
    x, y = seen_by(name, n=6)
    pictures.append(x)
    titles += say(x, y)
figures.image_grid(torch.cat(pictures), titles, columns=6, heading="the same six patients on scanners A, B and C")

# %% [markdown] slideshow={"slide_type": "subslide"}
# You can still read the lower row. The network often cannot, and it does not know that it cannot. What changed is not
# the patients but how they are seen: a **domain shift**. Hospitals are full of them: a scanner, a stain, a protocol,
# another population.
#
# The seminar asks three questions, and the package is laid out by them.
#
# | question | folder | lessons |
# |---|---|---|
# | **What** to adapt? Which networks, made how, and which of their parameters? | `models/`, `pretraining/` | 01-08, 10 |
# | **How** to adapt? What can a model learn from the new images alone? | `adaptation/` | 11-14 |
# | **How to evaluate** for the clinic? Shift, calibration, uncertainty, the worst group. | `evaluation/` | 09, 15 |
#
# The map of all lessons; the table in the README says which are ready.

# %%
for lesson in COURSE:
    print(f"{lesson.name:30s} {lesson.question}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2 · Data: one object, one card
#
# Every data set of the course is an `ImageSet`: images as bytes (N, H, W, C), labels, names of the classes, and a
# **card** that says where it comes from and what it must not be used for. Read the card first.

# %% tags=["nbval-check-output"]
phantoms = load("phantoms", "test", n=500, scanner="AB")
print(phantoms)
print("images", phantoms.images.dtype, phantoms.images.shape, " masks", phantoms.masks.shape, " labels", phantoms.labels.shape)
print("classes:", phantoms.class_names)
print("caption of patient 0:", phantoms.captions[0])
print("scanner of patients 0-5:", phantoms.domains[:6].tolist())

# %%
print(phantoms.card.title, "|", phantoms.card.licence)
print(phantoms.card.note)

# %% [markdown]
# **Phantoms** are drawn by a program. Each factor is known: lesion type, size, place, tone, the shape of the organ, and
# the scanner, which is a handful of physical parameters. So a shift has a dial, and a mask and a caption come for free.
# The same seed gives the same patients on every machine.

# %%
factors = ("type", "size", "place", "tone", "shape")
print("patient 0:", {name: int(phantoms.factors[name][0]) for name in factors})
for name, device in SCANNERS.items():
    print(f"scanner {name}: {device}")
print("half way to C:", scanner("C", 0.5))

# %%
ring = next(i for i, text in enumerate(phantoms.captions) if "large" in text and "ring" in text)
figures.image_grid(
    [phantoms.images[ring], phantoms.masks[ring] * 127],
    titles=[f"patient {ring}", "mask: organ, lesion"], heading=phantoms.captions[ring], size=2.6,
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Real pictures that come with scikit-image are reachable by the same `load`. There is one of each, so they are for
# looking at, not for training.

# %%
real = {name: load(name) for name in ("retina", "immunohistochemistry", "cell", "microaneurysms")}
for name, picture in real.items():
    print(f"{name:22s} {picture.card.modality}; {picture.card.licence}; {picture.card.source}")
figures.image_grid([picture.images[0] for picture in real.values()], titles=list(real), size=2.2)

# %% [markdown]
# **MedMNIST** (all 2D sets) is loaded by name, too: from the folder in `SEMINAR_DATA`, else from your cache, else
# downloaded and checked. Where it cannot be had, you get one clear sentence, not a stack of errors. Ask for something
# that does not exist to see the style:

# %% tags=["nbval-check-output"]
try:
    load("pneumoniamnst")
except SeminarError as error:
    print(str(error)[:75], "...")

# %%
try:
    xray = load("pneumoniamnist", "test")
    print("found:", xray, "|", xray.card.licence)
except SeminarError as error:
    xray = None
    print(error)


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3 · A first classifier, from scratch
#
# A network wants floats between 0 and 1, channels first. **Exercise `start.to_float`** (difficulty 1, 4 minutes):
# uint8 (N, H, W, C) in, float32 (N, C, H, W) out. Mind the order of the axes: a reshape gives the right shape and the
# wrong picture.

# %%
def to_float(images):
    """Images uint8 (N, H, W, C) in [0, 255] -> float32 tensor (N, C, H, W) in [0, 1]."""
    raise NotImplementedError


to_float = exercise("start.to_float", to_float)

# %% [markdown]
# The smallest classifier: one weight per pixel and class, $p(k \mid x) = \mathrm{softmax}(Wx + b)_k$, fitted by
# gradient descent on the cross-entropy $-\log p(y \mid x)$. The task: is the lesion bright or dark?

# %% tags=["nbval-check-output"]
train, test = load("phantoms", "train", n=800, task="tone"), load("phantoms", "test", n=400, task="tone")
x_train = F.avg_pool2d(to_float(train.images), 4).flatten(1)  # (N, 1, 64, 64) -> (N, 256)
x_test = F.avg_pool2d(to_float(test.images), 4).flatten(1)
y_train, y_test = torch.as_tensor(train.labels), torch.as_tensor(test.labels)
print("inputs", tuple(x_train.shape), "labels", tuple(y_train.shape), "classes", train.class_names)


# %%
def fit_linear(x, y, steps):
    """Softmax regression by full-batch gradient descent; returns a function from inputs to predictions (N,)."""
    W, b = torch.zeros(x.shape[1], 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    centre = x.mean(0)
    for _ in range(steps):
        loss = F.cross_entropy((x - centre) @ W + b, y)  # (N, 2) against (N,)
        dW, db = torch.autograd.grad(loss, (W, b))
        with torch.no_grad():
            W -= 1.0 * dW
            b -= 1.0 * db
    return lambda new: ((new - centre) @ W + b).argmax(1).numpy()


predict = fit_linear(x_train, y_train, SIZE["steps"])
answers = predict(x_test)
print(f"accuracy on new patients: {accuracy(test.labels, answers):.3f}")


# %% [markdown] slideshow={"slide_type": "subslide"}
# **The prevalence trap.** In screening most patients have the same finding. Train the same classifier where 95 of 100
# lesions are dark, and test where the same holds:

# %%
def screened(labels, share=0.95):
    """Indices of patients such that `share` of them are dark (class 0)."""
    dark, bright = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    return np.concatenate([dark, bright[: max(1, round(len(dark) * (1 - share) / share))]])


lazy = fit_linear(x_train[screened(train.labels)], y_train[screened(train.labels)], SIZE["steps"])
ward = screened(test.labels)
told = lazy(x_test[ward])
print(f"accuracy {accuracy(test.labels[ward], told):.3f}: splendid?")
print("recall of each class:", dict(zip(test.class_names, per_class_recall(test.labels[ward], told, 2).round(2).tolist())))


# %% [markdown]
# Accuracy pays for following the prevalence. **Balanced accuracy**, the mean of the recalls over the classes that
# occur, does not: who always gives the same answer gets one divided by the number of classes.
#
# **Exercise `start.balanced_accuracy`** (difficulty 2, 8 minutes).

# %%
def balanced_accuracy(labels, predictions):
    """Mean recall over the classes that occur in labels (N,); classes without a sample do not count."""
    raise NotImplementedError


balanced_accuracy = exercise("start.balanced_accuracy", balanced_accuracy)

# %%
print(f"balanced accuracy of the splendid classifier: {balanced_accuracy(test.labels[ward], told):.3f}")
print(f"and of the first one, on all patients:        {balanced_accuracy(test.labels, answers):.3f}")


# %% [markdown]
# So this course trains class-balanced and reports balanced accuracy, unless it says otherwise.
#
# **How sure are we?** Another 400 patients would have given another number. The bootstrap asks: how much would it
# move? Draw N answers out of the N, with replacement, many times; the interval runs from the 2.5% to the 97.5%
# quantile of the accuracies. **Exercise `start.accuracy_interval`** (difficulty 2, 8 minutes).

# %%
def accuracy_interval(correct, n_boot, seed):
    """95% percentile bootstrap interval (low, high) of the accuracy; correct: bool (N,); numpy's default_rng(seed)."""
    raise NotImplementedError


accuracy_interval = exercise("start.accuracy_interval", accuracy_interval)

# %%
correct = answers == test.labels
sizes = [n for n in (25, 50, 100, 200, 400) if n <= len(correct)]
intervals = [accuracy_interval(correct[:n], SIZE["boot"], 0) for n in sizes]
for n, (low, high) in zip(sizes, intervals):
    print(f"{n:4d} patients: accuracy {correct[:n].mean():.3f}, 95% interval [{low:.3f}, {high:.3f}]")
figures.lines_with_intervals(
    sizes, {"accuracy": ([correct[:n].mean() for n in sizes], intervals)}, xlabel="patients in the test set",
    ylabel="accuracy", title="a number without an interval is half a number",
)

# %% [markdown]
# What the interval covers: the luck of *these patients*. What it does not: another training run (that is why we use
# several seeds), another scanner, a wrong label. An interval is never wider than the question that was asked.
#
# **The parity cell.** Every lesson has one: what you built, what the package has, and a reference must agree.

# %% tags=["nbval-check-output"]
from sklearn.metrics import balanced_accuracy_score

from seminar_utils.evaluation import metrics

gap = max(
    abs(balanced_accuracy(test.labels[rows], predictions) - reference(test.labels[rows], predictions))
    for rows, predictions in ((ward, told), (np.arange(400), answers))
    for reference in (metrics.balanced_accuracy, balanced_accuracy_score)
)
package = bootstrap_interval(correct, statistic=np.mean, n_boot=SIZE["boot"], seed=0)
ours = accuracy_interval(correct, SIZE["boot"], 0)
print("balanced accuracy: notebook = package = scikit-learn:", gap < 1e-12)
print("bootstrap: notebook = package, within 0.003:", max(abs(ours[0] - package.low), abs(ours[1] - package.high)) <= 3e-3)
print("to_float: notebook = package:", torch.equal(to_float(test.images), test.torch()[0]))

# %%
print(f"max |difference|: balanced accuracy {gap:.1e}, interval {abs(ours[0] - package.low):.1e}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 4 · The experiment: how far does a good model carry?
#
# Now the real thing at small scale: the course's ResNet, three training seeds, trained on scanners A and B. Scanner C
# is turned up from 0 (neutral) to 1. `measure` runs every seed and writes one row each to the results store.

# %%
models = {seed: load_checkpoint(f"resnet_small-phantoms-s{seed}") for seed in SIZE["seeds"]}
curve = {}
for strength in SIZE["strengths"]:
    x, y = load("phantoms", "test", n=SIZE["images"], scanner="C", strength=strength).torch(size=32)
    curve[strength] = measure("start.scanners", {"source": Source}, models, x, y,
                              params={"data": "phantoms", "scanner": "C", "strength": strength})
found = {strength: summarise(rows)["source"] for strength, rows in curve.items()}
for strength, interval in found.items():
    print(f"scanner C at {strength:.2f}: balanced accuracy {interval}")

# %%
series = {"source": ([i.mean for i in found.values()], [(i.low, i.high) for i in found.values()])}
for seed in SIZE["seeds"]:
    series[f"seed {seed}"] = [
        next(row["metrics"]["balanced_accuracy"] for row in rows if row["seed"] == seed) for rows in curve.values()
    ]
figures.lines_with_intervals(list(found), series, xlabel="strength of scanner C", ylim=(0, 1.02),
                             title="one recipe, several seeds, one shift")

# %% [markdown]
# Three things to read. The fall is not gradual: for a while nothing happens, then much at once. The seeds agree at
# home and part under the shift, so a single run could have told any of these stories: **never report one seed.** And
# the interval over three seeds is wide, as it should be.
#
# What the figure does not show: that any *real* scanner behaves like this one. Phantoms are a laboratory, not a clinic.
#
# **The failure case: confidence.** Does the network at least know when it fails?

# %%
for strength in (SIZE["strengths"][0], SIZE["strengths"][-1]):
    rows = curve[strength]
    wrong = 1 - summarise(rows, "accuracy")["source"].mean
    print(f"at {strength:.2f}: {wrong:.0%} of the answers are wrong, "
          f"calibration error {summarise(rows, 'ece')['source'].mean:.2f} (0 would be honest)")

# %% [markdown]
# It does not. A softmax output is a probability only on data like those it was trained on. Lesson 09 takes this apart,
# lesson 11 tries to repair it without a single label.
#
# Turn the dial yourself:

# %%
one_patient = [load("phantoms", "test", n=3, scanner="C", strength=s).torch()[0][2] for s in SIZE["strengths"]]
widgets.scanner_dial(widgets.DialTable(SIZE["strengths"], {"source": series["source"]}, one_patient))


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5 · On real images
#
# The same reading on chest X-rays: PneumoniaMNIST (CC BY 4.0, MedMNIST v2), normal or pneumonia, three ResNets of the
# course. Live when the data is found, else from the results store; the cell says which. Most patients in this test
# set have pneumonia, so beside the networks stands the "doctor" who says pneumonia every time.

# %%
def on_xrays():
    """The three X-ray networks on the test split, without any shift."""
    x, y = xray.subset(range(SIZE["real"])).torch()
    nets = {seed: load_checkpoint(f"resnet_small-pneumoniamnist-s{seed}") for seed in SIZE["seeds"]}

    def always_pneumonia(_):
        return lambda batch: F.one_hot(torch.ones(len(batch), dtype=torch.long), 2).float() * 9

    return measure("start.xray", {"source": Source, "always pneumonia": always_pneumonia}, nets, x, y,
                   params={"data": "pneumoniamnist"})


rows = live_or_stored("start.xray", xray is not None, on_xrays)
for metric in ("accuracy", "balanced_accuracy"):
    print(f"{metric:18s}", "   ".join(f"{name} {interval}" for name, interval in summarise(rows, metric).items()))
table = [summarise(rows, metric) for metric in ("accuracy", "balanced_accuracy")]
figures.grouped_bars(
    ["accuracy", "balanced accuracy"], {name: [found[name] for found in table] for name in table[0]},
    ylabel="share", title="PneumoniaMNIST, test split", chance=0.5,
)

# %% [markdown]
# The copy of the data used here was rebuilt from public copies (official counts, another order); the networks' cards
# say so. Twenty-eight pixels are enough to learn from and far too few for a diagnosis.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6 · How the course works
#
# **Exercises.** You replace `raise NotImplementedError` and run the cell. Right: your function is used from there on.
# Not started: the course's own is used, so the notebook always runs to its end. Wrong: you see the smallest case on
# which you differ, and a hint. Here is a wrong answer on purpose (shown through the machine's inner part, so that it
# does not count as yours): balanced accuracy that is plain accuracy.

# %% tags=["nbval-check-output"]
from seminar_utils.teaching.exercise_bank import find_exercise
from seminar_utils.teaching.judging import judge

verdict = judge(find_exercise("start.balanced_accuracy"), lambda labels, predictions: float((labels == predictions).mean()))
print(verdict.state)
for label, text in verdict.lines:
    print(f"{label}: {text}")

# %%
hint("start.balanced_accuracy", level=1)

# %%
solution("start.balanced_accuracy")

# %% [markdown]
# **Numbers.** Nothing in this course is typed. Each measured number is a row of the results store with its seed,
# versions, device and commit. `seminar results --where experiment=start.scanners` prints the same in a terminal.

# %%
row = ResultsStore().rows(experiment="start.scanners")[-1]
for key in ("experiment", "params", "seed", "profile", "device", "seconds"):
    print(f"{key:10s} {row[key]}")
print("metrics   ", {name: round(value, 3) for name, value in row["metrics"].items()})
print("interval  ", [round(bound, 3) for bound in row["intervals"]["balanced_accuracy"]], "(bootstrap over this run's images)")

# %% [markdown]
# **Seeds.** The same seed gives the same numbers:

# %% tags=["nbval-check-output"]
draws = [(seed_everything(7), torch.rand(3))[1] for _ in range(2)]
print("same seed, same numbers:", torch.equal(*draws))
again = load("phantoms", "test", n=4, scanner="AB")
print("same patients as above:", np.array_equal(again.images, phantoms.images[:4]))

# %% [markdown]
# **Sizes.** `SEMINAR_PROFILE=smoke|cpu|gpu` chooses a row of the table in the first cell: seconds, minutes, full size.
# **Trouble?** `seminar doctor` in a terminal says what this machine has, what is missing, and the one command that
# gets it. **In class:** the cells carry slide tags and presenter notes. **For a poster:** each lesson ends with the
# figures that carry its story.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7 · Quiz, claims, reading, poster

# %%
quiz("00_start_here")

# %% [markdown]
# | claim | here |
# |---|---|
# | "Deep networks do well on benchmarks and fail in hospitals" | reproduced in the laboratory: the same network, the same patients, another scanner (part 4) |
# | "A network knows when it does not know" | contradicted: the calibration error grows with the shift (part 4) |
# | "Accuracy says how good a model is" | contradicted: the prevalence trap (part 3) |
# | "Foundation models transfer better" | not examined yet: lessons 04 to 08 |
#
# **Read further.** Bommasani et al. 2021 ([2108.07258](https://arxiv.org/abs/2108.07258)), section 3.1 on healthcare:
# what is promised. Guo et al. 2017 ([1706.04599](https://arxiv.org/abs/1706.04599)): why modern networks are too sure.
# Yang et al. 2023, MedMNIST v2 ([2110.14795](https://arxiv.org/abs/2110.14795)): what is in the sets, and what they
# must not be used for.
#
# **For your poster.** The opening picture and the severity curve (parts 1 and 4) introduce any talk about adaptation.
#
# Go on with [01_resnet](01_resnet.ipynb).

# %%
progress()
