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
# # 12 · TTT and TTT++: a second task as a teacher
#
# **Papers.** Sun, Wang, Liu, Miller, Efros, Hardt: *Test-Time Training with Self-Supervision for Generalization under
# Distribution Shifts*, ICML 2020, [arXiv 1909.13231](https://arxiv.org/abs/1909.13231) (TTT). Liu, Kothari, van Delft,
# Bellot-Gurlet, Mordan, Alahi: *TTT++: When Does Self-Supervised Test-Time Training Fail or Thrive?*, NeurIPS 2021
# ([proceedings](https://proceedings.neurips.cc/paper/2021/hash/b618c3210e934362ac261db280128c22-Abstract.html); no arXiv id;
# "the official code" below is [vita-epfl/ttt-plus-plus](https://github.com/vita-epfl/ttt-plus-plus)). Their parts: rotations, Gidaris et al. 2018, [arXiv 1803.07728](https://arxiv.org/abs/1803.07728); contrast, Chen et al. 2020
# (SimCLR), [arXiv 2002.05709](https://arxiv.org/abs/2002.05709); moments, Sun and Saenko 2016 (Deep CORAL),
# [arXiv 1607.01719](https://arxiv.org/abs/1607.01719).
#
# **You will be able to**
# 1. say what a network must learn *before* the first patient, so that test-time training is possible;
# 2. write a step of TTT, and measure whether its task pulls the way the diagnosis does;
# 3. write TTT++: contrast, offline moments, and a queue that does not have the bug of the official one;
# 4. tell what contrast and alignment each add to batch statistics, with an interval;
# 5. show what a result gains when test labels choose the epoch, and name such a result an oracle.
#
# **Needs** [11_tent](11_tent.ipynb) (batch statistics, Tent) and [09](09_evaluating_under_shift.ipynb) (intervals, oracles).
# Networks and phantoms ship with the course; no network connection, no GPU.
#
# **Time** about 75 minutes to read and do; the cells take
# <!-- minutes -->about 3 minutes to run (cpu profile)<!-- /minutes --> on a laptop.

# %%
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt

from seminar_utils import (
    by_profile, exercise, load, load_checkpoint, profile, progress, quiz, seed_everything, set_threads,
)
from seminar_utils.adaptation import TTT, BatchNormAdapt, Source, Tent, TTTPlusPlus
from seminar_utils.adaptation.feature_alignment import FeatureQueue, SourceMoments, coral, covariance, linear_mmd
from seminar_utils.evaluation.bench_table import bench_table
from seminar_utils.evaluation.bench_text import readable
from seminar_utils.evaluation.differences import holm
from seminar_utils.evaluation.intervals import Interval, paired_difference, seed_interval
from seminar_utils.evaluation.measure import by_method, gain, live_or_stored, measure, stored, summarise
from seminar_utils.evaluation.metrics import balanced_accuracy
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.shifts import apply_shift
from seminar_utils.evaluation.streams import run_stream, stream
from seminar_utils.models.rotation import all_rotations
from seminar_utils.models.simclr import contrastive_loss
from seminar_utils.models.two_heads import with_projection_head
from seminar_utils.pretraining.simclr import TwoViews
from seminar_utils.recipes.ttt_choice import LEARNING_RATES
from seminar_utils.recipes.ttt_parts import plus_plus
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import bench_figures, figures, widgets
from seminar_utils.teaching.golden import golden

# The one place where sizes are set. SEMINAR_PROFILE=smoke|cpu|gpu chooses the row.
SIZE = by_profile(
    smoke=dict(images=64, seeds=(0, 1), strengths=(0.0, 0.7), cosines=1, practice=1, source=64, source_batch=32, stream=48,
               trials=25, way=48, real=48, shifts=("exposure",)),
    cpu=dict(images=192, seeds=(0, 1, 2), strengths=(0.0, 0.35, 0.7, 1.0), cosines=8, practice=8, source=1024,
             source_batch=256, stream=192, trials=400, way=640, real=624, shifts=("exposure", "gamma", "blur")),
    gpu=dict(images=2000, seeds=(0, 1, 2), strengths=(0.0, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0), cosines=60, practice=40, source=4000,
             source_batch=256, stream=2000, trials=1000, way=640, real=624, shifts=("exposure", "gamma", "blur")),
)
seed_everything(0)
set_threads(1)  # small batches on a small network: a second thread waits more than it works
figures.use_course_style()
store = ResultsStore()
SHIFT = 0.7  # the dial of scanner C: 0 is scanner A, 1 is scanner C
print("profile:", profile())

# %% [markdown] slideshow={"slide_type": "slide"} notes="Ask before the answers are shown: which way is up in each of these? Then: what did you use to tell, and does it depend on the scanner?"
# ## 1 · The question, in a picture
#
# Lesson 11 ended with a doubt. Tent's teacher is the model's own sureness, and sureness can be wrong. **Is there a question
# about a new image whose right answer we know, without any label?** Turn the image, and ask how far it was turned.
#
# The network below has two heads on one body. One names the lesion (six classes), the other says which of four positions
# an image is in. Both were trained together, on scanners A and B. Now scanner C:

# %%
rotation_nets = {seed: load_checkpoint(f"resnet_small_rotation-phantoms-s{seed}") for seed in SIZE["seeds"]}
simclr_nets = {seed: load_checkpoint(f"resnet_small_simclr-phantoms-s{seed}") for seed in SIZE["seeds"]}
plain_nets = {seed: load_checkpoint(f"resnet_small-phantoms-s{seed}") for seed in SIZE["seeds"]}
class_names = load("phantoms", "test", n=8).class_names


def patients(strength, n=SIZE["images"], scanner="C", split="test"):
    """The same patients on scanner C at some strength: images (n, 1, 32, 32) in [0, 1], labels (n,)."""
    return load("phantoms", split, n=n, scanner=scanner, strength=strength).torch(size=32)


x, y = patients(SHIFT)
net = rotation_nets[0]
turned, turns = all_rotations(x[:6])  # (24, 1, 32, 32), (24,)
with torch.no_grad():
    lesion = net(x[:6]).argmax(1)
    position = net(turned, auxiliary=True)[0].argmax(1)
said = [class_names[k] for k in lesion.tolist()] + [f"{90 * p} deg" for p in position.tolist()[6:]]
true = [class_names[k] for k in y[:6].tolist()] + [f"{90 * p} deg" for p in turns.tolist()[6:]]
words = [f"says {a}" + ("" if a == b else f"\nWRONG: is {b}") for a, b in zip(said, true)]
figure = figures.image_grid(turned, titles=words, columns=6, heading="scanner C: the lesion (first row), and the position of turned images")
for ax, word in zip(figure.axes, words):
    ax.title.set(fontsize=9, color="#b2182b" if "WRONG" in word else "#222222")
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# The second question can be marked: we turned the images ourselves. If both answers fail together on the new scanner, then
# to repair the one might repair the other. Do they fail together?

