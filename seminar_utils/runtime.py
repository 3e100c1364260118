"""The few settings the whole course shares: profile, seed, device, threads, folders, errors.

This module is the bottom of the house: it imports no other room, and torch only inside functions,
so that `import seminar_utils` stays instant.
"""

from __future__ import annotations

import difflib
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PROFILES = ("smoke", "cpu", "gpu")


class SeminarError(ValueError):
    """Bad input from the user: one sentence that names what was expected and what came."""


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> SeminarError:
    """Error for a name nobody knows, with the nearest valid names (all, when few).

    Args: kind: what was asked for ("data set", "model"); name: what came; valid: the known names.
    """
    names = sorted(valid)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    shown = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
    return SeminarError(f"unknown {kind} {name!r}: {hint}known: {shown}")


def profile() -> str:
    """The profile in force: 'smoke' (CI, seconds), 'cpu' (default, minutes) or 'gpu' (full size).

    Set by the environment variable SEMINAR_PROFILE. Raises SeminarError on any other name.
    """
    name = os.environ.get("SEMINAR_PROFILE") or "cpu"
    if name not in PROFILES:
        raise unknown_name("profile", name, PROFILES)
    return name


def by_profile(**values: Any) -> Any:
    """Pick the value of the current profile: `by_profile(smoke=2, cpu=20, gpu=100)`.

    Every profile must be given, so that no lesson forgets one. Raises SeminarError otherwise.
    """
    if set(values) != set(PROFILES):
        raise SeminarError(f"by_profile needs exactly {PROFILES}, got {tuple(values)}")
    return values[profile()]


def seed_everything(seed: int) -> int:
    """Seed Python, numpy and torch (all devices) in one place; returns the seed."""
    import numpy as np
    import torch

    if not 0 <= int(seed) < 2**32:
        raise SeminarError(f"a seed is an integer in [0, 2**32), got {seed!r}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return int(seed)


def pick_device(name: str | None = None):
    """The torch.device to use: `name` or SEMINAR_DEVICE if given, else CUDA, else MPS, else CPU.

    Raises SeminarError if a device is asked for that this machine lacks.
    """
    import torch

    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    asked = name or os.environ.get("SEMINAR_DEVICE")
    if asked is None:
        asked = next(kind for kind in ("cuda", "mps", "cpu") if have[kind])
    kind = asked.split(":")[0]
    if kind not in have:
        raise unknown_name("device", asked, have)
    if not have[kind]:
        raise SeminarError(f"device {asked!r} was asked for, this machine has {[k for k in have if have[k]]}")
    return torch.device(asked)


def place_model(model, device=None):
    """Move a torch model to `device` (default: `pick_device()`), convolution nets in channels_last order.

    Channels-last trains the course's ResNets about 1.3 times faster on a CPU; for a ViT, whose only
    convolution cuts the patches, it does nothing.
    """
    import torch

    return model.to(device or pick_device(), memory_format=torch.channels_last)


def free_cores() -> int:
    """Whole cores this process may use and nobody else is using (at least 1).

    The affinity mask and a container's quota bound it; the load of the other processes is taken off,
    because two torch threads that share a busy core run tens of times slower than one.
    """
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    cores = min(allowed, quota) if quota else allowed
    busy = psutil.cpu_percent(interval=0.1) / 100 * (psutil.cpu_count() or 1)
    return max(1, int(cores - busy + 0.5))


def _cgroup_quota() -> int | None:
    """CPU quota of the container in whole cores (cgroup v2), or None when unlimited."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period)) if quota != "max" else None
    except (OSError, ValueError):
        return None


def set_threads(count: int | None = None) -> int:
    """Set torch's threads to `count`, or OMP_NUM_THREADS, or the free cores; returns the number."""
    import torch

    asked = count or os.environ.get("OMP_NUM_THREADS") or free_cores()
    try:
        number = int(asked)
    except ValueError:
        number = 0
    if number < 1:
        raise SeminarError(f"the number of threads is an integer of at least 1, got {asked!r}")
    torch.set_num_threads(number)
    return number


def repository() -> Path | None:
    """The course's checkout (the folder with `notebooks/` and `data/`), or None for a bare install."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "notebooks").is_dir() and (root / "data").is_dir() else None


def shipped_dir() -> Path:
    """The folder `data/` that ships with the course. Raises SeminarError when it is not there."""
    root = repository()
    if root is None:
        raise SeminarError("the course's data/ folder was not found: install from a checkout, pip install -e .")
    return root / "data"


def runs_dir() -> Path:
    """Where what you run leaves its traces: `runs/` in the checkout, or in the current folder."""
    return (repository() or Path.cwd()) / "runs"


def cache_dir() -> Path:
    """The user's cache for downloads and generated sets (SEMINAR_CACHE, else the platform's place)."""
    import platformdirs

    return Path(os.environ.get("SEMINAR_CACHE") or platformdirs.user_cache_dir("seminar-course"))


def seminar_data() -> Path | None:
    """The folder SEMINAR_DATA points to (real images and weights), or None when unset.

    Raises SeminarError when it is set to something that is not a folder.
    """
    value = os.environ.get("SEMINAR_DATA")
    if not value:
        return None
    path = Path(value).expanduser().resolve()
    if not path.is_dir():
        raise SeminarError(f"SEMINAR_DATA should name a folder, got {value!r}, which is not one")
    return path
