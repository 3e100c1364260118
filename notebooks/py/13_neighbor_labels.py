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
# # 13 · Neighbour labels: pseudo-labels as distributions
#
# **Paper.** Ambekar, Xiao, Shen, Zhen, Snoek: *Probabilistic Test-Time Generalization by Variational
# Neighbor-Labeling*, 2023, [arXiv 2307.04033](https://arxiv.org/abs/2307.04033). **The authors published no code.** What
# you see here is *our reading* of the paper, and none of its numbers is printed: part 6 has a table of what is theirs and
# what is ours. Beside it: Lee 2013 (pseudo-labels), Finn et al. 2017, MAML,
# [arXiv 1703.03400](https://arxiv.org/abs/1703.03400) (a gradient through a gradient step).
#
# **You will be able to**
# 1. say what a hard, a soft and a sampled pseudo-label each forget;
# 2. build class prototypes of a batch in which nobody knows a class;
# 3. draw from a Gaussian so that gradients pass, and compare two Gaussians by their KL divergence;
# 4. draw the meta-training stage on a board, and say which part of it sees which labels;
# 5. run an ablation with the right control, and report it when it comes out against the method.
#
# **Needs** [11_tent](11_tent.ipynb) (batch statistics, the BN control), and from
# [09_evaluating_under_shift](09_evaluating_under_shift.ipynb) what a paired interval is. Data and networks ship with the
# course; no network connection, no GPU.
#
# **Time** about 70 minutes to read and do; the cells take
# <!-- minutes -->about 2 minutes to run (cpu profile)<!-- /minutes --> on a laptop.

# %%
import copy

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from torch.func import functional_call

from seminar_utils import (
    by_profile, exercise, load, load_checkpoint, profile, progress, quiz, seed_everything, set_threads,
)
from seminar_utils.adaptation import BatchNormAdapt, NeighborLabels, Source, Tent
from seminar_utils.adaptation.norm import set_norm_policy
from seminar_utils.checkpoints import checkpoint_card
from seminar_utils.evaluation.bench_table import bench_table
from seminar_utils.evaluation.bench_text import readable
from seminar_utils.evaluation.differences import correct, is_real
from seminar_utils.evaluation.intervals import paired_difference
from seminar_utils.evaluation.measure import by_method, gain, measure, stored, summarise
from seminar_utils.evaluation.metrics import predicted_class_entropy
from seminar_utils.evaluation.ranking import auroc
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.streams import run_stream, stream
from seminar_utils.pretraining.neighbor_labels import MetaConfig, meta_target_loss
from seminar_utils.recipes.neighbor_table import BATCH_SIZES, condition, difference
from seminar_utils.teaching import bench_figures, figures, widgets
from seminar_utils.teaching.style import PALETTE

# The one place where sizes are set. SEMINAR_PROFILE=smoke|cpu|gpu chooses the row.
SIZE = by_profile(
    smoke=dict(images=128, seeds=(0, 1), draws=8, boot=50, pool=80, sizes=(16, 64), rates=(0.001, 0.02)),
    cpu=dict(images=640, seeds=(0, 1, 2), draws=32, boot=400, pool=320, sizes=(4, 16, 64), rates=(0.001, 0.003, 0.01, 0.02)),
    gpu=dict(images=2000, seeds=(0, 1, 2), draws=64, boot=1000, pool=320, sizes=(4, 16, 64), rates=(0.001, 0.003, 0.01, 0.02, 0.05)),
)
seed_everything(0)
set_threads(1)  # small batches on a small network: a second thread waits more than it works
figures.use_course_style()
print("profile:", profile())

# %% [markdown] slideshow={"slide_type": "slide"} notes="Ask: the model is 45% sure of one class and 40% of another. You must train on that answer. What do you write down as the label?"
# ## 1 · The question, in a picture
#
# A new scanner came, no label will. Tent made the model's answers surer (lesson 11). The older idea is to write the answer
# down as if it were a label, a *pseudo-label*, and to train on it. For a patient of whom the model is sure there is
# little to decide. Below are those of whom it is not: of 64 patients on scanner C (phantoms: images drawn by a program, six
# classes of lesion) the six with the lowest confidence. The batch's own BatchNorm statistics are in use, as in lesson 11.
#
# **What would you write down as their label?**

# %%
models = {seed: load_checkpoint(f"resnet_small_neighbors-phantoms-s{seed}") for seed in SIZE["seeds"]}
model = models[0]  # a small ResNet and, beside it, a label network (parts 3 and 6)
STRENGTH = 0.7  # the dial of scanner C: 0 is scanner A, 1 is scanner C


def patients(scanner="C", n=SIZE["images"], strength=STRENGTH):
    """The same test patients on some scanner: images (n, 1, 32, 32) in [0, 1], labels (n,)."""
    return load("phantoms", "test", n=n, scanner=scanner, strength=strength).torch(size=32)


x, labels = patients()
x_home, _ = patients("A", strength=1.0)
class_names = load("phantoms", "test", n=8).class_names
K = len(class_names)

on_batch = copy.deepcopy(model).eval()  # the same network, normalising by the batch at hand
set_norm_policy(on_batch, "batch")
batch, truth = x[:64], labels[:64]
with torch.no_grad():
    logits, features = on_batch(batch, with_features=True)  # (B, K), (B, D)
probs = logits.softmax(1)
doubtful = probs.max(1).values.argsort()[:6]  # no label is needed to find them


def two_best(i):
    """The two likeliest classes of patient i, and the truth, for the reader only."""
    top = probs[i].topk(2)
    lines = [f"{class_names[k]} {p:.0%}" for k, p in zip(top.indices.tolist(), top.values.tolist())]
    return "\n".join([*lines, f"(truth: {class_names[truth[i]]})"])


figures.image_grid(batch[doubtful], titles=[two_best(i) for i in doubtful.tolist()], columns=6, size=2.0,
                   heading="six doubtful patients: what is their label?")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2 · Three kinds of pseudo-label, and what each forgets
#
# Training on a target $t$ (a distribution over $K$ classes) minimises the cross-entropy
# $\mathrm{CE}(t, p) = -\sum_k t_k \log p_k$ with $p = \mathrm{softmax}(z)$. Its gradient is as simple as it gets:
#
# $$\frac{\partial\, \mathrm{CE}}{\partial z_k} = p_k - t_k .$$
#
# So a label teaches by its *difference* to what the model says already. By hand, for $p = (0.55, 0.45)$:
#
# * **hard**, $t = (1, 0)$: the gradient is $(-0.45, +0.45)$. A close call is trained on like a certainty; the doubt is
#   forgotten. If the truth is the second class, the model is pushed hard to the wrong side.
# * **soft**, the model's own answer $t = p$: the gradient is exactly zero. The doubt is kept, and nothing is taught.
# * **sampled**: somebody else proposes a distribution, and draws from it. The doubt is kept, *and* the label may differ from
#   the answer. That somebody must know something that the model's answer for this one image does not hold. In the paper
#   it is the **neighbours**: the other images of the batch. What it forgets is the model's own answer for this image, which is
#   one vote among many now. So it can also be *worse* than the answer.
#
# What is drawn, here as in part 3, is a *latent* (hidden numbers that describe the batch). The label that follows from one draw is
# soft; no class is thrown like a die.

# %% tags=["nbval-check-output"]
z = torch.tensor([[0.55, 0.45]], dtype=torch.float64).log().requires_grad_()
targets = {"hard": [1.0, 0.0], "own soft answer": [0.55, 0.45], "a sampled label": [0.30, 0.70]}
for name, target in targets.items():
    t = torch.tensor([target], dtype=torch.float64)
    (slope,) = torch.autograd.grad(F.cross_entropy(z, t), z)
    print(f"{name:16s} gradient in the logits {[round(g, 2) + 0.0 for g in slope[0].tolist()]}")

