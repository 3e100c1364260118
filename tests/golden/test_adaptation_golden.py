"""EATA, SAR, CoTTA, MEMO, LAME and T3A against numbers from the official code (golden cases 2-7 of the README).

SEMINAR_GOLDEN=<folder> runs the same tests on other files of the same layout: variants are found in the file.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seminar_utils.adaptation import EATA, ETA, LAME, MEMO, SAR, T3A, CoTTA, marginal_entropy, softmax_entropy
from seminar_utils.adaptation.lame import affinity, refine
from seminar_utils.teaching.golden import golden, tiny_bn


def close(got, expected, atol=1e-8):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
    np.testing.assert_allclose(got, expected, atol=atol, rtol=0)


def tensors(array):
    return [torch.from_numpy(part) for part in array]


def variants(case, ending):
    """The names v for which the file holds `out:<v>:<ending>`."""
    keys = [key.split(":") for key in golden(case)]
    return sorted({key[1] for key in keys if key[0] == "out" and key[2:] == [ending]})


def settings(data, variant):
    prefix = f"hp:{variant}:"
    return {key[len(prefix) :]: value.item() for key, value in data.items() if key.startswith(prefix)}


def close_after_batch(method, data, variant, number):
    seen = 0
    for name, parameter in method.model.named_parameters():
        if f"out:{variant}:after_batch:{name}" in data:
            close(parameter, data[f"out:{variant}:after_batch:{name}"][number])
            seen += 1
    assert seen


# -- EATA --


def eata(data, variant):
    hp = settings(data, variant)
    model = tiny_bn(data)
    if not hp["use_fisher"]:
        return ETA(model, hp["lr"], hp["e_margin"], hp["d_margin"])
    return EATA(model, hp["lr"], hp["e_margin"], hp["d_margin"], hp["fisher_alpha"]).fit_source(
        tensors(data["in:fisher_x"])
    )


@pytest.mark.parametrize("variant", variants("eata", "cum_reliable"))
def test_eata_agrees_with_the_official_code(variant):
    data = golden("eata")
    method = eata(data, variant)
    for number, x in enumerate(tensors(data["in:x"])):
        close(method(x), data[f"out:{variant}:logits"][number])
        assert method.reliable == data[f"out:{variant}:cum_reliable"][number]
        assert method.kept == data[f"out:{variant}:cum_reliable_nonredundant"][number]
        average = data[f"out:{variant}:model_probs"][number]
        assert (
            np.isnan(average).all() if method.average is None else np.allclose(method.average, average, atol=1e-8)
        )
        close_after_batch(method, data, variant, number)


def test_eata_s_fisher_agrees_with_the_official_code():
    data = golden("eata")
    fisher = EATA(tiny_bn(data)).fit_source(tensors(data["in:fisher_x"])).fisher
    for name, values in fisher.items():
        np.testing.assert_allclose(values.numpy(), data[f"out:fisher:{name}"], rtol=1e-9)


# -- SAR --


class TinyGN(nn.Module):
    """The golden network with GroupNorm."""

    def __init__(self, weights, groups):
        super().__init__()
        (width1, chans), width2 = weights["conv1.weight"].shape[:2], len(weights["conv2.weight"])
        self.conv1 = nn.Conv2d(chans, width1, 3, padding=1, bias=False)
        self.gn1 = nn.GroupNorm(groups, width1)
        self.conv2 = nn.Conv2d(width1, width2, 3, stride=2, padding=1, bias=False)
        self.gn2 = nn.GroupNorm(groups, width2)
        self.fc = nn.Linear(width2, len(weights["fc.bias"]))
        self.double().load_state_dict(weights, strict=True)

    def forward(self, x):
        x = torch.relu(self.gn1(self.conv1(x)))
        x = torch.relu(self.gn2(self.conv2(x)))
        return self.fc(x.mean(dim=(2, 3)))


def sar(data, variant, **more):
    prefix = f"w:{variant}:"
    weights = {k[len(prefix) :]: torch.from_numpy(v) for k, v in data.items() if k.startswith(prefix)}
    hp = settings(data, variant)
    below = float(data["hp:reset_constant_hardcoded"])
    model = TinyGN(weights, int(data["hp:groups"]))
    return SAR(model, hp["lr"], hp["rho"], hp["margin_e0"], reset_below=below, **more)


@pytest.mark.parametrize("variant", variants("sar", "ema_after_batch"))
def test_sar_agrees_with_the_official_code_recovery_included(variant):
    data = golden("sar")
    method = sar(data, variant, official_recovery=True)
    assert list(method.parameters_to_adapt()) == data["out:collected_names"].tolist()
    for number, x in enumerate(tensors(data["in:x"])):
        logits = method(x)
        close(logits, data[f"out:{variant}:logits"][number])
        reliable = int((softmax_entropy(logits) < method.e_margin).sum())
        assert reliable == data[f"out:{variant}:n_reliable_first_pass"][number]
        average = np.nan if method.average is None else method.average
        np.testing.assert_allclose(average, data[f"out:{variant}:ema_after_batch"][number], atol=1e-8)
        assert method.recovered == data[f"out:{variant}:reset_triggered"][number]
        momenta = [state["momentum_buffer"].flatten() for state in method.optimizer.state.values()]
        close(torch.cat(momenta).norm(), data[f"out:{variant}:momentum_buffer_norm_after_batch"][number])
        close_after_batch(method, data, variant, number)


def test_our_recovery_forgets_average_and_momentum_where_the_official_one_keeps_both():
    data = golden("sar")
    found = 0
    for variant in variants("sar", "ema_after_batch"):
        ours, official = sar(data, variant), sar(data, variant, official_recovery=True)
        for x, recovers in zip(tensors(data["in:x"]), data[f"out:{variant}:reset_triggered"]):
            close(ours(x), official(x))
            if recovers:
                assert ours.recovered and ours.average is None and not ours.optimizer.state
                assert official.average is not None and official.optimizer.state
                found += 1
                break  # from here on they differ
    assert found


# -- CoTTA --


class GivenCoTTA(CoTTA):
    """CoTTA with given random numbers for the restoring."""

    given = None

    def uniform(self, name, parameter):
        return torch.from_numpy(self.given[name][self.batches_seen])


def cotta(data, variant):
    hp = settings(data, variant)
    offsets = data["in:aug_offsets"]

    def view(x, number, generator):
        if hp["augmentation"] == "id":
            return x
        return (x.flip(-1) if number % 2 else x) + float(offsets[number])

    method = GivenCoTTA(
        tiny_bn(data),
        lr=float(data["hp:lr"]),
        momentum=hp["mt_alpha"],
        restore_rate=hp["rst_m"],
        threshold=hp["ap"],
        n_views=int(data["hp:n_aug"]),
        optimizer=hp["optimizer"],
        view=view,
    )
    names = list(method.parameters_to_adapt())
    blank = {name: np.ones((len(data["in:x"]), *p.shape)) for name, p in method.model.named_parameters()}
    method.given = {name: data.get(f"in:{variant}:uniform:{name}", blank[name]) for name in names}
    return method


@pytest.mark.parametrize("variant", variants("cotta", "used_augmented_average"))
def test_cotta_agrees_with_the_official_code(variant):
    data = golden("cotta")
    method = cotta(data, variant)
    assert list(method.parameters_to_adapt()) == data["out:collected_names"].tolist()
    batches = tensors(data["in:x"])
    for number, x in enumerate(batches):
        with torch.no_grad():
            close(method.source(x).softmax(1).amax(1).mean(), data["out:anchor_mean_confidence"][number])
        close(method(x), data[f"out:{variant}:logits"][number])
        averaged = method.cost()["forward"] > 3  # student, anchor and teacher, else the views too
        assert averaged == data[f"out:{variant}:used_augmented_average"][number]
        for who, network in {"student": method.model, "teacher": method.teacher}.items():
            for name, parameter in network.named_parameters():
                if f"out:{variant}:{who}_after_batch:{name}" in data:
                    close(parameter, data[f"out:{variant}:{who}_after_batch:{name}"][number])
                if number == len(batches) - 1 and f"out:{variant}:{who}_final:{name}" in data:
                    close(parameter, data[f"out:{variant}:{who}_final:{name}"])


# -- MEMO --


@pytest.mark.parametrize("variant", variants("memo", "logits"))
def test_memo_agrees_with_the_reference(variant):
    data = golden("memo")
    hp = settings(data, variant)
    views = iter(tensors(data["in:aug"]))
    optimizer = next(name for name in ("adamw", "adam", "sgd") if variant.startswith(name))
    method = MEMO(
        tiny_bn(data),
        lr=hp["lr"],
        steps=hp["steps"],
        n_views=int(data["hp:n_aug"]),
        episodic=hp["episodic"],
        optimizer=optimizer,
        momentum=hp["momentum"],
        weight_decay=hp["weight_decay"],
        batch_weight=float(data["hp:bn_alpha"]),
        views=lambda x, n, generator: next(views),
    )
    for number, x in enumerate(tensors(data["in:x"])):
        close(method(x[None])[0], data[f"out:{variant}:logits"][number])
        close(method.model.fc.weight, data[f"out:{variant}:fc.weight_after"][number])
    close(method.model.bn1.weight, data[f"out:{variant}:bn1.weight_final"])
    close(method.model.conv1.weight, data[f"out:{variant}:conv1.weight_final"])


def test_memo_s_loss_and_gradient():
    data = golden("memo")
    logits = torch.from_numpy(data["in:loss_logits"]).requires_grad_()
    loss = marginal_entropy(logits)
    loss.backward()
    close(loss, data["out:loss"])
    close(logits.grad, data["out:loss_grad"])


# -- LAME and T3A: the network is a linear layer on given features --


class OnFeatures(nn.Module):
    """Features, carried as images of one pixel, and a linear classifier."""

    def __init__(self, weight, bias):
        super().__init__()
        self.fc = nn.Linear(*weight.shape[::-1]).to(torch.from_numpy(weight))
        self.fc.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})

    def forward(self, x):
        return self.fc(x.flatten(1))


def as_images(features):
    return torch.from_numpy(features)[:, :, None, None]


def lame_kernels():
    found = variants("lame", "kernel")
    assert found
    return found


@pytest.mark.parametrize("name", lame_kernels())
def test_lame_agrees_with_the_reference(name):
    data = golden("lame")
    kernel, *k, symmetric = name.split("_")
    options = {"kernel": kernel.lower(), "symmetric": symmetric == "sym1"} | ({"k": int(k[0][1:])} if k else {})
    x, model = as_images(data["in:features"]), OnFeatures(data["w:weight"], data["w:bias"])
    W = affinity(F.normalize(torch.from_numpy(data["in:features"]), dim=1), **options)
    close(W, data[f"out:{name}:kernel"])
    weight, limit = float(data["hp:bound_lambda"]), int(data["hp:max_steps"])
    for steps, key in {limit: "Z", 1: "Z_step1", 2: "Z_step2"}.items():
        method = LAME(model, weight=weight, max_steps=steps, **options)
        close(method(x).softmax(dim=1), data[f"out:{name}:{key}"])
    probs = model(x).softmax(dim=1)
    close(-(probs + float(data["hp:unary_eps"])).log(), data["out:unary"])


def test_lame_from_given_probabilities_and_kernel():
    data = golden("lame")
    probs, W = torch.from_numpy(data["in:given_probs"]), torch.from_numpy(data["in:given_kernel"])
    keys = [key for key in data if key.startswith("out:given:lambda")]
    assert keys
    for key in keys:
        weight = float(key.split(":")[2].removeprefix("lambda"))
        close(refine(probs, W, weight, int(data["hp:max_steps"])), data[key])


@pytest.mark.parametrize("variant", variants("t3a", "adapted_logits"))
def test_t3a_agrees_with_the_reference(variant):
    data = golden("t3a")
    limit = int(variant[1:])
    model = OnFeatures(data["w:classifier.weight"], data["w:classifier.bias"])
    method = T3A(model, filter_k=limit if limit > 0 else 10**9)
    close(method.supports, data["out:warmup_supports"])
    assert method.labels.tolist() == data["out:warmup_labels_onehot"].argmax(1).tolist()
    close(method.entropies, data["out:warmup_entropy"], 1e-5)
    for number, features in enumerate(data["in:features"]):
        close(method(as_images(features)), data[f"out:{variant}:adapted_logits"][number], 1e-5)
        assert len(method.labels) == data[f"out:{variant}:n_supports"][number]
    close(method.supports, data[f"out:{variant}:final_supports"], 1e-5)
    assert method.labels.tolist() == data[f"out:{variant}:final_labels"].tolist()
    close(method.entropies, data[f"out:{variant}:final_entropy"], 1e-5)
