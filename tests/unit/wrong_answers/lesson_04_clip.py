"""Wrong answers to the exercises of lesson 04_clip: the mistakes that students really make."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def unit(x, dim=-1):
    return F.normalize(x, dim=dim)


def overflowing(logits):
    rows = logits.exp() / logits.exp().sum(1, keepdim=True)
    columns = logits.exp() / logits.exp().sum(0, keepdim=True)
    return -(rows.diagonal().log().mean() + columns.diagonal().log().mean()) / 2


def labels_of(logits):
    return torch.arange(len(logits))


WRONG = {
    "clip.similarity": {
        "not normalised": lambda i, t, s: s.exp() * i @ t.T,
        "log of the scale as factor": lambda i, t, s: s * unit(i) @ unit(t).T,
        "normalised over the batch": lambda i, t, s: s.exp() * unit(i, 0) @ unit(t, 0).T,
        "only the images normalised": lambda i, t, s: s.exp() * unit(i) @ t.T,
        "captions by images": lambda i, t, s: s.exp() * unit(t) @ unit(i).T,
        "divided by the scale": lambda i, t, s: unit(i) @ unit(t).T / s.exp(),
        "factor by math.exp": lambda i, t, s: math.exp(s) * unit(i) @ unit(t).T,
        "factor by numpy": lambda i, t, s: np.exp(s.item()) * unit(i) @ unit(t).T,
        "image cut off": lambda i, t, s: s.exp() * unit(i.detach()) @ unit(t).T,
    },
    "clip.info_nce": {
        "rows only": lambda z: F.cross_entropy(z, labels_of(z)),
        "rows twice": lambda z: (F.cross_entropy(z, labels_of(z)) + F.cross_entropy(z, labels_of(z))) / 2,
        "sum, not mean": lambda z: F.cross_entropy(z, labels_of(z)) + F.cross_entropy(z.T, labels_of(z)),
        "overflow": overflowing,
        "all labels zero": lambda z: F.cross_entropy(z, 0 * labels_of(z)),
        "softmax first": lambda z: (
            (F.cross_entropy(z.softmax(1), labels_of(z)) + F.cross_entropy(z.T.softmax(1), labels_of(z))) / 2
        ),
        "cut off from the logits": lambda z: (
            (F.cross_entropy(z.detach(), labels_of(z)) + F.cross_entropy(z.detach().T, labels_of(z))) / 2
        ),
        "a Python number": lambda z: (
            (F.cross_entropy(z, labels_of(z)) + F.cross_entropy(z.T, labels_of(z))).item() / 2
        ),
    },
    "clip.pool_end_token": {
        "last column": lambda t, i: t[:, -1],
        "mean over all": lambda t, i: t.mean(1),
        "every caption at every end": lambda t, i: t[:, i.argmax(1)],
        "the id itself as position": lambda t, i: t[torch.arange(len(t)), i.max(1).values % t.shape[1]],
        "last word, not the end": lambda t, i: t[torch.arange(len(t)), i.argmax(1) - 1],
        "class token": lambda t, i: t[:, 0],
        "cut off from the tokens": lambda t, i: t.detach()[torch.arange(len(t)), i.argmax(1)],
    },
    "clip.ensemble": {
        "mean of raw features": lambda p: unit(p.mean(1)),
        "not normalised at the end": lambda p: unit(p).mean(1),
        "mean over the classes": lambda p: unit(unit(p).mean(0)),
        "normalised over the templates": lambda p: unit(unit(p, 1).mean(1)),
        "first template only": lambda p: unit(p[:, 0]),
    },
}

RIGHT = {
    "clip.similarity": lambda i, t, s: s.exp() * F.cosine_similarity(i[:, None], t[None], dim=-1),
    "clip.info_nce": lambda z: -(z.log_softmax(0).diagonal() + z.log_softmax(1).diagonal()).mean() / 2,
    "clip.pool_end_token": lambda t, i: t.gather(1, i.argmax(1)[:, None, None].expand(-1, 1, t.shape[2]))[:, 0],
    "clip.ensemble": lambda p: unit(unit(p).sum(1)),
}
