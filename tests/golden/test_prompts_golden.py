"""CoOp, DAPL and TPT against numbers from the official code (golden cases 11b, 11c and 12 of the README).

SEMINAR_GOLDEN=<folder> runs the same tests on other files of the same layout: variants are found in the file.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seminar_utils.adaptation.dapl import dapl_loss, domain_contexts
from seminar_utils.adaptation.memo import marginal_entropy
from seminar_utils.adaptation.prompts import insert_context, slot_order
from seminar_utils.adaptation.tent import softmax_entropy
from seminar_utils.adaptation.tpt import confident_views, tune_prompt
from seminar_utils.models.clip import CLIP, ClipConfig
from seminar_utils.teaching.golden import golden


def close(got, expected, atol=1e-8):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
    np.testing.assert_allclose(got, expected, atol=atol, rtol=0)


def tensor(array):
    return torch.from_numpy(np.array(array))


# -- CoOp (float32) --


def text_tower(data):
    """Our CLIP with the case's text tower; its image tower is not used."""
    sizes = {"context_length": "context_length", "heads": "text_heads", "layers": "text_layers"}
    sizes |= {"width": "text_width", "embed_dim": "embed_dim"}
    options = {ours: int(data[f"hp:{theirs}"]) for theirs, ours in sizes.items()}
    vision = {"image_size": 8, "patch_size": 4, "vision_width": 8, "vision_layers": 1, "vision_heads": 1}
    clip = CLIP(ClipConfig(vocab_size=len(data["w:token_embedding.weight"]), **options, **vision))
    weights = {key[2:]: tensor(value) for key, value in data.items() if key.startswith("w:")}
    assert not clip.load_state_dict(weights, strict=False).unexpected_keys
    return clip.eval()


def coop_variants():
    return sorted({tuple(key.split(":")[1:3]) for key in golden("coop") if key.endswith(":grad_ctx")})


@pytest.mark.parametrize("kind,position", coop_variants())
def test_coop_agrees_with_the_official_code(kind, position):
    data, key = golden("coop"), f"out:{kind}:{position}"
    clip, ids = text_tower(data), tensor(data["in:tokenized_prompts"])
    context = tensor(data[f"in:{kind}:ctx"]).requires_grad_()
    vectors, end = clip.embed_tokens(ids)
    close(vectors, data["in:token_embedding_of_prompts"], 0)
    order = slot_order(ids.shape[1], int(data["hp:n_ctx"]), data["in:name_lens"].tolist(), position)
    prompts = insert_context(vectors.detach(), context, order)
    close(prompts, data[f"{key}:prompts"], 0)
    text = clip.encode_tokens(prompts, end)
    close(text, data[f"{key}:text_features_unnormalised"], 1e-5)
    image = F.normalize(tensor(data["in:image_features_unnormalised"]), dim=1)
    logits = clip.logit_scale.exp() * image @ F.normalize(text, dim=1).T
    close(logits, data[f"{key}:logits"], 1e-5)
    loss = F.cross_entropy(logits, tensor(data["in:labels"]))
    close(loss, data[f"{key}:loss"], 1e-5)
    loss.backward()
    close(context.grad, data[f"{key}:grad_ctx"], 1e-5)


def test_the_text_tower_reads_plain_tokens_as_the_official_one():
    data = golden("coop")
    clip = text_tower(data)
    close(clip.encode_text(tensor(data["in:tokenized_prompts"])), data["out:text_features_of_plain_tokens"], 1e-5)


# -- DAPL --


@pytest.mark.parametrize("kind", sorted({k.split(":")[1] for k in golden("dapl") if k.endswith(":prompts")}))
def test_dapl_s_prompts(kind):
    data, count = golden("dapl"), int(golden("dapl")["hp:n_cls"])
    context, own = (tensor(data[f"in:{kind}:{name}"]) for name in ("ctx", "domain_vectors"))
    prefix, suffix = (tensor(data[f"in:{kind}:token_{name}"]) for name in ("prefix", "suffix"))
    contexts = domain_contexts(context, own, count)
    blanks = prefix.new_zeros(contexts.shape)
    filled = insert_context(torch.cat([prefix, blanks, suffix], dim=1), contexts)
    close(torch.cat([filled, tensor(data[f"in:{kind}:naive_embedding"])]), data[f"out:{kind}:prompts"], 0)


