"""Wrong answers to the exercises of lesson 05_dino: the mistakes that students really make."""

import copy

import torch
import torch.nn.functional as F


def loss(same=False, count=None, softmax="log_softmax", swap=False, over="sum", layout="crops"):
    """A cross-view loss with one bad habit."""

    def cross_view_loss(logits, targets):
        B = len(targets) // 2
        crops = (
            logits.split(B)
            if layout == "crops"
            else [logits[i :: len(logits) // B] for i in range(len(logits) // B)]
        )
        terms = []
        for i, t in enumerate(targets.chunk(2)):
            for j, s in enumerate(crops):
                if same or i != j:
                    log_p = s.log_softmax(-1) if softmax == "log_softmax" else s.softmax(-1).log()
                    a, b = (log_p.exp(), (t + 1e-12).log()) if swap else (t, log_p)
                    terms.append(-getattr(a * b, over)(-1).mean())
        return sum(terms) / (count(len(crops)) if count else len(terms))

    return cross_view_loss


def by_einsum(logits, targets):
    B = len(targets) // 2
    t, s = targets.view(2, B, -1), logits.log_softmax(-1).view(-1, B, targets.shape[1])
    pairs = -torch.einsum("tbk,sbk->ts", t, s) / B
    pairs = pairs.masked_fill(torch.eye(2, len(s), dtype=torch.bool), 0)
    return pairs.sum() / (2 * len(s) - 2)


def ema(weight=lambda m: m, which="teacher"):
    def ema_update(teacher, student, momentum):
        m = weight(momentum)
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters()):
                new = m * slow + (1 - m) * fast
                (slow if which == "teacher" else fast).copy_(new)
        return teacher

    return ema_update


def in_a_copy(teacher, student, momentum):
    return ema()(copy.deepcopy(teacher), student, momentum)


def lost_in_a_name(teacher, student, momentum):
    for slow, fast in zip(teacher.parameters(), student.parameters()):
        slow = momentum * slow + (1 - momentum) * fast
    return teacher


def returns_nothing(teacher, student, momentum):
    ema()(teacher, student, momentum)


def buffers_too(teacher, student, momentum):
    with torch.no_grad():
        for slow, fast in zip(teacher.state_dict().values(), student.state_dict().values()):
            if slow.is_floating_point():
                slow.mul_(momentum).add_(fast, alpha=1 - momentum)
    return teacher


def recorded(teacher, student, momentum):
    for slow, fast in zip(teacher.parameters(), student.parameters()):
        slow.mul_(momentum).add_(fast, alpha=1 - momentum)
    return teacher


def monitor(log=lambda p: torch.special.entr(p), sign=1, swap=False, unit=1.0, over=1):
    def entropy_monitor(targets):
        own = log(targets).sum(1).mean().item() / unit
        of_mean = log(targets.mean(over - 1)).sum().item() / unit
        pair = (of_mean, own) if swap else (own, of_mean)
        return (*pair, sign * (of_mean - own))

    return entropy_monitor


WRONG = {
    "dino.teacher_targets": {
        "not centred": lambda t, c, T: (t.detach() / T).softmax(-1),
        "centre added": lambda t, c, T: ((t.detach() + c) / T).softmax(-1),
        "centre not sharpened": lambda t, c, T: (t.detach() / T - c).softmax(-1),
        "times the temperature": lambda t, c, T: ((t.detach() - c) * T).softmax(-1),
        "softmax over the images": lambda t, c, T: ((t.detach() - c) / T).softmax(0),
        "with gradient": lambda t, c, T: ((t - c) / T).softmax(-1),
        "centred after the softmax": lambda t, c, T: (t.detach() / T).softmax(-1) - c,
        "log": lambda t, c, T: ((t.detach() - c) / T).log_softmax(-1),
    },
    "dino.cross_view_loss": {
        "same view included": loss(same=True),
        "divided by all pairs": loss(count=lambda crops: 2 * crops),
        "sum of the pairs": loss(count=lambda crops: 1),
        "log of a softmax": loss(softmax="log of softmax"),
        "student and teacher exchanged": loss(swap=True),
        "mean over the prototypes": loss(over="mean"),
        "image after image": loss(layout="images"),
        "globals only": lambda s, t: loss()(s[: len(t)], t),
        "detached": lambda s, t: loss()(s.detach(), t),
        "labels from the teacher": lambda s, t: F.cross_entropy(s[: len(t)], t.argmax(-1)),
    },
    "dino.ema_update": {
        "momentum exchanged": ema(weight=lambda m: 1 - m),
        "student moves": ema(which="student"),
        "copied": ema(weight=lambda m: 0.0),
        "always 0.9": ema(weight=lambda m: 0.9),
        "in a copy": in_a_copy,
        "lost in a name": lost_in_a_name,
        "recorded for backward": recorded,
        "returns nothing": returns_nothing,
        "buffers too": buffers_too,
    },
    "dino.entropy_monitor": {
        "0 log 0": monitor(log=lambda p: -p * p.log()),
        "base 2": monitor(unit=0.6931471805599453),
        "sign": monitor(log=lambda p: -torch.special.entr(p)),
        "swapped": monitor(swap=True),
        "kl negative": monitor(sign=-1),
        "mean over prototypes": monitor(over=2),
    },
}

RIGHT = {
    "dino.cross_view_loss": by_einsum,
    "dino.teacher_targets": lambda t, c, T: F.softmax((t.detach() - c) / T, dim=1),
}
