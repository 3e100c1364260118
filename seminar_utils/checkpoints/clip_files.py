"""CLIP's weights from the two kinds of files there are: OpenAI's archives, and what open_clip saves.

Both hold the names of `models/clip.py`:
`load_weights(create_model("clip_vit_b_32"), load_openai_archive("ViT-B-32.pt"))`.
A file does not say which activation it was trained with: OpenAI's need QuickGELU (ours by default), most of
open_clip's own training runs do not (`create_model("clip_vit_b_32", quick_gelu=False)`).
"""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ..runtime import SeminarError
from .files import as_float32, read_weights, unwrap

OPENAI_SHA256 = {
    "ViT-B-32.pt": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B-16.pt": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
}
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # three numbers among OpenAI's tensors


def openai_url(name: str) -> str:
    """Where OpenAI keeps an archive, for `download.fetch`: the folder is called like the file's sha256."""
    return f"https://openaipublic.azureedge.net/clip/models/{OPENAI_SHA256[name]}/{name}"


def load_openai_archive(path: str | Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The weights of one of OpenAI's `.pt` files as float32, under the names of `models/clip.py`.

    These files are TorchScript archives, programs with weights inside, so this is the one place of the
    course where `weights_only=True` cannot protect: the file's sha256 is checked BEFORE it is opened.
    sha256: what is expected; OpenAI's own B/32 and B/16 are known by their file names.
    Raises SeminarError when the hash is unknown or another one, or the file is no such archive.
    """
    path = Path(path)
    expected = sha256 or OPENAI_SHA256.get(path.name)
    if expected is None:
        raise SeminarError(
            f"{path.name} is a program, not only weights, and is opened only if its sha256 is given; known by "
            f"name are {', '.join(OPENAI_SHA256)}"
        )
    content = read(path)  # what is hashed is what is opened, even if the file changes meanwhile
    came = hashlib.sha256(content).hexdigest()
    if came != expected.lower():
        raise SeminarError(
            f"{path.name} was not opened: its sha256 is {came[:12]}..., expected {expected[:12]}..."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load: there is no other way in
            state = torch.jit.load(io.BytesIO(content), map_location="cpu").state_dict()
    except RuntimeError as error:
        raise SeminarError(f"{path.name} is no TorchScript archive; load_openclip_file reads others") from error
    return as_float32({name: value for name, value in state.items() if name not in NO_WEIGHTS})


def load_openclip_file(path: str | Path) -> dict[str, Tensor]:
    """The weights of an open_clip file (`.safetensors`, or torch.save's) as float32.

    Training checkpoints are unpacked (`state_dict`, and `module.` of DataParallel). Nothing in the file is
    executed. Raises SeminarError when it is damaged, or holds anything but tensors.
    """
    path = Path(path)
    return as_float32(unwrap(read_weights(path), ("state_dict", "module."), path.name))


def read(path: Path) -> bytes:
    """The bytes of a file; SeminarError when there is none."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SeminarError(f"CLIP's weights were expected at {path}: {error.strerror}") from error
