"""Wrong answers to the exercises of lesson 06_mae: the mistakes that students really make."""

import math

import torch


def masking(
    descending=False,
    once=False,
    shuffled_mask=False,
    inverted=False,
    one_for_all=False,
    sort_kept=False,
    whole=int,
    dtype=None,
):
    def random_masking(tokens, mask_ratio, noise):
        keep = whole(tokens.shape[1] * (1 - mask_ratio))
        noise = noise[:1].expand_as(noise) if one_for_all else noise
        order = noise.argsort(dim=1, descending=descending)
        ids_restore = order if once else order.argsort(dim=1)
        mask = (ids_restore >= keep).to(dtype or tokens.dtype)
        if shuffled_mask:
            mask = torch.ones_like(mask)
            mask[:, :keep] = 0
        first = order[:, :keep].sort(dim=1).values if sort_kept else order[:, :keep]
        kept = tokens.gather(1, first[:, :, None].expand(-1, -1, tokens.shape[2]))
        return kept, 1 - mask if inverted else mask, ids_restore

    return random_masking


def keeps_what_it_should_hide(tokens, mask_ratio, noise):
    return masking()(tokens, 1 - mask_ratio, noise)


def masking_by_scatter(tokens, mask_ratio, noise):
    batch, n, _ = tokens.shape
    order = torch.sort(noise, dim=1).indices
    keep = math.floor(n * (1 - mask_ratio))
    mask = torch.ones(batch, n, dtype=tokens.dtype).scatter(1, order[:, :keep], 0.0)
    places = torch.arange(n).expand(batch, n)
    ids_restore = torch.empty_like(order).scatter(1, order, places)
    return tokens[torch.arange(batch)[:, None], order[:, :keep]], mask, ids_restore


def listed(visible, mask_token, n):
    return torch.cat([visible, mask_token.expand(len(visible), n - visible.shape[1], -1)], 1)


def not_put_back(visible, mask_token, ids_restore):
    return listed(visible, mask_token, ids_restore.shape[1])


def the_other_way(visible, mask_token, ids_restore):
    tokens = listed(visible, mask_token, ids_restore.shape[1])
    return tokens.gather(1, ids_restore.argsort(1)[:, :, None].expand_as(tokens))


def written_instead_of_read(visible, mask_token, ids_restore):
    tokens = listed(visible, mask_token, ids_restore.shape[1])
    return torch.zeros_like(tokens).scatter(1, ids_restore[:, :, None].expand_as(tokens), tokens)


def hidden_first(visible, mask_token, ids_restore):
    missing = ids_restore.shape[1] - visible.shape[1]
    tokens = torch.cat([mask_token.expand(len(visible), missing, -1), visible], 1)
    return tokens.gather(1, ids_restore[:, :, None].expand_as(tokens))


def first_image_s_order(visible, mask_token, ids_restore):
    return listed(visible, mask_token, ids_restore.shape[1])[:, ids_restore[0]]


def zeros_for_hidden(visible, mask_token, ids_restore):
    return unshuffle_by_index(visible, torch.zeros_like(mask_token), ids_restore)


def unshuffle_by_index(visible, mask_token, ids_restore):
    tokens = listed(visible, mask_token, ids_restore.shape[1])
    return torch.stack([row[order] for row, order in zip(tokens, ids_restore)])


EPS = {
    "variance": lambda var: (var + 1e-6).sqrt(),
    "root": lambda var: var.sqrt() + 1e-3,
    "same beside the root": lambda var: var.sqrt() + 1e-6,
    "none": lambda var: var.sqrt(),
}


def loss(which="hidden", unbiased=True, eps="variance", normalise=True, divide="hidden", pixels="mean", axis=-1):
    def patch_loss(pred, target, mask):
        if normalise:
            mean = target.mean(axis, keepdim=True)
            var = target.var(axis, keepdim=True, unbiased=unbiased)
            target = (target - mean) / EPS[eps](var)
        error = (pred - target).square()
        error = error.sum(-1) if pixels == "sum" else error.mean(-1)
        weight = {"hidden": mask, "visible": 1 - mask, "all": torch.ones_like(mask)}[which]
        if divide == "image by image":
            return ((error * weight).sum(1) / weight.sum(1)).mean()
        return (error * weight).sum() / (weight.sum() if divide == "hidden" else weight.numel())

    return patch_loss


def loss_by_selection(pred, target, mask):
    pred, target = pred[mask.bool()], target[mask.bool()]
    centred = target - target.mean(1, keepdim=True)
    variance = centred.pow(2).sum(1, keepdim=True) / (target.shape[1] - 1)
    return torch.mean((pred - centred / torch.sqrt(variance + 1e-6)) ** 2)


WRONG = {
    "mae.num_visible": {
        "the hidden ones": lambda n, r: int(n * r),
        "rounded up": lambda n, r: math.ceil(n * (1 - r)),
        "hidden ones cut off instead": lambda n, r: n - int(n * r),
        "hidden ones rounded": lambda n, r: n - int(n * r + 0.5),
        "rounded": lambda n, r: round(n * (1 - r)),
        "no whole number": lambda n, r: n * (1 - r),
    },
    "mae.random_masking": {
        "keeps the largest noise": masking(descending=True),
        "sorted once": masking(once=True),
        "mask in the order of the noise": masking(shuffled_mask=True),
        "1 = visible": masking(inverted=True),
        "one mask for the batch": masking(one_for_all=True),
        "kept ones sorted, the way back not": masking(sort_kept=True),
        "rounded": masking(whole=round),
        "always float32": masking(dtype=torch.float32),
        "keeps what it should hide": keeps_what_it_should_hide,
        "cut off from the tokens": lambda t, r, n: masking()(t.detach(), r, n),
    },
    "mae.unshuffle": {
        "not put back": not_put_back,
        "the other way": the_other_way,
        "written instead of read": written_instead_of_read,
        "hidden ones first": hidden_first,
        "the first image's order": first_image_s_order,
        "zeros for hidden": zeros_for_hidden,
        "mask token cut off": lambda v, m, i: unshuffle_by_index(v, m.detach(), i),
    },
    "mae.patch_loss": {
        "all patches": loss(which="all"),
        "visible patches": loss(which="visible"),
        "biased variance": loss(unbiased=False),
        "epsilon beside the root": loss(eps="root"),
        "1e-6 beside the root": loss(eps="same beside the root"),
        "no epsilon": loss(eps="none"),
        "mean of the images' means": loss(divide="image by image"),
        "not normalised": loss(normalise=False),
        "divided by all patches": loss(divide="all"),
        "sum over pixels": loss(pixels="sum"),
        "normalised over the patches": loss(axis=1),
        "cut off from the prediction": lambda p, t, m: loss()(p.detach(), t, m),
    },
}

RIGHT = {
    "mae.num_visible": lambda n, r: math.floor(n * (1 - r)),
    "mae.random_masking": masking_by_scatter,
    "mae.unshuffle": unshuffle_by_index,
    "mae.patch_loss": loss_by_selection,
}