# %%
fail = {"names the lesion": [], "names the position": []}
for strength in SIZE["strengths"]:
    images, labels = patients(strength)
    turned, turns = all_rotations(images[: SIZE["images"] // 2])
    with torch.no_grad():
        main = [balanced_accuracy(labels, m(images).argmax(1)) for m in rotation_nets.values()]
        second = [(m(turned, auxiliary=True)[0].argmax(1) == turns).double().mean().item() for m in rotation_nets.values()]
    for name, values in zip(fail, (main, second)):
        fail[name].append(seed_interval(values, bounds=(0, 1)))
for name, values in fail.items():
    print(f"{name:20s}" + "   ".join(f"C at {s:.2f}: {v}" for s, v in zip(SIZE["strengths"], values)))
figures.lines_with_intervals(
    SIZE["strengths"], {name: ([v.mean for v in values], [(v.low, v.high) for v in values]) for name, values in fail.items()},
    xlabel="strength of scanner C", ylabel="balanced accuracy, accuracy", ylim=(0, 1.02),
    title=f"both tasks without adaptation ({len(rotation_nets)} seeds, 95%)",
)
for name, values in fail.items():
    print(f"{name}: {values[0].mean:.2f} at home, {values[-1].mean:.2f} on scanner C")

# %% [markdown]
# Chance is 1/6 for the lesion and 1/4 for the position; the intervals are over training seeds. Read two things. *At home*
# (strength 0): how often is the position right where nothing has shifted? A picture that looks the same upside down has no
# answer to give. Of the three organs of our phantoms only the pear has two unlike ends, an oval or a box turned by 180
# degrees is an oval or a box again; a cell in a smear has no upright at all. *On the way to C*: do they fail together? The last
# two lines answer: **compare how far the lesion falls with how far the position does.** A second task that the new scanner
# hardly disturbs has little to repair. Whether its gradient still says something about the first task is measured in part 4.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2 · The letter Y: what must happen before the first patient
#
# TTT needs a network in the shape of a Y: an encoder $\theta_e$ that both tasks use, then two branches, the classifier
# $\theta_m$ (*main*) and a head $\theta_s$ (*self-supervised*). Training minimises both losses at once (TTT, section 2):
#
# $$\min_{\theta_e, \theta_m, \theta_s}\; \frac1n \sum_i \ell_m(x_i, y_i;\, \theta_m, \theta_e) + \ell_s(x_i;\, \theta_s, \theta_e).$$
#
# At test time there is no $y$. Only the second term can be computed, and it moves the encoder. **That is the price: a network
# that was trained in the usual way cannot be adapted so.**

# %% tags=["nbval-check-output"]
for kind, net in (("rotation", rotation_nets[0]), ("simclr", simclr_nets[0])):
    shared, whole = (sum(p.numel() for p in group) for group in (net.encoder_parameters().values(), net.parameters()))
    outputs, features = net(x[:2], auxiliary=True)
    print(f"{kind:9s} shared stages {net.shared_stages}, {shared:,} of {whole:,} parameters; "
          f"second head: {tuple(outputs.shape)}, shared features: {tuple(features.shape)}")
try:
    TTT(plain_nets[0])
except SeminarError as error:
    print("a plain network:", error)


# %% [markdown] slideshow={"slide_type": "subslide"}
# **Exercise `ttt.rotations`** (difficulty 1, 6 minutes). Every image of $x$ (B, C, S, S) in all four positions. Return the
# turned images (4B, C, S, S), first all upright ones, then all turned once (counter-clockwise, as `torch.rot90` does), and so
# on, and the number of quarter turns of each, integers (4B,).

# %%
def rotations(x):
    """All four positions of x (B, C, S, S): (4B, C, S, S) and the number of turns (4B,)."""
    raise NotImplementedError


rotations = exercise("ttt.rotations", rotations)


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3 · TTT from scratch
#
# For each batch: turn, ask, one step of gradient descent on the encoder, then classify (TTT, section 2 and its online version).
#
# $$\theta_e \leftarrow \theta_e - \eta\, \nabla_{\theta_e}\, \ell_s(x;\, \theta_s, \theta_e), \qquad \hat y = f(x;\, \theta_m, \theta_e).$$
#
# Note the order. Tent returned the answer from *before* its update; TTT practises first.
#
# **Exercise `ttt.step`** (difficulty 2, 10 minutes). `model(images, auxiliary=True)` returns the outputs of the second head
# and the shared features; `model(x)` returns the logits. The loss is the cross-entropy of the four positions. The optimiser
# holds what may move; clear old gradients. Return the logits of the upright images, from **after** the update.

# %%
def ttt_step(model, x, optimizer):
    """Practise on x (B, C, S, S), then return the logits (B, K) of the moved encoder."""
    raise NotImplementedError


ttt_step = exercise("ttt.step", ttt_step)


# %%
class TTTFromScratch:
    """TTT, online: SGD on the shared encoder; batch statistics, as in the package's default."""

    def __init__(self, model, lr=1e-3):
        copied = BatchNormAdapt(model).model  # a private copy, frozen, with the statistics of the batch
        moving = [p.requires_grad_(True) for p in copied.encoder_parameters().values()]
        self.model, self.optimizer = copied, torch.optim.SGD(moving, lr=lr)

    def __call__(self, x):
        return ttt_step(self.model, x, self.optimizer)


# %% tags=["nbval-check-output"]
ours, package = TTTFromScratch(rotation_nets[0].double()), TTT(rotation_nets[0].double())
gap = max((ours(batch) - package(batch)).abs().max().item() for batch in x[:24].double().split(8))
rotation_nets[0].float()
print("TTT: notebook = package, max |difference| below 1e-10:", gap < 1e-10)


# %% [markdown] slideshow={"slide_type": "slide"} notes="Let the class predict the sign of the cosine first. The honest answer: nobody knows before it is measured."
# ## 4 · Why TTT alone can hurt
#
# The step goes down $\ell_s$. What does it do to $\ell_m$, the loss that we cannot see? To first order
#
# $$\ell_m(\theta_e - \eta\,\nabla \ell_s) \approx \ell_m(\theta_e) - \eta\; \langle \nabla \ell_m, \nabla \ell_s \rangle .$$
#
# The inner product decides: positive, and the second task helps the first; negative, and it hurts; near zero, and it does
# neither. (TTT's Theorem 1 says the same, for convex and smooth losses.) Both gradients are taken with respect to the
# *shared* parameters. Its size depends on the scale of the losses, so look at the cosine.
#
# **Exercise `ttt.gradient_cosine`** (difficulty 2, 10 minutes). Two losses (scalars) and a list of parameters. All parameters
# together are one long vector. One that a loss does not touch counts as zero. Leave no gradient behind in `.grad`. (Where a
# whole gradient is zero there is no cosine; no test asks for one.)

# %%
def gradient_cosine(main, auxiliary, parameters):
    """Cosine of the gradients of two losses over all parameters together: one number in [-1, 1]."""
    raise NotImplementedError


gradient_cosine = exercise("ttt.gradient_cosine", gradient_cosine)

# %% [markdown]
# To measure it we need the labels of scanner C. **No clinic has them, and no method below sees them**: this is an autopsy.
# For batches of 32 patients we note the cosine, and what one step down the second loss really does to both losses. Steps
# have the same length for both tasks, so that the task is compared and not its rate: 0.01%, 0.3% and 1% of the norm of the
# encoder's weights.

# %%
VIEWS = TwoViews()  # crop, flip, brightness, contrast, blur: the views the network was trained with


def second_loss(model, images, generator):
    """The loss of the model's own second task on these images."""
    if model.task == "rotation":
        turned, turns = rotations(images)
        return F.cross_entropy(model(turned, auxiliary=True)[0], turns)
    first, second = model(VIEWS(images, generator), auxiliary=True)[0].chunk(2)
    return contrastive_loss(torch.stack([first, second], dim=1), temperature=0.5)


LENGTHS = (1e-4, 3e-3, 1e-2)  # of a step, as a share of the norm of the weights


def autopsy(trained, images, labels):
    """Cosine of both gradients on a batch; for each length of a step down the second loss, the change of both losses."""
    model = BatchNormAdapt(trained).model
    moving = [p.requires_grad_(True) for p in model.encoder_parameters().values()]
    main = F.cross_entropy(model(images), labels)
    other = second_loss(model, images, torch.Generator().manual_seed(0))
    cosine = float(gradient_cosine(main, other, moving))
    downhill = torch.autograd.grad(other, moving)
    unit = torch.stack([p.detach().norm() for p in moving]).norm() / torch.stack([g.norm() for g in downhill]).norm()
    changes, gone = [], 0.0
    with torch.no_grad():
        for length in LENGTHS:
            for p, g in zip(moving, downhill):
                p -= (length - gone) * unit * g
            gone = length
            changes.append((second_loss(model, images, torch.Generator().manual_seed(0)) - other).item())  # seen
            changes.append((F.cross_entropy(model(images), labels) - main).item())  # not seen
    return cosine, *changes


x_many, y_many = patients(SHIFT, n=32 * SIZE["cosines"])
found = {  # task -> (batches over all seeds, 1 + 2 * lengths): the cosine; second and main loss by each step
    task: np.array([autopsy(net, images, labels) for net in nets.values()
                    for images, labels in stream(x_many, y_many, 32, "iid", 0)])
    for task, nets in (("rotation", rotation_nets), ("contrast", simclr_nets))
}
foretold = {}  # (task, length) -> share of batches in which the sign of the cosine foretold the main loss
for task, values in found.items():
    cosine = values[:, 0]
    print(f"{task}: mean cosine {seed_interval(cosine.reshape(len(SIZE['seeds']), -1).mean(1), bounds=(-1, 1))} (over seeds), "
          f"from {cosine.min():+.2f} to {cosine.max():+.2f}, negative in {(cosine < 0).mean():.0%} of {len(cosine)} batches")
    for length, second, main in zip(LENGTHS, values[:, 1::2].T, values[:, 2::2].T):
        foretold[task, length] = (np.sign(cosine) == -np.sign(main)).mean()
        trapped = ((second < 0) & (main > 0)).mean()
        print(f"   step of {length:5.2%}: the second loss (seen) rose in {(second > 0).mean():4.0%} of the batches, the main loss (not "
              f"seen) in {(main > 0).mean():4.0%}; it rose WHILE the seen one fell in {trapped:4.0%}; as the sign of the cosine foretold "
              f"in {foretold[task, length]:4.0%}")

# %% tags=["readme-figure:ttt-cosine"]
figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharex=True)
for ax, (task, values), colour in zip(axes, found.items(), figures.PALETTE):
    ax.plot(values[:, 0], values[:, 2], "o", color=colour, alpha=0.7)
    ax.axhline(0, color="#444444", linewidth=1)
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set(xlabel="cosine of the two gradients", ylabel="change of the main loss", title=f"{task}: a short step, one dot a batch")
plt.show()

# %% [markdown] slideshow={"slide_type": "subslide"}
# Read the scatter by its quarters (each panel has its own vertical scale). Right and below: the tasks agree, and the step helps.
# Left and above: they disagree, and the step hurts, **though the loss that the method sees has fallen**. The sign of the cosine
# foretells what the shortest step does; that is what a derivative means.
#
# Then go down the printed rows. Where the *second* loss rises, too, the step was simply too long, and that can be seen without
# a label: lower the rate. The trap is the third number of a row, the batches in which the seen loss fell *while* the main loss
# rose: there nothing that the method sees warns it. Compare it between the tasks at the shortest step, where it is a matter of
# agreement alone, and follow it to the longer ones, where either task can be caught before its own loss tells. So a step must not
# overshoot, **of which its own loss tells only a part**, and the tasks must agree, **which no unlabelled number here tells**.
#
# Two cautions. The two tasks live in different networks, which share different stages and numbers of parameters (part 2 printed
# them): the rows compare network and task together. And agreement is not yet a gain: a loss may fall without one answer
# changing, and the steps that the methods take by default are near the shortest of these, or shorter (part 9 prints them).
#
# And when one goes on? TTT on one batch, again and again, with a hundred times its rate: the loss that it sees, and the one
# that it does not. Three networks and 64 patients: an illustration, not an estimate.

# %%
images, labels = x[:64], y[:64]
turned, turns = all_rotations(images)
figure, axes = plt.subplots(1, len(rotation_nets), figsize=(4 * len(rotation_nets), 3.6), sharey=True)
for ax, (seed, net) in zip(axes, rotation_nets.items()):
    method, curve = TTT(net, lr=1e-1), {"rotation loss (seen)": [], "classification loss": [], "balanced accuracy": []}
    for step in range(SIZE["practice"] + 1):
        with torch.no_grad():
            logits, outputs = method.model(images), method.model(turned, auxiliary=True)[0]
        now = F.cross_entropy(outputs, turns).item(), F.cross_entropy(logits, labels).item(), balanced_accuracy(labels, logits.argmax(1))
        for values, value in zip(curve.values(), now):
            values.append(value)
        if step < SIZE["practice"]:
            method(images)
    for name, values in curve.items():
        ax.plot(values, label=name)
    ax.set(title=f"network of seed {seed}", xlabel="steps on the same 64 patients")
    print(f"seed {seed}: " + "; ".join(f"{name} {values[0]:.2f} to {values[-1]:.2f}" for name, values in curve.items()))
axes[0].set_ylabel("loss, or balanced accuracy")
axes[0].legend(fontsize=9)
plt.show()


# %% [markdown]
# The method stops when *we* say so. Compare, network by network, how the seen loss went with how the unseen one went: does the
# one that is seen tell you which network it would have been better to leave alone? TTT++ asks for a better task, and for
# something that holds the features while they move.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5 · TTT++, part one: contrast
#
# Rotation may be the wrong task for an organ. SimCLR's asks less: two views $i, j$ of one image belong together, and apart from
# those of all other images of the batch (SimCLR, eq. 1):
#
# $$\ell_{i,j} = -\log \frac{\exp(\mathrm{sim}(z_i, z_j)/\tau)}{\sum_{k \neq i} \exp(\mathrm{sim}(z_i, z_k)/\tau)},
# \qquad \mathrm{sim}(a, b) = \frac{a^\top b}{\lVert a\rVert\,\lVert b\rVert}.$$
#
# That is a cross-entropy: among $2B - 1$ candidates, find the partner.
#
# A warning that belongs to our data: a crop changes the *size* of a lesion and a change of brightness its *tone*, and size and
# tone are the six classes here. Views that differ in what the doctor asks for may teach the features to forget it. We do not
# measure that by itself; *contrast only* in part 9 is where it would show.

# %%
def nt_xent(first, second, temperature=0.5):
    """SimCLR's loss of two views, each (B, d), of the same images."""
    z = F.normalize(torch.cat([first, second]), dim=1)  # (2B, d)
    itself = torch.eye(len(z), dtype=torch.bool)
    similarity = (z @ z.T / temperature).masked_fill(itself, float("-inf"))  # (2B, 2B)
    partner = torch.arange(len(z)).roll(len(first))  # i + B for the first views, i - B for the second
    return F.cross_entropy(similarity, partner)


shown = VIEWS(x[:4], torch.Generator().manual_seed(1))  # (8, 1, 32, 32): the first views, then the second
with torch.no_grad():
    z = F.normalize(BatchNormAdapt(simclr_nets[0]).model(shown, auxiliary=True)[0], dim=1)
similarity = z[:4] @ z[4:].T
print(f"similarity of partners {similarity.diag().mean():.2f}, of strangers {similarity[~torch.eye(4, dtype=torch.bool)].mean():.2f}")
figures.image_grid(shown, columns=4, heading="two views of four patients (a column each): the views decide what the features forget")


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6 · Part two: moments that stay at home
#
# The classifier stands still. It learnt where *source* features lie. So whatever the encoder does, its features should keep
# lying there. Nobody can compare patient by patient; but a mean and a covariance can be compared, and they can be **handed over
# without a single image**: measured once before shipping ("offline"), compared at every batch ("online"):
#
# $$D_\Sigma = \frac{\lVert \Sigma_s - \Sigma_t \rVert_F^2}{4 d^2}, \qquad
# D_\mu = \frac1d \lVert \mu_s - \mu_t \rVert^2 .$$
#
# By hand, $d = 2$, two features $(0, 0)$ and $(2, 4)$: $\mu_t = (1, 2)$, and with $n - 1 = 1$ the covariance is
# $\begin{pmatrix}2 & 4\\ 4 & 8\end{pmatrix}$. Against $\mu_s = 0$, $\Sigma_s = 0$: $D_\Sigma = (4 + 16 + 16 + 64)/16 = 6.25$ and
# $D_\mu = (1 + 4)/2 = 2.5$.
#
# **Exercise `ttt.moment_distance`** (difficulty 2, 10 minutes). Features (n, d), mean (d,), covariance (d, d); return
# $(D_\Sigma, D_\mu)$. The gradient must reach the features.

# %%
def moment_distance(features, mean, cov):
    """(D_Sigma, D_mu) of features (n, d) against source moments, mean (d,) and cov (d, d)."""
    raise NotImplementedError


moment_distance = exercise("ttt.moment_distance", moment_distance)

# %% tags=["nbval-check-output"]
two = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
print("the example from above:", [round(d.item(), 2) for d in moment_distance(two, torch.zeros(2), torch.zeros(2, 2))])

# %% [markdown]
# A distance needs a unit. TTT++ divides each of the two by its average *between batches of the source itself*: a value of 1
# then means "as far away as one batch from home lies from another", for batches as large as those that made the unit (of
# scanners A and B, size printed below). Fewer patients lie further away by chance alone (part 7), and the moments were taken with the
# statistics of the batch, so the stored statistics get a control of their own, at home:

# %%
source_x, source_y = patients(1.0, SIZE["source"], "AB", "train")
source_batches = source_x.split(SIZE["source_batch"])
make = plus_plus(source_batches)  # TTT++ by its settings; the moments of a network are taken once
moments = {seed: make()(net).source for seed, net in simclr_nets.items()}


def features_of(trained, images, statistics=BatchNormAdapt):
    """Features (N, d) that the classifier reads."""
    with torch.no_grad():
        return statistics(trained).model.embed(images)


net, home = simclr_nets[0], moments[0]["features"]
x_home, _ = patients(1.0, scanner="A")
for what, statistics, images in (("scanner A, batch statistics", BatchNormAdapt, x_home),
                                 ("scanner A, stored statistics", Source, x_home),
                                 ("scanner C, batch statistics", BatchNormAdapt, x),
                                 ("scanner C, stored statistics", Source, x)):
    by_cov, by_mean = home.distance(features_of(net, images, statistics), mean_factor=1.0)
    print(f"{what:29s} covariance {by_cov:10.1f}, mean {by_mean:10.1f} ({len(images)} patients)")
print(f"1: as far as a batch of {SIZE['source_batch']} from home lies from another")

# %%
at_home, at_c = (features_of(net, images) for images in (source_x[:512], x))
_, _, axes_of = torch.pca_lowrank(at_home, 2)
adapted = make()(net)
for images, _ in stream(x, y, 64, "iid", 0):
    adapted(images)
with torch.no_grad():
    after = adapted.model.embed(x)
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True, sharey=True)
for ax, now, title in zip(axes, (at_c, after), ("batch statistics alone", "after one pass of TTT++")):
    for values, marks, name in ((at_home, ".", "scanners A and B"), (now, "x", f"scanner C at {SHIFT}")):
        ax.plot(*((values - home.mean) @ axes_of).T.numpy(), marks, markersize=5, alpha=0.6, linestyle="none", label=name)
    ax.set(title=title, xlabel="first direction")