def dapl_case(variant, guard):
    data = golden("dapl")
    source, target = (
        tensor(data[f"in:{variant}:logits_{name}"]).requires_grad_() for name in ("source", "target")
    )
    hp = {name: data[f"hp:{variant}:{name}"].item() for name in ("tau", "U", "T")}
    found = dapl_loss(
        source,
        tensor(data[f"in:{variant}:labels_source"]),
        target,
        int(data["hp:n_cls"]),
        threshold=hp["tau"],
        temperature=hp["T"],
        weight=hp["U"],
        guard=guard,
    )
    found.loss.backward()
    return data, found, source, target


def dapl_variants():
    return sorted({key.split(":")[1] for key in golden("dapl") if key.endswith(":loss_u")})


@pytest.mark.parametrize("variant", dapl_variants())
def test_dapl_s_step_agrees_with_the_official_code_its_nan_included(variant):
    data, found, source, target = dapl_case(variant, guard=False)
    key = f"out:{variant}"
    for name, value in {"loss": found.loss, "loss_x": found.source, "loss_u": found.target}.items():
        close(value, data[f"{key}:{name}"])
    assert (found.mask.numpy() == data[f"{key}:mask"]).all()
    assert (found.pseudo.numpy() == data[f"{key}:pseudo_label"]).all()
    close(found.confidence, data[f"{key}:max_prob"])
    close(source.grad, data[f"{key}:grad_logits_source"])
    close(target.grad, data[f"{key}:grad_logits_target"])
    count = int(data["hp:n_cls"])
    right = source[:, :count].argmax(1).numpy() == data[f"in:{variant}:labels_source"]
    close(100 * right.mean(), data[f"{key}:acc_x"])


@pytest.mark.parametrize("variant", dapl_variants())
def test_departure_no_target_image_above_the_threshold_costs_nothing(variant):
    data, found, source, target = dapl_case(variant, guard=True)
    if not data[f"out:{variant}:mask"].any():
        assert np.isnan(data[f"out:{variant}:loss"]) and found.kept == 0 and found.target == 0
        close(found.loss, data[f"out:{variant}:loss_x"])
        assert (target.grad == 0).all()
    else:
        close(found.loss, data[f"out:{variant}:loss"])
        close(target.grad, data[f"out:{variant}:grad_logits_target"])
    close(source.grad, data[f"out:{variant}:grad_logits_source"])


# -- TPT --


def test_tpt_s_selection_and_loss():
    data = golden("tpt")
    logits = tensor(data["in:logits"]).requires_grad_()
    close(softmax_entropy(logits), data["out:entropy"])
    chosen = confident_views(logits, float(data["hp:selection_p"]))
    assert chosen.tolist() == data["out:selected_idx"].tolist()
    loss = marginal_entropy(logits[chosen])
    close(loss, data["out:loss_selected"])
    close(torch.autograd.grad(loss, logits)[0], data["out:grad_logits"])
    loss = marginal_entropy(logits)
    close(loss, data["out:loss_all_views"])
    close(torch.autograd.grad(loss, logits)[0], data["out:grad_all_views"])
    close(softmax_entropy(logits[chosen]).mean(), data["out:mean_of_entropies_selected_for_comparison"])


@pytest.mark.parametrize(
    "steps", sorted({int(k[8:-4]) for k in golden("tpt") if k.endswith(":ctx") and k[8:9] != ":"})
)
def test_tpt_s_tuning(steps):
    data = golden("tpt")
    context = torch.nn.Parameter(tensor(data["in:tune:ctx0"]))
    views, classes = (
        F.normalize(tensor(data["in:tune:view_features"]), dim=1),
        tensor(data["in:tune:class_embeddings"]),
    )

    def logits_of(rows):
        prompts = torch.cat([context.flatten().expand(len(classes), -1), classes], dim=1)
        text = F.normalize(prompts @ tensor(data["w:tune:text_linear"]).T, dim=1)
        return float(data["hp:tune:logit_scale"]) * (views if rows is None else views[rows]) @ text.T

    close(logits_of(None), data["out:tune:logits_before"])
    options = {"lr": float(data["hp:tune:lr"]), "weight_decay": float(data["hp:tune:adamw_weight_decay"])}
    optimizer = torch.optim.AdamW([context], betas=tuple(data["hp:tune:adamw_betas"]), **options)
    chosen = tune_prompt(logits_of, optimizer, steps=steps, share=float(data["hp:selection_p"]))
    assert chosen.tolist() == data["out:tune:selected_idx"].tolist()
    close(context, data[f"out:tune{steps}:ctx"])
    close(logits_of(torch.tensor([0])), data[f"out:tune{steps}:logits_view0_after"])
