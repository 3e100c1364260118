"""GroupNorm of which only the weights move, on maps in channels_last order: torch 2.13 alone crashes there."""

import subprocess
import sys

CODE = """
import torch
from seminar_utils.models.resnet import make_norm
torch.set_num_threads(1)
x = torch.randn(64, 16, 32, 32).to(memory_format=torch.channels_last)
norm, plain = make_norm("gn", 16), torch.nn.GroupNorm(8, 16)
norm(x).square().mean().backward()
plain(x.contiguous()).square().mean().backward()
assert torch.equal(norm.weight.grad, plain.weight.grad) and torch.equal(norm(x), plain(x.contiguous()))
"""


def test_only_the_weights_move():
    """In a process of its own: without the care the process would be gone."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"exit {done.returncode} (-11: segmentation fault) {done.stderr}"
