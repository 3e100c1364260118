"""Rules of the house: imports go one way, the package is light to import, no file names a machine."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "seminar_utils"
BASE = {"runtime", "torchvision_fix"}  # the floor everything stands on
TOP = {"teaching", "cli", "doctor", "recipes"}  # may import every room
MAY_IMPORT = {
    "__init__": set(),
    "runtime": set(),
    "torchvision_fix": {"runtime"},
    "models": BASE,
    "data": BASE | {"checkpoints"},  # its download
    "checkpoints": BASE | {"models", "data"},
    "pretraining": BASE | {"models", "data"},
    "adaptation": BASE | {"models"},
    # a benchmark names checkpoints, and shows to TTT++ the views they were trained with
    "evaluation": BASE | {"models", "data", "adaptation", "checkpoints", "pretraining"},
}


def room_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_rooms(source: str, path: Path, package: Path) -> set[str]:
    """The top-level rooms of the package that a file imports, inside functions too."""
    here = [PACKAGE, *path.relative_to(package).with_suffix("").parts]
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            start = [*base, *(node.module or "").split(".")] if node.module else base
            targets = [[*start, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        else:
            continue
        rooms |= {target[1] for target in targets if target[0] == PACKAGE and len(target) > 1}
    return rooms


def violations(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        room = room_of(path, package)
        if room in TOP:
            continue
        known = {item.stem for item in package.iterdir() if not item.name.startswith("_")}
        reached = (imported_rooms(path.read_text(), path, package) & known) - {room}
        allowed = MAY_IMPORT.get(room)
        assert allowed is not None, f"{path.name}: say in this test what the room {room} may import"
        found += [f"{path.relative_to(package)} imports {other}" for other in sorted(reached - allowed)]
    return found


def test_rooms_import_one_way(root):
    assert violations(root / PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("models/x.py", "from ..adaptation import base"),
        ("models/x.py", "from seminar_utils.data import load"),
        ("models/deep/x.py", "from ...evaluation.metrics import accuracy"),
        ("adaptation/x.py", "def f():\n    from .. import evaluation"),
        ("data/x.py", "import seminar_utils.adaptation.tent"),
        ("runtime.py", "from .models import create_model"),
        ("evaluation/x.py", "from ..teaching import figures"),
        ("pretraining/x.py", "from ..cli import main"),
    ],
)
def test_a_wrong_import_is_seen(tmp_path, file, line):
    package = tmp_path / PACKAGE
    for room in ("models", "adaptation", "evaluation", "data", "pretraining", "teaching"):
        (package / room).mkdir(parents=True)
    (package / "cli.py").write_text("from .teaching import course\n")
    (package / file).parent.mkdir(exist_ok=True)
    (package / file).write_text(line + "\n")
    assert len(violations(package)) == 1


def test_notebooks_and_tests_are_never_imported_by_the_package(root):
    for path in (root / PACKAGE).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in names} & {"notebooks", "tests", "benchmarks"}, path


def test_importing_the_package_is_light():
    code = (
        "import sys, time; t = time.perf_counter(); import seminar_utils; t = time.perf_counter() - t;"
        "print(t, *sorted({'torch', 'numpy', 'matplotlib', 'IPython'} & set(sys.modules)))"
    )
    answers = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        for _ in range(3)  # another process may have had the core
    ]
    said = min((answer.stdout.split() for answer in answers), key=lambda words: float(words[0]))
    assert float(said[0]) < 0.3 and said[1:] == []


def test_the_command_s_help_is_light():
    code = (
        "import sys; from seminar_utils.cli import parser; parser().format_help();"
        "assert not {'torch', 'numpy', 'nbclient'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def tracked(root) -> list[Path]:
    said = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    return [root / name for name in said.split("\0") if name]


MACHINE = re.compile(
    r"(?<![\w.])/(?:work|root|home/[a-z]\w+|Users/[a-z]\w+)/[\w.]|\bpypi\.org|files\.pythonhosted|/opt/pypi"
)
MAY_SHOW_PATHS = {"tests/notebooks/test_pairing.py", "tests/unit/test_imports.py"}  # their subject


def test_no_file_names_a_machine(root):
    found = []
    for path in tracked(root):
        name = path.relative_to(root).as_posix()
        if path.suffix in (".npz", ".png", ".safetensors", ".pdf") or name in MAY_SHOW_PATHS or not path.is_file():
            continue
        hit = MACHINE.search(path.read_text(encoding="utf-8", errors="replace"))
        found += [f"{name}: {hit[0]}"] if hit else []
    assert found == []


@pytest.mark.parametrize("line", ["x = '/work/main'", "see /root/.cache", "'/home/ann/data'", "pypi.org/simple"])
def test_a_machine_s_path_is_seen(line):
    assert MACHINE.search(line)


@pytest.mark.parametrize("line", ["3/work/4", "https://example.org/home/x", "~/.cache", "/dev/null", "a/root/b"])
def test_other_paths_are_fine(line):
    assert not MACHINE.search(line)


def test_files_stay_short(root):
    """A method is one file that can be read in one sitting."""
    long = {}
    for path in (root / PACKAGE).rglob("*.py"):
        lines = len(path.read_text().splitlines())
        strict = room_of(path, root / PACKAGE) in ("models", "adaptation", "pretraining")
        if lines > (250 if strict else 330):
            long[path.name] = lines
    assert long == {}
