"""`fetch_pretrained` and `load_pretrained` when the network, the server or the file is not as it should be.

The checkpoint is a small one; the real layouts at full size are in parity/test_official_layouts.py.
"""

import argparse
import hashlib
import io
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from seminar_utils import cli, doctor
from seminar_utils.checkpoints import fetch_pretrained, load_pretrained, load_vocabulary, registry
from seminar_utils.checkpoints.registry import Checkpoint
from seminar_utils.models import create_model
from seminar_utils.models.mae import MaskedAutoencoder, encoder_of
from seminar_utils.models.parity import randomise_
from seminar_utils.runtime import SeminarError

SHAPE = {"dim": 48, "depth": 1}
MODEL = randomise_(create_model("vit_tiny", **SHAPE), seed=7).eval()


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


BODY = saved({"model": MODEL.state_dict(), "epoch": 3})
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()
SMALL = Checkpoint("small", "A small ViT", "2010.11929", "vit_tiny", "small.pth", (), 2, "MIT", "sam", SHAPE)
SMALL = replace(SMALL, unwrap=("model",))


@pytest.fixture
def house(tmp_path, monkeypatch, file_server):
    """A registry with one small checkpoint, served from this machine; empty folders for cache and data."""
    for key in ("cache", "data"):
        (tmp_path / key).mkdir()
        monkeypatch.setenv(f"SEMINAR_{key.upper()}", str(tmp_path / key))
    file_server.bodies["small.pth"] = BODY
    file_server.folder, file_server.cache = tmp_path, tmp_path / "cache" / "checkpoints"

    def entry(*ways, **fields):
        urls = tuple(f"{file_server.url}/{way}/small.pth" for way in ways or ("whole",))
        fields = {"urls": urls, "sha256": SHA256, "size": len(BODY), **fields}
        known = {"small": replace(SMALL, **fields)}
        monkeypatch.setattr(registry, "registry", lambda: known)

    file_server.entry = entry
    return file_server


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def is_the_model(model):
    ours, expected = model.state_dict(), MODEL.state_dict()
    return not model.training and all(torch.equal(ours[name], expected[name]) for name in expected)


CHECKS = [
    {},
    {"sha256": SHA256[:8], "size": None},
    {"sha256": None, "md5": MD5[:6]},
    {"sha256": None, "size": None},
]


@pytest.mark.parametrize("checks", CHECKS)
@pytest.mark.parametrize("way", ["whole", "norange", "cut", "moved"])
def test_it_arrives(house, way, checks):
    house.entry(way, **checks)
    assert is_the_model(load_pretrained("small", progress=False))
    assert names(house.cache) == ["small.pth"]
    if way == "cut":
        assert house.requests == [("/cut/small.pth", None), ("/cut/small.pth", f"bytes={len(BODY) // 2}-")]
    count = len(house.requests)
    assert (
        is_the_model(load_pretrained("small", progress=False)) and len(house.requests) == count
    )  # from the cache


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        (["missing"], "404 Not Found"),
        (["forbidden"], "403"),
        (["broken", "busy"], "500.*503"),
        (["bad"], "sha256 .* expected"),
        (["page"], "26 bytes, expected"),
        (["long"], "has .* bytes, expected"),
        (["short"], "has .* bytes, expected"),
    ],
)
def test_it_does_not_arrive(house, ways, said):
    house.entry(*ways)
    with pytest.raises(SeminarError, match=f"small.pth could not be downloaded.*{said}") as error:
        load_pretrained("small", progress=False)
    assert str(house.cache / "small.pth") in str(error.value) and SHA256 in str(error.value)
    assert names(house.cache) == []


@pytest.mark.parametrize("way", ["short", "bad", "cutting"])
@pytest.mark.parametrize("hashed", [{"sha256": SHA256[:8]}, {"sha256": None, "md5": MD5[:6]}])
def test_where_no_size_is_published_the_server_may_lie(house, way, hashed):
    """Nothing comes to its name; at most a part stays, to go on from."""
    house.entry(way, **hashed, size=None)
    with pytest.raises(SeminarError, match="the connection ended after|is damaged"):
        fetch_pretrained("small", progress=False)
    assert names(house.cache) in ([], ["small.pth.part"])
    house.entry("whole", **hashed, size=None)
    assert is_the_model(load_pretrained("small", progress=False)) and names(house.cache) == ["small.pth"]


def test_a_server_that_promises_too_much_is_forgiven_when_the_hash_is_right(house):
    house.entry("long", size=None)
    assert is_the_model(load_pretrained("small", progress=False))
    assert house.requests[1] == ("/long/small.pth", f"bytes={len(BODY)}-")  # there is nothing more: 416


