"""The door nas.export: from a search or a training run to folders that are checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nas.core.runs import read_json, write_json, write_whole
from nas.core.space import Space, write_architecture
from nas.export import main
from nas.exporting import folder as folders
from nas.exporting.folder import MANIFEST, verify
from nas.exporting.reading import read_network
from nas.exporting.targets import Refused
from nas.exporting.targets import timm as timm_target
from nas.model.spaces import shared_rules
from nas.reporting.finished import open_finished
from nas.search import main as search
from nas.train import main as train
from nas.training.evaluating import evaluate
from nas.training.start import open_for, trained
from tests.doors import refused
from tests.exporting.test_folder import contents

SPACE = """
input: 16
channels: 1
classes: 10
stages:
  - embed: patch(size=8, norm=batch)
    dim: [8, 16]
    blocks: [{mixer: [depthwise, additive], feedforward: "mlp(ratio=[1, 2])"}]
head: mean
"""
QUICK = ["--to", "timm", "--seconds", "0"]
SMALL = ["--set", "batch=8", "--set", "size=16", "--set", "calibration=32"]


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A search by formulas, one by the weights of a supernet, that supernet, and a network trained further."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        formulas = ["--accuracy", "depth_width", "--set", "objectives=[accuracy,macs]", "--target", "gpu"]
        assert search(["--space", "digits", "--trials", "12", "--set", "front=2", *formulas, "--name", "formulas"]) == 0
        Path("little.yaml").write_text(SPACE)
        assert train(["--space", "little.yaml", "--steps", "3", *SMALL, "--name", "supernet"]) == 0
        judged = ["--accuracy", "supernet", "--set", "run=runs/supernet", "--set", "objectives=[accuracy,macs]"]
        assert search([*judged, "--target", "gpu", "--trials", "4", "--name", "judged"]) == 0
        best = ["--arch", "runs/judged/front/01.yaml", "--init", "runs/supernet"]
        assert train([*best, "--steps", "2", *SMALL, "--name", "tuned"]) == 0
        yield Path.cwd()


def made(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the door prints as JSON."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_member_leaves_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs/formulas", "--pick", "2", "--to", "timm", "--seconds", "0.05"]) == 0
    shown = capsys.readouterr().out
    assert "WARNING Random weights" in shown and "runs/formulas/export/2/timm" in shown
    place = Path("runs/formulas/export/2")
    assert verify(place) == [] and main(["--check", str(place)]) == 0
    inside = {path.name for path in place.iterdir()}
    assert inside == {"architecture.yaml", "model.safetensors", "README.md", "manifest.json", "timm"}
    member = open_finished("runs/formulas").member(2)
    network = read_network(place)
    assert network.architecture.digest == member["digest"] == read_json(place / MANIFEST)["architecture"]
    assert f"{int(member['macs']):,}" in (place / "README.md").read_text()
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(timm_target.loaded(place / "timm")(image), network(image), atol=1e-5)


def test_json_has_what_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    result = made(["runs/formulas", "--pick", "1", "--to", "timm", "--seconds", "0.05"], capsys)
    (line,) = result["targets"]
    assert {"target", "path", "max_diff", "latency_ms", "sha256"} <= line.keys()
    assert line["target"] == "timm" and line["path"] == "runs/formulas/export/1/timm" and line["max_diff"] < 1e-4
    assert line["latency_ms"] > 0 and len(line["sha256"]) == 64
    assert result["exports"][0]["trained"] is False and result["exports"][0]["network"] == "1"


def test_the_whole_front_the_best_and_a_hash(capsys: pytest.CaptureFixture[str]) -> None:
    finished = open_finished("runs/formulas")
    result = made(["runs/formulas", "--front", *QUICK, "--out", "fronts"], capsys)
    assert [line["path"] for line in result["targets"]] == ["fronts/1/timm", "fronts/2/timm"]
    limit = finished.member(1)["macs"]
    for words in (f"{limit}MACs", f"acc under {limit} MACs"):
        best = made(["runs/formulas", "--best", words, *QUICK], capsys)
        digest = finished.member(1)["digest"]
        assert best["exports"][0]["path"] == f"runs/formulas/export/{digest[:12]}"
        assert verify(best["exports"][0]["path"]) == []
    other = next(row for row in finished.rows if row["digest"] not in {member["digest"] for member in finished.front})
    made(["runs/formulas", "--pick", other["digest"][:8], *QUICK, "--out", "one"], capsys)
    assert read_network("one").architecture.digest == other["digest"]


def test_exporting_twice_gives_identical_files(capsys: pytest.CaptureFixture[str]) -> None:
    one = made(["runs/formulas", "--pick", "1", "--to", "timm", "--seconds", "0.05", "--out", "first"], capsys)
    before = contents(Path("first"))
    torch.manual_seed(5)  # whatever else the process does
    two = made(["runs/formulas", "--pick", "1", "--to", "timm", "--seconds", "0", "--out", "second"], capsys)
    made(["runs/formulas", "--pick", "1", "--to", "timm", "--seconds", "0.05", "--out", "first"], capsys)
    assert contents(Path("first")) == contents(Path("second")) == before
    assert one["targets"][0]["sha256"] == two["targets"][0]["sha256"] and two["targets"][0]["latency_ms"] is None


def test_inherited_weights_have_the_accuracy_that_was_reported(capsys: pytest.CaptureFixture[str]) -> None:
    finished, giver = open_finished("runs/judged"), trained("runs/supernet")
    data = open_for(giver.config)
    for member in finished.front:
        result = made(["runs/judged", "--pick", str(member["number"]), *QUICK], capsys)
        assert result["exports"][0]["trained"] is True
        place = Path(result["exports"][0]["path"])
        assert 100 * evaluate(read_network(place), data, "search").accuracy == pytest.approx(member["accuracy"])
        text = (place / "README.md").read_text()
        assert "estimated by `supernet`" in text and "nas.train --space little.yaml" in text
        assert "estimated again on 32 training images" in text and "andom weights" not in text


def test_a_network_that_was_trained_further(capsys: pytest.CaptureFixture[str]) -> None:
    result = made(["runs/tuned", "--seconds", "0"], capsys)
    assert [line["target"] for line in result["targets"]] == ["timm", "python"]
    place = Path(result["exports"][0]["path"])
    assert verify(place) == [] and not list(place.rglob("__pycache__")), "of the module that was run to be checked"
    run = trained("runs/tuned")
    own, tuned = load_file(place / "model.safetensors"), run.supernet.extract(run.space.only())
    assert all(torch.equal(own[name], value) for name, value in tuned.named_parameters())
    told = read_json("runs/tuned/result.json")
    network = read_network(place)
    assert evaluate(network, open_for(run.config), "search").accuracy == pytest.approx(told["search_accuracy_largest"])
    assert f"{100 * told['test_accuracy_largest']:.2f} top-1 %" in (place / "README.md").read_text()
    picked = made(["runs/judged", "--pick", "1", "--weights", "runs/tuned", *QUICK, "--out", "picked"], capsys)
    assert picked["exports"][0]["trained"] is True
    assert load_file("picked/model.safetensors").keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in load_file("picked/model.safetensors").items())


def test_a_file_with_weights_of_a_supernet_and_without(capsys: pytest.CaptureFixture[str]) -> None:
    file = "runs/judged/front/01.yaml"
    for given in (["--arch", file, "--weights", "runs/supernet"], ["runs/supernet", "--arch", file]):
        result = made([*given, *QUICK, "--out", "from_file"], capsys)
        assert result["exports"][0]["trained"] is True
    document = {**Space.load(file, shared_rules()).only().to_dict(), "classes": 1000}
    Path("thousand.yaml").write_text(write_architecture(Space.parse(document, shared_rules()).only()))
    made(["--arch", "thousand.yaml", "--weights", "runs/supernet", *QUICK], capsys)
    assert read_network("export/thousand").architecture.classes == 10, "as the run's data has them"
    one, two, three = (
        made(["--arch", file, *QUICK, "--seed", seed, "--out", "random"], capsys)["targets"][0] for seed in "112"
    )
    assert one["sha256"] == two["sha256"] != three["sha256"]
    assert "Random weights" in Path("random/README.md").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["runs/formulas"], "--pick NUMBER or HASH"),
        (["runs/formulas", "--pick", "1", "--front"], "--pick NUMBER or HASH"),
        (["runs/formulas", "--pick", "99"], "the front has members 1 to"),
        (["runs/formulas", "--pick", "abc"], "at least 6 digits"),
        (["runs/formulas", "--pick", "abcdef0123"], "no network of the run has this hash"),
        (["runs/formulas", "--best", "1MACs"], "no network of the run keeps this budget"),
        (["runs/formulas", "--best", "8 bananas"], "bananas"),
        (["runs/formulas", "--pick", "1", "--to", "timn"], "nearest: timm"),
        (["runs/formulas", "--pick", "1", "--weights", "runs/supernet"], "the weights of runs/supernet"),
        (["runs/formulas", "--pick", "1", "--weights", "runs/none"], "no such run"),
        (["runs/formulas", "--pick", "1", "--out", "little.yaml"], "an export is a folder"),
        (["runs/formulas", "--pick", "1", "--out", "runs"], "holds something else"),
        (["runs/none", "--pick", "1"], "no such run"),
        (["runs/supernet"], "say which of its networks"),
        (["runs/supernet", "--pick", "1"], "are of a search"),
        (["--pick", "1"], "say which network"),
        ([], "say which network"),
        (["--arch", "missing.yaml"], "no such file"),
        (["runs/formulas", "--front", "--push", "me/it"], "one network is pushed at a time"),
    ],
)
def test_what_cannot_be_done_is_one_message(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(main, [*QUICK, *given] if "--to" not in given else given)
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1 and "Traceback" not in told


class Target:
    """A target of the contract, in place of timm's."""

    about, PACKAGES, TOLERANCE = "a test", ("torch",), 1e-4

    def __init__(self, wrong: float = 0.0, refuses: str = ""):
        self.wrong, self.refuses = wrong, refuses

    def write(self, subject: Any, folder: Path) -> None:
        if self.refuses:
            (folder / "half").write_text("written before it was refused")
            raise Refused(self.refuses)
        self.network = subject.network
        write_whole(folder / "file", "file")

    def load(self, folder: Path, images: torch.Tensor, threads: int = 1) -> Any:
        return lambda: self.network(images) + self.wrong

    def usage(self, name: str) -> str:
        return f"use({name!r})"


