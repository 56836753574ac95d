"""A bound network is a view of the bank: its outputs, gradients and statistics are those of a network of its own."""

from __future__ import annotations

import copy
import dataclasses
import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model import supernet as module
from nas.model.costs import Costs
from nas.model.spaces import load_named_space, shared_rules
from nas.model.supernet import Supernet

Shipped = Callable[[str], Supernet]


def small_space() -> Space:
    """Operators that share tensors, crop centres, keep statistics, have constants; an exit. Images of 16 pixels."""
    block = {
        "repeat": [1, 2],
        "position": ["none", "peg(kernel=[3, 5])", "rotary"],
        "mixer": [
            "softmax(heads=[1, 2], head_dim=8)",
            "window(size=2, shift=[false, true], heads=[1, 2], head_dim=8)",
            "rep_depthwise(kernel=[3, 5])",
        ],
        "feedforward": ["mlp(ratio=[1, 2])", "inverted(ratio=[1, 2], kernel=[3, 5])"],
        "layer_scale": [None, 0.5],
    }
    first = {"embed": ["stem_halving(convs=2)", "patch(size=4)"], "dim": [8, 16], "position": ["none", "sincos"]}
    stages = [
        {**first, "blocks": [block, {**block, "repeat": [0, 1], "exit": ["none", "linear(token=mean)"]}]},
        {"embed": "patch_merging", "dim": [16, 32], "blocks": [block], "end_norm": ["layer", "batch"]},
    ]
    head = ["mean", "mean(norm=batch)", "projected(width=[8, 16])"]
    document = {"name": "small", "input": 16, "channels": 1, "classes": 4, "stages": stages, "head": head}
    return Space.parse(document, shared_rules(), "small")


SPACE = small_space()


@pytest.fixture
def bank() -> Supernet:
    """A supernet of the small space with weights, norms and statistics that are neither 0 nor 1."""
    torch.manual_seed(0)
    supernet = Supernet(SPACE)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
        for name, statistic in supernet.named_buffers():
            if "running" in name:
                statistic.add_(0.3 * torch.rand_like(statistic))
    return supernet


def networks(space: Space, count: int, seed: int = 0) -> list[Architecture]:
    """Random networks of a space, each another."""
    chance, found = Random(seed), {}
    while len(found) < count:
        architecture = space.sample(chance)
        found[architecture.digest] = architecture
    return list(found.values())


def images(architecture: Architecture, seed: int = 1, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, architecture.channels, architecture.input, architecture.input, generator=generator)


def losses_of(network: nn.Module, image: Tensor) -> Tensor:
    """A loss that reaches every exit and the head."""
    return sum(logits.square().mean() for _, logits in network.forward_exits(image))  # type: ignore[operator, misc]


def check_extraction(supernet: Supernet, architecture: Architecture) -> None:
    image, own = images(architecture).to(next(supernet.parameters()).dtype), supernet.extract(architecture)
    with torch.no_grad():
        bound = supernet.bind(architecture)(image)
        assert torch.equal(bound, own(image)) and bound.isfinite().all()
    assert bound.dtype == image.dtype


# Slices --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, count", [("tiny", 4), ("digits", 25), ("mixed", 6)])
def test_bound_equals_extracted(shipped: Shipped, name: str, count: int) -> None:
    for architecture in networks(load_named_space(name), count):
        check_extraction(shipped(name), architecture)


def test_many_networks_of_the_small_space(bank: Supernet) -> None:
    for architecture in networks(SPACE, 40):
        check_extraction(bank, architecture)


