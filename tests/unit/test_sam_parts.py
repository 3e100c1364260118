"""SAM's family: sizes, images of all kinds, boxes, the predictor, the walk through a volume."""

import numpy as np
import pytest
import torch
from PIL import Image

from seminar_utils.data import load
from seminar_utils.models import create_model
from seminar_utils.models.boxes import boxes_from_masks, check_boxes
from seminar_utils.models.intensity import SOFT_TISSUE, read_image, to_uint8
from seminar_utils.models.parity import max_difference, randomise_
from seminar_utils.models.predictor import CHUNK, Prediction, SamPredictor
from seminar_utils.models.sam_encoder import ImageEncoderViT
from seminar_utils.models.sam_transforms import (
    LiteMedSamTransform,
    MedSamTransform,
    SamTransform,
    area_weights,
    resize_area,
)


def count(model):
    return sum(p.numel() for p in model.parameters())


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# sizes


def test_sizes_of_the_models():
    sizes = {"sam_vit_b": 93735472, "sam_vit_l": 312342832, "sam_vit_h": 641090608, "medsam_vit_b": 93735472}
    with torch.device("meta"):
        assert {name: count(create_model(name)) for name in sizes} == sizes
        lite = create_model("lite_medsam").state_dict()
    assert len(lite) == 435 and sum(value.numel() for value in lite.values()) == 9801439
    assert 800_000 < count(create_model("sam_tiny")) < 1_000_000


