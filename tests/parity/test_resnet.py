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
    if package == "torchvision":
        assert list(ours.state_dict()) == list(reference.state_dict())
    load_weights(ours, reference.state_dict())
    x = torch.randn(2, 3, 67, 99, generator=torch.Generator().manual_seed(1))  # odd and not square

    report = parity_report(ours, reference, x, feature=(feature, feature))
    print("\n" + parity_line(f"{reference_name} vs {package}", report))
    assert all(value <= 1e-5 for key, value in report.items() if key != "max_difference"), report


@pytest.mark.parametrize(("reference_name", "norm"), [("resnet18", "bn"), ("resnet50_gn", "gn")])
def test_equals_reference_in_float64(reference_name, norm):
    """What float32 forgives, a slightly different eps for example, must show as well."""
    reference = randomise_(timm.create_model(reference_name, num_classes=7), seed=3).double()
    ours = create_model(reference_name.removesuffix("_gn"), num_classes=7, norm=norm).double()
    load_weights(ours, reference.state_dict())
    x = torch.randn(2, 3, 33, 47, generator=torch.Generator().manual_seed(1)).double()
    report = parity_report(ours, reference, x)
    print("\n" + parity_line(f"{reference_name} (float64) vs timm", report))
    assert all(value <= 1e-11 for value in report.values()), report
