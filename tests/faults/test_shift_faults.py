"""Bad input to shifts, label shift and streams: each is one clear SeminarError."""

import numpy as np
import pytest
import torch

from seminar_utils.data import load, real_shift
from seminar_utils.data.dataset import Card, ImageSet
from seminar_utils.evaluation.label_shift import resample_prevalence
from seminar_utils.evaluation.schedules import domain_stream, severity_ramp, shifted_stream
from seminar_utils.evaluation.shifts import COLOUR_ONLY, apply_shift, shift_conditions, shift_distance
from seminar_utils.evaluation.streams import stream
from seminar_utils.runtime import SeminarError

GREY, COLOUR = torch.full((4, 1, 8, 8), 0.5), torch.full((4, 3, 8, 8), 0.5)
LABELS = np.array([0, 1, 0, 1])


# --- shifts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GREY, "gama", 1), "did you mean 'gamma'"),
        ((GREY, "gamma", 0), "severity is one of .* got 0"),
        ((GREY, "gamma", 6), "severity"),
        ((GREY, "gamma", 2.0), "got 2.0"),
        ((GREY, "gamma", True), "got True"),
        ((GREY, "gamma", "3"), "severity"),
        ((GREY * 255, "gamma", 1), r"\[0, 1\], got \[128, 128\]"),
        ((GREY - 1, "blur", 1), r"\[0, 1\]"),
        ((torch.full((1, 1, 4, 4), float("nan")), "blur", 1), r"\[0, 1\], got \[nan"),
        (((GREY * 255).byte(), "gamma", 1), "uint8"),
        ((GREY[0], "gamma", 1), r"\(B, C, H, W\), got torch.float32 \(1, 8, 8\)"),
        ((GREY.numpy(), "gamma", 1), "got ndarray"),
        ((GREY[..., :0], "gamma", 1), "images with pixels"),
        ((GREY, "gaussian_noise", 1, -1), "seed is a non-negative integer, got -1"),
        ((GREY, "gaussian_noise", 1, 0.5), "seed"),
        ((GREY, "gaussian_noise", 1, 0, [0, 1]), "index holds one non-negative integer for each of 4 images"),
        ((GREY, "gaussian_noise", 1, 0, [0, 1, 2, -3]), "index"),
        ((GREY, "gaussian_noise", 1, 0, [0.0, 1.0, 2.0, 3.0]), "index"),
        ((GREY, "gaussian_noise", 1, 0, ["a", "b", "c", "d"]), "index"),
        ((COLOUR[:, :2], "jpeg", 1), "JPEG holds 1 or 3 channels, got images of 2"),
    ],
)
def test_bad_input_to_a_shift_is_named(arguments, message):
    with pytest.raises(SeminarError, match=message):
        apply_shift(*arguments)


@pytest.mark.parametrize("name", sorted(COLOUR_ONLY))
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_stain_takes_colour_images(name, channels):
    with pytest.raises(SeminarError, match=f"{name}.*H&E.*{channels} channel.*channels=1"):
        apply_shift(torch.rand(2, channels, 8, 8), name, 1)


def test_unknown_sets_and_unlike_batches():
    with pytest.raises(SeminarError, match="unknown set of shifts 'x-ray'.*'xray'"):
        shift_conditions("x-ray")
    with pytest.raises(SeminarError, match="should have one shape"):
        shift_distance(GREY, COLOUR)


# --- label shift -----------------------------------------------------------------------------------------


def toy(classes=2, labels=None):
    labels = np.arange(12) % classes if labels is None else labels
    card = Card("toy", "Toy", "here", "MIT", "noise", {"test": 12})
    return ImageSet("toy", "test", np.zeros((12, 4, 4, 1), np.uint8), labels, tuple("abc"[:classes]), card)


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        (toy(), (1.5,), "summing to 1; got"),
        (toy(), (float("nan"),), "summing to 1"),
        (toy(), ([0.5, 0.6],), "summing to 1"),
        (toy(), ([-0.5, 1.5],), "not negative"),
        (toy(), ([1.0],), "each of the classes"),
        (toy(), ("half",), "each of the classes"),
        (toy(), ({"a": 0.5, "z": 0.5},), r"got shares for \['a', 'z'\]"),
        (toy(3), (0.5,), "a single number is for two classes"),
        (toy(), (0.5, 13), "at most 12 can be had"),
        (toy(), (0.9, 12), "a 6, b 6"),
        (toy(), (0.5, 0), "at least 1"),
        (toy(), (0.5, 2.5), "at least 1"),
        (toy(labels=np.zeros(12, np.int64)), (0.5,), "a 12, b 0"),
        (toy(labels=np.ones((12, 2), np.int64)), (0.5,), "one label per image"),
    ],
)
def test_a_prevalence_that_cannot_be(images, arguments, message):
    with pytest.raises(SeminarError, match=message):
        resample_prevalence(images, *arguments)


