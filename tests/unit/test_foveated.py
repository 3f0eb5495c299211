"""The foveated model: what it needs, which passes agree where they must, what its losses and values are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tiny_foveated import EVERY_HEAD, FRAMES, SAMPLES, TINY, TOKENS, WIDTH, built, made_batch
from torch.nn import functional

from fovcache.errors import UsageError
from fovcache.models.foveated.model import make
from fovcache.models.foveated.module import FoveatedModel
from fovcache.models.foveated.queries import derangement, diversity
from fovcache.trainable import resolve_trainable


def states(module: FoveatedModel, batch: Mapping[str, torch.Tensor], which: str) -> torch.Tensor:
    """The language model's states after each frame."""
    frames, around = module._inputs(batch)
    coarse = module.coarse_look(frames, around)
    if which == "coarse":
        return coarse.states_BTW
    if which == "fine":
        return module.fine_look(frames, around, coarse)[0].states_BTW
    return module.autoregressive_look(frames, around)[0].states_BTW


def test_an_entry_point_names_it_and_it_needs_what_it_reads() -> None:
    assert list(resolve_trainable("foveated", TINY).needs()) == ["frames", "frame_labels"]
    needs = make({**TINY, "heads": EVERY_HEAD, "text": True}).needs()
    assert list(needs) == ["frames", "latents", "captions", "frame_labels", "text"]
    assert needs["frames"].layers == ()
    assert needs["frames"].pool == "tokens"
    assert needs["frame_labels"].encoder == "bytes"
    deep = make({"heads": ["caption"], "attention": "deep"}).needs()["frames"]
    assert deep.layers == ("embed", *(f"blocks.{number}" for number in range(11)))
    assert deep.encoder == "dinov2-small"
    assert make({**TINY, "heads": EVERY_HEAD}).frozen() == {
        "encoder": "frames",
        "vae": "latents",
        "tokenizer": "captions",
    }
    assert make(TINY).frozen() == {"encoder": "frames"}


def test_its_document_has_every_setting_and_tells_arms_apart_by_one() -> None:
    base = dict(make(TINY).document())
    assert base["mode"] == "fine"
    assert base["heads"] == {"labels": 1.0}
    assert base["layers"] is None
    for change in ({"mode": "coarse"}, {"queries": "shuffled"}, {"layers": 3}, {"heads": {"labels": 0.5}}):
        changed = dict(make({**TINY, **change}).document())
        assert [key for key in base if changed[key] != base[key]] == list(change)
    assert dict(make({**TINY, "layers": 2}).document()) == base, "the size's own number is no change"


@pytest.mark.parametrize("which", ["coarse", "fine", "autoregressive"])
def test_nothing_before_a_frame_depends_on_it(which: str) -> None:
    module, batch = built(mode=which), made_batch()
    changed = {**batch, "frames": batch["frames"].clone()}
    changed["frames"][:, 3] = torch.randn(SAMPLES, TOKENS, WIDTH)
    before, after = states(module, batch, which), states(module, changed, which)
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amax(dim=(0, 2)).min() > 1e-3


def test_one_frame_is_the_same_fine_and_autoregressive() -> None:
    batch = made_batch(num_frames=1)
    fine, each = built(1), built(1, mode="autoregressive")
    torch.testing.assert_close(states(fine, batch, "fine"), states(each, batch, "autoregressive"))
    found = fine(batch)
    torch.testing.assert_close(found["fine"], each(batch)["fine"])
    assert "entropy_dynamic" not in found
    assert "query_diversity" not in found


@pytest.mark.parametrize("text", [False, True])
def test_as_many_fine_passes_as_frames_are_the_autoregressive_pass(text: bool) -> None:
    """Each pass is right for one frame more; and it reads the whole sequence anew, where the other keeps a cache."""
    batch = made_batch()
    each = built(mode="autoregressive", text=text, heads=["caption", "labels"])
    passes = [built(fine_passes=number, text=text, heads=["caption", "labels"]) for number in (1, 2, FRAMES)]
    wanted = states(each, batch, "autoregressive")
    once, twice, whole = (states(module, batch, "fine") for module in passes)
    torch.testing.assert_close(once[:, :1], wanted[:, :1])
    torch.testing.assert_close(twice[:, :2], wanted[:, :2])
    torch.testing.assert_close(whole, wanted)
    assert (once[:, 1:] - wanted[:, 1:]).abs().max() > 1e-3
    torch.testing.assert_close(passes[-1](batch)["caption"], each(batch)["caption"])