# %% [markdown]
# The most doubtful of the patients above, and its possible labels. The last panel is the method of this lesson, here still a black box:
# eight draws, each a soft label; the bars are their mean.

# %%
one = int(doubtful[0])
method = NeighborLabels(model, samples=8)
drawn = method.infer_labels(features, logits)[:, one].numpy()  # (8, K)
hard = np.eye(K)[int(probs[one].argmax())]
panels = {"own answer (soft)": probs[one].numpy(), "hard": hard, "sampled: 8 draws": drawn.mean(0)}
figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), sharey=True)
for ax, (title, bars) in zip(axes, panels.items()):
    ax.axvspan(int(truth[one]) - 0.5, int(truth[one]) + 0.5, color="#EEEEEE", zorder=0)
    ax.bar(range(K), bars, color=PALETTE[0], width=0.6)
    ax.set(title=title, ylim=(0, 1.05))
    ax.set_xticks(range(K), [name.replace(" ", "\n") for name in class_names], fontsize=9)
    ax.grid(axis="x", visible=False)
axes[2].plot(np.tile(np.arange(K), (8, 1)), drawn, "o", color="white", markeredgecolor="#333333", markersize=5)
axes[0].set_ylabel("probability")
figure.suptitle("one doubtful patient, three labels (grey: the truth, which no method sees)")
plt.show()
for name in ("own answer (soft)", "sampled: 8 draws"):
    best = int(panels[name].argmax())
    print(f"{name}: {class_names[best]} {panels[name][best]:.2f}, {'right' if best == truth[one] else 'WRONG'}")


# %% [markdown]
# Read the two lines: is the label better than the answer that it replaces, and how sure is each? Then compare the circles: where they lie
# close together the draws agree, where they spread the label hangs on which latent was drawn. One patient proves nothing; part 4 asks over all patients.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3 · Neighbours: prototypes, a latent, a label
#
# Let the batch have features $f_1, \dots, f_B$ (the network's last layer before the classifier, $D$ numbers each) and
# pseudo-label probabilities $p_{ik}$. What does class $k$ look like *on this scanner*? A weighted mean says it, in which every image
# counts for a class as much as it is believed to belong to it:
#
# $$c_k = \frac{\sum_i (p_{ik} + \varepsilon)\, f_i}{\sum_i (p_{ik} + \varepsilon)} .$$
#
# The small $\varepsilon$ is for a class that nobody believes in: its prototype becomes the mean of the batch and says nothing,
# instead of $0/0$.
#
# **Exercise `neighbors.prototypes`** (difficulty 1, 8 minutes). Features (B, D), probabilities (B, K) to prototypes (K, D).

# %%
def class_prototypes(features, probs, floor):
    """Mean feature of every class (K, D), images weighted by their probability plus floor."""
    raise NotImplementedError


class_prototypes = exercise("neighbors.prototypes", class_prototypes)


# %% [markdown]
# See them, on the known scanner A and on scanner C. Points are the images of one batch in the plane of their two largest
# variations, coloured by pseudo-label; stars are the prototypes; a black ring marks a wrong pseudo-label (seen with the truth,
# which the method has not).

# %%
def in_the_plane(*sets):
    """Sets of rows (n, D), all on the plane of the first set's two principal directions: (n, 2) each."""
    first = sets[0]
    directions = np.linalg.svd(first - first.mean(0), full_matrices=False)[2][:2]  # (2, D)
    return [(rows - first.mean(0)) @ directions.T for rows in sets]


figure, axes = plt.subplots(1, 2, figsize=(12, 4.6))
for ax, images, title in zip(axes, (x_home[:64], batch), ("scanner A", f"scanner C at {STRENGTH}")):
    with torch.no_grad():
        z_here, f_here = on_batch(images, with_features=True)
    p_here = z_here.softmax(1)
    points, stars = in_the_plane(f_here.numpy(), class_prototypes(f_here, p_here, 1e-3).numpy())
    said = p_here.argmax(1).numpy()
    wrong = said != truth.numpy()
    ax.scatter(*points.T, c=[PALETTE[k] for k in said], s=28, alpha=0.7)
    ax.scatter(*points[wrong].T, facecolors="none", edgecolors="black", linewidths=1.6, s=110)
    ax.scatter(*stars.T, marker="*", c=[PALETTE[k] for k in range(K)], s=320, edgecolors="black")
    ax.set(title=f"{title}: {wrong.mean():.0%} of the pseudo-labels wrong", xticks=[], yticks=[])
marks = [Line2D([], [], marker="o", linestyle="", color=PALETTE[k], label=name) for k, name in enumerate(class_names)]
marks.append(Line2D([], [], marker="o", linestyle="", markerfacecolor="none", color="black", markersize=10, label="wrong"))
figure.legend(handles=marks, loc="outside lower center", ncols=7, fontsize=10)
plt.show()


# %% [markdown] slideshow={"slide_type": "subslide"}
# From prototypes to a label, in three moves (this part is *our reading*; the paper asks for such distributions and leaves the
# networks open):
#
# 1. A small MLP turns each prototype into a Gaussian, $w_k \sim \mathcal N(\mu_k, \mathrm{diag}(\sigma_k^2))$, $d$ numbers a
#    class: $p_\phi(w \mid X)$. It *could* be wider for a class of which the batch knows little. Is it? Printed below.
# 2. Draw $w$.
# 3. The label of image $i$ is $\hat y_i = \mathrm{softmax}_k\bigl(q(f_i)^\top w_k / \sqrt d\bigr)$, with $q$ a linear layer:
#    $p_\phi(\hat y \mid w, x)$.
#
# In training, gradients must flow through the draw. `torch.normal` would stop them. Written as a function of noise that comes
# from outside, $w = \mu + \sigma \odot \epsilon$ with $\epsilon \sim \mathcal N(0, I)$, the draw has a derivative: $1$ with respect to
# $\mu$, $\epsilon$ with respect to $\sigma$ (the *reparameterisation trick*).
#
# **Exercise `neighbors.draw`** (difficulty 1, 5 minutes). The network gives $\log\sigma$, so that any number is allowed.

# %%
def draw_latent(mean, log_std, noise):
    """One draw of w ~ N(mean, std^2) as a function of standard normal noise; all (K, d). log_std: natural log of std."""
    raise NotImplementedError


draw_latent = exercise("neighbors.draw", draw_latent)


# %% [markdown]
# With these two the whole label network is eight lines. Its parts: `network.norm` is a LayerNorm (lesson 02), since the scale of features
# differs between scanners, so wherever the formulas say $f$, the code says `norm(f)`; `to_latent` is the MLP; `class_code` is a learnt vector a
# class, for an MLP that reads a prototype cannot know *which* class it reads. `clamp(-5, 2)` keeps $\sigma$ between $e^{-5}$ and $e^{2}$.

# %%
def latent_from_scratch(network, features, probs):
    """Mean and log of the deviation of w (log sigma, natural logarithm, not log sigma^2), each (K, d)."""
    prototypes = class_prototypes(network.norm(features), probs, 1e-3)  # (K, D)
    mean, log_std = (network.to_latent(prototypes) + network.class_code).chunk(2, dim=1)
    return mean, log_std.clamp(-5, 2)


def labels_from_scratch(network, features, w):
    """Soft labels (B, K) of features (B, D), given one w (K, d)."""
    query = network.to_query(network.norm(features))  # (B, d)
    return (query @ w.T / network.dim**0.5).softmax(dim=1)


# %% tags=["nbval-check-output"]
with torch.no_grad():
    mean, log_std = latent_from_scratch(model.label_network, features, probs)
    w = draw_latent(mean, log_std, torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)))
    soft = labels_from_scratch(model.label_network, features, w)
