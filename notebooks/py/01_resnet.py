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
# # 01 · ResNet: why shortcuts make depth trainable
#
# **Papers.** He, Zhang, Ren, Sun: *Deep Residual Learning for Image Recognition*, CVPR 2016,
# [arXiv 1512.03385](https://arxiv.org/abs/1512.03385). Ioffe, Szegedy: *Batch Normalization*, ICML 2015,
# [arXiv 1502.03167](https://arxiv.org/abs/1502.03167): half of what makes these networks train, and the half that
# fails on a new scanner.
#
# **You will be able to**
# 1. show the degradation problem on your own machine, and say what it is not;
# 2. compute the size and the receptive field of any stack of convolutions;
# 3. write BatchNorm by hand, in training and in evaluation mode, and say what it remembers;
# 4. build a ResNet from five parts, and prove that it equals the reference;
# 5. name two ways in which a network that is right at home becomes confidently wrong.
#
# **Needs** [00_start_here](00_start_here.ipynb), and some PyTorch. Data and networks ship with the course; no
# network connection, no GPU.
#
# **Time** about 60 minutes to read and do; the cells take
# <!-- minutes -->about 2 minutes to run (cpu profile)<!-- /minutes --> on a laptop.

# %%
import copy
import time

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from torch import nn

from seminar_utils import (
    by_profile, create_model, exercise, load, load_checkpoint, profile, progress, quiz, seed_everything, set_threads,
)
from seminar_utils.adaptation import BatchNormAdapt, Source
from seminar_utils.checkpoints import checkpoint_card
from seminar_utils.evaluation.intervals import paired_difference, seed_interval
from seminar_utils.evaluation.measure import gain, live_or_stored, measure, summarise
from seminar_utils.evaluation.metrics import accuracy, balanced_accuracy, per_class_recall
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.models.convert import load_weights
from seminar_utils.models.parity import max_difference, parity_report, randomise_
from seminar_utils.models.resnet import BasicBlock
from seminar_utils.pretraining.supervised import TrainConfig, fit
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import figures, widgets
from seminar_utils.torchvision_fix import import_torchvision

torchvision = import_torchvision()

# The one place where sizes are set. SEMINAR_PROFILE=smoke|cpu|gpu chooses the row.
SIZE = by_profile(
    smoke=dict(depths=(8, 20), steps=6, seeds=(0, 1), train=128, epochs=1, images=128, strengths=(0.0, 0.7),
               batch_sizes=(64, 1), probe=(500, 400), real=64),
    cpu=dict(depths=(8, 20, 56), steps=60, seeds=(0, 1, 2), train=1000, epochs=8, images=480,
             strengths=(0.0, 0.35, 0.7, 1.0), batch_sizes=(64, 8, 2, 1), probe=(1200, 900),
             real=624),
    gpu=dict(depths=(8, 20, 32, 56, 110), steps=300, seeds=(0, 1, 2), train=4000, epochs=12, images=2000,
             strengths=(0.0, 0.35, 0.7, 1.0), batch_sizes=(64, 8, 2, 1), probe=(4000, 2000),
             real=624),
)
seed_everything(0)
set_threads()
figures.use_course_style()
store = ResultsStore()
print("profile:", profile())


# %% [markdown] slideshow={"slide_type": "slide"} notes="Let the class bet before the next figure: which of the depths has the lowest TRAINING loss? Most say the deepest: it can copy the others."
# ## 1 · The question, in a picture
#
# Stack more layers and a network can express more. A deep network can copy a shallow one and let its further layers
# do nothing, so on the **training** set it should never be worse. He et al. found that it is (their figure 1): a
# plain network of 56 layers had a higher training error than one of 20. They call it *degradation*. It is not
# overfitting: overfitting lowers the training error.
#
# We do it again, small: convolutions of 16 channels on maps of 8 x 8 pixels, phantoms of 32 pixels, six classes (the
# size and tone of a lesion). Every network comes twice, with and without shortcuts. A shortcut that adds the input
# to the output has no parameters, so **both start from exactly the same weights.**

# %%
class Unit(nn.Module):
    """Two 3x3 convolutions with BatchNorm; with `shortcut` the input is added before the last relu."""

    def __init__(self, width, shortcut, norm=nn.BatchNorm2d):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1, self.norm2, self.shortcut = norm(width), norm(width), shortcut

    def forward(self, x):
        out = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))  # (B, 16, 8, 8)
        return torch.relu(out + x) if self.shortcut else torch.relu(out)


def tiny_net(depth, shortcut, seed, norm=nn.BatchNorm2d, he_init=True):
    """One convolution, (depth - 2) / 2 units, one linear layer: images (B, 1, 32, 32) -> logits (B, 6)."""
    torch.manual_seed(seed)
    stem = [nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), norm(16), nn.ReLU(), nn.MaxPool2d(2)]
    units = [Unit(16, shortcut, norm) for _ in range((depth - 2) // 2)]
    net = nn.Sequential(*stem, *units, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 6))
    for module in net.modules() if he_init else ():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


# %% tags=["nbval-check-output"]
for depth in (8, 20, 56):
    plain, residual_net = tiny_net(depth, False, seed=0), tiny_net(depth, True, seed=0)
    pairs = zip(plain.parameters(), residual_net.parameters(), strict=True)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in plain.modules())
    print(f"{convolutions} convolutions + 1 linear layer, {sum(p.numel() for p in plain.parameters()):,} parameters,",
          "same start:", all(torch.equal(a, b) for a, b in pairs))

# %%
x_train, y_train = load("phantoms", "train", n=1000, scanner="A").torch(size=32)  # (1000, 1, 32, 32), (1000,)
LR = 0.003  # one for all networks
KINDS = {"plain": False, "residual": True}


