"""Supernet: one bank of tensors that holds the largest instance of every operator at every place of a space.

A sub-network is a skeleton (built on the meta device, cached) whose tensors alias leading blocks of the bank's. Its
parameters are leaves over the bank's own memory, and in training their gradients alias the bank's gradients: nothing is
copied when a network is bound, run, or trained, and an optimizer step over the bank is seen by every bound network.
Networks bound for training and for evaluation are different objects with different leaves, so that to evaluate one
between another's forward and backward pass does no harm. `extract` clones the very same slices into its own network.
"""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas.core.architecture import Architecture
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.model.adding import add_gradients
from nas.model.bank import JOINING, Slot, initial, slots
from nas.model.network import Network, skeleton
from nas.ops.base import Crop
from nas.ops.catalogue import Catalogue, catalogue
from nas.ops.placements import Placement, placements
from nas.ops.rules import OperatorRules

_CACHED = 64  # bound skeletons kept
_VIEWS = 100_000  # slices kept

# A gradient that aliases a slice of the bank's has the bank's strides, which is the point.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")


class Bound:
    """A skeleton, its slots with their bank tensors, and, once attached, the leaves that alias the bank."""

    def __init__(self, network: Network, slots: list[tuple[Slot, Tensor]]):
        self.network = network
        self.slots = slots
        self.leaves: list[tuple[Tensor, Tensor, Crop, tuple[int, ...]]] = []

    @property
    def intact(self) -> bool:
        """Whether nobody has fused it or given it another classifier."""
        return not self.network.fused and self.network.num_classes == self.network.architecture.classes


