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
# # 02 · Vision Transformer: an image as a sequence of patches
#
# **Papers.** Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai et al.: *An Image is Worth 16x16 Words: Transformers
# for Image Recognition at Scale*, ICLR 2021, [arXiv 2010.11929](https://arxiv.org/abs/2010.11929). Vaswani et al.:
# *Attention Is All You Need*, NeurIPS 2017, [arXiv 1706.03762](https://arxiv.org/abs/1706.03762): where attention,
# heads and the division by $\sqrt{d}$ come from.
#
# **You will be able to**
# 1. cut an image into tokens, count them, and say what they cost;
# 2. write attention, the block and a whole ViT by hand, and prove that it equals the reference;
# 3. say what a transformer knows of an image's geometry, and where a wrong position embedding hides;
# 4. test a claim that was read off an attention map;
# 5. say what a ViT must learn that a ResNet is given, and what that does and does not mean for a small clinic.
#
# **Needs** [01_resnet](01_resnet.ipynb). Data and networks ship with the course; no network connection, no GPU.
#
# **Time** about 60 minutes to read and do; the cells take
# <!-- minutes -->about 3 minutes to run (cpu profile)<!-- /minutes --> on a laptop.

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
from seminar_utils.checkpoints import checkpoint_card
from seminar_utils.evaluation.intervals import Interval, bootstrap_interval, paired_difference, seed_interval
from seminar_utils.evaluation.measure import live_or_stored
from seminar_utils.evaluation.metrics import balanced_accuracy
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.shifts import SHIFTS, apply_shift
from seminar_utils.models.convert import from_torchvision, load_weights
from seminar_utils.models.parity import max_difference, parity_report, randomise_
from seminar_utils.models.resnet import BasicBlock, ResNet
from seminar_utils.models.vit import interpolate_positions
from seminar_utils.pretraining.supervised import TrainConfig, fit
from seminar_utils.runtime import SeminarError, place_model
from seminar_utils.teaching import figures, widgets
from seminar_utils.torchvision_fix import import_torchvision

torchvision = import_torchvision()

# The one place where sizes are set. SEMINAR_PROFILE=smoke|cpu|gpu chooses the row.
SIZE = by_profile(
    smoke=dict(images=96, sides=(32, 48), timed=(32, 64), repeats=2, train=(64, 128), steps=4, seeds=(0, 1),
               strengths=(0.0, 0.7), moves=(0, 1, 4), boot=50, real=64, shifts=2),
    cpu=dict(images=400, sides=(24, 32, 48, 64), timed=(32, 64, 96, 128), repeats=3, train=(128, 2048), steps=256,
             seeds=(0, 1, 2), strengths=(0.0, 0.35, 0.5, 0.7, 1.0), moves=(0, 1, 2, 3, 4, 6), boot=300, real=624, shifts=6),
    gpu=dict(images=2000, sides=(24, 28, 32, 48, 64), timed=(32, 64, 96, 128), repeats=5, train=(128, 512, 2048, 6000),
             steps=1504, seeds=(0, 1, 2), strengths=(0.0, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0), moves=(0, 1, 2, 3, 4, 5, 6, 8),
             boot=1000, real=624, shifts=6),
)
seed_everything(0)
set_threads()
figures.use_course_style()
store = ResultsStore()
print("profile:", profile())

# %% [markdown] slideshow={"slide_type": "slide"} notes="Show the lower row alone first. Ask three things: is the lesion bright or dark? Is it large? Where is it? The class finds the first, argues about the second and cannot answer the third."
# ## 1 · The question, in a picture
#
# A transformer reads a sequence of vectors, and its central operation, attention, is a weighted sum: a sum does not
# know in which order its terms came. If we cut an image into small squares and hand them over, what is left of the
# picture? Below: six patients as they are, and the same squares of 4 x 4 pixels in another order.

# %%
vit = load_checkpoint("vit_tiny-phantoms-s0")
resnet = load_checkpoint("resnet_small-phantoms-s0")
home = load("phantoms", "test", n=SIZE["images"], scanner="A")
x, y = home.torch(size=32)  # (N, 1, 32, 32) in [0, 1], (N,)
class_names = home.class_names
order = torch.randperm(64, generator=torch.Generator().manual_seed(0))  # one order for all images


def shuffle_patches(x, order, p=4):
    """The patches of x (B, C, H, W) in another order, as an image again."""
    patches = F.unfold(x, p, stride=p)  # (B, C*p*p, N)
    return F.fold(patches[..., order], x.shape[-2:], p, stride=p)


@torch.no_grad()
def say(net, x):
    """Answer and confidence in words."""
    confidence, k = net(x).softmax(1).max(1)
    return [f"{class_names[i]}\n{c:.0%} sure" for i, c in zip(k.tolist(), confidence.tolist())]


six = torch.cat([x[:6], shuffle_patches(x[:6], order)])
figures.image_grid(six, titles=say(vit, six), columns=6, heading="six patients; below, their patches in another order")


# %% [markdown]
# The words are those of a small ViT that was trained on whole images (scanners A and B; six classes: three sizes, two
# tones). Take its answers apart, over all patients: is the *tone* right, is the *size* right?

# %%
@torch.no_grad()
def predict(net, x):
    """Predicted classes (N,), in batches."""
    return torch.cat([net(batch).argmax(1) for batch in x.split(128)])


for title, images in {"whole images": x, "patches shuffled": shuffle_patches(x, order)}.items():
    for name, net in {"ViT": vit, "ResNet": resnet}.items():
        answer = predict(net, images)  # class = 2 * size + tone
        print(f"{title:17s}{name:7s} balanced accuracy: all six classes {balanced_accuracy(y, answer):.2f}, "
              f"tone {balanced_accuracy(y % 2, answer % 2):.2f} (guess 0.50), "
              f"size {balanced_accuracy(y // 2, answer // 2):.2f} (guess 0.33)")


# %% [markdown]
# Both need the geometry, and neither says so: in the lower row the ViT calls everything large, and is sure of it. A
# convolution has the geometry built in: it looks at neighbours. The transformer has no neighbours at all;
# **whatever it knows about space, somebody has told it or it has learnt.** This lesson builds one, finds out who told
# it what, and at what price.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2 · Patches and tokens
#
# Every patch becomes one *token*, a vector of $D$ numbers. One further token is no patch: it will carry the answer.
# **Exercise `vit.num_tokens`** (difficulty 1, 3 minutes): how long is the sequence of a square image?

# %%
def num_tokens(image_size, patch_size):
    """Tokens of a square image whose side the patch divides: its patches and one class token; an integer."""
    raise NotImplementedError


num_tokens = exercise("vit.num_tokens", num_tokens)

# %% tags=["nbval-check-output"]
for what, side, p in (("the course's ViT-tiny", 32, 4), ("ViT-B/32", 224, 32), ("ViT-B/16", 224, 16), ("ViT-H/14", 224, 14),
                      ("SAM's encoder, without class token", 1024, 16)):
    n = num_tokens(side, p) - ("without" in what)
    print(f"{what:36s}{side:5d} pixels, patch {p:2d}: {n:5,} tokens, {n * n:11,} pairs")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Attention compares every token with every token. **Halve the patch and there are about four times the tokens and
# sixteen times the pairs.** Turn the dial (without a kernel: all sizes at once; it shows a phantom in its full 64 pixels and
# counts patches alone). From which size on would one vector have to say what the whole lesion looks like?

