"""Our ResNets against torchvision's and timm's: same random weights, same outputs, same gradients."""

import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.convert import load_weights
from seminar_utils.models.parity import parity_line, parity_report, randomise_
from seminar_utils.torchvision_fix import import_torchvision

torchvision = import_torchvision()
timm = pytest.importorskip("timm")

REFERENCES = {"torchvision": torchvision.models.get_model, "timm": timm.create_model}
CASES = [
    ("resnet18", "torchvision", "resnet18", "layer2"),
    ("resnet18", "timm", "resnet18", "layer2"),
    ("resnet34", "torchvision", "resnet34", "layer4.0"),
    ("resnet50", "torchvision", "resnet50", "layer3"),
    ("resnet50", "timm", "resnet50", "layer3"),
    ("resnet50", "timm", "resnet50_gn", "layer1"),
]


@pytest.mark.parametrize(("name", "package", "reference_name", "feature"), CASES)
def test_equals_reference(name, package, reference_name, feature):
    reference = randomise_(REFERENCES[package](reference_name), seed=3)
    ours = create_model(name, norm="gn" if reference_name.endswith("gn") else "bn")
    assert list(ours.state_dict()) == list(reference.state_dict()) or package == "timm"
    load_weights(ours, reference.state_dict())
    x = torch.randn(2, 3, 67, 99, generator=torch.Generator().manual_seed(1))  # odd and not square

    report = parity_report(ours, reference, x, feature=(feature, feature))
    print("\n" + parity_line(f"{reference_name} vs {package}", report))
    assert all(value <= 1e-5 for key, value in report.items() if key != "max_difference"), report