for name, value in {"features": features, "pseudo-labels": probs, "mean of w": mean, "w": w, "labels": soft}.items():
    print(f"{name:14s}{tuple(value.shape)}")
phi = sum(parameter.numel() for parameter in model.label_network.parameters())
print(f"the label network has {phi:,} parameters, the classifier {sum(p.numel() for p in model.backbone.parameters()):,}")


# %% [markdown]
# **Is the Gaussian wider for a class that nobody in the batch has?** Four patients cannot hold six classes. Below the mean of $\sigma$ over such
# batches, apart for the classes that are there and those that are not (sorted with the truth, to judge):

# %%
def in_words(found, what, unit="points"):
    """A difference in hundredths and whether its interval, over the networks, excludes zero."""
    verdict = "the interval excludes zero" if found.excludes_zero() else "NOT distinguishable from zero"
    return f"{what}: {100 * found.mean:+.1f} {unit} [{100 * found.low:+.1f}, {100 * found.high:+.1f}], {verdict}"


def widths(net, images, truth, size=4):
    """Mean sigma of the classes present in their batch, and of those absent."""
    adapter, there, absent = NeighborLabels(net), [], []
    for images_here, truth_here in stream(images, truth, size, "iid", 0):
        with torch.no_grad():
            z_here, f_here = adapter.model(images_here, with_features=True)
            sigma = latent_from_scratch(net.label_network, f_here, z_here.softmax(1))[1].exp().mean(1)  # (K,)
        here = torch.isin(torch.arange(K), truth_here)
        there.append(sigma[here])
        absent.append(sigma[~here])
    return torch.cat(there).mean().item(), torch.cat(absent).mean().item()


width = {net: widths(models[net], x[: SIZE["pool"]], labels[: SIZE["pool"]]) for net in models}
for net, (there, absent) in width.items():
    print(f"network {net}, batches of 4: sigma of the classes present {there:.3f}, absent {absent:.3f}")
there, absent = zip(*width.values())
print("What we read:", in_words(paired_difference(there, absent), "sigma of absent classes less present ones", "hundredths"))
print(f"   (largest change: {max(abs(a - t) / t for t, a in width.values()):.1%} of sigma)")


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 4 · What the draws doubt
#
# Draw $S$ times. A patient's draws $\hat y^{(1)}, \dots, \hat y^{(S)}$ can be doubtful in two ways. Every single draw may be flat, or
# sure draws may contradict each other. With $H$ the entropy (lesson 11):
#
# $$\underbrace{H\Bigl(\tfrac1S \textstyle\sum_s \hat y^{(s)}\Bigr)}_{\text{all doubt}} =
# \underbrace{\tfrac1S \textstyle\sum_s H\bigl(\hat y^{(s)}\bigr)}_{\text{inside the draws}} + \text{between the draws}.$$
#
# The part between the draws is there because $w$ is not known. It can only speak of *this* batch as far as $\sigma$ depends on the batch: keep the
# lines just printed in mind.
#
# **Exercise `neighbors.doubt`** (difficulty 3, 12 minutes). Draws (S, B, K) to: the mean label (B, K), all its doubt (B,), and
# the part between the draws (B,), in natural logarithms. Mind sure draws: $0 \log 0$ is 0.

# %%
def doubt(draws):
    """The mean label (B, K), its entropy (B,), and the part of it that lies between the draws (B,)."""
    raise NotImplementedError


doubt = exercise("neighbors.doubt", doubt)


# %% [markdown]
# Does the doubt know which labels are wrong? Below: the AUROC of each kind of doubt, as the chance that a patient with a wrong
# label is doubted more than one with a right label (0.5: it knows nothing). Beside it the entropy of the model's own answer,
# which needs no neighbours, judged on the *same* target: wrong neighbour labels. The truth is used to judge, not to adapt.

# %%
def label_book(model, images, truth, batch_size, samples=SIZE["draws"], order="iid"):
    """Over a stream: own answers and mean neighbour labels (N, K), all doubt and the part between draws (N,), truth (N,)."""
    adapter, found = NeighborLabels(model, samples=samples), []
    for images_here, truth_here in stream(images, truth, batch_size, order, 0):
        with torch.no_grad():
            z_here, f_here = adapter.model(images_here, with_features=True)
            found.append((z_here.softmax(1), *doubt(adapter.infer_labels(f_here, z_here)), truth_here))
    return [torch.cat(parts).numpy() for parts in zip(*found)]


wrongs, scores = [], {name: [] for name in ("own entropy", "all doubt", "inside the draws", "between the draws")}
for seed, net in models.items():
    own, mean_label, whole, between, y_here = label_book(net, x, labels, 64)
    wrong = (mean_label.argmax(1) != y_here).astype(int)
    own_entropy = -(own * np.log(own + 1e-12)).sum(1)
    wrongs.append(((own.argmax(1) != y_here).mean(), wrong.mean()))
    for name, doubted in zip(scores, (own_entropy, whole, whole - between, between)):
        scores[name].append(auroc(wrong, doubted))
    print(f"network {seed}: own answers wrong {wrongs[-1][0]:.1%}, neighbour labels wrong {wrongs[-1][1]:.1%}; share of the doubt between draws "
          f"{between.mean() / whole.mean():.0%}\n   AUROC for wrong neighbour labels: " + ", ".join(f"{name} {found[-1]:.2f}" for name, found in scores.items()))
print(f"What we read (intervals over {len(models)} networks):")
print("  ", in_words(paired_difference(*zip(*wrongs)), "neighbour labels wrong more often than own answers by"))
print("  ", in_words(paired_difference(scores["own entropy"], scores["between the draws"]), "AUROC, between the draws less own entropy"))
print("  ", in_words(paired_difference(scores["inside the draws"], scores["all doubt"]), "AUROC, what the part between adds to the part inside"))

# %% [markdown]
# The three lines at the end answer three questions: are the neighbours' labels more often right than the model's own answers (the method's promise)? Does
# the doubt of the draws find wrong labels better than the plain entropy of the answer, which costs nothing? And does the part between the draws,
# for which one needs a distribution of $w$ at all, add to the rest? A positive number in the first line speaks against the method, in the other two for it.
#
# **And what does the step make of the doubt?** Cross-entropy is *linear* in its target. The mean loss over $S$ drawn labels is the loss on their
# mean, to the last digit:

# %% tags=["nbval-check-output"]
eight = NeighborLabels(model, samples=8).infer_labels(features, logits)  # (8, B, K)
each = torch.stack([F.cross_entropy(logits, target) for target in eight]).mean()
print("mean loss on eight labels = loss on the mean label:", abs((each - F.cross_entropy(logits, eight.mean(0))).item()) < 1e-5)


# %% [markdown]
# So one gradient step cannot tell a distribution of labels from its mean. What sampling changes, with one draw, is *noise* in the label;
# with many draws, a smoother label than the one at the mean of $w$. Keep that in mind for the ablation (part 8).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5 · The step
#
# A batch $X$ comes. With $\theta_s$ the trained classifier and $\lambda$ the length of the step (the rate that meta-training practised, printed below):
#
# $$\theta_t = \theta_s - \lambda \,\nabla_\theta\, \mathrm{CE}\bigl(\hat y,\, p(\cdot \mid X, \theta)\bigr)\Big|_{\theta_s},
# \qquad \text{answer with } \theta_t, \qquad \text{next batch: from } \theta_s \text{ again.}$$
#
# Three differences to Tent: **everything** in the classifier moves, not only scale and shift of BatchNorm; the answer is taken **after** the
# step; and nothing is carried from batch to batch, so no collapse can build up.
#
# **Exercise `neighbors.step`** (difficulty 2, 12 minutes). One step towards $S$ drawn labels; the loss is the mean of the $S$ cross-entropies. The
# optimiser holds what may move. Labels are given: no gradient goes into them. Return the logits from **after** the step.

