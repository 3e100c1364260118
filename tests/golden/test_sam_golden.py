"""SAM against the official code (golden cases 14, 14b, 14c): encoder, prompts, decoder, image and mask transforms.

SEMINAR_GOLDEN=<folder> runs the same tests on other files of the same layout.
"""

import re

import numpy as np
import pytest
import torch

from seminar_utils.models.convert import load_weights
from seminar_utils.models.sam import Sam
from seminar_utils.models.sam_decoder import MaskDecoder
from seminar_utils.models.sam_encoder import ImageEncoderViT, relative_bias, relative_embeddings
from seminar_utils.models.sam_prompts import PromptEncoder
from seminar_utils.models.sam_transforms import SamTransform, masks_to_image, resize_bilinear
from seminar_utils.models.windows import window_partition
from seminar_utils.teaching.golden import golden

WORST = {}


@pytest.fixture(scope="module", autouse=True)
def print_the_worst():
    yield
    print("\n" + "; ".join(f"{name}: max |difference| {value:.1e}" for name, value in WORST.items()))


def close(name, got, expected, atol):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    assert got.shape == np.shape(expected)
    WORST[name] = max(WORST.get(name, 0.0), float(np.abs(got - expected).max(initial=0.0)))
    np.testing.assert_allclose(got, expected, atol=atol, rtol=0)


def tensor(data, key, dtype=None):
    return torch.from_numpy(data[key]).to(dtype) if dtype else torch.from_numpy(data[key])


def weights(data, part):
    prefix = f"w:{part}."
    return {key[len(prefix) :]: tensor(data, key) for key in data if key.startswith(prefix)}


def cases(case, pattern):
    return sorted({found[1] for key in golden(case) if (found := re.match(pattern, key))})


# 14b: the encoder


def make_encoder(data):
    number = {key[3:]: value.item() for key, value in data.items() if key.startswith("hp:") and value.ndim == 0}
    encoder = ImageEncoderViT(
        number["img"],
        number["patch"],
        data["in:x"].shape[1],
        dim=number["enc_dim"],
        depth=number["enc_depth"],
        num_heads=number["enc_heads"],
        mlp_ratio=number["mlp_ratio"],
        out_chans=number["dim"],
        window=number["win"],
        global_attn_indexes=data["hp:global_attn_indexes"].tolist(),
    )
    return load_weights(encoder, weights(data, "image_encoder")).double().eval()


def test_image_encoder():
    data = golden("sam_encoder_ops")
    encoder, x = make_encoder(data), tensor(data, "in:x").double()
    tokens = encoder.tokens(x)
    shown = len(data["out:after_patch_and_pos"])
    close("patches and positions", tokens[:shown], data["out:after_patch_and_pos"], 1e-4)
    close("windowed block", encoder.blocks[0](tokens)[:shown], data["out:after_block0_windowed"], 1e-4)
    close("image embedding", encoder(x), data["out:image_embedding"], 1e-4)


@pytest.mark.parametrize("case", cases("sam_encoder_ops", r"in:window_(\w+):x"))
def test_windows(case):
    data = golden("sam_encoder_ops")
    x, expected = tensor(data, f"in:window_{case}:x"), data[f"out:window_{case}:windows"]
    side, (height, width) = expected.shape[1], x.shape[1:3]
    padded = torch.nn.functional.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    assert tuple(padded.shape[1:3]) == tuple(data[f"out:window_{case}:padded_hw"])
    close("windows", window_partition(padded, side).reshape(expected.shape), expected, 0)


@pytest.mark.parametrize("case", cases("sam_encoder_ops", r"in:relpos_(\w+):q"))
def test_relative_positions(case):
    data = golden("sam_encoder_ops")
    q, h, w = (tensor(data, f"in:relpos_{case}:{name}") for name in ("q", "rel_pos_h", "rel_pos_w"))
    q_size, k_size = (tuple(data[f"hp:relpos_{case}:{name}"].tolist()) for name in ("q_size", "k_size"))
    close("embeddings", relative_embeddings(h, q_size[0], k_size[0]), data[f"out:relpos_{case}:Rh"], 1e-8)
    bias = relative_bias(q[:, None], h, w, q_size, k_size)[:, 0]  # one head
    close("bias", tensor(data, f"in:relpos_{case}:attn") + bias, data[f"out:relpos_{case}:attn"], 1e-8)


# 14: prompts and decoder, stored in float32


@pytest.fixture(scope="module")
def prompts():
    return golden("sam_prompt_decoder")


def make_sam(data):
    number = {key[3:]: value.item() for key, value in data.items() if key.startswith("hp:")}
    prompt_encoder = PromptEncoder(number["dim"], number["mask_chans"])
    decoder = MaskDecoder(
        number["dim"],
        number["heads"],
        number["mlp"],
        num_multimask_outputs=number["nmm"],
        iou_hidden_dim=number["iou_hidden"],
    )
    encoder = ImageEncoderViT(number["img"], number["patch"], dim=8, depth=1, num_heads=1, global_attn_indexes=())
    load_weights(prompt_encoder, weights(data, "prompt_encoder"))
    load_weights(decoder, weights(data, "mask_decoder"))
    return Sam(encoder, prompt_encoder, decoder, SamTransform(number["img"])).double().eval()


