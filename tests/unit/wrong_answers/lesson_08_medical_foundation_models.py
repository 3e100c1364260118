"""Wrong answers to the exercises of lesson 08: the mistakes that students really make."""

import numpy as np
import torch
import torch.nn.functional as F


def window(half=0.5, cut=True, stretch="left", top=255.0, swapped=False):
    def ct_window(hounsfield, level, width):
        level, width = (width, level) if swapped else (level, width)
        low, high = level - half * width, level + half * width
        values = np.asarray(hounsfield, np.float64)
        values = np.clip(values, low, high) if cut else values
        if stretch == "left":
            low, high = values.min(), values.max()
        return (values - low) / ((high - low) or 1.0) * top

    return ct_window


def outside_to_zero(hounsfield, level, width):
    inside = np.abs(hounsfield - level) <= width / 2
    return window()(np.where(inside, hounsfield, 0), level, width)


def window_by_where(hounsfield, level, width):
    low, high = level - width / 2, level + width / 2
    values = np.where(hounsfield < low, low, np.where(hounsfield > high, high, hounsfield)).astype(float)
    span = values.max() - values.min()
    return 255 * (values - values.min()) / span if span else np.zeros_like(values)


def stretched(dims=(-3, -2, -1), guard=True):
    def min_max(x):
        low, high = x.amin(dim=dims, keepdim=True), x.amax(dim=dims, keepdim=True)
        return (x - low) / ((high - low).clamp(min=1e-8) if guard else high - low)

    return min_max


def z_score(x):
    mean, std = x.mean(dim=(-3, -2, -1), keepdim=True), x.std(dim=(-3, -2, -1), keepdim=True)
    return (x - mean) / std.clamp(min=1e-8)


def min_max_by_image(x):
    rows = []
    for image in x:
        span = image.max() - image.min()
        rows.append((image - image.min()) / span if span > 0 else torch.zeros_like(image))
    return torch.stack(rows)


def box(plus=1, both=False, half=False, clip=True, limit="size - 1", moved=False):
    def loosen_box(boxes, share, size):
        sides = boxes[:, 2:] - boxes[:, :2] + plus
        sides = sides.amax(dim=1, keepdim=True).expand(-1, 2) if both else sides
        sides = sides / 2 if half else sides
        first = boxes[:, :2] + share * sides * (1 if moved else -1)
        last = boxes[:, 2:] + share * sides
        found = torch.cat([first, last], dim=1)
        if not clip:
            return found
        ends = {"size - 1": [size[1] - 1, size[0] - 1], "size": [size[1], size[0]]}
        ends["swapped"] = [size[0] - 1, size[1] - 1]
        return found.clamp(min=0).minimum(boxes.new_tensor(ends[limit] * 2))

    return loosen_box


def box_side_by_side(boxes, share, size):
    x0, y0, x1, y1 = boxes.unbind(1)
    w, h = share * (x1 - x0 + 1), share * (y1 - y0 + 1)
    right, bottom = size[1] - 1, size[0] - 1
    columns = [(x0 - w).clamp(0, right), (x1 + w).clamp(0, right)]
    rows = [(y0 - h).clamp(0, bottom), (y1 + h).clamp(0, bottom)]
    return torch.stack([columns[0], rows[0], columns[1], rows[1]], dim=1)


def lora(scale="alpha / r", bias_twice=False, detach=False, only=False):
    def lora_forward(x, weight, bias, A, B, alpha):
        r = {"alpha / r": len(A), "alpha": 1, "none": alpha, "alpha / in": A.shape[1]}[scale]
        low = F.linear(x, A)
        low = low.detach() if detach else low
        change = alpha / r * F.linear(low, B, bias if bias_twice else None)
        return change if only else F.linear(x, weight, bias) + change

    return lora_forward


def lora_merged(x, weight, bias, A, B, alpha):
    return x @ (weight + alpha / B.shape[1] * B @ A).T + bias


WRONG = {
    "medical.ct_window": {
        "the width to both sides": window(half=1.0),
        "not cut": window(cut=False),
        "stretched over the whole window": window(stretch="window"),
        "to [0, 1]": window(top=1.0),
        "level and width swapped": window(swapped=True),
        "outside becomes 0": outside_to_zero,
    },
    "medical.min_max": {
        "over the batch": stretched(dims=(-4, -3, -2, -1)),
        "each channel by itself": stretched(dims=(-2, -1)),
        "divides by zero": stretched(guard=False),
        "divided by 255": lambda x: x / 255,
        "divided by the highest": lambda x: x / x.amax(dim=(-3, -2, -1), keepdim=True).clamp(min=1e-8),
        "mean and deviation": z_score,
    },
    "medical.loosen_box": {
        "the last pixel forgotten": box(plus=0),
        "the longer side for both": box(both=True),
        "half the share on each side": box(half=True),
        "not kept inside": box(clip=False),
        "one pixel too far": box(limit="size"),
        "height and width swapped": box(limit="swapped"),
        "moved, not grown": box(moved=True),
    },
    "medical.lora_forward": {
        "not scaled": lora(scale="none"),
        "scaled by alpha only": lora(scale="alpha"),
        "scaled by the width": lora(scale="alpha / in"),
        "bias twice": lora(bias_twice=True),
        "the correction only": lora(only=True),
        "A cut off": lora(detach=True),
    },
}

RIGHT = {
    "medical.ct_window": window_by_where,
    "medical.min_max": min_max_by_image,
    "medical.loosen_box": box_side_by_side,
    "medical.lora_forward": lora_merged,
}
