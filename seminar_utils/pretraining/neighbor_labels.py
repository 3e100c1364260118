"""Meta-training for neighbour labels: practise the arrival at an unknown scanner, with two known ones.

Ambekar et al., 2023 (arXiv 2307.04033), the stages as in the paper, the details as we read it: (a) meta-source:
cross-entropy of theta on one labelled scanner; (b) meta-target, another scanner as if unknown: labels yhat are
drawn from the posterior q_phi(w | X', Y'), which sees the true labels; (c) inner step theta' = theta - inner_lr *
gradient of CE(yhat, prediction); (d) outer loss CE(Y'; theta') + KL(q_phi || p_phi) over theta and phi: the labels
are good if the step they cause is, and the prior, which sees no label, must learn to say the same. Ours: (e) the
drawn labels should themselves be right, + CE(Y'; yhat), the reconstruction term of the variational bound on
labels: through the inner step alone phi hears so little that a short training leaves its labels at chance; one
optimiser, with its own rate for phi, instead of rates lambda1..3 without values; and phi reads features and
pseudo-labels without passing gradients to theta, as at test time, where the labels are a fixed target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.distributions import kl_divergence
from torch.func import functional_call

from ..models.neighbor_labels import NeighborLabelNet, sample
from ..runtime import SeminarError
from .joint import keep_running_statistics
from .resume import Row, check_loss, device_of, epoch_bar, load_run, mean_rows, save_run, seed_epoch
from .supervised import learning_rate, validate

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), labels (B,)


@dataclass(frozen=True)
class MetaConfig:
    """The settings of a run: `steps` meta-steps an epoch, each on a batch from either scanner.

    `lr` is theta's peak rate, `label_lr` phi's; `inner_lr` is that of the step, and the one to adapt with. `kl`
    weighs the divergence, `reconstruction` the cross-entropy of the drawn labels (0: the paper's loss alone).
    `first_order`: do not differentiate through the inner gradient (cheaper, and then phi gets no word on which
    labels help).
    """

    epochs: int = 10
    steps: int = 40
    batch_size: int = 32
    lr: float = 1e-3
    label_lr: float = 3e-3
    inner_lr: float = 0.02
    kl: float = 0.1
    reconstruction: float = 1.0
    weight_decay: float = 0.05
    warmup: float = 0.5
    first_order: bool = False
    seed: int = 0

    def __post_init__(self):
        if min(self.epochs, self.steps) < 1 or self.batch_size < 2 or min(self.lr, self.label_lr) <= 0:
            raise SeminarError(
                f"meta-training needs epochs, steps >= 1, batch_size >= 2 and rates > 0, got {self}"
            )
        if min(self.inner_lr, self.kl, self.reconstruction) < 0:
            raise SeminarError(f"inner_lr, kl and reconstruction are not negative, got {self}")


def fit_neighbor_labels(
    model: NeighborLabelNet,
    train: Any,
    val: Any,
    config: MetaConfig,
    *,
    size: int | None = None,
    channels: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> list[Row]:
    """Meta-train theta and phi in place; returns the history, one row an epoch; the last epoch's weights stay.

    theta should be trained already (stage (a) alone: `supervised.fit` on `model.backbone`). Args: train: an image
    set whose `domains` name at least two scanners; val: scored after each epoch; checkpoint: a file from which a
    killed run goes on exactly. Raises SeminarError for fewer than two domains, a domain too small for a batch, a
    diverging loss, or the checkpoint of other settings.
    """
    parts_by_domain = split_domains(train, config.batch_size)
    optimizer, device = build_optimizer(model, config), device_of(model)
    parts = {"model": model, "optimizer": optimizer}
    history = load_run(checkpoint, config, device, **parts) or []
    options = {"size": size, "channels": channels}
    val_loader = val.loader(256, **options)
    for epoch in range(len(history), config.epochs):
        seed, generator = seed_epoch(config.seed, epoch)
        streams = [endless(part, config.batch_size, seed + i, options) for i, part in enumerate(parts_by_domain)]
        rows = []
        with epoch_bar(epoch, config.epochs, config.steps, progress) as bar:
            for step in range(config.steps):
                set_rate(optimizer, config, epoch + step / config.steps)
                source, target = torch.randperm(len(streams), generator=generator)[:2].tolist()
                pair = (next(streams[source]), next(streams[target]))
                rows.append(meta_step(model, *pair, optimizer, config, generator))
                bar.update()
        row = mean_rows(rows)
        check_loss(row["loss"], epoch, config.lr)
        refresh_statistics(model, train.loader(256, shuffle=True, seed=seed, **options))
        history.append({"epoch": epoch + 1, **row, **validate(model, val_loader)})
        save_run(checkpoint, config, history, **parts)
    return history


def meta_step(
    model: NeighborLabelNet,
    source: Batch,
    target: Batch,
    optimizer: torch.optim.Optimizer,
    config: MetaConfig,
    generator: Generator,
) -> Row:
    """One update of theta and phi on a meta-source and a meta-target batch; returns the parts of the loss."""
    model.train()
    device = device_of(model)
    (x_s, y_s), (x_t, y_t) = ((x.to(device), y.to(device)) for x, y in (source, target))
    with keep_running_statistics(model):
        erm = F.cross_entropy(model(x_s), y_s)
        outer, wrong, divergence = meta_target_loss(model, x_t, y_t, config, generator)
    loss = erm + outer + config.reconstruction * wrong + config.kl * divergence
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    found = {"loss": loss, "erm": erm, "outer": outer, "labels": wrong, "kl": divergence}
    return {name: value.item() for name, value in found.items()}


def meta_target_loss(
    model: NeighborLabelNet, x: Tensor, y: Tensor, config: MetaConfig, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Stages (b) to (e): cross-entropy after the inner step, cross-entropy of the drawn labels, and KL(q || p)."""
    theta = dict(model.backbone.named_parameters())
    logits, features = model(x, with_features=True)  # (B, K), (B, D)
    network, features, probs = model.label_network, features.detach(), logits.detach().softmax(dim=1)  # (B, K)
    truth = F.one_hot(y, network.num_classes).to(probs)  # (B, K)
    prior, posterior = network.latent(features, probs), network.latent(features, truth)  # w: (K, d)
    log_labels = network.labels(features, sample(posterior, generator))  # (B, K)
    inner = F.cross_entropy(logits, log_labels.exp())
    keep = not config.first_order
    gradients = torch.autograd.grad(inner, theta.values(), create_graph=keep, retain_graph=True)
    moved = {name: p - config.inner_lr * g for (name, p), g in zip(theta.items(), gradients)}
    outer = F.cross_entropy(functional_call(model.backbone, moved, (x,)), y)
    divergence = kl_divergence(posterior, prior).sum(dim=1).mean()  # over the classes
    return outer, F.nll_loss(log_labels, y), divergence


def split_domains(train: Any, batch_size: int) -> list[Any]:
    """The images of every domain apart. Raises SeminarError unless two or more can fill a batch."""
    names = [] if train.domains is None else sorted(set(train.domains.tolist()))
    if len(names) < 2:
        raise SeminarError(
            f"meta-training needs images of at least two labelled domains (scanner='AB'), got {names or 'none'}"
        )
    parts = [train.subset(train.domains == name) for name in names]
    small = {name: len(part) for name, part in zip(names, parts) if len(part) < batch_size}
    if small:
        raise SeminarError(f"the domains {small} do not fill one batch of {batch_size}: lower batch_size")
    return parts


def endless(part: Any, batch_size: int, seed: int, options: dict[str, Any]) -> Iterator[Batch]:
    """Batches of one domain for ever, shuffled anew in every pass."""
    while True:
        yield from part.loader(batch_size, shuffle=True, drop_last=True, seed=seed, **options)
        seed += 1_000_003


def build_optimizer(model: NeighborLabelNet, config: MetaConfig) -> torch.optim.AdamW:
    """AdamW; theta decays, phi does not."""
    groups = [
        {"params": list(model.backbone.parameters()), "weight_decay": config.weight_decay, "peak": config.lr},
        {"params": list(model.label_network.parameters()), "weight_decay": 0.0, "peak": config.label_lr},
    ]
    return torch.optim.AdamW([{**group, "lr": group["peak"]} for group in groups])


def set_rate(optimizer: torch.optim.Optimizer, config: MetaConfig, epoch: float) -> None:
    """The rates at a fractional epoch: short warm-up, then half a cosine."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, epoch) / config.lr * group["peak"]


@torch.no_grad()
def refresh_statistics(model: nn.Module, loader: Any) -> None:
    """Measure the running statistics of BatchNorm anew, as the mean over the batches of `loader`.

    Meta-training shows one scanner at a time; what is stored should describe the mixture that the source model
    meets.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    momenta, device = [layer.momentum for layer in layers], device_of(model)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average
    model.train()
    for x, _ in loader:
        model(x.to(device))
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum
