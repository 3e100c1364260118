"""Importing torchvision: works in any install, declares nothing needlessly, hides no other error."""

import importlib
import subprocess
import sys

import pytest

from seminar_utils import torchvision_fix
from seminar_utils.runtime import SeminarError
from seminar_utils.torchvision_fix import COMPILED, import_torchvision, missing_operators

FRESH = """
import torch
from seminar_utils import torchvision_fix
try:
    import torchvision
    needed = False
except RuntimeError as error:
    assert "torchvision::nms" in str(error)
    needed = True
module = torchvision_fix.import_torchvision()
assert module is torchvision_fix.import_torchvision()
assert (torchvision_fix._declared is not None) == needed == bool(torchvision_fix.missing_operators())
import torchvision.datasets, torchvision.models, torchvision.transforms.v2
boxes, scores = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]]), torch.tensor([0.5, 0.4])
try:
    assert module.ops.nms(boxes, scores, 0.5).tolist() == [0] and not needed
except RuntimeError as error:
    assert needed and "custom C++ ops" in str(error)
print("fine")
"""


def test_fresh_process_imports_torchvision_and_stays_honest_about_operators():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, timeout=300)
    assert done.stdout == "fine\n", done.stderr


def test_missing_operators_are_names():
    assert missing_operators() in ([], list(COMPILED))


class Refusing:
    """Stands for importlib.import_module: raises the given errors one by one, then imports."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def __call__(self, name):
        if self.errors:
            raise self.errors.pop(0)
        return sys.modules["torchvision"]


@pytest.fixture
def watched(monkeypatch):
    """Counts declarations and leaves the really imported torchvision alone."""
    import_torchvision()
    declared = []
    monkeypatch.setattr(torchvision_fix, "_declare_schemas", lambda: declared.append(1))
    monkeypatch.setattr(torchvision_fix, "_forget_half_imported", lambda: None)
    return declared


def test_declares_only_after_the_missing_operator(monkeypatch, watched):
    assert import_torchvision() is sys.modules["torchvision"] and not watched
    error = RuntimeError("operator torchvision::nms does not exist")
    monkeypatch.setattr(importlib, "import_module", Refusing(error))
    assert import_torchvision() is sys.modules["torchvision"] and watched == [1]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("out of memory"), RuntimeError("torchvision::nms failed"), ModuleNotFoundError("x", name="PIL")],
)
def test_other_errors_pass_through(monkeypatch, watched, error):
    monkeypatch.setattr(importlib, "import_module", Refusing(error))
    with pytest.raises(type(error)) as caught:
        import_torchvision()
    assert caught.value is error and not watched


def test_not_installed(monkeypatch, watched):
    monkeypatch.setattr(importlib, "import_module", Refusing(ModuleNotFoundError("no", name="torchvision")))
    with pytest.raises(SeminarError, match="pip install torchvision"):
        import_torchvision()