@pytest.mark.parametrize("name", ["tiny", "digits", "mixed"])
def test_largest_and_smallest(shipped: Shipped, name: str) -> None:
    """Of many by parameters: the largest of `tiny` is the whole bank, the smallest the leading blocks of the least."""
    if name == "tiny":
        document = load_named_space(name).sample(Random(0)).to_dict()
        chosen = []
        for dim, repeat, heads, ratio in ((192, 12, 3, 3.5), (240, 14, 4, 4.0)):
            (stage,) = document["stages"]
            block = {**stage["blocks"][0], "repeat": repeat, "mixer": f"softmax(heads={heads}, head_dim=64)"}
            blocks = [{**block, "feedforward": f"mlp(ratio={ratio})"}]
            wanted = {**document, "stages": [{**stage, "dim": dim, "blocks": blocks}]}
            chosen.append(Space.parse(wanted, shared_rules(), name).only())
        assert sum(p.numel() for p in shipped(name).parameters()) == Costs().cost(chosen[1]).params
    else:
        chosen = sorted(networks(load_named_space(name), 200), key=lambda one: Costs().cost(one).params)
    for architecture in (chosen[0], chosen[-1]):
        check_extraction(shipped(name), architecture)


def test_a_networks_parameters_are_those_of_the_formulas(bank: Supernet) -> None:
    for architecture in networks(SPACE, 20):
        params = Costs().cost(architecture).params
        for network in (bank.bind(architecture), bank.bind(architecture, train=True), bank.extract(architecture)):
            assert sum(parameter.numel() for parameter in network.parameters()) == params


def test_the_kind_of_network_is_the_one_asked_for(bank: Supernet) -> None:
    (architecture,) = networks(SPACE, 1)
    trained, still = bank.bind(architecture, train=True), bank.bind(architecture)
    assert trained.training and not still.training
    assert bank.bind(architecture, train=True) is trained and bank.bind(architecture) is still
    image = images(architecture)
    assert torch.equal(bank.eval()(image, architecture), still(image))
    torch.testing.assert_close(bank.train()(image, architecture), trained(image))


# Training ------------------------------------------------------------------------------------------------------------


class Reference:
    """The same training by autograd alone: slices are taken of leaf tensors in the forward pass."""

    def __init__(self, supernet: Supernet, architecture: Architecture | None = None):
        """Of the whole bank, or of what this network has of it."""
        self.supernet = supernet
        held = list(supernet.parameters())
        if architecture is not None:
            held = [full for _, full in supernet.prepare(architecture).slots if isinstance(full, nn.Parameter)]
        self.of = {full: nn.Parameter(full.detach().clone()) for full in held}
        self.trained = {full: torch.zeros(full.shape, dtype=torch.bool) for full in held}  # slices, since checked

    def loss(self, architecture: Architecture, image: Tensor) -> Tensor:
        """With the weights as they are now, and statistics of its own."""
        bound = self.supernet.prepare(architecture)
        names = {module: name for name, module in bound.network.named_modules()}
        state = {}
        for (owner, name, _, crop, shape), full in bound.slots:
            if isinstance(full, nn.Parameter):
                crop(self.trained[full], shape).fill_(True)
            piece = crop(self.of[full], shape) if isinstance(full, nn.Parameter) else crop(full, shape).clone()
            state[f"{names[owner]}.{name}".removeprefix(".")] = piece

        class Exits(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = bound.network.train()

            def forward(self, x: Tensor) -> Tensor:
                return losses_of(self.network, x)

        return functional_call(Exits(), {f"network.{name}": value for name, value in state.items()}, (image,))

    def check_weights(self) -> None:
        for full, mine in self.of.items():
            torch.testing.assert_close(full.detach(), mine.detach(), atol=1e-6, rtol=1e-5)

    def check_gradients(self) -> None:
        """None where no network that was trained has the tensor; zero outside the slices."""
        assert all(full.grad is None for full in self.supernet.parameters() if full not in self.of)
        for full, mine in self.of.items():
            assert (full.grad is None) == (mine.grad is None)
            if full.grad is not None and mine.grad is not None:
                torch.testing.assert_close(full.grad, mine.grad, atol=1e-6, rtol=1e-5)
                assert not full.grad[~self.trained[full]].any(), "a gradient fell outside the slice"
            self.trained[full].zero_()


def test_gradients_land_in_the_slice_and_sum_over_networks(bank: Supernet) -> None:
    for one, two in itertools.pairwise(networks(SPACE, 10)):
        reference = Reference(bank)
        image = images(one)
        first, second = (losses_of(bank.bind(a, train=True), image) for a in (one, two))
        (first + 2 * second).backward()
        (reference.loss(one, image) + 2 * reference.loss(two, image)).backward()
        reference.check_gradients()
        bank.zero_grad()


def test_gradients_of_the_flagship(shipped: Shipped) -> None:
    supernet = shipped("mixed")
    for number, architecture in enumerate(networks(load_named_space("mixed"), 2, seed=4)):
        reference, image = Reference(supernet, architecture), images(architecture)
        torch.manual_seed(number)  # some operators draw in training
        losses_of(supernet.bind(architecture, train=True), image).backward()
        torch.manual_seed(number)
        reference.loss(architecture, image).backward()
        try:
            reference.check_gradients()
        finally:
            supernet.zero_grad()


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
}
ZEROING = ["optimizer none", "optimizer zeros", "supernet none", "supernet zeros", "in turn", "both"]


