"""Wrong answers to the exercises of lesson 07_segment_anything: the mistakes that students really make."""

import math

import torch


def box(swapped=False, exclusive=False, widths=False, first_piece=False):
    def box_from_mask(mask):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        if first_piece:  # stops where the first row of pixels ends
            here = rows <= rows.min() + 1
            rows, columns = rows[here], columns[here]
        x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + exclusive, rows.max() + exclusive
        corners = [y0, x0, y1, x1] if swapped else [x0, y0, x1, y1]
        corners = [x0, y0, x1 - x0 + 1, y1 - y0 + 1] if widths else corners
        return torch.stack(corners).float()

    return box_from_mask


def box_by_projection(mask):
    columns, rows = mask.any(dim=0), mask.any(dim=1)
    xs, ys = torch.arange(mask.shape[1])[columns], torch.arange(mask.shape[0])[rows]
    return torch.tensor([xs[0], ys[0], xs[-1], ys[-1]], dtype=torch.float32)


def waves(stretch=True, pi=2 * math.pi, cosine_first=False, interleaved=False, turned=False):
    def fourier_features(places, matrix):
        places = places.flip(-1) if turned else places
        angles = pi * ((2 * places - 1 if stretch else places) @ matrix)
        parts = [angles.cos(), angles.sin()] if cosine_first else [angles.sin(), angles.cos()]
        return torch.stack(parts, dim=-1).flatten(-2) if interleaved else torch.cat(parts, dim=-1)

    return fourier_features


def waves_written_out(places, matrix):
    x, y = 2 * places[..., :1] - 1, 2 * places[..., 1:] - 1
    angles = 2 * math.pi * (x * matrix[0] + y * matrix[1])
    return torch.cat((torch.sin(angles), torch.cos(angles)), -1)


def attention(scale="head", axis=-1, split="channels", plain_exp=False):
    def cross_attention(q, k, v, num_heads):
        P, N, D = q.shape
        d = D // num_heads
        if split == "channels":
            q, k, v = (x.unflatten(2, (num_heads, d)).transpose(1, 2) for x in (q, k, v))
        elif split == "view":  # heads get pieces of tokens instead of pieces of channels
            q, k, v = (x.reshape(P, num_heads, -1, d) for x in (q, k, v))
        else:
            q, k, v = (x[:, None] for x in (q, k, v))
        scores = q @ k.transpose(-2, -1) / {"head": d**0.5, "model": D**0.5, "none": 1.0}[scale]
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True) if plain_exp else scores.softmax(axis)
        mixed = weights @ v
        return mixed.reshape(P, N, D) if split == "view" else mixed.transpose(1, 2).flatten(2)

    return cross_attention


def attention_head_by_head(q, k, v, num_heads):
    answers = []
    for qs, ks, vs in zip(*(x.chunk(num_heads, dim=-1) for x in (q, k, v))):
        weights = torch.einsum("pnd,pmd->pnm", qs, ks).div(math.sqrt(qs.shape[-1])).softmax(-1)
        answers.append(weights @ vs)
    return torch.cat(answers, dim=-1)


def dice(
    hard=False, squash=True, smooth=1.0, union=False, squared=False, over=(-2, -1), mean=False, one_minus=True
):
    def dice_loss(logits, target):
        p = (logits > 0).float() if hard else logits.sigmoid() if squash else logits
        both = (p * target).sum(over)
        each = (p**2 if squared else p).sum(over) + target.expand_as(p).sum(over)
        value = (both + smooth) / (each - both + smooth) if union else (2 * both + smooth) / (each + smooth)
        loss = 1 - value if one_minus else value
        return loss.mean() if mean else loss

    return dice_loss


def dice_by_flattening(logits, target):
    p, t = torch.sigmoid(logits).flatten(2), target.flatten(2)
    both = torch.einsum("pkn,pn->pk", p, t[:, 0])
    return (p.sum(-1) + t.sum(-1) - 2 * both) / (p.sum(-1) + t.sum(-1) + 1)


def trusted_by_loop(logits, iou):
    return torch.stack([masks[int(guess.argmax())] > 0 for masks, guess in zip(logits, iou)])


WRONG = {
    "sam.box_from_mask": {
        "rows before columns": box(swapped=True),
        "one beyond the last pixel": box(exclusive=True),
        "width and height": box(widths=True),
        "the first piece only": box(first_piece=True),
    },
    "sam.fourier_features": {
        "not stretched": waves(stretch=False),
        "pi once": waves(pi=math.pi),
        "degrees of nothing": waves(pi=1.0),
        "cosines first": waves(cosine_first=True),
        "sine and cosine in turn": waves(interleaved=True),
        "y before x": waves(turned=True),
    },
    "sam.cross_attention": {
        "scaled by the whole width": attention(scale="model"),
        "not scaled": attention(scale="none"),
        "softmax over the tokens": attention(axis=-2),
        "heads by view": attention(split="view"),
        "one head": attention(split="none"),
        "plain exp": attention(plain_exp=True),
        "keys and values changed": lambda q, k, v, n: attention()(q, v, k, n),
        "cut off": lambda q, k, v, n: attention()(q, k.detach(), v, n),
    },
    "sam.dice_loss": {
        "thresholded": dice(hard=True),
        "logits for probabilities": dice(squash=False),
        "no smoothing": dice(smooth=0.0),
        "overlap over union": dice(union=True),
        "squared": dice(squared=True),
        "over the masks as well": dice(over=(-3, -2, -1)),
        "one number": dice(mean=True),
        "Dice, not its loss": dice(one_minus=False),
    },
    "sam.trusted_mask": {
        "the least trusted": lambda logits, iou: trusted_by_loop(logits, -iou),
        "the first": lambda logits, iou: logits[:, 0] > 0,
        "one for all prompts": lambda logits, iou: logits[:, int(iou.mean(0).argmax())] > 0,
        "the largest": lambda logits, iou: trusted_by_loop(logits, (logits > 0).float().mean((-2, -1))),
        "logits": lambda logits, iou: logits[torch.arange(len(iou)), iou.argmax(1)],
        "above one half": lambda logits, iou: logits[torch.arange(len(iou)), iou.argmax(1)] > 0.5,
        "over the prompts": lambda logits, iou: logits[iou.argmax(0) % len(logits), 0] > 0,
    },
}

RIGHT = {
    "sam.box_from_mask": box_by_projection,
    "sam.fourier_features": waves_written_out,
    "sam.cross_attention": attention_head_by_head,
    "sam.dice_loss": dice_by_flattening,
    "sam.trusted_mask": trusted_by_loop,
}