@pytest.mark.parametrize("way", ["page", "short", "bad"])
def test_without_any_hash_the_damage_shows_when_it_is_opened(house, way):
    house.entry(way, sha256=None, size=None)
    with pytest.raises(
        SeminarError, match="small.pth cannot be read as weights.*remove .*small.pth and fetch small"
    ):
        load_pretrained("small", progress=False)


def test_the_lab_s_mirror_is_asked_first_and_believed_no_more(house, monkeypatch):
    house.entry("whole")
    for mirror, ok in (("whole", True), ("bad/", True), ("missing", True)):
        monkeypatch.setenv("SEMINAR_MIRROR", f"{house.url}/{mirror}")
        house.requests.clear()
        assert is_the_model(load_pretrained("small", progress=False)) is ok
        assert house.requests[0][0] == f"/{mirror.strip('/')}/small.pth"
        assert (len(house.requests) == 1) is (mirror == "whole")
        (house.cache / "small.pth").unlink()


def test_no_network(house, capsys):
    with socket.socket() as unused:  # a port where nobody listens
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/small.pth"
        house.entry(urls=(url,))
        assert cli.main(["fetch", "small"]) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in (url, str(house.cache / "small.pth"), SHA256, str(len(BODY))))


def test_no_address(house):
    house.entry(urls=(), page="https://example.org/authors")
    with pytest.raises(
        SeminarError, match="get small.pth .about 2 MB, MIT. from https://example.org/authors and put"
    ):
        load_pretrained("small")


@pytest.mark.parametrize("place", ["cache/checkpoints", "data/weights"])
def test_a_file_that_the_user_placed(house, place):
    house.entry("missing")
    folder = house.folder / place
    folder.mkdir(parents=True)
    (folder / "small.pth").write_bytes(BODY)
    assert is_the_model(load_pretrained("small")) and house.requests == []
    (folder / "small.pth").write_bytes(BODY[:-1])
    with pytest.raises(SeminarError, match=f"{place}/small.pth is not the expected file .{len(BODY) - 1} bytes"):
        load_pretrained("small")
    assert names(folder) == ["small.pth"]  # nothing of the user's is removed


def test_a_path_of_the_user_s_own_is_opened_without_a_hash(house, tmp_path):
    """Fine-tuned weights: wrapped as training scripts do, in half precision, with their command line."""
    house.entry("missing", unwrap=("model", "module."))
    state = {f"module.{name}": value.half() for name, value in MODEL.state_dict().items()}
    content = {"model": state, "optimizer": {"lr": 1}, "epoch": 3, "args": argparse.Namespace(lr=1e-4)}
    (tmp_path / "mine.pth").write_bytes(saved(content))
    model = load_pretrained("small", path=tmp_path / "mine.pth")
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, MODEL.state_dict()[name].half().float())
    with pytest.raises(SeminarError, match="expected at .*gone.pth: No such file$"):
        load_pretrained("small", path=tmp_path / "gone.pth")
    assert house.requests == []


def test_what_does_not_fit_is_told_in_words(house, tmp_path):
    house.entry()
    state = MODEL.state_dict()
    state["head.weight"] = state["head.weight"][:4]
    state["norm.wait"] = state.pop("norm.weight")
    path = tmp_path / "mine.pth"
    path.write_bytes(saved(state))
    with pytest.raises(SeminarError) as error:
        load_pretrained("small", path=str(path))
    said = str(error.value)
    assert said.startswith("mine.pth is not the file of small: these weights do not fit VisionTransformer")
    assert "1 missing: norm.weight; 1 unexpected: norm.wait; 1 wrong shape: head.weight (expected (6, 48)" in said


class Evil:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (pytest.fail, ("code of the file was executed",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {"w": Evil()}}, "cannot be read as weights"),
        ([torch.zeros(2)], "but list"),
        ({"model": {}}, "nothing"),
        ({"net": MODEL.state_dict(), "epoch": 3}, "beside or instead of them net, epoch"),
        ({"model": {"w": 3}}, "beside or instead of them w"),
    ],
)
def test_files_that_hold_something_else(house, tmp_path, content, said):
    house.entry()
    (tmp_path / "mine.pth").write_bytes(saved(content))
    with pytest.raises(SeminarError, match=said):
        load_pretrained("small", path=tmp_path / "mine.pth")


def test_a_program_is_opened_only_after_its_whole_hash_matched(house, monkeypatch):
    """As OpenAI's archives are programs: not even by a path of the user's own."""
    opened = []
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: opened.append(a))
    monkeypatch.setattr(torch, "load", lambda *a, **k: opened.append(a))
    house.entry("bad", format="torchscript")
    with pytest.raises(SeminarError, match="could not be downloaded"):
        load_pretrained("small", progress=False)
    (house.folder / "mine.pt").write_bytes(BODY[:-1])
    with pytest.raises(SeminarError, match="mine.pt was not opened: its sha256"):
        load_pretrained("small", path=house.folder / "mine.pt")
    assert opened == []