def test_kept_keys_and_values_are_those_of_reading_anew() -> None:
    module, batch = built(mode="autoregressive", text=True), made_batch()
    frames, around = module._inputs(batch)
    kept, _ = module.autoregressive_look(frames, around)
    queries = module.q_init.expand(SAMPLES, 1, -1)
    for number in range(FRAMES):
        seen = [each[:, : number + 1] for each in frames]
        visual = module.visual_tokens(module.attention(seen, queries))
        sequence = torch.cat([around.text_BPW, module.fine_token.expand(SAMPLES, 1, -1), visual], dim=1)
        is_valid = functional.pad(around.is_text, (0, number + 2), value=True)
        last = module.language_model(sequence, is_valid=is_valid)[:, -1:]
        torch.testing.assert_close(kept.states_BTW[:, number : number + 1], last)
        queries = torch.cat([queries, module.to_query(last)], dim=1)


def test_texts_of_other_lengths_beside_it_change_nothing() -> None:
    module, batch = built(text=True), made_batch()
    alone = {name: rows[:1] for name, rows in batch.items()}
    alone["text"] = alone["text"][:, :2]  # its longest is shorter then
    torch.testing.assert_close(module(alone)["loss"], module(batch)["loss"][:1])


def test_the_coarse_mode_ignores_what_only_the_fine_pass_has() -> None:
    coarse, batch = built(mode="coarse").train(), made_batch()
    values = coarse(batch)
    assert values.keys() == {"loss", "coarse", "labels", "accuracy", "entropy_static"}
    values["loss"].mean().backward()
    unused = {name for name, parameter in coarse.named_parameters() if parameter.grad is None}
    assert unused == {
        "q_init",
        "fine_token",
        "to_query.weight",
        "to_query.bias",
        "language_model.model.embed_tokens.weight",
    }
    with torch.no_grad():
        for name, parameter in coarse.named_parameters():
            if name in unused:
                parameter.add_(1)
    assert torch.equal(coarse(batch)["loss"], values["loss"])


def test_the_loss_is_the_trained_pass_and_the_weighted_coarse_one() -> None:
    batch = made_batch()
    settings: dict[str, Any] = {"heads": EVERY_HEAD, "coarse_weight": 0.25}
    values = built(**settings)(batch)
    torch.testing.assert_close(values["loss"], values["fine"] + 0.25 * values["coarse"])
    total = values["labels"] + 0.5 * values["caption"] + 2 * values["reconstruction"]
    torch.testing.assert_close(values["fine"], total)
    coarse = built(**settings, mode="coarse")(batch)
    assert torch.equal(coarse["loss"], values["coarse"])
    assert torch.equal(coarse["fine"], values["fine"])
    assert all(value.shape == (SAMPLES,) and value.dtype == torch.float32 for value in values.values())
    assert [name for name, value in values.items() if value.requires_grad] == ["loss"]
    module = built(**{**settings, "coarse_weight": 0.0}).train()
    assert "coarse" not in module(batch), "what the loss does not need is not computed in training"
    assert "coarse" in module.eval()(batch)


def test_every_parameter_that_is_used_learns() -> None:
    module = built(heads=EVERY_HEAD, text=True).train()
    module(made_batch())["loss"].mean().backward()
    still = [name for name, each in module.named_parameters() if each.grad is None or not bool(each.grad.any())]
    assert not still
    names = [name for name, _ in module.named_parameters()]
    prefixes = [prefix for members in module.parts.values() for prefix in members]
    assert all(sum(name.startswith(prefix) for prefix in prefixes) == 1 for name in names)
    assert list(module.parts) == [
        "queries",
        "attention",
        "projections",
        "language_model",
        "reconstruction",
        "labels",
    ]


def test_the_caption_loss_is_that_of_its_tokens_and_its_end() -> None:
    module, batch = built(heads=["caption"]), made_batch()
    frames, around = module._inputs(batch)
    look = module.coarse_look(frames, around)
    row, num_tokens = 1, 5
    assert batch["captions"][row, num_tokens - 1] == 256, "the end token"
    seen = torch.cat([look.states_BTW[row, -1:], look.tail_BLW[row, : num_tokens - 1]])
    logits = seen @ module.language_model.table.T
    expected = functional.cross_entropy(logits, batch["captions"][row, :num_tokens])
    torch.testing.assert_close(module(batch)["coarse"][row], expected)
    wider = {**batch, "captions": functional.pad(batch["captions"], (0, 3), value=-1)}
    torch.testing.assert_close(module(wider)["loss"], module(batch)["loss"])
    other = {**batch, "captions": batch["captions"].clone()}
    other["captions"][row, num_tokens - 1] = 7
    assert not torch.isclose(module(other)["loss"][row], module(batch)["loss"][row])


