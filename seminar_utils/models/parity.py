"""Do two implementations compute the same? Random weights everywhere, then outputs and gradients.

Fresh weights hide mistakes: torchvision's ViT head starts at zero, BatchNorm's statistics at 0 and 1,
LayerNorm's factors at 1. So `randomise_` fills every parameter and buffer, at sizes that keep the
activations near 1, before the weights are copied from one implementation to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..runtime import SeminarError

TABLES = ("_table", "_embedding", "pos_embed", "attention_biases", "gaussian_matrix")  # no matrices of a layer


@torch.no_grad()
def randomise_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every parameter and saved buffer of the module with random numbers, in place; returns it.

    Matrices and filters ~ N(0, 1/fan_in); tokens, positions and other tables that are read row by row
    ~ N(0, 1); factors of normalisation layers 1 + N(0, 0.2^2); biases and running means N(0, 0.2^2);
    variances U(0.5, 1.5). Tables of indices, and buffers that are not saved, follow from the sizes: they stay.
    """
    generator = torch.Generator().manual_seed(seed)
    saved = {value.data_ptr() for value in module.state_dict().values()}
    for owner in module.modules():
        own = [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]
        for name, value in own:
            constant = not value.is_floating_point() and name != "num_batches_tracked"
            if value.data_ptr() in saved and not constant:
                value.copy_(_random_value(name, value, generator, isinstance(owner, nn.Embedding)))
    return module


def _random_value(name: str, value: Tensor, generator: torch.Generator, table: bool = False) -> Tensor:
    noise = torch.randn(value.shape, generator=generator)
    if not value.is_floating_point():  # BatchNorm's counter
        return torch.randint(1, 100, value.shape, generator=generator)
    if name == "running_var":
        return 0.5 + torch.rand(value.shape, generator=generator)
    if table or value.ndim == 3 or name.endswith(TABLES):
        return noise
    if value.ndim >= 2:
        return noise * value[0].numel() ** -0.5  # value[0].numel() inputs feed each output
    return 1 + 0.2 * noise if name in ("weight", "gamma") else 0.2 * noise


def max_difference(ours: Tensor, reference: Tensor) -> float:
    """max |ours - reference|. Raises SeminarError if the shapes differ; NaN stays NaN, so it never passes."""
    if ours.shape != reference.shape:
        raise SeminarError(f"shapes differ: ours {tuple(ours.shape)}, reference {tuple(reference.shape)}")
    return (ours.detach() - reference.detach()).abs().max().item()


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    """max |ours - reference| / max |reference| (the plain maximum when the reference is all zero)."""
    return max_difference(ours, reference) / (reference.detach().abs().max().item() or 1.0)


def parity_report(
    ours: nn.Module,
    reference: nn.Module,
    x: Tensor,
    rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
    feature: tuple[str, str] | None = None,
) -> dict[str, float]:
    """Compare two models that hold the same weights, in eval mode, on the images x (B, C, H, W) or token ids.

    The gradients are those of a fixed random sum of the outputs; ids have none. Args: rename turns the
    reference's parameter names into ours (`from_torchvision`); feature names one submodule in each model whose
    outputs to compare as well. Both models are left in eval mode, without gradients.
    Returns {"max_difference", "output", "feature" (if asked), "input_gradient" (of images), "gradient"}: the
    first is max |difference| of the outputs, the others relative to max |reference|; "gradient" is the worst
    of all parameters. Raises SeminarError if the two do not have the same parameters.
    """
    out, feat, x_grad, grads = _run(ours, x, feature and feature[0])
    ref_out, ref_feat, ref_x_grad, ref_grads = _run(reference, x, feature and feature[1])
    ref_grads = rename(ref_grads)
    if set(grads) != set(ref_grads):
        raise SeminarError(f"parameters of only one model: {sorted(set(grads) ^ set(ref_grads))[:6]}")
    report = {"max_difference": max_difference(out, ref_out), "output": relative_difference(out, ref_out)}
    if feature:
        report["feature"] = relative_difference(feat, ref_feat)
    if x_grad is not None:
        report["input_gradient"] = relative_difference(x_grad, ref_x_grad)
    each = [relative_difference(grads[name], ref_grads[name]) for name in grads]
    report["gradient"] = torch.tensor(each).max().item()  # unlike Python's max, does not lose a NaN
    return report


def _run(
    model: nn.Module, x: Tensor, feature: str | None
) -> tuple[Tensor, Tensor | None, Tensor | None, dict[str, Tensor]]:
    """One forward and backward: output, output of one submodule, gradients of x and of the parameters."""
    caught = []
    model.eval().zero_grad()
    hook = feature and model.get_submodule(feature).register_forward_hook(lambda *call: caught.append(call[2]))
    x = x.detach().clone().requires_grad_(x.is_floating_point())
    out = model(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
    (out * weights).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    if hook:
        hook.remove()
    return out.detach(), caught[0].detach() if caught else None, x.grad, grads


def parity_line(title: str, report: Mapping[str, float]) -> str:
    """One line to print: `resnet50 vs torchvision: output 3.1e-07 gradient 8.0e-07` and so on."""
    return f"{title}: " + " ".join(f"{kind} {value:.1e}" for kind, value in report.items())
