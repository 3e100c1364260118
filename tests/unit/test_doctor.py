"""`seminar doctor`: complete when all is well, and still complete when something is broken."""

import hashlib
import json
import subprocess
import sys

import pytest

from seminar_utils import cli, doctor

PARTS = {
    "course", "packages", "torchvision_missing_operators", "machine", "profile", "rooms", "checkpoints",
    "official_checkpoints", "data", "missing", "ok",
}  # fmt: skip


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders for the user's data and cache."""
    for key in ("data", "cache"):
        (tmp_path / key).mkdir()
        monkeypatch.setenv(f"SEMINAR_{key.upper()}", str(tmp_path / key))
    monkeypatch.setenv("HOME", str(tmp_path))  # the medmnist package's own folder
    return tmp_path


def commands(report):
    return {item["command"]: item["needed"] for item in report["missing"]}


def test_the_report_is_complete_and_json(places, capsys):
    cli.main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert set(report) == PARTS
    assert report["packages"]["torch"].startswith("2.13") and "nbval" in report["packages"]
    assert set(report["rooms"].values()) == {"ok"}
    assert report["machine"]["device"] and report["machine"]["free_cores"] >= 1
    assert isinstance(report["torchvision_missing_operators"], list)
    assert report["profile"] == "cpu"


def test_files_have_size_and_hash(places):
    (places / "data" / "medmnist").mkdir()
    (places / "data" / "medmnist" / "x.npz").write_bytes(b"abc")
    (places / "cache" / "half.npz.part").write_bytes(b"abc")
    report = doctor.examine()
    digest = hashlib.sha256(b"abc").hexdigest()
    assert report["data"]["SEMINAR_DATA"]["files"] == [{"file": "medmnist/x.npz", "bytes": 3, "sha256": digest}]
    assert report["data"]["cache"]["files"] == []
    assert digest in doctor.as_text(report)


def test_large_files_are_hashed_on_request_only(places, monkeypatch):
    monkeypatch.setattr(doctor, "HASH_UP_TO", 2)
    (places / "data" / "x").write_bytes(b"abc")
    assert doctor.examine()["data"]["SEMINAR_DATA"]["files"][0]["sha256"] is None
    assert doctor.examine(hash_all=True)["data"]["SEMINAR_DATA"]["files"][0]["sha256"]
    assert "--hash-all" in doctor.as_text(doctor.examine())


def test_real_images_are_optional_and_come_with_one_command(places):
    asked = [command for command, needed in commands(doctor.examine()).items() if "pneumoniamnist')" in command]
    assert len(asked) == 1 and not commands(doctor.examine())[asked[0]]
    (places / "data" / "medmnist").mkdir()
    (places / "data" / "medmnist" / "pneumoniamnist.npz").write_bytes(b"x")
    assert not any("pneumoniamnist')" in command for command in commands(doctor.examine()))


def test_a_missing_or_damaged_checkpoint_is_named(places, tmp_path, monkeypatch):
    from seminar_utils.checkpoints import course

    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr(course, "checkpoint_dir", lambda: folder)
    report = doctor.examine()
    assert commands(report)["seminar pretrain resnet_small-phantoms-s0"] and not report["ok"]
    (folder / "resnet_small-phantoms-s0.safetensors").write_bytes(b"abc")
    card = {"sha256": "0" * 64}
    (folder / "resnet_small-phantoms-s0.json").write_text(json.dumps(card))
    report = doctor.examine()
    assert report["checkpoints"][0]["state"] == "not what its card describes"
    assert "seminar pretrain resnet_small-phantoms-s0" in commands(report)
    card = {"sha256": hashlib.sha256(b"abc").hexdigest()}
    (folder / "resnet_small-phantoms-s0.json").write_text(json.dumps(card))
    report = doctor.examine()
    assert report["checkpoints"][0]["state"] == "ok"
    assert "seminar pretrain resnet_small-phantoms-s0" not in commands(report)


@pytest.mark.parametrize("broken", ["models"])
def test_a_broken_room_is_reported_and_hides_nothing(broken):
    """In a process of its own, in which importing the room fails."""
    code = f"""
import sys
sys.modules["seminar_utils.{broken}"] = None
from seminar_utils.doctor import as_text, examine
import json
report = examine()
as_text(report)
print(json.dumps(report))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    report = json.loads(done.stdout)
    assert set(report) == PARTS and not report["ok"]
    assert "error" in report["rooms"][broken] and report["packages"]["numpy"]
    assert any(broken in item["what"] for item in report["missing"])


def test_wrong_and_absent_packages_are_named(monkeypatch, places):
    from packaging.requirements import Requirement

    asked = [Requirement("numpy>=99"), Requirement("no-such-package-here>=1"), Requirement("scipy")]
    monkeypatch.setattr(doctor, "required_packages", lambda: asked)
    report = doctor.examine()
    assert "needed >=99" in report["packages"]["numpy"] and report["packages"]["no-such-package-here"] == "absent"
    (item,) = [item for item in report["missing"] if item["what"].startswith("packages")]
    assert "numpy" in item["what"] and "no-such-package-here" in item["what"] and "scipy" not in item["what"]
    assert item["command"].startswith("pip install") and item["needed"]


@pytest.mark.parametrize(("key", "value"), [("SEMINAR_DATA", "nowhere"), ("SEMINAR_PROFILE", "fast")])
def test_bad_settings_are_reported(places, monkeypatch, key, value, capsys):
    monkeypatch.setenv(key, value)
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert value in said and f"get it: unset {key}" in said
