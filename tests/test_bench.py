"""Every benchmark runs on something tiny, here or beside what it measures; those of training go on where they ended,
and time like with like."""

import json
import re
import sys
from pathlib import Path
from random import Random

import pytest
import torch

from nas.bench import main
from nas.benching import benchmarks
from nas.benching._autoformer_code import FILE, their_step, their_supernet
from nas.core.errors import InputError
from nas.model.extremes import extremes
from nas.model.network import Network
from nas.model.spaces import load_named_space
from nas.training.data.batches import Batch
from tests.doors import refused

ROOT = Path(__file__).resolve().parent.parent


SHORT = {
    "cost": ["--space", "tiny", "--timed", "20", "--check", "1", "--only", "digits_small"],
    "operators": ["--only", "depthwise", "--passes", "1"],
    "reference": ["--only", "deit_tiny"],
    "samples": ["--only", "digits_small", "--check", "1"],
    "search": ["--objective", "synthetic:digits_small", "--sampler", "evolution", "--evaluations", "3", "--seeds", "1"],
    "supernet": ["--space", "digits_small", "--check", "1", "--pairs", "2", "--batches", "1"],
    "train": ["--space", "digits_small", "--pairs", "1", "--batch", "2"],
}
SHORT["search"] += ["--trials", "2", "--space", "digits_small"]
ELSEWHERE = {
    "clock": "tests/test_bench_latency.py",
    "docs": "tests/test_docs.py",
    "estimators": "tests/accuracy/test_truth.py",
    "export": "tests/exporting/test_runtimes.py",
    "inherited": "tests/test_bench.py",
    "latency": "tests/test_bench_latency.py",
    "predictor": "tests/test_bench_latency.py",
    "ranking": "tests/test_bench.py",
}


def test_no_benchmark_is_left_out():
    assert SHORT.keys().isdisjoint(ELSEWHERE) and {*SHORT, *ELSEWHERE} == set(benchmarks())
    for name, file in ELSEWHERE.items():
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text())


@pytest.mark.parametrize("name", SHORT)
def test_a_benchmark_runs(name, capsys):
    assert main([name, *SHORT[name], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("provenance")["command"].startswith(f"python -m nas.bench {name}")
    assert any(document.values())
    assert benchmarks()[name].table(document).strip()


@pytest.mark.parametrize(
    ("name", "wrong", "meant"),
    [("operators", "depthwis", "depthwise"), ("reference", "deit_tny", "deit_tiny"), ("samples", "tyny", "tiny")],
)
def test_a_name_that_nothing_has_is_refused_with_the_nearest(name, wrong, meant, capsys):
    refused(main, [name, "--only", wrong])
    shown = capsys.readouterr()
    assert f"'{wrong}'" in shown.err and meant in shown.err and not shown.out


def test_a_ranking_goes_on_where_it_ended(tmp_path, capfd):
    tiny = ["ranking", "--space", "digits_small", "--data", "digits", "--batch", "8", "--supernet-steps", "2"]
    tiny += ["--steps", "2", "--networks", "3", "--folder", str(tmp_path), "--json"]
    assert main([*tiny, "--processes", "1"]) == 0
    first = json.loads(capfd.readouterr().out)
    assert first["networks"] == 3 == len(first["rows"]) and first["dataset"] == "digits"
    assert first["tau_low"] <= first["tau"] <= first["tau_high"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(written) == 4
    assert main(tiny) == 0
    again = json.loads(capfd.readouterr().out)
    assert again["rows"] == first["rows"] and again["alone_seconds"] == first["alone_seconds"]
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}

    known = ["inherited", "--run", str(tmp_path / "supernet"), "--space", "digits_small", "--limit", "3"]
    assert main([*known, "--name", "three", "--folder", str(tmp_path / "truth"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["networks"] == 3
    assert any((tmp_path / "truth").iterdir())


THEIRS = '''
"""Stands in for the published file: one weight, and the closed form of a vision transformer's parameters."""
import torch
from torch._six import container_abcs


class Vision_TransformerSuper(torch.nn.Module):
    def __init__(self, embed_dim, depth, num_heads, mlp_ratio, qkv_bias, change_qkv, num_classes):
        super().__init__()
        assert qkv_bias and change_qkv and issubclass(list, container_abcs.Iterable)
        self.weight, self.classes, self.seen = torch.nn.Parameter(torch.ones(())), num_classes, []

    def set_sample_config(self, config):
        assert len(config["embed_dim"]) == len(config["num_heads"]) == len(config["mlp_ratio"]) == config["layer_num"]
        self.seen.append(config["layer_num"])

    def get_sampled_params_numel(self, config):
        dim, total = config["embed_dim"][0], 0
        for heads, ratio in zip(config["num_heads"], config["mlp_ratio"]):
            inner, hidden = 64 * heads, int(dim * ratio)
            total += 3 * inner * (dim + 1) + dim * (inner + 1) + hidden * (dim + 1) + dim * (hidden + 1) + 4 * dim
        return total + dim * (768 + 1) + dim * 198 + 2 * dim + self.classes * (dim + 1)

    def forward(self, images):
        assert torch.isfinite(self.weight)
        return self.weight * images.new_ones(len(images), self.classes).cumsum(1)
'''


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A folder that looks like the published code."""
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(THEIRS)
    for name in ("model", "model.supernet_transformer", "torch._six"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield str(tmp_path)
    for name in ("model", "model.supernet_transformer", "torch._six"):
        sys.modules.pop(name, None)


def test_autoformers_supernet_trains_the_very_same_networks(theirs):
    space = load_named_space("tiny")
    networks = [*extremes(space)[:2], *(space.sample(Random(seed)) for seed in range(4))]
    with torch.device("meta"):
        counts = [sum(weight.numel() for weight in Network(each).parameters()) for each in networks]
    batch = Batch(torch.ones(2, 3, 224, 224), torch.tensor([0, 7]))
    step = their_step(their_supernet(theirs), networks, counts, batch)
    model = step.__closure__ and next(c.cell_contents for c in step.__closure__ if hasattr(c.cell_contents, "seen"))
    step()
    assert model.seen == [len(each.blocks) for each in networks]
    assert model.weight != 1 and model.weight.grad is None, "updated, and ready for the next step"
    with pytest.raises(InputError, match="not the same network"):
        their_step(their_supernet(theirs), networks, [count + 1 for count in counts], batch)


def test_a_folder_without_their_code_is_refused(tmp_path):
    refused(main, ["train", "--autoformer", str(tmp_path), "--pairs", "1", "--batch", "1"])
