"""The pins, the conda file and the Makefile say the same as pyproject.toml."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def wanted(root):
    """What pyproject.toml asks for, the test extra included, by name."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


@pytest.fixture(scope="module")
def pins(root):
    lines = (root / "requirements.lock").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_pins_are_exact_and_portable(pins):
    for name, pin in pins.items():
        assert re.fullmatch(r"==[\w.]+", str(pin.specifier)) and pin.url is None, pin  # no `+cpu`, no path
        assert not name.startswith(("nvidia", "triton", "cuda", "seminar")), pin
    assert str(pins["torch"].specifier) == "==2.13.0" and str(pins["torchvision"].specifier) == "==0.28.0"
    assert 'sys_platform != "win32"' in str(pins["pexpect"].marker)  # does not exist on Windows
    assert "setuptools" in pins  # the set-up builds the package without fetching anything more


def test_pins_fulfil_pyproject(wanted, pins):
    for name, requirement in wanted.items():
        version = next(iter(pins[name].specifier)).version
        assert requirement.specifier.contains(version), f"{requirement} against {pins[name]}"


def test_everything_that_would_be_installed_is_pinned(wanted, pins):
    seen, queue = set(), list(wanted.values())
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        extras = {"", *requirement.extras}
        if (name, *sorted(extras)) in seen:
            continue
        seen.add((name, *sorted(extras)))
        if name.startswith(("nvidia-", "cuda-", "triton")):
            continue  # a CUDA wheel of torch pins these itself
        assert name in pins, f"{name} is not in requirements.lock: make lock"
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                queue.append(needed)
    assert len(seen) > 80


def test_the_tests_run_on_the_pins(pins):
    """Other versions than the pinned ones mean that what is tested here is not what students get."""
    other = {}
    for name, pin in pins.items():
        if pin.marker is None or pin.marker.evaluate():
            version = metadata.version(name).split("+")[0]
            if not pin.specifier.contains(version, prereleases=True):
                other[name] = version
    assert not other, f"run the tests with `make test`: {other} differ from requirements.lock"


def test_conda_file_has_the_same_packages(root, wanted):
    given = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    pip = next(item["pip"] for item in given if isinstance(item, dict))
    conda = {Requirement(item).name: Requirement(item) for item in given if isinstance(item, str)}
    assert "-e ." in pip
    found = {**conda, **{Requirement(line).name: Requirement(line) for line in pip if line != "-e ."}}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert str(found.pop("python").specifier) == project["requires-python"]
    found.pop("pip")
    assert {name: str(item.specifier) for name, item in found.items()} == {
        name: str(item.specifier) for name, item in wanted.items()
    }


def test_lock_script_writes_portable_pins(root, tmp_path, pins):
    done = subprocess.run(
        [sys.executable, root / ".ci" / "lock.py", tmp_path / "lock"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in (tmp_path / "lock").read_text().splitlines() if not line.startswith("#")]
    assert "torch==2.13.0" in lines and not any("+" in line or "seminar" in line for line in lines)
    assert any(line.startswith("pexpect==") and "win32" in line for line in lines)


def test_every_room_is_a_package(root):
    folders = {path.parent for path in (root / "seminar_utils").rglob("*.py")}
    assert len(folders) >= 8
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_make_help_names_every_target(root):
    said = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, timeout=60).stdout
    for target in ("course", "lab", "test", "setup", "lock", "clean"):
        assert f"make {target} " in said
    assert "PROFILE=smoke|cpu|gpu" in said and "ONLY=11" in said


def test_ci_calls_make_test_with_the_real_data(root, tmp_path):
    """`.ci/run` in a copy, with a `make` that only tells how it was called."""
    clone = tmp_path / "clone"
    (clone / ".ci").mkdir(parents=True)
    (clone / ".ci" / "run").write_text((root / ".ci" / "run").read_text())
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "make").write_text('#!/bin/sh\necho "called: $*, data: ${SEMINAR_DATA-unset}"\nexit 3\n')
    (tools / "make").chmod(0o755)

    def run():
        env = {"PATH": f"{tools}:/usr/bin:/bin"}
        return subprocess.run(["bash", ".ci/run"], cwd=clone, env=env, capture_output=True, text=True, timeout=60)

    without = run()
    assert without.returncode == 3 and "called: test" in without.stdout and "data: unset" in without.stdout
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert f"data: {tmp_path / 'shared' / 'data'}" in run().stdout


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_the_code_keeps_the_house_style(root, arguments):
    """Line length, imports, docstrings of public functions, one format: what pyproject.toml sets for ruff."""
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
