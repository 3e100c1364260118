"""Read arrays from an npz file that may be damaged: what is wrong comes as one clear error."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from seminar_utils.runtime import SeminarError


def read_npz(path: Path, keys: Iterable[str], advice: str, needed: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The arrays `keys` of the file; `needed` must be there, too, but are not read. Nothing is unpickled.

    advice: what to do, the end of the error. Raises SeminarError for a damaged file or missing arrays.
    """
    keys = list(keys)
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = sorted({*keys, *needed} - set(stored))
            arrays = {} if missing else {key: stored[key] for key in keys}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SeminarError(f"{path} is not a complete npz file ({error}); {advice}") from error
    if missing:
        raise SeminarError(f"{path} lacks the arrays {missing}; {advice}")
    return arrays
