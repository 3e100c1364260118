import random

import numpy as np
import pytest
import torch

from seminar_utils import runtime
from seminar_utils.runtime import SeminarError, by_profile, pick_device, profile, seed_everything, set_threads


def test_the_profile_comes_from_the_environment_and_is_cpu_by_default(monkeypatch):
    monkeypatch.delenv("SEMINAR_PROFILE", raising=False)
    assert profile() == "cpu" and by_profile(smoke=1, cpu=2, gpu=3) == 2
    monkeypatch.setenv("SEMINAR_PROFILE", "smoke")
    assert by_profile(smoke=1, cpu=2, gpu=3) == 1


def test_an_unknown_profile_gets_the_nearest(monkeypatch):
    monkeypatch.setenv("SEMINAR_PROFILE", "smok")
    with pytest.raises(SeminarError, match="did you mean 'smoke'"):
        profile()


def test_a_lesson_cannot_forget_a_profile():
    with pytest.raises(SeminarError, match="gpu"):
        by_profile(smoke=1, cpu=2)


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_one_seed_for_all_generators():
    seed_everything(5)
    first = draws()
    seed_everything(5)
    assert draws() == first
    seed_everything(6)
    assert all(a != b for a, b in zip(draws(), first))
    with pytest.raises(SeminarError, match="seed"):
        seed_everything(-1)


def test_devices(monkeypatch):
    monkeypatch.delenv("SEMINAR_DEVICE", raising=False)
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    with pytest.raises(SeminarError, match="cuda"):
        pick_device("cuda:0")
    with pytest.raises(SeminarError, match="did you mean 'cuda'"):
        pick_device("cudda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == torch.device("mps")


def test_threads_follow_the_request_the_environment_then_what_is_free(monkeypatch):
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert set_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr(runtime, "free_cores", lambda: 1)
        assert set_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "many")
        with pytest.raises(SeminarError, match="many"):
            set_threads()
    finally:
        torch.set_num_threads(before)


def test_free_cores_leave_busy_ones_alone(monkeypatch):
    import psutil

    monkeypatch.setattr(runtime, "_cgroup_quota", lambda: None)
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    for busy, free in ((0, 8), (50, 4), (100, 1)):
        monkeypatch.setattr(psutil, "cpu_percent", lambda interval, busy=busy: busy)
        assert runtime.free_cores() == free
    monkeypatch.setattr(runtime, "_cgroup_quota", lambda: 2)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 0)
    assert runtime.free_cores() == 2


def test_folders_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SEMINAR_CACHE", str(tmp_path / "cache"))
    assert runtime.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("SEMINAR_DATA", raising=False)
    assert runtime.seminar_data() is None
    monkeypatch.setenv("SEMINAR_DATA", str(tmp_path))
    assert runtime.seminar_data() == tmp_path.resolve()
    monkeypatch.setenv("SEMINAR_DATA", str(tmp_path / "absent"))
    with pytest.raises(SeminarError, match="SEMINAR_DATA"):
        runtime.seminar_data()


def test_convolution_nets_are_placed_in_channels_last():
    model = runtime.place_model(torch.nn.Conv2d(4, 8, 3), "cpu")
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