# %%
def label_step(model, x, targets, optimizer):
    """One step towards targets (S, B, K) on x (B, C, H, W); the logits (B, K) after it."""
    raise NotImplementedError


label_step = exercise("neighbors.step", label_step)


# %% [markdown]
# The whole method:

# %%
class NeighborLabelsFromScratch:
    """Neighbour labels, one draw, one step a batch: the lesson's version."""

    def __init__(self, model, lr=0.02, seed=0):
        self.source, self.lr = copy.deepcopy(model).eval(), lr
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, x):
        model = copy.deepcopy(self.source)  # every batch starts from theta_s
        set_norm_policy(model, "batch")
        with torch.no_grad():
            logits, features = model(x, with_features=True)
            mean, log_std = latent_from_scratch(model.label_network, features, logits.softmax(1))
            w = draw_latent(mean, log_std, torch.randn(mean.shape, generator=self.generator))
            target = labels_from_scratch(model.label_network, features, w)
        optimizer = torch.optim.SGD(model.backbone.parameters(), lr=self.lr)
        return label_step(model, x, target[None], optimizer)


# %% [markdown] slideshow={"slide_type": "subslide"}
# **The parity cell.** No official code exists, so the reference can only be the package (`adaptation/neighbor_labels.py`): the same
# thing finished, with checks, a bit-exact reset, and the ablations. Same weights, same draws, three batches:

# %% tags=["nbval-check-output"]
ours, package = NeighborLabelsFromScratch(model), NeighborLabels(model)
gap = max((ours(part) - package(part)).abs().max().item() for part in x[:96].split(32))
print("notebook = package over three batches, max |difference| below 1e-4:", gap < 1e-4)

