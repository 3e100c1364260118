"""One of several processes that train CLIP together: `python clip_process.py RANK PROCESSES FOLDER`.

`find(0, 1, folder)` does the same alone, on the joined batch. Results are saved as FOLDER/RANK-of-PROCESSES.pt.
"""

import os
import socket
import sys

import torch
import torch.distributed as dist
from torch import nn

from seminar_utils.data import load
from seminar_utils.models import create_model
from seminar_utils.models.tokenizers import WordTokenizer
from seminar_utils.pretraining.clip import ClipTrainConfig, average_gradients, fit_clip, joint_clip_loss


class Towers(nn.Module):
    """Two linear towers and a temperature, in float64."""

    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(6, 4), nn.Linear(5, 4)
        self.logit_scale = nn.Parameter(torch.tensor(1.3))

    def forward(self, x, t):
        normalize = nn.functional.normalize
        return normalize(self.image(x), dim=1), normalize(self.text(t), dim=1), self.logit_scale


def one_step(rank: int, processes: int) -> dict:
    """Loss and parameters' gradients of a joined batch of 8 pairs, of which each process holds its part."""
    torch.manual_seed(0)
    towers, x, t = Towers().double(), torch.randn(8, 6).double(), torch.randn(8, 5).double()
    own = slice(rank * 8 // processes, (rank + 1) * 8 // processes)
    loss = joint_clip_loss(*towers(x[own], t[own]))
    loss.backward()
    average_gradients(towers)
    return {"loss": loss.detach(), **{name: p.grad for name, p in towers.named_parameters()}}


def train(folder: str, processes: int) -> dict:
    """History and weights after two epochs of the real loop, words dropped and hard negatives included."""
    data = load("phantoms", "train", n=64)
    tokenizer = WordTokenizer.from_captions(data.captions)
    torch.manual_seed(0)
    model = create_model(
        "clip_tiny", vision_width=24, text_width=16, vision_layers=1, text_layers=1, conv_stem=(8, 8)
    )
    config = ClipTrainConfig(epochs=2, batch_size=16, caption_dropout=0.15)
    factors = {name: data.factors[name] for name in ("size", "tone", "type", "place")}
    kept = os.path.join(folder, f"run-of-{processes}.pt")
    history = fit_clip(model, tokenizer, data, config, size=32, factors=factors, checkpoint=kept, progress=False)
    return {"history": history, "weights": model.state_dict()}


def find(rank: int, processes: int, folder: str) -> None:
    """Do both and save what was found."""
    found = {"step": one_step(rank, processes), "run": train(folder, processes)}
    torch.save(found, os.path.join(folder, f"{rank}-of-{processes}.pt"))


if __name__ == "__main__":
    rank, processes, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    names = {name for _, name in socket.if_nameindex()}
    os.environ["GLOO_SOCKET_IFNAME"] = next(name for name in ("lo", "lo0", *sorted(names)) if name in names)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    find(rank, processes, folder)
    dist.destroy_process_group()
