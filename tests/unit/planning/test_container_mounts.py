"""Folders and variables of jobs in containers, and the scripts that build and run an image."""

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from experiments import experiment, plan
from separation.experiment.config import load_settings
from separation.planning.container_mounts import container_variables, folders_to_mount
from separation.planning.run_options import JobTable

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def working(tmp_path):
    (tmp_path / "repository/results").mkdir(parents=True)
    return tmp_path / "repository"


def mounted(working, strings=(), **variables):
    return folders_to_mount(load_settings({}, variables), strings, working)


def test_folders_in_the_working_directory_are_not_mounted_again(working, monkeypatch):
    monkeypatch.chdir(working)
    assert mounted(working) == [ROOT]


def test_each_folder_outside_is_mounted_once(working, monkeypatch, tmp_path):
    monkeypatch.chdir(working)
    directories = {"DATA_DIRECTORY": str(tmp_path / "big/data"), "CACHE_DIRECTORY": str(tmp_path / "big")}
    assert mounted(working, **directories) == sorted([ROOT, tmp_path / "big"])


def test_targets_of_links_and_a_users_recordings_are_mounted(working, monkeypatch, tmp_path):
    monkeypatch.chdir(working)
    (tmp_path / "disk").mkdir()
    (working / "results/data").symlink_to(tmp_path / "disk")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "list.csv").touch()
    sources = {"a": {"folders": {"": str(corpus)}, "lists": {"x": str(corpus / "list.csv")}}}
    assert mounted(working, JobTable(sources=sources).strings()) == sorted([ROOT, tmp_path / "disk", corpus])


def test_the_users_mounts_stay_and_nothing_is_mounted_twice():
    once = container_variables([Path("/a"), Path("/b")], 0, {"APPTAINER_BIND": "/mine:/there,/a"})
    assert once["APPTAINER_BIND"] == "/mine:/there,/a,/b" and "APPTAINER_NV" not in once
    assert container_variables([Path("/a"), Path("/b")], 1, once) == {**once, "APPTAINER_NV": "1"}


def test_folders_of_trackers_and_the_experiment_file_are_mounted(working, monkeypatch, tmp_path):
    monkeypatch.chdir(working)
    for name in ("mlruns", "experiments"):
        (tmp_path / name).mkdir()
    options = plan(experiment(), tmp_path / "experiments").run_options
    options = dataclasses.replace(options, tracking={"mlflow": {"directory": str(tmp_path / "mlruns")}})
    mounts = mounted(working, options.strings())
    assert {tmp_path / "mlruns", tmp_path / "experiments"} <= set(mounts)


@pytest.fixture
def docker(tmp_path):
    """A fake docker that records its arguments; tests/services uses a real one."""
    record = tmp_path / "record"
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\n[ "$1" = version ] || printf "%s\\n" "$@" >{record}\n')
    program.chmod(0o755)
    return record


def call(docker, script, *arguments, **variables):
    path = f"{docker.parent}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("_DIRECTORY", "_IMAGE_NAME"))}
    return subprocess.run(
        [ROOT / "containers" / script, *arguments],
        env={**kept, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_secret_is_passed_to_a_container_by_name_only(docker, tmp_path):
    variables = {"COMET_API_KEY": "a secret", "DATA_DIRECTORY": str(tmp_path / "data"), "CACHE_DIRECTORY": "results"}
    done = call(docker, "run.sh", "docker", "snakemake", "-n", **variables)
    assert done.returncode == 0, done.stderr
    words = docker.read_text().splitlines()
    assert "COMET_API_KEY" in words and "a secret" not in docker.read_text()
    assert f"{tmp_path}/data:{tmp_path}/data" in words and f"{ROOT}:{ROOT}" in words
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert words[-3:] == ["separation-workflow:latest", "snakemake", "-n"]


def test_a_variable_overrides_the_name_of_the_image_in_config(docker):
    assert call(docker, "build.sh", "docker").returncode == 0
    assert "separation-workflow:latest" in docker.read_text().splitlines()
    assert call(docker, "build.sh", "docker", DOCKER_IMAGE_NAME="docker://lab/image:2", VARIANT="cpu").returncode == 0
    assert {"lab/image:2", "VARIANT=cpu"} <= set(docker.read_text().splitlines())


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("build.sh", ["buildah"], "build: expected one of docker podman apptainer, found 'buildah'"),
        ("run.sh", ["podman", "true"], "run: podman does not work here"),
    ],
)
def test_an_unusable_program_is_reported_in_one_line(docker, script, arguments, message):
    podman = docker.parent / "podman"
    podman.write_text("#!/bin/sh\nexit 1\n")
    podman.chmod(0o755)
    done = call(docker, script, *arguments)
    assert done.returncode == 1 and done.stderr.strip() == message
