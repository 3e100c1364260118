"""Real images of several laboratories: `load("wbc")`, `load("nuclei")`, and the domains inside MedMNIST."""

import os

import numpy as np
import pytest

from seminar_utils.data import REAL_SHIFTS, load, medmnist, real_shift
from seminar_utils.data.real_sets import split_source

needs_data = pytest.mark.skipif(
    not os.environ.get("SEMINAR_DATA"), reason="SEMINAR_DATA is not set: no real images here"
)


def pixels(count, side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """SEMINAR_DATA with small stand-ins: 41 + 12 + 13 cells and 30 + 6 + 4 images of nuclei."""
    for name in ("wbc", "nuclei", "medmnist", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SEMINAR_DATA", str(tmp_path))
    monkeypatch.setenv("SEMINAR_CACHE", str(tmp_path / "cache"))
    cells = {}
    for domain, count in {"d1": 41, "d2": 12, "d3": 13}.items():
        labels = (np.arange(count) % 5).astype(np.uint8)
        cells |= {f"{domain}_images": pixels(count, 96, count), f"{domain}_labels": labels}
        if domain != "d3":
            cells[f"{domain}_masks"] = (pixels(count, 96, count)[..., 0] % 3).astype(np.uint8)
    np.savez(tmp_path / "wbc" / "wbc3_96.npz", **cells)
    which = np.repeat([0, 1, 2], [30, 6, 4]).astype(np.uint8)
    masks = (pixels(40, 128)[..., 0] % 2).astype(np.uint8)
    np.savez(tmp_path / "nuclei" / "dsb2018_128.npz", images=pixels(40, 128), masks=masks, domain=which)
    return tmp_path


def numbers(image_set, name):
    """Which images of the stand-in file are in the set."""
    with np.load(f"{os.environ['SEMINAR_DATA']}/wbc/wbc3_96.npz") as stored:
        place = {image.tobytes(): i for i, image in enumerate(stored[name])}
    return [place[image.tobytes()] for image in image_set.images]


def test_the_source_is_split_and_the_rare_class_is_left_out(folder):
    sets = {split: load("wbc", split) for split in ("train", "val", "test")}
    found = sum((numbers(s, "d1_images") for s in sets.values()), [])
    assert sorted(found) == [i for i in range(41) if i % 5 != 4]
    assert [len(s) for s in sets.values()] == [17, 8, 8] and sets["val"].card.splits["test"] == 8
    for s in sets.values():
        assert set(s.labels) == {0, 1, 2, 3} and set(s.domains.tolist()) == {"d1"}
        assert np.array_equal(s.masks, s.images[..., 0] % 3)  # the masks go with their images
        assert np.array_equal(s.labels, np.array(numbers(s, "d1_images")) % 5)


def test_the_other_domains_are_for_testing_as_a_whole(folder):
    d2, d3 = load("wbc", "test", domain="d2"), load("wbc", "test", domain="d3")
    assert (len(d2), len(d3)) == (10, 11) and d2.masks is not None and d3.masks is None
    assert set(d3.domains.tolist()) == {"d3"} and d2.card.splits == {"test": 10}


def test_nuclei_come_by_name_or_number_with_their_masks(folder):
    sets = [load("nuclei", split) for split in ("train", "val", "test")]
    assert [len(s) for s in sets] == [18, 6, 6]
    for name, number, count in [("histology", 1, 6), ("brightfield", 2, 4)]:
        by_name, by_number = load("nuclei", "test", domain=name), load("nuclei", "test", domain=number)
        assert np.array_equal(by_name.images, by_number.images) and len(by_name) == count
        assert np.array_equal(by_name.masks, by_name.images[..., 0] % 2) and set(by_name.domains.tolist()) == {
            name
        }


def test_cards_say_licence_and_that_the_file_is_no_official_one(folder):
    for name in ("wbc", "nuclei"):
        card = load(name, "test").card
        assert "NO OFFICIAL DISTRIBUTION" in card.note and "https://" in card.source and card.licence
    assert "GPL-3.0" in load("wbc", "test").card.licence and "Zheng" in load("wbc", "test").card.source


def test_a_split_is_fixed_stratified_and_keeps_twins_together():
    labels = np.repeat([0, 1, 2], [50, 20, 5])
    images = pixels(75, 4)
    split = split_source(images, labels)
    for label, counts in {0: [30, 10, 10], 1: [12, 4, 4], 2: [3, 1, 1]}.items():
        assert np.bincount(split[labels == label]).tolist() == counts
    assert np.flatnonzero(split == 2)[:6].tolist() == [2, 3, 11, 13, 15, 20]  # for ever, with every numpy
    for one in np.flatnonzero(split[:10]):  # val and test
        twins = images.copy()
        twins[40] = twins[one]
        again = split_source(twins, labels)
        assert again[40] == again[one] == split[one]


@needs_data
def test_the_real_files_have_the_documented_counts():
    counts = {split: np.bincount(load("wbc", split).labels).tolist() for split in ("train", "val", "test")}
    assert np.sum(list(counts.values()), axis=0).tolist() == [176, 53, 48, 22]
    assert np.bincount(load("wbc", "test", domain="d2").labels).tolist() == [33, 37, 15, 12]
    assert np.bincount(load("wbc", "test", domain="d3").labels).tolist() == [202, 33, 20, 84]
    assert sum(len(load("nuclei", split)) for split in ("train", "val", "test")) == 541
    assert [len(load("nuclei", "test", domain=k)) for k in (1, 2)] == [107, 16]


# --- MedMNIST's own domains ------------------------------------------------------------------------------


def put(folder, name, channels, classes):
    """A file in the official layout: 6 + 4 + 5 images of 28 x 28."""
    arrays = {}
    for split, count in {"train": 6, "val": 4, "test": 5}.items():
        image = pixels(count, 28, count)
        arrays[f"{split}_images"] = image if channels == 3 else image[..., 0]
        arrays[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    np.savez(folder / "medmnist" / medmnist.file_name(name), **arrays)


def test_pathmnist_is_tested_in_another_centre(folder):
    put(folder, "pathmnist", 3, 9)
    centres = [set(load("pathmnist", split).domains.tolist()) for split in ("train", "val", "test")]
    assert centres == [{"NCT-CRC-HE-100K"}, {"NCT-CRC-HE-100K"}, {"CRC-VAL-HE-7K"}]
    shift = real_shift("pathmnist")
    assert len(shift.load_source("val")) == 4 and len(shift.load_target("CRC-VAL-HE-7K")) == 5
    assert "different clinical center" in load("pathmnist", "test").card.source


def test_the_organ_sets_show_the_same_classes_in_three_planes(folder):
    for letter in "acs":
        put(folder, f"organ{letter}mnist", 1, 11)
    shift = real_shift("organ")
    source = shift.load_source("test")
    assert source.images.shape == (5, 28, 28, 1) and set(source.domains.tolist()) == {"axial"}
    for plane in ("coronal", "sagittal"):
        target = shift.load_target(plane)
        assert target.class_names == source.class_names and set(target.domains.tolist()) == {plane}
    for name in ("organamnist", "organcmnist", "organsmnist", "pathmnist"):
        words = medmnist._info_module().INFO[name]["description"].lower()
        assert all(domain.lower() in words for domain in medmnist.DOMAINS[name].values())


def test_every_real_shift_has_a_source_and_targets(folder):
    assert set(REAL_SHIFTS) == {"wbc", "nuclei", "pathmnist", "organ"}
    for name in ("wbc", "nuclei"):
        shift = real_shift(name)
        source = shift.load_source("train")
        for target in shift.targets:
            images = shift.load_target(target)
            assert images.class_names == source.class_names and set(images.domains.tolist()) == {target}
