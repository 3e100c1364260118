"""The seventeen lessons of the course: number, paper, question. Numbers never change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """One lesson: the notebook's name, the paper it reads, and the question it asks."""

    name: str
    paper: str
    question: str


def _arxiv(label: str, number: str) -> str:
    return f"[{label}](https://arxiv.org/abs/{number})"


COURSE = (
    Lesson("00_start_here", "", "Why does a good model fail in the next hospital?"),
    Lesson("01_resnet", _arxiv("He et al. 2016", "1512.03385"), "Why do shortcuts make depth trainable?"),
    Lesson(
        "02_vision_transformer",
        _arxiv("Dosovitskiy et al. 2021", "2010.11929"),
        "Can attention replace convolution?",
    ),
    Lesson("03_swin", _arxiv("Liu et al. 2021", "2103.14030"), "What do windows buy?"),
    Lesson("04_clip", _arxiv("Radford et al. 2021", "2103.00020"), "Can captions be labels?"),
    Lesson("05_dino", _arxiv("Caron et al. 2021", "2104.14294"), "What does a network learn from itself?"),
    Lesson("06_mae", _arxiv("He et al. 2022", "2111.06377"), "What does filling gaps teach?"),
    Lesson("07_segment_anything", _arxiv("Kirillov et al. 2023", "2304.02643"), "Can one model segment anything?"),
    Lesson(
        "08_medical_foundation_models",
        f"{_arxiv('MedSAM', '2304.12306')}, {_arxiv('BiomedCLIP', '2303.00915')}",
        "What changes when a foundation model sees medicine?",
    ),
    Lesson("09_evaluating_under_shift", "", "How does one fool oneself, and how not?"),
    Lesson("10_what_to_adapt", _arxiv("Bommasani et al. 2021", "2108.07258"), "Which parameters should move?"),
    Lesson("11_tent", _arxiv("Wang et al. 2021", "2006.10726"), "What can test images teach without labels?"),
    Lesson("12_ttt", "TTT++, Liu et al. 2021", "When does self-supervision help at test time?"),
    Lesson("13_neighbor_labels", _arxiv("Ambekar et al. 2023", "2307.04033"), "Can neighbours label each other?"),
    Lesson("14_prompt_adaptation", _arxiv("DAPL, Ge et al. 2023", "2202.06687"), "Is a learnt prompt enough?"),
    Lesson("15_clinical_benchmark", "", "Which method would you deploy?"),
    Lesson("16_your_poster", "", "How do you show your own results?"),
)
