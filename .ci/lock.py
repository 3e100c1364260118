"""Write requirements.lock from the packages of the environment this runs in (`make lock` makes a fresh one).

Only pins that mean the same everywhere are written: no local versions (`+cpu`), no paths, and a marker on
what exists on some systems only.
"""

import sys
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

HEADER = """\
# The exact, tested versions that `make course`, `make lab`, `make test` and CI install. Made by `make lock`
# (a fresh environment from pyproject.toml with its test extra, then .ci/lock.py): do not edit by hand.
# Versions only, no hashes: the wheel of torch differs by system (CPU or CUDA, Linux, macOS, Windows), and
# with CUDA it brings packages of its own, which its metadata pins.
"""
LEFT_OUT = {"seminar-utils", "pip", "wheel"}
ARCHITECTURES = ("x86_64", "amd64", "AMD64", "arm64", "ARM64", "aarch64")
MARKERS = {
    "pexpect": 'sys_platform != "win32"',
    "ptyprocess": 'sys_platform != "win32"',
    "hf-xet": " or ".join(f'platform_machine == "{name}"' for name in ARCHITECTURES),
}
FOREIGN = ("nvidia-", "cuda-", "triton")  # what a CUDA wheel of torch brings


def pins() -> list[str]:
    """One `name==version` for each installed package, sorted."""
    found = {canonicalize_name(item.name): item.version for item in metadata.distributions()}
    lines = []
    for name, version in sorted(found.items()):
        if name not in LEFT_OUT and not name.startswith(FOREIGN):
            marker = f" ; {MARKERS[name]}" if name in MARKERS else ""
            lines.append(f"{name}=={Version(version).public}{marker}")
    return lines


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(HEADER + "\n".join(pins()) + "\n", encoding="utf-8")
    print(f"{sys.argv[1]}: {len(pins())} packages")
