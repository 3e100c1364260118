"""Real shifts by name: which set is the source, and which other domains a model then meets.

wbc: another microscope, stain and laboratory. nuclei: another way of imaging. pathmnist: another clinical centre
(its test split comes from it). organ: the same organs in the same CT scans, cut in another plane; by
MedMNIST's description the test splits of all three planes come from other scans than train and val.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seminar_utils.data.dataset import ImageSet
from seminar_utils.runtime import unknown_name


@dataclass(frozen=True)
class RealShift:
    """source: its data set; splits: which of its splits are the source's; targets: domain -> set and options."""

    source: str
    targets: dict[str, tuple[str, dict[str, Any]]]
    splits: tuple[str, ...] = ("train", "val", "test")

    def load_source(self, split: str = "train", **options: Any) -> ImageSet:
        """One split of the source. Raises SeminarError where the split belongs to a target, or as `load`."""
        from seminar_utils.data import load

        if split not in self.splits:
            raise unknown_name("split of the source", split, self.splits)
        return load(self.source, split, **options)

    def load_target(self, name: str, **options: Any) -> ImageSet:
        """All images of a target domain. Raises SeminarError for an unknown domain, or as `load`."""
        from seminar_utils.data import load

        if name not in self.targets:
            raise unknown_name("target domain", name, self.targets)
        data_set, own = self.targets[name]
        return load(data_set, "test", **own, **options)


REAL_SHIFTS = {
    "wbc": RealShift("wbc", {name: ("wbc", {"domain": name}) for name in ("d2", "d3")}),
    "nuclei": RealShift("nuclei", {name: ("nuclei", {"domain": name}) for name in ("histology", "brightfield")}),
    "pathmnist": RealShift("pathmnist", {"CRC-VAL-HE-7K": ("pathmnist", {})}, splits=("train", "val")),
    "organ": RealShift("organamnist", {"coronal": ("organcmnist", {}), "sagittal": ("organsmnist", {})}),
}


def real_shift(name: str) -> RealShift:
    """The real shift of that name, one of `REAL_SHIFTS`. Raises SeminarError for an unknown one."""
    if name not in REAL_SHIFTS:
        raise unknown_name("real shift", name, REAL_SHIFTS)
    return REAL_SHIFTS[name]
