"""Heavy modules that a job does not import before it works; times are in benchmarks/start_up.py."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"

# what takes a job from a tenth of the time of torch (matplotlib) to more than torch (torch._dynamo) to import
HEAVY = {
    *("torch", "torch._dynamo", "torch._inductor", "sympy", "torch.distributed.tensor", "torch.distributed.optim"),
    *("scipy.signal", "scipy.stats", "scipy.optimize", "scipy.interpolate", "sklearn", "pandas", "pyarrow"),
    *("nussl", "scaper", "jams", "mir_eval", "librosa.core", "museval", "musdb", "gpytorch", "ignite", "tensorboard"),
    *(
        "zarr",
        "numba",
        "joblib",
        "jsonschema",
        "rfc3987_syntax",
        "altair",
        "matplotlib",
        "snakemake.api",
        "comet_ml",
        "mlflow",
        "wandb",
    ),
}
# what each rule's script may import of them before it calls the library
MAY_IMPORT = {
    "collect_scores": {"pandas", "pyarrow"},
    "evaluate_baselines": {"torch", "nussl", "pandas", "pyarrow"},
    "evaluate_point": {"torch", "nussl", "pandas", "pyarrow"},
    "evaluate_validation": {"torch", "nussl", "pandas", "pyarrow"},
    "fetch_source": set(),
    "mix_dataset": {"scaper"},
    "mix_shard": {"scaper"},
    "organize_source": set(),
    "plot_sweep": {"pandas", "pyarrow", "altair", "jsonschema"},
    "populate_cache": {"torch"},
    "render_report": {"pandas", "pyarrow", "altair", "jsonschema"},
    "resample_shard": set(),
    "resample_source": set(),
    "run_script": set(),
    "score_system": {"pandas", "pyarrow"},
    "summarize_sweep": {"pandas", "pyarrow"},
    "sync_tracker": {"pandas", "pyarrow"},
    "train_point": {"torch", "nussl"},
    "upload_sheet": {"pandas", "pyarrow"},
    "write_workbook": {"pandas", "pyarrow"},
}


def imports_of(script: Path) -> str:
    """The import statements of a script, also those inside its body."""
    nodes = ast.walk(ast.parse(script.read_text()))
    lines = [ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    return "\n".join(
        ["from separation.machine.snakemake_job import skip_format_checkers", "skip_format_checkers()", *lines]
    )


def test_every_script_is_in_the_table():
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set(MAY_IMPORT)


@pytest.mark.parametrize("rule", MAY_IMPORT)
def test_a_job_imports_no_heavy_module_that_it_may_not_need(rule):
    loaded = f"{{name for name in {HEAVY} if sys.modules.get(name)}}"
    code = f"{imports_of(SCRIPTS / f'{rule}.py')}\nimport sys\nprint(*sorted({loaded}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= MAY_IMPORT[rule]
