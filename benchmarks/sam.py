"""Relative positions in attention, three ways, and LiteMedSAM's two halves: `python benchmarks/sam.py [threads]`.

One global block of SAM at 1024 px (64 x 64 tokens) and one layer of windows: written out; the bias into torch's
fused kernel, which is what the package does; without a bias, its two terms joined to q and k.
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from seminar_utils.checkpoints.medsam_lite import load_lite_medsam
from seminar_utils.models.sam_encoder import relative_bias, relative_embeddings

SHAPES = {"global, 64 x 64": (1, 12, 64, 64), "25 windows of 14": (25, 12, 14, 64)}  # (B, heads, side, head_dim)


def written_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias).softmax(dim=-1) @ v


def without_bias(q: Tensor, k: Tensor, v: Tensor, rel_pos: Tensor, side: int) -> Tensor:
    """q k^T / sqrt(d) + bias = [q / sqrt(d), by_row, by_column] [k, row as one-hot, column as one-hot]^T."""
    table, grid, d = relative_embeddings(rel_pos, side, side), q.unflatten(2, (side, side)), q.shape[-1]
    by_row = (grid @ table.transpose(1, 2)).flatten(2, 3)  # (B, heads, N, side)
    by_column = (grid.transpose(2, 3) @ table.transpose(1, 2)).transpose(2, 3).flatten(2, 3)
    rows = torch.eye(side).repeat_interleave(side, 0).expand_as(by_row)
    columns = torch.eye(side).repeat(side, 1).expand_as(by_column)
    q = torch.cat([q * d**-0.5, by_row, by_column], dim=-1)  # (B, heads, N, d + 2 * side)
    k = torch.cat([k, rows, columns], dim=-1)
    v = F.pad(v, (0, 2 * side))  # the fused kernel wants equal widths
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :d]


def seconds(call, repeats: int = 3) -> float:
    """The fastest of a few calls, after a first one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    torch.manual_seed(0)
    for title, (batch, heads, side, d) in SHAPES.items():
        q, k, v = (torch.randn(batch, heads, side**2, d) for _ in range(3))
        rel_pos, size = torch.randn(2 * side - 1, d) / 8, (side, side)
        make_bias = lambda: relative_bias(q, rel_pos, rel_pos, size, size)  # noqa: B023, E731 (called at once)
        ways = {
            "written out": lambda: written_out(q, k, v, make_bias()),  # noqa: B023
            "fused, bias": lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=make_bias()),  # noqa: B023
            "fused, no bias": lambda: without_bias(q, k, v, rel_pos, side),  # noqa: B023
        }
        first = ways["written out"]()
        for name, way in ways.items():
            apart = (way() - first).abs().max().item()
            print(f"{title:18s} {name:15s} {1e3 * seconds(way):7.0f} ms, max |difference| {apart:.0e}")
    model, box = load_lite_medsam(), torch.tensor([[30.0, 40.0, 120.0, 200.0]])
    image = torch.rand(1, 3, 256, 256)
    embedding = model.encode(image)
    print(f"LiteMedSAM, encoder {seconds(lambda: model.encode(image)):.2f} s")
    for count in (1, 8):
        took = seconds(lambda: model.decode(embedding, boxes=box.expand(count, 4)))  # noqa: B023
        print(f"LiteMedSAM, decoder {1e3 * took:.0f} ms for {count} boxes")


if __name__ == "__main__":
    main()