# --- streams ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((GREY, LABELS, 0), {}, "batch_size 0"),
        ((GREY, LABELS, -3), {}, "batch_size"),
        ((GREY, LABELS, 2.5), {}, "batch_size 2.5"),
        ((GREY, LABELS, True), {}, "batch_size True"),
        ((GREY, LABELS[:3], 4), {}, "4 images, int64 labels"),
        ((GREY[:0], LABELS[:0], 4), {}, "0 images"),
        ((GREY, LABELS[:, None], 4), {}, r"\(4, 1\)"),
        ((GREY, LABELS + 0.5, 4), {}, "float64"),
        ((GREY.numpy(), LABELS, 4), {}, "ndarray"),
        ((GREY, LABELS, 4, "idd"), {}, "did you mean 'iid'"),
        ((GREY, LABELS, 4, "iid", -1), {}, "seed"),
        ((GREY, LABELS, 4, "iid"), {"delta": 0.1}, r"'iid' takes the options \[\], got \['delta'\]"),
        ((GREY, LABELS, 4, "dirichlet"), {"alpha": 0.1}, r"\['delta', 'slots'\], got \['alpha'\]"),
        ((GREY, LABELS, 4, "dirichlet"), {"delta": 0}, "delta"),
        ((GREY, LABELS, 4, "dirichlet"), {"delta": float("nan")}, "delta"),
        ((GREY, LABELS, 4, "dirichlet"), {"slots": 0}, "slots"),
        ((GREY, LABELS, 4, "prevalence"), {"share": 0}, "share"),
        ((GREY, LABELS, 4, "changing_prevalence"), {"start": -0.1}, "shares in"),
        ((GREY, LABELS, 4, "changing_prevalence"), {"start": 0, "end": 0}, "not both 0"),
        ((GREY, LABELS, 4, "changing_prevalence"), {"label": 7}, "images of class 7"),
        ((GREY, LABELS * 0, 4, "changing_prevalence"), {}, "and of others"),
    ],
)
def test_bad_input_to_a_stream_is_named(arguments, options, message):
    with pytest.raises(SeminarError, match=message):
        list(stream(*arguments, **options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": []}, "at least one"),
        ({"conditions": ["blur"]}, "pairs"),
        ({"conditions": 3}, "pairs"),
        ({"conditions": [("blurr", 1)]}, "did you mean 'blur'"),
        ({"conditions": [("blur", 9)]}, "severity"),
        ({"conditions": [("stain_jitter", 1)]}, "H&E"),
        ({"conditions": severity_ramp("blur")}, "6 stretches of a stream need at least as many images, got 4"),
        ({"schedule": "gradually"}, "did you mean 'gradual'"),
        ({"schedule": "recurring", "rounds": 0}, "rounds"),
        ({"schedule": "recurring", "rounds": 1.5}, "rounds"),
        ({"batch_size": 0}, "batch_size"),
        ({"order": "clas"}, "did you mean 'class'"),
        ({"slots": 3}, "takes the options"),
        ({"x": GREY * 9}, r"\[0, 1\]"),
    ],
)
def test_bad_input_to_a_shifted_stream_is_named(changes, message):
    parts = {"x": GREY, "labels": LABELS, "conditions": [("blur", 1)], "batch_size": 2} | changes
    with pytest.raises(SeminarError, match=message):
        shifted_stream(**parts)


@pytest.mark.parametrize(
    ("domains", "options", "message"),
    [
        ({}, {}, "at least one domain"),
        ({"a": (GREY, LABELS), "b": (COLOUR, LABELS)}, {}, r"one shape.*'a': \(1, 8, 8\), 'b': \(3, 8, 8\)"),
        ({"a": (GREY, LABELS[:2])}, {}, "4 images"),
        ({"a": (GREY, LABELS)}, {"rounds": 5}, r"5 rounds need as many images.*\{'a': 4\}"),
        ({"a": (GREY, LABELS)}, {"schedule": "once"}, "unknown schedule"),
    ],
)
def test_bad_input_to_a_stream_of_domains_is_named(domains, options, message):
    with pytest.raises(SeminarError, match=message):
        domain_stream(domains, 2, **options)