def zero(way: str, step: int, supernet: Supernet, optimizer: torch.optim.Optimizer) -> bool:
    """Put gradients to zero; whether they are None afterwards."""
    if way == "in turn":
        way = ZEROING[step % 4]
    owner, _, kind = way.partition(" ")
    none = kind != "zeros"
    if owner in ("supernet", "both"):
        supernet.zero_grad(set_to_none=none)
    if owner in ("optimizer", "both"):
        optimizer.zero_grad(set_to_none=none)
    return none


@pytest.mark.parametrize("way, kind", [*((way, "sgd") for way in ZEROING), ("optimizer none", "adamw")])
def test_training_one_network_is_training_the_extracted_one(bank: Supernet, way: str, kind: str) -> None:
    bank.double()  # where a bias that a batch norm takes away has no gradient but rounding, AdamW blows that up
    for architecture in networks(SPACE, 2, seed=9):
        own = bank.extract(architecture).train()
        mine, theirs = (OPTIMIZERS[kind](owner.parameters()) for owner in (bank, own))
        for step in range(4):
            image = images(architecture, seed=step).double()
            found, expected = losses_of(bank.bind(architecture, train=True), image), losses_of(own, image)
            torch.testing.assert_close(found, expected)
            for loss, optimizer in ((found, mine), (expected, theirs)):
                loss.backward()
                optimizer.step()
            theirs.zero_grad(set_to_none=zero(way, step, bank, mine))
        after = bank.extract(architecture).state_dict()
        for name, value in own.state_dict().items():  # statistics too
            torch.testing.assert_close(after[name], value)
        bank.zero_grad()


@pytest.mark.parametrize("way, kind", [*((way, "adamw") for way in ZEROING), ("supernet none", "sgd")])
def test_training_many_networks_is_training_by_autograd(bank: Supernet, way: str, kind: str) -> None:
    """Two networks a step, some known from before, with another evaluated between their passes."""
    many, reference, chance = networks(SPACE, 5, seed=3), Reference(bank.double()), Random(0)
    mine, theirs = OPTIMIZERS[kind](bank.parameters()), OPTIMIZERS[kind](list(reference.of.values()))
    for step in range(4):
        one, two, other = chance.sample(many, 3)
        image = images(one, seed=step).double()
        expected = reference.loss(one, image) + reference.loss(two, image)
        found = losses_of(bank.bind(one, train=True), image) + losses_of(bank.bind(two, train=True), image)
        with torch.no_grad():
            bank.bind(other)(image)
            bank.bind(one)(image)
        torch.testing.assert_close(found, expected)
        for loss, optimizer in ((found, mine), (expected, theirs)):
            loss.backward()
            optimizer.step()
        reference.check_gradients()
        reference.check_weights()
        theirs.zero_grad(set_to_none=zero(way, step, bank, mine))


