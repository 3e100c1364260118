"""Wrong answers to the exercises of lesson 02_vision_transformer: the mistakes that students really make."""

import math

import torch
import torch.nn.functional as F


def cut(permutation):
    def patchify(x, p):
        b, c, h, w = x.shape
        return x.reshape(b, c, h // p, p, w // p, p).permute(permutation).reshape(b, -1, c * p * p)

    return patchify


def positions_on_patches_only(x_patches, cls_token, pos_embed):
    return torch.cat([cls_token.expand(len(x_patches), -1, -1), x_patches + pos_embed[:, 1:]], 1)


def attend(scale=True, dim=-1, by_hand=False):
    def attention(q, k, v):
        scores = q @ k.transpose(-2, -1)
        scores = scores / (math.sqrt(q.shape[-1]) if scale is True else scale)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True) if by_hand else scores.softmax(dim)
        return weights @ v

    return attention


WRONG = {
    "vit.num_tokens": {
        "no class token": lambda i, p: (i // p) ** 2,
        "one direction": lambda i, p: i // p + 1,
        "float": lambda i, p: (i / p) ** 2 + 1,
    },
    "vit.patchify": {
        "reshape alone": lambda x, p: x.reshape(len(x), -1, x.shape[1] * p * p),
        "channels last in a patch": cut((0, 2, 4, 3, 5, 1)),
        "patches column by column": cut((0, 4, 2, 1, 3, 5)),
        "transposed patches": cut((0, 2, 4, 1, 5, 3)),
        "unfold not transposed": lambda x, p: F.unfold(x, p, stride=p),
    },
    "vit.sequence": {
        "class token last": lambda x, c, e: torch.cat([x, c.expand(len(x), -1, -1)], 1) + e,
        "class token without position": positions_on_patches_only,
        "not expanded": lambda x, c, e: torch.cat([c, x], 1) + e,
        "no positions": lambda x, c, e: torch.cat([c.expand(len(x), -1, -1), x], 1),
        "in place": lambda x, c, e: torch.cat([c.expand(len(x), -1, -1), x.add_(e[:, 1:])], 1) + e,
        "class token cut off": lambda x, c, e: torch.cat([c.detach().expand(len(x), -1, -1), x], 1) + e,
    },
    "vit.attention": {
        "not scaled": attend(scale=1.0),
        "softmax over queries": attend(dim=-2),
        "softmax over heads": attend(dim=1),
        "overflow": attend(by_hand=True),
        "values not used": lambda q, k, v: (q @ k.transpose(-2, -1)).softmax(-1),
        "keys cut off": lambda q, k, v: attend()(q, k.detach(), v),
    },
}

RIGHT = {
    "vit.patchify": lambda x, p: F.unfold(x, p, stride=p).transpose(1, 2),
    "vit.attention": F.scaled_dot_product_attention,
}
