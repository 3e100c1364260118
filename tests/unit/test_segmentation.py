import numpy as np
import pytest
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from seminar_utils.evaluation.checks import Undefined
from seminar_utils.evaluation.segmentation import (
    boundary,
    dice,
    hd95,
    iou,
    mean_surface_distance,
    per_class_dice,
    surface_distances,
)

RNG = np.random.default_rng(0)


def disc(centre, radius, shape=(61, 47)):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


A, B = disc((30, 20), 12), disc((33, 24), 10)
EMPTY = np.zeros_like(A)


def test_overlap_by_hand():
    target, predicted = np.array([1, 1, 1, 0]), np.array([0, 1, 1, 1])
    assert dice(target, predicted) == pytest.approx(4 / 6) and iou(target, predicted) == pytest.approx(2 / 4)
    assert dice(A, A) == iou(A, A) == 1 and dice(A, EMPTY) == iou(A, EMPTY) == 0
    assert iou(A, B) == pytest.approx(dice(A, B) / (2 - dice(A, B)))


@pytest.mark.parametrize("spacing", [1.0, (0.7, 2.5)])
def test_distances_are_those_of_all_pairs(spacing):
    steps = np.broadcast_to(spacing, 2)
    points = [np.argwhere(boundary(mask)) * steps for mask in (A, B)]
    table = cdist(*points)  # (cells of A's boundary, cells of B's)
    there, back = table.min(1), table.min(0)
    found = surface_distances(A, B, spacing)
    np.testing.assert_allclose(found[0], there)
    np.testing.assert_allclose(found[1], back)
    assert hd95(A, B, spacing) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert mean_surface_distance(A, B, spacing) == pytest.approx(np.r_[there, back].mean())


def test_the_hundredth_percentile_is_scikit_image_s_hausdorff_distance():
    assert hd95(A, B, percentile=100) == pytest.approx(hausdorff_distance(boundary(A), boundary(B)))


def test_a_shifted_cube_in_three_axes():
    cube = np.zeros((12, 14, 16), bool)
    cube[3:8, 3:8, 3:8] = True
    shifted = np.roll(cube, 2, axis=0)
    assert hd95(cube, shifted, spacing=(3.0, 1.0, 1.0)) == 6
    assert dice(cube, shifted) == pytest.approx(3 / 5)


def test_a_mask_at_the_edge_of_the_image_has_a_boundary_there():
    full = np.ones((5, 7), bool)
    assert boundary(full).sum() == 5 * 7 - 3 * 5
    assert mean_surface_distance(full, full) == 0


def test_one_far_cell_is_seen_by_distances_and_hardly_by_dice():
    spiked = A.copy()
    spiked[0, 46] = True
    assert dice(A, spiked) > 0.99 and hd95(A, spiked, percentile=100) > 25
    assert hd95(A, spiked) < 1  # and the 95th percentile forgives it


def test_empty_masks_are_undefined_where_the_formula_divides_by_nothing():
    for value in (dice(EMPTY, EMPTY), iou(EMPTY, EMPTY)):
        assert isinstance(value, Undefined) and "both masks are empty" in value.reason
    for metric in (hd95, mean_surface_distance):
        assert "empty prediction" in metric(A, EMPTY).reason
        assert "empty target" in metric(EMPTY, A).reason
        assert "target and an empty prediction" in metric(EMPTY, EMPTY).reason


def test_per_class_dice_leaves_an_absent_class_undefined():
    target, predicted = np.array([[0, 1], [2, 2]]), np.array([[0, 1], [2, 0]])
    values = per_class_dice(target, predicted, 4)
    assert values[:3] == pytest.approx([2 / 3, 1, 2 / 3]) and isinstance(values[3], Undefined)
