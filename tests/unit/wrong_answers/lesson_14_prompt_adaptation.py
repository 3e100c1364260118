"""Wrong answers to the exercises of lesson 14_prompt_adaptation: the mistakes that students really make."""

import math

import torch
import torch.nn.functional as F


def prompt(before=None, rest=True, cut=True, detach=False, twice=False):
    places = {"end": lambda m: m, "middle": lambda m: m // 2, "front": lambda m: 0} | (before or {})

    def build_prompt(start, context, name, rest_, position):
        context = context.detach() if detach else context
        k = places[position](len(context))
        behind = context if twice else context[k:]
        parts = [start, context[:k], name, behind] if cut else [context[:k], start, name, behind]
        return torch.cat([*parts, rest_] if rest else parts)

    return build_prompt


def coop(scale=torch.exp, image=1, text=1, loss=F.cross_entropy, detach=False):
    def coop_loss(i, t, labels, log_scale):
        i = F.normalize(i, dim=image) if image is not None else i
        t = F.normalize(t, dim=text) if text is not None else t
        return loss(scale(log_scale) * i @ (t.detach() if detach else t).T, labels)

    return coop_loss


def on_target(strict=False, guard=True, over="kept", teacher="naive", masked=True, confidence="probability"):
    def target_loss(target, naive, threshold):
        said = {"naive": naive, "target": target}[teacher]
        scores = said.softmax(1) if confidence == "probability" else said
        p, y = scores.max(1)
        mask = (p > threshold if strict else p >= threshold) if masked else torch.ones_like(p).bool()
        losses = F.cross_entropy(target, y, reduction="none") * mask
        count = mask.sum() if over == "kept" else torch.tensor(len(mask)) if over == "batch" else torch.tensor(1)
        return losses.sum() / (count.clamp(min=1) if guard else count)

    return target_loss


def detached_target(target, naive, threshold):
    return on_target()(target.detach(), naive, threshold)


def soft_labels(target, naive, threshold):
    p = naive.softmax(1)
    mask = p.max(1).values >= threshold
    return (F.cross_entropy(target, p, reduction="none") * mask).sum() / mask.sum().clamp(min=1)


def view(order=1, by="entropy", count=int, mean="probability", detach=False, stable=True):
    def view_loss(logits, share):
        p = logits.softmax(1)
        key = -(p * logits.log_softmax(1)).sum(1) if by == "entropy" else -logits.max(1).values
        z = logits[(order * key).argsort()[: count(len(logits) * share)]]
        z = z.detach() if detach else z
        if mean == "entropies":
            return -(z.softmax(1) * z.log_softmax(1)).sum(1).mean()
        if mean == "logits":
            z = z.mean(0, keepdim=True)
        log_p = z.log_softmax(1).logsumexp(0) - math.log(len(z)) if stable else z.softmax(1).mean(0).log()
        return -(log_p.exp() * log_p).sum()

    return view_loss


def vote(affinity=lambda c, beta: torch.exp(-beta * (1 - c)), mean=False):
    def tip_vote(features, keys, labels, num_classes, beta):
        hot = F.one_hot(labels, num_classes).float()
        hot = hot / hot.sum(0).clamp(min=1) if mean else hot
        return affinity(features @ keys.T, beta) @ hot

    return tip_vote


def as_many_classes_as_labels(features, keys, labels, num_classes, beta):
    return torch.exp(-beta * (1 - features @ keys.T)) @ F.one_hot(labels).float()


WRONG = {
    "prompts.build": {
        "always at the end": prompt(before={"middle": lambda m: m, "front": lambda m: m}),
        "front and end exchanged": prompt(before={"end": lambda m: 0, "front": lambda m: m}),
        "the first half is the longer one": prompt(before={"middle": lambda m: m - m // 2}),
        "the rest is lost": prompt(rest=False),
        "context before the start token": prompt(cut=False),
        "the whole context behind the name": prompt(twice=True),
        "detached": prompt(detach=True),
    },
    "prompts.coop_loss": {
        "the logarithm as a factor": coop(scale=lambda s: s),
        "divided by the factor": coop(scale=lambda s: torch.exp(-s)),
        "text of any length": coop(text=None),
        "image of any length": coop(image=None),
        "normalised over the classes": coop(text=0),
        "softmax twice": coop(loss=lambda z, y: F.cross_entropy(z.softmax(1), y)),
        "sum for mean": coop(loss=lambda z, y: F.cross_entropy(z, y, reduction="sum")),
        "likelihood for its logarithm": coop(loss=lambda z, y: -z.softmax(1)[range(len(y)), y].mean()),
        "detached": coop(detach=True),
    },
    "prompts.target_loss": {
        "above, not at, the threshold": on_target(strict=True),
        "0 / 0": on_target(guard=False),
        "mean over the batch": on_target(over="batch"),
        "sum": on_target(over="one"),
        "taught by itself": on_target(teacher="target"),
        "nothing is left out": on_target(masked=False),
        "threshold on the logit": on_target(confidence="logit"),
        "soft labels": soft_labels,
        "detached": detached_target,
    },
    "prompts.view_loss": {
        "the least sure views": view(order=-1),
        "highest logit for lowest entropy": view(by="logit"),
        "rounded up": view(count=math.ceil),
        "mean of the entropies": view(mean="entropies"),
        "mean of the logits": view(mean="logits"),
        "all views": view(count=lambda n: 10**6),
        "underflow": view(stable=False),
        "detached": view(detach=True),
    },
    "prompts.tip_vote": {
        "grows with the distance": vote(lambda c, b: torch.exp(b * (1 - c))),
        "distance forgotten": vote(lambda c, b: torch.exp(b * c)),
        "beta outside of the exponential": vote(lambda c, b: b * torch.exp(-(1 - c))),
        "softmax over the memory": vote(lambda c, b: (b * c).softmax(1)),
        "mean of a class": vote(mean=True),
        "nearest only": vote(lambda c, b: F.one_hot(c.argmax(1), c.shape[1]) * torch.exp(-b * (1 - c))),
        "classes that nobody remembers are lost": as_many_classes_as_labels,
    },
}

RIGHT = {
    "prompts.build": prompt(),
    "prompts.coop_loss": lambda i, t, y, s: F.nll_loss(
        (s.exp() * F.cosine_similarity(i[:, None], t[None], dim=2)).log_softmax(1), y
    ),
    "prompts.target_loss": lambda t, n, a: (
        F.cross_entropy(t[keep], n[keep].argmax(1))
        if (keep := n.softmax(1).amax(1) >= a).any()
        else torch.tensor(0.0)
    ),
    "prompts.view_loss": view(),
    "prompts.tip_vote": lambda f, k, y, n, b: torch.stack(
        [torch.exp(-b * (1 - f @ k[y == c].T)).sum(1) for c in range(n)], dim=1
    ),
}