# %%
print(f"max |difference| {gap:.1e}; it gives back: {package.returned}; it needs a network prepared by: {package.prepared}")
card = checkpoint_card("resnet_small_neighbors-phantoms-s0")
practised = card["config"]
print(f"meta-training practised a step of rate lambda = {practised['inner_lr']} with batches of {practised['batch_size']}; the package's: {package.lr}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The whole in one line, and why "variational".** What is wanted is the answer for $x$, given the batch $X$. Everything unknown is averaged out:
#
# $$p(y \mid x, X) = \int p(y \mid x, \theta_t)\; p(\theta_t \mid \hat y, X, \theta_s)\; p_\phi(\hat y \mid w, X)\; p_\phi(w \mid X)\; d\theta_t\, d\hat y\, dw .$$
#
# * $p(y \mid x, \theta_t)$: the classifier's answer, with moved weights;
# * $p(\theta_t \mid \hat y, X, \theta_s)$: which weights fit the labels. Nobody can integrate over them; the distribution is replaced by one good point, one
#   gradient step from $\theta_s$;
# * $p_\phi(\hat y \mid w, X)$: the labels, given the latent (part 3);
# * $p_\phi(w \mid X)$: the latent, given the batch; the integral is replaced by one draw.
#
# In training the labels are known, and one would rather draw such $w$ as fit them: from a *variational* distribution $q_\phi(w \mid X, Y)$, trained
# along with the rest. The price for drawing from $q$ instead of $p$ is the divergence $\mathrm{KL}(q \,\|\, p)$ in the loss (part 6), as in every
# variational bound.

# %% [markdown] slideshow={"slide_type": "slide"} notes="Draw the upper half on the board first, and let the class say what of it is missing at test time."
# ## 6 · Where the label network comes from: meta-training
#
# At test time nobody can teach the label network: there is no label. So the arrival of a new scanner is *practised* before, with
# scanners that are known. Two labelled ones are the minimum: in every step one plays the known scanner (meta-source), the other
# the unknown one (meta-target).

# %%
widgets.meta_stage_figure()


# %% [markdown] slideshow={"slide_type": "subslide"}
# Read the upper half from left to right. **(a)** Plain training on the meta-source. **(b)** On the meta-target the labels are drawn from a
# *posterior* $q_\phi(w \mid X', Y')$, which may see the true labels $Y'$: these are source scanners, their labels are known. **(c)** A step towards
# the drawn labels, as at test time. **(d)** The *outer* loss asks, with the true labels, how good the model is after the step: a label is good when
# the step it causes is good. And since at test time only the *prior* $p_\phi(w \mid X)$ is there, which sees pseudo-labels, it must learn to say
# what the posterior says (in the drawing, the dashed arrow is the way back of the gradient: outer loss, step, labels, $\phi$):
#
# $$\min_{\theta, \phi}\; \mathrm{CE}(Y; \theta) + \mathrm{CE}\bigl(Y';\, \theta - \lambda \nabla \mathrm{CE}(\hat y; \theta)\bigr) +
# \beta\, \mathrm{KL}\bigl(q_\phi(w \mid X', Y')\,\|\, p_\phi(w \mid X')\bigr) + \underbrace{\mathrm{CE}(Y'; \hat y)}_{\text{(e), ours}} .$$
#
# For one number, $\mathrm{KL}\bigl(\mathcal N(\mu_q, \sigma_q^2) \,\|\, \mathcal N(\mu_p, \sigma_p^2)\bigr) = \log\frac{\sigma_p}{\sigma_q} +
# \frac{\sigma_q^2 + (\mu_q - \mu_p)^2}{2 \sigma_p^2} - \frac12$. It is zero only for equal Gaussians, and not symmetric: it costs much when $q$ puts
# mass where $p$ has none.
#
# **Exercise `neighbors.kl`** (difficulty 2, 10 minutes). All arguments (K, d); sum over the $d$ numbers, average over the $K$ classes.

# %%
def gaussian_kl(mean_q, std_q, mean_p, std_p):
    """KL(q || p) of diagonal Gaussians (K, d), natural logarithm: summed over d, averaged over the classes."""
    raise NotImplementedError


gaussian_kl = exercise("neighbors.kl", gaussian_kl)


# %% [markdown]
# Stages (b) to (e) from scratch, on a batch of a known scanner. `functional_call` runs the network with *other* parameters than its own: the
# moved ones, which are still a function of the labels and so of $\phi$. That is the gradient through a gradient step (MAML).

# %%
def meta_loss_from_scratch(model, x, y, inner_lr, generator, through=True):
    """Outer loss, cross-entropy of the drawn labels, KL: three numbers with a gradient to theta and phi."""
    theta, network = dict(model.backbone.named_parameters()), model.label_network
    logits, features = model(x, with_features=True)
    features, pseudo = features.detach(), logits.detach().softmax(1)
    prior = latent_from_scratch(network, features, pseudo)
    posterior = latent_from_scratch(network, features, F.one_hot(y, network.num_classes).float())
    noise = torch.randn(prior[0].shape, generator=generator)
    label = labels_from_scratch(network, features, draw_latent(*posterior, noise))  # (b)
    inner = F.cross_entropy(logits, label)
    slopes = torch.autograd.grad(inner, theta.values(), create_graph=through, retain_graph=True)
    moved = {name: p - inner_lr * slope for (name, p), slope in zip(theta.items(), slopes)}  # (c)
    outer = F.cross_entropy(functional_call(model.backbone, moved, (x,)), y)  # (d)
    divergence = gaussian_kl(posterior[0], posterior[1].exp(), prior[0], prior[1].exp())
    return outer, F.nll_loss(label.log(), y), divergence


# %% tags=["nbval-check-output"]
x_b, y_b = load("phantoms", "train", n=32, scanner="B").torch(size=32)
config = MetaConfig()
practice = copy.deepcopy(model).requires_grad_(True)
set_norm_policy(practice, "batch")
mine = meta_loss_from_scratch(practice, x_b, y_b, config.inner_lr, torch.Generator().manual_seed(3))
theirs = meta_target_loss(practice, x_b, y_b, config, torch.Generator().manual_seed(3))
print("outer, labels, KL: notebook = package below 1e-4:",
      [abs(a.item() - b.item()) < 1e-4 * max(1, abs(b.item())) for a, b in zip(mine, theirs)])
phi = list(practice.label_network.parameters())
for through in (True, False):
    outer, _, _ = meta_loss_from_scratch(practice, x_b, y_b, config.inner_lr, torch.Generator().manual_seed(3), through)
    reached = any(g is not None and bool(g.abs().sum() > 0) for g in torch.autograd.grad(outer, phi, allow_unused=True))
    print(f"differentiated {'through' if through else 'around'} the inner step: the outer loss reaches phi: {reached}")

# %%
parts = {"theta (classifier)": practice.backbone, "phi (label network)": practice.label_network}
weights = {"outer loss (d)": 1.0, "labels are right (e)": config.reconstruction, f"KL, times beta = {config.kl}": config.kl}
for (name, weight), loss in zip(weights.items(), mine):
    sizes = []
    for part, module in parts.items():
        found = torch.autograd.grad(weight * loss, list(module.parameters()), retain_graph=True, allow_unused=True)
        sizes.append(f"{part} {sum(float(g.square().sum()) for g in found if g is not None) ** 0.5:.2g}")
    print(f"{name:22s} norm of the gradient to " + ", ".join(sizes))
print(f"weights as in the loss; inner rate lambda = {config.inner_lr}; one trained network, one batch of a known scanner")
print(f"home (scanners A and B), network 0: balanced accuracy {card['metrics']['balanced_accuracy']:.3f}, "
      f"ECE {card['metrics']['ece']:.3f}")


# %% [markdown]
# Compare the second column: an illustration, not a proof, for it is one network after its training, on one batch on which it has little left to
# learn. What reaches $\phi$ through the inner step carries the factor $\lambda$, since the labels enter the outer loss only through that step.
#
# **What did the prior practise on?** At test time it has to do with pseudo-labels that are partly wrong. Below: how many are right on scanner B's training
# images and on scanner C, and how far the prior is from the posterior, which sees the truth (for C a *diagnosis with labels*; no method has them):

# %%
def prior_and_posterior(net, images, truth):
    """Share of right pseudo-labels, mean and largest KL(q || p), over batches of the practised size."""
    adapter, network, found = NeighborLabels(net), net.label_network, []
    for images_here, truth_here in stream(images, truth, practised["batch_size"], "iid", 0):
        with torch.no_grad():
            z_here, f_here = adapter.model(images_here, with_features=True)
            p, q = (latent_from_scratch(network, f_here, seen) for seen in (z_here.softmax(1), F.one_hot(truth_here, K).float()))
        right = (z_here.argmax(1) == truth_here).float().mean().item()
        found.append((right, gaussian_kl(q[0], q[1].exp(), p[0], p[1].exp()).item()))
    shares, divergences = zip(*found)
    return np.mean(shares), np.mean(divergences), max(divergences)


home = load("phantoms", "train", n=SIZE["pool"], scanner="B").torch(size=32)
for where, (images, y_there) in {"scanner B, training images": home, f"scanner C at {STRENGTH}": (x[: SIZE["pool"]], labels[: SIZE["pool"]])}.items():
    found = [prior_and_posterior(net, images, y_there) for net in models.values()]
    print(f"{where:27s} by network: pseudo-labels right " + ", ".join(f"{right:.1%}" for right, _, _ in found)
          + "; KL(q || p), mean (largest) " + ", ".join(f"{divergence:.2f} ({largest:.2f})" for _, divergence, largest in found))

# %% [markdown] slideshow={"slide_type": "subslide"}
# Where pseudo-labels are right, prior and posterior are shown nearly the same thing, and most of the way to agreement costs no skill. So at home the
# prior learns to *repeat* pseudo-labels that were right; it has next to no wrong one to correct. On C it would have to, and the second line says how
# far it then is from what the truth would have told it. (The divergence differs much from batch to batch: compare mean and largest.) This is the
# best explanation that we have for parts 8 and 9, and it is not tested here: one would have to practise with pseudo-labels that are wrong.
#
# | part | the paper's | our reading |
# |---|---|---|
# | three distributions: labels given $w$, $w$ given the batch, the model given the labels | yes | |
# | one gradient step a batch as the most probable model given the labels | yes | plain SGD on backbone and classifier |
# | prior without labels, posterior with labels, KL between them | yes | one MLP for both, fed with pseudo-labels or labels |
# | meta-source and meta-target of at least two labelled domains | yes | scanners A and B, roles drawn in every step |
# | how $w$ is made from neighbours | *uses the batch* | weighted prototypes, one Gaussian a class |
# | how $w$ and an image make a label | a network | similarity of the projected feature to each $w_k$ |
# | number of draws | sampled labels | one (more: ablation) |
# | loss of phi | outer loss and KL | **and** (e): the drawn labels should be right |
# | rates $\lambda_1, \lambda_2, \lambda_3$, weight of the KL | named | values are ours |
# | BatchNorm at test time | | statistics of the batch, so BN of the same network is the control |
#
# If our reading fails, that is a fact about our reading. It is no refutation of the paper.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7 · Does it help?
#
# Three networks that differ in their training seed, the same patients on scanner C, batches of 64 in random order, the rate $\lambda$ of
# meta-training. Nothing was tuned on these images. **BN** is the control: *the same meta-trained network* with batch statistics and no step. *Hard
# pseudo-labels* take the same step towards the model's own most likely class. Tent runs with its own default (Adam, rate printed below) and
# *carries on* from batch to batch; the two label methods go back to $\theta_s$ after each.
#
# *Harm* is the share of patients whom the source model had right and the method has wrong; *ECE* is the calibration error (lesson 00). The
# intervals are over the training seeds (Student's $t$, three networks), so they are wide. As for Tent (lesson 11), the first question is not "how far above
# source?" but "how far above BN?": read the lines "... over BN".

# %%
METHODS = {
    "source": Source,
    "BN": BatchNormAdapt,
    "Tent": Tent,
    "hard pseudo-labels": lambda m: NeighborLabels(m, labels="own"),
    "neighbour labels": NeighborLabels,
}
about = {"data": "phantoms", "scanner": "C", "strength": STRENGTH}
main = measure("neighbors.main", METHODS, models, x, labels, params=about)
for method, interval in summarise(main).items():
    print(f"{method:20s} balanced accuracy {interval}, harm {summarise(main, 'harm')[method]}, ECE {summarise(main, 'ece')[method]}")

print()
print(in_words(gain(main, over="source", of="BN"), "batch statistics over source"))
steps = {method: gain(main, over="BN", of=method) for method in list(METHODS)[2:]}
for method, found in steps.items():
    print(in_words(found, f"{method} over BN"))
print(in_words(gain(main, over="hard pseudo-labels", of="neighbour labels"), "neighbour labels over hard pseudo-labels"))
print(in_words(gain(main, over="hard pseudo-labels", of="neighbour labels", metric="ece"), "the same, ECE (less is better)"))
told = [method for method, found in steps.items() if found.excludes_zero()]
print(f"What we read: methods with a step that can be told from BN: {', '.join(told) or 'none'}")
print(f"Tent's rate: {Tent(model).lr}; of the label methods: {NeighborLabels(model).lr}")
print()
for method, build in METHODS.items():
    adapter = build(model)
    adapter(x[:64])
    print(f"{method:20s} costs {adapter.passes.forward} passes forward and {adapter.passes.backward} backward a batch")

# %%
figures.bars_with_intervals(
    [name.replace(" ", "\n") for name in METHODS], [i.mean for i in summarise(main).values()],
    [(i.low, i.high) for i in summarise(main).values()], chance=1 / K,
    title=f"scanner C at {STRENGTH}: mean, 95% interval over seeds (dotted: chance)",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 8 · Ablation: which part does what?
#
# An ablation takes one part away at a time. From the results store (`python -m seminar_utils.recipes.neighbor_table`; minutes), at the same strength:
#
# | name | what is taken away or changed |
# |---|---|
# | w at its mean | no draw: $w = \mu$ |
# | eight draws | the loss is the mean of eight |
# | made hard | a drawn label, then its most likely class |
# | hard pseudo-labels | no label network at all |
# | no neighbours | prototypes of a batch in which all classes are equally likely everywhere: they say nothing. *Not retrained*: the label network never saw six equal prototypes in its training, so what is lost mixes "neighbours matter" with "an input out of its range" |
# | no meta | another network: the plain classifier of the same data and seed (stage (a) alone), a label network that learnt to name classes, and was never judged by a step. Its control is BN of *that* network |
#
# The store holds the answer of every patient. So here the intervals count **both** chances: which network the seed gave, and which patients came
# (lesson 09). Several comparisons are made, hence Holm's correction (it raises the p-values so that *any* false alarm among all of them stays below 5%).
#
# Part 7 asked the same of twice as many patients, and counted the seeds only. So its numbers for the same method differ a little from those here.

# %%
table = ResultsStore().rows(experiment="neighbors.table")
print(f"{len(table)} runs; commits {sorted({row['commit'] for row in table})}, device {sorted({row['device'] for row in table})}, "
      f"{table[0]['params']['images']} patients each")
here = condition(table, strength=STRENGTH, order="iid", batch_size=64)
PARTS = ("neighbour labels", "w at its mean", "eight draws", "made hard", "hard pseudo-labels", "no neighbours", "Tent")


def points(found):
    """A difference in points, with the verdict after correction."""
    i = found.interval
    verdict = f"real and {'better' if i.mean > 0 else 'WORSE'}" if found.real else "not distinguishable from zero"
    return f"{100 * i.mean:+5.1f} [{100 * i.low:+5.1f}, {100 * i.high:+5.1f}]  {verdict}"


over_bn = {name: difference(here, "BN", name, SIZE["boot"]) for name in PARTS}
over_bn["no meta"] = difference(here, "BN (no meta)", "no meta", SIZE["boot"])
over_bn = correct(over_bn)
print(f"balanced accuracy over BN of the same network, batches of 64; {len(over_bn)} comparisons, Holm-corrected")
for name, found in over_bn.items():
    print(f"  {name:20s} {points(found)}")


def what_we_read(differences):
    """Which of many differences are left after the correction."""
    left = [f"{name} ({points(found)})" for name, found in differences.items() if found.real]
    print(f"What we read: of {len(differences)} comparisons, after Holm's correction {len(left)} can be told from zero" + "".join(f"\n   {line}" for line in left))


what_we_read(over_bn)
controls = summarise([row for row in here if row["params"]["method"].startswith(("BN", "source"))])
print("the controls themselves: " + ", ".join(f"{name} {interval}" for name, interval in controls.items()))

# %%
figure, axes = plt.subplots(1, 2, figsize=(12.5, 4.2), sharey=True)
for ax, title in zip(axes, ("all of it", "the middle, enlarged")):
    for place, found in enumerate(over_bn.values()):
        i = found.interval
        ax.plot([100 * i.low, 100 * i.high], [place, place], color=PALETTE[0], linewidth=3, linestyle="-")
        ax.plot(100 * i.mean, place, "o", color=PALETTE[1])
    ax.axvline(0, color="#555555", linestyle=":")
    ax.set(xlabel="points over BN of the same network", title=title)
axes[0].set_yticks(range(len(over_bn)), over_bn)
axes[0].invert_yaxis()
near = [found.interval for name, found in over_bn.items() if name not in ("no neighbours", "no meta")]
axes[1].set_xlim(100 * min(i.low for i in near) - 1, 100 * max(i.high for i in near) + 1)
figure.suptitle("balanced accuracy, each part taken away (95%, seeds and patients)")
plt.show()

# %% [markdown]
# How to read it. Where an interval holds zero, this experiment cannot tell the method from the batch statistics. That is no proof of equality: look how far
# the interval reaches. Where two *neighbouring rows* overlap, it says little about their difference either, since the same patients and networks are
# behind both. Those differences have to be paired in turn:

# %%
pairs = (("neighbour labels", "no neighbours"), ("neighbour labels", "hard pseudo-labels"), ("eight draws", "neighbour labels"),
         ("w at its mean", "neighbour labels"))
paired = correct({f"{of} over {over}": difference(here, over, of, SIZE["boot"]) for of, over in pairs})
for name, found in paired.items():
    print(f"{name:42s} {points(found)}")
what_we_read(paired)

score = by_method(here)
with_meta, without = ([score[of][s] - score[over][s] for s in sorted(score[of])]
                      for of, over in (("neighbour labels", "BN"), ("no meta", "BN (no meta)")))
print(in_words(paired_difference(without, with_meta), "gain over its own BN, with meta-training less without (over seeds)"))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 9 · Company: how many neighbours, and which
#
# A neighbour method needs neighbours. With four patients in a batch and six classes, at least two classes have nobody. And if the patients come
# sorted by class, all neighbours are of one kind. (Shaded, for BN and neighbour labels only: 95% intervals over the training seeds.)

# %%
SHOWN = ("source", "BN", "Tent", "hard pseudo-labels", "neighbour labels")
figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), sharey=True)
for ax, (order, title) in zip(axes, {"iid": "random order", "class": "sorted by class"}.items()):
    series = {}
    for name in SHOWN:
        found = [summarise(condition(table, strength=STRENGTH, order=order, batch_size=b))[name] for b in sorted(BATCH_SIZES)]
        means, bands = [i.mean for i in found], [(i.low, i.high) for i in found]
        series[name] = (means, bands) if name in ("BN", "neighbour labels") else means
    figures.draw_lines(ax, range(len(BATCH_SIZES)), series)
    ax.set_xticks(range(len(BATCH_SIZES)), sorted(BATCH_SIZES))
    ax.set(title=title, xlabel="patients in a batch", ylim=(0, 1.02))
axes[0].set_ylabel("balanced accuracy")
axes[0].legend(fontsize=10)
plt.show()

levels, twelve = {}, {}
for strength in (STRENGTH, 0.35):
    for order in ("iid", "class"):
        for size in BATCH_SIZES:
            rows = condition(table, strength=strength, order=order, batch_size=size)
            name = f"C at {strength:.2f}, {order:5s}, batch {size:2d}"
            levels[name] = summarise(rows)
            twelve[name] = difference(rows, "BN", "neighbour labels", SIZE["boot"])
twelve = correct(twelve)
for name, found in twelve.items():
    print(f"{name}: source {levels[name]['source'].mean:.2f}, BN {levels[name]['BN'].mean:.2f}; neighbour labels over BN {points(found)}; p {found.adjusted_p:.3f}")
what_we_read(twelve)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Twelve comparisons, Holm-corrected: where an interval excludes zero and the verdict says "not distinguishable", the correction has spoken. Look
# first at the levels: in small batches and in sorted streams the batch statistics themselves fail (lesson 11), for the control as well as for the
# method. Is there a line in which the step brings back what the small or sorted batch has cost?
#
# One more thing to weigh: the length of the step is the one that was practised, and it was practised with batches of one size (part 5). In a
# smaller batch fewer patients pull at the same weights with the same force. A shorter step might suit it better; which one, no label of the new
# scanner may tell (lesson 09).
#
# Are at least the *labels* good? Accuracy of the neighbours' mean label against the model's own answer, before any step, by batch size (live, all networks):

