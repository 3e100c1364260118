from pathlib import Path

import numpy as np
import pytest
import torch

from seminar_utils.data import load
from seminar_utils.evaluation.physics import fields, stain
from seminar_utils.evaluation.physics.draws import Draws
from seminar_utils.evaluation.shifts import (
    COLOUR_ONLY,
    SETS,
    SEVERITIES,
    SHIFTS,
    apply_shift,
    shift_conditions,
    shift_distance,
)

REFERENCE = np.load(Path(__file__).with_name("shifts_reference.npz"))  # made before the shifts were moved
FIRST_SIX = ["contrast", "gamma", "gaussian_noise", "poisson_noise", "blur", "bias_field"]
WITHOUT_DRAWS = {"contrast", "gamma", "blur", "depth_gain", "haze", "jpeg", "pixelate"}


def images(shape=(6, 1, 32, 32)):
    """Smooth blobs between 0.1 and 0.9 with some texture, on which every shift has something to do."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(shape[0], shape[1], 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, shape[-2:], mode="bicubic").clamp(0, 1)
    return 0.1 + 0.7 * smooth + 0.1 * torch.rand(shape, generator=generator)


def fit_for(name, shape):
    """Images of the shape, in colour where the shift needs it."""
    return images((shape[0], 3, *shape[2:]) if name in COLOUR_ONLY else shape)


@pytest.fixture(scope="module")
def pictures():
    """Phantoms, an X-ray-like grey picture, tissue and fundus, at odd sizes."""
    tissue = load("immunohistochemistry").torch()[0]  # (1, 3, 512, 512)
    crops = torch.cat([tissue[..., row : row + 61, row : row + 74] for row in (100, 250, 400)])  # (3, 3, 61, 74)
    return [
        load("phantoms", "test", n=4).torch(size=28)[0],
        load("phantoms", "test", n=3, scanner="C").torch()[0],
        load("microaneurysms").torch()[0][..., :90],
        crops,
        load("retina").torch(size=96)[0],
    ]


# --- severity --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("shape", [(6, 1, 32, 32), (2, 3, 28, 45)])
def test_distance_grows_with_severity(name, shape):
    x = fit_for(name, shape)
    distances = [shift_distance(x, apply_shift(x, name, s, seed=3)).mean().item() for s in SEVERITIES]
    assert distances[0] > 0.005
    assert all(later > 1.05 * earlier for earlier, later in zip(distances, distances[1:])), distances


@pytest.mark.parametrize("name", SHIFTS)
def test_every_picture_moves_further_with_each_severity(name, pictures):
    for x in pictures:
        if name in COLOUR_ONLY and x.shape[1] == 1:
            continue
        steps = torch.stack([shift_distance(x, apply_shift(x, name, s, seed=1)) for s in SEVERITIES])  # (5, B)
        assert (steps[0] > 0.001).all() and (steps[1:] > steps[:-1]).all(), steps


# --- seeds and batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIFTS)
def test_seeded_bounded_and_pure(name):
    x = fit_for(name, (6, 1, 32, 32))
    before = x.clone()
    one, two = apply_shift(x, name, 3, seed=1), apply_shift(x, name, 3, seed=1)
    assert torch.equal(one, two) and torch.equal(x, before)
    assert one.shape == x.shape and one.dtype == x.dtype and 0 <= one.min() and one.max() <= 1
    assert torch.equal(one, apply_shift(x, name, 3, seed=2)) == (name in WITHOUT_DRAWS)


@pytest.mark.parametrize("name", SHIFTS)
def test_images_have_their_own_draw_whatever_the_batch(name):
    x = fit_for(name, (7, 1, 20, 24))
    whole = apply_shift(x, name, 4, seed=5)
    parts = [apply_shift(x[i], name, 4, seed=5, index=i) for i in torch.arange(7).split(3)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
    shuffled = torch.tensor([4, 0, 6, 2])
    assert torch.allclose(apply_shift(x[shuffled], name, 4, seed=5, index=shuffled), whole[shuffled], atol=1e-6)
    twins = apply_shift(x[:1].expand(7, -1, -1, -1), name, 4, seed=5)
    same = [torch.allclose(twins[0], other, atol=1e-6) for other in twins[1:]]
    assert all(same) == (name in WITHOUT_DRAWS)


def test_neighbouring_seeds_images_and_shifts_share_no_numbers():
    x = torch.zeros(1)
    first = Draws(0, [0, 1, 2], "a").normal(x, 50)
    others = [Draws(1, [0, 1, 2], "a").normal(x, 50), Draws(0, [0, 1, 2], "b").normal(x, 50)]
    rows = torch.cat([first, *others])  # (9, 50)
    assert (torch.corrcoef(rows) - torch.eye(9)).abs().max() < 0.5


@pytest.mark.parametrize("name", SHIFTS)
def test_a_batch_of_one_double_precision_a_large_and_a_tiny_image(name):
    assert apply_shift(fit_for(name, (6, 1, 32, 32))[:1], name, 5).shape[0] == 1
    assert apply_shift(fit_for(name, (2, 1, 32, 32)).double(), name, 5).dtype == torch.float64
    large = torch.rand(1, 3, 224, 160)
    assert apply_shift(large, name, 2).shape == large.shape
    for shape in [(2, 3, 2, 3), (1, 3, 1, 1)]:
        assert apply_shift(torch.rand(shape), name, 5).isfinite().all()
    assert apply_shift(large[:0], name, 2).shape == (0, 3, 224, 160)


@pytest.mark.parametrize("key", [key for key in REFERENCE.files if key.count(":") == 2 and "order" not in key])
def test_the_first_six_give_the_numbers_they_always_gave(key):
    tag, name, severity = key.split(":")
    out = apply_shift(torch.from_numpy(REFERENCE[f"{tag}:in"]), name, int(severity), seed=3)
    np.testing.assert_allclose(out.numpy(), REFERENCE[key], rtol=0, atol=2e-7)


def test_lessons_take_the_first_six_by_their_place():
    assert list(SHIFTS)[:6] == FIRST_SIX


# --- the physics -----------------------------------------------------------------------------------------


def test_blur_keeps_a_flat_image_and_the_mean():
    flat = torch.full((1, 1, 32, 32), 0.4)
    assert torch.allclose(apply_shift(flat, "blur", 5), flat, atol=1e-6)


def test_poisson_noise_has_the_variance_of_counts():
    x = torch.full((1, 1, 400, 400), 0.5)
    noise = apply_shift(x, "poisson_noise", 1, seed=0) - x
    assert noise.var().item() == pytest.approx(0.5 / 200, rel=0.03)


def test_rician_noise_lifts_the_background_and_is_normal_in_the_signal():
    dark, bright = torch.zeros(1, 1, 300, 300), torch.full((1, 1, 300, 300), 0.5)
    lifted = apply_shift(dark, "rician_noise", 2)  # Rayleigh: mean sigma * sqrt(pi / 2)
    assert lifted.mean().item() == pytest.approx(0.07 * (torch.pi / 2) ** 0.5, rel=0.02)
    noisy = apply_shift(bright, "rician_noise", 2)  # far from zero: sqrt(A^2 + sigma^2) and sigma
    assert noisy.mean().item() == pytest.approx((0.5**2 + 0.07**2) ** 0.5, rel=0.01)
    assert noisy.std().item() == pytest.approx(0.07, rel=0.05)


def test_full_speckle_has_the_contrast_of_a_rayleigh_amplitude():
    x = torch.full((4, 1, 256, 256), 0.2)  # so low that little is clipped
    seen = apply_shift(x, "speckle", 5)
    assert (seen.std() / seen.mean()).item() == pytest.approx((4 / torch.pi - 1) ** 0.5, rel=0.1)


def test_exposure_is_a_gain_and_saturates():
    x = images((12, 1, 16, 16)) * 0.8
    stops = (apply_shift(x, "exposure", 3) / x).flatten(1).median(dim=1).values.log2().flatten()  # (12,)
    assert (0.34 < stops.abs()).all() and (stops.abs() < 0.51).all() and stops.min() < 0 < stops.max()
    assert apply_shift(torch.full((9, 1, 2, 2), 0.59), "exposure", 5).max() == 1
    assert apply_shift(torch.full((9, 1, 2, 2), 0.9), "exposure", 5).max() < 0.9


def test_a_bias_field_is_smooth_and_positive():
    x = torch.full((3, 1, 64, 64), 0.3)
    field = (apply_shift(x, "mr_bias_field", 3) / x).log()
    assert field.abs().amax(dim=(-2, -1)).flatten().tolist() == pytest.approx([0.55] * 3, abs=1e-3)
    assert field.diff(dim=-1).abs().max() < 0.1


def test_ghosts_lie_a_fraction_of_the_field_away_and_wrap_around():
    x = torch.zeros(6, 1, 24, 8)
    x[:, :, 2, 3] = 1
    seen = apply_shift(x, "ghosting", 3)
    found = set()
    for image in seen[:, 0]:
        rows = image[:, 3].nonzero().flatten().tolist()
        found.add(tuple(rows))
        assert image.sum().item() == pytest.approx(1) and image[:, 4].abs().max() == 0
    assert found <= {(2, 14), (2, 10, 18), (2, 8, 20)} and len(found) > 1


def test_a_window_keeps_its_centre_and_a_kernel_a_flat_image():
    flat = torch.full((5, 1, 16, 16), 0.5)
    centre = 0.5 - (apply_shift(flat, "ct_window", 3) - 0.5) / (
        1 / 0.69 - 1
    )  # (5, 1, 16, 16): y = c + (x - c) / w
    assert 0.34 < centre.min() and centre.max() < 0.66 and centre.flatten(1).std(dim=1).max() < 1e-5
    assert len(centre[:, 0, 0, 0].unique()) == 5
    assert (apply_shift(flat, "ct_kernel", 1) - flat).abs().mean() < 0.02  # noise only
    edge = torch.zeros(1, 1, 64, 64)
    edge[..., 32:] = 0.5
    assert apply_shift(edge + 0.2, "ct_kernel", 3)[..., 32].mean() > 0.8  # overshoot


def test_dye_amounts_are_those_that_were_mixed():
    colours = torch.tensor(stain.COLOURS)[:2]
    colours = colours / colours.norm(dim=1, keepdim=True)
    amounts = torch.rand(2, 2, 5, 5)
    x = torch.exp(-torch.einsum("bdhw,dc->bchw", amounts, colours))
    assert torch.allclose(stain.dye_amounts(x)[0], amounts, atol=1e-4)


def test_stain_jitter_moves_along_the_dyes_only():
    x = images((3, 3, 12, 12))
    density = -(apply_shift(x, "stain_jitter", 2) / x).log()  # change of optical density, (3, 3, 12, 12)
    colours = torch.tensor(stain.COLOURS)
    third = torch.linalg.cross(colours[0], colours[1])
    inside = (apply_shift(x, "stain_jitter", 2) < 1).all(dim=1)
    assert torch.einsum("bchw,c->bhw", density, third)[inside].abs().max() < 1e-5


@pytest.mark.parametrize(
    "name",
    ["rician_noise", "speckle", "ct_kernel", "mr_bias_field", "ghosting", "vignette", "illumination", "haze"],
)
def test_a_grey_shift_leaves_a_grey_picture_grey(name):
    x = images((2, 1, 24, 24)).repeat(1, 3, 1, 1)
    out = apply_shift(x, name, 4)
    assert torch.allclose(out[:, 0], out[:, 1], atol=1e-6) and torch.allclose(out[:, 0], out[:, 2], atol=1e-6)


def test_light_falls_off_from_the_middle_and_with_depth():
    x = torch.full((2, 3, 33, 33), 0.9)
    fundus = apply_shift(x, "vignette", 3)
    assert fundus[..., 16, 16].min() > 0.8 and fundus[..., 0, 0].max() < 0.65
    rows = apply_shift(x, "depth_gain", 2)[0, 0, :, 0]
    assert rows[0].item() == pytest.approx(0.9) and rows[-1].item() == pytest.approx(0.9 * np.exp(-0.7), rel=1e-4)


def test_jpeg_is_pillow_s_and_pixels_become_flat_squares():
    x = images((2, 3, 40, 40))
    out = apply_shift(x, "jpeg", 1)
    assert torch.allclose(out * 255, (out * 255).round(), atol=1e-3) and not torch.equal(out, x)
    coarse = apply_shift(images((1, 1, 30, 30)), "pixelate", 5)[0, 0]
    assert coarse.unique().numel() <= 9 and torch.equal(coarse[:10, :10], coarse[0, 0].expand(10, 10))


def test_a_smooth_field_is_scaled_to_one():
    field = fields.smooth_field(torch.zeros(4, 3, 20, 30), Draws(0, range(4)))
    assert field.shape == (4, 1, 20, 30) and field.abs().amax(dim=(1, 2, 3)).tolist() == pytest.approx([1] * 4)


# --- sets ------------------------------------------------------------------------------------------------


def test_named_sets_hold_known_shifts_and_all_holds_all():
    for name, chosen in SETS.items():
        assert set(chosen.shifts) <= set(SHIFTS) and set(chosen.severities) <= set(SEVERITIES), name
    assert len(shift_conditions("all")) == 5 * len(SHIFTS)
    assert not {shift for shift, _ in shift_conditions("all", channels=1)} & COLOUR_ONLY
    assert set(shift_conditions("xray-light")) < set(shift_conditions("xray"))
