"""The last layer of a classifier, and the features it reads."""

from __future__ import annotations

from torch import Tensor, nn

from ..runtime import SeminarError

NAMES = ("fc", "head", "classifier", "heads.head", "backbone.fc")  # torchvision's, timm's, of TwoHeads


def find_head(
    model: nn.Module, name: str | None = None, kinds: tuple[type[nn.Module], ...] = (nn.Linear,)
) -> tuple[str, nn.Module]:
    """Name and layer of the classifier: `name`, or a usual name, or the last layer of these kinds.

    kinds: with nn.Conv2d also the last convolution of a segmentation network. Raises SeminarError without one.
    """
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, kinds)}
    candidates = [name] if name is not None else [*NAMES, *list(layers)[-1:]]
    for candidate in candidates:
        if candidate in layers:
            return candidate, layers[candidate]
    wanted = name or ", ".join(NAMES)
    raise SeminarError(f"a classifier layer was expected ({wanted}), this model has {list(layers) or 'none'}")


def features_and_logits(model: nn.Module, head: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """One forward of the whole model on x (B, C, H, W): what `head` read (B, D), and the logits (B, K).

    Raises SeminarError when the model did not pass through its head, or not with one vector an image.
    """
    read: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        logits = model(x)
    finally:
        handle.remove()
    if len(read) != 1 or read[0].ndim != 2 or logits.ndim != 2:
        raise SeminarError("one feature vector an image was expected at the classifier: is this a classifier?")
    if logits.shape[1] < 2:
        raise SeminarError("this method compares classes: it takes at least 2 logits an image, got 1")
    return read[0], logits