# %%
for size in SIZE["sizes"]:
    rates = []
    for net in models.values():
        own, mean_label, _, _, y_here = label_book(net, x[: SIZE["pool"]], labels[: SIZE["pool"]], size, samples=4)
        rates.append([(own.argmax(1) == y_here).mean(), (mean_label.argmax(1) == y_here).mean()])
    own_right, label_right = np.mean(rates, axis=0)
    print(f"batches of {size:2d}: own answers right {own_right:.1%}, neighbour labels right {label_right:.1%} "
          f"(difference by network: {', '.join(f'{100 * (b - a):+.1f}' for a, b in rates)} points)")
    print("   What we read:", in_words(paired_difference(*zip(*rates)), "label less own answer"))


# %% [markdown] slideshow={"slide_type": "subslide"}
# **What could one step do at best?** Give it the true labels. That is no method (an *oracle*: it uses what nobody has). It separates two suspects,
# the *labels* and the *step*: where the truth gains and drawn labels lose, the labels are to blame; where even the truth loses, the step is too
# long *for a label that far from the answer*.
#
# For the length of a step is not the rate alone. The gradient in the logits is $p - t$ (part 2). The softened target $t = (1 - a)\,p + a\,y$ has
# the gradient $a\,(p - y)$: the truth's, times $a$. So **a softer label is a shorter step**: at rate $\lambda$ it does just what the one-hot truth
# does at rate $a\lambda$. The `share` below is that $a$.

# %%
def truth_step(net, images, y, rate, share=1.0):
    """Logits (B, K) after the step towards the true labels, or `share` of the way from the answer to them (ORACLE)."""
    moved = copy.deepcopy(net).eval()  # from theta_s each time
    set_norm_policy(moved, "batch")
    target = F.one_hot(y, K).float()
    if share < 1:
        with torch.no_grad():
            target = (1 - share) * moved(images).softmax(1) + share * target  # (B, K)
    return label_step(moved, images, target[None], torch.optim.SGD(moved.backbone.parameters(), lr=rate))


def step_to_truth(net, size, rate, share=1.0):
    """Accuracy over a stream when every batch takes that step (ORACLE)."""
    right = sum(int((truth_step(net, images, y, rate, share).argmax(1) == y).sum()) for images, y in few(size))
    return right / SIZE["pool"]


def few(size):
    """The first patients in random order."""
    return stream(x[: SIZE["pool"]], labels[: SIZE["pool"]], size, "iid", 0)


def right_of(method, size):
    """Accuracy of a method on these patients."""
    return run_stream(method, few(size)).metrics()["accuracy"]


for size in SIZE["sizes"]:
    found = [(right_of(BatchNormAdapt(net), size), step_to_truth(net, size, practised["inner_lr"])) for net in models.values()]
    print(in_words(paired_difference(*zip(*found)), f"batches of {size:2d}, rate {practised['inner_lr']}: the step towards the TRUTH over BN (accuracy)"))
    print("   by network:", ", ".join(f"{100 * (after - before):+.1f}" for before, after in found))


# %% [markdown]
# Read the lines by network before the means: a mean of three can come from one of them, and where the interval holds zero nothing is shown at that
# size, for or against.
#
# How long a step is depends on the rate *and* on the gradient. Below: the size of the gradient on a known scanner and on C (means over batches of
# 16, all networks); then the same comparison for shorter steps. The sweep is a diagnosis with the labels of scanner C, so **no rate may be picked
# from it**. Its unit is accuracy, its intervals are over the networks only, and it is corrected for its own comparisons; part 9's table above had
# balanced accuracy and both chances, so its number for batches of 16 at the practised rate is another one.

# %%
def loss_and_slope(net, images):
    """Loss towards the drawn labels and norm of its gradient, means over batches of 16."""
    found = []
    for part in images.split(16):
        probe = NeighborLabels(net)
        z_here, f_here = probe.model(part, with_features=True)
        loss = F.cross_entropy(z_here, probe.infer_labels(f_here.detach(), z_here.detach())[0])
        slopes = torch.autograd.grad(loss, list(probe.parameters_to_adapt().values()))
        found.append((loss.item(), sum(float(slope.square().sum()) for slope in slopes) ** 0.5))
    return np.mean(found, axis=0)


for where, images in (("scanner A", x_home[:96]), (f"scanner C at {STRENGTH}", x[:96])):
    found = [loss_and_slope(net, images) for net in models.values()]
    print(f"{where:19s} by network: loss towards the drawn labels " + ", ".join(f"{loss:.2f}" for loss, _ in found)
          + "; norm of its gradient " + ", ".join(f"{slope:.2f}" for _, slope in found))

no_step = [right_of(BatchNormAdapt(net), 16) for net in models.values()]
sweep = {}
for rate in SIZE["rates"]:
    for name, run in {"neighbour labels": lambda net, rate=rate: right_of(NeighborLabels(net, lr=rate), 16),
                      "ORACLE labels": lambda net, rate=rate: step_to_truth(net, 16, rate)}.items():
        sweep[name, rate] = is_real(no_step, [run(net) for net in models.values()])
sweep = correct(sweep)
print(f"accuracy over BN, batches of 16; {len(sweep)} comparisons, Holm-corrected")
for (name, rate), found in sweep.items():
    print(f"  rate {rate:<5g} {name:16s} {points(found)}")
what_we_read({f"{name} at rate {rate}": found for (name, rate), found in sweep.items()})

a = 0.15  # ORACLE once more: the practised rate, but only this share of the way to the truth
softer = [step_to_truth(net, 16, practised["inner_lr"], share=a) for net in models.values()]
print(in_words(paired_difference(no_step, softer), f"ORACLE, rate {practised['inner_lr']}, {a:.0%} of the way to the truth, over BN"))
gap = (truth_step(model, batch[:16], truth[:16], practised["inner_lr"], a) - truth_step(model, batch[:16], truth[:16], a * practised["inner_lr"])).abs().max()
print(f"   the same step as the one-hot truth at rate {a * practised['inner_lr']:g}: largest difference of the logits after it {gap.item():.0e}")

figure, ax = plt.subplots(figsize=(8, 4.4))
lines = {}
for name in ("neighbour labels", "ORACLE labels"):
    found = [sweep[name, rate].interval for rate in SIZE["rates"]]
    lines[name] = ([100 * i.mean for i in found], [(100 * i.low, 100 * i.high) for i in found])
figures.draw_lines(ax, SIZE["rates"], lines, marker_x=practised["inner_lr"])
ax.axhline(0, color="#555555", linewidth=1)
ax.set(xscale="log", xlabel="rate of the step (dotted: as practised)", ylabel="points of accuracy over BN",
       title="shorter steps: labels or step? (batches of 16; 95% over networks)")
ax.legend()
plt.show()

# %% [markdown]
# Put the outputs together: is the gradient longer on scanner C, does the true label gain at short steps, and what is left of that gain at the
# dotted line? The softened oracle says that rate and label are two handles of one thing: a label closer to the answer would have made the practised
# rate a short one. The inner step was practised where it could do little harm: on known scanners, with a model that is nearly always right there
# (part 6), so its labels lay close to its answers. The same rate on a new scanner, where they lie apart, makes a step of another length.
# Meta-training promises that steps of this kind are good *on scanners like those it practised with*, and two of them are a small sample of
# scanners.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **A larger look.** The benchmark of lesson 11 (`benchmarks/specs/test_time.toml`) ran the method on 640 patients, of whom the 320 of the
# table above are the first half, with the same networks: larger, not independent. The strength varies in random order in batches of 64, order and batch
# size vary at 0.7. Over three seeds, each another training, another order and *other draws*. A star: real after Holm's correction for the
# map, and not all of it below one point. (Left out: the stream in which one class has 90%; it holds 111 patients, 11 of them in the five
# rare classes.) *source* is the source minus BN here, so red says that BN helps.

