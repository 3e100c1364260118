"""Official weights into the course's modules: `load_pretrained("sam_vit_b")`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models import create_model
from ..models.convert import from_biomedclip, from_microsoft, from_torchvision, load_weights
from ..models.mae import load_mae
from ..runtime import SeminarError, place_model
from .clip_files import load_openai_archive
from .files import read_weights, unwrap
from .registry import Checkpoint, cached_file, fetch_pretrained, find_file, pretrained_info

CONVERTERS: dict[str, Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]] = {
    "same": dict,
    "mae_encoder": dict,  # the names are ours; `fill` takes the decoder off the model
    "torchvision": from_torchvision,
    "microsoft": from_microsoft,
    "biomedclip": from_biomedclip,
}


def load_pretrained(
    name: str,
    path: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    **options,
) -> nn.Module:
    """A model of the course with official weights, in eval mode, on the CPU unless `device` is given.

    name: one of `list_pretrained()`. path: a file of your own in the same layout (a fine-tuned MedSAM, say); its
    hash is not compared, except OpenAI's, which are programs. Without it the file is found or downloaded, see
    `registry.fetch_pretrained`. options: as `create_model` takes them. Prepare images with
    `pretrained_transform(name)`. Raises SeminarError when the file cannot be had, is damaged, or does not fit the
    model, listing what is missing, unexpected or of another shape.
    """
    entry = pretrained_info(name)
    file = Path(path) if path else fetch_pretrained(name, progress)
    try:
        state = load_state(entry, file)
    except SeminarError as error:  # where no hash is published, only now a damaged download shows
        raise error if path else SeminarError(f"{error}; remove {file} and fetch {name} again") from error
    model = fill(create_model(entry.model, **{**entry.args, **options}), state, entry, file)
    return place_model(model, device or "cpu").eval()


def pretrained_if_here(name: str) -> nn.Module | None:
    """`load_pretrained` of a file that is on this machine; else None, after printing how to get it.

    Downloads nothing: for lessons that go on without it. Errors as of `load_pretrained`.
    """
    entry = pretrained_info(name)
    if find_file(name):
        return load_pretrained(name, progress=False)
    how = f"seminar fetch {name}" if entry.urls else f"get {entry.file} from {entry.page}"
    place = cached_file(entry)
    if place.is_relative_to(Path.home()):
        place = "~" / place.relative_to(Path.home())
    print(f"{name}: not here. {how} ({entry.megabytes} MB, {entry.licence}), or put {entry.file} at {place}")
    return None


def load_state(entry: Checkpoint, file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's file under the names of our model; errors as of `load_pretrained`."""
    if entry.format == "torchscript":
        state = load_openai_archive(file, entry.sha256)
    else:
        state = unwrap(read_weights(file), entry.unwrap, file.name)
    kept = {key: value for key, value in state.items() if not key.startswith(entry.drop)}
    return dict(CONVERTERS[entry.converter](kept))


def fill(model: nn.Module, state: Mapping[str, Tensor], entry: Checkpoint, file: Path) -> nn.Module:
    """Copy the weights into the model; an error says which file it was and for which checkpoint."""
    try:
        return load_mae(model, state) if entry.converter == "mae_encoder" else load_weights(model, state)
    except SeminarError as error:
        raise SeminarError(f"{file.name} is not the file of {entry.name}: {error}") from error
