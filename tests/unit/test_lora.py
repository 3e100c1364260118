"""LoRA by its definition: W + (alpha / r) B A, nothing else moves, merging changes no output."""

import pytest
import torch
from torch import nn

from seminar_utils import create_model
from seminar_utils.adaptation.lora import LoRALinear, add_lora, merge_lora, trainable_share
from seminar_utils.runtime import SeminarError


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return create_model("vit_tiny", num_classes=3, img_size=28).double().eval()


def randomise(model):
    """B starts at zero, which would hide every error."""
    for module in model.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.lora_B)


def test_layer_is_the_formula():
    layer = nn.Linear(5, 7).double()
    lora = LoRALinear(layer, rank=3, alpha=6.0)
    nn.init.normal_(lora.lora_B)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    dense = layer.weight + 2.0 * lora.lora_B @ lora.lora_A
    torch.testing.assert_close(lora(x), x @ dense.T + layer.bias)


def test_starts_at_the_old_network(vit):
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    before = vit(x)
    names = add_lora(vit)
    assert names and all(name.endswith(("qkv", "proj")) for name in names)
    torch.testing.assert_close(vit(x), before, rtol=0, atol=0)


def test_only_corrections_move(vit):
    add_lora(vit, ("qkv",), rank=2)
    randomise(vit)
    frozen = {name: p.clone() for name, p in vit.named_parameters() if "lora" not in name}
    optimizer = torch.optim.SGD([p for p in vit.parameters() if p.requires_grad], lr=0.1)
    vit(torch.rand(2, 1, 28, 28, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    after = dict(vit.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert all(p.grad.abs().sum() > 0 for name, p in after.items() if "lora" in name)
    assert 0 < trainable_share(vit) < 0.1


def test_merged_is_the_same_network_in_its_old_form(vit):
    names = list(vit.state_dict())
    add_lora(vit, rank=3, alpha=5.0)
    randomise(vit)
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    adapted = vit(x)
    torch.testing.assert_close(merge_lora(vit)(x), adapted)
    assert list(vit.state_dict()) == names


def test_bad_input(vit):
    with pytest.raises(SeminarError, match="query.*qkv"):
        add_lora(vit, ("query",))
    with pytest.raises(SeminarError, match=r"1\.\.5 .*got 9"):
        LoRALinear(nn.Linear(5, 7), rank=9)
    add_lora(vit)
    with pytest.raises(SeminarError, match="already"):
        add_lora(vit)
