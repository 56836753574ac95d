"""Reading: an export's network, back in this project, from its architecture.yaml and model.safetensors."""

from __future__ import annotations

import os
from pathlib import Path

from nas.core.errors import InputError
from nas.core.space import Space
from nas.exporting.folder import read_manifest, verify
from nas.model.network import Network
from nas.model.spaces import shared_rules

ARCHITECTURE, WEIGHTS = "architecture.yaml", "model.safetensors"


def read_network(folder: str | os.PathLike[str]) -> Network:
    """The network of an export, in eval mode; InputError where any file of the folder is not as it was written."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    problems = verify(folder)
    if problems:
        raise InputError(f"the export is damaged or was altered: {'; '.join(problems[:3])}", place=str(folder))
    architecture = Space.load(folder / ARCHITECTURE, shared_rules()).only()
    if architecture.digest != read_manifest(folder)["architecture"]:
        rule = "the architecture is not the one that was exported, or this version reads it in another way"
        raise InputError(rule, architecture.digest[:12], str(folder / ARCHITECTURE))
    network = Network(architecture, init=False)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[-1].strip()
        raise InputError(f"the weights are of another network ({first[:200]})", place=str(folder / WEIGHTS)) from None
    return network.eval()
