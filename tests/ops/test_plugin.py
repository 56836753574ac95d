"""Adding an operator is adding one file: in a folder named by NAS_OPERATORS it is found, offered, proven and listed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from nas.bench import main
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.counting import count
from nas.model.network import skeleton
from nas.ops.catalogue import Catalogue
from nas.ops.rules import OperatorRules
from tests.forked import SERVER

ROOT = Path(__file__).parents[2]
MINE = '''\
"""Mean mixing: each token receives the mean of all, through a hidden layer of `width`.

Paper: nobody, "Mine", https://example.org/mine
Limits: none. MACs 2 N C width.
"""

from torch import Tensor, nn

from nas.core.cost import Cost, linear
from nas.core.knobs import Whole
from nas.ops.base import Mixer
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens


class Mine(Mixer):
    knobs = {"width": Whole(1, 512)}
    examples = ({"width": [16, 32]}, {"width": 8})

    def __init__(self, site: Site, *, width: int = 16):
        super().__init__()
        self.enter, self.leave = nn.Linear(site.dim, width), nn.Linear(width, site.dim)

    @classmethod
    def rule(cls, form: Form, *, width: int = 16) -> str | None:
        return f"width {width} is more than the network's {form.dim}" if width > form.dim else None

    @classmethod
    def cost(cls, site: Site, *, width: int = 16) -> Cost:
        return linear(site.rows, site.dim, width) + linear(site.rows, width, site.dim)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        hidden = self.enter(x)
        return self.leave(hidden + hidden.mean(dim=1, keepdim=True))
'''
SPACE = {
    "input": 32,
    "classes": 10,
    "stages": [
        {
            "embed": "patch(size=4)",
            "dim": 32,
            "blocks": [{"repeat": 2, "mixer": ["mine(width=[8, 16])", "softmax(heads=2)"]}],
        }
    ],
    "head": "mean",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one's own with one mixer."""
    (tmp_path / "mixers").mkdir()
    (tmp_path / "mixers" / "mine.py").write_text(MINE)
    (tmp_path / "mixers" / "_notes.py").write_text("not an operator")
    return tmp_path


def started(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python module run with that folder's operators."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NAS_OPERATORS": str(folder), **environment}
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=known, capture_output=True, text=True)


class Ended(NamedTuple):
    """What a door left."""

    code: int | None
    out: str
    err: str


def door(folder: Path, operators: Path, *arguments: str) -> Ended:
    """The benchmarks' door in a process of its own, where nobody has looked for operators yet."""
    process = SERVER.Process(target=_door, args=(folder, operators, arguments))
    process.start()
    process.join(120)
    return Ended(process.exitcode, (folder / "out").read_text(), (folder / "err").read_text())