def test_an_encoder_without_its_decoder_refuses_to_paint(house, tmp_path):
    sizes = {"img_size": 32, "patch_size": 4, "dim": 48, "depth": 2, "num_heads": 3}
    sizes |= {"in_chans": 1, "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 4}
    mae = randomise_(MaskedAutoencoder(**sizes), seed=3)
    encoder = {k: v for k, v in mae.state_dict().items() if not k.startswith(("decoder", "mask_token"))}
    (tmp_path / "mae.pth").write_bytes(saved({"model": encoder}))
    house.entry(model="mae_vit_b", args=sizes, converter="mae_encoder")
    model, x = load_pretrained("small", path=tmp_path / "mae.pth"), torch.rand(2, 1, 32, 32)
    with pytest.raises(SeminarError, match="encoder only, which cannot paint"):
        model.reconstruct(x)
    assert encoder_of(model, global_pool="token")(x).shape == (2, 48)
    house.entry(model="mae_vit_b", args=sizes)  # the entry of a full file does not put up with it
    with pytest.raises(SeminarError, match="missing: .*mask_token"):
        load_pretrained("small", path=tmp_path / "mae.pth")


def test_a_training_checkpoint_of_dino(house, tmp_path):
    """`teacher`, prefixes of two wrappers, and a head that the backbone does not have."""
    teacher = {
        f"module.backbone.{name}": value for name, value in MODEL.state_dict().items() if "head" not in name
    }
    teacher["module.head.mlp.0.weight"] = torch.zeros(2, 2)
    content = {"student": {}, "teacher": teacher, "args": argparse.Namespace(arch="vit_tiny")}
    (tmp_path / "dino.pth").write_bytes(saved(content))
    official = registry.registry()["dino_vit_s_16"]
    house.entry(args={**SHAPE, "num_classes": 0}, unwrap=official.unwrap, drop=official.drop)
    model = load_pretrained("small", path=tmp_path / "dino.pth")
    assert torch.equal(model.blocks[0].mlp.fc2.weight, MODEL.blocks[0].mlp.fc2.weight)


@pytest.mark.parametrize("digits", ["", "01ec", "sha256:01ec64", "not a hash"])
def test_a_hash_must_say_something(house, digits):
    house.entry(sha256=digits)
    with pytest.raises(SeminarError, match="at least 6 hexadecimal digits"):
        fetch_pretrained("small")
    assert house.requests == []


def test_two_processes_load_at_once_and_download_once(house):
    house.entry("slow")
    code = f"""
from seminar_utils.checkpoints import registry, fetch_pretrained
entry = registry.Checkpoint(**{registry.registry()["small"].__dict__!r})
registry.registry = lambda: {{"small": entry}}
print(fetch_pretrained("small", progress=False))
"""
    pipes = {"stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
    said = [child.communicate(timeout=120)[0].strip() for child in children]
    assert said == [str(house.cache / "small.pth")] * 2 and len(house.requests) == 1
    assert names(house.cache) == ["small.pth"]


def test_the_command_and_the_doctor(house, capsys):
    house.entry()
    assert doctor.examine()["official_checkpoints"] == {"small": "absent   2 MB, seminar fetch small"}
    assert cli.main(["fetch", "small"]) == 0
    path = str(house.cache / "small.pth")
    assert capsys.readouterr().out.strip() == path
    report = doctor.examine()
    assert report["official_checkpoints"] == {"small": f"present  {path}"} and path in doctor.as_text(report)
    house.entry(size=3)
    assert "not the expected file" in doctor.examine()["official_checkpoints"]["small"]
    house.entry(sha256="0" * 64)
    assert doctor.examine(hash_all=True)["official_checkpoints"]["small"].startswith("present, but")
    assert cli.main(["fetch", "small", "smal"]) == 2
    assert "did you mean 'small'" in capsys.readouterr().err


def test_the_vocabulary(house, tmp_path, capsys):
    house.bodies["v.txt"] = "[PAD]\n[UNK]\nä\n\u2028\n".encode()
    house.entry(vocabulary=f"{house.url}/whole/v.txt")
    assert load_vocabulary("small") == load_vocabulary("small") == ["[PAD]", "[UNK]", "ä", "\u2028"]
    assert len(house.requests) == 1 and names(house.cache) == ["small_vocab.txt"]
    assert cli.main(["fetch", "small"]) == 0  # brings both
    assert capsys.readouterr().out.split() == [
        str(house.cache / file) for file in ("small.pth", "small_vocab.txt")
    ]
    (tmp_path / "mine.txt").write_bytes(b"\xff\xfe\xff")
    for wrong in ("mine.txt", "gone.txt"):
        with pytest.raises(SeminarError, match="cannot be read as a list of tokens"):
            load_vocabulary("small", tmp_path / wrong)
