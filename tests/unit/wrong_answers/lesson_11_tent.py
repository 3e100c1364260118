"""Wrong answers to the exercises of lesson 11_tent: the mistakes that students really make."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def mean_of_image_variances(x):
    return x.mean((0, 2, 3)), x.var((2, 3), unbiased=False).mean(0)


def centred_in_place(x):
    mean = x.mean((0, 2, 3))
    x -= mean.view(1, -1, 1, 1)
    return mean, x.pow(2).mean((0, 2, 3))


def running_statistics(x):
    layer = torch.nn.BatchNorm2d(x.shape[1], momentum=1.0)
    layer(x)
    return layer.running_mean, layer.running_var


def entropy(base=math.e, sign=-1, reduce=lambda t: t.sum(1)):
    return lambda z: sign * reduce(z.softmax(1) * z.log_softmax(1)) / math.log(base)


def underflowing_entropy(logits):
    p = logits.softmax(1)
    return -(p * p.log()).sum(1)


def step(**habits):
    """A Tent step with one bad habit."""

    def tent_step(model, x, optimizer):
        if "mode" in habits:
            getattr(model, habits["mode"])()
        logits = model(x)
        h = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
        loss = habits.get("loss", lambda h, z: h.mean())(h, logits)
        if habits.get("zero", True):
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if habits.get("all_move"):
            with torch.no_grad():
                for parameter in model[6].parameters():
                    parameter -= 0.5 * parameter.grad
        return model(x) if habits.get("late") else logits

    return tent_step


def alarm(unit=True, window=None, pooled=True, above=False, empty_classes=False, early=True):
    def collapse_alarm(predictions, num_classes, window_asked, threshold):
        def h(values):
            p = np.bincount(values.ravel(), minlength=num_classes) / values.size
            p = p if empty_classes else p[p > 0]
            with np.errstate(all="ignore"):
                value = -(p * np.log(p)).sum()
            return value / np.log(num_classes) if unit else value

        alarms = []
        for t in range(len(predictions)):
            batches = predictions[max(0, t - (window or window_asked) + 1) : t + 1]
            value = h(batches) if pooled else np.mean([h(batch) for batch in batches])
            ready = early or t + 1 >= window_asked
            alarms.append(bool(ready and (value > threshold if above else value < threshold)))
        return alarms

    return collapse_alarm


WRONG = {
    "norm.batch_statistics": {
        "unbiased": lambda x: (x.mean((0, 2, 3)), x.var((0, 2, 3))),
        "wrong axes": lambda x: (x.mean((2, 3)), x.var((2, 3), unbiased=False)),
        "mean of image variances": mean_of_image_variances,
        "running statistics": running_statistics,
        "standard deviation": lambda x: (x.mean((0, 2, 3)), x.std((0, 2, 3), unbiased=False)),
        "changed in place": centred_in_place,
        "swapped": lambda x: (x.var((0, 2, 3), unbiased=False), x.mean((0, 2, 3))),
    },
    "tent.entropy": {
        "log of an underflowing softmax": underflowing_entropy,
        "base 2": entropy(base=2),
        "mean over classes": entropy(reduce=lambda t: t.mean(1)),
        "mean over the batch": entropy(reduce=lambda t: t.sum(1).mean()),
        "sign": entropy(sign=1),
        "wrong axis": entropy(reduce=lambda t: t.sum(0)),
        "detached": lambda z: entropy()(z.detach()),
        "float": lambda z: 0.5,
    },
    "tent.step": {
        "answer after the update": step(late=True),
        "every parameter moves": step(all_move=True),
        "dropout on": step(mode="train"),
        "source statistics": step(mode="eval"),
        "gradients not cleared": step(zero=False),
        "sum for mean": step(loss=lambda h, z: h.sum()),
        "entropy maximised": step(loss=lambda h, z: -h.mean()),
        "labels invented": step(loss=lambda h, z: F.cross_entropy(z, z.argmax(1))),
        "no update": lambda m, x, o: m(x),
    },
    "tent.alarm": {
        "never": lambda p, k, w, t: [False] * len(p),
        "always (fires on a balanced stream)": lambda p, k, w, t: [True] * len(p),
        "nats against units of ln K": alarm(unit=False),
        "whole history": alarm(window=10**6),
        "last batch only (fires on sorted batches)": alarm(window=1),
        "mean of batch entropies": alarm(pooled=False),
        "above the threshold": alarm(above=True),
        "0 log 0 silences it": alarm(empty_classes=True),
        "waits for a full window": alarm(early=False),
    },
}

RIGHT = {
    "tent.entropy": lambda z: torch.distributions.Categorical(logits=z).entropy(),
    "tent.step": step(),
    "tent.alarm": alarm(),
    "norm.batch_statistics": lambda x: torch.var_mean(x, (0, 2, 3), unbiased=False)[::-1],
}
