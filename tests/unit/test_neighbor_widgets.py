"""The figures of lesson 13: the stages as boxes, and a batch put together around one patient."""

import numpy as np
import pytest
import torch

from seminar_utils.adaptation import NeighborLabels
from seminar_utils.models import create_model
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import explore as explore_module
from seminar_utils.teaching import widgets
from seminar_utils.teaching.neighbor_widgets import ARROWS, BOXES, COMPANY, GRADIENT, choose_company

NAMES = ("small dark", "small bright", "large dark")


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    model = create_model("resnet_small_neighbors", num_classes=3).eval()
    generator = torch.Generator().manual_seed(1)
    return model, torch.rand(24, 1, 16, 16, generator=generator), torch.arange(24) % 3


@pytest.fixture(scope="module")
def table(parts):
    model, x, y = parts
    return widgets.company_table(model, (x[0], int(y[0])), (x[1:], y[1:]), NAMES, counts=(3, 6), draws=4)


def test_company_is_of_its_kind_and_grows():
    labels = np.arange(30) % 3
    for company in COMPANY:
        more = choose_company(labels, 1, 8, company)
        assert len(set(more)) == 8
        assert np.array_equal(choose_company(labels, 1, 5, company), more[:5])
    assert set(labels[choose_company(labels, 1, 8, "own class only")]) == {1}
    assert set(labels[choose_company(labels, 1, 8, "other classes only")]) == {0, 2}
    with pytest.raises(SeminarError, match="the pool has 10"):
        choose_company(labels, 1, 11, "own class only")
    with pytest.raises(SeminarError, match="company is one of"):
        choose_company(labels, 1, 3, "family")


def test_a_stop_is_what_the_method_does_with_that_batch(parts, table):
    model, x, y = parts
    chosen = choose_company(y[1:].numpy(), int(y[0]), 6, "other classes only")
    batch = torch.cat([x[:1], x[1:][torch.as_tensor(chosen)]])
    stop = table.stops[6, "other classes only"]
    after = NeighborLabels(model, samples=4)(batch)[0].softmax(0)
    np.testing.assert_allclose(stop.after, after.numpy(), atol=1e-6)
    before = NeighborLabels(model, lr=0.0)(batch)[0].softmax(0)
    np.testing.assert_allclose(stop.before, before.numpy(), atol=1e-6)
    assert stop.labels.shape == (4, 3) and np.allclose(stop.labels.sum(1), 1, atol=1e-5)


def test_callback_twin_and_slider_show_the_stops(table, monkeypatch):
    figure = widgets.company_figure(3, "own class only", table)
    assert figure.axes[0].get_title() == "truth: small dark"
    assert figure.axes[1].get_title() == "3 neighbours, own class only"
    heights = [bar.get_height() for bar in figure.axes[1].containers[0]]
    np.testing.assert_allclose(heights, table.stops[3, "own class only"].before)
    titles = [ax.get_title() for ax in widgets.company_explorer(table).axes]
    assert titles[:2] == ["3 neighbours, all classes", "6 neighbours, all classes"] and len(titles) == 6
    monkeypatch.setattr(explore_module, "is_static", lambda: False)
    controls = widgets.company_explorer(table).children
    assert controls[0].options == (("3", 3), ("6", 6)) and len(controls[1].options) == 3
    with pytest.raises(SeminarError, match="holds no batch"):
        widgets.company_figure(4, "own class only", table)


def test_the_stages_are_drawn_with_every_box_and_arrow():
    figure = widgets.meta_stage_figure()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert all(box[2] in texts for box in BOXES.values())
    assert {name for pair in ARROWS for name in pair} == set(BOXES)
    assert "two known ones" in figure.description()
    arrows = [text for text in figure.axes[0].texts if hasattr(text, "arrow_patch")]
    dashed = [arrow for arrow in arrows if arrow.arrow_patch.get_linestyle() == "--"]
    assert GRADIENT in texts and len(dashed) == 1
    assert dashed[0].xy == BOXES["q"][:2] and dashed[0].xyann == BOXES["outer"][:2]  # from (d) back to phi
