"""The python target: every operator in networks that a process with torch alone runs, equal bit for bit."""

from __future__ import annotations

import ast
import builtins
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.exporting.source.arrays import NoTorchForm
from nas.exporting.source.module import module_text
from nas.exporting.subject import Subject
from nas.exporting.targets import python
from nas.model.around import giver, write
from nas.model.network import Network
from nas.model.spaces import load_named_space
from nas.ops.catalogue import Catalogue, catalogue
from nas.ops.rules import OperatorRules

ALLOWED = sys.stdlib_module_names | {"torch"}
DEIT = {
    "input": 32,
    "classes": 10,
    "stages": [
        {
            "embed": "patch(size=8)",
            "dim": 24,
            "class_token": True,
            "position": "learned",
            "blocks": [{"mixer": "softmax(heads=3)", "feedforward": "mlp(ratio=2)", "repeat": 3}],
        }
    ],
    "head": "class_token",
}
# A process that has torch alone: whatever else this project uses cannot be imported.
ALONE = """
import importlib.abc, sys
folder, images, logits = sys.argv[1:]
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"nas", "timm", "safetensors", "numpy", "optuna", "yaml", "pydantic", "scipy"}:
            raise ModuleNotFoundError(f"{name} is refused")
sys.meta_path.insert(0, Nothing())
sys.path.insert(0, folder)
import model, torch
torch.set_num_threads(1)
network = model.load(folder + "/model.safetensors")
with open(images, "rb") as file:
    batch = torch.frombuffer(bytearray(file.read()), dtype=torch.float32).reshape(2, *network.input_shape)
with torch.no_grad(), open(logits, "wb") as file:
    file.write(bytes(network(batch).flatten().view(torch.uint8).tolist()))
model.main()
"""


def subject(network: Network, seed: int = 0) -> Subject:
    """A network whose norms, scales, biases and statistics are none of 0 and 1, so that a swapped one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if name == "running_var":
                    tensor.uniform_(0.5, 1.5, generator=generator)
                elif name == "running_mean" or isinstance(tensor, torch.nn.Parameter):
                    tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return Subject("example", network.architecture, network.eval(), trained=False)


def architecture(document: dict[str, Any], operators: Catalogue | None = None) -> Architecture:
    return Space.parse(document, OperatorRules(operators or catalogue()), "test").only()


def alone(text: str) -> ModuleType:
    """The module of a text that may import torch and the standard library only."""

    def importing(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] not in ALLOWED:
            raise ImportError(f"{name} is refused")
        return builtins.__import__(name, *arguments)

    module = ModuleType("exported_example")
    vars(module)["__builtins__"] = vars(builtins) | {"__import__": importing}
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(text, "model.py", "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]
    return module


def equal(text: str, made: Subject) -> None:
    """The text's network has the same weights by name, and the same results bit for bit."""
    network = alone(text).Network()
    network.load_state_dict(made.network.state_dict())
    network.eval()
    images = made.images()
    with torch.no_grad():
        features = made.network.forward_features(images)
        assert torch.equal(network.forward_features(images), features)
        assert torch.equal(network.forward_head(features), made.network.forward_head(features))
        assert torch.equal(network(images), made.network(images))


def unused(text: str) -> set[str]:
    """Classes, functions and constants of the top level that nothing in the module names."""
    tree = ast.parse(text)
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    return defined - set(names)


MLP, SOFTMAX = "mlp(ratio=2)", "softmax(heads=2)"


def spec_of(kind: str, name: str) -> str:
    """An operator at its first example, the first of each choice."""
    example = catalogue().get(kind, name).examples[0]
    return write(name, {knob: value[0] if isinstance(value, list) else value for knob, value in example.items()})


def blocks_of(kind: str, name: str) -> list[dict[str, Any]]:
    """The blocks in which an operator of a block stands, with what must come before it."""
    cls, spec = catalogue().get(kind, name), spec_of(kind, name)
    further = getattr(cls, "example_block", {})
    block = {"mixer": SOFTMAX, "feedforward": MLP, kind: spec}
    block |= {key: value[-1] if isinstance(value, list) else value for key, value in further.items()}
    reads = getattr(cls, "reads_previous", None)
    if kind == "mixer" and reads:
        return [{**block, "mixer": giver(catalogue(), cls)}, block]  # type: ignore[arg-type]
    before = {"unmerge": [{"mixer": SOFTMAX, "reduction": "tome(r=8)"}], "evo": [{"mixer": SOFTMAX}]}
    return [*before.get(name, []), block]