@pytest.mark.parametrize("options", [{}, {"in_chans": 3, "img_size": 96}, {"patch_size": 8, "conv_stem": False}])
def test_sam_tiny_shapes(options):
    model = create_model("sam_tiny", **options).eval()
    side, stride = model.transform.image_size, model.image_encoder.stride
    x = torch.rand(2, model.transform.in_chans, side, side)
    boxes, index = torch.tensor([[4.0, 4.0, 20.0, 30.0]] * 3), torch.tensor([0, 1, 1])
    masks, iou = model(x, index, boxes=boxes, multimask=True)
    assert masks.shape == (3, 3, 4 * side // stride, 4 * side // stride) and iou.shape == (3, 3)
    assert model(x, index, boxes=boxes)[0].shape[:2] == (3, 1)


def test_each_prompt_gets_its_own_image():
    model = randomise_(create_model("sam_tiny"), seed=1).eval()
    x, boxes = torch.rand(3, 1, 64, 64), torch.tensor([[4.0, 4.0, 20.0, 30.0], [9.0, 30.0, 60.0, 50.0]])
    embeddings = model.encode(x)
    together, _ = model.decode(embeddings, torch.tensor([2, 0]), boxes=boxes)
    for i, image in enumerate((2, 0)):
        alone, _ = model.decode(embeddings[image : image + 1], boxes=boxes[i : i + 1])
        assert max_difference(together[i : i + 1], alone) < 1e-4
    swapped, _ = model.decode(embeddings, torch.tensor([0, 2]), boxes=boxes)
    assert max_difference(together, swapped) > 0.1


def test_padding_points_let_prompts_differ_in_length():
    model = randomise_(create_model("sam_tiny"), seed=1).eval()
    embedding = model.encode(torch.rand(1, 1, 64, 64))
    points = torch.tensor([[[10.0, 20.0], [30.0, 5.0]]])
    moved = torch.tensor([[[10.0, 20.0], [3.0, 55.0]]])
    labels = torch.tensor([[1, -1]])
    first, _ = model.decode(embedding, points=points, labels=labels)
    assert torch.equal(first, model.decode(embedding, points=moved, labels=labels)[0])
    assert not torch.equal(first, model.decode(embedding, points=points, labels=torch.tensor([[1, 0]]))[0])


def test_sam_tiny_learns_and_every_part_gets_a_gradient():
    """Thirty steps on four phantoms: the loss of the mask falls, nothing is left without a gradient."""
    torch.manual_seed(0)
    phantoms = load("phantoms", "train", n=4)
    x = torch.from_numpy(phantoms.images).permute(0, 3, 1, 2) / 255.0
    target = torch.from_numpy(phantoms.masks == 2)
    model = create_model("sam_tiny").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    prompts = {"boxes": boxes_from_masks(target), "masks": torch.zeros(4, 1, 64, 64)}
    losses = []
    for step in range(30):
        some = prompts if step == 0 else {"boxes": prompts["boxes"]}
        masks, iou = model(model.transform.normalize(x), torch.arange(4), **some, multimask=step == 0)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(masks[:, 0], target.float())
        (loss + 0 * iou.sum()).backward()
        if step == 0:
            idle = {name for name, p in model.named_parameters() if p.grad is None}
            points = ("0", "1")  # no points, no "no mask" in this step
            assert idle == {f"prompt_encoder.point_embeddings.{i}.weight" for i in points} | {
                "prompt_encoder.not_a_point_embed.weight",
                "prompt_encoder.no_mask_embed.weight",
            }
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[1]


def test_encoder_reads_other_sizes():
    encoder = ImageEncoderViT(
        64, 8, 1, dim=32, depth=2, num_heads=2, out_chans=16, window=3, global_attn_indexes=(1,)
    )
    assert encoder(torch.rand(2, 1, 40, 88)).shape == (2, 16, 5, 11)
    assert torch.equal(encoder.positions((8, 8)), encoder.pos_embed)


# images


def test_grey_colour_and_alpha():
    transform, grey = LiteMedSamTransform(64), picture((50, 40))
    colour = np.repeat(grey[..., None], 3, axis=2)
    x = transform.image(grey)
    assert x.shape == (3, 64, 64) and x.dtype == torch.float32
    for same in (grey[..., None], colour, np.dstack([colour, picture((50, 40), 1)]), torch.from_numpy(grey)):
        assert torch.equal(transform.image(same), x)
    assert torch.equal(LiteMedSamTransform(64, in_chans=1).image(colour)[0], x[0])
    assert read_image(picture((5, 4, 3)), 1).shape == (5, 4, 1)
    assert torch.equal(transform.image(Image.fromarray(grey)), x)


def test_floats_are_like_bytes():
    grey = picture((30, 30))
    assert np.array_equal(to_uint8(grey / np.float32(255)), grey)
    assert np.array_equal(to_uint8(grey / 255.0), grey)
    assert np.array_equal(to_uint8(grey.astype(np.int64)), grey)


def test_sixteen_bits():
    """A wide range is cut to percentiles of what is above 0, so one hot pixel does not darken the rest."""
    deep = (picture((60, 50)).astype(np.uint16) + 300) * 7
    hot = deep.copy()
    hot[0, 0] = 65535
    assert np.array_equal(to_uint8(deep)[1:], to_uint8(hot)[1:])
    assert (to_uint8(deep).min(), to_uint8(deep).max()) == (0, 255)
    assert to_uint8(hot, "range")[1:].max() < 20
    assert np.array_equal(to_uint8(deep), to_uint8(deep.astype(np.int64)))
    colour = np.dstack([deep, deep, deep])
    alpha = np.full_like(deep, 65535)
    assert np.array_equal(read_image(np.dstack([colour, alpha]), 3), read_image(colour, 3))  # not a bright channel
    assert np.array_equal(to_uint8(deep), to_uint8(deep.astype(np.float32), "percentiles"))
    assert SamTransform(64).image(deep).shape == (3, 64, 64)


def test_hounsfield_units():
    """Soft tissue: -160 and below is black, 240 and above white; air and metal do not matter."""
    slice_ = np.linspace(-200, 300, 200).reshape(10, 20).astype(np.int16)
    slice_[0, 0], slice_[9, 19] = -1000, 3000
    grey = to_uint8(slice_, SOFT_TISSUE)
    assert (grey[slice_ <= -160] == 0).all() and (grey[slice_ >= 240] == 255).all()
    middle = (slice_ > -160) & (slice_ < 240)
    assert np.allclose(grey[middle], (slice_[middle] + 160) / 400 * 255, atol=1)
    x = MedSamTransform(32).image(slice_, window=SOFT_TISSUE)
    assert x.shape == (3, 32, 32) and (x.min(), x.max()) == (0, 1)


def test_constant_images_do_not_divide_by_zero():
    for transform in (SamTransform(32), MedSamTransform(32), LiteMedSamTransform(32)):
        x = transform.image(np.full((20, 30), 7, np.uint8))
        assert x.isfinite().all()
    assert (to_uint8(np.zeros((4, 4), np.uint16)) == 0).all()
    assert to_uint8(np.array([0, 300, 0]), "percentiles").tolist() == [0, 255, 0]


def test_padding_is_at_the_right_and_the_bottom():
    """LiteMedSAM pads after stretching to [0, 1], SAM after subtracting the mean: both with exact zeros."""
    bright = np.full((20, 40), 200, np.uint8)
    bright[5, 5] = 100
    for transform in (SamTransform(64), LiteMedSamTransform(64)):
        x = transform.image(bright)
        assert (x[:, 32:] == 0).all() and (x[:, 20:32] != 0).all()
    assert (MedSamTransform(64).image(bright)[:, 40:] > 0.9).all()  # squashed: no padding


@pytest.mark.parametrize(("old", "new"), [(10, 5), (5, 10), (7, 3), (3, 7), (1411, 256), (64, 256), (9, 9)])
def test_area_weights_share_out_every_pixel(old, new):
    weights = area_weights(old, new)
    assert torch.allclose(weights.sum(dim=1), torch.ones(new, dtype=torch.float64))
    assert torch.allclose(weights.sum(dim=0), torch.full((old,), new / old, dtype=torch.float64))


def test_area_is_the_mean_of_blocks_and_repeats_when_enlarging():
    image = torch.from_numpy(picture((3, 12, 8)))
    blocks = image.float().unfold(1, 4, 4).unfold(2, 2, 2).mean(dim=(3, 4))
    assert torch.equal(resize_area(image.float(), (3, 4)), blocks)
    assert torch.equal(resize_area(image, (3, 4)), blocks.round().to(torch.uint8))
    assert torch.equal(resize_area(image, (24, 16)), image.repeat_interleave(2, 1).repeat_interleave(2, 2))


# boxes


def test_boxes_from_masks():
    masks = torch.zeros(2, 20, 30)
    masks[0, 3:6, 10:21] = 1
    masks[1, 19, 29] = 2
    assert boxes_from_masks(masks).tolist() == [[10, 3, 20, 5], [29, 19, 29, 19]]
    assert boxes_from_masks(masks, 4).tolist() == [[6, 0, 24, 9], [25, 15, 30, 20]]
    assert check_boxes(boxes_from_masks(masks), (20, 30)).shape == (2, 4)


def test_a_box_over_everything_warns():
    with pytest.warns(UserWarning, match="covers the whole image"):
        check_boxes([[0, 0, 29, 19]], (20, 30))


# the predictor


@pytest.fixture
def predictor():
    return SamPredictor(randomise_(create_model("sam_tiny"), seed=1)).set_image(picture((90, 70)))


def test_prompts_of_all_kinds_in_original_pixels(predictor):
    assert not predictor.model.training and predictor.size == (90, 70)
    assert predictor.embedding.shape == (1, 64, 16, 16) and not predictor.embedding.requires_grad
    one = predictor.predict(points=[[30, 40]])
    assert isinstance(one, Prediction) and one.masks.shape == (1, 1, 90, 70) and one.masks.dtype == torch.bool
    several = predictor.predict(points=[[[30, 40]], [[5, 80]]], labels=[[1], [0]], multimask=True)
    assert several.masks.shape == (2, 3, 90, 70) and several.logits.shape == (2, 3, 64, 64)
    assert several.best().shape == (2, 90, 70)
    again = predictor.predict(points=[[30, 40], [60, 10]], labels=[1, 0], masks=several.logits[:1, :1])
    assert again.iou.shape == (1, 1)
    both = predictor.predict(points=[[[30, 40]]], boxes=[[10, 10, 60, 80]])
    boxed = predictor.predict(boxes=np.array([[10, 10, 60, 80]]))
    assert not torch.equal(both.logits, boxed.logits)


def test_coordinates_are_scaled_like_the_image(predictor):
    logits = predictor.predict(boxes=[[7, 18, 35, 45]]).logits
    scaled = torch.tensor([[7 * 50 / 70, 18 * 64 / 90, 35 * 50 / 70, 45 * 64 / 90]])
    expected, _ = predictor.model.decode(predictor.embedding, boxes=scaled)
    assert max_difference(logits, expected) < 1e-5
    assert predictor.model.transform.input_size(90, 70) == (64, 50)


def test_many_prompts_go_through_in_portions(predictor):
    boxes = torch.tensor([[i % 30, i % 40, 40.0 + i % 20, 60.0 + i % 25] for i in range(2 * CHUNK + 3)])
    many = predictor.predict(boxes=boxes)
    assert many.masks.shape[0] == len(boxes)
    alone = predictor.predict(boxes=boxes[-1:])
    assert max_difference(many.logits[-1:], alone.logits) < 1e-4


def test_the_best_mask_is_the_one_with_the_highest_guess():
    masks = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    masks[0, 2], masks[1, 0] = True, True
    prediction = Prediction(masks, torch.tensor([[0.1, 0.2, 0.9], [0.8, 0.2, 0.1]]), masks.float())
    assert prediction.best().all()


# volumes


class Thresholding(SamPredictor):
    """Segments what is bright inside the box, so that only the walk is tested; notes every box."""

    def set_image(self, image, window=None):
        self.image, self.size = torch.from_numpy(image), image.shape
        return self

    def predict(self, boxes):
        x0, y0, x1, y1 = check_boxes(boxes, self.size)[0].int().tolist()
        self.__dict__.setdefault("boxes", []).append((x0, y0, x1, y1))
        mask = torch.zeros(self.size, dtype=torch.bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = self.image[y0 : y1 + 1, x0 : x1 + 1] > 127
        return Prediction(mask[None, None], torch.ones(1, 1), mask[None, None].float())


def drifting_ball(depth=9):
    """A bright square that moves by two pixels from slice to slice; a distant one that must not be caught."""
    volume = np.full((depth, 40, 50), 10, np.uint8)
    for z in range(depth):
        volume[z, 10:15, 8 + 2 * z : 14 + 2 * z] = 200
        volume[z, 30:35, 20:25] = 220
    return volume


def test_the_walk_follows_the_object_both_ways():
    volume = drifting_ball()
    walker = Thresholding(create_model("sam_tiny"))
    result = walker.predict_volume(volume, (5, 5, 1, 45, 20, 7))
    expected = torch.from_numpy(volume == 200)
    expected[[0, 8]] = False  # beyond z0 and z1
    assert torch.equal(result, expected)
    middle, up, down = walker.boxes[0], walker.boxes[1], walker.boxes[4]
    assert middle == (5, 5, 45, 20)
    assert up == down == (13, 7, 24, 17)  # around columns 16 to 21, rows 10 to 14, three pixels wider
    assert len(walker.boxes) == 7


def test_empty_slices_are_stepped_over():
    volume = drifting_ball()
    volume[5] = 0  # not a single value: the model never sees it
    volume[2, 10:15] = 10  # the object is missing, the other one is there
    walker = Thresholding(create_model("sam_tiny"))
    result = walker.predict_volume(torch.from_numpy(volume), [5, 5, 0, 45, 20, 8])
    assert not result[5].any() and not result[2].any()
    assert all(result[z].sum() == 30 for z in (0, 1, 3, 4, 6, 7, 8))
    assert len(walker.boxes) == 8
    assert not Thresholding(create_model("sam_tiny")).predict_volume(0 * volume, (5, 5, 0, 45, 20, 8)).any()


def test_a_box_never_grows_beyond_the_first():
    volume = np.zeros((5, 40, 50), np.uint8)
    volume[:, 5:35, 5:45] = 255
    walker = Thresholding(create_model("sam_tiny"))
    walker.predict_volume(volume, (10, 10, 0, 30, 30, 4), grow=6)
    assert set(walker.boxes) == {(10, 10, 30, 30)}


def test_intensities_are_cut_over_the_whole_volume():
    volume = np.zeros((3, 20, 20), np.int16) - 1000
    volume[0, 5:9, 5:9], volume[1, 5:9, 5:9], volume[2, 5:9, 5:9] = 0, 100, 240
    volume[:, 0, 0] = 240
    walker = Thresholding(create_model("sam_tiny"))
    result = walker.predict_volume(volume, (3, 3, 0, 12, 12, 2), window=SOFT_TISSUE)
    assert [int(mask.sum()) for mask in result] == [0, 16, 16]  # 0 HU is 102 of 255: not bright