def test_a_target_that_answers_otherwise_fails_the_export(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made(["runs/judged", "--pick", "1", *QUICK, "--out", "kept"], capsys)
    before = contents(Path("kept"))
    known = {"timm": timm_target, "wrong": Target(wrong=0.01), "none": Target(wrong=float("nan"))}
    monkeypatch.setattr("nas.exporting.targets.targets", lambda: known)
    for name in ("wrong", "none"):
        refused(main, ["runs/judged", "--pick", "1", "--to", f"timm,{name}", "--seconds", "0", "--out", "kept"])
        assert f"{name}: the exported file must answer as the network does" in capsys.readouterr().err
    assert contents(Path("kept")) == before


def test_a_target_that_cannot_hold_the_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"timm": timm_target, "narrow": Target(refuses="too wide"), "far": Target()}
    known["far"].PACKAGES = ("no_such_package",)  # type: ignore[union-attr, misc]
    monkeypatch.setattr("nas.exporting.targets.targets", lambda: known)
    monkeypatch.setattr("nas.exporting.commands.targets", lambda: known)
    narrow = ["runs/judged", "--pick", "1", "--seconds", "0", "--out", "narrow"]
    refused(main, [*narrow, "--to", "narrow"])
    assert "narrow cannot hold this network: too wide" in capsys.readouterr().err
    refused(main, [*narrow, "--to", "far"])
    assert "no_such_package" in capsys.readouterr().err and not Path("narrow").exists()
    assert main([*narrow, "--to", "all"]) == 0
    shown = capsys.readouterr().out
    assert "narrow: left out: too wide" in shown and "far: left out, not installed: no_such_package" in shown
    assert verify("narrow") == [] and not Path("narrow/narrow").exists() and Path("narrow/timm").is_dir()


