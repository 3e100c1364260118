"""DINO: a student learns to say of a small piece what its own slow average says of the whole. No labels.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021 (arXiv 2104.14294). Algorithm 1
of the paper is `train_step` in `dino_training.py`; its parts are here: head, loss with centring, schedules,
teacher, and a monitor of collapse. Names are the official ones: `load_state_dict` takes the authors' files.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ..models.layers import DropPath
from ..runtime import SeminarError


class DINOHead(nn.Module):
    """Projection head: an MLP to a bottleneck, L2 normalisation, then K weight-normalised prototypes.

    Output k is g_k times the cosine of the bottleneck and prototype k (appendix C). `norm_last_layer` fixes
    g at 1, which the paper recommends for stability. The official checkpoints' `last_layer.weight_g` and
    `weight_v` load although torch's new weight norm names them otherwise. `use_bn`, an option of the official
    code, puts BatchNorm into the MLP: it pulls apart images that a small ViT sees as nearly the same at first.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        num_layers: int = 3,
        norm_last_layer: bool = True,
        use_bn: bool = False,
    ):
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1)]
        layers = []
        for before, after in zip(widths[:-1], widths[1:]):
            layers += [nn.Linear(before, after), *([nn.BatchNorm1d(after)] if use_bn else []), nn.GELU()]
        layers.append(nn.Linear(widths[-1], bottleneck_dim))
        self.mlp = nn.Sequential(*layers) if num_layers > 1 else layers[0]
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = weight_norm(nn.Linear(bottleneck_dim, out_dim, bias=False))
        lengths = self.last_layer.parametrizations.weight.original0  # g (K, 1)
        lengths.data.fill_(1)
        lengths.requires_grad = not norm_last_layer

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, in_dim) -> scores of the prototypes (N, K)."""
        x = F.normalize(self.mlp(x), dim=-1)  # (N, bottleneck)
        return self.last_layer(x)  # (N, K)


class DINOLoss(nn.Module):
    """Cross-entropy between the teacher's and the student's view of an image (eq. 1-4), with centring (eq. 4).

    The teacher's scores are centred (no prototype may win everywhere) and sharpened by a low temperature (not
    all prototypes may tie): each alone collapses, the two together do not (section 5.3). `center_momentum=1`
    switches centring off. `monitor` describes the last call, see `collapse_monitor`.
    """

    def __init__(
        self,
        out_dim: int,
        teacher_temp: float = 0.04,
        warmup_teacher_temp: float = 0.04,
        warmup_teacher_temp_epochs: int = 0,
        student_temp: float = 0.1,
        center_momentum: float = 0.9,
    ):
        super().__init__()
        if min(teacher_temp, warmup_teacher_temp, student_temp) <= 0 or not 0 <= center_momentum <= 1:
            raise SeminarError("DINO's temperatures are positive and its centre momentum lies in [0, 1]")
        self.teacher_temp, self.student_temp = teacher_temp, student_temp
        self.warmup_temp, self.warmup_epochs = warmup_teacher_temp, warmup_teacher_temp_epochs
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, out_dim))
        self.monitor: dict[str, float] = {}

    def temperature(self, epoch: int) -> float:
        """The teacher's temperature: a line through the warm-up epochs, both ends included, then constant."""
        if epoch >= self.warmup_epochs:
            return self.teacher_temp
        progress = epoch / max(self.warmup_epochs - 1, 1)
        return self.warmup_temp + (self.teacher_temp - self.warmup_temp) * progress

    def targets(self, teacher: Tensor, epoch: int) -> Tensor:
        """The teacher's scores (2B, K) -> centred, sharpened distributions (2B, K), without gradient."""
        return ((teacher.detach() - self.center) / self.temperature(epoch)).softmax(dim=-1)

    def forward(self, student: Tensor, teacher: Tensor, epoch: int) -> Tensor:
        """The loss; then the centre takes in this batch.

        Args: student: scores of all crops ((2 + n) * B, K), crop after crop, the global ones first; teacher:
        scores of the two global crops (2B, K). Raises SeminarError for rows that do not fit.
        """
        B = len(teacher) // 2
        if B == 0 or len(teacher) % 2 or len(student) % B or len(student) < 2 * B:
            raise SeminarError(
                "expected 2 teacher rows and 2 or more student rows an image, "
                f"got {len(teacher)} and {len(student)}"
            )
        targets = self.targets(teacher, epoch)  # (2B, K)
        loss = cross_view_loss(student.to(targets) / self.student_temp, targets)
        self.monitor = collapse_monitor(targets)
        self.update_center(teacher)
        return loss

    @torch.no_grad()
    def update_center(self, teacher: Tensor) -> None:
        """c = m c + (1 - m) mean of the teacher's scores (eq. 4): used from the next batch on."""
        mean = teacher.mean(dim=0, keepdim=True).to(self.center)  # (1, K)
        self.center.mul_(self.center_momentum).add_(mean, alpha=1 - self.center_momentum)


