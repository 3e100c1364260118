"""Bad input to shifts, label shift and streams: each is one clear SeminarError."""

import numpy as np
import pytest
import torch

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
