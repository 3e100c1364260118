"""An OpenAI-like archive of a CLIP, for the tests of both its reader and the registry."""

import torch
from torch import nn


class Archived(nn.Module):
    """A model with the three numbers that OpenAI's TorchScript archives carry among their weights."""

    def __init__(self, model, input_resolution, context_length, vocab_size):
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            self.register_parameter(name, getattr(model, name))
        self.register_buffer("input_resolution", torch.tensor(input_resolution))
        self.register_buffer("context_length", torch.tensor(context_length))
        self.register_buffer("vocab_size", torch.tensor(vocab_size))

    def forward(self, x):
        return self.visual.conv1(x)
