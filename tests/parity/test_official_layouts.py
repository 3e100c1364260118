"""Files in the official layouts, at full size, from a server on this machine into our models by `load_pretrained`.

The weights are random, made by the reference packages (half precision, where the format allows it, to be quick);
what is tested is that name, shape, wrapping, converter and model of a registry entry belong together, so that our
model's outputs are the reference's. One file at a time lies on the disk.
"""

import gc
import hashlib
from dataclasses import replace

import pytest
import torch
from clip_archive import Archived
from torch import nn

from seminar_utils.checkpoints import load_pretrained, registry
from seminar_utils.checkpoints.pretrained import CONVERTERS
from seminar_utils.models import create_model
from seminar_utils.models.convert import fit_report
from seminar_utils.models.convert_hub import from_hub
from seminar_utils.models.parity import randomise_, relative_difference
from seminar_utils.torchvision_fix import import_torchvision

torchvision = import_torchvision()
timm = pytest.importorskip("timm")
ENTRIES = registry.registry()


@pytest.fixture
def load(tmp_path, monkeypatch, file_server):
    """load(name, content): write the file, serve it under a registry that knows its hash, and load the model."""
    monkeypatch.setenv("SEMINAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEMINAR_DATA", raising=False)
    original = tmp_path / "original.pth"

    def run(name, content, save=torch.save, **fields):
        save(content, original)
        with open(original, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        entry = ENTRIES[name]
        file_server.bodies[entry.file] = original
        fields = {"urls": (f"{file_server.url}/whole/{entry.file}",), "sha256": sha256, "md5": None, **fields}
        monkeypatch.setattr(registry, "registry", lambda: {name: replace(entry, **fields)})
        model = load_pretrained(name, progress=False)
        assert len(file_server.requests) == 1
        return model

    yield run
    for path in tmp_path.rglob("*"):  # pytest keeps the folder
        if path.is_file():
            path.unlink()
    gc.collect()


def random(reference):
    """Everything random, and such that half precision holds it exactly."""
    return randomise_(reference, seed=3).half().float().eval()


def half(state):
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def images(size, batch=1):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def same(ours, reference, *inputs, tolerance=1e-5):
    difference = relative_difference(ours(*inputs), reference(*inputs))
    print(f"\nrelative difference {difference:.1e}")
    assert difference <= tolerance


def older_torchvision(state):
    """torchvision's official ViT file still has the names of its first version."""
    return {
        k.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): v for k, v in state.items()
    }


def test_resnet50_of_torchvision(load):
    """Without BatchNorm's counters, as in the file of 2015."""
    reference = random(torchvision.models.resnet50())
    state = {k: v for k, v in half(reference.state_dict()).items() if "num_batches" not in k}
    same(load("resnet50", state), reference, images(96))


def test_vit_b_16_of_torchvision(load):
    reference = random(torchvision.models.vit_b_16())
    same(load("vit_b_16", older_torchvision(half(reference.state_dict()))), reference, images(224))


def test_swin_t_of_torchvision(load):
    reference = random(torchvision.models.swin_t())
    same(load("swin_t", half(reference.state_dict())), reference, images(96))


def microsoft(state):
    """timm's Swin under the authors' names, with the tables that they saved."""
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "layers" and parts[2] == "downsample":  # timm merges at the start of the next stage
            parts[1] = str(int(parts[1]) - 1)
        renamed[".".join(parts).replace("head.fc.", "head.")] = value
    for name in [name for name in renamed if name.endswith("relative_position_bias_table")]:
        renamed[name.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.int64)
    return renamed | {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}


def test_swin_t_of_its_authors(load):
    reference = random(timm.create_model("swin_tiny_patch4_window7_224"))
    same(load("swin_t_microsoft", {"model": microsoft(half(reference.state_dict()))}), reference, images(224))


def test_dino_s_16(load):
    reference = random(timm.create_model("vit_small_patch16_224", num_classes=0))
    same(load("dino_vit_s_16", half(reference.state_dict())), reference, images(224))


def test_dinov2_s_14(load):
    """With the token that only its pre-training used. A full-size image has 1369 patches: enough."""
    reference = random(timm.create_model("vit_small_patch14_dinov2"))
    state = half(reference.state_dict()) | {"mask_token": torch.zeros(1, 384)}
    same(load("dinov2_vit_s_14", state), reference, images(518))


@pytest.fixture(scope="module")
def mae():
    transformers = pytest.importorskip("transformers")
    return random(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(layer_norm_eps=1e-6)))


def test_mae_b_with_its_decoder(load, mae):
    noise = torch.rand(1, 196, generator=torch.Generator().manual_seed(2))
    ours = load("mae_vit_b_full", {"model": half(from_hub(mae.state_dict()))})
    same(
        lambda x: ours(x, 0.75, noise)[1], lambda x: mae(x, noise=noise).logits, images(224)
    )  # what the decoder paints


