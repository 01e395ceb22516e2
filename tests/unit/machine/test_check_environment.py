"""`make check_environment`: its results, the variables of ENV_FILE, and the secrecy of secrets."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from separation.machine import check_environment as checked
from separation.machine.check_environment import VARIABLES, check_environment

ROOT = Path(__file__).resolve().parents[3]
ORIGINAL = (
    *("DOCKER_IMAGE_NAME", "CACHE_DIRECTORY", "ARTIFACTS_DIRECTORY", "DATA_DIRECTORY", "JUPYTER_HOST_PORT"),
    *(
        "JUPYTER_PASSWORD_HASH",
        "TENSORBOARD_HOST_PORT",
        "CODE_DIRECTORY",
        "PATH_TO_GOOGLE_CREDENTIALS",
        "COMET_API_KEY",
    ),
)
SECRETS = {
    "COMET_API_KEY": "comet-3cr3t",
    "WANDB_API_KEY": "wandb-3cr3t",
    "JUPYTER_PASSWORD_HASH": "argon2:3cr3t",
    "MLFLOW_TRACKING_TOKEN": "mlflow-3cr3t",
    "MLFLOW_TRACKING_PASSWORD": "word-3cr3t",
    "MLFLOW_TRACKING_URI": "https://ann:pass-3cr3t@tracking.example/store?token=url-3cr3t",
}


def make(*arguments, **variables):
    # make prints its folders if the make that runs the tests has set MAKEFLAGS
    removed = {*VARIABLES, "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    command = ["make", "check_environment", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True)


def run(*options, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"PYTHONPATH": str(ROOT / "workflow" / "scripts")} | variables
    command = [sys.executable, *options, "-m", "separation.machine.check_environment"]
    return subprocess.run([*command, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True)


def found(done):
    return {(check["section"], check["name"]): check for check in json.loads(done.stdout)["checks"]}


@pytest.fixture
def env_file(tmp_path):
    lines = [f"export {name}='{value}'" for name, value in SECRETS.items()]
    lines += [f"export DATA_DIRECTORY='{tmp_path}/my data'", "export JUPYTER_HOST_PORT=many"]
    (tmp_path / "mine_local.sh").write_text("\n".join(lines) + "\n")
    return tmp_path / "mine_local.sh"


def test_variables_of_env_file_are_checked_and_secrets_are_not_printed(env_file, tmp_path):
    table, machine = make(ENV_FILE=str(env_file)), make("json=1", ENV_FILE=str(env_file))
    assert table.returncode == machine.returncode == 0, table.stdout + table.stderr
    for done in (table, machine):
        assert "3cr3t" not in done.stdout + done.stderr
        assert f"{tmp_path}/my data" in done.stdout and "https://tracking.example/store" in done.stdout
    checks = found(machine)
    for name in ORIGINAL:
        assert ("Variables", name) in checks and name in table.stdout
    assert {checks["Variables", name]["value"] for name in SECRETS if name != "MLFLOW_TRACKING_URI"} == {"set"}
    assert checks["Variables", "ENV_FILE"]["value"] == str(env_file)
    assert checks["Variables", "CACHE_DIRECTORY"]["value"] == "unset"
    assert checks["Variables", "JUPYTER_HOST_PORT"]["state"] == "note"
    assert "not created yet" in checks["Folders", "data"]["value"]
    assert "Everything that the demo needs is available." in table.stdout


def test_a_missing_env_file_is_an_error(tmp_path):
    done = make(ENV_FILE=str(tmp_path / "nothing.sh"))
    assert done.returncode != 0 and "nothing.sh" in done.stderr


def test_every_documented_variable_is_checked():
    text = (ROOT / "config/environment/default.sh").read_text()
    assert set(re.findall(r"export (\w+)=", text)) <= set(VARIABLES)


def test_sox_and_a_folder_for_data_are_needed_for_the_demo(tmp_path):
    done = run(PATH=str(tmp_path), DATA_DIRECTORY="/proc/nowhere")
    checks = found(done)
    assert done.returncode == 1 and json.loads(done.stdout)["ok"] is False
    missing = {key for key, check in checks.items() if check["state"] == "missing"}
    assert missing == {("Programs", "sox"), ("Folders", "data")}
    assert checks["Programs", "tmux"]["state"] == "note"
    assert all(check["means"] for check in checks.values() if check["state"] != "ok")


def test_any_python_reports_missing_packages_before_setup():
    done = run("-S")  # without the installed packages
    assert done.returncode == 1, done.stderr
    assert found(done)["Packages", "snakemake"]["state"] == "missing"
    command = [sys.executable, "-S", "-m", "separation.machine.check_environment"]
    plain = subprocess.run(command, cwd=ROOT / "workflow" / "scripts", capture_output=True, text=True)
    assert plain.returncode == 1 and "Missing for the demo: " in plain.stdout and "make setup" in plain.stdout


def test_versions_are_compared_with_the_lock(tmp_path, monkeypatch):
    (tmp_path / "envs").mkdir()
    (tmp_path / "Snakefile").touch()
    known = checked._version("torch").partition("+")[0]
    (tmp_path / "envs/requirements.lock").write_text(f"numpy==0.0.1 ; python_version > '3'\ntorch=={known}\n")
    monkeypatch.setattr(checked, "ROOT", tmp_path)
    checks = {check.name: check for check in check_environment({}) if check.section == "Packages"}
    assert checks["numpy"].state == "note" and "the lock has 0.0.1" in checks["numpy"].means
    assert checks["torch"].state == "ok"


def test_ports_in_use_and_unusable_credentials_are_reported(tmp_path):
    (tmp_path / "key.json").write_text('{"type": "authorized_user", "private_key": "3cr3t"}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = run(TENSORBOARD_HOST_PORT=port, PATH_TO_GOOGLE_CREDENTIALS=str(tmp_path / "key.json"))
    checks = found(done)
    assert checks["Variables", f"port {port}"]["state"] == "note"
    assert "service account" in checks["Variables", "PATH_TO_GOOGLE_CREDENTIALS"]["means"]
    assert "3cr3t" not in done.stdout


def test_gpus_and_a_torch_without_gpu_support_are_reported(tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-11aa-01)'\n")
    program.chmod(0o755)
    checks = found(run(PATH=f"{tmp_path}:{os.environ['PATH']}"))
    assert checks["Devices", "GPUs"]["value"] == "1: 0"
    assert (checked._version("torch").endswith("+cpu")) == (("Devices", "torch for GPUs") in checks)


def test_a_broken_driver_is_reported(tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    program.chmod(0o755)
    check = found(run(PATH=f"{tmp_path}:{os.environ['PATH']}"))["Devices", "GPUs"]
    assert check["state"] == "note" and "version mismatch" in check["means"]
