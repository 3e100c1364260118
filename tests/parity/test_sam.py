"""SAM against segment-anything 1.0: the encoder at full size, everything with gradients on reduced models."""

import time

import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.convert import load_weights
from seminar_utils.models.parity import parity_line, parity_report, randomise_, relative_difference
from seminar_utils.models.sam import Sam
from seminar_utils.models.sam_decoder import MaskDecoder
from seminar_utils.models.sam_encoder import ImageEncoderViT
from seminar_utils.models.sam_prompts import PromptEncoder
from seminar_utils.models.sam_transforms import SamTransform
from seminar_utils.torchvision_fix import import_torchvision

import_torchvision()  # segment-anything needs it, and it needs its fix
official = pytest.importorskip("segment_anything")
modeling = official.modeling
SMALL = {"depth": 3, "num_heads": 2, "mlp_ratio": 2.0}


def random_numbers(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reference_encoder(img_size, window=5, out_chans=32):
    encoder = modeling.ImageEncoderViT(
        img_size,
        patch_size=8,
        embed_dim=48,
        out_chans=out_chans,
        norm_layer=lambda dim: torch.nn.LayerNorm(dim, eps=1e-6),
        use_rel_pos=True,
        window_size=window,
        global_attn_indexes=(1,),
        **SMALL,
    )
    return randomise_(encoder, seed=3)


def our_encoder(img_size, window=5, out_chans=32):
    return ImageEncoderViT(
        img_size, 8, dim=48, out_chans=out_chans, window=window, global_attn_indexes=(1,), **SMALL
    )


def test_all_sizes_have_the_official_names_and_shapes():
    with torch.device("meta"):
        for name in ("vit_b", "vit_l", "vit_h"):
            theirs = official.sam_model_registry[name]().state_dict()
            ours = create_model(f"sam_{name}").state_dict()
            assert {key: value.shape for key, value in ours.items()} == {
                key: value.shape for key, value in theirs.items()
            }


@torch.no_grad()
def test_vit_b_at_1024_px():
    """All of it once, in float32: twelve blocks, four of them global on 64 x 64 tokens, then a box and a point."""
    with torch.device("meta"):  # the usual starting weights would take ten seconds to draw
        reference, ours = official.sam_model_registry["vit_b"](), create_model("sam_vit_b")
    reference = randomise_(reference.to_empty(device="cpu"), seed=3).eval()
    ours = load_weights(ours.to_empty(device="cpu"), reference.state_dict()).eval()
    x = random_numbers((1, 3, 1024, 1024), 1)
    middle = []
    for encoder in (ours.image_encoder, reference.image_encoder):
        encoder.blocks[5].register_forward_hook(lambda module, x, out: middle.append(out))
    start = time.perf_counter()
    embedding = ours.encode(x)
    seconds = [time.perf_counter() - start]
    expected = reference.image_encoder(x)
    seconds.append(time.perf_counter() - start - seconds[0])
    points, labels = torch.tensor([[[500.0, 375.0], [70.0, 1000.0]]]), torch.tensor([[1, 0]])
    boxes = torch.tensor([[425.0, 600.0, 700.0, 875.0]])
    sparse, dense = reference.prompt_encoder(points=(points, labels), boxes=boxes, masks=None)
    masks, iou = reference.mask_decoder(expected, reference.prompt_encoder.get_dense_pe(), sparse, dense, True)
    got = ours.decode(embedding, points=points, labels=labels, boxes=boxes, multimask=True)
    report = {
        "sixth block": relative_difference(*middle),
        "embedding": relative_difference(embedding, expected),
        "masks": relative_difference(got[0], masks),
        "IoU": relative_difference(got[1], iou),
    }
    print("\n" + parity_line("SAM ViT-B at 1024 px vs segment-anything", report))
    print("encoder: {:.1f} s, the reference {:.1f} s".format(*seconds))
    assert all(value <= 1e-4 for value in report.values()), report


@pytest.mark.parametrize("window", [5, 7, 14])
def test_encoder_in_float64_with_gradients(window):
    """11 x 11 patches: windows of 5 and 7 need padding, one of 14 is larger than the map."""
    reference = reference_encoder(88, window).double()
    ours = load_weights(our_encoder(88, window).double(), reference.state_dict())
    x = random_numbers((2, 3, 88, 88), 1).double()
    report = parity_report(ours, reference, x, feature=("blocks.1", "blocks.1"))
    print("\n" + parity_line(f"SAM encoder, windows of {window} (float64) vs segment-anything", report))
    assert all(value <= 1e-10 for key, value in report.items() if key != "max_difference"), report


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 104), (120, 56), (48, 48)])
def test_other_image_sizes(size):
    """The reference reads them once its positions have been stretched; it stretches the relative ones itself."""
    reference = reference_encoder(88).double().eval()
    ours = load_weights(our_encoder(88).double(), reference.state_dict()).eval()
    stretched = torch.nn.functional.interpolate(
        reference.pos_embed.permute(0, 3, 1, 2), [side // 8 for side in size], mode="bicubic"
    )
    reference.pos_embed = torch.nn.Parameter(stretched.permute(0, 2, 3, 1))
    x = random_numbers((1, 3, *size), 1).double()
    assert ours(x).shape == (1, 32, size[0] // 8, size[1] // 8)
    assert relative_difference(ours(x), reference(x)) <= 1e-10


def test_explicit_attention_equals_the_fused_one():
    attn = randomise_(our_encoder(64), seed=3).blocks[1].attn.double()
    x = random_numbers((2, 8, 8, 48), 1).double()
    out, weights = attn(x, return_attention=True)
    assert weights.shape == (2, 2, 64, 64)
    assert relative_difference(out, attn(x)) <= 1e-12


# prompt encoder and mask decoder; the reference casts coordinates to float32, so they are compared there


def small_pair():
    """Both whole models, 48 px, embeddings of 6 x 6, all weights random and equal."""
    reference = modeling.Sam(
        reference_encoder(48),
        modeling.PromptEncoder(32, image_embedding_size=(6, 6), input_image_size=(48, 48), mask_in_chans=16),
        modeling.MaskDecoder(
            transformer_dim=32,
            transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=32, num_heads=4, mlp_dim=48),
            iou_head_hidden_dim=24,
        ),
    )
    randomise_(reference, seed=4)
    ours = Sam(
        our_encoder(48),
        PromptEncoder(32, 16),
        MaskDecoder(32, num_heads=4, mlp_dim=48, iou_hidden_dim=24),
        SamTransform(48),
    )
    return load_weights(ours, reference.state_dict()), reference


def three_prompts():
    """For three prompts: points with labels (one is no point), boxes, masks."""
    points = torch.tensor([[[3.0, 7.5], [40.0, 11.0]], [[0.0, 0.0], [47.0, 47.0]], [[20.25, 30.0], [9.0, 9.0]]])
    labels = torch.tensor([[1, 0], [1, -1], [0, 0]])
    boxes = torch.tensor([[2.0, 5.0, 30.0, 41.0], [0.0, 0.0, 47.0, 47.0], [11.5, 3.25, 12.0, 40.0]])
    return {"points": points, "labels": labels, "boxes": boxes, "masks": 3 * random_numbers((3, 1, 24, 24), 6)}


def worst_gradient(ours, reference):
    """Relative, by parameter. A key's bias moves all scores of a query alike: its gradient is only rounding."""
    largest = max(grad.abs().max() for grad in reference.values())
    idle = [name for name in reference if name.endswith("k_proj.bias")]
    assert len(idle) == 7 and all(
        grads[name].abs().max() < 1e-5 * largest for grads in (ours, reference) for name in idle
    )
    each = [relative_difference(ours[name], reference[name]) for name in reference if name not in idle]
    return torch.tensor(each).max().item()  # unlike Python's max, does not lose a NaN


KINDS = {
    "points": ("points", "labels"),
    "boxes": ("boxes",),
    "masks": ("masks",),
    "points and boxes": ("points", "labels", "boxes"),
    "all": ("points", "labels", "boxes", "masks"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_and_decoder_with_gradients(kind):
    """One image, three prompts; the gradients of every parameter of both parts and of the embedding."""
    ours, reference = small_pair()
    prompts = {name: value for name, value in three_prompts().items() if name in KINDS[kind]}
    embedding = random_numbers((1, 32, 6, 6), 5).requires_grad_()
    masks, iou = ours.decode(embedding, **prompts, multimask=True)
    single, single_iou = ours.decode(embedding, **prompts)
    (masks.square().mean() + iou.square().mean() + single.square().mean() + single_iou.square().mean()).backward()
    our_grads = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    our_grad, embedding.grad = embedding.grad, None

    points = (prompts["points"], prompts["labels"]) if "points" in prompts else None
    sparse, dense = reference.prompt_encoder(points, prompts.get("boxes"), prompts.get("masks"))
    got_sparse, got_dense = ours.prompt_encoder((48, 48), (6, 6), **prompts)
    both = [
        reference.mask_decoder(embedding, reference.prompt_encoder.get_dense_pe(), sparse, dense, several)
        for several in (True, False)
    ]
    sum(value.square().mean() for pair in both for value in pair).backward()
    grads = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    assert set(grads) == set(our_grads) and len(grads) > 90
    report = {
        "sparse": relative_difference(got_sparse, sparse) if sparse.shape[1] else 0.0,
        "dense": relative_difference(got_dense, dense),
        "masks": relative_difference(masks, both[0][0]),
        "single": relative_difference(single, both[1][0]),
        "IoU": relative_difference(iou, both[0][1]),
        "embedding_gradient": relative_difference(our_grad, embedding.grad),
        "gradient": worst_gradient(our_grads, grads),
    }
    print("\n" + parity_line(f"SAM prompts ({kind}) and decoder vs segment-anything", report))
    assert torch.tensor(list(report.values())).max() <= 2e-5, report


@torch.no_grad()
def test_prompts_on_an_image_that_is_not_square():
    reference = modeling.PromptEncoder(
        32, image_embedding_size=(5, 9), input_image_size=(40, 72), mask_in_chans=16
    )
    ours = load_weights(PromptEncoder(32, 16), randomise_(reference, seed=4).state_dict())
    prompts = {name: value for name, value in three_prompts().items() if name != "masks"}
    sparse, _ = reference((prompts["points"], prompts["labels"]), prompts["boxes"], None)
    assert relative_difference(ours((40, 72), (5, 9), **prompts)[0], sparse) <= 1e-5
    assert relative_difference(ours.pe_layer.grid(5, 9), reference.get_dense_pe()) <= 1e-5


def test_decoder_in_float64():
    """From given tokens, since the reference's prompt encoder knows float32 only."""
    ours, reference = (model.mask_decoder.double().eval() for model in small_pair())
    image, pe, sparse, dense = (
        random_numbers(shape, seed).double()
        for seed, shape in enumerate([(1, 32, 6, 6), (1, 32, 6, 6), (3, 4, 32), (3, 32, 6, 6)])
    )
    for several in (True, False):
        got = ours(image.expand(3, -1, -1, -1), pe, sparse, dense, several)
        expected = reference(image, pe, sparse, dense, several)
        assert all(relative_difference(a, b) <= 1e-10 for a, b in zip(got, expected))


@torch.no_grad()
def test_several_prompts_on_several_images():
    """The index says which image each prompt is about; the reference is asked image by image."""
    ours, reference = (model.eval() for model in small_pair())
    images, prompts = random_numbers((2, 3, 48, 48), 7), three_prompts()
    index = torch.tensor([1, 0, 1])
    masks, iou = ours(images, index, **prompts)
    for image in (0, 1):
        mine = index == image
        chosen = {name: value[mine] for name, value in prompts.items()}
        record = {"image": images[image], "original_size": (48, 48), "point_coords": chosen["points"]}
        record |= {"point_labels": chosen["labels"], "boxes": chosen["boxes"], "mask_inputs": chosen["masks"]}
        reference.pixel_mean, reference.pixel_std = torch.zeros(1), torch.ones(1)  # the images are normalised
        answer = reference([record], multimask_output=False)[0]
        assert relative_difference(masks[mine], answer["low_res_logits"]) <= 2e-5
        assert relative_difference(iou[mine], answer["iou_predictions"]) <= 2e-5
        on_image = ours.transform.masks(masks[mine], (48, 48))
        assert (on_image != answer["masks"]).float().mean() < 1e-3
