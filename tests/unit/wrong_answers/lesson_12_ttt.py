"""Wrong answers to the exercises of lesson 12_ttt: the mistakes that students really make."""

import torch
import torch.nn.functional as F


def rotations(dims=(2, 3), sign=1, labels=None, joined=True):
    """All four positions with one thing wrong."""

    def all_rotations(x):
        turns = torch.arange(4).repeat_interleave(len(x)) if labels is None else labels(x)
        turned = [torch.rot90(x, sign * k, dims) for k in range(4)]
        return (torch.cat(turned) if joined else torch.stack(turned, 1).flatten(0, 1)), turns

    return all_rotations


def step(**habits):
    """A step of TTT with one bad habit."""

    def ttt_step(model, x, optimizer):
        before = model(x).detach()
        if "mode" in habits:
            getattr(model, habits["mode"])()
        turned, turns = rotations()(x)
        if habits.get("upright"):
            turned, turns = x, torch.zeros(len(x), dtype=torch.long)
        outputs = model(turned, auxiliary=True)[0]
        loss = F.cross_entropy(outputs, turns, reduction=habits.get("reduction", "mean"))
        if habits.get("zero", True):
            optimizer.zero_grad()
        (habits.get("sign", 1) * loss).backward()
        if habits.get("update", True):
            optimizer.step()
        if habits.get("head"):
            with torch.no_grad():
                for parameter in model.head.parameters():
                    parameter -= 0.5 * parameter.grad
        if habits.get("early"):
            return before
        with torch.no_grad():
            return model(turned, auxiliary=True)[0] if habits.get("wrong_head") else model(x)

    return ttt_step


def flat(loss, parameters):
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]


def cosine(how):
    """Both gradients, then `how` puts the lists of pieces together."""
    return lambda main, auxiliary, parameters: how(flat(main, parameters), flat(auxiliary, parameters))


def of_all(g, h):
    g, h = (torch.cat([part.flatten() for part in parts]) for parts in (g, h))
    return F.cosine_similarity(g, h, dim=0)


def dot_product(g, h):
    return sum((a * b).sum() for a, b in zip(g, h))


def by_backward(main, auxiliary, parameters):
    found = []
    for loss in (main, auxiliary):
        for p in parameters:
            p.grad = None
        loss.backward(retain_graph=True)
        found.append([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
    return of_all(*found)


def added_up(main, auxiliary, parameters):
    main.backward(retain_graph=True)
    one = [p.grad.clone() for p in parameters]
    auxiliary.backward()
    two = [p.grad.clone() for p in parameters]
    for p in parameters:
        p.grad = None
    return of_all(one, two)


def distance(centre=True, ddof=1, root=False, scale=lambda d: 4 * d * d, mean=lambda s: s.mean(), detach=False):
    """Distances of moments with one thing wrong."""

    def moment_distance(features, source_mean, source_cov):
        f = features.detach() if detach else features
        c = f - f.mean(0) if centre else f
        gap = (c.T @ c / (len(f) - ddof) - source_cov).square().sum() / scale(f.shape[1])
        return (gap.sqrt() if root else gap), mean((f.mean(0) - source_mean).square())

    return moment_distance


def queue(live=False, detach=True, wrap=True, move=True, learn=True, past=True, newest=False, write=True):
    """The queue with one bad habit; `live` is the official code's."""

    def use_and_remember(storage, pointer, batch):
        kept = storage if live else storage.clone()
        rows = (pointer + torch.arange(len(batch))) % len(storage)
        if not wrap:
            rows = (pointer + torch.arange(len(batch))).clamp(max=len(storage) - 1)
        if newest:
            rows = (rows - len(batch)) % len(storage)
        if write:
            storage[rows] = batch.detach() if detach else batch
        current = batch if learn else batch.detach()
        together = torch.cat([current, kept]) if past else current
        return together, (pointer + len(batch)) % len(storage) if move else pointer

    return use_and_remember


WRONG = {
    "ttt.rotations": {
        "channels turned": rotations(dims=(1, 2)),
        "clockwise": rotations(sign=-1),
        "labels in the order of images": rotations(labels=lambda x: torch.arange(4).repeat(len(x))),
        "images in the order of labels": rotations(joined=False),
        "labels as floats of degrees": rotations(
            labels=lambda x: 90.0 * torch.arange(4).repeat_interleave(len(x))
        ),
        "half turns": lambda x: (
            torch.cat([torch.rot90(x, 2 * k, (2, 3)) for k in range(4)]),
            torch.arange(4).repeat_interleave(len(x)),
        ),
    },
    "ttt.step": {
        "answer before the update": step(early=True),
        "the head moves too": step(head=True),
        "dropout on": step(mode="train"),
        "stored statistics": step(mode="eval"),
        "gradients not cleared": step(zero=False),
        "sum for mean": step(reduction="sum"),
        "only upright images": step(upright=True),
        "climbs": step(sign=-1),
        "no update": step(update=False),
        "answers the rotation": step(wrong_head=True),
    },
    "ttt.gradient_cosine": {
        "dot product": cosine(dot_product),
        "mean of the pieces": cosine(
            lambda g, h: torch.stack(
                [F.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in zip(g, h)]
            ).mean()
        ),
        "first parameter only": cosine(lambda g, h: of_all(g[:1], h[:1])),
        "absolute": cosine(lambda g, h: of_all(g, h).abs()),
        "distance instead": cosine(lambda g, h: 1 - of_all(g, h)),
        "leaves gradients": by_backward,
        "second on top of the first": added_up,
    },
    "ttt.moment_distance": {
        "not centred": distance(centre=False),
        "biased": distance(ddof=0),
        "root": distance(root=True),
        "not divided": distance(scale=lambda d: 1),
        "divided by 4 d": distance(scale=lambda d: 4 * d),
        "sum over the dimensions": distance(mean=lambda s: s.sum()),
        "norm of the means": distance(mean=lambda s: s.sum().sqrt()),
        "detached": distance(detach=True),
        "swapped": lambda f, m, c: distance()(f, m, c)[::-1],
    },
    "ttt.queue": {
        "the live tensor (official)": queue(live=True),
        "graph kept": queue(detach=False),
        "stops at the end": queue(wrap=False),
        "pointer stays": queue(move=False),
        "nothing learnt": queue(learn=False),
        "no past": queue(past=False),
        "over the newest": queue(newest=True),
        "never written": queue(write=False),
    },
}

RIGHT = {
    "ttt.rotations": rotations(),
    "ttt.step": step(),
    "ttt.gradient_cosine": cosine(of_all),
    "ttt.moment_distance": lambda f, m, c: (
        (f.T.cov() - c).square().mean() / 4,
        F.mse_loss(f.mean(0), m),
    ),
    "ttt.queue": queue(),
}
