"""The README as a new user reads it: each of its commands is run, in order, in an empty folder, only shortened."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

# What shortens a command of a door: of two equal flags the last counts. What a command says stays.
SHORT = {
    "train": ["--steps", "3", "--set", "batch=8", "--set", "calibration=8", "--set", "evaluate_every=0"],
    "search": ["--trials", "6", "--set", "front=1", "--set", "allow_mismatch=[device,torch]"],
    "measure": [],
    "report": [],
    "export": ["--seconds", "0.1"],
}
LOOKS = ("--from-table", "--list", "--check")  # a command with one of these takes a moment as it is


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures as timm reads it."""
    from PIL import Image

    folder, chance = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split in ("train", "validation"):
        for label in ("one", "two"):
            place = folder / split / label
            place.mkdir(parents=True)
            for number in range(12):
                Image.fromarray(chance.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return folder


def commands() -> list[str]:
    """Every command of a door in the README, without its remark."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"(?:^    |`)python -m nas\.((?!bench)[^`\n]+)", text, re.MULTILINE)
    return list(dict.fromkeys(line.split("  ")[0].strip() for line in found))


def test_the_readme_shows_every_door() -> None:
    doors = {path.stem for path in (ROOT / "nas").glob("[!_]*.py") if "def main" in path.read_text()}
    shown = {line.split()[0] for line in commands()}
    assert doors - {"bench"} == shown == set(SHORT)


# One process for all, not one each, which would import torch every time; and none of pytest's, where they would leave
# threads of runtimes behind.
EACH = """
import importlib, json, sys
from nas.latency import commands
commands.ONE = commands.ONE._replace(seconds=1.0)
for line, door, words in json.loads(sys.argv[1]):
    print(">>>", line, flush=True)
    if code := importlib.import_module(f"nas.{door}").main(words):
        sys.exit(code)
"""


@pytest.mark.timeout(900)
def test_every_command_runs_from_an_empty_folder(tmp_path: Path, images: Path) -> None:
    lines, told = commands(), []
    assert len(lines) > 12
    begin = next(number for number, line in enumerate(lines) if "--name supernet" in line)
    for line in lines[begin:] + lines[:begin]:  # the tour first: later lines speak of its runs
        door, *words = shlex.split(line)
        words = [meant(word, door, images) for word in words]
        extra = [] if set(LOOKS) & set(words) else SHORT[door]
        if "--minutes" in words:
            words[words.index("--minutes") + 1] = "0.02"
        if any(word.startswith("timm:") for word in words):
            extra = [*extra, "--set", "size=32", "--set", "batch=4"]
        told.append((line, door, [*words, *extra]))
    known = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", EACH, json.dumps(told)]
    done = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, (done.stdout[-1000:], done.stderr[-1000:])
    taken = tmp_path / "tuned"
    assert onnx_answers_as_the_network(taken), "what the tour ends with"
    assert (tmp_path / "runs/tour/report/report.html").stat().st_size > 10_000
    assert "tuned" in (taken / "README.md").read_text()
    assert json.loads((taken / "manifest.json").read_text())["content"]["trained"] is True


def meant(word: str, door: str, images: Path) -> str:
    """What a reader puts in place of the words in capitals."""
    word = word.replace("front/02", "front/01")  # the shortened search measures one member
    word = word.replace("folder:IMAGES", f"folder:{images}").replace("FILE", "runs/tour/front/01.yaml")
    word = word.replace("runs/RUN", "runs/supernet" if door == "train" else "runs/tour")
    if word == "timm:deit_tiny_patch16_224":
        return word + "@random"  # nothing is downloaded
    return {"3": "1", "8ms": "8s", "acc under 8ms": "acc under 8s"}.get(word, word)


def onnx_answers_as_the_network(folder: Path) -> bool:
    import onnxruntime

    from nas.exporting.reading import read_network

    network = read_network(folder)
    image = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(str(folder / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        return bool(np.allclose(logits, network(image).numpy(), atol=1e-4))