# --- real shift ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("wbc", "nuclei"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SEMINAR_DATA", str(tmp_path))
    return tmp_path


def cells(**changes):
    arrays = {}
    for domain in ("d1", "d2", "d3"):
        arrays[f"{domain}_images"] = np.zeros((4, 96, 96, 3), np.uint8)
        arrays[f"{domain}_labels"] = np.arange(4, dtype=np.uint8)
        arrays[f"{domain}_masks"] = np.zeros((4, 96, 96), np.uint8)
    return {key: value for key, value in (arrays | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d1_masks": None}, r"lacks the arrays \['d1_masks'\]"),
        ({"d3_labels": None}, r"lacks the arrays \['d3_labels'\]"),
        ({"d1_images": np.zeros((4, 64, 64, 3), np.uint8)}, r"\(4, 96, 96, 3\), got uint8 \(4, 64, 64, 3\)"),
        ({"d1_images": np.zeros((4, 96, 96, 3))}, "got float64"),
        ({"d1_images": np.zeros((3, 96, 96, 3), np.uint8)}, r"\(4, 96, 96, 3\), got"),
        ({"d1_masks": np.full((4, 96, 96), 3, np.uint8)}, r"masks should be uint8 .* in 0..2"),
        ({"d1_labels": np.array([0, 1, 2, 5])}, r"in 0..4, got int64 \(4,\) in 0..5"),
        ({"d1_labels": np.array([0.0, 1, 2, 3])}, "integers"),
        ({"d1_labels": np.array([None] * 4)}, "not a complete npz file"),
        ({"d1_labels": np.full(4, 4)}, "domain 'd1' is empty"),
    ],
)
def test_a_damaged_file_of_cells(folder, changes, message):
    np.savez(folder / "wbc" / "wbc3_96.npz", **cells(**changes))
    with pytest.raises(SeminarError, match=message):
        load("wbc", "train")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"no zip at all"])
def test_a_file_that_is_no_npz(folder, content):
    (folder / "nuclei" / "dsb2018_128.npz").write_bytes(content)
    with pytest.raises(SeminarError, match="dsb2018_128.npz is not a complete npz file.*BBBC038"):
        load("nuclei")


@pytest.mark.parametrize(
    ("name", "words"), [("wbc", ("GPL-3.0", "segmentation_WBC")), ("nuclei", ("CC0", "BBBC038"))]
)
def test_without_the_file_the_error_says_where_the_public_finds_it(folder, monkeypatch, name, words):
    for place in ("is not in SEMINAR_DATA", "which is not set"):
        with pytest.raises(SeminarError, match=place) as error:
            load(name)
        assert all(word in str(error.value) for word in (*words, 'load("phantoms")'))
        monkeypatch.delenv("SEMINAR_DATA", raising=False)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("wbc", "train"), {"domain": "d4"}, "unknown domain of 'wbc' 'd4'.*d1, d2, d3"),
        (
            ("wbc", "train"),
            {"domain": "d2"},
            "'d2' of 'wbc' is for testing: .* got 'train'; train on 'd1'",
        ),
        (("nuclei", "val"), {"domain": 1}, "'histology' of 'nuclei' is for testing"),
        (("nuclei", "test"), {"domain": 3}, "unknown domain"),
        (("nuclei", "test"), {"domain": None}, "unknown domain"),
        (("wbc", "all"), {}, "unknown split"),
        (("wbc", "test"), {"size": 28}, r"takes the options \['domain'\], got \['size'\]"),
    ],
)
def test_a_domain_or_split_that_is_not(folder, arguments, options, message):
    with pytest.raises(SeminarError, match=message):
        load(*arguments, **options)


def test_an_unknown_real_shift_domain_or_split():
    with pytest.raises(SeminarError, match="did you mean 'organ'"):
        real_shift("organs")
    with pytest.raises(SeminarError, match="unknown target domain 'd1': .*d2"):
        real_shift("wbc").load_target("d1")
    with pytest.raises(SeminarError, match="split of the source 'test'"):
        real_shift("pathmnist").load_source("test")
