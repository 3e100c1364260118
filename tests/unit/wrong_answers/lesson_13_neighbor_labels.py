"""Wrong answers to the exercises of lesson 13_neighbor_labels: the mistakes that students really make."""

import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence


def prototypes(weigh=lambda p, floor: p + floor, divide=lambda w: w.sum(0)[:, None], stop=False):
    def class_prototypes(features, probs, floor):
        weight = weigh(probs, floor)
        return (weight.T @ (features.detach() if stop else features)) / divide(weight)

    return class_prototypes


def floor_below_only(features, probs, floor):
    return (probs.T @ features) / (probs.sum(0)[:, None] + floor)


def kl(reverse=False, variances=False, half=True, log_sign=1, over_classes="mean", over_numbers="sum"):
    def gaussian_kl(mean_q, std_q, mean_p, std_p):
        if reverse:
            mean_q, std_q, mean_p, std_p = mean_p, std_p, mean_q, std_q
        if variances:
            std_q, std_p = std_q**2, std_p**2
        ratio, gap = std_q / std_p, (mean_q - mean_p) / std_p
        each = (0.5 if half else 1.0) * (ratio**2 + gap**2 - 1) - log_sign * ratio.log()
        return getattr(getattr(each, over_numbers)(1), over_classes)()

    return gaussian_kl


def step(late=True, zero=True, combine="mean", mode=None, detach=True, soft=lambda t: t, first=False, loss=None):
    def label_step(model, x, targets, optimizer):
        if mode:
            getattr(model, mode)()
        logits = model(x)
        targets = targets.detach() if detach else targets
        chosen = targets[:1] if first else targets
        cost = loss or F.cross_entropy
        total = getattr(torch.stack([cost(logits, soft(target)) for target in chosen]), combine)()
        if zero:
            optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if not late:
            return logits.detach()
        with torch.no_grad():
            return model(x)

    return label_step


def everything_moves(model, x, targets, optimizer):
    return step()(model, x, targets, torch.optim.SGD(model.parameters(), lr=0.5))


def one_hot(target):
    return F.one_hot(target.argmax(1), target.shape[1]).to(target)


def reverse_cross_entropy(logits, target):
    return -(logits.softmax(1) * target.log()).sum(1).mean()


def entropy(p, axis=-1):
    return -torch.special.xlogy(p, p).sum(axis)


def doubt(total=None, inside=None, between=lambda total, inside: total - inside, mean=lambda d: d.mean(0)):
    def answer(draws):
        label = mean(draws)
        whole = (total or entropy)(label)
        return label, whole, between(whole, (inside or (lambda d: entropy(d).mean(0)))(draws))

    return answer


def with_nan(draws):
    mean = draws.mean(0)
    inside = -(draws * draws.log()).sum(-1).mean(0)
    total = -(mean * mean.log()).sum(-1)
    return mean, total, total - inside


def geometric_mean(draws):
    return draws.clamp(min=1e-12).log().mean(0).softmax(-1)


WRONG = {
    "neighbors.prototypes": {
        "divided by the batch": prototypes(divide=len),
        "not divided": prototypes(divide=lambda w: 1.0),
        "most likely class only": prototypes(
            weigh=lambda p, floor: F.one_hot(p.argmax(1), p.shape[1]).float() + floor
        ),
        "no floor": prototypes(weigh=lambda p, floor: p),
        "floor below only": floor_below_only,
        "at least the floor": prototypes(weigh=lambda p, floor: p.clamp(min=floor)),
        "softmax over the batch": prototypes(weigh=lambda p, floor: (p + floor).softmax(0)),
        "transposed": lambda f, p, floor: prototypes()(f, p, floor).T,
        "detached": prototypes(stop=True),
    },
    "neighbors.draw": {
        "the mean": lambda m, s, e: m.clone(),
        "log taken for the deviation": lambda m, s, e: m + s * e,
        "variance": lambda m, s, e: m + (2 * s).exp() * e,
        "log of the variance": lambda m, s, e: m + (s / 2).exp() * e,
        "noise of its own": lambda m, s, e: m + s.exp() * torch.randn(m.shape),
        "torch.normal": lambda m, s, e: torch.normal(m.detach(), s.detach().exp()),
        "cut off": lambda m, s, e: (m + s.exp() * e).detach(),
        "deviation cut off": lambda m, s, e: m + s.detach().exp() * e,
        "sign": lambda m, s, e: m - s.exp() * e,
    },
    "neighbors.kl": {
        "the other way round": kl(reverse=True),
        "variances for deviations": kl(variances=True),
        "half forgotten": kl(half=False),
        "sign of the logarithm": kl(log_sign=-1),
        "summed over the classes": kl(over_classes="sum"),
        "averaged over the numbers": kl(over_numbers="mean"),
        "squared distance of the means": lambda mq, sq, mp, sp: 0.5 * ((mq - mp) ** 2).sum(1).mean(),
        "the prior cut off": lambda mq, sq, mp, sp: kl()(mq, sq, mp.detach(), sp.detach()),
    },
    "neighbors.step": {
        "answer before the step": step(late=False),
        "gradients not cleared": step(zero=False),
        "losses summed": step(combine="sum"),
        "first draw only": step(first=True),
        "labels made hard": step(soft=one_hot),
        "dropout on": step(mode="train"),
        "labels learn too": step(detach=False),
        "everything moves": everything_moves,
        "cross-entropy the other way round": step(loss=reverse_cross_entropy),
        "no update": lambda m, x, t, o: m(x).detach(),
    },
    "neighbors.doubt": {
        "0 log 0": with_nan,
        "averaged over patients": doubt(mean=lambda d: d.mean(1)),
        "entropy summed over patients": doubt(total=lambda p: entropy(p, 0)),
        "the wrong way round": doubt(between=lambda t, i: i - t),
        "the mean entropy for the whole": lambda d: (d.mean(0), entropy(d).mean(0), d[:, :, 0] * 0),
        "base 2": doubt(total=lambda p: entropy(p) / torch.tensor(2.0).log()),
        "variance of the draws": lambda d: (d.mean(0), entropy(d.mean(0)), d.var(0).sum(-1)),
        "geometric mean": doubt(mean=geometric_mean),
    },
}

RIGHT = {
    "neighbors.prototypes": lambda f, p, floor: torch.stack(
        [((p[:, k, None] + floor) * f).sum(0) / (p[:, k] + floor).sum() for k in range(p.shape[1])]
    ),
    "neighbors.draw": lambda m, s, e: torch.addcmul(m, s.exp(), e),
    "neighbors.kl": lambda mq, sq, mp, sp: kl_divergence(Normal(mq, sq), Normal(mp, sp)).sum(1).mean(),
    "neighbors.step": step(),
    "neighbors.doubt": doubt(total=lambda p: torch.special.entr(p).sum(-1)),
}
