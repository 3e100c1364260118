"""Wrong answers to the exercises of lesson 01_resnet: the mistakes that students really make."""

import math

import torch
import torch.nn.functional as F


def normalise(axes=(0, 2, 3), unbiased=False, eps_outside=False, broadcast_last=False, in_place=False):
    def batch_norm(x, gamma, beta, eps):
        mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=unbiased)
        scale = var.sqrt() + eps if eps_outside else (var + eps).sqrt()
        y = x.sub_(mean).div_(scale) if in_place else (x - mean) / scale
        if broadcast_last:
            return gamma * y + beta
        return gamma.view(1, -1, 1, 1) * y + beta.view(1, -1, 1, 1)

    return batch_norm


def add_in_place(x, branch, shortcut):
    out = shortcut(x)
    out += branch(x)
    return torch.relu(out)


def field(order="kernel first", grow=lambda k, jump: (k - 1) * jump, start=1):
    def receptive_field(layers):
        size, jump = start, 1
        for kernel, stride in layers:
            jump = jump * stride if order == "stride first" else jump
            size += grow(kernel, jump)
            jump = jump * stride if order == "kernel first" else jump
        return size

    return receptive_field


WRONG = {
    "resnet.output_size": {
        "true division": lambda n, k, s, p: (n + 2 * p - k) / s + 1,
        "padding once": lambda n, k, s, p: (n + p - k) // s + 1,
        "no plus one": lambda n, k, s, p: (n + 2 * p - k) // s,
        "rounded up": lambda n, k, s, p: math.ceil((n + 2 * p - k) / s) + 1,
    },
    "resnet.batch_norm": {
        "unbiased variance": normalise(unbiased=True),
        "per image": normalise(axes=(2, 3)),
        "per pixel": normalise(axes=(0,)),
        "eps outside of the root": normalise(eps_outside=True),
        "gamma along the width": normalise(broadcast_last=True),
        "in place": normalise(in_place=True),
        "cut off from the map": lambda x, gamma, beta, eps: normalise()(x.detach(), gamma, beta, eps),
    },
    "resnet.residual": {
        "relu before the sum": lambda x, b, s: torch.relu(b(x)) + s(x),
        "no relu": lambda x, b, s: b(x) + s(x),
        "shortcut left out": lambda x, b, s: torch.relu(b(x) + x),
        "no shortcut": lambda x, b, s: torch.relu(b(x)),
        "in place": add_in_place,
        "branch cut off": lambda x, b, s: torch.relu(b(x).detach() + s(x)),
    },
    "resnet.receptive_field": {
        "sum of kernels": field(grow=lambda k, jump: k, start=0),
        "strides ignored": field(grow=lambda k, jump: k - 1),
        "stride first": field(order="stride first"),
        "from zero": field(start=0),
    },
}

RIGHT = {
    "resnet.batch_norm": lambda x, g, b, e: F.batch_norm(x, None, None, g, b, training=True, eps=e),
}