def _door(folder: Path, operators: Path, arguments: Sequence[str]) -> None:
    os.environ["NAS_OPERATORS"] = str(operators)
    os.chdir(ROOT)
    with (
        (folder / "out").open("w") as out,
        (folder / "err").open("w") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        sys.exit(main(list(arguments)))


def test_it_is_found_and_offered_where_it_is_legal(folder: Path) -> None:
    operators = Catalogue([folder])
    assert set(operators.names("mixer")) == {*Catalogue().names("mixer"), "mine"}
    space = Space.parse(SPACE, OperatorRules(operators))
    assert space.size == 3**2
    for network in set(space.every()):
        cost = Costs(operators).cost(network)
        counted = count(skeleton(network, operators), (3, 32, 32))
        assert (cost.macs, cost.params, cost.activation) == (counted.macs, counted.params, counted.activation)
    assert [str(spec) for spec in operators.specs("mixer", "mine(width=[8, 16])", "p")] == ["mine(width=8)", "mine"]
    with pytest.raises(InputError, match=r"p: unknown knob of mine: 'widht' \(nearest: width\)"):
        operators.specs("mixer", "mine(widht=3)", "p")
    with pytest.raises(
        InputError, match=r"blocks\[0\].mixer: mine: width 64 is more than the network's 32: 'mine\(width=64\)'"
    ):
        stage = {**SPACE["stages"][0], "blocks": [{"mixer": "mine(width=64)"}]}  # type: ignore[index]
        Space.parse({**SPACE, "stages": [stage]}, OperatorRules(operators))


def test_it_is_held_to_the_contract(folder: Path) -> None:
    wrong = MINE.replace("linear(site.rows, site.dim, width) +", "linear(site.rows, site.dim, 2 * width) +")
    (folder / "mixers" / "wrong.py").write_text(wrong)
    tests = ("tests/ops/test_contract.py", "-k", "mine or wrong", "-p", "no:cacheprovider", "-rA")
    ended = started(folder, "pytest", "-q", *tests, NAS_CONTRACT="mine,wrong")
    lines = {
        tuple(line.split(" - ")[0].split())
        for line in ended.stdout.splitlines()
        if line.startswith(("PASSED", "FAILED"))
    }
    outcome = {test.partition("::")[2]: word for word, test in lines}
    assert outcome == {
        "test_documented[mixer:mine]": "PASSED",
        "test_contract[mixer:mine]": "PASSED",
        "test_documented[mixer:wrong]": "PASSED",
        "test_contract[mixer:wrong]": "FAILED",
    }, ended.stdout
    assert "in check_cost" in ended.stdout or "check_cost(cls" in ended.stdout


def test_it_is_listed(folder: Path, tmp_path: Path) -> None:
    ended = door(tmp_path, folder, "operators", "--only", "mine", "--passes", "0", "--json")
    assert ended.code == 0, ended.err
    (row,) = json.loads(ended.out)["operators"]
    assert (row["kind"], row["name"]) == ("mixer", "mine") and row["spec"] in ("mine", "mine(width=32)")
    assert row["paper"].endswith("https://example.org/mine") and row["cost"]["macs"] > 0


CLASSES = MINE + "\n\nclass Second(Mine):\n    pass\n"
BROKEN = {
    "two classes": ("mine", CLASSES, "an operator file holds one mixer class: ['Mine', 'Second']"),
    "no class": ("mine", MINE.replace("(Mixer)", ""), "an operator file holds one mixer class: []"),
    "a knob without domain": (
        "mine",
        MINE.replace('{"width": Whole(1, 512)}', "{}"),
        "each constructor knob has its legal values in `knobs`: 'width'",
    ),
    "a name taken": ("softmax", MINE, "an operator's name is unique in its kind: 'softmax'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_one_message(name: str, tmp_path: Path) -> None:
    stem, text, said = BROKEN[name]
    (tmp_path / "mixers").mkdir()
    path = tmp_path / "mixers" / f"{stem}.py"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        Catalogue([tmp_path]).get("mixer", stem)
    assert str(refused.value) == f"{path}: {said}"


FAILING: dict[str, tuple[str, str, type[Exception], str]] = {
    "an unknown name": (
        MINE.replace("Whole(1, 512)", "Whole_(1, 512)"),
        "class Mine",
        NameError,
        "NameError: name 'Whole_' is not defined",
    ),
    "no such package": (
        MINE.replace("from torch import", "from torsch import"),
        "from torsch",
        ModuleNotFoundError,
        "ModuleNotFoundError: No module named 'torsch'",
    ),
    "no Python": (MINE.replace("super().__init__()", "super(."), "super(.", SyntaxError, "SyntaxError: invalid syntax"),
    "an error of many lines": (
        MINE + "\n\nraise RuntimeError('two\\nlines ' + 1000 * 'long ')\n",
        "raise RuntimeError",
        RuntimeError,
        "RuntimeError: two lines long long",
    ),
    "a fault in code that it calls": (
        MINE + "\n\nimport json\njson.loads('{')\n",
        "json.loads",
        json.JSONDecodeError,
        f"(raised at {json.decoder.__file__}:",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_file_that_fails_on_import_is_named_with_the_line(name: str, folder: Path) -> None:
    text, at, kind, said = FAILING[name]
    path = folder / "mixers" / "mine.py"
    path.write_text(text)
    (line,) = (number for number, code in enumerate(text.splitlines(), 1) if code.strip().startswith(at))
    line += at == "class Mine"  # the line below, of the knobs
    with pytest.raises(InputError) as refused:
        Space.parse(SPACE, OperatorRules(Catalogue([folder])), "mine.yaml")
    message = str(refused.value)
    where = "mine.yaml: stages[0].blocks[0].mixer"
    assert message.startswith(f"{where}: {path}:{line}: an operator's file fails on import: {kind.__name__}: "), message
    assert said in message and "\n" not in message and len(message) < 1000
    assert type(refused.value.__cause__) is kind
    path.write_text(MINE)  # mended, it is loaded: nothing half-made stays behind
    assert Space.parse(SPACE, OperatorRules(Catalogue([folder]))).size == 3**2


def test_a_door_says_it_in_one_line(folder: Path, tmp_path: Path) -> None:
    path = folder / "mixers" / "mine.py"
    path.write_text(CLASSES)
    ended = door(tmp_path, folder, "operators", "--only", "mine", "--passes", "0")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: {path}: an operator file holds one mixer class: ['Mine', 'Second']\n"
    path.write_text(MINE.replace("Mixer", "Mixxer"))
    ended = door(tmp_path, folder, "operators", "--only", "mine", "--passes", "0")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {path}:11: an operator's file fails on import: ImportError: cannot import")
    assert ended.err.count("\n") == 1
    ended = door(tmp_path, folder / "absent", "operators", "--only", "softmax", "--passes", "0")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: environment: NAS_OPERATORS names folders: '{folder / 'absent'}'\n"
