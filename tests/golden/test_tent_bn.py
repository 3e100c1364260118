"""Tent and BatchNorm adaptation against numbers from the official implementations (golden cases 1 and 1b).

SEMINAR_GOLDEN=<folder> runs the same tests on other files of the same layout.
"""

import numpy as np
import pytest
import torch

from seminar_utils.adaptation import BatchNormAdapt, Source, Tent, softmax_entropy
from seminar_utils.teaching.golden import golden, tiny_bn


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
