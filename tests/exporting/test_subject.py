"""The subject of an export: what it refuses, and its images."""

from __future__ import annotations

import pytest
import torch

from nas.core.errors import InputError
from nas.exporting.subject import Subject, legal_name
from nas.model.network import Network
from tests.exporting.networks import plain, subject


@pytest.mark.parametrize("name", ["", ".hidden", "-flag", "a/b", "a b", "x" * 101, "é"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="an export's name"):
        subject(plain(), name)
    assert subject(plain(), legal_name(name)).name == legal_name(name)


def test_a_network_is_exported_as_it_answers() -> None:
    network = Network(plain())
    for wrong in (network.train(), Network(plain()).eval().fuse(), Network(plain()).eval().double()):
        with pytest.raises(ValueError, match="eval mode, on the CPU, in float32, not fused"):
            Subject("network", plain(), wrong)


def test_images_are_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, two = subject(plain()).images(3), subject(plain(channels=1)).images()
    assert one.shape == (3, 3, 16, 16) and two.shape == (2, 1, 16, 16)
    assert torch.equal(one, subject(plain()).images(3))
    assert not torch.equal(one, subject(plain()).images(3, seed=1))
    assert torch.equal(state, torch.get_rng_state()), "torch's own generator is left alone"


def test_images_whose_outputs_hang_on_a_last_bit_are_passed_over() -> None:
    """A network that answers otherwise in float64, first for one image, then for all, and then does not run in it."""
    network = Network(plain()).eval()
    exported = Subject("network", plain(), network)
    first, second = exported.images(2).split(1)
    assert torch.equal(exported.steady(1), first)

    def edge(module: torch.nn.Module, given: tuple[torch.Tensor], answer: torch.Tensor) -> torch.Tensor:
        return answer + float(given[0].dtype == torch.float64 and torch.equal(given[0].float(), first))

    hook = network.register_forward_hook(edge)
    assert torch.equal(exported.steady(1), second)
    hook.remove()
    hook = network.register_forward_hook(lambda module, given, answer: answer + float(answer.dtype == torch.float64))
    assert torch.equal(exported.steady(2), exported.images(2)), "none is steady: plain noise"
    hook.remove()
    network.register_forward_hook(lambda module, given, answer: answer @ torch.eye(answer.shape[1]))
    assert torch.equal(exported.steady(2), exported.images(2)), "another type is refused by the product"
