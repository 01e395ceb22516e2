"""Equal versions in the lock, the conda environment, the submit environment and the images."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ENVS = Path(__file__).resolve().parents[3] / "envs"


def pins(text):
    """The lines of a lock, as a set."""
    return {line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")}


LOCK = pins((ENVS / "requirements.lock").read_text())


def test_the_conda_environment_matches_the_lock():
    written = yaml.safe_load((ENVS / "environment.yml").read_text())["dependencies"]
    (listed,) = [entry["pip"] for entry in written if isinstance(entry, dict)]
    later = re.findall(r"\S+==\S+", (ENVS / "environment.post-deploy.sh").read_text())
    assert {*listed, *later} == LOCK and len(listed) + len(later) == len(LOCK)
    assert {"sox", "pip", "python >=3.11,<3.14"} <= {entry for entry in written if isinstance(entry, str)}


def test_the_conda_environment_is_generated_by_its_command(tmp_path):
    for name in ("conda.py", "requirements.lock"):
        (tmp_path / name).write_bytes((ENVS / name).read_bytes())
    subprocess.run([sys.executable, tmp_path / "conda.py"], check=True, capture_output=True)
    for name in ("environment.yml", "environment.post-deploy.sh"):
        assert (tmp_path / name).read_text() == (ENVS / name).read_text()


def test_the_submit_environment_has_versions_of_the_lock_without_torch_and_audio():
    submit = pins((ENVS / "submit.lock").read_text())
    assert {pin.split(" ;")[0] for pin in submit} <= {pin.split(" ;")[0] for pin in LOCK}
    names = {pin.split("==")[0] for pin in submit}
    assert {"snakemake", "snakemake-executor-plugin-slurm", "jsonschema"} <= names
    assert not {"torch", "nussl", "scaper", "librosa", "zarr", "comet-ml"} & names


def test_both_images_are_built_by_the_same_script():
    containers = ENVS.parent / "containers"
    for name in ("Dockerfile", "separation.def"):
        assert "/opt/separation/install.sh" in (containers / name).read_text()
    assert "envs/setup.sh" in (containers / "install.sh").read_text()
