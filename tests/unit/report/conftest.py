"""Shared by the tests of figures and reports."""

import os
import pickle
from pathlib import Path

import pytest
from filelock import FileLock

from separation.analysis.summarize import collect_scores, summarize_sweep
from separation.report.figures import plot_sweep
from simulated_sweep import SimulatedSweep, simulate_sweep


@pytest.fixture(scope="session")
def drawn_sweep(tmp_path_factory) -> SimulatedSweep:
    """A simulated sweep with its tables and figures, which tests must not change.

    Where several processes test, the first one draws it.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    record = shared / "drawn_sweep.pickle"
    with FileLock(shared / "drawn_sweep.lock"):
        if not record.exists():
            record.write_bytes(pickle.dumps(draw(tmp_path_factory.mktemp("drawn_sweep"))))
    return pickle.loads(record.read_bytes())


def draw(folder: Path) -> SimulatedSweep:
    sweep = simulate_sweep(folder)
    collect_scores(sweep.points, sweep.score_files, sweep.files)
    summarize_sweep(sweep.files, sweep.artifacts)
    plot_sweep(sweep.files, sweep.artifacts)
    return sweep
