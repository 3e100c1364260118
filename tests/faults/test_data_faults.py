"""Broken data: each is one clear SeminarError, or the documented behaviour."""

import http.server
import threading
import warnings

import numpy as np
import pytest

from seminar_utils.data import load, medmnist, skimage_sets
from seminar_utils.data.dataset import Card, ImageSet
from seminar_utils.runtime import SeminarError

CARD = Card("toy", "Toy", "here", "MIT", "noise", {"train": 4})
IMAGES = np.zeros((4, 8, 8, 1), np.uint8)
LABELS = np.arange(4)
NAN = np.full((4, 8, 8, 1), np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": IMAGES[..., 0]}, r"shape \(N, H, W, C\)"),
        ({"images": IMAGES.repeat(2, 3)}, "C 1 or 3"),
        ({"images": [[0]]}, "got list"),
        ({"images": IMAGES.astype(np.float32)}, "uint8 in 0..255, got float32"),
        ({"images": NAN}, "NaN pixels"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "the split is empty"),
        ({"labels": LABELS[:3]}, "3 labels for 4 images"),
        ({"labels": LABELS + 1}, r"labels lie in 0..3, got 1..4"),
        ({"labels": LABELS - 1}, r"labels lie in 0..3, got -1..2"),
        ({"labels": LABELS.astype(np.int32)}, "int64"),
        ({"labels": np.zeros((4, 3), np.int64)}, "3 columns for 4 class names"),
        ({"labels": np.full((4, 4), 2)}, "labels lie in 0..1"),
        ({"class_names": ("a", "a", "b", "c")}, "different names"),
        ({"class_names": ["a", "b", "c", "d"]}, "tuple"),
        ({"masks": np.zeros((4, 8, 7), np.uint8)}, "masks are uint8"),
        ({"masks": np.zeros((4, 8, 8), bool)}, "masks are uint8"),
        ({"captions": ("one",)}, "captions has 1 entries for 4 images"),
        ({"domains": np.array(["A"])}, "domains has 1"),
        ({"factors": {"size": np.arange(3)}}, "size has 3"),
    ],
)
def test_a_malformed_set_is_refused(changes, words):
    parts = {"name": "toy", "split": "train", "images": IMAGES, "labels": LABELS}
    parts |= {"class_names": ("a", "b", "c", "d"), "card": CARD} | changes
    with pytest.raises(SeminarError, match=words):
        ImageSet(**parts)


# --- files of MedMNIST -----------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Three empty places where a MedMNIST file may lie, in the order in which they are searched."""
    found = {name: tmp_path / name for name in ("given", "cache", "home")}
    for folder in ("given/medmnist", "cache/medmnist", "home"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("SEMINAR_DATA", str(found["given"]))
    monkeypatch.setenv("SEMINAR_CACHE", str(found["cache"]))
    monkeypatch.setattr(medmnist._info_module(), "DEFAULT_ROOT", str(found["home"]))
    return [found["given"] / "medmnist", found["cache"] / "medmnist", found["home"]]


def arrays(n=6, side=28, colour=False, labels=1, **changes):
    shape = (n, side, side, 3) if colour else (n, side, side)
    parts = {f"{split}_images": np.zeros(shape, np.uint8) for split in ("train", "val", "test")}
    parts |= {f"{split}_labels": np.ones((n, labels), np.uint8) for split in ("train", "val", "test")}
    return {key: value for key, value in (parts | changes).items() if value is not None}


def put(folder, name="pneumoniamnist", size=28, **options):
    path = folder / medmnist.file_name(name, size)
    np.savez_compressed(path, **arrays(**options))
    return path


def test_the_three_places_are_searched_in_order(places):
    for folder, count in zip(reversed(places), (3, 4, 5)):
        put(folder, n=count)
        assert len(load("pneumoniamnist")) == count


def test_a_file_of_ones_own_is_accepted_and_the_card_says_so(places):
    put(places[0])
    assert "NOT the official file" in load("pneumoniamnist").card.note


def test_the_official_file_is_recognised(places, monkeypatch):
    path = put(places[0])
    monkeypatch.setitem(medmnist._info_module().INFO["pneumoniamnist"], "MD5", medmnist._md5(path, 0.5))
    assert load("pneumoniamnist").card.note.startswith("the official file")


def test_colour_sizes_and_several_labels(places):
    put(places[0], "bloodmnist", 64, side=64, colour=True)
    put(places[0], "chestmnist", labels=14)
    assert load("bloodmnist", size=64).images.shape == (6, 64, 64, 3)
    chest = load("chestmnist")
    assert chest.labels.shape == (6, 14) and chest.multi_label and len(chest.class_names) == 14


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_labels": None}, r"lacks the arrays \['val_labels'\]"),
        ({"train_images": np.zeros((6, 28, 28), np.float32)}, "uint8 in 0..255, got float32"),
        ({"train_images": np.full((6, 28, 28), np.nan)}, "NaN pixels"),
        ({"train_images": np.zeros((6, 32, 32), np.uint8)}, r"\(N, 28, 28, 1\), got \(6, 32, 32, 1\)"),
        ({"train_images": np.zeros((6, 28), np.uint8)}, r"\(N, 28, 28, 1\)"),
        ({"train_labels": np.full((6, 1), 2)}, "labels lie in 0..1, got 2..2"),
        ({"train_labels": np.ones((5, 1), np.uint8)}, "5 labels for 6 images"),
        ({"train_labels": np.ones((6, 1))}, "labels should be integers"),
        ({"train_labels": np.ones(6, np.uint8)}, "labels should be integers"),
        ({"train_labels": np.array([[None]] * 6)}, "not a complete npz file"),
        ({"train_images": np.zeros((0, 28, 28), np.uint8), "train_labels": np.zeros((0, 1), int)}, "empty"),
    ],
)
def test_a_damaged_file_is_one_clear_error(places, changes, words):
    path = put(places[0], **changes)
    with pytest.raises(SeminarError, match=words) as error:
        load("pneumoniamnist")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.95])
