"""The part of an export that loads without nussl: weights as safetensors, and the lines that build the network.

For networks that are one torch module by its class, see separation.experiment.torch_networks.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from separation.commands.separate import source_names
from separation.commands.trained_point import TrainedPoint
from separation.experiment.torch_networks import BUILT_IN, is_torch_network
from separation.experiment.user_classes import find_extras
from separation.files.atomic import write_json
from separation.files.layout import ExportFolder


def has_own_class(point: TrainedPoint) -> bool:
    """Whether the point's network is a torch module of its own, not nussl's SeparationModel."""
    return is_torch_network(point.options.written["model_config"])


def write_network(point: TrainedPoint, export: ExportFolder) -> list[str]:
    """Writes model.safetensors and config.json, and the code of networks that no package has.

    Returns:
        Lines of Python that load the network in the folder of the export, with torch, safetensors and, for a network of
        a package, that package.
    """
    # torch takes seconds to import
    import torch
    from safetensors.torch import save_file

    from separation.nussl_compat import nussl
    from separation.training.user_modules import load_extras

    load_extras(point.options)
    model = nussl.ml.SeparationModel.load(str(point.checkpoint))[0]
    adapter = model.layers["audio"]
    weights = {name: value.detach().clone().contiguous() for name, value in adapter.network.state_dict().items()}
    save_file(weights, str(export.weights))
    network = type(adapter.network)
    dataset = point.options.dataset
    parameters = sum(value.numel() for value in adapter.network.parameters())
    described = {
        "class": f"{network.__module__}.{network.__qualname__}",
        "args": dict(point.options.network.args),
        "axes": {"input": " ".join(adapter.input_axes), "output": " ".join(adapter.output_axes)},
        "select": adapter.select,
        "sample_rate": dataset.sample_rate,
        "num_channels": dataset.num_channels,
        "sources": source_names(point) if point.in_order else [],
        "parameters": parameters,
        "torch": torch.__version__.split("+")[0],
    }
    write_json(export.network, described)
    module = _copied_module(point, network, export)
    return _lines(module or network.__module__, network, adapter.arguments, described)


def _copied_module(point: TrainedPoint, network: type, export: ExportFolder) -> str | None:
    """Copies the files of a network of this project or of the user; their module in the folder, None for a package."""
    name = point.options.network.class_
    if name in BUILT_IN:
        files = [Path(inspect.getfile(network))]
    elif "." not in name:
        files = find_extras(point.options.extras).classes[name].files
    else:
        return None
    for file in files:
        shutil.copyfile(file, export.path / file.name)
    return files[0].stem


def _lines(module: str, network: type, arguments: dict[str, Any], described: dict[str, Any]) -> list[str]:
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    select = "".join(f"[{key!r}]" for key in described["select"])
    axes = described["axes"]
    sources: Sequence[str] = described["sources"]
    names = f"; sources: {', '.join(sources)}" if sources else ""
    return [
        "import torch",
        "from safetensors.torch import load_file",
        f"from {module} import {network.__qualname__}",
        "",
        f"network = {network.__qualname__}({given})",
        f'network.load_state_dict(load_file("{ExportFolder(Path()).weights}"))',
        f"# mixture: a tensor with the axes {axes['input']} at {described['sample_rate']} Hz",
        "with torch.no_grad():",
        f"    estimates = network.eval()(mixture){select}  # axes {axes['output']}{names}",
    ]
