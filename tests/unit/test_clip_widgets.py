"""The prompt playground: sentences from menus, the callback, the twin, and what it refuses."""

import numpy as np
import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.tokenizers import WordTokenizer
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import widgets
from seminar_utils.teaching.clip_widgets import ANY, MENUS, TWIN, sentence

IMAGES = [np.full((8, 8), value) for value in (0.0, 0.5, 1.0)]
DARK, BRIGHT = (ANY, "dark", ANY, ANY), (ANY, "bright", ANY, ANY)
TABLE = widgets.PromptTable(IMAGES, {DARK: [0.9, 0.1, -0.8], BRIGHT: [-0.7, 0.2, 0.8]})


def test_a_sentence_leaves_out_what_is_not_chosen():
    assert sentence() == "a lesion"
    assert sentence("small", ANY, "round") == "a small round lesion"
    assert sentence(place="upper left", tone="dark") == "a dark lesion in the upper left of the organ"


def test_the_callback_puts_the_best_image_first():
    figure = widgets.prompt_figure(*BRIGHT, table=TABLE)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["0.80", "0.20", "-0.70"]
    assert figure.axes[0].images[0].get_array().mean() == 1.0
    assert "a bright lesion" in figure.get_suptitle()


def test_the_twin_shows_every_sentence_against_every_image():
    figure = widgets.prompt_playground(TABLE)  # no kernel here
    grid = figure.axes[-1]
    assert np.allclose(grid.images[0].get_array(), [[0.9, 0.1, -0.8], [-0.7, 0.2, 0.8]])
    assert [label.get_text() for label in grid.get_yticklabels()] == ["a dark lesion", "a bright lesion"]
    assert [round(frame.get_x() + 0.47) for frame in grid.patches] == [0, 2]  # the best image of each row


def test_captions_stand_above_the_images():
    table = widgets.PromptTable(IMAGES, TABLE.cosines, ["dark", "medium", "bright"])
    assert [ax.get_title() for ax in widgets.prompt_static(table).axes[:3]] == ["dark", "medium", "bright"]
    figure = widgets.prompt_figure(*BRIGHT, table=table)
    assert [ax.get_xlabel() for ax in figure.axes[3:]] == ["bright", "medium", "dark"]
    with pytest.raises(SeminarError, match="3 images take as many captions"):
        widgets.PromptTable(IMAGES, TABLE.cosines, ["one"])


def test_the_table_of_a_model_holds_all_sentences():
    captions = [sentence(*words) for words in TWIN]
    tokenizer = WordTokenizer.from_captions([*captions, "elongated"])
    torch.manual_seed(0)
    model = create_model("clip_tiny", vocab_size=tokenizer.vocab_size).eval()
    table = widgets.prompt_table(model, tokenizer, torch.rand(2, 1, 32, 32))
    assert len(table.cosines) == np.prod([len(options) for options in MENUS.values()]) and set(TWIN) <= set(
        table.cosines
    )
    assert np.abs(table.of(TWIN[0])).max() <= 1.0001


def test_missing_words_and_unequal_lengths_are_told():
    with pytest.raises(SeminarError, match="no sentence"):
        widgets.prompt_figure("huge", ANY, ANY, ANY, table=TABLE)
    with pytest.raises(SeminarError, match="one cosine for each of its 3 images"):
        widgets.PromptTable(IMAGES, {DARK: [0.1]})
