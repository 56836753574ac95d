"""What every bundled module ends with: weights are read with bounds checks and torch alone, and a small demonstration.

These functions are bundled as they stand here; `Network` is then the network of the bundle, which takes no arguments.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from nas.model.network import Network

TYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool}


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: eight bytes for the length of a JSON header, the header, raw bytes."""
    data = bytearray(Path(path).read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or begin > len(data):
        raise ValueError(f"{path} is no whole safetensors file")
    tensors = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__":
            continue
        dtype, shape, (start, end) = TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        count = math.prod(shape)
        if not (0 <= start <= end <= len(data) - begin and end - start == count * dtype.itemsize):
            raise ValueError(f"{path}: {name} lies outside the file, or is of another size than its shape")
        if count:
            part = torch.frombuffer(data, dtype=dtype, count=count, offset=begin + start)
            tensors[name] = part.clone().reshape(shape)
        else:
            tensors[name] = torch.empty(shape, dtype=dtype)
    return tensors


def load(path: str | Path = "model.safetensors") -> Network:
    """The network with these weights, in eval mode."""
    network = Network()  # type: ignore[call-arg]
    network.load_state_dict(read_weights(path))
    return network.eval()


def main() -> None:
    """The network on one image, a ramp from -1 to 1: shape of its result, highest classes, time of a pass."""
    network = load(Path(__file__).with_name("model.safetensors"))
    shape: tuple[int, ...] = network.input_shape  # type: ignore[assignment]
    image = torch.linspace(-1, 1, math.prod(shape)).reshape(1, *shape)
    with torch.inference_mode():
        logits = network(image)
        start = time.perf_counter()
        network(image)
    highest = logits[0].topk(min(5, logits.shape[1])).indices.tolist()
    print(f"{tuple(image.shape)} -> {tuple(logits.shape)}, highest classes of a ramp: {highest}")
    print(f"{1000 * (time.perf_counter() - start):.1f} ms a pass ({torch.get_num_threads()} threads)")


if __name__ == "__main__":
    main()
