"""CLIP's training: the loss over processes, hard negatives, dropped words, the loop and its resume."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import clip_process
import numpy as np
import pytest
import torch

from seminar_utils.data import load
from seminar_utils.models import create_model
from seminar_utils.models.tokenizers import WordTokenizer
from seminar_utils.pretraining import clip
from seminar_utils.pretraining.captions import drop_words, hard_negative_batches
from seminar_utils.pretraining.clip import ClipTrainConfig, clamp_logit_scale, clip_loss, epoch_batches, fit_clip
from seminar_utils.runtime import SeminarError

TOLD = ("size", "tone", "type", "place")  # what captions say
SMALL = {"vision_width": 24, "text_width": 16, "vision_layers": 1, "text_layers": 1, "conv_stem": (8, 8)}


@pytest.fixture(scope="module")
def data():
    return load("phantoms", "train", n=160)


@pytest.fixture(scope="module")
def tokenizer(data):
    return WordTokenizer.from_captions(data.captions)


def told(data):
    return {name: data.factors[name] for name in TOLD}


CONFIG = ClipTrainConfig(epochs=3, batch_size=16, caption_dropout=0.15, seed=3)


def run(data, tokenizer, config=CONFIG, **options):
    torch.manual_seed(0)
    model = create_model("clip_tiny", vocab_size=tokenizer.vocab_size, **SMALL)
    history = fit_clip(model, tokenizer, data, config, size=32, factors=told(data), progress=False, **options)
    return model, history


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def processes(tmp_path_factory, root):
    """What one process finds (this one), and each of two, on gloo over the loopback interface."""
    folder = tmp_path_factory.mktemp("gloo")
    env = {**os.environ, "PYTHONPATH": str(root)}
    calls = [[sys.executable, clip_process.__file__, str(rank), "2", str(folder)] for rank in range(2)]
    running = [subprocess.Popen(call, stderr=subprocess.PIPE, text=True, env=env) for call in calls]
    try:
        clip_process.find(0, 1, str(folder))
        said = [process.communicate(timeout=180)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    return [
        torch.load(folder / f"{rank}-of-{count}.pt", weights_only=True) for rank, count in [(0, 1), (0, 2), (1, 2)]
    ]


def test_two_processes_compute_the_loss_and_gradients_of_the_joined_batch(processes):
    joined, *parts = (found["step"] for found in processes)
    assert len(joined) == 6 and all(value.abs().max() > 0 for value in joined.values())
    for part in parts:
        for name, value in joined.items():
            torch.testing.assert_close(part[name], value, rtol=0, atol=1e-12)


def test_two_processes_train_as_one(processes):
    alone, *parts = (found["run"] for found in processes)
    for part in parts:
        assert [row["loss"] for row in part["history"]] == pytest.approx(
            [row["loss"] for row in alone["history"]], rel=1e-3
        )
    for name, value in parts[0]["weights"].items():
        assert torch.equal(value, parts[1]["weights"][name])  # the processes never drift apart
        torch.testing.assert_close(value, alone["weights"][name], rtol=0, atol=2e-3)


def test_loss_of_a_perfect_and_of_a_useless_batch():
    same = torch.eye(8)
    assert clip_loss(same, same, torch.tensor(math.log(100.0))) < 1e-6
    flat = torch.ones(8, 4) / 2
    assert clip_loss(flat, flat, torch.tensor(3.0)).item() == pytest.approx(math.log(8))
    assert clip_loss(same, same.flip(0), torch.tensor(math.log(100.0))) > 90


def test_the_scale_is_clamped_after_the_step(data, tokenizer, monkeypatch):
    model = create_model("clip_tiny", vocab_size=tokenizer.vocab_size, **SMALL)
    for value, expected in [(9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)]:
        with torch.no_grad():
            model.logit_scale.fill_(value)
        clamp_logit_scale(model)
        assert model.logit_scale.item() == pytest.approx(expected)
    seen, real = [], torch.optim.AdamW.step
    monkeypatch.setattr(clip, "clamp_logit_scale", lambda model: (seen.append("clamp"), clamp_logit_scale(model)))
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a, **k: (seen.append("step"), real(self, *a, **k))[1]
    )
    run(data, tokenizer, replace(CONFIG, epochs=1, lr=0.5, weight_decay=0.0))
    assert seen == ["step", "clamp"] * 10


def test_hard_batches_hold_near_misses_and_no_caption_twice(data):
    big = load("phantoms", "train", n=2000)
    table = np.stack(list(told(big).values()), axis=1)  # (N, 4)
    batches = hard_negative_batches(told(big), 24, np.random.default_rng(0))
    varied = set()
    for rows in (next(batches) for _ in range(40)):
        captions = table[rows]
        assert len(rows) == len(np.unique(captions, axis=0)) == 24
        distance = (captions[:, None] != captions[None]).sum(-1) + 9 * np.eye(24, dtype=int)
        # the factor of this batch: with the others equal, all of its values are there (the last group may be cut)
        one = [(captions[a] != captions[b]).argmax() for a, b in zip(*np.nonzero(distance == 1))]
        counts = np.bincount(one, minlength=4)
        sizes = np.array([3, 2, 4, 4])
        full = 24 // sizes * sizes * (sizes - 1)  # ordered pairs within whole groups
        varied |= {k for k in range(4) if counts[k] >= full[k]}
        assert (distance.min(1) == 1).all()
    assert varied == {0, 1, 2, 3}


def test_a_group_has_every_value_of_the_factor_that_varies():
    factors = {"a": np.repeat(np.arange(3), 40), "b": np.tile(np.arange(2), 60), "lonely": np.zeros(120, int)}
    seen = set()
    batches = hard_negative_batches(factors, 6, np.random.default_rng(1))
    for rows in (next(batches) for _ in range(300)):
        assert {(a, b) for a, b in zip(factors["a"][rows], factors["b"][rows])} == {
            (a, b) for a in range(3) for b in range(2)
        }
        seen |= set(rows.tolist())
    assert len(seen) == 120  # every image has its turn


def test_rows_without_a_near_miss_stay_out_of_hard_batches():
    factors = {"a": np.array([0, 1, 2, 3]), "b": np.array([0, 0, 1, 2])}
    batches = hard_negative_batches(factors, 4, np.random.default_rng(0))
    assert all(sorted(next(batches)) == [0, 1] for _ in range(5))


def test_share_of_hard_batches(data):
    table = np.stack([data.factors[name] for name in TOLD], axis=1)  # (N, 4)

    def is_hard(rows):
        """Everybody but a lone one at the cut has a near miss."""
        distance = (table[rows][:, None] != table[rows][None]).sum(-1) + 9 * np.eye(len(rows), dtype=int)
        return (distance.min(1) == 1).sum() >= len(rows) - 1

    def share(hard_share, factors):
        config = ClipTrainConfig(batch_size=16, hard_share=hard_share)
        batches = [rows for epoch in range(20) for rows in epoch_batches(len(data), config, epoch, factors)]
        assert len(batches) == 200
        return np.mean([is_hard(rows) for rows in batches])

    at_random = share(0.5, None)
    assert at_random < 0.25 and share(0.0, told(data)) == at_random and share(1.0, told(data)) == 1
    assert abs(share(0.5, told(data)) - (0.5 + 0.5 * at_random)) < 0.1


def test_hard_batches_begin_when_told_and_vary_what_is_told(data):
    config = ClipTrainConfig(batch_size=16, hard_share=1.0, hard_after=2, vary=("type",))
    for epoch in range(4):
        rest = [
            {tuple(data.factors[name][row] for name in ("size", "tone", "place")) for row in rows}
            for rows in epoch_batches(len(data), config, epoch, told(data))
        ]
        contexts = np.mean([len(found) for found in rest])  # of 16 pictures; a group shares one
        assert contexts < 8 if epoch >= 2 else contexts > 9


def test_plain_batches_are_a_pass_over_the_set():
    rows = np.concatenate(list(epoch_batches(50, ClipTrainConfig(batch_size=16), 0)))
    assert len(rows) == len(set(rows.tolist())) == 48
    again = np.concatenate(list(epoch_batches(50, ClipTrainConfig(batch_size=16), 0)))
    other = np.concatenate(list(epoch_batches(50, ClipTrainConfig(batch_size=16), 1)))
    seeded = np.concatenate(list(epoch_batches(50, ClipTrainConfig(batch_size=16, seed=1), 0)))
    assert (rows == again).all() and (rows != other).any() and (rows != seeded).any()


def test_dropped_words_leave_no_gap(data, tokenizer):
    torch.manual_seed(0)
    ids = tokenizer(data.captions)
    assert torch.equal(drop_words(ids, 0.0), ids)
    dropped = drop_words(ids, 0.3)
    assert dropped.shape == ids.shape and (dropped[:, 0] == ids[:, 0]).all()
    assert (dropped.max(1).values == tokenizer.end).all()
    lost = 0
    for before, after in zip(ids.tolist(), dropped.tolist()):
        end = after.index(tokenizer.end)
        assert all(after[:end]) and not any(after[end + 1 :])
        rest = iter(before)
        assert all(word in rest for word in after[: end + 1])  # the same order
        lost += before.index(tokenizer.end) - end
    words = (ids > 0).sum().item() - 2 * len(ids)
    assert 0.27 < lost / words < 0.33


def test_it_learns(data, tokenizer):
    few = data.subset(range(32))
    config = ClipTrainConfig(epochs=40, batch_size=16, lr=3e-3, hard_share=0.0)
    _, history = run(few, tokenizer, config)
    assert history[0]["loss"] > 2.5 and history[-1]["loss"] < 1.2
    assert history[0]["accuracy"] < 0.3 < 0.5 < history[-1]["accuracy"]
    assert [row["epoch"] for row in history] == list(range(1, 41))


def test_a_seed_fixes_the_run(data, tokenizer):
    config = replace(CONFIG, epochs=1)
    first = weights(run(data, tokenizer, config)[0])
    assert torch.equal(first, weights(run(data, tokenizer, config)[0]))
    assert not torch.equal(first, weights(run(data, tokenizer, replace(config, seed=4))[0]))


@pytest.mark.parametrize("killed_in_epoch", [1, 2])
def test_a_killed_run_ends_with_the_same_weights(data, tokenizer, tmp_path, monkeypatch, killed_in_epoch):
    def look(model):
        assert not model.training
        return {"scale_seen": model.logit_scale.item()}

    expected, expected_history = run(data, tokenizer, evaluate=look)
    real, calls = clip.train_clip_epoch, []

    def dies_later(*arguments):
        calls.append(1)
        if len(calls) == killed_in_epoch + 1:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(clip, "train_clip_epoch", dies_later)
        with pytest.raises(KeyboardInterrupt):
            run(data, tokenizer, evaluate=look, checkpoint=tmp_path / "run.pt")
    model, history = run(data, tokenizer, evaluate=look, checkpoint=tmp_path / "run.pt")
    assert torch.equal(weights(model), weights(expected)) and history == expected_history
    assert not model.training and len(history) == 3 and "scale_seen" in history[0]


def test_a_checkpoint_of_other_settings_is_refused(data, tokenizer, tmp_path):
    run(data, tokenizer, replace(CONFIG, epochs=1), checkpoint=tmp_path / "run.pt")
    with pytest.raises(SeminarError, match="delete it or rename"):
        run(data, tokenizer, checkpoint=tmp_path / "run.pt")


def test_a_diverging_loss_is_named(data, tokenizer):
    model = create_model("clip_tiny", vocab_size=tokenizer.vocab_size, **SMALL)
    with torch.no_grad():
        model.ln_final.weight.fill_(float("nan"))
    with pytest.raises(SeminarError, match="lower lr"):
        fit_clip(model, tokenizer, data, CONFIG, size=32, progress=False)