axes[0].set_ylabel("second direction")
axes[0].legend(fontsize=10)
plt.show()

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7 · Part three: the queue, and a bug
#
# Sixteen patients do not measure a covariance of 64 dimensions. So TTT++ keeps the features of *past* batches in a queue
# (first in, first out), **detached**: they lend their weight to the moments, but the past is not learnt from again.

# %%
rng, counts = np.random.default_rng(0), [16, 32, 64, 128, 256]
draws = {  # images first, features then: each small batch is normalised by itself, as in use
    n: [features_of(simclr_nets[0], source_x[rng.choice(len(source_x), n)]) for _ in range(SIZE["trials"] // 25)] for n in counts
}
errors = [np.mean([coral(covariance(d), home.cov).item() for d in draws[n]]) / home.mean_coral for n in counts]
figures.lines_with_intervals(counts, {"source features, measured": errors}, xlabel="features in the moments",
                             ylabel="D of the covariance (1: two source batches)", title="how far from home a small sample of HOME seems to be")


# %% [markdown] slideshow={"slide_type": "subslide"}
# In the official code `get` returns the queue's storage *itself*. The batch is then written into the storage, and only
# afterwards are batch and queue put together. What was asked for as "the past" now holds the present.
#
# **Exercise `ttt.queue`** (difficulty 3, 12 minutes). Do it right. `storage` (L, d) is full; its oldest row is number
# `pointer`. Return first the batch (n, d), with its gradient, then the storage **as it was**, together (n + L, d); and the new
# pointer. Write the batch, without gradient, over the oldest rows of `storage`, in place; after the last row comes row 0. A
# batch is never longer than the storage (n <= L).

# %%
def use_and_remember(storage, pointer, batch):
    """(batch first, then the past: (n + L, d); new pointer); writes the batch, n <= L, over the oldest rows of storage."""
    raise NotImplementedError


use_and_remember = exercise("ttt.queue", use_and_remember)

# %% [markdown]
# What the bug does to the numbers, on the golden inputs: five batches of 8 features, a queue of 16. Both distances are weighted
# as TTT++ does it. (The bug needs a full queue: of 320 patients in batches of 64, as in part 9, a queue of 256 is full for the
# last batch only.)

# %% tags=["nbval-check-output"]
data = golden("tttpp_alignment")
official = SourceMoments.of([torch.from_numpy(b) for b in data["in:source_batches"]], drop_first=True)
storage, pointer = torch.zeros(16, 6, dtype=torch.float64), 0
for number, batch in enumerate(torch.from_numpy(data["in:target_batches"])):
    was_full, live = number >= 2, storage
    used, pointer = use_and_remember(storage, pointer, batch)  # right: the past as it was
    buggy = torch.cat([batch, live])  # official: the same storage, after it was written into
    if was_full:
        twice = (buggy[:, None] == batch[None]).all(2).sum(0).max().item()
        once = (used[:, None] == batch[None]).all(2).sum(0).max().item()
        print(f"batch {number}: in the moments {twice} times (official), {once} time (ours)", end="")
        for name, rows in (("with the bug", buggy), ("without", used)):
            by_cov, by_mean = official.distance(rows, float(data["hp:scale"]))
            print(f"; {name} D_Sigma {by_cov:.3f}, D_mu {by_mean:.3f}", end="")
        print()


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 8 · TTT++ from scratch, and the parity cell
#
# All together: contrast of two views, plus the distance of the moments behind the projection head and behind the encoder,
# down one step; then answer. Contrast needs no weight; the alignments have 0.2 and 0.05, the paper's for CIFAR-10, and the mean
# counts half.

# %%
class TTTPlusPlusFromScratch:
    """TTT++, online: the lesson's version, for batches that fill the queue exactly."""

    def __init__(self, model, source, lr=1e-4, queue_length=256, seed=0):
        self.model = BatchNormAdapt(model).model
        moving = [p.requires_grad_(True) for p in self.model.encoder_parameters().values()]
        self.optimizer = torch.optim.SGD(moving, lr=lr, momentum=0.9)
        self.spaces = {"projections": (source["projections"], 0.2), "features": (source["features"], 0.05)}
        self.queues, self.length = dict.fromkeys(self.spaces), queue_length  # name -> (storage, pointer)
        self.generator = torch.Generator().manual_seed(seed)

    def with_the_past(self, space, batch):
        """The batch (n, d) with what the queue holds, (n + m, d), and the batch remembered."""
        storage, pointer = self.queues[space] or (batch[:0].detach(), 0)
        if len(storage) < self.length:  # still filling
            used, storage = torch.cat([batch, storage]), torch.cat([storage, batch.detach()])
        else:
            used, pointer = use_and_remember(storage, pointer, batch)
        self.queues[space] = storage, pointer
        return used

    def __call__(self, x):
        loss = 0.0
        for (space, (source, weight)), batch in zip(self.spaces.items(), self.model(x, auxiliary=True)):
            by_cov, by_mean = moment_distance(self.with_the_past(space, batch), source.mean, source.cov)
            loss = loss + weight * (by_cov / source.mean_coral + 0.5 * by_mean / source.mean_mmd)
        views = VIEWS(x, self.generator)  # (2B, C, H, W)
        loss = loss + nt_xent(*self.model(views, auxiliary=True)[0].chunk(2))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            return self.model(x)


# %% [markdown] slideshow={"slide_type": "subslide"}
# **The parity cell.** Yours against the package's (the same thing finished: it resets bit for bit, takes batches of any size,
# refuses moments of other widths) over more batches than fill the queue; and the package's parts against numbers from
# the authors' functions (`tests/golden/`), with their bug and without it.

# %% tags=["nbval-check-output"]
net = simclr_nets[0].double()
exact = TTTPlusPlus(net, VIEWS).fit_source([b.double() for b in source_x[:64].split(16)]).source
ours, package = TTTPlusPlusFromScratch(net, exact, queue_length=16), TTTPlusPlus(net, VIEWS, source=exact, queue_length=16)
images = x[:40].double().split(8)
gap = max((ours(batch) - package(batch)).abs().max().item() for batch in images)
simclr_nets[0].float()
print(f"TTT++: notebook = package over {len(images)} batches, max |difference| below 1e-8:", gap < 1e-8)

pair = torch.from_numpy(data["in:contrastive:features"])  # (6, 2, 8)
plain = data["out:contrastive:simclr:tau0.5_base0.5:loss"]
contrast_gap = max(abs(nt_xent(pair[:, 0], pair[:, 1]).item() - plain), abs(contrastive_loss(pair).item() - plain))
print("contrast: notebook = package = official code:", contrast_gap < 1e-8)
ratio = float(data["out:contrastive:simclr:tau0.5_base0.07:loss"] / plain)
print(f"the official default is {ratio:.2f} times that loss: its base temperature of 0.07")

batches = [torch.from_numpy(b) for b in data["in:source_batches"]]
first = moment_distance(batches[0], batches[1].mean(0), covariance(batches[1]))
numbers = data["out:coral_batch0_vs_batch1"], data["out:linear_mmd_batch0_vs_batch1"]
parts_gap = max(abs(a.item() - b) for a, b in zip(first, numbers))
parts_gap = max(parts_gap, abs(linear_mmd(batches[0].mean(0), batches[1].mean(0)).item() - numbers[1]))
print("distances: notebook = official code:", parts_gap < 1e-8)

queue, bug_gap, copied_gap = FeatureQueue(16, 6).double(), 0.0, 0.0
for number, batch in enumerate(torch.from_numpy(data["in:target_batches"])):
    was_full, before = queue.full, queue.snapshot()
    queue.push(batch)
    if was_full:
        key = f"out:push{number}"
        for past, where in ((queue.snapshot(), key), (before, f"{key}:if_queue_were_copied")):
            found = [d.item() for d in official.distance(torch.cat([batch, past]), float(data["hp:scale"]))]
            off = max(abs(f - data[f"{where}:loss_{name}"]) for f, name in zip(found, ("coral", "mmd")))
            bug_gap, copied_gap = (max(bug_gap, off), copied_gap) if where == key else (bug_gap, max(copied_gap, off))
print("queue, written before it is used = official code:", bug_gap < 1e-8)
print("queue, used before it is written = official numbers for a copied queue:", copied_gap < 1e-8)

# %%
print("max |difference|:", ", ".join(f"{what} {value:.1e}" for what, value in (
    ("TTT++", gap), ("contrast", contrast_gap), ("distances", parts_gap), ("bug", bug_gap), ("copied", copied_gap))))

# %% [markdown] slideshow={"slide_type": "slide"} notes="Show the printed differences only, and let the class say which sentence each of them allows. Then the figure."
# ## 9 · Does it help?
#
# Three networks of each kind, which differ in their training seed. Each method has its control beside it: **batch statistics
# alone in the SAME network.** TTT's network, TTT++'s and the plain one were trained differently, so to compare TTT++ with the
# BN of another network would credit the method with the training. Settings are the package's defaults throughout.
#
# First live, a short stream; the intervals are over three seeds and the same patients each time.

# %%
KINDS = {"rotation": (rotation_nets, {"TTT": TTT}), "simclr": (simclr_nets, {"TTT++": make()})}
x_short, y_short = patients(SHIFT, SIZE["stream"])
about = {"data": "phantoms", "scanner": "C", "strength": SHIFT}


def in_points(difference):
    """A gain in points with its interval."""
    bounds = [100 * value for value in (difference.mean, difference.low, difference.high)]
    digits = 1
    while digits < 4 and any(value and float(f"{value:.{digits}f}") == 0 for value in bounds[1:]):
        digits += 1  # no end of an interval is rounded to zero
    mean, low, high = (f"{value:+.{digits}f}" for value in bounds)
    return f"{mean} [{low}, {high}]"


def in_words(difference, what):
    """A gain in points and whether its interval excludes zero."""
    verdict = "excludes zero" if difference.excludes_zero() else "NOT distinguishable from zero"
    return f"{what}: {in_points(difference)} points, {verdict}"


for kind, (nets, own) in KINDS.items():
    controls = {"source": Source, "BN": BatchNormAdapt, "Tent": Tent}
    said = {}
    rows = measure("ttt.live", controls | own, nets, x_short, y_short, params={**about, "network": kind}, results=said)
    print(f"{kind:9s}" + "   ".join(f"{method} {interval}" for method, interval in summarise(rows).items()))
    for method in ("Tent", *own):
        changed = np.mean([(said[method, s].predictions != said["BN", s].predictions).mean() for s in nets])
        print("          " + in_words(gain(rows, over="BN", of=method), f"{method} - BN of the same network")
              + f"; it changed {changed:.1%} of BN's answers")


def step_shares(method):
    """The length of each step over the short stream, and of the whole way, as shares of the norm of the moving weights."""
    def now():
        return torch.cat([p.detach().flatten().clone() for p in method.parameters_to_adapt().values()])

    start = before = now()
    lengths = []
    for images, _ in stream(x_short, y_short, 64, "iid", 0):
        method(images)
        after = now()
        lengths.append(((after - before).norm() / start.norm()).item())
        before = after
    return lengths, ((after - start).norm() / start.norm()).item()


for kind, (nets, own) in KINDS.items():
    for name, build in own.items():
        lengths, ways = zip(*(step_shares(build(net)) for net in nets.values()))
        print(f"{name}: a step by default moves the encoder by {np.min(lengths):.4%} to {np.max(lengths):.4%} of its norm; "
              f"the whole stream by {min(ways):.4%} to {max(ways):.4%} (part 4's shortest: {LENGTHS[0]:.2%})")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Compare the last lines with the steps of part 4. Where a method is not distinguishable from BN after so short a way, that says
# something about *these rates and short streams*, and nothing about what the task could do.
#
# **The long table** (`python -m seminar_utils.recipes.ttt_table`, a quarter of an hour of one core; read from the results
# store). More patients, two strengths, patients in random order or sorted by class, batches of 64 and 16. Its differences have
# intervals over **training seeds and patients together** (lesson 09): the method is judged, not these three networks.
#
# *contrast only* is TTT++ without alignment, *alignment only* without contrast. *stored* means the statistics that BatchNorm
# remembers from training; its control is the source model.

# %%
table = store.rows(experiment="ttt.table")
differences = {}  # (strength, order, batch size) -> (after, network, before, its network) -> row
for row in store.rows(experiment="ttt.difference"):
    p = row["params"]
    where, what = (p["strength"], p["order"], p["batch_size"]), (p["after"], p["network"], p["before"], p["network_before"])
    differences.setdefault(where, {})[what] = row
CONDITIONS = sorted(differences, key=lambda c: (-c[0], c[1] != "iid", -c[2]))  # whole conditions only
print(f"{len(table)} runs of {table[-1]['time'][:10]}, commit {table[-1]['commit']}, device {table[-1]['device']}, "
      f"{table[0]['params']['images']} patients, seeds {sorted({row['seed'] for row in table})}")


def told(where):
    """A condition in words."""
    strength, order, size = where
    return f"C {strength}, {'random order' if order == 'iid' else 'sorted'}, {size}"


def print_grid(heading, columns):
    """A line for each condition, a column for each of `columns`: name -> function of the condition to a cell's text."""
    lines = [[told(where), *(cell(where) for cell in columns.values())] for where in CONDITIONS]
    widths = [max(map(len, column)) for column in zip(["", *columns], *lines)]
    print(f"\n{heading}")
    for line in (["", *columns], *lines):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def runs_of(where, network):
    """The runs of one network under one condition."""
    strength, order, size = where
    return [r for r in table if r["params"]["network"] == network and r["params"]["strength"] == strength
            and r["params"]["order"] == order and r["params"]["batch_size"] == size]


KEPT = {"plain": ("source", "BN", "Tent"), "rotation": ("source", "BN", "Tent", "TTT"),
        "simclr": ("source", "BN", "Tent", "contrast only", "alignment only", "TTT++")}
summaries = {(where, network): summarise(runs_of(where, network)) for where in CONDITIONS for network in KEPT}
for network, methods in KEPT.items():
    print_grid(f"{network} network: balanced accuracy, mean and interval over seeds (strength, order, patients a batch)",
               {m: lambda where, m=m, n=network: "{0.mean:.2f} [{0.low:.2f}, {0.high:.2f}]".format(summaries[where, n][m])
                for m in methods})


# %% [markdown] slideshow={"slide_type": "subslide"}
# First the controls: do the three kinds of networks start from the same place? (Paired by seed, the same patients.)

# %%
def start_apart(where, network):
    """BN in this network minus BN in the plain one, paired by seed."""
    start = {name: by_method(runs_of(where, name))["BN"] for name in ("plain", network)}
    seeds = sorted(start["plain"])
    return paired_difference([start["plain"][s] for s in seeds], [start[network][s] for s in seeds])


def marked(found):
    """In points; a star where the interval, not corrected, excludes zero."""
    return in_points(found) + ("*" if found.excludes_zero() else "")


print_grid("BN minus BN of the plain network, points, over seeds (*: the interval excludes zero)",
           {network: lambda where, n=network: marked(start_apart(where, n)) for network in ("rotation", "simclr")})


# %% [markdown]
# A method that starts lower has more to win back. Next, what BN itself does to the source model, in each kind of network; then,
# what each part is worth over the batch statistics of *its own* network.

# %%
def difference(where, after, network, before="BN", network_before=None):
    """The stored difference as an Interval, and its p."""
    row = differences[where][after, network, before, network_before or network]
    low, high = np.clip(row["intervals"]["difference"], -1, 1)  # no two accuracies differ by more
    return Interval(row["metrics"]["difference"], low, high), row["metrics"]["p"]


def over(before, pairs):
    """Columns of a grid: each (method, network) minus `before` in the same network."""
    return {f"{after} ({network})": lambda where, a=after, n=network: marked(difference(where, a, n, before)[0])
            for after, network in pairs}


print_grid("BN minus source of the same network, points, seeds and patients (*: the interval excludes zero, not corrected)",
           over("source", [("BN", network) for network in KEPT]))

OVER_BN = (("Tent", "plain"), ("Tent", "rotation"), ("TTT", "rotation"), ("Tent", "simclr"), ("contrast only", "simclr"),
           ("alignment only", "simclr"), ("TTT++", "simclr"))
asked = [(where, pair) for where in CONDITIONS for pair in OVER_BN]
adjusted = dict(zip(asked, holm([difference(where, *pair)[1] for where, pair in asked])))
for pairs in (OVER_BN[:4], OVER_BN[4:]):
    print_grid("over BN of the same network, points, seeds and patients (*: excludes zero, not corrected)", over("BN", pairs))
alone = [difference(where, *pair)[0].excludes_zero() for where, pair in asked]
print(f"\nof {len(asked)} intervals {sum(alone)} exclude zero taken alone; about {0.05 * len(asked):.0f} would if nothing did anything; "
      f"after Holm's correction {sum(p < 0.05 for p in adjusted.values())} (smallest p {min(adjusted.values()):.2f})")
print("half the width of the interval in points, median over the conditions: " + ", ".join(
    f"{after} ({network}) {50 * np.median([f.high - f.low for f in (difference(w, after, network)[0] for w in CONDITIONS)]):.1f}"
    for after, network in OVER_BN))

# %% tags=["readme-figure:ttt-over-bn"]
columns = min(4, len(CONDITIONS))
lines = -(-len(CONDITIONS) // columns)
figure, axes = plt.subplots(lines, columns, figsize=(2.9 * columns + 1.6, 3.6 * lines), sharex=True, sharey=True, squeeze=False)
for ax in axes.flat[len(CONDITIONS):]:
    ax.set_axis_off()
for ax, where in zip(axes.flat, CONDITIONS):
    for place, pair in enumerate(OVER_BN):
        found = difference(where, *pair)[0]
        sure = adjusted[where, pair] < 0.05  # after the correction
        colour = "#777777" if not sure else figures.PALETTE[2] if found.mean > 0 else figures.PALETTE[1]
        ax.plot([100 * found.low, 100 * found.high], [place, place], "-|", color=colour, markersize=10)
        ax.plot(100 * found.mean, place, "o", color=colour, markersize=8)
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set(title=told(where), xlabel="points over BN", ylim=(len(OVER_BN) - 0.5, -0.5))
    ax.title.set_fontsize(11)
axes[0, 0].set_yticks(range(len(OVER_BN)), [f"{after} ({network})" for after, network in OVER_BN])
figure.suptitle("over BN of the same network; grey: p of 0.05 or more after Holm's correction; green: better, orange: worse", fontsize=11)
plt.show()

# %% [markdown]
# The colour is by the *corrected* p; grey is not shown, **and that is not the same as equal**. Three seeds can show only a very
# steady effect: the last line above says how wide the intervals are. A grey dot far from zero with a wide interval says
# "measure more", a narrow grey one at zero says "little happens at this rate". Compare *alignment only* with *TTT++* before you
# credit contrast with anything.
#
# **So does TTT++ beat Tent?** The table answers, twice: against Tent in the *same* network, which isolates the method; and
# against Tent in the *plain* network, which is what a clinic would choose between. There, and beside TTT in the rotation network,
# the training differs as well (the first grid: BN already differs), so we print those differences and call no winner. All of
# them are corrected together.

# %%
RIVALS = (("Tent", "simclr"), ("Tent", "plain"), ("TTT", "rotation"))
tests = [(where, rival) for where in CONDITIONS for rival in RIVALS]
versus = {key: difference(key[0], "TTT++", "simclr", *key[1]) for key in tests}
corrected = dict(zip(tests, holm([p for _, p in versus.values()])))


def against(rival):
    """Column of a grid: TTT++ minus a rival, with the corrected p."""
    return lambda where: f"{marked(versus[where, rival][0])} p {corrected[where, rival]:.2f}"


print_grid(f"TTT++ minus ..., points, seeds and patients (p after Holm's correction for {len(tests)}; *: not corrected)",
           {f"{method} ({network})": against((method, network)) for method, network in RIVALS})
same = [(versus[w, RIVALS[0]][0].mean, corrected[w, RIVALS[0]] < 0.05) for w in CONDITIONS]
print(f"\nafter the correction {sum(p < 0.05 for p in corrected.values())} of {len(tests)} are below 0.05. Same network, "
      f"{len(same)} conditions: TTT++ ahead in {sum(m > 0 and sure for m, sure in same)}, Tent ahead in "
      f"{sum(m < 0 and sure for m, sure in same)}, not distinguishable in {sum(not sure for _, sure in same)}")
print_grid("TTT++ minus its parts, points, seeds and patients (*: excludes zero, not corrected)",
           {part: lambda where, part=part: marked(difference(where, "TTT++", "simclr", part)[0])
            for part in ("alignment only", "contrast only")})

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Harm and the failure case.** Harm is the share of *all* patients whom the source model of that network had right and the
# method has wrong (so it cannot exceed the source's accuracy). And what if BatchNorm keeps its *stored* statistics, so that self-supervision has to bridge the whole distance alone?

# %%
harms = {key: summarise(runs_of(*key), "harm") for key in summaries}
print_grid("harm, mean over seeds", {
    f"{method} ({network})": lambda where, m=method, n=network: f"{harms[where, n][m].mean:.1%}"
    for network, methods in (("rotation", ("BN", "Tent", "TTT")), ("simclr", ("BN", "Tent", "TTT++"))) for method in methods})
CHANCE = 1 / len(class_names)
print()
for where in CONDITIONS:
    for method, network in (("TTT stored", "rotation"), ("TTT++ stored", "simclr")):
        if (method, network, "source", network) in differences[where]:
            before, after = (by_method(runs_of(where, network))[name] for name in ("source", method))
            print(f"{told(where)}: {method}, by seed: " + ", ".join(f"{before[s]:.2f} to {after[s]:.2f}" for s in sorted(after))
                  + f"; {sum(v < CHANCE + 0.05 for v in after.values())} of {len(after)} end at chance ({CHANCE:.2f})")
            low, high = differences[where][method, network, "source", network]["intervals"]["difference"]
            clipped = " (an end beyond 100 points is cut)" if low < -1 or high > 1 else ""
            print("    " + in_words(difference(where, method, network, "source")[0], f"{method} - source") + clipped)
print("\nsorted by class, simclr network, mean over seeds:")
for where in (w for w in CONDITIONS if w[1] == "class"):
    print(f"{told(where)}: " + ", ".join(f"{m} {summaries[where, 'simclr'][m].mean:.2f}" for m in KEPT["simclr"])
          + "; BN - source " + marked(difference(where, "BN", "simclr", "source")[0]))

# %% [markdown]
# Part 6 printed how far from home the features lie with stored statistics. Loss and gradient grow with that distance, and a rate
# that suits a short way need not suit a long one: read the seeds one by one, a mean of two good networks and one at chance
# describes none of them. (A network that diverged, so that its answers are no numbers any more, counts as chance in these rows;
# the rows do not say which did.)
#
# Sorted patients are the other trap: the alignment wants the moments of all classes from a batch of one class. What did batch
# statistics remove, and does alignment return it? Read the last lines: where *BN - source* lies below zero, compare alignment and
# TTT++ with the source: do they come near it? Where its interval holds zero, the source was so poor on this scanner that
# no loss is shown, and there is nothing to bring back.
#
# **Touch it**: how hard should the moments pull, and with how much memory? Batches of 16, from the store. Part 7 gave a
# reason for the queue and part 6 one for alignment; a reason is not yet a result. First the differences, by seed:

# %%
dial = store.rows(experiment="ttt.dial")
about_dial = dial[0]["params"]
scores = {}  # (weight, queue) -> {seed: balanced accuracy}
for row in dial:
    scores.setdefault((row["params"]["factor"], row["params"]["queue"]), {})[row["seed"]] = row["metrics"]["balanced_accuracy"]
dial_seeds = sorted(scores[0.0, 0])


def between(one, other):
    """Place `other` of the dial minus place `one`, over seeds."""
    return paired_difference(*([scores[place][s] for s in dial_seeds] for place in (one, other)))


print(f"C {about_dial['strength']}, random order, {about_dial['images']} patients in batches of {about_dial['batch_size']}")
for weight in sorted({w for w, _ in scores if w}):
    print(in_words(between((weight, 0), (weight, 64)), f"weight {weight:g}: queue of 64 - no queue"))
for weight, queue in sorted(place for place in scores if place[0]):
    print(in_words(between((0.0, queue), (weight, queue)), f"weight {weight:g}, {f'queue of {queue}' if queue else 'no queue'}: "
                   "alignment - none (contrast only)"))
x_dial, y_dial = patients(SHIFT, about_dial["images"])
bn_dial = seed_interval([
    run_stream(BatchNormAdapt(load_checkpoint(f"resnet_small_simclr-phantoms-s{s}")),
               stream(x_dial, y_dial, about_dial["batch_size"], "iid", s)).metrics()["balanced_accuracy"] for s in dial_seeds],
    bounds=(0, 1))
print("BN of the same networks on these patients:", bn_dial)

# %%
widgets.alignment_dial(
    widgets.alignment_table(dial), control=bn_dial,
    condition=f"C {about_dial['strength']}, random order, {about_dial['images']} patients in batches of {about_dial['batch_size']}",
)

# %% [markdown]
# On these patients, is the queue shown to help at any weight? And is alignment shown to help over contrast alone? Only where
# the printed interval lies above zero. This is one condition and three seeds: it can refute "always", and prove little else.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **A larger look.** The benchmark of lesson 11 (`benchmarks/specs/test_time.toml`) ran TTT and TTT++ too, with their defaults, on 640
# patients, of whom the 320 of the tables above are the first half, and on the same networks: larger, not independent. The strength varies
# in random order in batches of 64, order and batch size vary at 0.7. Over three seeds, each another training and another order. A star:
# real after Holm's correction for the map, and not all of it below one point. (Left out: the stream in which one class has 90%; it
# holds 111 patients, 11 of them in the five rare classes.) *source* is the source minus BN here, so red says that BN helps.
#
# The third map is of the network that the paper had in mind. It used **GroupNorm**, which measures within one image (lesson 11,
# part 9), so that it could meet *one patient at a time*. Ours is one training: the three seeds are three orders of the same patients, a
# star says that another order of them would give the same on this network, and the control is the source.

# %%
bench = readable([row for row in stored("bench.test_time") if row["metrics"] and row["params"]["images"] == 640])
SHOWN = ("source", "BN", "Tent", "TTT", "TTT++")  # lesson 11, part 12, shows the other methods on the GroupNorm network
CONDITION = ("data", "stream", "batch_size")


def bench_of(network):
    """The rows of one network, or one family of three."""
    return [row for row in bench if row["params"]["model"] == network and row["params"]["method"] in SHOWN]


for network, over_what, label in (("resnet_small_rotation", "BN", "TTT, rotation network, BatchNorm"), ("resnet_small_simclr", "BN", "TTT++, SimCLR network, BatchNorm"),
                                  ("resnet_small_rotation_gn-phantoms-s0", "source", "TTT, rotation network, GroupNorm, one training")):
    compared = bench_table(bench_of(network), column_axes=CONDITION, over=over_what, smallest=0.01)
    display(bench_figures.difference_map(compared, f"{label}: balanced accuracy over {over_what}, points (scanner and strength, order, patients a batch)"))

gn_rows = bench_of("resnet_small_rotation_gn-phantoms-s0")
levels_gn, harm_gn = (bench_table(gn_rows, metric=name, column_axes=CONDITION).values for name in ("balanced_accuracy", "harm"))
to_tent = bench_table(gn_rows, column_axes=CONDITION, over="Tent").values
levels_bn = bench_table(bench_of("resnet_small_rotation"), column_axes=CONDITION).values
for size in (64, 4, 1):
    where = ("C 0.7", "random order", size)
    print(f"C 0.7, random order, {size:2d} a batch. GroupNorm: " + ", ".join(f"{m} {levels_gn[(m,), where].mean:.2f}" for m in ("source", "Tent", "TTT"))
          + f"; TTT - Tent {in_points(to_tent[('TTT',), where].difference.interval)}; harm Tent {harm_gn[('Tent',), where].mean:.1%}, TTT "
          f"{harm_gn[('TTT',), where].mean:.1%}. BatchNorm: " + ", ".join(f"{m} {levels_bn[(m,), where].mean:.2f}" for m in ("source", "BN", "TTT")))

# %% [markdown]
# Single patients also make sixty-four times as many steps as batches of 64. Which of the two is it? The same patients, once; the rate of the
# large batch raised so that steps times rate are the same. (No rate is selected here: it makes two ways equally long.)

# %%
gn_net = load_checkpoint("resnet_small_rotation_gn-phantoms-s0")
x_way, y_way = patients(SHIFT, SIZE["way"])
print(f"{len(y_way)} patients, one order; source {run_stream(Source(gn_net), stream(x_way, y_way, 64)).metrics()['balanced_accuracy']:.3f}")
for size, times in ((1, 1), (64, 1), (64, 64)):
    found = run_stream(TTT(gn_net, lr=1e-3 * times), stream(x_way, y_way, size)).metrics()["balanced_accuracy"]
    print(f"TTT, {size:2d} a batch, {-(-len(y_way) // size):3d} steps, rate {1e-3 * times:g}: {found:.3f}")

# %% [markdown]
# **TTT with BatchNorm** stands at its control in every column, also where there was much to gain: with single patients BN is near chance,
# far below the source, and hundreds of steps bring nothing back. It does not repair what broken statistics cost.
#
# **TTT++** has a positive mean in every column; in four of them the interval, taken alone, lies above zero, and none has a star. The columns share
# three networks and mostly the same patients, so they are not so many witnesses, and the long table above has negative means in sorted
# conditions that this map does not hold. A reason to train more seeds, not a result.
#
# **TTT with GroupNorm** is another story: no batch statistics compete, and with single patients it gains, with hardly any harm. The lines
# below the maps say what to make of it. (a) *It is the way travelled.* Fewer steps gain less, and the large batch at the longer step comes
# near the single patients. (b) *Is the rotation the better teacher?* With single patients TTT and Tent are not distinguishable in balanced accuracy, in
# batches of 64 Tent, whose step by Adam is longer, is ahead; what differs is the harm. (c) *Is it the better network?* With mixed batches of
# 64 the BatchNorm network and its statistics are far ahead of it; with single patients they are near chance, and GroupNorm with TTT stands
# far above. One training of it: a case, not a proof.
#
# And part 1 guessed that a task which the scanner hardly disturbs has little to repair. We did not measure the cosine of part 4 on this network:
# a question for your poster.

# %% [markdown] slideshow={"slide_type": "slide"} notes="This is the part to keep if time is short. Ask: how would you stop after the best epoch in your clinic?"
# ## 10 · Who chose the epoch? A leak of test labels
#
# The paper does not adapt online. It goes over the whole test set for up to 500 epochs and then scores it, and the official
# code **stops, and lowers its rate, by the error on the test labels**. What is that worth? The paper's mode, with our defaults:
# all patients again and again; after each epoch we score, and the method never knows.

# %%
epoch_rows = store.rows(experiment="ttt.epochs")
curves = {}  # seed -> {what was scored: values (epochs + 1,)}
for seed in sorted({row["seed"] for row in epoch_rows}):
    mine = {row["params"]["epoch"]: row["metrics"] for row in epoch_rows if row["seed"] == seed}
    curves[seed] = {name: np.array([mine[e][name] for e in sorted(mine)]) for name in mine[0]}
last = min(len(curve["balanced_accuracy"]) for curve in curves.values()) - 1
figures.lines_with_intervals(
    np.arange(last + 1), {f"seed {seed}": curve["balanced_accuracy"][: last + 1] for seed, curve in curves.items()},
    xlabel="epochs over the test patients (0: batch statistics alone)", title="the paper's mode: where would you stop?",
)

# %%
untouched, once, reported, fixed, elsewhere, best_epochs = [], [], [], [], [], []
for curve in curves.values():
    whole, one, two = (curve[name][: last + 1] for name in ("balanced_accuracy", "first_half", "second_half"))
    best_epochs.append(int(whole.argmax()))
    untouched.append(whole[0])  # epoch 0: batch statistics alone
    once.append(whole[1])  # one pass, then the answers
    reported.append(whole.max())  # ORACLE: the test labels chose the epoch
    fixed.append(whole[-1])  # the number of epochs was fixed before
    elsewhere.append([(one.max() + two.max()) / 2, (two[one.argmax()] + one[two.argmax()]) / 2])
own_half, other_half = np.array(elsewhere).T
LEAK = {
    "TTT++ (oracle): best epoch by test labels": seed_interval(reported, bounds=(0, 1)),
    f"TTT++ (honest): {last} epochs, fixed before": seed_interval(fixed, bounds=(0, 1)),
    "TTT++ (honest): 1 epoch, fixed before": seed_interval(once, bounds=(0, 1)),
    "batch statistics of the same network": seed_interval(untouched, bounds=(0, 1)),
}
for what, interval in LEAK.items():
    print(f"{what:46s} {interval}")
print(in_words(paired_difference(untouched, once), "honest, 1 epoch - batch statistics of the same network (over seeds)"))
print(in_words(paired_difference(untouched, fixed), f"honest, {last} epochs - batch statistics of the same network (over seeds)"))
print(in_words(paired_difference(once, fixed), f"honest, {last} epochs - 1 epoch (over seeds)"))


def by_seed(before, after):
    """Differences in points, seed by seed, with their mean: for what cannot be negative, and so gets no verdict."""
    gaps = 100 * (np.array(after) - np.array(before))
    return ", ".join(f"{gap:+.1f}" for gap in gaps) + f" (mean {gaps.mean():+.1f})"


print("what the leak gives, oracle - honest, points by seed:", by_seed(fixed, reported))
print("half of the patients choose; own score minus that of the other half, points by seed:", by_seed(other_half, own_half))
print("epochs that the test labels chose, by seed:", best_epochs)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Read the honest lines first. How much of the gain is there after **one** pass, and what do the others add? If the difference
# between the last epoch and the first holds zero, then many passes are not what helped: what this mode has over part 9 is that it
# answers *after* it has seen all patients. It is for those who may wait. (These intervals are over seeds only; those of part 9 are
# over seeds and patients. Do not set the two side by side.)
#
# The two lines by seed get no verdict. They **cannot be negative**: the last epoch is among those to choose from, and each half
# chose its own best. Half of the patients choose the epoch: on themselves the number is luck and skill, on the other half
# (adapted to just the same, without a say) only what is real remains. Three seeds do not decide how the leak splits into the
# two.
#
# And a learning rate, chosen by four rules (lesson 09) and tested twice: on the patients that the oracle looked at, and on
# others of the same scanner.

# %%
rates = store.rows(experiment="ttt.rates")
by_rule = {}  # (patients, rule) -> {seed: score}
for row in rates:
    by_rule.setdefault((row["params"]["patients"], row["params"]["rule"]), {})[row["seed"]] = row["metrics"]["balanced_accuracy"]
print("candidate rates:", [candidate["lr"] for candidate in LEARNING_RATES])
looked_at = {row["params"]["rule"]: row["params"]["selected_on"] for row in rates}
defaults = {row["seed"]: row["params"]["settings"]["lr"] for row in rates if row["params"]["rule"] == "default"}
seeds = sorted(defaults)
for rule, selected_on in looked_at.items():
    chosen = {row["seed"]: row["params"]["settings"]["lr"] for row in rates if row["params"]["rule"] == rule}
    others = sum(chosen[s] != defaults[s] for s in seeds)
    print(f"{rule.replace('_', ' ')}: looked at {selected_on}; rates by seed {[chosen[s] for s in seeds]}, "
          f"another than the default in {others} of {len(seeds)}")
    for who in ("tested", "others"):
        found, base = ([by_rule[who, name][s] for s in seeds] for name in (rule, "default"))
        print(f"    {'the patients it is tested on' if who == 'tested' else 'other patients':29s}{seed_interval(found, bounds=(0, 1))}"
              + (f"   minus the default, points by seed: {by_seed(base, found)}" if others else ""))

# %% [markdown]
# A rule that chose the default everywhere *is* the default: its row says nothing new. Look at what the oracle gained on the
# patients that it looked at (never less than nothing, the default was among its candidates), and what the same rate did to other
# patients of the same scanner. A few seeds with another rate are an example of the mechanism, not a measure of it.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What the paper says and what its code does
#
# | | paper | official code | here |
# |---|---|---|---|
# | when | "test-time" | up to 500 epochs over the test set, then scores it all | online, batch by batch; the other mode is `adapt_whole_set` and says so |
# | who stops | at test time there are no labels | the error on the **test labels** (also lowers the rate) | nobody: labels never enter |
# | queue | past features | hands out its live storage: the batch counts twice, the oldest is lost (part 7); unused until full | a copy; used from the first batch |
# | contrast | temperature 0.5 | times 0.5 / 0.07 (part 8) | plain |
# | offline moments | of the source | of augmented crops, the first batch left out | of plain images, all of them |
# | statistics | BatchNorm | first epochs only refresh them | those of the batch; the control does the same |
#
# None of this says that the method does not work. It says that a published number is a number *of a protocol*, and that a
# clinic cannot follow this one.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 11 · On real images
#
# **There is no honest TTT or TTT++ number on real images in this lesson.** Both need a network that was trained with the second
# task, and the course has trained such networks on phantoms only. To show another network's number in its place would be a
# different experiment.
#
# One part needs no preparation: the alignment behind the encoder. Mean and covariance of the features can be measured for any
# network that is handed over with its training images. So here is *alignment alone* (the other weights are zero, the projection
# head is untrained and unused) for the three ResNets that were trained on PneumoniaMNIST (CC BY 4.0, MedMNIST v2), normal or
# pneumonia, beside BN and Tent; shifts of ours at severity 2. Live when the data is found, else from the store.

# %%
try:
    xray = {split: load("pneumoniamnist", split) for split in ("train", "test")}
except SeminarError:
    xray = None


def on_xrays():
    """Source, BN, Tent and alignment alone on some shifts at severity 2."""
    chosen = np.random.default_rng(0).permutation(len(xray["train"]))[: SIZE["source"]]
    source, _ = xray["train"].subset(np.sort(chosen)).torch()
    images, labels = xray["test"].subset(range(SIZE["real"])).torch()
    nets = {seed: with_projection_head(load_checkpoint(f"resnet_small-pneumoniamnist-s{seed}")) for seed in SIZE["seeds"]}
    align = plus_plus(source.split(SIZE["source_batch"]))(contrast=0.0, align_projections=0.0)
    methods = {"source": Source, "BN": BatchNormAdapt, "Tent": Tent, "alignment only": align}
    return [row for shift in ("none", *SIZE["shifts"])
            for row in measure("ttt.xray", methods, nets, images if shift == "none" else apply_shift(images, shift, 2, seed=0),
                               labels, params={"data": "pneumoniamnist", "shift": shift, "severity": 2 * (shift != "none")})]


xray_rows = live_or_stored("ttt.xray", xray is not None, on_xrays)
if xray is not None:
    print("share of pneumonia: " + ", ".join(f"{split} {split_.torch()[1].double().mean():.1%}" for split, split_ in xray.items()))
for shift in dict.fromkeys(row["params"]["shift"] for row in xray_rows):
    rows = [row for row in xray_rows if row["params"]["shift"] == shift]
    print(f"{shift:10s}" + "   ".join(f"{method} {interval}" for method, interval in summarise(rows).items()))
    print(" " * 10 + in_words(gain(rows, over="BN", of="alignment only"), "alignment - BN, over seeds"))
    print(" " * 10 + in_words(gain(rows, over="source", of="BN"), "BN - source, over seeds"))

# %% [markdown]
# The moments of the training images hold the training images' share of pneumonia. If the test images have another share, then
# the alignment *could* pull towards the wrong mixture, and nobody would see it: a label shift looks like a scanner. Whether it
# did harm here is the line *alignment - BN* under *none*, where nothing was shifted by us. Look at *BN - source* there as well: if
# BN gains where we shifted nothing, then the test images differ from the training images already, in more than our shifts. And read sizes beside verdicts: an interval may exclude zero and hold nothing that a
# clinic would notice, and of several intervals one does so by chance (lesson 09, part 8).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 12 · In the clinic
#
# 1. **Who trained it?** Test-time training begins at training time. Ask the vendor for the second head and the source moments.
# 2. **Does the second task have an answer in your images?** Rotation in a chest X-ray, yes; in a blood smear, no.
# 3. **What is the control?** Batch statistics of the same network, without any gradient. It costs one forward. A network without
#    BatchNorm has none: its control is the source.
# 4. **What does it cost?** Below, for one batch of 64.
# 5. **Who stopped it, and by which labels?**

# %%
for name, method in {"BN": BatchNormAdapt(simclr_nets[0]), "Tent": Tent(simclr_nets[0]), "TTT": TTT(rotation_nets[0]),
                     "TTT++": make()(simclr_nets[0])}.items():
    method(x[:64])
    cost = method.cost()
    print(f"{name:6s} forward {cost['forward_images']:4.0f} images, backward {cost['backward_images']:4.0f}, "
          f"keeps {cost['extra_mib']:.2f} MiB beside the model")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 13 · Quiz, claims, reading, poster

# %%
quiz("12_ttt")


# %% [markdown]
# **So when does self-supervision help?** The verdicts, from the rows of this lesson ("shown": the corrected p is below 0.05):

# %%
def shown(after, network):
    """In how many conditions a method is shown to be better and worse than BN of its network."""
    sure = [difference(where, after, network)[0].mean for where in CONDITIONS if adjusted[where, (after, network)] < 0.05]
    return f"{after}: better in {sum(m > 0 for m in sure)}, worse in {sum(m < 0 for m in sure)}, not shown in {len(CONDITIONS) - len(sure)}"


print("1. sign of the cosine foretells the main loss: " + "; ".join(
    f"{task}, " + ", ".join(f"step {length:.2%} in {foretold[task, length]:.0%}" for length in LENGTHS)
    for task in dict.fromkeys(task for task, _ in foretold)))
print("2. BN - source of the same network, interval above zero / below / holds zero:")
for strength, order in dict.fromkeys(where[:2] for where in CONDITIONS):
    gaps = [difference(w, "BN", network, "source")[0] for w in CONDITIONS if w[:2] == (strength, order) for network in KEPT]
    print(f"   {told((strength, order, 'both batch sizes'))}: {sum(g.low > 0 for g in gaps)} / {sum(g.high < 0 for g in gaps)} / "
          f"{sum(not g.excludes_zero() for g in gaps)}; mean {100 * np.mean([g.mean for g in gaps]):+.1f} points")
print(f"3. over BN of the same network, {len(CONDITIONS)} conditions: " + "; ".join(
    shown(*pair) for pair in OVER_BN if pair[0] != "Tent"))
print(f"4. TTT++ over Tent, same network: ahead in {sum(m > 0 and sure for m, sure in same)} of {len(same)}; range of the means "
      f"{100 * min(m for m, _ in same):+.1f} to {100 * max(m for m, _ in same):+.1f} points")
print("5. " + in_words(paired_difference(untouched, once), "answers after one whole pass - BN, over seeds only"))

# %% [markdown]
# Line 3 is the answer for a clinic that answers at once, with BatchNorm networks and our default rates; "not shown" with three seeds and steps this
# short is not "does nothing" (part 9). Line 5 is another protocol, all patients first and answers afterwards, and its interval is
# over three seeds only.
#
# | claim | here |
# |---|---|
# | TTT: "the self-supervised task helps when its gradient agrees with the main one" | line 1: the sign foretells a short step; how often it does a longer one is printed beside it |
# | TTT: "improves under shift" | line 2 counts where batch statistics alone are above the source model, below it, or not distinguishable: it depends on the condition; what *TTT* adds to them is line 3. On one GroupNorm network, patient by patient, it gained over the source with hardly any harm (the maps of part 9) |
# | TTT++: "TTT can fail, alignment holds it" | line 3: *contrast only*, *alignment only* and both, over BN of the same network |
# | TTT++: "better than Tent" | line 4, in the same network; in the plain one training differs as well (part 9) |
# | TTT++: CIFAR-10-C snow, error 21.9 to 9.8 | not at this scale; and the epoch was chosen by test labels (part 10) |
# | "test-time" | contradicted by the code: many epochs over a test set that is then scored (part 10) |
#
# **Read further.** Wang et al. 2021 ([Tent, 2006.10726](https://arxiv.org/abs/2006.10726)), who need no preparation. Gandelsman
# et al. 2022 ([2209.07522](https://arxiv.org/abs/2209.07522)): masked autoencoders as the second task (lesson 06). Zhao et al.
# 2023 ([2306.03536](https://arxiv.org/abs/2306.03536)): how choosing decides what "works".
#
# **For your poster.** The scatter and the rows of part 4 and the dots of part 9. Their rows: `seminar results --where
# experiment=ttt.difference`, the maps' `experiment=bench.test_time`.

# %%
progress()