# %%
bench = readable([row for row in stored("bench.test_time") if row["metrics"] and row["params"]["images"] == 640
                  and row["params"]["model"] == "resnet_small_neighbors"])
bench_figures.difference_map(bench_table(bench, column_axes=("data", "stream", "batch_size"), over="BN", smallest=0.01),
                             "neighbour labels: balanced accuracy over BN, points (scanner and strength, order, patients a batch)")

# %% [markdown]
# In no column is the method shown above BN. In batches of 4 it is below, with a star, as the twelve lines above said. A single patient has no
# neighbours, and BN is at chance there: that column says nothing about them.
#
# One column is a warning about intervals. At 0.7 in random order, in batches of 64, this is **part 7 once more**: the same networks, the same patients
# in the same order, the same BN to the last digit. There the interval of the method over BN held zero, here it does not. What differs is the
# seed of the *draws*, for two of the three networks. An interval over three trainings that excludes zero with one draw and not with another
# shows nothing; and a method that draws has one chance more that its interval must count.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 10 · The failure case: company of one kind
#
# Choose the company of one doubtful patient yourself. Black: what the model says before the step; blue: the mean of the drawn labels (circles: the
# draws); orange: the model after the step, which is taken on the same draws, that is towards their mean for every patient of the batch (part 4).
# Grey marks the truth. The classes of the neighbours are known to *us*, who put the batch together; the method sees images only. The sliders need a
# live kernel; the nine panels are their twin on paper.

# %%
elsewhere = slice(64, 64 + SIZE["pool"])
company = widgets.company_table(model, (batch[one], int(truth[one])), (x[elsewhere], labels[elsewhere]), class_names,
                                counts=by_profile(smoke=(3, 7), cpu=(3, 15, 31), gpu=(3, 15, 31)), draws=8)
widgets.company_explorer(company)

# %%
neither = undone = 0
for (count, kind), stop in company.stops.items():
    said = {"before": stop.before, "label": stop.labels.mean(0), "after": stop.after}
    print(f"{count:2d} neighbours, {kind:18s}: " + ", ".join(
        f"{when} {class_names[bars.argmax()]} {bars.max():.2f}{'' if bars.argmax() == company.truth else ' (wrong)'}" for when, bars in said.items()))
    before, label, after = (int(bars.argmax()) for bars in said.values())
    neither += after not in (before, label)
    undone += before == label == company.truth != after
print(f"What we read: in {neither} of {len(company.stops)} batches the answer after the step is neither the old answer nor the label; "
      f"in {undone} a right answer with a right label is undone")

# %% [markdown]
# The patient is the same in all panels. What changes is who else was in the waiting room. Yet the black bars change: that is BatchNorm's doing,
# before any label is made. Now compare three things in each line: the label with the answer before, and the answer after with both. The answer
# after the step need not be the label that the step was taken for, nor the old answer: all patients of the batch pull at the same weights, and at
# this rate the step may overshoot. Look for a right answer with a right label that the step undoes. *A diagnosis that depends on who else came is
# hard to explain to the patient.*
#
# And a whole stream of such batches, sorted by class, as one patient group after another would come. (The networks differ, so each has its number.
# With more patients than in part 9's table a batch of 64 is purer here, and the numbers are not the same.)

# %%
print(f"{len(labels)} patients sorted by class, batches of 64; by network:")
for name in ("source", "BN", "hard pseudo-labels", "neighbour labels"):
    results = [run_stream(METHODS[name](net), stream(x, labels, 64, "class", 0)) for net in models.values()]
    spread = [predicted_class_entropy(result.predictions[:64], K) for result in results]
    print(f"{name:20s} balanced accuracy " + ", ".join(f"{result.metrics()['balanced_accuracy']:.2f}" for result in results)
          + "; first batch, entropy of the predicted classes " + ", ".join(f"{value:.2f}" for value in spread))
print(f"   (entropy: 1 = all {K} equally often; the first batch holds {len(np.unique(results[0].labels[:64]))} class(es))")
for seed, net in models.items():
    own, mean_label, _, _, y_here = label_book(net, x, labels, 64, samples=8, order="class")
    own, mean_label = own.argmax(1), mean_label.argmax(1)
    print(f"network {seed}, before any step: label and own answer agree in {(own == mean_label).mean():.0%} of the patients; "
          f"own answers right {(own == y_here).mean():.0%}, labels right {(mean_label == y_here).mean():.0%}")

# %% [markdown]
# The batch statistics spread one class over several (lesson 11, part 6). The prototypes of the absent classes are then made of images of the
# present one, and the labels mostly repeat the answer, right or wrong (last lines): **neighbours who share your mistake confirm it.** That is the
# *label*. What the *step* then does is something else: it need not lead to the label (the count under the panels).
#
# **On real images.** Meta-training needs two labelled laboratories beside the new one, and small networks trained on both. The chest X-rays that
# earlier lessons use have no second hospital. Nothing was measured on real images in this lesson, and nothing is claimed about them.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 11 · In the clinic
#
# 1. **Before the first patient:** were there at least two labelled scanners to practise on? Without them there is no label network.
# 2. **Which batch?** How many patients, of how many kinds? A night with three patients is no neighbourhood.
# 3. **What is the control?** BN of the same network. A method that cannot be told from it costs a backward pass and a second forward for nothing.
# 4. **Reproducible?** The labels are drawn. The generator's seed belongs into the log; `reset()` puts it back.
# 5. **What is good about it:** nothing is carried on. After every batch the model is the one that was approved.
#
# **When to use it, in one sentence:** not before it has beaten BN of the same network on a *known scanner that was kept out of the meta-training*,
# with the batch size of your clinic.
#
# ## 12 · Quiz, claims, reading, poster

# %%
quiz("13_neighbor_labels")

# %% [markdown]
# | claim | here |
# |---|---|
# | pseudo-labels should be distributions, since hard ones are over-confident | the argument holds for the gradient (part 2). Measured: the step towards drawn labels against the step towards hard ones, accuracy and ECE, stand in the lines "over hard pseudo-labels" of part 7 and in part 8; where these intervals hold zero, no advantage is shown, and the sign of the means is printed. One step sees only the mean of the distribution (part 4) |
# | neighbours give more robust labels | compare the rates in parts 4 and 9. "No neighbours" in part 8 was not retrained and mixes two causes: it cannot carry this claim |
# | the method improves on unseen domains | over source and over BN of the same network: the lines printed in part 7, and the first row of part 8. The batch statistics are in the first difference, not in the second |
# | meta-training teaches labels that make good steps | the outer loss reaches the label network (part 6), on scanners where pseudo-labels are right already; whether it matters: "no meta" in part 8 |
# | small batches suffice | compare the ends of the curves in part 9: with four patients a batch the statistics fail, and the method stands on them; the twelve corrected lines say where it is worse than its control, and the benchmark says it again for batches of 4 |
# | the paper's seven data sets and their numbers | not at this scale, and without public code not checkable |
#
# **Read further.** Lee 2013, *Pseudo-Label*: the hard label, where it began. Iwasawa and Matsuo 2021, T3A (NeurIPS):
# prototypes at test time without any gradient; the package has it. Finn et al. 2017, MAML
# ([1703.03400](https://arxiv.org/abs/1703.03400)): the gradient through a gradient. Kingma and Welling 2014 ([1312.6114](https://arxiv.org/abs/1312.6114)):
# the reparameterised draw and the KL term.
#
# **For your poster.** The drawing of part 6 explains the method in a minute; the ablation of part 8, with its control line at zero, is the result.
# Both numbers and answers of every patient: `seminar results --where experiment=neighbors.table`.

# %%
progress()