def test_mae_b_without_its_decoder(load, mae):
    state = {k: v for k, v in half(from_hub(mae.state_dict())).items() if not k.startswith(("decoder", "mask"))}
    ours = load("mae_vit_b", {"model": state})
    noise = torch.rand(1, 196, generator=torch.Generator().manual_seed(2))
    reference = mae.vit
    same(lambda x: ours.encode(x, 0.75, noise)[0], lambda x: reference(x, noise=noise)[0], images(224))
    assert not ours.has_decoder


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_clip_b_32_of_openai(load):
    open_clip = pytest.importorskip("open_clip")
    reference = random(open_clip.create_model("ViT-B-32-quickgelu", pretrained=None))

    def save(model, path):
        torch.jit.trace(Archived(model.half(), 224, 77, 49408), torch.rand(1, 3, 32, 32).half()).save(str(path))
        model.float()

    ours = load("clip_vit_b_32", reference, save)
    ids = open_clip.get_tokenizer("ViT-B-32-quickgelu")(["a chest X-ray", "histology"])
    same(ours, lambda x, ids: reference.get_logits(x, ids)[0], images(224), ids)


def test_biomedclip(load):
    """With the constants that older versions of transformers saved."""
    pytest.importorskip("transformers")
    from test_biomedclip import Reference, some_ids

    reference = random(Reference())
    state = half(reference.state_dict())
    state["text.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    ours = load("biomedclip", state)
    ids = some_ids(2, 16, 30522)
    same(ours.encode_text, reference.text, ids)
    same(ours.encode_image, reference.visual, images(224))
    same(ours, reference, images(224), ids)


@pytest.fixture(scope="module")
def sam():
    """Two of the twelve blocks are run: one with windows, one global. The other ten are compared as tensors."""
    segment_anything = pytest.importorskip("segment_anything")
    return random(segment_anything.sam_model_registry["vit_b"]())


def check_sam(ours, reference):
    expected = reference.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())
    embeddings = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(4))
    boxes = torch.tensor([[100.0, 200.0, 600.0, 800.0]])
    with torch.no_grad():
        sparse, dense = reference.prompt_encoder(points=None, boxes=boxes, masks=None)
        place = reference.prompt_encoder.get_dense_pe()
        masks, quality = reference.mask_decoder(embeddings, place, sparse, dense, multimask_output=True)
        our_masks, our_quality = ours.decode(embeddings, boxes=boxes, multimask=True)
    assert relative_difference(our_masks, masks) <= 1e-5 and relative_difference(our_quality, quality) <= 1e-5


def two_blocks(encoder):
    blocks, encoder.blocks = encoder.blocks, nn.ModuleList([encoder.blocks[0], encoder.blocks[2]])
    return encoder, blocks


def test_sam_b(load, sam):
    ours = load("sam_vit_b", half(sam.state_dict()))
    check_sam(ours, sam)
    (reference, blocks), (encoder, _) = two_blocks(sam.image_encoder), two_blocks(ours.image_encoder)
    same(encoder, reference, images(1024))
    reference.blocks = blocks


def test_medsam_as_training_leaves_it(load, sam):
    state = {f"module.{name}": value for name, value in half(sam.state_dict()).items()}
    check_sam(load("medsam_vit_b", {"model": state, "optimizer": {"state": {}}, "epoch": 7}), sam)


def vision(name):
    return lambda: torchvision.models.get_model(name)


def of_timm(name):
    return lambda: timm.create_model(name, num_classes=0)


def hub_mae(**sizes):
    transformers = pytest.importorskip("transformers")
    return transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**sizes))


def other_sam(size):
    return lambda: pytest.importorskip("segment_anything").sam_model_registry[size]()


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
HUGE = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}
OTHER_SIZES = {
    "resnet18": vision("resnet18"),
    "resnet50_v2": vision("resnet50"),
    "swin_s": vision("swin_s"),
    "swin_b": vision("swin_b"),
    "dino_vit_s_8": of_timm("vit_small_patch8_224"),
    "dino_vit_b_16": of_timm("vit_base_patch16_224"),
    "dino_vit_b_8": of_timm("vit_base_patch8_224"),
    "mae_vit_b_visualize": hub_mae,
    "mae_vit_l_full": lambda: hub_mae(**LARGE),
    "mae_vit_h_full": lambda: hub_mae(**HUGE, patch_size=14),
    "clip_vit_b_16": lambda: pytest.importorskip("open_clip").create_model("ViT-B-16-quickgelu", device="meta"),
    "sam_vit_l": other_sam("vit_l"),
    "sam_vit_h": other_sam("vit_h"),
}


@pytest.mark.parametrize("name", OTHER_SIZES)
def test_other_sizes_have_the_official_names_and_shapes(name):
    entry = ENTRIES[name]
    with torch.device("meta"):
        state = OTHER_SIZES[name]().state_dict()
        model = create_model(entry.model, **entry.args)
    state = from_hub(state) if name.startswith("mae") else state
    assert not any(fit_report(model, CONVERTERS[entry.converter](state)).values())


def test_all_entries_are_looked_at():
    """The encoders of MAE L and H are parts of their full files; LiteMedSAM's own is in test_registry.py."""
    at_full_size = {"resnet50", "vit_b_16", "swin_t", "swin_t_microsoft", "dino_vit_s_16", "dinov2_vit_s_14"}
    at_full_size |= {"mae_vit_b_full", "mae_vit_b", "clip_vit_b_32", "biomedclip", "sam_vit_b", "medsam_vit_b"}
    assert set(ENTRIES) - at_full_size - set(OTHER_SIZES) == {"mae_vit_l", "mae_vit_h", "lite_medsam"}
