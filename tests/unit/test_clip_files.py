"""CLIP's files: OpenAI's TorchScript archives (hash first), open_clip's files, and what is refused."""

import hashlib
import zipfile

import pytest
import torch
from clip_archive import Archived
from safetensors.torch import save_file

from seminar_utils.checkpoints import clip_files
from seminar_utils.checkpoints.clip_files import load_openai_archive, load_openclip_file, openai_url
from seminar_utils.models import create_model
from seminar_utils.models.convert import load_weights
from seminar_utils.models.parity import randomise_
from seminar_utils.runtime import SeminarError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
SIZES = {
    "vision_width": 24,
    "text_width": 16,
    "vision_layers": 1,
    "text_layers": 1,
    "conv_stem": (),
    "patch_size": 8,
}
SIZES |= {"pool": "class", "embed_dim": 12, "quick_gelu": True}


@pytest.fixture
def model():
    """A small model whose weights float16 can hold, as OpenAI's files do."""
    model = randomise_(create_model("clip_tiny", **SIZES), seed=5).eval()
    return model.half().float()


@pytest.fixture
def archive(model, tmp_path):
    """The model in half precision as a TorchScript archive, and the file's sha256."""
    traced = torch.jit.trace(Archived(model, 32, 24, 32).half(), torch.rand(1, 1, 32, 32).half())
    traced.save(str(tmp_path / "small.pt"))
    model.float()
    return tmp_path / "small.pt", hashlib.sha256((tmp_path / "small.pt").read_bytes()).hexdigest()


def same(state, model):
    ours = model.state_dict()
    return set(state) == set(ours) and all(torch.equal(state[name], ours[name]) for name in ours)


def test_openai_s_archive(archive, model):
    path, sha256 = archive
    state = load_openai_archive(path, sha256)
    assert same(state, model) and all(value.dtype == torch.float32 for value in state.values())
    other = create_model("clip_tiny", **SIZES)
    other.load_state_dict(state, strict=True)
    x, ids = torch.rand(2, 1, 32, 32), torch.tensor([[2, 5, 31], [2, 31, 0]])
    assert torch.equal(load_weights(other, state).eval()(x, ids), model(x, ids))
    assert same(load_openai_archive(str(path), sha256.upper()), model)


def test_nothing_is_opened_before_its_hash_is_right(archive, monkeypatch):
    path, sha256 = archive
    opened = []
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: opened.append(a))
    monkeypatch.setattr(torch, "load", lambda *a, **k: opened.append(a))
    with pytest.raises(SeminarError, match="opened only if its sha256 is given; known by name are ViT-B-32.pt"):
        load_openai_archive(path)
    with pytest.raises(SeminarError, match=f"small.pt was not opened: its sha256 is {sha256[:12]}"):
        load_openai_archive(path, "0" * 64)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SeminarError, match="was not opened"):
        load_openai_archive(path, sha256)
    official = path.rename(path.with_name("ViT-B-32.pt"))
    with pytest.raises(SeminarError, match="was not opened.*expected 40d365715913"):
        load_openai_archive(official)
    assert opened == []


def test_official_archives_are_known_by_name(archive, monkeypatch, model):
    path, sha256 = archive
    monkeypatch.setitem(clip_files.OPENAI_SHA256, "small.pt", sha256)
    assert same(load_openai_archive(path), model)
    assert openai_url("small.pt") == f"https://openaipublic.azureedge.net/clip/models/{sha256}/small.pt"


def test_a_file_that_is_no_archive(tmp_path, model):
    path = tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    with pytest.raises(SeminarError, match="no TorchScript archive; load_openclip_file"):
        load_openai_archive(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("kind", ["safetensors", "bin", "training", "half"])
def test_open_clip_s_files(model, tmp_path, kind):
    state = model.state_dict()
    path = tmp_path / ("open_clip_model.safetensors" if kind == "safetensors" else "open_clip_pytorch_model.bin")
    if kind == "safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    elif kind == "training":
        packed = {f"module.{name}": value for name, value in state.items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": packed, "optimizer": {"state": {}}}, path)
    else:
        torch.save({name: value.half() if kind == "half" else value for name, value in state.items()}, path)
    assert same(load_openclip_file(path), model)


class Evil:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (pytest.fail, ("code of the file was executed",))


def test_files_that_are_no_weights(tmp_path):
    bad = {
        "code.bin": lambda path: torch.save({"w": Evil()}, path),
        "numbers.bin": lambda path: torch.save({"w": 3}, path),
        "list.bin": lambda path: torch.save([torch.zeros(2)], path),
        "empty.bin": lambda path: path.write_bytes(b""),
        "text.bin": lambda path: path.write_text("<html>404</html>"),
        "text.safetensors": lambda path: path.write_text("<html>404</html>"),
        "cut.bin": lambda path: (
            torch.save({"w": torch.zeros(9)}, path),
            path.write_bytes(path.read_bytes()[:200]),
        ),
        "zip.bin": lambda path: zipfile.ZipFile(path, "w").close(),
    }
    for name, write in bad.items():
        write(tmp_path / name)
        with pytest.raises(SeminarError, match=f"{name} (cannot be read as weights|holds no mapping)"):
            load_openclip_file(tmp_path / name)
    for reader in (load_openclip_file, lambda path: load_openai_archive(path, "0" * 64)):
        with pytest.raises(SeminarError, match="expected at .*gone.pt: No such file"):
            reader(tmp_path / "gone.pt")