def test_no_slice_is_stale_after_a_step(bank: Supernet) -> None:
    many = networks(SPACE, 12)
    held = [(architecture, bank.bind(architecture), bank.bind(architecture, train=True)) for architecture in many]
    optimizer = torch.optim.SGD(bank.parameters(), lr=0.5)
    for step in range(3):
        image = images(many[step])
        losses_of(bank.bind(many[step], train=True), image).backward()
        optimizer.step()
        optimizer.zero_grad()
        for architecture, still, trained in held:
            own = bank.extract(architecture)
            with torch.no_grad():
                assert torch.equal(still(image), own(image)) and torch.equal(bank.bind(architecture)(image), own(image))
            weights = dict(trained.named_parameters())
            assert all(torch.equal(value, weights[name]) for name, value in own.named_parameters())


def test_evaluation_between_two_passes_does_no_harm(bank: Supernet) -> None:
    """In-place distillation: the teacher, trained before, is evaluated while the student waits for its backward."""
    student, teacher = networks(SPACE, 2)
    image = images(student)
    losses_of(bank.bind(teacher, train=True), image).backward()
    bank.zero_grad()
    losses_of(bank.bind(student, train=True), image).backward()
    expected = {full: full.grad.clone() for full in bank.parameters() if full.grad is not None}
    bank.zero_grad()
    loss = losses_of(bank.bind(student, train=True), image)
    for other in (teacher, student):
        with torch.no_grad():
            bank.bind(other)(image)
    loss.backward()
    assert all(full.grad is not None and torch.equal(full.grad, value) for full, value in expected.items())


def test_gradients_of_an_evaluated_network_are_its_own(bank: Supernet) -> None:
    """Scores read gradients of the parameters in eval mode: the bank's stay as they are."""
    (architecture,) = networks(SPACE, 1)
    losses_of(bank.bind(architecture, train=True), images(architecture)).backward()
    before = {full: full.grad.clone() for full in bank.parameters() if full.grad is not None}
    still = bank.bind(architecture)
    assert all(parameter.grad is None for parameter in still.parameters())
    losses_of(still, images(architecture)).backward()
    assert all(parameter.grad is not None for parameter in still.parameters())
    assert all(torch.equal(full.grad, value) for full, value in before.items())  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ZEROING)
def test_each_bank_tensor_has_one_gradient_memory(bank: Supernet, way: str) -> None:
    """However many networks were trained since: each step allocates nothing that an earlier network still holds."""
    optimizer = torch.optim.SGD(bank.parameters(), lr=0.01)
    held = []
    for step, architecture in enumerate(networks(SPACE, 8)):
        held.append(bank.bind(architecture, train=True))
        losses_of(held[-1], images(architecture)).backward()
        optimizer.step()
        zero(way, step, bank, optimizer)
    gradients = [parameter.grad for network in held for parameter in network.parameters()]
    memories = {gradient.untyped_storage().data_ptr() for gradient in gradients if gradient is not None}
    assert len(memories) <= len(list(bank.parameters()))


def test_statistics_are_written_to_the_banks_slices(bank: Supernet) -> None:
    changed = 0
    for architecture in networks(SPACE, 12):
        own, image = bank.extract(architecture).train(), images(architecture, count=4)
        before = {name: value.clone() for name, value in bank.named_buffers()}
        with torch.no_grad():
            bank.bind(architecture, train=True)(image)
            own(image)
        after = bank.extract(architecture).state_dict()
        for name, value in own.named_buffers():
            if name in after:  # constants are not
                torch.testing.assert_close(after[name], value)
        size = sum(value.numel() for name, value in own.named_buffers() if name in after)
        moved = [int((value != before[name]).sum()) for name, value in bank.named_buffers()]
        assert sum(moved) <= size, "nothing outside the slices moved"
        changed += sum(moved)
        with torch.no_grad():
            before = {name: value.clone() for name, value in bank.named_buffers()}
            bank.bind(architecture)(image)
        assert all(torch.equal(value, before[name]) for name, value in bank.named_buffers())
    assert changed


