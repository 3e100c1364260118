"""What are frozen features worth? Weighted kNN and a linear probe, with 1%, 10% and all of the labels.

kNN asks whether images of a class lie together; it trains nothing. A linear probe asks whether a straight cut
can tell the classes; C is chosen on the validation split, the test split is scored once. Raw pixels and the same
network with random weights show how much of a result is no merit of the pre-training.

MAE must never be judged by kNN alone: its features hold what a picture looks like, in many directions of unlike
scale, and nobody pulled images of a class together. In a public table of 100-epoch models on ImageNet, MAE reaches
11% by kNN, 46% by a linear probe and 81% fine-tuned. So both probes are always measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from ..data import ImageSet
from ..models import create_model
from ..runtime import SeminarError, unknown_name
from .intervals import Interval, bootstrap_interval, seed_interval
from .metrics import accuracy, balanced_accuracy, summary
from .results import ResultsStore

FRACTIONS = (0.01, 0.1, 1.0)
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of the linear probe: the weaker the penalty, the larger
Row = dict[str, Any]


class RawPixels(nn.Module):
    """The baseline that everyone forgets: the features are the pixels."""

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (B, C * H * W)."""
        return x.flatten(1)


def random_encoders(name: str, seeds: Iterable[int], **options: Any) -> dict[int, nn.Module]:
    """The other baseline: a network of the registry that never learnt anything, one for each seed."""
    models = {}
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            models[seed] = create_model(name, **options)
    return models


@torch.inference_mode()
def features(
    model: nn.Module,
    images: ImageSet,
    *,
    size: int | None = None,
    channels: int | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """The feature vectors (N, D) of all images, in eval mode: `model.embed`, or the model's output.

    Args: size, channels: passed on to the set's loader; transform: of the batch in [0, 1], for example
    `dinov2_input`. The model is left in the mode it was in. Raises SeminarError if it gives no vectors.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    embed = getattr(model, "embed", model)
    was_training = model.training
    model.eval()
    batches = (x.to(device) for x, _ in images.loader(batch_size, size=size, channels=channels))
    found = [embed(transform(x) if transform else x) for x in batches]
    model.train(was_training)
    if not isinstance(found[0], Tensor) or found[0].ndim != 2:
        raise SeminarError(
            f"a probe needs one feature vector an image, {type(model).__name__} gives something else: "
            "of a MAE take encoder_of(mae), of a DINO teacher.backbone"
        )
    return torch.cat([vectors.float().cpu() for vectors in found]).numpy()


def label_fraction(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Sorted indices of a share of the images, the same share of every class, at least one of each.

    A larger fraction contains the smaller one of the same seed. Raises SeminarError unless 0 < fraction <= 1
    and every image has one label.
    """
    labels = np.asarray(labels)
    if not 0 < fraction <= 1:
        raise SeminarError(f"a fraction of the labels lies in (0, 1], got {fraction}")
    if labels.ndim != 1 or len(labels) == 0:
        raise SeminarError(f"label fractions need one label an image, got labels of shape {labels.shape}")
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))


