"""Dependencies within the library point one way, and planning imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "separation"

PURE = {
    "artefacts", "axes", "check_environment", "config", "environment_names", "errors", "events", "extras",
    "file_locks", "files", "gpu_leases", "gpus", "identity", "jobs", "key_paths", "model_check", "plan", "points",
    "progress", "provenance", "prune", "recipes", "recordings", "resolved", "rows", "runs", "schema",
    "source_check", "splits", "status", "sweep", "sweep_command", "testers", "translation", "vocabulary",
    "yaml_reader", "yaml_writer",
}  # fmt: skip
LAYERS = [
    PURE | {"nussl_compat"},
    {"compiled", "data", "features", "target_kernel", "encoding", "feature_store", "shards", "population", "cache"},
    {"batches", "models", "losses", "training", "training_setup", "checkpoints", "history", "optimization"}
    | {"position", "processes", "reporting", "stopping", "distributed", "extras_loading"},
    {"metrics", "deep_separation", "separator", "listening", "evaluation", "baselines"},
]


def layer(module: str) -> int:
    """A module's layer; what is in none of the lower ones is analysis."""
    return next((number for number, names in enumerate(LAYERS) if module in names), len(LAYERS))


def imported(path: Path) -> set[str]:
    """The modules of the library that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "separation":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: path.stem)
def test_a_module_imports_from_its_own_layer_and_below(path):
    own = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    for other in imported(path):
        assert layer(other) <= layer(own), f"{own} imports {other}"


def test_the_pure_modules_import_nothing_heavy():
    names = ", ".join(f"separation.{name}" for name in sorted(PURE))
    heavy = {"torch", "numpy", "pandas", "nussl", "scaper", "zarr"}
    code = f"import sys, {names}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=LIBRARY.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
