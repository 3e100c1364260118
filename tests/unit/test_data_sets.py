"""ImageSet: what it gives, how it samples; `load`, `available`, scikit-image's pictures, MedMNIST on disk."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from seminar_utils.data import available, load, medmnist
from seminar_utils.data.dataset import Card, ImageSet
from seminar_utils.runtime import SeminarError


def make(n=40, height=8, width=8, channels=1, classes=3, **changes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
    names = tuple(f"class {k}" for k in range(classes))
    card = Card("toy", "Toy", "here", "MIT", "noise", {"train": n})
    parts = {"name": "toy", "split": "train", "images": images, "labels": np.arange(n) % classes}
    return ImageSet(**(parts | {"class_names": names, "card": card} | changes))


# --- tensors -------------------------------------------------------------------------------------------


def test_torch_gives_the_pixels_in_the_unit_interval():
    s = make(channels=3)
    x, y = s.torch()
    assert x.shape == (40, 3, 8, 8) and x.dtype == torch.float32 and y.dtype == torch.int64
    assert torch.equal((x * 255).round().to(torch.uint8), torch.as_tensor(s.images).permute(0, 3, 1, 2))
    assert y.tolist() == s.labels.tolist()


def test_resizing_averages_instead_of_skipping():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[None, :, :, None]
    s = make(n=1, images=board, labels=np.zeros(1, np.int64))
    x, _ = s.torch(size=16)
    assert x.shape == (1, 1, 16, 16)
    assert torch.allclose(x, torch.full_like(x, 0.5), atol=0.02)
    assert s.torch(size=100)[0].shape == (1, 1, 100, 100)


def test_channels_repeat_or_become_luminance():
    grey, _ = make(channels=1).torch(channels=3)
    assert grey.shape[1] == 3 and torch.equal(grey[:, 0], grey[:, 2])
    colour = make(channels=3)
    x, _ = colour.torch(channels=1)
    expected = colour.images.astype(float) @ [0.299, 0.587, 0.114] / 255
    assert np.allclose(x[:, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 3.5}, {"channels": 2}])
def test_sizes_and_channels_that_make_no_sense(options):
    with pytest.raises(SeminarError):
        make().torch(**options)


# --- subsets and loaders -------------------------------------------------------------------------------


def test_a_subset_takes_everything_along():
    extras = {
        "masks": np.arange(40, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2),
        "captions": tuple(map(str, range(40))),
        "domains": np.array(["A", "B"] * 20),
        "factors": {"size": np.arange(40)},
    }
    s = make(**extras).subset([5, 2, -1])
    assert s.captions == ("5", "2", "39") and s.domains.tolist() == ["B", "A", "B"]
    assert s.factors["size"].tolist() == s.masks[:, 0, 0].tolist() == [5, 2, 39]
    assert s.labels.tolist() == [2, 2, 0]
    assert len(make().subset(make().labels == 1)) == 13


@pytest.mark.parametrize("indices", [[], [40], [0.5], [[1]], np.zeros(39, bool), np.zeros(40, bool)])
def test_subsets_that_cannot_be(indices):
    with pytest.raises(SeminarError):
        make().subset(indices)


def test_the_loader_covers_the_set_once_in_order():
    s = make()
    batches = list(s.loader(16))
    assert [len(y) for _, y in batches] == [16, 16, 8]
    assert torch.equal(torch.cat([x for x, _ in batches]), s.torch()[0])
    assert [len(y) for _, y in s.loader(16, drop_last=True)] == [16, 16]
    assert [len(y) for _, y in s.loader(1)] == [1] * 40
    assert next(iter(s.loader(4, size=16, channels=3)))[0].shape == (4, 3, 16, 16)


def test_shuffling_is_seeded_and_changes_with_the_epoch():
    numbered = make(n=40, classes=40)
    loader = numbered.loader(16, shuffle=True, seed=3)
    first, second = (torch.cat([y for _, y in loader]).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(40)) and first != second
    assert torch.cat([y for _, y in numbered.loader(16, shuffle=True, seed=3)]).tolist() == first
    assert torch.cat([y for _, y in numbered.loader(16, shuffle=True, seed=4)]).tolist() != first


def test_balanced_sampling_ignores_the_prevalence():
    s = make(n=900, labels=np.repeat([0, 1, 2], [800, 90, 10]))
    y = torch.cat([y for _, y in s.loader(64, balanced=True, seed=1)])
    assert len(y) == 900
    assert np.abs(y.bincount().numpy() / 900 - 1 / 3).max() < 0.06
    again = torch.cat([y for _, y in s.loader(64, balanced=True, seed=1)])
    assert torch.equal(y, again)


def test_balanced_sampling_needs_single_labels_and_a_class_may_be_absent():
    with pytest.raises(SeminarError, match="one label per image"):
        make(labels=np.ones((40, 3), np.int64)).loader(4, balanced=True)
    some = make(labels=np.arange(40) % 2)  # class 2 has no image
    assert set(torch.cat([y for _, y in some.loader(8, balanced=True)]).tolist()) == {0, 1}


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_batch_sizes_that_cannot_be(batch_size):
    with pytest.raises(SeminarError, match="batch_size"):
        make().loader(batch_size)


# --- names -----------------------------------------------------------------------------------------------


def test_every_name_is_there():
    names = available()
    assert {"phantoms", "retina", "cell", "wbc", "nuclei", "pneumoniamnist", "chestmnist"} <= set(names)
    assert len(names) == 1 + 4 + 2 + 12 and not any("3d" in name for name in names)


def test_unknown_names_get_the_nearest():
    with pytest.raises(SeminarError, match="did you mean 'phantoms'"):
        load("phantomz")
    with pytest.raises(SeminarError, match="'pneumoniamnist'"):
        load("pneumonia_mnist")
    with pytest.raises(SeminarError, match="unknown split 'tests'.*'test'"):
        load("retina", "tests")
    with pytest.raises(SeminarError, match=r"takes the options \['size'\], got \['scanner'\]"):
        load("bloodmnist", scanner="A")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("retina", (1, 1411, 1411, 3)),
        ("immunohistochemistry", (1, 512, 512, 3)),
        ("cell", (1, 660, 550, 1)),
        ("microaneurysms", (1, 102, 102, 1)),
    ],
)
def test_scikit_images_pictures_work_without_network(name, shape, no_network):
    s = load(name)
    assert s.images.shape == shape and s.class_names == (name,) and not s.card.synthetic
    assert s.card.licence and s.images.std() > 5


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", refuse)


# --- MedMNIST ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.environ.get("SEMINAR_DATA"), reason="SEMINAR_DATA is not set: no real images here")
@pytest.mark.parametrize(("split", "counts"), [("train", [1214, 3494]), ("val", [135, 389]), ("test", [234, 390])])
def test_pneumoniamnist_has_the_official_counts(split, counts):
    s = load("pneumoniamnist", split)
    assert s.images.shape[1:] == (28, 28, 1) and np.bincount(s.labels).tolist() == counts
    assert s.class_names == ("normal", "pneumonia")
    assert s.card.splits == {"train": 4708, "val": 524, "test": 624}
    assert "md5" in s.card.note


@pytest.mark.parametrize(("size", "key"), [(28, "MD5"), (64, "MD5_64"), (128, "MD5_128"), (224, "MD5_224")])
def test_every_2d_set_and_size_has_an_address_and_a_hash(size, key):
    for name in medmnist.medmnist_names():
        info = medmnist._info_module().INFO[name]
        assert info[medmnist._key("url", size)].endswith(f"/{medmnist.file_name(name, size)}?download=1")
        assert len(info[key]) == 32


def test_every_2d_set_has_a_modality():
    assert set(medmnist.MODALITIES) == set(medmnist.medmnist_names())


def test_reading_the_table_imports_no_torchvision():
    heavy = "[m for m in ('torch', 'torchvision') if m in sys.modules]"
    code = f"import sys, seminar_utils.data as d; d.available(); print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
