"""One training step: its gradients are those of the networks' losses, however the batch is cut up."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.core.space import Space
from nas.model.spaces import shared_rules
from nas.model.supernet import Supernet
from nas.training.config import Networks, Optimization, TrainConfig
from nas.training.data.batches import Batch
from nas.training.sampling import Draw, Draws
from nas.training.step import Step, noise_seed

BLOCK: dict[str, Any] = {"mixer": "softmax(heads=[1, 2], head_dim=8)", "feedforward": "mlp(ratio=[1, 2])"}
DOCUMENT: dict[str, Any] = {
    "input": 16,
    "channels": 1,
    "classes": 10,
    "stages": [
        {"embed": "patch(size=4)", "dim": [16, 24], "class_token": True, "blocks": [{**BLOCK, "repeat": [1, 2]}, BLOCK]}
    ],
    "head": "class_token",
}


@pytest.fixture(scope="module")
def space() -> Space:
    return Space.parse(DOCUMENT, shared_rules())


@pytest.fixture(scope="module")
def batch() -> Batch:
    chance = torch.Generator().manual_seed(0)
    return Batch(torch.randn(8, 1, 16, 16, generator=chance), torch.randint(10, (8,), generator=chance))


def gradients(space: Space, batch: Batch, draws: tuple[Draw, ...], config: TrainConfig) -> dict[str, Tensor]:
    """Of the bank, after one step from the same weights."""
    torch.manual_seed(0)
    supernet = Supernet(space)
    Step(supernet, config)(0, batch, draws)
    return {name: p.grad.clone() for name, p in supernet.named_parameters() if p.grad is not None}


def alike(one: dict[str, Tensor], two: dict[str, Tensor], atol: float = 1e-6) -> None:
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, two[name], atol=atol, rtol=1e-4)


def test_a_sandwich_is_the_mean_of_its_networks_losses(space: Space, batch: Batch) -> None:
    """By hand: the largest learns the labels, the others its probabilities; the classifier's bias by closed form."""
    draws = Draws(space, "sandwich", 0, 2).at(0)
    config = TrainConfig(networks=Networks(temperature=2.0), label_smoothing=0.1)
    found = gradients(space, batch, draws, config)
    torch.manual_seed(0)
    supernet = Supernet(space)
    losses: list[Tensor] = []
    guide: Tensor | None = None
    for draw in draws:
        logits = supernet.extract(draw.architecture).train()(batch.images)
        losses.append(_loss(logits, batch.targets, guide))
        guide = logits.detach() if guide is None else guide
    result = Step(supernet, config)(0, batch, draws)
    assert result.loss == pytest.approx(float(torch.stack(losses).detach().mean()), rel=1e-5)
    assert result.roles["largest"] == pytest.approx(float(losses[0].detach()), rel=1e-5)
    bias = torch.zeros(10)
    for loss, draw in zip(losses, draws, strict=True):
        network = supernet.extract(draw.architecture).train()
        logits = network(batch.images)
        share = logits.detach().requires_grad_()
        own = _loss(share, batch.targets, None if draw.role == "largest" else guide)
        assert float(own.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
        bias += torch.autograd.grad(own, share)[0].sum(0) / len(draws)
    head = next(name for name in found if name.endswith("classifier/bias"))
    torch.testing.assert_close(found[head], bias, atol=1e-6, rtol=1e-4)


def _loss(logits: Tensor, targets: Tensor, guide: Tensor | None) -> Tensor:
    if guide is None:
        return F.cross_entropy(logits, targets, label_smoothing=0.1)
    return 4 * F.cross_entropy(logits / 2, (guide / 2).softmax(dim=-1))


@pytest.mark.parametrize("strategy", ["single", "sandwich"])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(space: Space, batch: Batch, strategy: str) -> None:
    draws = Draws(space, strategy, 0, 2).at(0)
    networks = Networks(strategy=strategy, inplace=False)  # type: ignore[arg-type]
    whole = gradients(space, batch, draws, TrainConfig(networks=networks))
    parts = gradients(space, batch, draws, TrainConfig(networks=networks, optimization=Optimization(accumulate=4)))
    alike(whole, parts)


def test_recomputed_activations_give_the_same_gradient(space: Space, batch: Batch) -> None:
    draws = Draws(space, "sandwich", 0, 1).at(0)
    kept = gradients(space, batch, draws, TrainConfig(drop_path=0.3))
    again = gradients(space, batch, draws, TrainConfig(drop_path=0.3, checkpointing=True))
    alike(kept, again)


def test_a_network_of_a_split_batch_sees_its_rows_alone(space: Space, batch: Batch) -> None:
    draws = Draws(space, "batch", 0, 2).at(0)
    config = TrainConfig(networks=Networks(strategy="batch", random=2))
    found = gradients(space, batch, draws, config)
    first, second = (Draw(draw.architecture, "random") for draw in draws)
    halves = [Batch(batch.images[rows], batch.targets[rows]) for rows in (slice(0, 4), slice(4, 8))]
    one, two = (gradients(space, half, (draw,), config) for half, draw in zip(halves, (first, second), strict=True))
    names = one.keys() | two.keys()
    assert found.keys() == names
    for name in names:
        added = sum(part[name] for part in (one, two) if name in part)
        torch.testing.assert_close(found[name], added / 2, atol=1e-6, rtol=1e-4)


def test_half_precision_is_near_and_gradients_stay_single(space: Space, batch: Batch) -> None:
    draws = Draws(space, "single", 0, 1).at(0)
    full = gradients(space, batch, draws, TrainConfig())
    half = gradients(space, batch, draws, TrainConfig(precision="bf16"))
    assert all(gradient.dtype is torch.float32 for gradient in half.values())
    alike(full, half, atol=0.02)


def test_noise_is_a_function_of_seed_step_and_rank(space: Space, batch: Batch) -> None:
    assert len({noise_seed(*key) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))}) == 4
    draws = (Draw(space.sample(Random(0)), "random"),)
    config = TrainConfig(drop_path=0.5)
    alike(gradients(space, batch, draws, config), gradients(space, batch, draws, config), atol=0)