class Supernet(nn.Module):
    """The bank of a space. Fresh weights come from torch's global generator."""

    def __init__(self, space: Space, operators: Catalogue | None = None):
        super().__init__()
        self.space = space
        self.operators = operators or catalogue()
        self.parameters_of = nn.ParameterDict()
        self._bound: OrderedDict[tuple[str, bool], Bound] = OrderedDict()
        self._views: dict[tuple[str, Crop, tuple[int, ...], bool], Tensor] = {}
        self._gradients: dict[Tensor, Tensor] = {}  # the one gradient memory of each bank tensor that was trained
        self._written: dict[
            Tensor, dict[Tensor, Tensor]
        ] = {}  # bank tensor to the slices of it since it was last zeroed
        self._bank: dict[str, Tensor] = {}
        for key, value in initial(space, self.operators).items():
            safe = key.replace(".", "/")
            if isinstance(value, nn.Parameter):
                self.parameters_of[safe] = value
            else:
                self.register_buffer(safe, value)
            self._bank[key] = value

    @torch.inference_mode(False)  # what is made while evaluating is trained later
    def bind(self, architecture: Architecture, train: bool = False) -> Network:
        """The sub-network, aliasing the bank; with `train` in training mode, and its gradients land in the bank's.

        Call it once a step: it follows gradients that an optimizer has set to None meanwhile.
        """
        key = (architecture.digest, train)
        bound = self._bound.get(key)
        if bound is None or not bound.intact:
            bound = self._bound[key] = self.prepare(architecture)
            self.attach(bound, train)
            if len(self._bound) > _CACHED:
                self._bound.popitem(last=False)
        else:
            self._bound.move_to_end(key)
        if bound.network.training != train:
            bound.network.train(train)
        if train:
            self._alias_gradients(bound)
        return bound.network

    def prepare(self, architecture: Architecture) -> Bound:
        """A skeleton with the list of its tensors' places in the bank: what a new architecture costs once."""
        if architecture not in self.space:
            raise self._foreign(architecture)
        network = skeleton(architecture, self.operators)
        found = [(slot, self._bank[slot.key]) for slot in slots("", network)]
        like = next(self.parameters())
        for module in network.modules():
            for name in module._non_persistent_buffers_set:  # constants follow the bank, as those of a module do
                constant = module._buffers[name]
                if constant is not None:
                    dtype = like.dtype if constant.is_floating_point() else constant.dtype
                    module._buffers[name] = constant.to(like.device, dtype)
        return Bound(network, found)

    def attach(self, bound: Bound, train: bool = False) -> None:
        """Give a prepared skeleton the bank's slices."""
        leaves: list[tuple[Tensor, Tensor, Crop, tuple[int, ...]]] = []
        for (module, name, key, crop, shape), full in bound.slots:
            view = self._views.get((key, crop, shape, train))
            if view is None:
                view = self._view(full, key, crop, shape, train)
            if isinstance(full, nn.Parameter):
                module._parameters[name] = view  # type: ignore[assignment]
                leaves.append((view, full, crop, shape))
            else:
                module._buffers[name] = view
        bound.leaves = leaves
        if train:
            add_gradients(bound.network)

    def _view(self, full: Tensor, key: str, crop: Crop, shape: tuple[int, ...], train: bool) -> Tensor:
        """One slice, kept: networks that share a slice share its leaf."""
        if len(self._views) >= _VIEWS:
            self._views.clear()
        made = crop(full.detach(), shape)
        if isinstance(full, nn.Parameter):
            made = nn.Parameter(made)
        self._views[key, crop, shape, train] = made
        return made

    def _alias_gradients(self, bound: Bound) -> None:
        """Each leaf's gradient is a slice of the bank's own."""
        for leaf, full, crop, shape in bound.leaves:
            gradient = full.grad
            if gradient is None:
                gradient = full.grad = self._zeroed(full)
            if leaf.grad is None or not _same(leaf.grad, gradient):
                leaf.grad = crop(gradient, shape)
                self._gradients[full] = gradient  # another may have put its own in place
            self._written.setdefault(full, {})[leaf] = leaf.grad

    def _zeroed(self, full: Tensor) -> Tensor:
        """The gradient memory of a bank tensor, the same at every step: leaves of other networks alias it as well."""
        memory = self._gradients.get(full)
        if memory is None:
            memory = self._gradients[full] = torch.zeros_like(full)
        elif self._written.pop(full, None):
            memory.zero_()  # an optimizer let it go as it was
        return memory

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, but zeroes only the slices that were written and keeps the memory for the next step.

        An optimizer's own zero_grad is right as well, and slower.
        """
        pieces = [piece for written in self._written.values() for piece in written.values()]
        if pieces:
            torch._foreach_zero_(pieces)
        self._written.clear()
        if set_to_none:
            for parameter in self.parameters():
                parameter.grad = None

    @torch.inference_mode(False)
    def extract(self, architecture: Architecture) -> Network:
        """A network of its own, with clones of the slices."""
        bound = self.prepare(architecture)
        for slot, full in bound.slots:
            view = slot.crop(full.detach(), slot.shape).clone(memory_format=torch.contiguous_format)
            if isinstance(full, nn.Parameter):
                slot.module._parameters[slot.name] = nn.Parameter(view)
            else:
                slot.module._buffers[slot.name] = view
        return bound.network.eval()

    def forward(self, image: Tensor, architecture: Architecture) -> Tensor:
        """Logits of one sub-network, in the supernet's own mode."""
        return self.bind(architecture, self.training)(image)

    def _foreign(self, architecture: Architecture) -> InputError:
        """What is said of a network that is not in the space: the first of its modules that the space has not there."""
        single = Space.parse(architecture.to_dict(), OperatorRules(self.operators), "the network")
        listed: dict[str, set[Placement]] = {}
        for path, placement in placements(self.space, self.operators):
            listed.setdefault(_file_place(path, placement), set()).add(placement)
        for path, placement in placements(single, self.operators):
            place = _file_place(path, placement)
            known = listed.get(place, set())
            if placement not in known:
                value, place = _text(placement), f"{self.space.name}: {place}"
                return InputError(
                    "no network of the space has this here", value, place, nearest(value, map(_text, known))
                )
        rule = "the space has every module of this network, but no network with all of them"
        return InputError(rule, architecture.digest[:12], self.space.name)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        keys = super().load_state_dict(state_dict, strict, assign)
        if assign:
            self._renew()
        return keys

    def __getstate__(self) -> dict[str, Any]:
        """For a copy: bound networks alias this bank, not the copy's."""
        fresh: dict[str, Any] = {"_bound": OrderedDict(), "_views": {}, "_gradients": {}, "_written": {}}
        return {**self.__dict__, **fresh}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Supernet:
        """Moving or casting replaces the bank's memory, so bound networks are let go."""
        super()._apply(fn, recurse)
        self._renew()
        return self

    def _renew(self) -> None:
        """Let bound networks go, and find the bank's tensors again."""
        for held in (self._bound, self._views, self._gradients, self._written):
            held.clear()
        for key in self._bank:
            safe = key.replace(".", "/")
            self._bank[key] = self.parameters_of[safe] if safe in self.parameters_of else self._buffers[safe]  # type: ignore[assignment]


def _same(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors share memory."""
    return one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()


def _file_place(path: str, placement: Placement) -> str:
    """Where a module stands, written as in a file."""
    return re.sub(r"\.(\d+)", r"[\1]", f"{path}.{placement.kind}" if placement.kind in JOINING else path)


def _text(placement: Placement) -> str:
    """A module in words."""
    site, context = placement.site, "".join(f", {name} {value}" for name, value in placement.context)
    return f"{placement.value}{context} at {site.dim} channels of {site.height}x{site.width}"