def compositions() -> Iterator[Architecture]:
    """Networks in which every operator stands at least once, as many in each as are legal together."""
    operators = catalogue()
    left = {(kind, name) for kind, name, _ in operators.every()}
    order = ["mixer", "feedforward", "position", "exit", "reduction"]
    for kind, name in sorted(left, key=lambda one: (one[0] not in ("embed", "head"), one)) * 2:
        if (kind, name) not in left:
            continue
        for side, prefix in ((56, True), (56, False), (64, True), (64, False), (112, False)):
            embed = spec_of(kind, name) if kind == "embed" else "patch(size=4)"
            stage = {"embed": embed, "dim": 48, "blocks": [{"mixer": SOFTMAX}], "class_token": prefix}
            stages, head = [stage], "class_token" if prefix else "mean"
            if kind == "embed" and (prefix or not operators.get(kind, name).stem):  # type: ignore[attr-defined]
                stages = [{**stage, "embed": "patch(size=4)"}, {**stage, "dim": 96, "class_token": False}]
            if kind == "head":
                head, stage["distill_token"] = spec_of(kind, name), prefix and "distil" in name
            document = {"input": side, "classes": 10, "stages": stages, "head": head}
            whole = kind in ("embed", "head")  # it stands outside the blocks
            if kind == "position" and "block" not in operators.get(kind, name).stands:  # type: ignore[attr-defined]
                stage["position"], whole = spec_of(kind, name), True
            if legal(document) is None and whole:
                continue
            stages[0] = stage = {**stages[0], "blocks": list(stages[0]["blocks"])}  # type: ignore[call-overload]
            held = {(kind, name)} if whole else set()
            for other in sorted(left - held, key=lambda one: (order.index(one[0]) if one[0] in order else -1, one)):
                if other[0] in order and len(stage["blocks"]) < 14:  # type: ignore[arg-type]
                    tried = {**stage, "blocks": [*stage["blocks"], *blocks_of(*other)]}  # type: ignore[misc]
                    if legal({**document, "stages": [tried, *stages[1:]]}) is not None:
                        stages[0] = stage = tried
                        held.add(other)
            if held:
                made = legal(document)
                assert made is not None
                left -= held
                yield made
                break
    assert not left, f"no network holds {sorted(left)}"


def legal(document: dict[str, Any]) -> Architecture | None:
    try:
        return architecture(document)
    except InputError:
        return None