def train_loss(depth, shortcut, seed):
    """Loss at every step of Adam; the order of the images depends on the seed alone."""
    net = tiny_net(depth, shortcut, seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    order, losses = torch.Generator().manual_seed(seed), []
    for _ in range(SIZE["steps"]):
        batch = torch.randperm(len(x_train), generator=order)[:64]
        loss = F.cross_entropy(net(x_train[batch]), y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


curves, at_end = {}, {}
for depth in SIZE["depths"]:
    for kind, shortcut in KINDS.items():
        runs = []
        for seed in SIZE["seeds"]:
            started = time.perf_counter()
            runs.append(train_loss(depth, shortcut, seed))
            about = {"depth": depth, "kind": kind, "steps": SIZE["steps"], "lr": LR, "data": "phantoms", "images": 1000}
            store.append("resnet.degradation", about, {"train_loss": np.mean(runs[-1][-10:])}, seed=seed,
                         seconds=time.perf_counter() - started)
        curves.setdefault(depth, {})[kind] = np.mean(runs, axis=0)  # (steps,)
        at_end.setdefault(kind, {})[depth] = [np.mean(losses[-10:]) for losses in runs]

print(f"training loss, mean of the last ten of {SIZE['steps']} steps, {len(SIZE['seeds'])} seeds")
print(f"guessing among six classes: {np.log(6):.2f}")
for depth in SIZE["depths"]:
    plain, residual_ = (at_end[kind][depth] for kind in KINDS)
    gap = paired_difference(residual_, plain)
    print(f"{depth:3d} layers: plain {seed_interval(plain, bounds=(0, np.inf))}, residual "
          f"{seed_interval(residual_, bounds=(0, np.inf))}, plain - residual {gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]")

# %%
series = {}
for kind in KINDS:
    found = [seed_interval(values, bounds=(0, np.inf)) for values in at_end[kind].values()]
    series[kind] = ([i.mean for i in found], [(i.low, i.high) for i in found])
figures.lines_with_intervals(
    SIZE["depths"], series, xlabel="layers", ylabel="training loss at the end", ylim=(0, 2.2),
    title=f"the same networks without and with shortcuts ({len(SIZE['seeds'])} seeds)",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The whole curves, depth by depth.** In a live notebook a slider; here all depths at once.

# %%
widgets.residual_explorer(curves, xlabel="step")


# %% [markdown]
# **What this shows.** Same data, same optimiser, same weights at the start: at 56 layers the addition alone decides.
# The plain network is still guessing when the residual one has long learnt something. For the shallower ones read the
# intervals: where one contains zero, three seeds cannot tell the two apart.
#
# **What it does not show.** This is a very short training of very small networks, with one learning rate for all; the
# paper trained on CIFAR-10 and ImageNet to the end. Is the plain network of 56 layers *unable* to learn, or only late?
# Set `steps` to five times as many and see. Degradation means harder to train, and how much harder depends on the
# optimiser.

# %% [markdown] slideshow={"slide_type": "slide"} notes="The textbook answer 'the gradients vanish' is what students expect. Let them read the first three rows before you go on: which rows vanish?"
# ## 2 · What happens to the gradient?
#
# The usual explanation is "the gradients vanish". He et al. doubted it (section 4.1): with BatchNorm the gradients of
# their plain networks did not vanish. Measure: one backward pass at the start, the norm of the loss's gradient for
# every convolution, from the first to the last.

# %%
def gradient_norms(depth, shortcut, seed, **options):
    """Gradient norm of every convolution of a fresh network, in the order of the layers."""
    net = tiny_net(depth, shortcut, seed, **options)
    F.cross_entropy(net(x_train[:128]), y_train[:128]).backward()
    return [module.weight.grad.norm().item() for module in net.modules() if isinstance(module, nn.Conv2d)]


VARIANTS = {
    "no BatchNorm, PyTorch's init": dict(shortcut=False, norm=lambda width: nn.Identity(), he_init=False),
    "no BatchNorm, He's init": dict(shortcut=False, norm=lambda width: nn.Identity()),
    "plain": dict(shortcut=False),
    "residual": dict(shortcut=True),
}
norms = {
    depth: {name: np.median([gradient_norms(depth, seed=s, **options) for s in (0, 1, 2)], axis=0)
            for name, options in VARIANTS.items()}
    for depth in (8, 20, 56)
}
for name, values in norms[56].items():
    print(f"56 layers, {name:29s} first layer {values[0]:8.1e}, middle {values[27]:8.1e}, last {values[-1]:8.1e}")

# %%
shown = {depth: {name: by_name[name] for name in ("no BatchNorm, He's init", "plain", "residual")}
         for depth, by_name in norms.items()}
widgets.residual_explorer(shown, xlabel="layer", ylabel="norm of the gradient", log=True)


# %% [markdown] slideshow={"slide_type": "subslide"}
# Three different stories, so be careful with "vanish":
#
# * Without BatchNorm and with PyTorch's default initialisation the signal shrinks at every layer on its way *forward*,
#   and then there is nothing left for the gradient of any layer, not even the last: an exact zero in float32 (which a
#   log axis cannot show, so the figure leaves it out). He's initialisation (their earlier paper,
#   [1502.01852](https://arxiv.org/abs/1502.01852)) repairs that.
# * The **plain network with BatchNorm has the opposite problem at the start: gradients grow backwards**, layer by
#   layer, and the first layers get thousands of times what the last ones get. That is a theorem (Yang et al. 2019,
#   [1902.08129](https://arxiv.org/abs/1902.08129)): BatchNorm without shortcuts makes gradients explode with depth.
# * With shortcuts the first layers get more than the last ones as well, but by tens, not by thousands. From
#   $y = F(x) + x$ follows
#   $\partial y/\partial x = \partial F/\partial x + 1$: **a direct way that no layer can block.**
#
# This is the state before the first step, not the whole of training: an optimiser such as Adam rescales each weight's
# gradient, and still the plain network of 56 layers stood still in part 1. Large is not the same as useful.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3 · Convolutions: how large, and how far do they see?
#
# A convolution slides a kernel of $k \times k$ weights over the image in steps of `stride`, after `padding` zeros were
# put around it. **Exercise `resnet.output_size`** (difficulty 1, 4 minutes): the side of what comes out.

# %%
def output_size(size, kernel, stride, padding):
    """Side of a convolution's output in pixels, an integer; a step that does not fit any more is dropped."""
    raise NotImplementedError


output_size = exercise("resnet.output_size", output_size)

# %% tags=["nbval-check-output"]
for what, size, kernel, stride, padding in (
    ("3x3, keeps the size", 32, 3, 1, 1), ("3x3 with stride 2", 32, 3, 2, 1), ("1x1 with stride 2", 32, 1, 2, 0),
    ("first layer of ResNet-18", 224, 7, 2, 3), ("its max-pool", 112, 3, 2, 1),
):
    came = F.conv2d(torch.zeros(1, 1, size, size), torch.zeros(1, 1, kernel, kernel), stride=stride, padding=padding)
    print(f"{what:25s} {size:3d} -> {output_size(size, kernel, stride, padding):3d}", tuple(came.shape))


# %% [markdown] slideshow={"slide_type": "subslide"}
# One output value of a stack of layers depends on a square of input pixels: its **receptive field**. A network whose
# field is smaller than the lesion cannot see the lesion as a whole.
#
# **Exercise `resnet.receptive_field`** (difficulty 3, 12 minutes): the side of that square, for layers given as
# `(kernel, stride)`, first layer first.

# %%
def receptive_field(layers):
    """Side, in input pixels, of what one output value sees through layers [(kernel, stride), ...]."""
    raise NotImplementedError


receptive_field = exercise("resnet.receptive_field", receptive_field)

# %% [markdown]
# Is the formula right? A gradient knows: the pixels with a non-zero gradient are those that the output depends on.

# %% tags=["nbval-check-output"]
STAGE = [(3, 1)] * 4  # two blocks of two convolutions
STACKS = {
    "stem": [(3, 1)],
    "stem + stage 1": [(3, 1)] + STAGE,
    "stem + stages 1, 2": [(3, 1)] + STAGE + [(3, 2)] + STAGE[1:],
    "stem + stages 1, 2, 3": [(3, 1)] + STAGE + [(3, 2)] + STAGE[1:] + [(3, 2)] + STAGE[1:],
}


def field_by_gradient(layers, size=128):
    """Count the columns of the input that one output value in the middle depends on (all weights one)."""
    x = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    out = x
    for kernel, stride in layers:
        out = F.conv2d(out, torch.ones(1, 1, kernel, kernel, dtype=torch.float64), stride=stride, padding=kernel // 2)
    middle = out.shape[-1] // 2
    out[0, 0, middle, middle].backward()
    return int((x.grad[0, 0] != 0).any(dim=0).sum())


print("the course's small ResNet, pixels seen by one value:")
for name, layers in STACKS.items():
    print(f"{name:22s} formula {receptive_field(layers):2d}, counted {field_by_gradient(layers):2d}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# That is the largest square that *can* matter. What matters in a trained network is smaller and fades outwards
# ([1701.04128](https://arxiv.org/abs/1701.04128)): the gradient of the middle value, averaged over images.

# %%
model = load_checkpoint("resnet_small-phantoms-s0")
x_home, y_home = load("phantoms", "test", n=SIZE["images"], scanner="A").torch(size=32)  # (N, 1, 32, 32), (N,)
class_names = load("phantoms", "test", n=8).class_names


def effective_field(stage, count=64):
    """Mean |d (middle value after `stage`) / d pixel| over images: (32, 32), largest value 1."""
    x = x_home[:count].clone().requires_grad_(True)
    out = model.relu(model.bn1(model.conv1(x)))
    for i in range(1, stage + 1):
        out = model.get_submodule(f"layer{i}")(out)
    out[:, :, out.shape[2] // 2, out.shape[3] // 2].sum().backward()
    field = x.grad.abs().mean(dim=(0, 1))
    return field / field.max()


figure, axes = plt.subplots(1, 4, figsize=(12, 3.2))
axes[0].imshow(x_home[0, 0], cmap="gray", vmin=0, vmax=1)
axes[0].set_title("a phantom, 32 pixels", fontsize=12)
for stage, ax in zip((1, 2, 3), axes[1:]):
    ax.imshow(effective_field(stage).sqrt(), cmap="viridis", vmin=0, vmax=1)  # the root shows the faint rim
    field = receptive_field(list(STACKS.values())[stage])
    ax.add_patch(plt.Rectangle((16 - field / 2, 16 - field / 2), field, field, fill=False, color="#E69F00", lw=2))
    ax.set(xlim=(-0.5, 31.5), ylim=(31.5, -0.5))
    beyond = ", more than the image" if field > 32 else ""
    ax.set_title(f"after stage {stage}: at most {field}{beyond}", fontsize=11)
for ax in axes:
    ax.axis("off")
plt.show()


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 4 · BatchNorm by hand
#
# Algorithm 1 of Ioffe and Szegedy. For each channel $c$ of a batch, with $m = B \cdot H \cdot W$ values,
#
# $$\mu_c = \frac{1}{m}\sum x, \qquad \sigma_c^2 = \frac{1}{m}\sum (x - \mu_c)^2, \qquad
# y = \gamma_c\,\frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} + \beta_c .$$
#
# $\gamma$ and $\beta$ are learnt: the layer may undo what it did. **Exercise `resnet.batch_norm`** (difficulty 2,
# 8 minutes).

# %%
def batch_norm(x, gamma, beta, eps):
    """Normalise x (B, C, H, W) per channel by the batch's own mean and biased variance (eps inside the root)."""
    raise NotImplementedError


batch_norm = exercise("resnet.batch_norm", batch_norm)

# %% tags=["nbval-check-output"]
layer = randomise_(nn.BatchNorm2d(3), seed=0).train()
x = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(1)) * 2 + 1
before = layer.running_mean.clone(), layer.running_var.clone()
y = layer(x)
print("training mode = by hand:", torch.allclose(y, batch_norm(x, layer.weight, layer.bias, layer.eps), atol=1e-5))
mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3))  # this variance divides by m - 1
remembered = torch.lerp(before[0], mean, 0.1), torch.lerp(before[1], variance, 0.1)
print("and it remembers 0.9 old + 0.1 new:",
      torch.allclose(layer.running_mean, remembered[0], atol=1e-5),
      torch.allclose(layer.running_var, remembered[1], atol=1e-5))

# %% [markdown] slideshow={"slide_type": "subslide"}
# The second half of that cell is the important one for this seminar. In training the layer keeps a moving average of
# what it measured (`running_mean`, `running_var`, momentum 0.1). In **evaluation mode** it does not measure any more:
# it uses that memory. Then the answer for one patient does not depend on the others in the batch.

# %% tags=["nbval-check-output"]
layer.eval()
shape = (1, -1, 1, 1)
scale = (layer.weight / torch.sqrt(layer.running_var + layer.eps)).view(shape)
by_hand = (x - layer.running_mean.view(shape)) * scale + layer.bias.view(shape)
print("evaluation mode = by hand, from memory:", torch.allclose(layer(x), by_hand, atol=1e-5))
print("one image alone = the same image among eight:", torch.allclose(layer(x[:1]), layer(x)[:1], atol=1e-6))
layer.train()
print("and in training mode:", torch.allclose(layer(x[:1]), layer(x)[:1], atol=1e-6))
for batches in (1, 7, 22, 44):
    print(f"after {batches:2d} batches the memory still holds {0.9**batches:4.0%} of what was there before")


# %% [markdown]
# Keep two consequences in mind. The memory is of the **training scanners** (part 10). And it lags: at the beginning of training
# the weights move faster than the average follows, and a network can be right in training mode and wrong in
# evaluation mode (part 7).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5 · The residual block
#
# Equation (1) of the paper, for a block whose output has the shape of its input, and equation (2), where the shape
# changes and a projection $W_s$ (a 1x1 convolution, with the stride) makes it fit:
#
# $$y = F(x, \{W_i\}) + x \quad (1) \qquad\qquad y = F(x, \{W_i\}) + W_s\,x \quad (2)$$
#
# A relu follows the addition. **Exercise `resnet.residual`** (difficulty 1, 4 minutes); `branch` is $F$, `shortcut`
# is the identity or $W_s$.

# %%
def residual(x, branch, shortcut):
    """relu(branch(x) + shortcut(x)), both functions of x (B, C, H, W)."""
    raise NotImplementedError


residual = exercise("resnet.residual", residual)

# %% [markdown]
# Why "residual"? If the best thing a block can do is nothing, a plain block must learn the identity; a residual one
# must only let its weights go to zero. Weight decay pulls it there by itself.

# %% tags=["nbval-check-output"]
x = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))  # comes out of a relu: not negative
zero = nn.Conv2d(4, 4, 3, padding=1, bias=False)
nn.init.zeros_(zero.weight)
print("all weights zero, plain: y = 0:", torch.equal(torch.relu(zero(x)), torch.zeros_like(x)))
print("all weights zero, residual: y = x:", torch.equal(residual(x, zero, nn.Identity()), x))


# %% [markdown] slideshow={"slide_type": "subslide"}
# The block, with the names that torchvision gives its parts, so that real weights will fit.

# %%
class Block(nn.Module):
    """The paper's basic block: two 3x3 convolutions around a shortcut; the first carries the stride."""

    def __init__(self, in_chans, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Identity()  # equation (1) ...
        if stride != 1 or in_chans != width:  # ... or equation (2)
            self.downsample = nn.Sequential(nn.Conv2d(in_chans, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def branch(self, x):
        return self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))

    def forward(self, x):
        return residual(x, self.branch, self.downsample)


# %% tags=["nbval-check-output"]
x = torch.randn(2, 16, 32, 32, generator=torch.Generator().manual_seed(0))
for title, arguments in {"identity, eq. (1)": (16, 16), "projection, eq. (2)": (16, 32, 2)}.items():
    reference = randomise_(BasicBlock(*arguments), seed=1).eval()
    block = load_weights(Block(*arguments), reference.state_dict()).eval()
    count = sum(p.numel() for p in block.downsample.parameters())
    print(f"{title:20s} {tuple(x.shape)} -> {tuple(block(x).shape)}, parameters of the shortcut: {count}")
    print("    equals the package's block:", max_difference(block(x), reference(x)) < 1e-5)


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6 · The whole network, and the parity cell
#
# Stem; three stages, of which the second and the third halve the map and double the channels; the mean over the map; one
# linear layer. That is all of `create_model("resnet_small")`.

# %%
class SmallResNet(nn.Module):
    """Images (B, 1, H, W) -> logits (B, K)."""

    def __init__(self, num_classes=6, widths=(16, 32, 64)):
        super().__init__()
        self.conv1 = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before = widths[0]
        for i, width in enumerate(widths):
            first = Block(before, width, stride=1 if i == 0 else 2)
            self.add_module(f"layer{i + 1}", nn.Sequential(first, Block(width, width)))
            before = width
        self.fc = nn.Linear(before, num_classes)

    def maps(self, x):
        """What every stage makes of x: a list of (B, C, h, w)."""
        found = [torch.relu(self.bn1(self.conv1(x)))]  # (B, 16, H, W)
        for stage in (self.layer1, self.layer2, self.layer3):
            found.append(stage(found[-1]))  # (B, 16, H, W), (B, 32, H/2, W/2), (B, 64, H/4, W/4)
        return found

    def forward(self, x):
        return self.fc(self.maps(x)[-1].mean(dim=(2, 3)))  # (B, 64) -> (B, K)


# %% tags=["nbval-check-output"]
package = randomise_(create_model("resnet_small"), seed=0).eval()
notebook = load_weights(SmallResNet(), package.state_dict()).eval()
x = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
for name, out in zip(("stem", "layer1", "layer2", "layer3"), notebook.maps(x)):
    print(f"{name:7s}{tuple(out.shape)}")
print("logits", tuple(notebook(x).shape), f"{sum(p.numel() for p in notebook.parameters()):,} parameters")
small_gap = max_difference(notebook(x), package(x))
print("notebook = package, max |difference| below 1e-5:", small_gap < 1e-5)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The parity cell.** And does the package's equal the one that everybody uses? Random numbers in *every* weight and
# buffer of torchvision's ResNet-18 (fresh weights hide mistakes: running means are 0, variances 1), the same in ours,
# the same image through both, forward and backward, at full size.

# %% tags=["nbval-check-output"]
reference = randomise_(torchvision.models.resnet18(), seed=0)
ours = load_weights(create_model("resnet18"), reference.state_dict())
image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
report = parity_report(ours, reference, image, feature=("layer2", "layer2"))
print("same names, same shapes:", list(ours.state_dict()) == list(reference.state_dict()))
for kind in ("output", "feature", "input_gradient", "gradient"):
    print(f"resnet18 = torchvision's, {kind}, relative difference at most 1e-5:", report[kind] <= 1e-5)

# %%
print(f"max |difference|: notebook to package {small_gap:.1e}, package to torchvision {report['max_difference']:.1e}")


# %% [markdown]
# At full size, against table 1 of the paper: 1.8, 3.6 and 3.8 billion multiply-adds.

# %% tags=["nbval-check-output"]
def multiply_adds(net, x):
    """Multiplications of all convolutions and linear layers for one image, counted while they run."""
    counts = []

    def count(module, inputs, out):
        counts.append(out[0].numel() * module.weight[0].numel())  # each output value: one product per weight

    handles = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        net.eval()(x)
    for handle in handles:
        handle.remove()
    return sum(counts)


for name, size, chans in (("resnet_small", 32, 1), ("resnet18", 224, 3), ("resnet34", 224, 3), ("resnet50", 224, 3)):
    net = create_model(name)
    parameters = sum(p.numel() for p in net.parameters()) / 1e6
    count = multiply_adds(net, torch.zeros(1, chans, size, size)) / 1e9
    print(f"{name:13s}{parameters:6.2f} million parameters, {count:6.3f} billion multiply-adds at {size} pixels")

# %% [markdown]
# ResNet-50 comes out a little dearer than in the paper: everybody's version has the stride in the 3x3 convolution of
# a bottleneck, the paper had it in the 1x1 before. A detail that no table of a paper tells you, and that a parity
# cell would catch.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7 · Training
#
# `fit` is a plain loop: AdamW, warm-up and cosine, class-balanced batches, the best epoch on the *validation* images
# is kept. Read it once, it is a page: `seminar_utils/pretraining/supervised.py`. A thousand phantoms of scanners A and
# B, for seconds:

# %%
train = load("phantoms", "train", n=SIZE["train"], scanner="AB")
val = load("phantoms", "val", n=200, scanner="AB")
config = TrainConfig(epochs=SIZE["epochs"], lr=4e-3, batch_size=64, label_smoothing=0.0)
seed_everything(0)
short = create_model("resnet_small")
history = fit(short, train, val, config, size=32, progress=False)
card = checkpoint_card("resnet_small-phantoms-s0")
figures.training_curves(history, heading=f"{len(train)} images, {len(history)} epochs, here and now")

# %%
figures.training_curves(card["history"], heading=f"{card['name']}: {card['data']['n']} images, {card['seconds']:.0f} seconds")

# %% [markdown] slideshow={"slide_type": "subslide"}
# In the first of the two figures look at the first epochs of the accuracy: on the validation images the network starts at
# chance (one in six) and stays far behind what it reaches on its training batches. That is not overfitting. Evaluation mode uses BatchNorm's memory, and the memory is
# late (part 4). Watch the same weights in both modes:

# %%
seed_everything(0)
early = create_model("resnet_small")
fit(early, train, val, TrainConfig(epochs=max(1, SIZE["epochs"] // 4), lr=4e-3, batch_size=64, label_smoothing=0.0),
    size=32, progress=False)
x_val, y_val = val.torch(size=32)
for title, method in {"memory": Source(early), "statistics of this batch": BatchNormAdapt(early)}.items():
    predictions = torch.cat([method(batch).argmax(1) for batch in x_val.split(100)])
    print(f"after {max(1, SIZE['epochs'] // 4)} epochs, normalised by {title:25s} balanced accuracy "
          f"{balanced_accuracy(y_val, predictions):.3f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The shipped checkpoint has a card: what it was trained on, what it reaches, and the command that makes it again.

# %%
for key in ("command", "seed", "best_epoch", "selection"):
    print(f"{key}: {card[key]}")
print("data:", {key: card["data"][key] for key in ("name", "scanner", "splits")})
for metric in ("balanced_accuracy", "ece"):
    low, high = card["intervals"][metric]
    print(f"test {metric}: {card['metrics'][metric]:.3f} [{low:.3f}, {high:.3f}]")


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 8 · Prevalence: what are the batches made of?
#
# A screening clinic: one lesion in twenty is large, and the images are bad (scanner C at full strength). We train the
# **last layer alone** on labelled images of that clinic, twice: with batches as the patients come, and with batches
# in which both classes are equally likely. Everything else is the same.

# %%
def screening(split, count, share=0.05):
    """Patients of scanner C of which `share` have a large lesion: images (N, 1, 32, 32), labels (N,)."""
    images = load("phantoms", split, n=count, scanner="C", task="size")
    large = images.labels == 2
    rare, common = np.flatnonzero(large), np.flatnonzero(~large)
    kept = np.concatenate([common, rare[: max(2, round(len(common) * share / (1 - share)))]])
    x, _ = images.subset(kept).torch(size=32)
    return x, torch.from_numpy(large[kept]).long()


def last_layer(features, labels, weights, seed, steps=400):
    """A linear classifier (64 -> 2), trained on batches drawn with these weights, one for each image."""
    torch.manual_seed(seed)
    head = nn.Linear(features.shape[1], 2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(steps):
        batch = torch.multinomial(weights, 64, replacement=True)
        loss = F.cross_entropy(head(features[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


models = {seed: load_checkpoint(f"resnet_small-phantoms-s{seed}") for seed in SIZE["seeds"]}
(x_fit, y_fit), (x_new, y_new) = screening("train", SIZE["probe"][0]), screening("test", SIZE["probe"][1])
SAMPLING = {"as they come": torch.ones(2), "balanced": 1 / torch.bincount(y_fit)}  # weight of each class
found = {}
for seed, net in models.items():
    with torch.no_grad():
        f_fit, f_new = net.embed(x_fit), net.embed(x_new)  # (N, 64)
    mean, std = f_fit.mean(0), f_fit.std(0)
    for sampling, weight in SAMPLING.items():
        head = last_layer((f_fit - mean) / std, y_fit, weight[y_fit].float(), seed)
        predictions = head((f_new - mean) / std).argmax(1)
        recall = per_class_recall(y_new, predictions, 2)
        scores = {"accuracy": accuracy(y_new, predictions), "balanced_accuracy": balanced_accuracy(y_new, predictions),
                  "recall_large": recall[1]}
        store.append("resnet.prevalence", {"sampling": sampling, "data": "phantoms", "scanner": "C", "strength": 1.0,
                                           "images": len(y_new), "share": 0.05}, scores, seed=seed)
        for metric, value in scores.items():
            found.setdefault(metric, {}).setdefault(sampling, []).append(value)

print(f"{len(y_fit)} patients to learn from, {len(y_new)} to be judged, {int(y_new.sum())} with a large lesion")
print(f"a model that never says 'large' has accuracy {1 - y_new.float().mean():.3f}, balanced accuracy 0.500")
for metric, by_sampling in found.items():
    print(f"{metric:18s}" + "   ".join(f"{s}: {seed_interval(v, bounds=(0, 1))}" for s, v in by_sampling.items()))

# %% [markdown]
# The plain batches win the accuracy and miss most of the large lesions: to answer "not large" is cheap when nineteen
# of twenty are not. The balanced batches pay for the found lesions with false alarms. Neither is wrong, they answer
# different questions; but a comparison of two methods under shift must not be a comparison of two prevalences. So the
# course trains class-balanced and reports balanced accuracy.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 9 · What the filters see
#
# Eight of the sixteen kernels of the first layer (red: positive weights, blue: negative ones), and what they make of one
# patient.

# %%
patient = x_home[3:4]
with torch.no_grad():
    maps = [model.relu(model.bn1(model.conv1(patient)))]
    for i in (1, 2, 3):
        maps.append(model.get_submodule(f"layer{i}")(maps[-1]))
kernels = model.conv1.weight.detach()[:, 0]  # (16, 3, 3)
figure, axes = plt.subplots(2, 9, figsize=(13, 3.2))
axes[0, 0].imshow(patient[0, 0], cmap="gray", vmin=0, vmax=1)
axes[0, 0].set_title("patient", fontsize=11)
for i, (ax, answer) in enumerate(zip(axes[0, 1:], axes[1, 1:])):
    ax.imshow(kernels[i], cmap="RdBu", vmin=-kernels.abs().max(), vmax=kernels.abs().max())
    ax.set_title(f"kernel {i}", fontsize=11)
    answer.imshow(maps[0][0, i], cmap="gray")
for ax in axes.ravel():
    ax.axis("off")
plt.show()

# %%
figure, axes = plt.subplots(1, 7, figsize=(13, 2.3))
axes[0].imshow(patient[0, 0], cmap="gray", vmin=0, vmax=1)
axes[0].set_title("patient", fontsize=11)
for stage in (1, 2, 3):
    strongest = maps[stage][0].amax(dim=(1, 2)).argsort(descending=True)[:2]
    for j, channel in enumerate(strongest.tolist()):
        ax = axes[2 * stage - 1 + j]
        ax.imshow(maps[stage][0, channel], cmap="gray")
        ax.set_title(f"stage {stage}, {tuple(maps[stage].shape[-2:])}", fontsize=10)
for ax in axes:
    ax.axis("off")
plt.show()

# %% [markdown] slideshow={"slide_type": "subslide"}
# The first layer finds edges and grey levels; the last stage has 8 x 8 places left, and its strongest channels answer
# at the lesion. Because the network ends with a mean and a linear layer, the logit of a class is itself a mean over
# places: $z_k = \frac{1}{hw}\sum_{ij} w_k \cdot f_{ij} + b_k$. Drawn as a map this is the *class activation map*
# ([1512.04150](https://arxiv.org/abs/1512.04150)).

# %%
with torch.no_grad():
    answer = int(model(patient).argmax())
    evidence = torch.einsum("c,chw->hw", model.fc.weight[answer], maps[3][0])  # (8, 8)
print(f"true: {class_names[y_home[3]]}; said: {class_names[answer]}")
print(f"logit {model(patient)[0, answer].item():.4f} = mean of the map + bias "
      f"{(evidence.mean() + model.fc.bias[answer]).item():.4f}")
figures.attention_overlay(patient[0], evidence.clamp(min=0), title=f"evidence for '{class_names[answer]}'")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 10 · What BatchNorm remembers
#
# The networks were trained on scanners A and B. Now the same patients on scanner C, turned up step by step; three
# training seeds. "BN" is the same network, not one weight changed, that normalises by the batch in front of it
# instead of by its memory.

# %%
scanners = {}
for scanner, strength in [("A", 1.0), ("B", 1.0)] + [("C", s) for s in SIZE["strengths"] if s]:
    x, y = load("phantoms", "test", n=SIZE["images"], scanner=scanner, strength=strength).torch(size=32)
    scanners[scanner, strength] = measure("resnet.scanners", {"source": Source, "BN": BatchNormAdapt}, models, x, y,
                                          params={"data": "phantoms", "scanner": scanner, "strength": strength})
for (scanner, strength), rows in scanners.items():
    print(f"scanner {scanner} at {strength:.2f}   " + "   ".join(f"{m} {i}" for m, i in summarise(rows).items()))

# %%
names = [f"{scanner}" if scanner != "C" else f"C {strength:g}" for scanner, strength in scanners]
figures.grouped_bars(
    [f"scanner {name}" for name in names],
    {m: [summarise(rows)[m] for rows in scanners.values()] for m in ("source", "BN")},
    title=f"{len(models)} seeds, 95% intervals; dotted: guessing", chance=1 / 6,
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# And the network does not know. The confidence of its **wrong** answers:

# %%
for strength in SIZE["strengths"][1:]:
    x, y = load("phantoms", "test", n=SIZE["images"], scanner="C", strength=strength).torch(size=32)
    sure = []
    for net in models.values():
        with torch.no_grad():
            p = net(x).softmax(1)
        wrong = p.argmax(1) != y
        sure.append(p.max(1).values[wrong].mean().item())
    print(f"C at {strength:.2f}: {int(wrong.sum())} of {len(y)} wrong (last seed), mean confidence when wrong "
          f"{seed_interval(sure, bounds=(0, 1))}")


# %% [markdown]
# The weights were never the (only) problem: the memory was. Measuring again needs many patients at once, and what
# happens when they come singly or sorted is the subject of [11_tent](11_tent.ipynb). Part 11 has a first taste.

# %% [markdown] slideshow={"slide_type": "slide"} notes="model.train() left on at test time is the commonest bug in students' projects. Ask who has shipped it."
# ## 11 · The failure: training mode at the bedside
#
# Somebody forgot `model.eval()`. On the *home* scanner, with patients like those it was trained on. What does that
# cost, and when would you notice?

# %%
def forgotten(net):
    """A copy that was left in training mode: it normalises by its batch, and goes on remembering."""
    return copy.deepcopy(net).train()


mode_rows = {}
for size in SIZE["batch_sizes"]:
    mode_rows[size] = measure("resnet.train_mode", {"eval()": Source, "train()": forgotten}, models,
                              x_home[:240], y_home[:240], batch_size=size, params={"data": "phantoms", "scanner": "A"})
    table = summarise(mode_rows[size])
    print(f"batch of {size:2d}   " + "   ".join(f"{mode} {interval}" for mode, interval in table.items()))

# %%
modes = {mode: ([summarise(rows)[mode].mean for rows in mode_rows.values()],
                [(summarise(rows)[mode].low, summarise(rows)[mode].high) for rows in mode_rows.values()])
         for mode in ("eval()", "train()")}
figures.lines_with_intervals(
    np.log2(SIZE["batch_sizes"]), modes, xlabel="log2 of the batch size", ylim=(0, 1.05),
    title="scanner A: the mode matters when patients come singly",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# With large batches nobody notices. With single patients it is guessing. Why exactly guessing? One patient at a time:

# %%
train_mode = forgotten(model)
with torch.no_grad():
    alone = torch.cat([train_mode(one[None]).softmax(1) for one in x_home[:200]])  # (200, 6)
    pooled = torch.cat([train_mode.embed(one[None]) for one in x_home[:200]])  # (200, 64), what the last layer reads
    pooled_home = model.embed(x_home[:200])
said = alone.argmax(1)
print("answers for 200 patients, judged alone:",
      {class_names[k]: int(count) for k, count in enumerate(said.bincount(minlength=6)) if count})
print(f"features: standard deviation over the patients {pooled_home.std(0).mean():.3f} in eval(), "
      f"{pooled.std(0).mean():.3f} in train()")
k = int(torch.where(said != y_home[:200], alone.max(1).values, 0).argmax())  # the surest of the wrong answers
others = x_home[200:231] if len(x_home) > 231 else x_home[:31]
with torch.no_grad():
    cases = {"eval()": model(x_home[k : k + 1]),
             "train(), among 31 others": forgotten(model)(torch.cat([x_home[k : k + 1], others]))[:1],
             "train(), alone": forgotten(model)(x_home[k : k + 1])}
print(f"patient {k}, truth: {class_names[y_home[k]]}")
for title, logits in cases.items():
    p, label = logits.softmax(1)[0].max(0)
    print(f"    {title:25s} {class_names[label]:14s} {p:.0%} sure")

# %% [markdown]
# Every patient gets the same answer. The last BatchNorm has set each channel's mean over *this* map to its $\beta$, and
# the network ends with a mean over the map: what told the patients apart has been subtracted. (Between the two stand the
# shortcut and a relu, so a little is left.) The features of different patients hardly differ any more.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Worse: training mode also **writes**. A morning on scanner C in the wrong mode, then everything by the book on A:

# %%
x_c, _ = load("phantoms", "test", n=SIZE["images"], scanner="C", strength=1.0).torch(size=32)
busy = forgotten(model)
with torch.no_grad():
    for batch in x_c.split(32):
        busy(batch)
busy.eval()
with torch.no_grad():
    after = balanced_accuracy(y_home, busy(x_home).argmax(1))
    before_ = balanced_accuracy(y_home, model(x_home).argmax(1))
moved = sum(not torch.equal(a, b) for a, b in zip(model.state_dict().values(), busy.state_dict().values()))
print(f"{len(x_c.split(32))} batches later: {moved} of {len(model.state_dict())} tensors have changed, none by training")
print(f"eval() on scanner A: balanced accuracy {before_:.3f} before, {after:.3f} after")

# %% [markdown]
# No error message, no warning, no gradient, and another model. A batch of one raises an error only where one channel
# is left with a single value:

# %% tags=["nbval-check-output"]
try:
    nn.BatchNorm2d(4).train()(torch.zeros(1, 4, 1, 1))
except ValueError as error:
    print("ValueError:", error)
print("a batch of one with 2 x 2 pixels passes in silence:", nn.BatchNorm2d(4).train()(torch.zeros(1, 4, 2, 2)).shape)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 12 · On real images
#
# PneumoniaMNIST (chest X-rays of children, normal or pneumonia, 28 pixels; CC BY 4.0, MedMNIST v2). Three networks
# with the settings from above, trained class-balanced, each chosen on the validation split and scored on the test
# split. Live when the data is found, else from the results store; the cell says which.

# %%
try:
    xray = load("pneumoniamnist", "test").subset(range(SIZE["real"]))
except SeminarError:
    xray = None


def on_xrays():
    """The three networks on both splits that they were not trained on, as shipped and with the batch's statistics."""
    nets = {seed: load_checkpoint(f"resnet_small-pneumoniamnist-s{seed}") for seed in SIZE["seeds"]}
    return [row for split, images in {"test": xray, "val": load("pneumoniamnist", "val")}.items()
            for row in measure("resnet.xray", {"source": Source, "BN": BatchNormAdapt}, nets, *images.torch(),
                               params={"data": "pneumoniamnist", "split": split})]


both_rows = live_or_stored("resnet.xray", xray is not None, on_xrays)
xray_rows, val_rows = ([row for row in both_rows if row["params"]["split"] == split] for split in ("test", "val"))
for row in xray_rows:
    if row["params"]["method"] == "source":
        low, high = row["intervals"]["balanced_accuracy"]
        print(f"seed {row['seed']}: balanced accuracy {row['metrics']['balanced_accuracy']:.3f} [{low:.3f}, {high:.3f}] "
              f"(bootstrap over {row['params']['images']} images), ECE {row['metrics']['ece']:.3f}")
for method, interval in summarise(xray_rows).items():
    print(f"over {len({row['seed'] for row in xray_rows})} seeds, {method:7s}{interval}")
for split, rows in {"test": xray_rows, "validation": val_rows}.items():
    won = gain(rows, over="source", of="BN")
    print(f"BN - source on the {split} split: {100 * won.mean:+.1f} points [{100 * won.low:+.1f}, {100 * won.high:+.1f}]")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The cards also hold the balanced accuracy on the **validation** split. Compare:

# %%
cards = [checkpoint_card(f"resnet_small-pneumoniamnist-s{seed}") for seed in SIZE["seeds"]]
validation = [c["val_balanced_accuracy"] for c in cards]
test = [c["metrics"]["balanced_accuracy"] for c in cards]
print("validation", seed_interval(validation, bounds=(0, 1)))
print("test      ", seed_interval(test, bounds=(0, 1)))
drop = paired_difference(test, validation)
print(f"lost between the two: {100 * drop.mean:.1f} points [{100 * drop.low:.1f}, {100 * drop.high:.1f}]")
figures.bars_with_intervals(
    ["validation", "test"], [np.mean(validation), np.mean(test)],
    [(i.low, i.high) for i in (seed_interval(validation, bounds=(0, 1)), seed_interval(test, bounds=(0, 1)))],
    title=f"PneumoniaMNIST, {len(cards)} seeds", chance=0.5,
)

# %% [markdown]
# The drop has two sources. The epoch was chosen on the validation images, which flatters them a little. And the splits
# are not drawn alike: MedMNIST cut train and validation from one folder of the source data, and took the test images
# from another. Nobody moved a dial here, and still the statistics of the batch alone win back a part on the test split,
# which they do not on the validation split: **a change of the images' statistics, as in part 10, is not an invention of
# the phantoms.** It need not be a scanner, and it stays a measurement on one small collection.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 13 · In the clinic
#
# 1. **Which mode?** Assert `not model.training` where patients are judged; a test must fail when somebody forgets.
# 2. **Whose memory?** A network with BatchNorm carries the statistics of its training scanners. Write on its card
#    which ones they were.
# 3. **Which prevalence?** Say what the batches were made of, and report recall for each class, not accuracy alone.
# 4. **Alone or in batches?** A number from batches of 64 promises nothing for the night with one patient.
# 5. **Is the test split drawn like the training split?** If nobody knows, the drop between them is your first estimate
#    of what happens in the next hospital.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 14 · Quiz, claims, reading, poster

# %%
quiz("01_resnet")

# %% [markdown]
# | claim | here |
# |---|---|
# | "Deeper plain networks have a higher *training* error" (He et al., figure 1) | reproduced in kind: tiny networks, a short training (part 1) |
# | "Residual networks gain from depth" (tables 2 and 6) | reproduced for the training loss (part 1); test accuracy of deep ones: not at this scale |
# | "With BatchNorm the gradients of the plain networks do not vanish" (section 4.1) | reproduced. "Healthy" they are not at the start: they grow towards the first layer (part 2) |
# | "1.8 / 3.6 / 3.8 billion multiply-adds" (table 1) | reproduced for ResNet-18 and -34; the common ResNet-50 has the stride elsewhere (part 6) |
# | "3.57% top-5 error on ImageNet" | not at this scale |
# | "In evaluation mode BatchNorm depends on the image alone" (Ioffe and Szegedy, section 3.1) | reproduced (part 4), with its price on another scanner (part 10) |
#
# **Read further.** He et al. 2016, *Identity mappings* ([1603.05027](https://arxiv.org/abs/1603.05027)): what changes
# when nothing stands on the direct way. Santurkar et al. 2018 ([1805.11604](https://arxiv.org/abs/1805.11604)):
# BatchNorm helps, but not for the reason its paper gave. Wightman et al. 2021
# ([2110.00476](https://arxiv.org/abs/2110.00476)): how much of later progress was the training recipe. Zech et al.
# 2018, *PLoS Medicine* 15(11): a pneumonia network that was worse in other hospitals.
#
# **For your poster.** The degradation curve (part 1) and the scanner bars (part 10). Their rows:
# `seminar results --where experiment=resnet.degradation` and `... experiment=resnet.scanners`.

# %%
progress()