def test_a_truncated_npz(places, keep):
    path = put(
        places[0], n=300, train_images=np.random.default_rng(0).integers(0, 9, (300, 28, 28), dtype=np.uint8)
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(SeminarError, match="not a complete npz file"):
        load("pneumoniamnist")


@pytest.mark.parametrize("at", [0.2, 0.5])
def test_flipped_bytes_inside_the_npz(places, at):
    path = put(
        places[0], n=300, train_images=np.random.default_rng(0).integers(0, 9, (300, 28, 28), dtype=np.uint8)
    )
    content = bytearray(path.read_bytes())
    middle = int(at * len(content))
    content[middle : middle + 40] = bytes(255 - b for b in content[middle : middle + 40])
    path.write_bytes(content)
    with pytest.raises(SeminarError, match="not a complete npz file"):
        load("pneumoniamnist")


@pytest.mark.parametrize("size", [32, "28", None])
def test_a_size_that_is_not_offered(size):
    with pytest.raises(SeminarError, match="sizes"):
        load("pneumoniamnist", size=size)


# --- no network ------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", refuse)


def test_offline_names_the_file_its_place_and_the_embedded_set(places, no_network):
    with pytest.raises(SeminarError) as error:
        load("dermamnist", size=64)
    words = str(error.value)
    assert "dermamnist_64.npz" in words and str(places[1]) in words and 'load("phantoms")' in words


def test_a_download_lands_in_the_cache_checked(places, tmp_path, monkeypatch):
    put(tmp_path, n=9)
    body = (tmp_path / "pneumoniamnist.npz").read_bytes()
    info = medmnist._info_module().INFO["pneumoniamnist"]
    monkeypatch.setenv("no_proxy", "*")
    with http.server.HTTPServer(("127.0.0.1", 0), _page(body)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setitem(info, "url", f"http://127.0.0.1:{server.server_port}/x")
        with pytest.raises(SeminarError, match="damaged"):
            load("pneumoniamnist")  # the hash of the real file is not that of ours
        assert list(places[1].iterdir()) == []
        monkeypatch.setitem(info, "MD5", medmnist._md5(tmp_path / "pneumoniamnist.npz", 1.5))
        assert len(load("pneumoniamnist")) == 9
        server.shutdown()
    assert [path.name for path in places[1].iterdir()] == ["pneumoniamnist.npz"]


def _page(body):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    return Page


def test_a_picture_that_scikit_image_lacks(monkeypatch):
    import skimage.data

    def gone():
        raise ModuleNotFoundError("No module named 'pooch'")

    monkeypatch.setattr(skimage.data, "retina", gone)
    with pytest.raises(SeminarError, match='not in its wheel.*load\\("phantoms"\\)'):
        load("retina")
    assert set(skimage_sets.PICTURES) == {"retina", "immunohistochemistry", "cell", "microaneurysms"}


def test_seminar_data_that_is_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SEMINAR_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SeminarError, match="SEMINAR_DATA"):
        load("pneumoniamnist")


def test_an_unwritable_cache_is_reported_when_a_download_is_needed(places, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SEMINAR_CACHE", str(tmp_path / "file"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SeminarError, match="cannot be written"):
            load("pneumoniamnist")
