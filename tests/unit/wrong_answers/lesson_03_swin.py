"""Wrong answers to the exercises of lesson 03_swin: the mistakes that students really make."""

import torch
from torch.nn import functional as F

from seminar_utils.models.windows import window_partition


def cut(permutation, dilated=False):
    def partition(x, window):
        b, h, w, d = x.shape
        if dilated:
            x = x.reshape(b, window, h // window, window, w // window, d)
        else:
            x = x.reshape(b, h // window, window, w // window, window, d)
        return x.permute(permutation).reshape(-1, window * window, d)

    return partition


def by_unfold(x, window):
    b, _, _, d = x.shape
    cols = F.unfold(x.permute(0, 3, 1, 2), window, stride=window)  # (B, D * M^2, num_windows)
    return cols.reshape(b, d, window * window, -1).permute(0, 3, 2, 1).reshape(-1, window * window, d)


def masked(value=-100.0, rolled=True, both=True, invert=False, swap=False):
    """The mask by region numbers, with one mistake; `rolled=False` marks the first rows, not the last."""

    def mask(height, width, window, shift):
        down, right = shift[::-1] if swap else shift
        rows, columns = torch.arange(height), torch.arange(width)
        rows = (rows >= height - down) if rolled else (rows < down)
        columns = (columns >= width - right) if rolled else (columns < right)
        region = 2 * rows[:, None].long() + columns.long() if both else rows[:, None].long() + columns.long()
        region = window_partition(region.reshape(1, height, width, 1), window)[..., 0]
        differ = region[:, :, None] != region[:, None, :]
        return torch.zeros(differ.shape).masked_fill(~differ if invert else differ, value)

    return mask


def official_mask(height, width, window, shift):
    """As Microsoft writes it: three slices a side, numbered one after the other."""
    region = torch.zeros(1, height, width, 1)
    number = 0
    slices = [(slice(0, -window), slice(-window, -s), slice(-s, None)) if s else (slice(None),) for s in shift]
    for rows in slices[0]:
        for columns in slices[1]:
            region[:, rows, columns] = number
            number += 1
    region = window_partition(region, window)[..., 0]
    differ = region[:, None, :] - region[:, :, None]
    return differ.masked_fill(differ != 0, -100.0).masked_fill(differ == 0, 0.0)


def index(sign=1, offset=None, stride=None, absolute=False, columns_first=False):
    def positions(window):
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1)
        place = place.reshape(-1, 2)
        offsets = sign * (place[:, None] - place[None])
        offsets = offsets.abs() if absolute else offsets + (window - 1 if offset is None else offset)
        first, second = (1, 0) if columns_first else (0, 1)
        return offsets[..., first] * (2 * window - 1 if stride is None else window) + offsets[..., second]

    return positions


def index_by_loops(window):
    places = [(row, column) for row in range(window) for column in range(window)]
    side = 2 * window - 1
    rows = [[(r - s + window - 1) * side + (c - d + window - 1) for s, d in places] for r, c in places]
    return torch.tensor(rows)


def merged(order, dim=-1):
    def merge(x):
        return torch.cat([x[:, r::2, c::2] for r, c in order], dim=dim)

    return merge


def mean_of_four(x):
    return (x[:, 0::2, 0::2] + x[:, 1::2, 0::2] + x[:, 0::2, 1::2] + x[:, 1::2, 1::2]) / 4


def quarters(x):
    h, w = x.shape[1] // 2, x.shape[2] // 2
    return torch.cat([x[:, :h, :w], x[:, h:, :w], x[:, :h, w:], x[:, h:, w:]], dim=-1)


WRONG = {
    "swin.window_partition": {
        "reshape alone": lambda x, window: x.reshape(-1, window * window, x.shape[-1]),
        "windows column by column": cut((0, 3, 1, 2, 4, 5)),
        "transposed inside": cut((0, 1, 3, 4, 2, 5)),
        "every second token": cut((0, 2, 4, 1, 3, 5), dilated=True),
        "not flattened": lambda x, window: window_partition(x, window).unflatten(1, (window, window)),
        "by way of numpy": lambda x, window: torch.tensor(window_partition(x, window).detach().numpy()),
    },
    "swin.cost": {
        "as if global": lambda h, w, c, m: 4 * h * w * c**2 + 2 * (h * w) ** 2 * c,
        "window's side for its area": lambda h, w, c, m: 4 * h * w * c**2 + 2 * m * h * w * c,
        "one window only": lambda h, w, c, m: 4 * h * w * c**2 + 2 * m**4 * c,
        "scores without the weighted sum": lambda h, w, c, m: 4 * h * w * c**2 + m**2 * h * w * c,
        "a float": lambda h, w, c, m: float(4 * h * w * c**2 + 2 * m**2 * h * w * c),
        "no projection": lambda h, w, c, m: 3 * h * w * c**2 + 2 * m**2 * h * w * c,
    },
    "swin.shift_mask": {
        "minus infinity": masked(value=-torch.inf),
        "first rows for last": masked(rolled=False),
        "two corners are one region": masked(both=False),
        "the wrong way round": masked(invert=True),
        "rows and columns exchanged": masked(swap=True),
        "true and false": lambda h, w, m, s: masked()(h, w, m, s) != 0,
        "plus a hundred": masked(value=100.0),
        "nothing masked": lambda h, w, m, s: torch.zeros(h * w // m**2, m**2, m**2),
    },
    "swin.relative_index": {
        "j minus i": index(sign=-1),
        "distances without sign": index(absolute=True),
        "not moved to zero": index(offset=0),
        "window for 2 window - 1": index(stride="window"),
        "columns first": index(columns_first=True),
        "rows and columns added": lambda window: (
            index()(window) // (2 * window - 1) + index()(window) % (2 * window - 1)
        ),
        "as floats": lambda window: index()(window).float(),
    },
    "swin.patch_merging": {
        "order of reading": merged([(0, 0), (0, 1), (1, 0), (1, 1)]),
        "round the square": merged([(0, 0), (1, 0), (1, 1), (0, 1)]),
        "stacked below each other": merged([(0, 0), (1, 0), (0, 1), (1, 1)], dim=1),
        "mean of the four": mean_of_four,
        "quarters of the map": quarters,
        "reshape alone": lambda x: x.reshape(len(x), x.shape[1] // 2, x.shape[2] // 2, 4 * x.shape[3]),
        "cut off": lambda x: merged([(0, 0), (1, 0), (0, 1), (1, 1)])(x.detach()),
    },
}

RIGHT = {
    "swin.window_partition": by_unfold,
    "swin.cost": lambda h, w, c, m: 2 * h * w * c * (2 * c + m * m),
    "swin.shift_mask": official_mask,
    "swin.relative_index": index_by_loops,
    "swin.patch_merging": lambda x: (
        x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)
    ),
}