def test_inference_mode_leaves_nothing_that_cannot_be_trained(bank: Supernet) -> None:
    (architecture,) = networks(SPACE, 1)
    image = images(architecture)
    with torch.inference_mode():
        bank.bind(architecture)(image)
        own = bank.extract(architecture)
        bank.bind(architecture, train=True)
    for network in (bank.bind(architecture), bank.bind(architecture, train=True), own.train()):
        losses_of(network, image).backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


# The bank ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assign", [False, True])
def test_saved_and_loaded(bank: Supernet, assign: bool, tmp_path: Path) -> None:
    save_file(bank.state_dict(), tmp_path / "bank.safetensors")
    torch.manual_seed(7)
    other, many = Supernet(SPACE), networks(SPACE, 6)
    for architecture in many:
        other.bind(architecture)
    other.load_state_dict(load_file(tmp_path / "bank.safetensors"), assign=assign)
    for architecture in many:
        image = images(architecture)
        with torch.no_grad():
            logits = bank.bind(architecture)(image)
            assert torch.equal(other.bind(architecture)(image), logits)
            assert torch.equal(other.extract(architecture)(image), logits)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    losses_of(other.bind(many[0], train=True), images(many[0])).backward()
    optimizer.step()
    check_extraction(other, many[0])
    assert not torch.equal(other.bind(many[0])(image), bank.bind(many[0])(image))


def test_same_seed_same_bank(bank: Supernet) -> None:
    torch.manual_seed(3)
    one = Supernet(SPACE).state_dict()
    torch.manual_seed(3)
    two = Supernet(SPACE).state_dict()
    assert list(one) == list(two) and all(torch.equal(value, two[name]) for name, value in one.items())


def test_another_precision_lets_old_views_go(bank: Supernet) -> None:
    many = networks(SPACE, 8)
    image = images(many[0])
    losses_of(bank.bind(many[0], train=True), image).backward()
    old = {architecture: bank.bind(architecture) for architecture in many}
    with torch.no_grad():
        before = {architecture: network(image) for architecture, network in old.items()}
    bank.to(torch.float64)
    for architecture, network in old.items():
        check_extraction(bank, architecture)
        with torch.no_grad():
            assert torch.equal(network(image), before[architecture]), "a network held since then has the old weights"
            torch.testing.assert_close(bank.bind(architecture)(image.double()).float(), before[architecture])
        assert bank.bind(architecture) is not network
    bank.zero_grad()
    reference = Reference(bank)
    losses_of(bank.bind(many[1], train=True), image.double()).backward()
    reference.loss(many[1], image.double()).backward()
    reference.check_gradients()


@pytest.mark.parametrize("name", ["digits"])
def test_constants_follow_precision(shipped: Shipped, name: str) -> None:
    supernet = copy.deepcopy(shipped(name)).double()
    for architecture in networks(load_named_space(name), 15, seed=2):
        check_extraction(supernet, architecture)


def changed(architecture: Architecture, **knobs: Any) -> Architecture:
    """The network with these values in its first stage."""
    first, *later = architecture.stages
    return dataclasses.replace(architecture, stages=(dataclasses.replace(first, **knobs), *later))


def foreign() -> Iterator[tuple[Architecture, str]]:
    """Networks that are not in `tiny`, and what is said of them."""
    inside = load_named_space("tiny").sample(Random(0))
    (stage,) = inside.stages
    yield changed(inside, dim=200), r"tiny: stages\[0\].embed: .* dim 200 .* dim 240"
    yield dataclasses.replace(inside, classes=10), r"tiny: head: .* classes 10 "
    yield dataclasses.replace(inside, input=192), r"tiny: stages\[0\].embed: .* of 192x192"
    for field, spec, place in (
        ("mixer", "softmax(heads=2, head_dim=64)", r"stages\[0\].blocks\[1\].mixer: .*heads=2.*nearest: softmax"),
        ("mixer", "separable", r"stages\[0\].blocks\[1\].mixer: .*'separable"),
        ("reduction", "evit", r"stages\[0\].blocks\[1\].reduction: .*'evit"),
        ("layer_scale", 0.1, r"stages\[0\].blocks\[1\].scale1: .*'0.1 "),
    ):
        document = inside.to_dict()
        blocks = [
            {**block, "repeat": 1} for block in document["stages"][0]["blocks"] for _ in range(block.get("repeat", 1))
        ]
        blocks[1] |= {field: spec}
        document["stages"][0]["blocks"] = blocks
        yield Space.parse(document, shared_rules(), "other").only(), place
    deeper = dataclasses.replace(stage, blocks=stage.blocks[:1] * 11)
    yield (
        dataclasses.replace(inside, stages=(deeper,)),
        "tiny: the space has every module of this network, but no network",
    )