# %%
widgets.patch_explorer(home.images[0], patch_sizes=(4, 8, 16, 32))


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3 · Cutting is a convolution
#
# Equation (1) of the paper, first half: flatten every patch into a row $x_p^i$ of $C p^2$ numbers and multiply with
# one matrix $E$ of shape $(C p^2) \times D$. The same $E$ for all patches, wherever they lie.
#
# **Exercise `vit.patchify`** (difficulty 3, 12 minutes): images (B, C, H, W) to rows (B, N, C p p); the patches row by
# row; inside a patch channel, row, column. A `reshape` alone gives the right shape and the wrong patches.

# %%
def patchify(x, p):
    """Images (B, C, H, W) -> patches, row by row (B, N, C*p*p); inside a patch channel, row, column."""
    raise NotImplementedError


patchify = exercise("vit.patchify", patchify)

# %% tags=["nbval-check-output"]
conv = randomise_(nn.Conv2d(3, 96, kernel_size=4, stride=4), seed=0).double()
images = torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
rows = patchify(images, 4)
E = conv.weight.flatten(1).T
by_matrix = rows @ E + conv.bias
by_convolution = conv(images).flatten(2).transpose(1, 2)
print("images", tuple(images.shape), "-> rows", tuple(rows.shape), "times E", tuple(E.shape), "-> tokens", tuple(by_matrix.shape))
print("a convolution with stride = kernel size gives the same:", torch.allclose(by_matrix, by_convolution, atol=1e-10))


# %% [markdown]
# So "no convolutions" is not quite true: there is one, the first. What is missing is the *overlap*. A lesion that is
# moved by one pixel gets other numbers in every patch it touches. Keep that for part 12.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 4 · Class token and positions
#
# Equation (1), complete:
#
# $$z_0 = [\,x_{\mathrm{class}};\; x_p^1 E;\; x_p^2 E;\; \dots;\; x_p^N E\,] + E_{\mathrm{pos}}, \qquad
# E \in \mathbb{R}^{(p^2 C) \times D},\; E_{\mathrm{pos}} \in \mathbb{R}^{(N+1) \times D}.$$
#
# $x_{\mathrm{class}}$ is a learnt vector, the same for every image: an empty form that the blocks will fill in.
# $E_{\mathrm{pos}}$ holds one learnt vector for each place. **Exercise `vit.sequence`** (difficulty 1, 5 minutes).

# %%
def sequence(x_patches, cls_token, pos_embed):
    """(B, N, D), (1, 1, D), (1, N+1, D) -> the class token in front, then positions added: (B, N+1, D)."""
    raise NotImplementedError


sequence = exercise("vit.sequence", sequence)


# %% [markdown] slideshow={"slide_type": "subslide"} notes="Ask before running: which of the three lines is True? The third surprises most: the order of the sequence itself never matters, only the vectors that were added to it."
# **Who knows the order?** Take the trained network and shuffle, in three ways. (Its blocks come in part 6; here they
# are a box that turns tokens into tokens.)

# %% tags=["nbval-check-output"]
def read(net, tokens):
    """Class token (B, D) after all blocks, for tokens (B, 1 + N, D)."""
    for block in net.blocks:
        tokens = block(tokens)
    return net.norm(tokens)[:, 0]


with torch.no_grad():
    exact = copy.deepcopy(vit).double()
    eight = load("phantoms", "test", n=8).torch(size=32)[0].double()
    bag = copy.deepcopy(exact)
    bag.pos_embed.zero_()
    moved = torch.cat([torch.zeros(1, dtype=torch.long), 1 + order])  # the class token stays in front
    tokens = exact.tokens(eight)  # patches and positions, already added
    same_bag = torch.allclose(bag.embed(eight), bag.embed(shuffle_patches(eight, order)), atol=1e-10)
    same_image = torch.allclose(exact.embed(eight), exact.embed(shuffle_patches(eight, order)), atol=1e-10)
    same_tokens = torch.allclose(read(exact, tokens), read(exact, tokens[:, moved]), atol=1e-10)
print("no positions, patches shuffled: same class token:", same_bag)
print("positions, patches shuffled underneath: same class token:", same_image)
print("positions travel with their patches: same class token:", same_tokens)


# %% [markdown]
# Without positions the network sees a **bag** of patches, and no training can change that. With positions the order of
# the sequence still does not matter; what matters is which vector was added to which patch. That is all the geometry a
# ViT is given, and nobody tells it that place 9 lies below place 1.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5 · Attention
#
# Every token asks a question $q$, shows a sign $k$, and offers a value $v$; all three are linear maps of the token.
# It gets back the values of the others, weighted by how well their signs answer its question (Vaswani et al.,
# equation 1):
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V .$$
#
# **Exercise `vit.attention`** (difficulty 2, 8 minutes). All arguments have an axis of heads: several attentions side by
# side, each for itself (more below). There may be other numbers of queries (N) and keys (M). The weights of every query
# sum to one over the keys.

# %%
def attention(q, k, v):
    """softmax(q k^T / sqrt(d)) v for q (B, heads, N, d) and k, v (B, heads, M, d): (B, heads, N, d)."""
    raise NotImplementedError


attention = exercise("vit.attention", attention)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Why $\sqrt{d}$?** If the entries of $q$ and $k$ have variance 1, then $q \cdot k = \sum_{i=1}^{d} q_i k_i$ is a sum
# of $d$ terms of variance 1, and has variance $d$. Large scores make the softmax choose one key and ignore the rest,
# and there its derivative, $\partial p_i/\partial s_i = p_i(1 - p_i)$, is nearly zero. Measured on random vectors, 65
# keys for each query:

# %%
generator = torch.Generator().manual_seed(0)
widths = (4, 16, 64, 256, 1024)
largest, slope = {"q·k": [], "q·k / sqrt(d)": []}, {"q·k": [], "q·k / sqrt(d)": []}
for d in widths:
    q, k = torch.randn(400, d, generator=generator), torch.randn(65, d, generator=generator)
    for name, scores in {"q·k": q @ k.T, "q·k / sqrt(d)": q @ k.T / d**0.5}.items():
        p = scores.softmax(dim=1)  # (400, 65)
        largest[name].append(p.max(dim=1).values.mean().item())
        slope[name].append((p * (1 - p)).sum(dim=1).mean().item())
    print(f"d = {d:4d}: variance of q·k {(q @ k.T).var():7.1f}, largest weight {largest['q·k'][-1]:.2f} without, "
          f"{largest['q·k / sqrt(d)'][-1]:.2f} with the division")

# %%
figure, axes = plt.subplots(1, 2, figsize=(12, 3.8))
for ax, curves, title in ((axes[0], largest, "mean of the largest weight"), (axes[1], slope, "sum of p (1 - p): what a gradient gets")):
    for (name, values), mark in zip(curves.items(), ("-o", "--s")):
        ax.plot(widths, values, mark, label=name)
    ax.set(xscale="log", xlabel="d, the width of a head", title=title, ylim=(0, 1.05))
    ax.set_xticks(widths, widths)
    ax.minorticks_off()
axes[0].legend()
plt.show()


# %% [markdown]
# With the division the picture does not depend on $d$. (After training it may: a network that wants a sharp choice can
# learn large $q$ and $k$. The division only makes the *start* fair.)
#
# **Heads.** One softmax can look for one thing at a time. So the $D$ channels are split into $h$ groups of $d = D/h$,
# each group runs its own attention, the results are put side by side and mixed by one more matrix. No parameter more,
# only other shapes:

# %% tags=["nbval-check-output"]
class SelfAttention(nn.Module):
    """Multi-head self-attention on tokens (B, N, D); one linear layer makes q, k and v."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def split(self, x):
        """Tokens (B, N, D) -> q, k, v, each (B, heads, N, d)."""
        B, N, D = x.shape
        return self.qkv(x).view(B, N, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        mixed = attention(*self.split(x))  # (B, heads, N, d)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # heads side by side again: (B, N, D)


demo = SelfAttention(96, 3)
tokens = torch.randn(2, 65, 96, generator=torch.Generator().manual_seed(0))
q, k, v = demo.split(tokens)
print("tokens", tuple(tokens.shape), "-> q", tuple(q.shape), "-> weights", tuple((q @ k.transpose(-2, -1)).shape))
print("out", tuple(demo(tokens).shape))
for heads in (1, 3, 12):
    print(f"{heads:2d} heads: {sum(p.numel() for p in SelfAttention(96, heads).parameters()):,} parameters")


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6 · The block, the whole network, the parity cell
#
# Equations (2) and (3), for block $\ell = 1 \dots L$, and (4), the output. MSA is the multi-head self-attention of part 5,
# LN is LayerNorm, and $z_L^0$ is token 0, the class token, after the last block:
#
# $$z'_\ell = \mathrm{MSA}(\mathrm{LN}(z_{\ell-1})) + z_{\ell-1} \quad (2) \qquad
# z_\ell = \mathrm{MLP}(\mathrm{LN}(z'_\ell)) + z'_\ell \quad (3) \qquad
# y = \mathrm{LN}(z_L^0) \quad (4)$$
#
# You know the additions: they are the shortcuts of lesson 01. **Attention mixes tokens and leaves channels to linear
# maps; the MLP treats every token alone.** LayerNorm normalises one token over its own channels: it has no memory of
# the training set and does not care who else is in the batch. Remember lesson 01's BatchNorm, and part 12.

# %%
class Block(nn.Module):
    """Equations (2) and (3): tokens (B, N, D) -> (B, N, D)."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim, num_heads)
        self.mlp = nn.Sequential()
        self.mlp.fc1, self.mlp.act, self.mlp.fc2 = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)

    def forward(self, z):
        z = self.attn(self.norm1(z)) + z  # (2)
        return self.mlp(self.norm2(z)) + z  # (3)


class SmallViT(nn.Module):
    """Images (B, C, H, W) -> logits (B, K), with the parameter names of timm, DINO and MAE."""

    def __init__(self, img_size=32, p=4, in_chans=1, num_classes=6, dim=96, depth=4, num_heads=3):
        super().__init__()
        self.p = p
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(in_chans, dim, p, p)  # holds E, in the shape in which the world stores it
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens(img_size, p), dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)

    def tokens(self, x):
        E = self.patch_embed.proj
        return sequence(patchify(x, self.p) @ E.weight.flatten(1).T + E.bias, self.cls_token, self.pos_embed)  # (1)

    def forward(self, x):
        z = self.tokens(x)  # (B, 1 + N, D)
        for block in self.blocks:
            z = block(z)
        return self.head(self.norm(z[:, 0]))  # (4): the class token alone is read


# %% tags=["nbval-check-output"]
small = SmallViT()
images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
z = small.tokens(images)
print("images", tuple(images.shape), "-> tokens", tuple(z.shape))
for i, block in enumerate(small.blocks, 1):
    z = block(z)
    print(f"after block {i}:", tuple(z.shape))
print("class token", tuple(z[:, 0].shape), "-> logits", tuple(small(images).shape))
counts = {name: sum(p.numel() for p in part.parameters()) for name, part in small.named_children()}
counts |= {"cls_token": small.cls_token.numel(), "pos_embed": small.pos_embed.numel()}
print("parameters:", counts, "together", f"{sum(counts.values()):,}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The parity cell.** Three versions: the notebook's, the package's (`models/vit.py`, the same thing finished: it
# checks its input, knows other image sizes, uses the fused attention kernel), and torchvision's. Random numbers in
# *every* weight, in float64. Fresh weights would hide mistakes: the head of torchvision's ViT starts at zero.

# %% tags=["nbval-check-output"]
reference = randomise_(torchvision.models.VisionTransformer(
    image_size=32, patch_size=4, num_layers=4, num_heads=3, hidden_dim=96, mlp_dim=384, num_classes=6), seed=0).double()
package = create_model("vit_tiny", in_chans=3).double()
load_weights(package, from_torchvision(reference.state_dict()))
notebook = load_weights(SmallViT(in_chans=3).double(), package.state_dict()).eval()
images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
report = parity_report(package, reference, images, from_torchvision, feature=("blocks.1", "encoder.layers.encoder_layer_1"))
with torch.no_grad():
    gap = max_difference(notebook(images), package(images))
shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (notebook, package)]
print("same names, same shapes:", shapes[0] == shapes[1])
print("notebook = package, max |difference| below 1e-10:", gap < 1e-10)
for kind in ("output", "feature", "input_gradient", "gradient"):
    print(f"package = torchvision, {kind}, relative difference below 1e-10:", report[kind] < 1e-10)

# %%
print(f"max |difference|: notebook to package {gap:.1e}, package to torchvision {report['max_difference']:.1e}")


# %% [markdown]
# Two traps that this cell would catch: LayerNorm's `eps` is 1e-6 here and 1e-5 by PyTorch's default, and the fused
# `qkv` must be cut in the order q, k, v. The full-size ViT-B/16 is compared in `tests/parity/test_vit.py`.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7 · What it costs
#
# Count multiplications in one block of width $D$ for $N$ tokens. The linear layers: $3ND^2$ for q, k, v, $ND^2$ for
# the projection, $8ND^2$ for the MLP. The scores and the weighted sum: $N^2 D$ each.
#
# $$\underbrace{12\, N D^2}_{\text{linear in } N} \;+\; \underbrace{2\, N^2 D}_{\text{quadratic in } N}$$
#
# They are equal at $N = 6D$. "Attention is quadratic" is true; whether it *matters* depends on $N / 6D$.

# %% tags=["nbval-check-output"]
def count_blocks(n, dim, depth):
    """Multiplications of all blocks: those of the linear layers, and those between tokens."""
    return 12 * n * dim**2 * depth, 2 * n**2 * dim * depth


counted = []
handles = [layer.register_forward_hook(lambda layer, _, out: counted.append(out[0].numel() * layer.in_features))
           for layer in vit.blocks.modules() if isinstance(layer, nn.Linear)]
with torch.no_grad():
    vit(torch.zeros(1, 1, 32, 32))
for handle in handles:
    handle.remove()
print("counted while running = 12 N D^2 per block:", sum(counted) == count_blocks(65, 96, 4)[0])
for name, side, p, dim, depth in (
    ("ViT-tiny of the course", 32, 4, 96, 4), ("ViT-B/16", 224, 16, 768, 12), ("ViT-B/8", 224, 8, 768, 12),
    ("ViT-B/16, a slide of", 1024, 16, 768, 12), ("ViT-B/16, a slide of", 4096, 16, 768, 12),
):
    n = num_tokens(side, p)
    linear, pairs = count_blocks(n, dim, depth)
    print(f"{name:23s}{side:5d} px: {n:6,} tokens, {(linear + pairs) / 1e9:9.2f} billion multiplications, "
          f"between tokens {pairs / (linear + pairs):4.0%}; one head's weights {4 * n * n / 2**20:8.1f} MiB")