def given(data, case):
    names = {"points": ("points", "labels"), "box": ("boxes",), "mask": ("masks",)}
    keys = {"points": "point_coords", "labels": "point_labels", "boxes": "boxes", "masks": "mask_input"}
    chosen = [name for word in case.split("_") for name in names.get(word, ())]
    return {name: tensor(data, f"in:{keys[name]}", None if name == "labels" else torch.double) for name in chosen}


def prompt_cases():
    return cases("sam_prompt_decoder", r"out:(\w+):all_iou")


@pytest.mark.parametrize("case", prompt_cases())
def test_prompt_encoder(prompts, case):
    sam, size = make_sam(prompts), (int(prompts["hp:img"]),) * 2
    sparse, dense = sam.prompt_encoder(size, (int(prompts["hp:grid"]),) * 2, **given(prompts, case))
    close("sparse", sparse, prompts[f"out:{case}:sparse"], 1e-5)
    if f"out:{case}:dense" in prompts:
        close("dense", dense, prompts[f"out:{case}:dense"], 1e-5)
    else:
        close("dense, first pixel", dense[..., 0, 0], prompts[f"out:{case}:dense_first_pixel"], 1e-5)


def test_positions_of_the_grid(prompts):
    grid = make_sam(prompts).prompt_encoder.pe_layer.grid(*prompts["out:dense_pe"].shape[-2:])
    close("positions of the grid", grid, prompts["out:dense_pe"], 1e-4)


@pytest.mark.parametrize("case", prompt_cases())
def test_masks_and_iou(prompts, case):
    sam, embedding = make_sam(prompts), tensor(prompts, "in:image_embedding").double()
    masks, iou = (prompts[f"out:{case}:{name}"] for name in ("all_low_res_masks", "all_iou"))
    for multimask, chosen in [(True, slice(1, None)), (False, slice(0, 1))]:
        got = sam.decode(embedding, **given(prompts, case), multimask=multimask)
        close("masks", got[0], masks[:, chosen], 1e-4)
        close("IoU", got[1], iou[:, chosen], 1e-4)


def test_two_way_transformer(prompts):
    image, image_pe, tokens = (
        tensor(prompts, f"in:twoway:{key}").double() for key in ("image", "image_pe", "tokens")
    )
    queries, keys = make_sam(prompts).mask_decoder.transformer(image, image_pe, tokens)
    close("two-way, tokens", queries, prompts["out:twoway:queries"], 1e-4)
    close("two-way, image", keys, prompts["out:twoway:keys"], 1e-4)


# 14c: transforms


@pytest.fixture(scope="module")
def transforms():
    return golden("sam_transforms")


def test_sizes_and_coordinates(transforms):
    transform = SamTransform(int(transforms["hp:target_length"]))
    for i, size in enumerate(map(tuple, transforms["in:original_hw"].tolist())):
        assert transform.input_size(*size) == tuple(transforms["out:preprocess_shape"][i])
        coords, boxes = (tensor(transforms, f"in:{name}")[i] for name in ("coords_xy", "boxes_xyxy"))
        close("points", transform.points(coords, size), transforms["out:apply_coords"][i], 1e-8)
        close("boxes", transform.boxes(boxes, size), transforms["out:apply_boxes"][i], 1e-8)
        single = transform.points(coords.float(), size)
        close("points, float32", single, transforms["out:apply_coords_torch_float32"][i], 1e-3)


def sides():
    return [int(side) for side in cases("sam_transforms", r"out:apply_image_to(\d+)")]


@pytest.mark.parametrize("side", sides())
def test_resized_images(transforms, side):
    image = tensor(transforms, "in:image_u8").permute(2, 0, 1)
    transform = SamTransform(side)
    small = transform.resize(image, transform.input_size(*image.shape[1:]))
    expected = transforms[f"out:apply_image_to{side}"]
    assert small.dtype == torch.uint8
    close("resized uint8", small.permute(1, 2, 0).int(), expected.astype(int), 1)
    assert (small.permute(1, 2, 0).numpy() != expected).mean() < 0.01  # the same but for roundings
    exact = resize_bilinear(image.double(), expected.shape[:2])
    close("resized float64", exact[None], transforms[f"out:apply_image_torch_to{side}"], 1e-8)


def test_mean_and_deviation_before_padding(transforms):
    transform, x = SamTransform(int(transforms["hp:img"])), tensor(transforms, "in:preprocess:x")
    close("preprocess", transform.pad(transform.normalize(x)), transforms["out:preprocess"], 1e-5)


@pytest.mark.parametrize("case", cases("sam_transforms", r"out:(post\d+):masks"))
def test_masks_on_the_original_image(transforms, case):
    size = tuple(transforms[f"hp:{case}:original_size"].tolist())
    inside = tuple(transforms[f"hp:{case}:input_size"].tolist())
    transform, logits = SamTransform(int(transforms["hp:img"])), tensor(transforms, "in:low_res_masks")
    soft = masks_to_image(logits, transform.image_size, inside, size)
    close("masks on the image", soft, transforms[f"out:{case}:masks"], 1e-8)
    assert np.array_equal((soft > transform.threshold).numpy(), transforms[f"out:{case}:binary"])
    if transform.input_size(*size) == inside:  # the case need not come from an image
        assert torch.equal(transform.soft_masks(logits, size), soft)