@pytest.mark.parametrize("outside, said", list(foreign()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_network_of_another_space_is_refused(shipped: Shipped, outside: Architecture, said: str) -> None:
    supernet = shipped("tiny")
    for call in (supernet.bind, supernet.extract, lambda one: supernet(images(one), one)):
        with pytest.raises(InputError, match=said):
            call(outside)


def test_few_skeletons_are_kept(bank: Supernet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHED", 4)
    many = networks(SPACE, 12)
    alive = [weakref.ref(bank.bind(architecture, train)) for architecture in many for train in (False, True)]
    gc.collect()
    assert [ref() is not None for ref in alive] == [False] * 20 + [True] * 4
    held = bank.bind(many[0])
    for architecture in many[1:]:
        check_extraction(bank, architecture)
    assert bank.bind(many[0]) is not held
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.add_(0.01)
        assert torch.equal(held(images(many[0])), bank.extract(many[0])(images(many[0]))), "it is a view as before"


def test_few_slices_are_kept(bank: Supernet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_VIEWS", 10)
    reference, many = Reference(bank), networks(SPACE, 4)
    image = images(many[0])
    sum(losses_of(bank.bind(architecture, train=True), image) for architecture in many).backward()  # type: ignore[union-attr]
    sum(reference.loss(architecture, image) for architecture in many).backward()  # type: ignore[union-attr]
    reference.check_gradients()


# Copies --------------------------------------------------------------------------------------------------------------


def test_a_copy_of_a_bound_network_is_independent(bank: Supernet) -> None:
    (architecture,) = networks(SPACE, 1)
    image = images(architecture)
    for train in (False, True):
        twin = copy.deepcopy(bank.bind(architecture, train)).eval()
        logits = twin(image).detach()
        assert torch.equal(logits, bank.extract(architecture)(image))
        state = {name: value.clone() for name, value in bank.state_dict().items()}
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
        losses_of(twin.train(), image).backward()
        optimizer.step()
        assert not torch.equal(twin.eval()(image), logits)
        assert all(torch.equal(value, state[name]) for name, value in bank.state_dict().items())
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in bank.parameters())


def test_a_copy_of_the_bank_is_independent(bank: Supernet) -> None:
    many = networks(SPACE, 4)
    image = images(many[0])
    losses_of(bank.bind(many[0], train=True), image).backward()
    for architecture in many:
        bank.bind(architecture)
    twin = copy.deepcopy(bank)
    before = bank.bind(many[0])(image).detach()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    for architecture in many:
        check_extraction(twin, architecture)
        check_extraction(bank, architecture)
    assert torch.equal(bank.bind(many[0])(image), before) and not torch.equal(twin.bind(many[0])(image), before)


def test_what_is_done_to_a_bound_network_stays_with_it(bank: Supernet) -> None:
    """Fusing or another classifier make it a network of its own: the next that is bound is a view again."""
    architecture = next(one for one in networks(SPACE, 20) if "inverted" in str(one.blocks[0].feedforward))
    image = images(architecture)
    expected = bank.extract(architecture)(image)
    for change in (lambda network: network.fuse(), lambda network: network.reset_classifier(9)):
        network = bank.bind(architecture)
        change(network)
        assert bank.bind(architecture) is not network
        assert torch.equal(bank.bind(architecture)(image), expected)
        check_extraction(bank, architecture)
