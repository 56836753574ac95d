"""Archives of torch.export (.pt2): written with the same bytes every time, and opened only where nothing is pickled.

torch.export.load unpickles whatever an archive says is pickled, and the example inputs always; these have neither. An
archive is a zip of tensors as they lie in memory, and of JSON.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.errors import InputError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nas.exporting.targets._programs import Runner

FILE = "model.pt2"
_PLAIN = re.compile(  # members that are read as bytes, numbers or JSON
    r"(\.data/)?(archive_format|archive_version|byteorder|version|serialization_id|\.format_version|\.storage_alignment)"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+"
    r"|data/(weights|constants)/model_(weights|constants)_config\.json|models/model\.json"
)
_EMPTY = "data/sample_inputs/model.pt"


def archived(program: ExportedProgram) -> dict[str, bytes]:
    """The file of a program that has no example inputs."""
    import torch

    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return {FILE: buffer.getvalue()}


def opened(folder: Path, threads: int) -> Runner:
    """The program of a folder, with torch alone; InputError where the archive is damaged or holds a pickle."""
    import torch

    from nas.exporting.targets._programs import one_by_one
    from nas.latency.runtimes._torch import threads as with_threads
    from nas.latency.target import Target

    refuse_pickles(folder / FILE)
    program = torch.export.load(folder / FILE)
    module, target = program.module(), Target(threads=threads)

    def run(images: torch.Tensor) -> torch.Tensor:
        with with_threads(target), torch.inference_mode():
            return module(images)

    name = program.graph_signature.user_inputs[0]
    (shape,) = (node.meta["val"].shape for node in program.graph.nodes if node.name == name)
    return one_by_one(run) if isinstance(shape[0], int) else run


def usage(target: str) -> str:
    """Lines for a user of such an archive, which lies in the folder of its target."""
    return f"""import torch

network = torch.export.load("{target}/{FILE}").module()
with torch.no_grad():
    logits = network(images)  # float32, (batch, channels, height, width)
"""


def refuse_pickles(path: Path) -> None:
    """InputError where an archive cannot be read or has anything in it that torch.export.load would unpickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.partition("/")[2]
                if not (_PLAIN.fullmatch(name) or (name == _EMPTY and member.file_size == 0)):
                    raise InputError("an archive of tensors and JSON alone is opened", value=name, place=str(path))
                if name.endswith("_config.json"):
                    config = json.loads(archive.read(member))["config"]
                    if any(entry["use_pickle"] is not False for entry in config.values()):
                        raise InputError("a pickled tensor is never opened", value=name, place=str(path))
    except InputError:
        raise
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not an archive of torch.export ({error})", place=str(path)) from None
