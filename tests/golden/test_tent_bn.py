"""Tent and BatchNorm adaptation against numbers from the official implementations (shared/golden, 1 and 1b).

The held-out files have the same layout, so the path can be replaced: SEMINAR_GOLDEN=<folder>.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils.adaptation import BatchNormAdapt, Source, Tent, softmax_entropy

FOLDER = Path(os.environ.get("SEMINAR_GOLDEN") or Path(__file__).parent)


def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{case}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def tiny_bn(data: dict[str, np.ndarray]) -> nn.Module:
    """The two-layer network that the golden README calls TinyBN, its sizes read from the weights."""
    width1, in_chans = data["w:conv1.weight"].shape[:2]
    width2, num_classes = data["w:conv2.weight"].shape[0], data["w:fc.weight"].shape[0]

    class TinyBN(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(in_chans, width1, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width1)
            self.conv2 = nn.Conv2d(width1, width2, 3, stride=2, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width2)
            self.fc = nn.Linear(width2, num_classes)

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            x = torch.relu(self.bn2(self.conv2(x)))
            return self.fc(x.mean(dim=(2, 3)))

    model = TinyBN().double()
    weights = {key[2:]: torch.as_tensor(value) for key, value in data.items() if key.startswith("w:")}
    model.load_state_dict(weights, strict=True)
    return model.eval()


def stream(data):
    return [torch.from_numpy(batch) for batch in data["in:x"]]


def close(got, expected, atol=1e-8):
    np.testing.assert_allclose(got.detach().numpy(), expected, atol=atol, rtol=0)


def tent_variants():
    data = golden("tent_online")
    return sorted({key.split(":")[1] for key in data if key.startswith("out:") and key.endswith(":logits")})


def build_tent(model, data, variant):
    steps, episodic = int(data[f"hp:{variant}:steps"]), bool(data[f"hp:{variant}:episodic"])
    kind = next(kind for kind in ("sgd_big", "sgd", "adam") if variant.startswith(kind))
    optimizer = "adam" if kind == "adam" else "sgd"
    return Tent(model, lr=float(data[f"hp:{kind}_lr"]), steps=steps, episodic=episodic, optimizer=optimizer)


@pytest.mark.parametrize("variant", tent_variants())
def test_tent_agrees_with_the_official_code(variant):
    data = golden("tent_online")
    model = tiny_bn(data)
    method = build_tent(model, data, variant)
    assert list(method.parameters_to_adapt()) == data["out:collected_names"].tolist()
    for number, x in enumerate(stream(data)):
        logits = method(x)
        close(logits, data[f"out:{variant}:logits"][number])
        close(softmax_entropy(logits).mean(), data[f"out:{variant}:mean_entropy"][number])
        for name, parameter in method.parameters_to_adapt().items():
            close(parameter, data[f"out:{variant}:after_batch:{name}"][number])


def test_source_is_the_model_in_eval_mode():
    data = golden("tent_online")
    method = Source(tiny_bn(data))
    for number, x in enumerate(stream(data)):
        close(method(x), data["out:source_eval_logits"][number])


BN_VARIANTS = {
    "default": {"policy": "batch", "update_running": True},
    "reset_stats": {"policy": "batch", "update_running": True, "restart": True},
    "no_stats": {"policy": "batch"},
}


def bn_variants():
    data = golden("bn_adapt")
    found = {key.split(":")[1] for key in data if key.startswith("out:") and key.endswith(":logits")}
    blends = {name: {"policy": "blend", "batch_weight": float(name[5:])} for name in found if name[:5] == "alpha"}
    return {name: kwargs for name, kwargs in {**BN_VARIANTS, **blends}.items() if name in found}


@pytest.mark.parametrize("variant", sorted(bn_variants()))
def test_batchnorm_policies_agree_with_the_official_code(variant):
    data = golden("bn_adapt")
    method = BatchNormAdapt(tiny_bn(data), **bn_variants()[variant])
    for number, x in enumerate(stream(data)):
        close(method(x), data[f"out:{variant}:logits"][number])
        for name, buffer in method.model.named_buffers():
            if f"out:{variant}:after_batch:{name}" in data:
                close(buffer, data[f"out:{variant}:after_batch:{name}"][number])
    if f"out:{variant}:eval_logits_after_stream_on_batch0" in data:
        with torch.no_grad():
            logits = method.model.eval()(stream(data)[0])
        close(logits, data[f"out:{variant}:eval_logits_after_stream_on_batch0"])