# %% [markdown] slideshow={"slide_type": "subslide"}
# And measured, on this machine: larger images through the small ViT, with the fused kernel (it never writes the
# $N \times N$ weights down) and written out as in your exercise.

# %%
any_size = load_checkpoint("vit_tiny-phantoms-s0")
any_size.interpolation = "timm"  # part 8 explains the word


@torch.no_grad()
def milliseconds(side, written_out):
    """Median time of one image of this side, after a warm-up."""
    image, taken = torch.rand(1, 1, side, side), []
    for _ in range(1 + SIZE["repeats"]):
        started = time.perf_counter()
        any_size(image, return_attention=written_out)
        taken.append(1000 * (time.perf_counter() - started))
    return float(np.median(taken[1:]))


tokens_of = [num_tokens(side, 4) for side in SIZE["timed"]]
times = {"fused kernel": [milliseconds(side, False) for side in SIZE["timed"]],
         "written out": [milliseconds(side, True) for side in SIZE["timed"]]}
work = [sum(count_blocks(n, 96, 4)) / 1e6 for n in tokens_of]
for i, side in enumerate(SIZE["timed"]):
    print(f"{side:3d} pixels, {tokens_of[i]:5,} tokens: {work[i]:7.0f} million multiplications, "
          + ", ".join(f"{name} {values[i]:6.1f} ms" for name, values in times.items()))
    store.append("vit.cost", {"model": "vit_tiny", "side": side, "tokens": tokens_of[i]},
                 {name.replace(" ", "_") + "_ms": values[i] for name, values in times.items()})

# %%
figure, ax = plt.subplots(figsize=(7.5, 4))
for (name, values), mark in zip(times.items(), ("-o", "--s")):
    ax.plot(tokens_of, values, mark, label=f"{name} (measured)")
for power, style in ((1, ":"), (2, "-.")):
    ax.plot(tokens_of, times["written out"][0] * (np.array(tokens_of) / tokens_of[0]) ** power, style, color="#777777",
            linewidth=1.5, label=f"if the time grew as N^{power}")
ax.set(xscale="log", yscale="log", xlabel="tokens N", ylabel="milliseconds for one image", title="one image, this machine")
ax.set_xticks(tokens_of, tokens_of)
ax.minorticks_off()
ax.legend()
plt.show()

# %% [markdown]
# For the small images the time grows much more slowly than the square of the number of tokens: the linear layers and the
# machine's overhead decide. A count is no time. A pathology slide is another matter: at 4096 pixels the pairs are nearly all of the work, and one head's weights alone fill gigabytes. Lesson 03
# (Swin) looks at windows instead; SAM (lesson 07) does so in most of its blocks.

# %% [markdown] slideshow={"slide_type": "slide"} notes="This is the commonest silent bug in projects that load a ViT at another image size. Nothing crashes. Ask who has resized position embeddings, and with which rule."
# ## 8 · The trap: positions for another image size
#
# $E_{\mathrm{pos}}$ has one row for each place of the 8 x 8 grid it was trained on. A larger image has more places. The
# paper's remedy (section 3.2): take the rows as an image of $D$ channels and interpolate. All packages do so, bicubically.
# **And they do it in three ways that do not agree**: DINO scales by $(n + 0.1)/N$, timm (and open_clip) gives the new
# size and smooths when shrinking, torchvision aligns the corners. (MAE's code has a fourth, timm's without the
# smoothing.) No file says which one it wants, no error is raised.

# %%
RULES = ("dino", "timm", "torchvision")


def stretched(side, convention):
    """The trained positions for images of this side, as a map (D, n, n)."""
    n = side // 4
    with torch.no_grad():
        return interpolate_positions(vit.pos_embed, (n, n), convention)[0, 1:].T.reshape(-1, n, n)


spread = vit.pos_embed[:, 1:].std().item()
for side in (24, 48, 64):
    maps = {c: stretched(side, c) for c in RULES}
    print(f"8 x 8 -> {side // 4:2d} x {side // 4:2d}, mean |difference| in units of the embedding's deviation: "
          + ", ".join(f"{a}-{b} {(maps[a] - maps[b]).abs().mean().item() / spread:.2f}"
                      for a, b in (("dino", "timm"), ("timm", "torchvision"), ("dino", "torchvision"))))

channel = int(vit.pos_embed[0, 1:].std(0).argmax())  # the channel that varies most over the places
small_maps = [vit.pos_embed[0, 1:, channel].detach().reshape(8, 8), *(stretched(24, c)[channel] for c in RULES)]
limit = max(m.abs().max().item() for m in small_maps)
figure, axes = plt.subplots(1, 4, figsize=(11, 2.9))
for ax, picture, title in zip(axes, small_maps, ("learnt, 8 x 8", *(f"{c}, 6 x 6" for c in RULES))):
    ax.imshow(picture, cmap="RdBu", vmin=-limit, vmax=limit)
    ax.set_title(title, fontsize=12)
    ax.axis("off")
plt.show()

# %% [markdown] slideshow={"slide_type": "subslide"}
# Does it change answers? The phantoms are drawn with 64 pixels, the network was trained on 32. The same patients at
# other sizes, one network, three conventions; beside it the simplest remedy (resize the *image* to 32), and the ResNet,
# which takes any size without a word.

# %%
by_side = {}
for side in SIZE["sides"]:
    images, _ = home.torch(size=side)
    answers = {}
    for convention in RULES:
        any_size.interpolation = convention
        answers[f"ViT, {convention}"] = predict(any_size, images)
    back = F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    answers["ViT, image resized to 32"] = predict(vit, back)
    answers["ResNet, as it comes"] = predict(resnet, images)
    by_side[side] = {}
    for name, answer in answers.items():
        found = bootstrap_interval(y, answer, statistic=balanced_accuracy, n_boot=SIZE["boot"])
        by_side[side][name] = found
        store.append("vit.image_size", {"model": name, "side": side, "data": "phantoms", "scanner": "A", "images": len(y)},
                     {"balanced_accuracy": found.mean}, {"balanced_accuracy": [found.low, found.high]}, seed=0)
    three = torch.stack([answers[f"ViT, {c}"] for c in RULES])
    differ = (three != three[0]).any(0).float().mean().item()
    print(f"{side} pixels: " + ", ".join(f"{name.replace('ViT, ', '')} {found.mean:.3f}" for name, found in by_side[side].items())
          + f"; the conventions disagree on {differ:.1%} of the patients")

# %%
series = {name: ([by_side[s][name].mean for s in SIZE["sides"]], [(by_side[s][name].low, by_side[s][name].high) for s in SIZE["sides"]])
          for name in by_side[SIZE["sides"][0]]}
figures.lines_with_intervals(SIZE["sides"], series, xlabel="side of the image, pixels", ylim=(0, 1.05),
                             title=f"one seed each, 95% bootstrap over {len(y)} images")

# %% [markdown]
# Three lessons. The conventions disagree on single patients even where their accuracies look alike: **write the
# convention on the card of a checkpoint, and check it with one image before you trust a table.** Here no convention is
# the right one: the network was trained at one size, so no rule was ever part of its training. Second, all of them are
# worse than resizing the image, because other things change too: a lesion now covers more patches, each with less of
# it. Third, the ResNet, which needs no positions, fails as well, and harder: it measured the size of a lesion in
# *pixels*. To accept an image is not to understand it.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 9 · What the trained network has learnt about space
#
# Nobody told the network which places are neighbours. Compare the learnt vectors: for every place the cosine with all
# 64 places, drawn as an 8 x 8 map, the maps arranged as the places are (figure 7, middle, of the paper).

