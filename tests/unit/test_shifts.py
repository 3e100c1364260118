import pytest
import torch

from seminar_utils.evaluation.shifts import SEVERITIES, SHIFTS, apply_shift
from seminar_utils.runtime import SeminarError


def images(shape=(6, 1, 32, 32)):
    """Smooth blobs between 0.1 and 0.9 with some texture, on which every shift has something to do."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(shape[0], shape[1], 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, shape[-2:], mode="bicubic").clamp(0, 1)
    return 0.1 + 0.7 * smooth + 0.1 * torch.rand(shape, generator=generator)


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("shape", [(6, 1, 32, 32), (2, 3, 28, 45)])
def test_distance_grows_with_severity(name, shape):
    x = images(shape)
    distances = [(apply_shift(x, name, s, seed=3) - x).pow(2).mean().sqrt().item() for s in SEVERITIES]
    assert distances[0] > 0.005
    assert all(later > 1.05 * earlier for earlier, later in zip(distances, distances[1:])), distances


@pytest.mark.parametrize("name", SHIFTS)
def test_seeded_bounded_and_pure(name):
    x = images()
    before = x.clone()
    one, two = apply_shift(x, name, 3, seed=1), apply_shift(x, name, 3, seed=1)
    assert torch.equal(one, two) and torch.equal(x, before)
    assert one.shape == x.shape and one.dtype == x.dtype and 0 <= one.min() and one.max() <= 1
    if name in ("gaussian_noise", "poisson_noise", "bias_field"):
        assert not torch.equal(one, apply_shift(x, name, 3, seed=2))


@pytest.mark.parametrize("name", SHIFTS)
def test_a_batch_of_one_double_precision_and_a_large_image(name):
    assert apply_shift(images()[:1], name, 5).shape == (1, 1, 32, 32)
    assert apply_shift(images().double(), name, 5).dtype == torch.float64
    assert apply_shift(torch.rand(1, 1, 224, 160), name, 2).shape == (1, 1, 224, 160)


def test_blur_keeps_a_flat_image_and_the_mean():
    flat = torch.full((1, 1, 32, 32), 0.4)
    assert torch.allclose(apply_shift(flat, "blur", 5), flat, atol=1e-6)


def test_poisson_noise_has_the_variance_of_counts():
    x = torch.full((1, 1, 400, 400), 0.5)
    noise = apply_shift(x, "poisson_noise", 1, seed=0) - x
    assert noise.var().item() == pytest.approx(0.5 / 200, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((images(), "gama", 1), "did you mean 'gamma'"),
        ((images(), "gamma", 0), "severity"),
        ((images() * 255, "gamma", 1), r"\[0, 1\]"),
        ((torch.full((1, 1, 4, 4), float("nan")), "blur", 1), r"\[0, 1\]"),
        (((images() * 255).byte(), "gamma", 1), "uint8"),
        ((images()[0], "gamma", 1), "B, C, H, W"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(SeminarError, match=message):
        apply_shift(*arguments)