def test_every_operator(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    for number, made in enumerate(subject(Network(made)) for made in compositions()):
        text = python.text(made)
        equal(text, made)
        assert not unused(text)
        (folder / f"linted_{number}.py").write_text(text)


def test_texts_are_clean(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the tests above wrote is formatted, and has no unused import or local and no unknown name."""
    texts = sorted(tmp_path_factory.getbasetemp().glob("linted_*.py"))
    if not texts:
        pytest.skip("the tests that write them were not chosen")
    ruff = [sys.executable, "-m", "ruff"]
    chosen = ["--isolated", "--line-length=120", "--target-version=py311"]
    for command in (["check", "--select=F,E,W,I", *chosen], ["format", "--diff", *chosen]):
        done = subprocess.run([*ruff, *command, *map(str, texts)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


@pytest.mark.parametrize("seed", range(2))
def test_random_networks(seed: int) -> None:
    made = subject(Network(load_named_space("tiny").sample(random.Random(seed))))
    equal(python.text(made), made)


def test_runs_with_torch_alone(tmp_path: Path) -> None:
    """Written twice with equal bytes, and run elsewhere by a process in which nothing but torch can be imported."""
    made = subject(Network(architecture(DEIT)))
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        python.write(made, folder)
    first, second = ({f.name: f.read_bytes() for f in folder.iterdir()} for folder in folders)
    assert first == second and first.keys() == {"model.py", "model.safetensors"}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    images = made.images()
    (elsewhere / "images").write_bytes(images.numpy().tobytes())
    arguments = [str(folders[0]), str(elsewhere / "images"), str(elsewhere / "logits")]
    command = [sys.executable, "-I", "-W", "ignore", "-c", ALONE, *arguments]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = made.network(images)
        assert torch.equal(python.load(folders[0], images)(), expected)
    assert (elsewhere / "logits").read_bytes() == expected.numpy().tobytes()
    assert "(1, 3, 32, 32) -> (1, 10)" in done.stdout


def test_a_plain_network_is_short() -> None:
    """Nothing of what it lacks is left: prefix-free states, reductions, rotary phases, masks, other norms."""
    text = python.text(subject(Network(architecture(DEIT))))
    assert len(text.splitlines()) < 540
    for word in (
        "self.reduction",
        "rotary",
        "RmsNorm",
        "self.exit",
        "def cost",
        "def rule",
        "def fuse",
        "import nas",
        "np.",
    ):
        assert word not in text, word
    assert "for _ in range(3):" in text


def test_a_name_in_the_header_is_text_only() -> None:
    made = subject(Network(architecture(DEIT)))
    nasty = 'runs/\\x"""\nimport nas\n"""'
    told = Subject("a.b", made.architecture, made.network, {"accuracy": 71.25}, {"weights": nasty})
    text = python.text(told)
    equal(text, told)
    assert "71.25" in (ast.get_docstring(ast.parse(text)) or "") and "a.b" in text.splitlines()[0]


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    made = subject(Network(architecture(DEIT)))
    python.write(made, tmp_path)
    path, module = tmp_path / "model.safetensors", alone(python.text(made))
    whole = path.read_bytes()
    assert module.read_weights(path).keys() == made.network.state_dict().keys()
    begin = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:begin])
    name = next(iter(header.keys() - {"__metadata__"}))
    for offsets in ([-4, 0], [0, len(whole)], [4, 0]):
        text = json.dumps(header | {name: header[name] | {"data_offsets": offsets}}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[begin:])
        with pytest.raises(ValueError, match=name):
            module.read_weights(path)
    for damaged in (b"", whole[:4], (2**40).to_bytes(8, "little") + whole[8:], whole[:-4]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            module.load(path)


BRANCHES = '''"""Branches: a mixer of three ways, for the folding of tests.

Paper: none, https://example.org
Limits: none. No MACs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nas.core.cost import NOTHING, Cost
from nas.core.knobs import FLAG, Whole
from nas.ops.base import Mixer
from nas.ops.parts.constant import constant
from nas.ops.site import Site
from nas.ops.tokens import Tokens


class Branches(Mixer):
    knobs = {"way": Whole(1, 3), "extra": FLAG}

    def __init__(self, site: Site, *, way: int = 1, extra: bool = False):
        super().__init__()
        self.way, self.extra = way, extra
        self.one = nn.Parameter(torch.ones(site.dim)) if way == 1 else None
        constant(self, "table", np.TABLE(np.arange(site.dim)).astype(np.float32))

    @classmethod
    def cost(cls, site: Site, *, way: int = 1, extra: bool = False) -> Cost:
        return NOTHING

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        # the way that was asked
        if self.way == 1:
            # the first
            assert self.one is not None
            y = x * self.one
        elif self.way == 2:
            y = x + self.table
            if self.extra and x.shape[0] > 1:
                y = y + 1
        else:
            y = x - self.table if self.extra else x + (2 if tokens.prefix else 3)
        if not self.extra or self.way == 3:
            return y
        unused = y * 3
        unused1, used, unused2 = (1 + x.shape[0]), (2 - 2), x.shape[0]
        return y.flip(used)
'''


def plugin(folder: Path, function: str) -> Catalogue:
    (folder / "mixers").mkdir(exist_ok=True)
    (folder / "mixers" / "branches.py").write_text(BRANCHES.replace("np.TABLE", f"np.{function}"))
    return Catalogue([folder])


@pytest.mark.parametrize("ways", [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("extras", [(False,), (True,), (False, True)])
def test_tests_are_folded(ways: tuple[int, ...], extras: tuple[bool, ...], tmp_path: Path) -> None:
    """A user's operator: branches that no block takes are gone, those that one takes stay, results are equal."""
    operators = plugin(tmp_path, "sin")
    blocks = [{"mixer": f"branches(way={way}, extra={extra})"} for way in ways for extra in extras]
    stage = {**DEIT["stages"][0], "blocks": blocks}  # type: ignore[index]
    made = subject(Network(architecture({**DEIT, "stages": [stage]}, operators), operators=operators))
    text = module_text(made.network, "Branches.", operators)
    equal(text, made)
    assert ("x * self.one" in text) == (1 in ways)
    assert ("y = y + 1" in text) == (2 in ways and True in extras)
    chain = {1, 2} <= set(ways)  # then each test of the chain differs from block to block
    assert ("x - self.table" in text) == ((3 in ways or chain) and True in extras)
    assert "unused" not in text and "assert" not in text and "3 if" not in text
    assert ("elif" in text) == chain


def test_a_table_without_torch_form_is_said(tmp_path: Path) -> None:
    operators = plugin(tmp_path, "cumsum")
    stage = {**DEIT["stages"][0], "blocks": [{"mixer": "branches"}]}  # type: ignore[index]
    network = Network(architecture({**DEIT, "stages": [stage]}, operators), operators=operators)
    with pytest.raises(NoTorchForm, match=r"numpy\.cumsum"):
        module_text(network.eval(), "Branches.", operators)