# %%
with torch.no_grad():
    unit = F.normalize(vit.pos_embed[0, 1:], dim=1)  # (64, D)
similarity = unit @ unit.T  # (64, 64)
mosaic = np.full((8 * 9 - 1, 8 * 9 - 1), np.nan)
for place in range(64):
    r, c = 9 * (place // 8), 9 * (place % 8)
    mosaic[r : r + 8, c : c + 8] = similarity[place].reshape(8, 8)
figure, ax = plt.subplots(figsize=(6.4, 5.4))
shown = ax.imshow(mosaic, cmap="viridis", vmin=-0.5, vmax=1)
ax.set_title("each tile: one place's similarity to all places", fontsize=12)
ax.axis("off")
figure.colorbar(shown, label="cosine")
plt.show()

# %%
places = torch.stack(torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij"), -1).reshape(64, 2).float()
distance = torch.cdist(places, places)  # (64, 64), in patches
numbers = torch.arange(64).reshape(8, 8)
mirrored = torch.stack([numbers.flip(axes).flatten() for axes in ((0,), (1,), (0, 1))], dim=1)  # (64, 3) places each
far = (distance > 2).scatter(1, mirrored, False)
inside = ((places > 0) & (places < 7)).all(dim=1)  # without the rim, which is background in most images
for region, rows_ in {"all 64 places": torch.ones(64, dtype=torch.bool), "without the rim": inside}.items():
    s = similarity[rows_]
    both = rows_[None, :]
    print(f"{region}: mean cosine with direct neighbours {s[(distance[rows_] == 1) & both].mean():+.2f}, with the places more than "
          f"two patches away {s[far[rows_] & both].mean():+.2f}, with its own three mirror images {s.gather(1, mirrored[rows_]).mean():+.2f}")

# %% [markdown]
# In the paper's figure every place is most like the places around it. Not quite here. Neighbours are more alike than far
# places, but **on average a place is still more like its mirror images**, left and right, above and below; look for the four bright
# squares in some of the inner tiles. That is no mistake of the network. Size and tone do not depend on the quarter in which a
# lesion lies, and organs are nearly symmetric: to know how far from the middle one is, is enough. A ViT learns the
# geometry that its labels ask for, and no other. (Ask it for the place of the lesion and it would have to differ.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **How far does a head look?** A 3x3 convolution sees a neighbourhood, a head may look anywhere from the first block on.
# The mean distance between a patch and what it attends to (figure 7, right), in pixels. In the paper some heads of the
# first blocks are local, and the reach grows with depth.

# %%
with torch.no_grad():
    logits, weights = vit(x, return_attention=True)  # weights: one (N, 3, 65, 65) for each of the 4 blocks
patch_weights = [w[:, :, 1:, 1:] / w[:, :, 1:, 1:].sum(-1, keepdim=True) for w in weights]  # among patches
reach = np.array([(w * 4 * distance).sum(-1).mean(dim=(0, 2)).numpy() for w in patch_weights])  # (4, 3)
uniform = 4 * distance.mean().item()
print(f"a head that looks everywhere alike: {uniform:.1f} pixels; to the direct neighbours only: 4.0")
for i, row in enumerate(reach, 1):
    print(f"block {i}: " + ", ".join(f"head {h} {value:4.1f}" for h, value in enumerate(row, 1)))

# %% [markdown]
# Not so here: no head is local, in no block, and the first block looks furthest. Four blocks, 64 patches and a few
# thousand images are another world than ViT-L; a figure of a paper does not carry over because the name is the same.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Where does the class token look?** Its weights over the patches for one patient, blocks downwards, heads to the
# right. The brightest square of every map is set to one.

# %%
touched = F.max_pool2d(torch.from_numpy((home.masks == 2).astype(np.float32))[:, None], 8).flatten(1) > 0  # (N, 64)
patient = int(torch.where((predict(vit, x) == y) & (touched.sum(1) > 6))[0][0])  # a large lesion, rightly named
figure, axes = plt.subplots(4, 4, figsize=(8.4, 8.6))
for i in range(4):
    axes[i, 0].imshow(x[patient, 0], cmap="gray", vmin=0, vmax=1)
    for h in range(3):
        ax = axes[i, h + 1]
        seen = weights[i][patient, h, 0, 1:].reshape(8, 8)
        ax.imshow(x[patient, 0], cmap="gray", vmin=0, vmax=1)
        ax.imshow(seen / seen.max(), cmap="viridis", alpha=0.6, extent=(-0.5, 31.5, 31.5, -0.5))
        ax.set_title(f"block {i + 1}, head {h + 1}", fontsize=11)
axes[0, 0].set_title(f"truth: {class_names[y[patient]]}", fontsize=11)
for ax in axes.ravel():
    ax.axis("off")
plt.show()

# %%
print(f"the patches that a lesion touches: {touched.float().mean():.1%} of the area, mean over {len(y)} patients")
for i, w in enumerate(weights, 1):
    seen = w[:, :, 0, 1:] / w[:, :, 0, 1:].sum(-1, keepdim=True)  # (N, heads, 64)
    share = (seen * touched[:, None]).sum(-1).mean(0)
    print(f"block {i}: share of the class token's attention on them " + ", ".join(f"head {h} {s:.0%}" for h, s in enumerate(share, 1)))

# %% [markdown] slideshow={"slide_type": "slide"} notes="Do not show the next figure at once. Ask: the map is bright on the lesion; what would you have to measure before you write 'the model decides because of the lesion' into a paper?"
# ## 10 · Does the attention explain the answer?
#
# In the late blocks much more of the attention lies on the lesion than its area would get. It is tempting to write "the
# model decides because of the lesion, see the map". **A weight says where values were taken from, not what the answer
# depends on.** That is a claim about an intervention, so intervene: paint patches over with the mean grey of what lies
# around them (organ or background; the phantoms' masks say which), always the same number for a patient, and see
# whether the answer changes. Five choices of patches:
#
# * those that the lesion touches, and the same ones mirrored: another place, equal size;
# * those with the most attention in the last block, or by *rollout* ([2005.00928](https://arxiv.org/abs/2005.00928)),
#   which multiplies the weights of all blocks, half of each being the shortcut;
# * those with the most attention among the ones the lesion does *not* touch.

# %%
tissue = F.interpolate(torch.from_numpy(home.masks)[:, None].float(), size=32, mode="nearest")  # 0, 1 organ, 2 lesion
lesion = F.interpolate((torch.from_numpy(home.masks)[:, None] == 2).float(), size=32, mode="area") > 0
organ, outside = ((tissue == 1) & ~lesion).float(), (tissue == 0).float()


def mean_grey(region):
    """Mean of every image over its region: (N, 1, 1, 1)."""
    return (x * region).sum(dim=(1, 2, 3), keepdim=True) / region.sum(dim=(1, 2, 3), keepdim=True)


paint = torch.where(tissue > 0, mean_grey(organ), mean_grey(outside))  # (N, 1, 32, 32): the patient without details


def painted(patches):
    """The images with the chosen patches (N, 64) painted over."""
    chosen = F.interpolate(patches.reshape(-1, 1, 8, 8).float(), size=32, mode="nearest") > 0
    return torch.where(chosen, paint, x)


def strongest(seen, count, never=None):
    """For every image the `count` (N,) patches with the most attention (N, 64), leaving out those in `never`."""
    seen = seen if never is None else seen.masked_fill(never, -1.0)
    return seen.argsort(1, descending=True).argsort(1) < count[:, None]


flow = torch.eye(65).expand(len(x), 65, 65)
for w in weights:
    flow = (0.5 * w.mean(1) + 0.5 * torch.eye(65)) @ flow
rollout, last = flow[:, 0, 1:], weights[-1][:, :, 0, 1:].mean(1)  # (N, 64) each
count = touched.sum(1)
CHOICES = {
    "the lesion": touched,
    "its mirror image": touched.reshape(-1, 8, 8).flip(2).flatten(1),
    "most attention, last block": strongest(last, count),
    "most attention, rollout": strongest(rollout, count),
    "most attention, lesion excluded": strongest(last, count, never=touched),
}
example = torch.stack([x[patient], *(painted(patches)[patient] for patches in CHOICES.values())])
figures.image_grid(example, ["as it is", *(choice.replace(", ", ",\n") for choice in CHOICES)], columns=6, size=2.1)

# %%
before = {"ViT": predict(vit, x), "ResNet": predict(resnet, x)}
changed = {}
for choice, patches in CHOICES.items():
    images = painted(patches)
    for name, net in {"ViT": vit, "ResNet": resnet}.items():
        answer = predict(net, images)
        changed[choice, name] = (answer != before[name]).float().numpy()
        found = bootstrap_interval(changed[choice, name], statistic=np.mean, n_boot=SIZE["boot"])
        store.append("vit.cover", {"model": name, "choice": choice, "images": len(y), "data": "phantoms"},
                     {"changed": found.mean, "balanced_accuracy": balanced_accuracy(y, answer)},
                     {"changed": [found.low, found.high]}, seed=0)
        if name == "ViT":
            on_lesion = ((patches & touched).sum(1) / count).mean().item()
            print(f"{choice:32s} {on_lesion:4.0%} of them touch the lesion; the answer changes: ViT {found}", end="")
        else:
            print(f", ResNet {found}")
for choice in ("its mirror image", "most attention, last block", "most attention, rollout"):
    more = bootstrap_interval(changed["the lesion", "ViT"] - changed[choice, "ViT"], statistic=np.mean, n_boot=SIZE["boot"])
    print(f"the lesion minus {choice}: {100 * more.mean:+.0f} points [{100 * more.low:+.0f}, {100 * more.high:+.0f}]")

# %%
found = [bootstrap_interval(changed[choice, "ViT"], statistic=np.mean, n_boot=SIZE["boot"]) for choice in CHOICES]
figures.bars_with_intervals(
    [choice.replace(", ", ",\n").replace("attention,", "attn.,") for choice in CHOICES], [f.mean for f in found],
    [(f.low, f.high) for f in found], ylabel="share of answers that change",
    title=f"the same number of patches painted over; one ViT, {len(y)} patients",
)

# %% [markdown]
# (How many patches are painted is set by the lesion, and the heads are averaged before the strongest are chosen: where a
# map has one or two bright patches, the rest of the choice is its dim remainder.)
#
# **What this shows.** The answer hangs on the lesion, and on little else: the equal area elsewhere hardly matters. The
# map is a hint, not more. Its strongest patches change fewer answers than the lesion's own, and only as far as they
# happen to lie on the lesion: take the lesion out of the choice and "most attention" is nearly as harmless as the mirror
# image. The ResNet, which has no attention, passes the same test of "looking at the lesion". So the intervention, not
# the map, is what carries the sentence.
#
# **What it does not show.** One trained network, and a lesion whose borders we know because a program drew it. Painting
# makes images that were never in the training set; on real images nobody has the mirror of the lesion nor its mean grey,
# and the reader must decide whether a change came from what was hidden or from the patch of paint.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 11 · ViT against ResNet, as the data grows
#
# The paper: trained on ImageNet alone, ViT stays a few points below ResNets of its size; with 14 to 300 million images
# it overtakes them. The usual reading: **locality is built into a CNN, a ViT must learn it.** We can only look at the
# small end. One training loop for both (`fit`, from lesson 01), the same images (of 16 pixels, so that a laptop manages),
# **the same number of steps whatever the number of images**, so that less data is not also less training. The ResNet has
# the learning rate of its recipe; for the ViT, which is slow in so short a training, we took twice that of its recipe, the
# better of two that we tried on one seed, judged by *test* images: an **oracle** choice, which no clinic has, in the
# ViT's favour. Every seed draws its own training images.

# %%
LEARNERS = {
    "ResNet": (lambda: ResNet(BasicBlock, (1, 1, 1), num_classes=6, widths=(16, 32, 64), in_chans=1, small_stem=True), 4e-3),
    "ViT": (lambda: create_model("vit_tiny", img_size=16, depth=2), 2e-3),
}
for name, (make, lr) in LEARNERS.items():
    print(f"{name}: {sum(p.numel() for p in make().parameters()):,} parameters, peak learning rate {lr}")

val = load("phantoms", "val", n=120, scanner="AB")
judged = load("phantoms", "test", n=SIZE["images"], scanner="AB")
x_ab, y_ab = judged.torch(size=16)
grown = {}  # (network, training images) -> metric -> one value for each seed
for n in SIZE["train"]:
    epochs = max(1, SIZE["steps"] * 64 // n)
    for seed in SIZE["seeds"]:
        train = load("phantoms", "train", n=n, scanner="AB", seed=seed)
        for name, (make, lr) in LEARNERS.items():
            started = time.perf_counter()
            config = TrainConfig(epochs=epochs, lr=lr, batch_size=64, warmup=epochs / 10, label_smoothing=0.0, seed=seed)
            seed_everything(seed)
            net = place_model(make())
            history = fit(net, train, val, config, size=16, progress=False)
            answer = predict(net.cpu().eval(), x_ab)
            scores = {"balanced_accuracy": balanced_accuracy(y_ab, answer), "tone": balanced_accuracy(y_ab % 2, answer % 2),
                      "size": balanced_accuracy(y_ab // 2, answer // 2), "train_accuracy": history[-1]["accuracy"]}
            about = {"model": name, "train": n, "steps": SIZE["steps"], "lr": lr, "data": "phantoms", "scanner": "AB"}
            store.append("vit.data", about, scores, seed=seed, seconds=time.perf_counter() - started)
            for metric, value in scores.items():
                grown.setdefault((name, n), {}).setdefault(metric, []).append(value)

for n in SIZE["train"]:
    for name in LEARNERS:
        seeds = grown[name, n]
        print(f"{n:5d} images, {name:7s} {seed_interval(seeds['balanced_accuracy'], bounds=(0, 1))}; tone {np.mean(seeds['tone']):.2f}, "
              f"size {np.mean(seeds['size']):.2f}; on its training images {np.mean(seeds['train_accuracy']):.2f}")
    lead = paired_difference(grown["ViT", n]["balanced_accuracy"], grown["ResNet", n]["balanced_accuracy"])
    print(f"      ResNet - ViT {100 * lead.mean:+.0f} points [{100 * lead.low:+.0f}, {100 * lead.high:+.0f}], "
          f"{'the interval excludes zero' if lead.excludes_zero() else 'NOT distinguishable from zero'}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(12.5, 4.2), sharey=True)
for name, mark, colour in (("ResNet", "-o", "#0072B2"), ("ViT", "--s", "#D55E00")):
    spans = [seed_interval(grown[name, n]["balanced_accuracy"], bounds=(0, 1)) for n in SIZE["train"]]
    axes[0].plot(SIZE["train"], [s.mean for s in spans], mark, color=colour, label=name)
    axes[0].fill_between(SIZE["train"], [s.low for s in spans], [s.high for s in spans], color=colour, alpha=0.15)
    card = checkpoint_card({"ResNet": "resnet_small-phantoms-s0", "ViT": "vit_tiny-phantoms-s0"}[name])
    seen = [row["epoch"] * card["data"]["n"] / 1000 for row in card["history"]]
    axes[1].plot(seen, [row["val_balanced_accuracy"] for row in card["history"]], mark, markersize=4, color=colour,
                 label=f"{card['name']}, {card['data']['n']} images")
axes[0].set(xscale="log", xlabel="training images", ylabel="balanced accuracy", ylim=(0, 1.05),
            title=f"{SIZE['steps']} steps each, {len(SIZE['seeds'])} seeds, test split")
axes[0].set_xticks(SIZE["train"], SIZE["train"])
axes[0].minorticks_off()
axes[1].set(xlabel="thousand images seen, repeats counted", title="from the cards of the shipped networks, validation")
for ax in axes:
    ax.axhline(1 / 6, linestyle=":", color="#555555")
    ax.legend(fontsize=10, loc="lower right")
plt.show()

# %% [markdown]
# **What this shows.** The ResNet turns additional images into accuracy at once; with the larger set it is far ahead.
# With the small set the ViT's seeds lie far apart: where the interval above contains zero, three of them do not decide.
# The ViT has learnt to tell dark from bright and hardly small from large: tone can be read off single patches, size
# needs several. The right panel shows two whole trainings, from the cards (other recipes, other numbers of images): the
# ViT has to see many times as many images to come near, and stays below.
#
# **What it does not show.** Compare with the accuracy on the *training* images. On the small set the ViT is better there
# than on new patients: it lacks data. On the large set it is no better there: it has not learnt its training images
# either, and lacks steps. So "a ViT needs more data" and "a ViT needs longer" are both true here, and we measured a
# mixture. Nor do we see the gap close with the data, as in the paper: the crossing lies outside this room. And "ViT" is
# one recipe without strong augmentation; DeiT ([2012.12877](https://arxiv.org/abs/2012.12877)) closes much of the gap on
# ImageNet by the recipe alone. A clinic with a thousand images need not train one from nothing: lessons 05, 06 and 10.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 12 · Failure cases
#
# **First: a new scanner.** Lesson 01 blamed BatchNorm's memory for the fall on scanner C. A ViT has LayerNorm, which
# remembers nothing. So it should be safe? Four networks, the same patients; only one ViT ships, so its interval is over
# *images*, and says nothing about other training seeds.

# %%
nets = {"ViT": vit} | {f"ResNet, seed {seed}": load_checkpoint(f"resnet_small-phantoms-s{seed}") for seed in (0, 1, 2)}
on_c, answers_c = {}, {}
for strength in SIZE["strengths"]:
    x_c, y_c = load("phantoms", "test", n=SIZE["images"], scanner="C", strength=strength).torch(size=32)
    for name, net in nets.items():
        answer = answers_c[strength, name] = predict(net, x_c)
        found = bootstrap_interval(y_c, answer, statistic=balanced_accuracy, n_boot=SIZE["boot"])
        on_c.setdefault(name, []).append(found)
        store.append("vit.scanners", {"model": name.split(",")[0], "scanner": "C", "strength": strength, "images": len(y_c),
                                      "data": "phantoms"}, {"balanced_accuracy": found.mean},
                     {"balanced_accuracy": [found.low, found.high]}, seed=int(name[-1]) if "seed" in name else 0)
for i, strength in enumerate(SIZE["strengths"]):
    print(f"C at {strength:.2f}   " + "   ".join(f"{name} {row[i]}" for name, row in on_c.items()))
for strength in SIZE["strengths"][1:]:
    differences = []
    for seed in (0, 1, 2):
        d = bootstrap_interval(y.numpy(), answers_c[strength, f"ResNet, seed {seed}"].numpy(), answers_c[strength, "ViT"].numpy(),
                               statistic=lambda t, a, b: balanced_accuracy(t, b) - balanced_accuracy(t, a), n_boot=SIZE["boot"])
        differences.append(f"{100 * d.mean:+.0f} [{100 * d.low:+.0f}, {100 * d.high:+.0f}]")
    print(f"C at {strength:.2f}, ViT - ResNet of seeds 0, 1, 2, points: " + "   ".join(differences))

# %%
figures.lines_with_intervals(
    SIZE["strengths"], {name: ([f.mean for f in row], [(f.low, f.high) for f in row]) for name, row in on_c.items()},
    xlabel="strength of scanner C", ylim=(0, 1.05), title=f"95% intervals: bootstrap over {len(y)} images",
)


# %% [markdown]
# It falls, too. LayerNorm has no memory of the training scanners, but every *weight* was fitted to them. The ViT starts
# lower, is below the ResNets while the shift is mild, and above them where all are bad. At the strengths between, the
# three ResNets, which differ in nothing but their seed, lie as far from each other as from the ViT. One ViT, another
# recipe (longer, with moved images): "transformers are more robust" cannot be concluded from this, nor the contrary.
# And what repaired the ResNet in lesson 01, to measure the statistics again, is not available here: there are none.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Second: the grid.** The patient lies one pixel further to the right. For us nothing has happened. For the ViT every
# patch holds other numbers. Count the answers that change, beside the accuracy.

# %%
def moved_right(x, pixels):
    """x (B, C, H, W) moved to the right; the border is repeated."""
    return F.pad(x, (pixels, 0, 0, 0), mode="replicate")[..., : x.shape[-1]]


flips = {}
with torch.no_grad():
    sure = vit(x).softmax(1).max(1).values > 0.9
for pixels in SIZE["moves"]:
    for name, net in nets.items():
        answer, first = predict(net, moved_right(x, pixels)), predict(net, x)
        flip = (answer != first).float().numpy()
        found = bootstrap_interval(flip, statistic=np.mean, n_boot=SIZE["boot"])
        score = balanced_accuracy(y, answer)
        flips.setdefault(name, []).append(found)
        store.append("vit.moved", {"model": name.split(",")[0], "pixels": pixels, "images": len(y), "data": "phantoms", "scanner": "A"},
                     {"changed": found.mean, "balanced_accuracy": score}, {"changed": [found.low, found.high]},
                     seed=int(name[-1]) if "seed" in name else 0)
        if name in ("ViT", "ResNet, seed 0"):
            extra = f"; among the answers it was over 90% sure of: {flip[sure.numpy()].mean():.1%}" if name == "ViT" else ""
            print(f"{pixels} pixels, {name:15s} balanced accuracy {score:.3f}, changed answers {found}{extra}")

# %%
figures.lines_with_intervals(
    SIZE["moves"], {name: ([f.mean for f in row], [(f.low, f.high) for f in row]) for name, row in flips.items()},
    xlabel="pixels to the right (a patch has 4)", ylabel="share of answers that change", ylim=(0, 0.6),
    title=f"scanner A, {len(y)} patients, 95% bootstrap over images",
)

# %% [markdown]
# By a pixel or two the accuracy does not suffer at all: as many answers become right as become wrong, or more. **Accuracy
# hides that the same patient, measured twice, gets two answers.** Most of these are answers it was unsure of, so the
# confidence is of some use, for small moves. The ResNets hardly notice, though they never saw a moved image in training
# and the ViT did (up to two pixels).
#
# Is it the grid? If the cut through the patches were all, a move of exactly one patch should be harmless again: the very
# same tokens, one place further. At 4 the curve does not come back to zero, not nearly. The places have other vectors,
# and a move of 4 was never in the training. And this ViT makes more mistakes than the ResNets to begin with: a network
# near its decision borders flips more easily, whatever it is made of. So say "less stable under small moves", and not
# "because of the grid".

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 13 · On real images
#
# PneumoniaMNIST (chest X-rays of children, 28 pixels, normal or pneumonia; CC BY 4.0, MedMNIST v2). One ViT and one
# ResNet, both trained with moved images this time, each chosen on the validation split, scored on the test split: as it
# is, moved by one and two pixels, and under the course's shifts at severity 2 (`evaluation/shifts.py`). Intervals are
# over images. Live when the data is found, else from the results store; the cell says which.

# %%
try:
    xray = load("pneumoniamnist", "test").subset(range(SIZE["real"]))
except SeminarError:
    xray = None


def on_xrays():
    """One row for each condition: both networks, their paired difference, and the answers that change."""
    x, y = xray.torch()
    pair = {name: load_checkpoint(f"{name}-pneumoniamnist-s0") for name in ("vit_tiny", "resnet_small")}
    conditions = {"as it is": x, "moved by 1": moved_right(x, 1), "moved by 2": moved_right(x, 2)}
    conditions |= {shift: apply_shift(x, shift, 2, seed=0) for shift in list(SHIFTS)[: SIZE["shifts"]]}
    first = {name: predict(net, x) for name, net in pair.items()}
    rows = []
    for condition, images in conditions.items():
        answer = {name: predict(net, images) for name, net in pair.items()}
        found = {name: bootstrap_interval(y, answer[name], statistic=balanced_accuracy, n_boot=SIZE["boot"]) for name in pair}
        found["difference"] = bootstrap_interval(
            y.numpy(), answer["resnet_small"].numpy(), answer["vit_tiny"].numpy(),
            statistic=lambda t, a, b: balanced_accuracy(t, b) - balanced_accuracy(t, a), n_boot=SIZE["boot"])
        metrics = {name: f.mean for name, f in found.items()}
        metrics |= {f"{name}_changed": (answer[name] != first[name]).float().mean().item() for name in pair}
        rows.append(store.append("vit.xray", {"condition": condition, "data": "pneumoniamnist", "split": "test", "images": len(y)},
                                 metrics, {name: [f.low, f.high] for name, f in found.items()}, seed=0))
    return rows


xray_rows = {row["params"]["condition"]: row for row in live_or_stored("vit.xray", xray is not None, on_xrays)}
for condition, row in xray_rows.items():
    m, (low, high) = row["metrics"], row["intervals"]["difference"]
    print(f"{condition:15s} ViT {m['vit_tiny']:.3f}, ResNet {m['resnet_small']:.3f}, difference {100 * m['difference']:+5.1f} points "
          f"[{100 * low:+5.1f}, {100 * high:+5.1f}]; changed answers {m['vit_tiny_changed']:.1%}, {m['resnet_small_changed']:.1%}")


# %%
def over_images(row, name):
    """The value of one network in a row with its bootstrap interval."""
    return Interval(row["metrics"][name], *row["intervals"][name])


figures.grouped_bars(
    [condition.replace("_", "\n").replace(" by", "\nby") for condition in xray_rows],
    {label: [over_images(row, name) for row in xray_rows.values()] for label, name in (("ResNet", "resnet_small"), ("ViT", "vit_tiny"))},
    title="chest X-rays, one network each; 95% bootstrap over images", chance=0.5,
)

# %% [markdown]
# Read the paired differences, not the bars: both networks judge the same children. At home the ResNet is ahead. Under
# noise the ViT is, under contrast and bias field it is behind again: **"robust" without "against what" is no property of
# a network.** And the finding of part 12 holds with equal training: moved by a pixel or two, the ViT scores no worse
# than the ResNet (it even gains by the move, as on the phantoms; we have not found out why) and still changes its mind
# about more than twice as many children. It is one network of each kind, 624 images,
# severities that we chose: a reason to test your own, not a verdict on architectures.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 14 · In the clinic
#
# 1. **Which patch, which image size?** Something smaller than a patch is one token among hundreds. Ask what the smallest
#    finding is, in pixels, *after* resizing.
# 2. **Which rule for positions?** A ViT at another image size needs one, and the wrong one raises no error.
# 3. **Do you need to train one?** With a few hundred images of your own: start from a pretrained one, or from a ResNet,
#    and compare the two.
# 4. **What does the map prove?** Nothing by itself. Hide what it points at, hide as much elsewhere, report both.
# 5. **Does the answer survive a pixel?** Judge each patient twice, slightly moved. It costs one more pass and needs no
#    label.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 15 · Quiz, claims, reading, poster

# %%
quiz("02_vision_transformer")

# %% [markdown]
# | claim | here |
# |---|---|
# | "For large $d$ the dot products push the softmax into regions of extremely small gradients" (Vaswani et al., section 3.2.1) | reproduced (part 5) |
# | "A standard transformer applied directly to image patches" classifies images (section 1) | reproduced; the cutting is a convolution without overlap (parts 3 and 6) |
# | "On mid-sized data, without strong regularisation, a few points below ResNets of comparable size" (section 1) | the direction reproduced for the larger set, at a tiny scale and a tiny budget, by far more than a few points (part 11) |
# | "Large-scale training trumps inductive bias"; 88.55% on ImageNet after JFT-300M | not at this scale |
# | "Closer patches tend to have more similar position embeddings" (section 4.5) | in part: neighbours are more alike than far places, but on average mirror images still more (part 9) |
# | "Attention distance increases with network depth" (section 4.5) | contradicted at this scale: no local heads, the first block looks furthest (part 9) |
# | "The model attends to image regions that are semantically relevant" (section 4.5) | reproduced for late blocks (part 9); as an *explanation* it is weaker than an intervention (part 10) |
# | "Position embeddings can be interpolated for other resolutions" (section 3.2, where fine-tuning follows) | without fine-tuning: it runs, and costs accuracy (part 8) |
# | "Transformers are robust because LayerNorm has no memory" (heard often, not in the paper) | not supported: it falls on scanner C as well (part 12) |
#
# **Read further.** Vaswani et al. 2017 ([1706.03762](https://arxiv.org/abs/1706.03762)): the few pages that
# everything since is built on. Touvron et al. 2021, DeiT ([2012.12877](https://arxiv.org/abs/2012.12877)): the same network on
# ImageNet alone, by recipe. Raghu et al. 2021 ([2108.08810](https://arxiv.org/abs/2108.08810)): what ViTs and CNNs
# compute inside, side by side. Jain and Wallace 2019 ([1902.10186](https://arxiv.org/abs/1902.10186)): *Attention is not
# explanation*, the argument behind part 10. Darcet et al. 2023 ([2309.16588](https://arxiv.org/abs/2309.16588)): strange
# bright spots in the maps of large ViTs, and what they are for.
#
# **For your poster.** The bars of part 10 and the two panels of part 11. Their rows:
# `seminar results --where experiment=vit.cover` and `... experiment=vit.data`.

# %%
progress()
