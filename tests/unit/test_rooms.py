"""The rooms of the library: allowed imports, and rooms without heavy imports."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "separation"

# every room may import these two
HALL = {"errors", "nussl_compat"}
# a room, and the rooms or single modules that it may import besides itself and the hall
TABLE = {
    "files": set(),
    "machine": {"files"},
    "experiment": {"files"},
    "planning": {"files", "experiment"},
    "data": {"files", "machine", "experiment", "planning.splits"},
    "features": {"files", "machine", "experiment.options", "data"},
    "networks": {"files", "machine", "experiment"},
    "losses": {"files", "machine", "experiment"},
    "training": {"files", "machine", "experiment", "data", "features", "networks", "losses"},
    "evaluation": {"files", "machine", "experiment", "data", "features", "networks", "training.user_modules"},
    "analysis": {"files", "experiment", "planning"},
    "report": {"files", "experiment", "analysis"},
    "tracking": {"files", "experiment", "planning", "machine.run_id", "training.events"},
    "publishing": {"files", "planning", "analysis", "tracking"},
}  # fmt: skip
TABLE["commands"] = set(TABLE)

# imported while a Snakefile is parsed, by `make plan` and `make status`, and by jobs before they begin
LIGHT_ROOMS = {"files", "experiment", "planning"}
LIGHT_MODULES = {
    "separation.errors",
    *(f"separation.machine.{name}" for name in ("check_environment", "environment_variables", "gpu_leases", "gpus")),
    *(f"separation.machine.{name}" for name in ("snakemake_job", "signals", "threads")),
    *(f"separation.training.{name}" for name in ("events", "progress_file")),
    *(f"separation.commands.{name}" for name in ("command_line", "plan", "prune", "reference", "status")),
    "separation.report.provenance",
}
HEAVY = {"torch", "numpy", "pandas", "nussl", "scaper", "zarr", "comet_ml"}


def modules_of(library: Path) -> dict[str, Path]:
    """Every module of the library below its root, dotted, and its file; a package is its own module."""
    names = {path: path.relative_to(library).with_suffix("").parts for path in sorted(library.rglob("*.py"))}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}


def imports_of(path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of the library that a file imports, also in functions and for type checking."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name.removeprefix("separation.") for name in found if name.startswith("separation.")}
    return {name for name in inside if name in modules and modules[name].name != "__init__.py"}


def faults_of(library: Path) -> list[str]:
    """All violations of the table in a library."""
    modules = modules_of(library)
    rooms = {name.split(".")[0] for name, path in modules.items() if path.parent != library and name}
    faults = [f"unknown room: {room}" for room in sorted(rooms - set(TABLE))]
    edges = {name: imports_of(path, modules) for name, path in modules.items()}
    for name, others in edges.items():
        room = name.split(".")[0]
        for other in sorted(others):
            allowed = {room, *HALL, *TABLE.get(room, ())}
            if room not in HALL and other.split(".")[0] not in allowed and other not in allowed:
                faults.append(f"{name} imports {other}")
            if room in HALL and other not in HALL:
                faults.append(f"{name} imports {other}")
    faults += [
        f"{name}: a module beside the rooms" for name in edges if name and "." not in name and name not in HALL | rooms
    ]
    return faults + [f"circle: {' -> '.join(circle)}" for circle in circles_of(edges)]


def circles_of(edges: dict[str, set[str]]) -> list[list[str]]:
    """Circles among imports, each opened where it closes before the next one is looked for."""
    edges, circles = {name: set(others) for name, others in edges.items()}, []
    while True:
        try:
            graphlib.TopologicalSorter(edges).prepare()
            return circles
        except graphlib.CycleError as error:
            # the sorter lists a node before those that depend on it
            circles.append(error.args[1][::-1])
            edges[circles[-1][0]].remove(circles[-1][1])


def test_rooms_import_only_what_the_table_lists():
    assert not (faults := faults_of(LIBRARY)), "\n" + "\n".join(faults)


def test_all_forbidden_imports_are_reported(tmp_path):
    sources = {
        "errors.py": "",
        "nussl_compat.py": "",
        "stray.py": "",
        "files/atomic.py": "def write():\n    from separation.machine import gpus\n",
        "machine/gpus.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import separation.training.loop\n",
        "training/loop.py": "from separation.training.setup import f\n",
        "training/setup.py": "def f():\n    from separation.training.loop import g\n",
        "kitchen/stove.py": "",
    }
    for name, text in sources.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.with_name("__init__.py").touch()
    faults = faults_of(tmp_path)
    assert {
        "unknown room: kitchen",
        "stray: a module beside the rooms",
        "files.atomic imports machine.gpus",
        "machine.gpus imports training.loop",
    } == {fault for fault in faults if not fault.startswith("circle")}
    assert any("training.loop" in fault and "training.setup" in fault for fault in faults if "circle" in fault)


def test_planning_and_the_light_rooms_import_nothing_heavy():
    names = {f"separation.{name}" for name in modules_of(LIBRARY) if name.split(".")[0] in LIGHT_ROOMS}
    # Snakemake itself imports pandas
    names -= {"separation.planning.snakemake_patches"}
    code = f"import sys, {', '.join(sorted(names | LIGHT_MODULES))}; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=LIBRARY.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
