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


def pixels(first=True, second=True, sign=-1, safe=True, reduce=lambda h: h):
    """The entropy of yes or no, in parts."""

    def pixel_entropy(logits):
        z = logits[:, 0]
        p, q = z.sigmoid(), (-z).sigmoid()
        log_p, log_q = (F.logsigmoid(z), F.logsigmoid(-z)) if safe else (p.log(), q.log())
        return reduce(sign * (first * p * log_p + second * q * log_q))

    return pixel_entropy


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


def weights(**habits):
    """EATA's weights with one bad habit."""

    def eata_weights(logits, average, e_margin, d_margin):
        z = logits if habits.get("attached") else logits.detach()
        p = z.softmax(1)
        h = -(p * z.log_softmax(1)).sum(1)
        keep = h > e_margin if habits.get("unsure") else h < e_margin
        if average is not None and habits.get("redundancy", True):
            seen = z if habits.get("of_logits") else p
            cosine = F.cosine_similarity(average[None], seen, dim=1)
            similar = (seen * average).sum(1) if habits.get("no_norm") else cosine.abs()
            keep &= similar > d_margin if habits.get("alike") else similar < d_margin
        elif average is None and habits.get("nobody_first"):
            keep &= False
        weight = torch.ones_like(h) if habits.get("unweighted") else (e_margin - h).exp()
        weight = (h - e_margin).exp() if habits.get("upside_down") else weight
        return weight[keep] if habits.get("short") else keep * weight

    return eata_weights


def sharpness(**habits):
    """A SAR step with one bad habit."""

    def sar_step(model, x, optimizer, rho, e_margin):
        theta = [p for group in optimizer.param_groups for p in group["params"]]

        def h():
            logits = model(x)
            return logits, -(logits.softmax(1) * logits.log_softmax(1)).sum(1)

        logits, first = h()
        reliable = first < e_margin if habits.get("filter", True) else first < 99
        if not reliable.any() and not habits.get("unguarded"):
            return logits.detach()
        g = torch.autograd.grad(first[reliable].mean(), theta)
        length = torch.stack([part.norm() for part in g]).norm()
        start = [p.detach().clone() for p in theta]
        with torch.no_grad():
            for p, part in zip(theta, g):
                norm = part.norm() if habits.get("each") else 1 if habits.get("no_norm") else length
                p += (-rho if habits.get("down") else rho) * part / norm
        late, second = h()
        still = reliable & (second < e_margin) if habits.get("second_filter", True) else reliable
        still = second < e_margin if habits.get("only_after") else still
        if habits.get("zero", True):
            optimizer.zero_grad()
        (second if habits.get("all") else second[still]).mean().backward()  # of nobody: NaN, its gradient 0
        with torch.no_grad():
            for p, value, part in zip(theta, start, g):
                if habits.get("back", True):
                    p.copy_(value)
                if habits.get("old_gradient"):
                    p.grad = part.clone()
        optimizer.step()
        return late.detach() if habits.get("late") else logits.detach()

    return sar_step


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
    "tent.pixel_entropy": {
        "softmax of one channel": lambda z: -(z.softmax(1) * z.log_softmax(1)).sum(1),
        "inside only": pixels(second=False),
        "outside only": pixels(first=False),
        "log of an underflowing sigmoid": pixels(safe=False),
        "sign": pixels(sign=1),
        "mean over the image": pixels(reduce=lambda h: h.mean(dim=(1, 2))),
        "mean over everything": pixels(reduce=lambda h: h.mean()),
        "a channel too many": pixels(reduce=lambda h: h[:, None]),
        "bits": pixels(reduce=lambda h: h / math.log(2)),
        "clamped, so that sure pixels have no gradient and some entropy": lambda z: F.binary_cross_entropy(
            z[:, 0].sigmoid().clamp(1e-3, 1 - 1e-3), z[:, 0].sigmoid().clamp(1e-3, 1 - 1e-3), reduction="none"
        ),
        "cross-entropy with the rounded answer": lambda z: F.binary_cross_entropy_with_logits(
            z[:, 0], (z[:, 0] > 0).float(), reduction="none"
        ),
        "detached": lambda z: pixels()(z.detach()),
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
    "eata.weights": {
        "gradient through the weights": weights(attached=True),
        "keeps the unsure": weights(unsure=True),
        "no redundancy filter": weights(redundancy=False),
        "keeps those like the average": weights(alike=True),
        "cosine of logits": weights(of_logits=True),
        "product, not cosine": weights(no_norm=True),
        "nobody in the first batch": weights(nobody_first=True),
        "all weigh 1": weights(unweighted=True),
        "weight upside down": weights(upside_down=True),
        "only the kept are returned": weights(short=True),
    },
    "sar.step": {
        "never comes back": sharpness(back=False),
        "climbs down": sharpness(down=True),
        "descends along the first gradient": sharpness(old_gradient=True),
        "one length for each parameter": sharpness(each=True),
        "gradient not normed": sharpness(no_norm=True),
        "unreliable ones count": sharpness(filter=False, second_filter=False),
        "no second filter": sharpness(second_filter=False),
        "second mean over all": sharpness(all=True),
        "second mean over those sure after the climb only": sharpness(only_after=True),
        "0 / 0 where nobody is reliable": sharpness(unguarded=True),
        "gradients not cleared": sharpness(zero=False),
        "answer from the top": sharpness(late=True),
        "plain Tent": lambda m, x, o, r, e: step()(m, x, o),
    },
}

RIGHT = {
    "tent.entropy": lambda z: torch.distributions.Categorical(logits=z).entropy(),
    "tent.pixel_entropy": pixels(),
    "tent.step": step(),
    "tent.alarm": alarm(),
    "eata.weights": weights(),
    "sar.step": sharpness(),
    "norm.batch_statistics": lambda x: torch.var_mean(x, (0, 2, 3), unbiased=False)[::-1],
}