def test_the_reconstruction_is_of_the_next_latent_given_this_one() -> None:
    module, batch = built(heads=["reconstruction"]), made_batch()
    frames, around = module._inputs(batch)
    head: Any = module.heads["reconstruction"]
    now = module.coarse_look(frames, around).states_BTW
    errors = [
        (head.predict(batch["latents"][:, t] * 0.5, now[:, t]) - batch["latents"][:, t + 1] * 0.5).square()
        for t in range(FRAMES - 1)
    ]
    expected = torch.stack(errors).mean(dim=(0, 2, 3, 4))
    torch.testing.assert_close(module(batch)["coarse"], expected)
    assert not torch.allclose(
        head.predict(batch["latents"][:, 0], now[:, 0]), head.predict(batch["latents"][:, 0], now[:, 1])
    )


def test_labels_are_scored_where_there_are_some() -> None:
    module, batch = built(mode="coarse"), made_batch()
    frames, around = module._inputs(batch)
    head: Any = module.heads["labels"]
    logits = head.linear(module.coarse_look(frames, around).states_BTW)[:, 1:]
    labels = batch["frame_labels"][:, 1:FRAMES] - ord("A")
    values = module(batch)
    for row in range(SAMPLES):
        torch.testing.assert_close(values["labels"][row], functional.cross_entropy(logits[row], labels[row]))
        assert values["accuracy"][row] == (logits[row].argmax(dim=1) == labels[row]).float().mean()


def test_shuffled_queries_are_all_another_frames() -> None:
    for num_items in (2, 3, 12):
        order = derangement(num_items, torch.device("cpu"))
        assert sorted(order.tolist()) == list(range(num_items))
        assert not (order == torch.arange(num_items)).any()
    predicted, shuffled = built(), built(queries="shuffled")
    batch = made_batch()
    for module in (predicted, shuffled):
        torch.manual_seed(0)
        assert torch.equal(states(module, batch, "fine")[:, 0], states(predicted, batch, "fine")[:, 0])
    torch.manual_seed(0)
    first = shuffled(batch)["fine"]
    assert not torch.isclose(first, predicted(batch)["fine"]).any()
    torch.manual_seed(0)
    assert torch.equal(shuffled(batch)["fine"], first), "drawn from torch's default generator"
    with pytest.raises(UsageError, match="larger"):
        built(2, queries="shuffled")(made_batch(num_frames=2, num_samples=1))


def test_random_queries_have_the_predicted_ones_scale() -> None:
    from fovcache.models.foveated.queries import chosen

    predicted = torch.randn(4, 200, WIDTH) * torch.tensor([0.1, 1.0, 3.0, 10.0])[:, None, None]
    drawn = chosen(predicted, "random")
    torch.testing.assert_close(drawn.std(dim=(1, 2)), predicted.std(dim=(1, 2)), rtol=0.05, atol=0)
    assert functional.cosine_similarity(drawn, predicted, dim=-1).abs().mean() < 0.2


def test_diversity_is_a_mean_cosine_distance() -> None:
    same = torch.ones(1, 3, 4)
    across = torch.eye(4)[None, :3]
    apart = torch.stack([torch.ones(4), -torch.ones(4)])[None]
    found = [float(diversity(queries)) for queries in (same, across, apart, 5 * same)]
    assert found == pytest.approx([0, 1, 2, 0], abs=1e-6)


def test_attention_maps_are_the_patches_share() -> None:
    module, batch = built().train(), made_batch()
    maps = module.attention_maps(batch)
    assert maps.keys() == {"coarse", "fine"}
    assert module.training
    for each in maps.values():
        assert each.shape == (SAMPLES, FRAMES, 4, 4)
        assert not each.requires_grad
        torch.testing.assert_close(each.sum(dim=(2, 3)), torch.ones(SAMPLES, FRAMES))
    frames, around = module._inputs(batch)
    weights = module.coarse_look(frames, around).weights_BTN[:, :, 1:]
    assert torch.equal(maps["coarse"].flatten(2).argmax(dim=2), weights.argmax(dim=2))
    assert built(mode="coarse").attention_maps(batch).keys() == {"coarse"}


def test_it_learns_in_bfloat16_from_bfloat16() -> None:
    module, batch = built(heads=EVERY_HEAD).train(), made_batch()
    batch["frames"], batch["latents"] = batch["frames"].bfloat16(), batch["latents"].bfloat16()
    exact = module(batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = module(batch)
    assert all(value.dtype == torch.float32 for value in values.values())
    torch.testing.assert_close(values["loss"], exact, rtol=0.05, atol=0.05)
    values["loss"].mean().backward()
