"""Exports that are read again: whatever is not as it was written is refused, and nothing is unpickled."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from nas.core.errors import InputError
from nas.core.runs import read_json
from nas.core.space import write_architecture
from nas.export import main
from nas.exporting.folder import MANIFEST, write_manifest
from nas.exporting.reading import read_network
from nas.exporting.targets.timm import loaded
from tests.exporting.networks import plain, pyramid
from tests.exporting.test_folder import Evil


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """An export of a plain network, and a folder to work in."""
    monkeypatch.chdir(tmp_path)
    Path("network.yaml").write_text(write_architecture(plain()))
    assert main(["--arch", "network.yaml", "--to", "timm", "--seconds", "0"]) == 0
    capsys.readouterr()
    return tmp_path / "export" / "network"


def test_a_network_comes_back_as_it_left(export: Path) -> None:
    network, image = read_network(export), torch.randn(2, 3, 16, 16)
    assert network.architecture == plain() and not network.training
    assert torch.allclose(network(image), loaded(export / "timm")(image), atol=1e-5)


def test_whatever_was_altered_is_refused(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(export, "sound")
    ran = Path("ran").absolute()
    data = bytearray(Path("sound/model.safetensors").read_bytes())
    data[-3] ^= 1
    wrong = {
        "model.safetensors": bytes(data),
        "timm/model.safetensors": bytes(data[:-9]),
        "timm/pytorch_model.bin": b"",
    }
    for name, changed in wrong.items():
        shutil.rmtree("altered", ignore_errors=True)
        shutil.copytree("sound", "altered")
        Path("altered", name).write_bytes(changed or pickle.dumps(Evil(ran)))
        assert main(["--check", "altered"]) == 1
        assert name in capsys.readouterr().out
        with pytest.raises(InputError, match=name):
            read_network("altered")
    assert main(["--check", "altered", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"problems": ["timm/pytorch_model.bin: not part of the export"]}
    timm.create_model(f"local-dir:{Path('altered/timm').absolute()}", pretrained=True)
    assert not ran.exists(), "timm takes the safetensors"


def test_files_that_do_not_belong_together_are_refused(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even where the checksums say that they do."""
    shutil.copytree(export, "joined")
    told = read_json(f"joined/{MANIFEST}")
    Path("joined/architecture.yaml").write_text(write_architecture(pyramid(), "another"))
    Path(f"joined/{MANIFEST}").unlink()
    write_manifest(Path("joined"), {key: told[key] for key in ("name", "architecture")})
    with pytest.raises(InputError, match="not the one that was exported"):
        read_network("joined")
    Path(f"joined/{MANIFEST}").unlink()
    write_manifest(Path("joined"), {"architecture": pyramid().digest})
    assert main(["--check", "joined"]) == 1
    assert "the weights are of another network" in capsys.readouterr().out
    Path("joined/model.safetensors").write_bytes(save({})[:-1])
    Path(f"joined/{MANIFEST}").unlink()
    write_manifest(Path("joined"), {"architecture": pyramid().digest})
    assert main(["--check", "joined"]) == 1