def test_a_full_disk_leaves_the_earlier_export(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made(["runs/judged", "--pick", "1", *QUICK, "--out", "full"], capsys)
    before = contents(Path("full"))

    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "_sync", no_space)
    refused(main, ["runs/judged", "--pick", "2", *QUICK, "--out", "full"])
    assert "No space left on device" in capsys.readouterr().err and contents(Path("full")) == before


def test_pushing_is_timms_own_with_safetensors_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: dict[str, Any] = {}

    def push(model: torch.nn.Module, repo_id: str, **named: Any) -> str:
        sent.update(named, model=model, repo_id=repo_id)
        return f"https://hub/{repo_id}"

    monkeypatch.setattr("timm.models.push_to_hf_hub", push)
    assert main(["runs/judged", "--pick", "1", *QUICK, "--out", "pushed", "--push", "me/it"]) == 0
    assert "pushed to https://hub/me/it" in capsys.readouterr().out
    assert (
        sent["repo_id"] == "me/it" and sent["safe_serialization"] is True and sent["model_card"]["license"] == "unknown"
    )
    image = torch.randn(1, 1, 16, 16)
    assert torch.equal(sent["model"](image), read_network("pushed")(image))

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr("timm.models.push_to_hf_hub", offline)
    refused(main, ["runs/judged", "--pick", "1", *QUICK, "--out", "pushed", "--push", "me/it"])
    assert "cannot be pushed (ConnectionError: no network)" in capsys.readouterr().err
    assert verify("pushed") == []


def test_a_search_that_did_not_end_is_no_search(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("runs/formulas", "runs/broken")
    told = read_json("runs/broken/trials.json")
    write_json("runs/broken/trials.json", {**told, "front": []})
    refused(main, ["runs/broken", "--front", *QUICK])
    assert "no front" in capsys.readouterr().err
    Path("runs/broken/trials.json").unlink()
    refused(main, ["runs/broken", "--front", *QUICK])
    assert "cannot be read" in capsys.readouterr().err
