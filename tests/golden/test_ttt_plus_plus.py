"""TTT++'s parts against numbers from the official functions (golden case 8), the queue bug included.

SEMINAR_GOLDEN=<folder> runs the same tests on other files of the same layout.
"""

import numpy as np
import pytest
import torch

from seminar_utils.adaptation.feature_alignment import (
    FeatureQueue,
    SourceMoments,
    coral,
    covariance,
    linear_mmd,
)
from seminar_utils.models.simclr import contrastive_loss
from seminar_utils.teaching.golden import golden

CASE = "tttpp_alignment"


@pytest.fixture(scope="module")
def data():
    return golden(CASE)


def close(got, expected, atol=1e-8):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
    np.testing.assert_allclose(got, expected, atol=atol, rtol=0)


def source(data):
    return [torch.from_numpy(batch) for batch in data["in:source_batches"]]


def official_moments(data):
    return SourceMoments.of(source(data), drop_first=True)


def pushes():
    return sorted({int(k.split(":")[1][4:]) for k in golden(CASE) if k.startswith("out:push")})


def test_moments_and_distances(data):
    first, second = source(data)[:2]
    close(covariance(first), data["out:covariance_of_batch0"])
    close(coral(covariance(first), covariance(second)), data["out:coral_batch0_vs_batch1"])
    close(linear_mmd(first.mean(0), second.mean(0)), data["out:linear_mmd_batch0_vs_batch1"])


def test_offline_step(data):
    found = official_moments(data)
    close(found.cov, data["out:offline:cov"])
    close(found.mean, data["out:offline:mu"])
    close(found.mean_coral, data["out:offline:mean_coral"])
    close(found.mean_mmd, data["out:offline:mean_mmd"])
    scale, factor = float(data["hp:scale"]), float(data["hp:mmd_scale_factor"])
    close(scale / found.mean_coral, data["out:scale_coral"])
    close(scale / found.mean_mmd * factor, data["out:scale_mmd"])


def test_departure_our_moments_keep_the_first_batch(data):
    ours, everything = SourceMoments.of(source(data)), torch.cat(source(data))
    close(ours.mean, everything.mean(0).numpy())
    close(ours.cov, np.cov(everything.numpy().T))
    assert np.abs(ours.cov.numpy() - data["out:offline:cov"]).max() > 1e-3


@pytest.mark.parametrize("number", pushes())
def test_official_queue_with_its_bug(data, number):
    """Entering BEFORE the copy is taken, and waiting until it is full, gives the official numbers."""
    queue, key = replayed(data, number), f"out:push{number}"
    batch = torch.from_numpy(data["in:target_batches"][number]).requires_grad_()
    close(queue.storage, data[f"{key}:queue_before"])
    assert queue.full == data[f"{key}:get_returned_queue"]
    was_full = queue.full
    queue.push(batch)
    used = torch.cat([batch, queue.snapshot()]) if was_full else batch
    close(queue.storage, data[f"{key}:queue_after"])
    assert queue.pointer == data[f"{key}:ptr_after"]
    close(used, data[f"{key}:used_features"])
    losses = official_moments(data).distance(used, float(data["hp:scale"]), float(data["hp:mmd_scale_factor"]))
    for loss, name in zip(losses, ("coral", "mmd")):
        close(loss, data[f"{key}:loss_{name}"])
    sum(losses).backward()
    close(batch.grad, data[f"{key}:grad_features"])


@pytest.mark.parametrize(
    "number", [n for n in pushes() if f"out:push{n}:if_queue_were_copied:loss_mmd" in golden(CASE)]
)
def test_departure_our_queue_is_copied_first(data, number):
    """Our order: copy, use, enter. The current batch counts once."""
    queue, key = replayed(data, number), f"out:push{number}"
    batch = torch.from_numpy(data["in:target_batches"][number])
    used = torch.cat([batch, queue.snapshot()])
    assert (used[:, None] == batch[None]).all(dim=2).sum(dim=0).max() == 1
    assert data[f"{key}:current_batch_appears_twice"]
    losses = official_moments(data).distance(used, float(data["hp:scale"]), float(data["hp:mmd_scale_factor"]))
    for loss, name in zip(losses, ("coral", "mmd")):
        close(loss, data[f"{key}:if_queue_were_copied:loss_{name}"])
        assert abs(loss.item() - float(data[f"{key}:loss_{name}"])) > 1e-3


def replayed(data, number):
    """The queue as it is before push `number`."""
    queue = FeatureQueue(int(data["hp:queue_length"]), data["in:target_batches"].shape[2]).double()
    for batch in data["in:target_batches"][:number]:
        queue.push(torch.from_numpy(batch))
    return queue


def contrastive_variants():
    return sorted({":".join(k.split(":")[2:4]) for k in golden(CASE) if k.startswith("out:contrastive:")})


@pytest.mark.parametrize("variant", contrastive_variants())
def test_contrastive_loss(data, variant):
    kind, temperatures = variant.split(":")
    tau, base = (float(part.strip("taubse")) for part in temperatures.split("_"))
    features = torch.from_numpy(data["in:contrastive:features"]).requires_grad_()
    labels = torch.from_numpy(data["in:contrastive:labels"]) if kind == "supcon" else None
    options = {"temperature": tau, "base_temperature": base, "first_view_only": kind == "simclr_one"}
    # The official loss takes normalised features; ours normalises, which is undone in the gradient by asking for
    # it at unit vectors: the part along the vector vanishes, so it is compared on the tangent.
    loss = contrastive_loss(features, labels, **options)
    close(loss, data[f"out:contrastive:{variant}:loss"])
    if f"out:contrastive:{variant}:grad" in data:
        loss.backward()
        expected = torch.from_numpy(data[f"out:contrastive:{variant}:grad"])
        unit = features.detach()
        along = (expected * unit).sum(dim=2, keepdim=True) * unit
        close(features.grad, (expected - along).numpy())


def test_the_base_temperature_is_a_learning_rate_in_disguise(data):
    features = torch.from_numpy(data["in:contrastive:features"])
    plain = contrastive_loss(features, temperature=0.5)
    close(contrastive_loss(features, temperature=0.5, base_temperature=0.07), (plain * 0.5 / 0.07).numpy())
