"""MAE against transformers' ViTMAEForPreTraining, and its fine-tuning ViT against timm's mean pooling."""

import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.convert import load_weights
from seminar_utils.models.convert_hub import from_hub
from seminar_utils.models.mae import MaskedAutoencoder, encoder_of, load_mae
from seminar_utils.models.parity import parity_line, parity_report, randomise_, relative_difference
from seminar_utils.torchvision_fix import import_torchvision

import_torchvision()  # timm and transformers need it, and it needs its fix
timm = pytest.importorskip("timm")


def random_numbers(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_mae_vit_base_equals_transformers(norm_pix_loss):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(layer_norm_eps=1e-6, norm_pix_loss=norm_pix_loss, mask_ratio=0.75)
    reference = randomise_(transformers.ViTMAEForPreTraining(config), seed=3).eval()
    ours = load_mae(MaskedAutoencoder(norm_pix_loss=norm_pix_loss), from_hub(reference.state_dict())).eval()
    x, noise = random_numbers((2, 3, 224, 224), 1), torch.rand(2, 196, generator=torch.Generator().manual_seed(2))
    theirs = reference(x, noise=noise)
    loss, pred, mask = ours(x, 0.75, noise)
    theirs.loss.backward()
    loss.backward()
    expected = from_hub(gradients(reference))
    assert set(expected) == set(gradients(ours)) and len(expected) == 12 * 12 + 8 * 12 + 12
    report = {"loss": relative_difference(loss, theirs.loss), "pred": relative_difference(pred, theirs.logits)}
    each = [relative_difference(grad, expected[name]) for name, grad in gradients(ours).items()]
    report["gradient"] = torch.tensor(each).max().item()
    print("\n" + parity_line(f"MAE ViT-B vs transformers, norm_pix_loss={norm_pix_loss}", report))
    assert torch.equal(mask, theirs.mask)
    assert all(value <= 1e-5 for value in report.values()), report


def test_the_fine_tuning_vit_equals_timm_s_mean_pool():
    """In float64: fc_norm's eps must show, and that nothing is normalised before the mean."""
    shape = {"img_size": 32, "patch_size": 4, "in_chans": 1, "num_classes": 6}
    reference = timm.models.VisionTransformer(
        **shape, embed_dim=96, depth=4, num_heads=3, global_pool="avg", fc_norm=True
    )
    reference = randomise_(reference, seed=3).double()
    ours = load_weights(create_model("vit_tiny", global_pool="avg").double(), reference.state_dict())
    x = random_numbers((3, 1, 32, 32), 1).double()
    report = parity_report(ours, reference, x, feature=("fc_norm", "fc_norm"))
    print("\n" + parity_line("vit_tiny, mean pool (float64) vs timm", report))
    assert all(value <= 1e-11 for key, value in report.items() if key != "max_difference"), report


def test_the_encoder_becomes_a_vit_that_computes_the_same():
    mae = randomise_(MaskedAutoencoder(32, 4, 1, 48, 2, 3, 32, 1, 4), seed=3).eval()
    vit = encoder_of(mae, global_pool="token").eval()
    x, noise = random_numbers((2, 1, 32, 32), 1), torch.arange(64.0).repeat(2, 1)
    with torch.no_grad():
        tokens = vit.forward_features(x)
        latent, _, _ = mae.encode(x, mask_ratio=1 / 64, noise=noise)  # sees all patches but the last
    assert latent.shape == (2, 64, 48)
    assert tokens.shape == (2, 65, 48)
    mae.blocks, vit.blocks = torch.nn.ModuleList(), torch.nn.ModuleList()  # without attention: token for token
    with torch.no_grad():
        latent, _, _ = mae.encode(x, mask_ratio=1 / 64, noise=noise)
        assert relative_difference(latent, vit.forward_features(x)[:, :64]) <= 1e-6