def knn_probabilities(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> np.ndarray:
    """Weighted kNN as in DINO: the k most similar training images vote with exp(cosine / temperature).

    Features (N, D) and (M, D) are L2-normalised first; fewer than k labelled images all vote. Returns the
    shares of the votes (M, num_classes). Wu et al., 2018 (arXiv 1805.01978, section 3.4); 2104.14294, section 4.1.
    """
    if len(train) != len(labels) or len(train) == 0 or train.shape[1:] != test.shape[1:] or k < 1:
        raise SeminarError(
            f"kNN needs k >= 1 and features of one width with a label each, got k={k}, {train.shape} with "
            f"{len(labels)} labels, and {test.shape}"
        )
    bank = F.normalize(torch.as_tensor(train), dim=1)  # (N, D)
    one_hot = F.one_hot(torch.as_tensor(labels), num_classes).to(bank)  # (N, K)
    shares = []
    for queries in F.normalize(torch.as_tensor(test), dim=1).split(chunk):
        similarity, nearest = (queries @ bank.T).topk(min(k, len(bank)), dim=1)  # (m, k)
        weights = (similarity / temperature).softmax(dim=1)  # exp, and the shares add up to 1
        shares.append(torch.einsum("mk,mkc->mc", weights, one_hot[nearest]))
    return torch.cat(shares).numpy()


@dataclass(frozen=True)
class LinearProbe:
    """A fitted linear probe: `classifier` standardises features and scores them; `C` won on validation."""

    classifier: Pipeline
    C: float
    num_classes: int

    def probabilities(self, test: np.ndarray) -> np.ndarray:
        """Features (M, D) -> probabilities (M, num_classes); a class that never was labelled gets 0."""
        probs = np.zeros((len(test), self.num_classes))
        probs[:, self.classifier[-1].classes_] = self.classifier.predict_proba(test)
        return probs


def fit_linear(
    train: np.ndarray,
    labels: np.ndarray,
    val: np.ndarray,
    val_labels: np.ndarray,
    num_classes: int,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearProbe:
    """Logistic regression on standardised features (N, D); of all C the one best on validation (ties: smallest).

    Best by balanced accuracy, and with class weights, so that the rarer class counts as much. Every method
    sees the whole validation split whatever the fraction of training labels; fair between methods, but more
    labels than a clinic with 1% would have.
    """
    if len(np.unique(labels)) < 2:
        raise SeminarError("a linear probe needs labels of at least two classes")
    best, best_score = None, -1.0
    for C in sorted(strengths):
        model = LogisticRegression(C=C, class_weight="balanced", max_iter=1000)
        classifier = make_pipeline(StandardScaler(), model).fit(train, labels)
        score = balanced_accuracy(val_labels, classifier.predict(val))
        if score > best_score:
            best, best_score = LinearProbe(classifier, C, num_classes), score
    return best


Parts = dict[str, tuple[np.ndarray, np.ndarray]]  # split -> features (N, D), labels (N,)


def _knn(parts: Parts, num_classes: int) -> tuple[np.ndarray, dict[str, Any]]:
    return knn_probabilities(*parts["train"], parts["test"][0], num_classes), {}


def _linear(parts: Parts, num_classes: int) -> tuple[np.ndarray, dict[str, Any]]:
    probe = fit_linear(*parts["train"], *parts["val"], num_classes)
    return probe.probabilities(parts["test"][0]), {"C": probe.C}


PROBES = {"knn": _knn, "linear": _linear}


def measure_probes(
    experiment: str,
    encoders: Mapping[str, nn.Module | Mapping[int, nn.Module]],
    sets: Mapping[str, ImageSet],
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = (0, 1, 2),
    probes: Sequence[str] = ("knn", "linear"),
    size: int | None = None,
    channels: int | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    params: Mapping[str, Any] | None = None,
    store: ResultsStore | None = None,
) -> list[Row]:
    """Probe every encoder with every share of the labels and every seed; one row of the store a run.

    Args: experiment: its name in the store; encoders: name -> model, or seed -> model where each seed has its
    own (`random_encoders`); sets: "train", "val" and "test"; seeds: which images are labelled; transform: see
    `features`, not applied to RawPixels; params: said in every row. Rows hold the metrics of `summary`,
    bootstrap intervals over the test images, and for the linear probe the chosen C. Read them with `probe_table`.
    """
    _check_sets(sets, probes)
    store = store or ResultsStore()
    rows = []
    for name, encoder in encoders.items():
        cache: dict[int, Parts] = {}
        for seed in seeds:
            model = encoder if isinstance(encoder, nn.Module) else encoder[seed]
            if id(model) not in cache:
                cache = {id(model): _extract(model, sets, size, channels, transform)}
            for fraction in fractions:
                labelled = label_fraction(sets["train"].labels, fraction, seed)
                parts = dict(cache[id(model)])
                parts["train"] = tuple(array[labelled] for array in parts["train"])
                about = {"method": name, "fraction": fraction, "labelled": len(labelled), **(params or {})}
                rows += [_run(experiment, about, probe, parts, sets["test"], seed, store) for probe in probes]
    return rows


def _check_sets(sets: Mapping[str, ImageSet], probes: Sequence[str]) -> None:
    for probe in probes:
        if probe not in PROBES:
            raise unknown_name("probe", probe, PROBES)
    missing = {"train", "val", "test"} - set(sets)
    if missing:
        raise SeminarError(f"probes need the sets train, val and test, got no {', '.join(sorted(missing))}")


def _extract(model: nn.Module, sets: Mapping[str, ImageSet], size, channels, transform) -> Parts:
    options = {"size": size, "channels": channels}
    options["transform"] = None if isinstance(model, RawPixels) else transform
    return {split: (features(model, images, **options), images.labels) for split, images in sets.items()}


def _run(experiment: str, about: Row, probe: str, parts: Parts, test: ImageSet, seed: int, store) -> Row:
    """One probe of one set of features: metrics, intervals over the test images, a row."""
    started = time.perf_counter()
    probs, chosen = PROBES[probe](parts, len(test.class_names))
    seconds = time.perf_counter() - started
    predictions, intervals = probs.argmax(axis=1), {}
    for name, metric in {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}.items():
        one = bootstrap_interval(test.labels, predictions, statistic=metric, n_boot=200)
        intervals[name] = [one.low, one.high]
    told = {**about, "probe": probe, "images": len(test)}
    return store.append(experiment, told, {**summary(probs, test.labels), **chosen}, intervals, seed, seconds)


def probe_table(rows: Sequence[Row], metric: str = "balanced_accuracy") -> dict[tuple[str, str, float], Interval]:
    """(encoder, probe, fraction) -> mean over the evaluation seeds, with its interval.

    Over the seeds by Student's t. Where seeds change nothing (all labels, one encoder) their interval would
    have no width and promise what it cannot keep: then it is the bootstrap interval over the test images.
    """
    groups: dict[tuple[str, str, float], dict[int, Row]] = {}
    for row in rows:
        key = tuple(row["params"][name] for name in ("method", "probe", "fraction"))
        groups.setdefault(key, {})[row["seed"]] = row  # the newest run of a seed counts
    return {key: _interval(list(runs.values()), metric) for key, runs in groups.items()}


def _interval(runs: list[Row], metric: str) -> Interval:
    values = [row["metrics"][metric] for row in runs]
    if len(set(values)) > 1:
        return seed_interval(values, bounds=(0, 1))
    return Interval(values[0], *runs[0]["intervals"].get(metric, (values[0], values[0])))
