"""The notebook on real results: every cell, in a real kernel."""

import json

import nbformat
import pandas
import pytest
from nbclient import NotebookClient

from projects import ROOT

NOTEBOOK = ROOT / "workflow/notebooks/analyze.ipynb"


@pytest.fixture(scope="module")
def executed(finished):
    """The notebook with all cells run on the tiny experiment, in the notebook's folder, as by a server."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SWEEPS", "tiny_dpcl")
        environment.delenv("PYTHONPATH", raising=False)
        for name in ("DATA_DIRECTORY", "CACHE_DIRECTORY", "ARTIFACTS_DIRECTORY"):
            environment.delenv(name, raising=False)
        resources = {"metadata": {"path": str(finished.folder / "workflow/notebooks")}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return notebook


def outputs(notebook, kind):
    """The outputs of all cells with one MIME type."""
    found = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output["data"][kind] for output in found if kind in output.get("data", {})]


def test_the_notebook_is_committed_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_swept_keys_and_points_have_box_plots(executed):
    assert len(outputs(executed, "image/png")) == 2


def test_means_equal_those_of_the_summary(executed, finished):
    summary = pandas.read_csv(finished.path("results/sweeps/tiny_dpcl/summary.csv"))
    tables = "".join(outputs(executed, "text/html"))
    for _, row in summary[summary["point"].str.startswith("dpcl")].iterrows():
        assert f"<td>{row['SI-SDRi']:.2f}</td>" in tables
    assert "ideal_ratio_mask" in tables


def test_standard_error_is_empty(executed):
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output
