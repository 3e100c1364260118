"""CLIP's loss against numbers from open_clip (golden case 11).

SEMINAR_GOLDEN=<folder> runs the same tests on other files of the same layout.
"""

import numpy as np
import pytest
import torch

from seminar_utils.pretraining.clip import clip_loss
from seminar_utils.teaching.golden import golden


@pytest.fixture(scope="module")
def data():
    return golden("clip_loss")


def leaves(data):
    """Image features, text features and the log of the scale, as leaves that ask for gradients."""
    keys = ("in:image_features", "in:text_features", "in:log_logit_scale")
    return [torch.from_numpy(np.array(data[key])).requires_grad_() for key in keys]


def close(got, expected):
    np.testing.assert_allclose(got.detach().numpy(), expected, atol=1e-10, rtol=0)


def test_clip_loss_and_its_gradients_agree_with_open_clip(data):
    image, text, log_scale = leaves(data)
    loss = clip_loss(image, text, log_scale)
    close(loss, data["out:loss"])
    loss.backward()
    close(image.grad, data["out:grad_image"])
    close(text.grad, data["out:grad_text"])
    close(log_scale.grad, data["out:grad_log_logit_scale"])


def test_the_loss_is_that_of_the_official_logits(data):
    by_image, by_text = (torch.from_numpy(data[f"out:logits_per_{side}"]) for side in ("image", "text"))
    image, text, log_scale = leaves(data)
    close(log_scale.exp() * image @ text.T, by_image)
    rows, columns = (-torch.log_softmax(logits, dim=1).diagonal().mean() for logits in (by_image, by_text))
    close(clip_loss(image, text, log_scale), ((rows + columns) / 2).numpy())


def test_a_bias_of_all_logits_would_change_nothing(data):
    """What open_clip offers for another loss (SigLIP) has no place in a softmax."""
    logits = torch.from_numpy(data["out:logits_per_image"]) + torch.from_numpy(np.array(data["in:logit_bias"]))
    labels = torch.arange(len(logits))
    cross_entropy = torch.nn.functional.cross_entropy
    close((cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2, data["out:loss_with_logit_bias"])
    close(clip_loss(*leaves(data)), data["out:loss_with_logit_bias"])