def cross_view_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all pairs of a teacher crop and a different student crop (eq. 3).

    Args: logits: the student's ((2 + n) * B, K), over its temperature; targets: distributions (2B, K).
    """
    B, K = len(targets) // 2, targets.shape[1]
    log_p = logits.log_softmax(dim=-1).view(-1, B, K)  # (2 + n, B, K)
    pairs = -torch.einsum("tbk,sbk->ts", targets.view(2, B, K), log_p) / B  # (2, 2 + n)
    different = ~torch.eye(2, len(log_p), dtype=torch.bool, device=pairs.device)  # a view is not its own target
    return pairs[different].mean()


@torch.no_grad()
def collapse_monitor(targets: Tensor) -> dict[str, float]:
    """What the teacher's distributions (N, K) say about collapse, in nats (section 5.3, figure 7).

    teacher_entropy: mean entropy of one image's distribution; mean_entropy: entropy of the mean distribution;
    kl: mean divergence of an image's distribution from that mean, their difference. kl is what the outputs
    tell about WHICH image came: near 0 the teacher says the same of all. One-hot collapse: both entropies
    near 0. Uniform collapse: both near ln K. (The paper draws the entropy and the divergence from the student.)
    """
    teacher_entropy = torch.special.entr(targets).sum(dim=-1).mean().item()
    mean_entropy = torch.special.entr(targets.mean(dim=0)).sum().item()
    return {
        "teacher_entropy": teacher_entropy,
        "mean_entropy": mean_entropy,
        "kl": max(mean_entropy - teacher_entropy, 0.0),
        "ln_k": math.log(targets.shape[1]),
    }


def collapse_kind(monitor: dict[str, float], share: float = 0.02) -> str | None:
    """How the teacher has collapsed, by a monitor or a row of the history: "one-hot", "uniform" or None.

    Right after the start kl is small in every run, as nothing is learnt yet: ask after the warm-up.
    """
    low, high = share * monitor["ln_k"], (1 - share) * monitor["ln_k"]
    if monitor["mean_entropy"] < low:
        return "one-hot"
    return "uniform" if monitor["teacher_entropy"] > high else None


def cosine_schedule(
    base: float, final: float, epochs: int, steps: int, warmup_epochs: int = 0, start: float = 0.0
) -> np.ndarray:
    """One value an iteration: a line from `start` to `base`, both included, then half a cosine towards `final`.

    The base is reached on the last warm-up step and repeated on the next; the final value would come one step
    after the end. For the learning rate (warm-up, falls), the weight decay and the teacher's momentum (both
    rise). Returns (epochs * steps,). Raises SeminarError if the warm-up is longer than the run.
    """
    total, warm = int(epochs * steps), int(warmup_epochs * steps)
    if not 0 <= warm <= total:
        raise SeminarError(f"the warm-up ({warmup_epochs} epochs) is longer than the run ({epochs})")
    progress = np.arange(total - warm) / max(total - warm, 1)
    falling = final + 0.5 * (base - final) * (1 + np.cos(np.pi * progress))
    return np.concatenate([np.linspace(start, base, warm), falling])


class MultiCropNetwork(nn.Module):
    """A backbone and a head that take crops of several sizes: one pass of the backbone for each size."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, crops: Sequence[Tensor]) -> Tensor:
        """Batches of crops (N_i, C, H_i, W_i) -> scores (sum of N_i, K), in their order."""
        return self.head(torch.cat([self.backbone(x) for x in crops]))


class DINO(nn.Module):
    """Student, teacher and loss in one module, so that one state dict holds the whole method.

    Args: backbone: images to features (B, in_dim), e.g. a VisionTransformer with `num_classes=0` and
    `interpolation="dino"`, which reads the smaller local crops; head: options of DINOHead; loss: options of
    DINOLoss. Use `teacher.backbone` afterwards. Raises SeminarError for a backbone that ends in a classifier.
    """

    def __init__(self, backbone: nn.Module, in_dim: int, out_dim: int, head: dict | None = None, **loss):
        super().__init__()
        ends = [getattr(backbone, name, None) for name in ("head", "fc")]
        if any(isinstance(end, nn.Linear) for end in ends):
            raise SeminarError("DINO's backbone ends with its features: build it with num_classes=0")
        self.student = MultiCropNetwork(backbone, DINOHead(in_dim, out_dim, **(head or {})))
        self.teacher = make_teacher(self.student)
        self.criterion = DINOLoss(out_dim, **loss)


def make_teacher(student: nn.Module) -> nn.Module:
    """A copy that gets no gradients and drops no paths (section 3.1)."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
    return teacher


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """theta_t = m theta_t + (1 - m) theta_s for every parameter (section 3.1)."""
    for slow, fast in zip(teacher.parameters(), student.parameters()):
        slow.mul_(momentum).add_(fast.detach(), alpha=1 - momentum)
