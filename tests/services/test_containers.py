"""The workflow in its container image: built without a registry, run by apptainer and by docker.

The base is built from Debian's packages, and the packages of envs/requirements.lock are mounted into the image, because
installing them would take minutes. The rest of the Dockerfile and of the apptainer definition is as users have it.
Jobs start from an environment without torch: those that finish ran in the image. On Slurm: test_slurm.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_server.auth import passwd

import images
from made_once import made_once, timed
from notebook_server import read_until_running
from projects import ROOT, TINY, Project
from tiny_experiment import ONE_SPLIT, edit

pytestmark = pytest.mark.xdist_group("test_containers")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """One point, whose three splits are one, so that each stage is one job."""
    project = Project.clone(tmp_path_factory.mktemp("containers"))
    for part in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / part, project.folder)
    for part in ("containers", "envs"):
        shutil.copytree(ROOT / part, project.folder / part, dirs_exist_ok=True)
    edit(project.folder / TINY, *ONE_SPLIT, ("[0.01, 0.001]", "[0.01]"))
    return project


def snakemake(project, python, environment, *arguments):
    done = subprocess.run(
        [str(python), "-m", "snakemake", *arguments],
        cwd=project.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(project, submitter, elsewhere, in_apptainer):
    """The tiny experiment up to its report, by apptainer."""
    snakemake(project, submitter, elsewhere, "--profile", "local", *in_apptainer, f"sweep={TINY}")
    return project


def test_the_whole_workflow_runs_in_apptainer_with_folders_outside_the_repository(finished, elsewhere):
    assert (finished.folder / "results/sweeps/tiny_dpcl/report.html").stat().st_size > 0
    assert len(list(Path(elsewhere["ARTIFACTS_DIRECTORY"]).glob("dpcl-*/checkpoints/best.model.pth"))) == 1
    assert not (finished.folder / "results/data").exists()


def test_switching_the_container_on_or_off_plans_nothing(finished, submitter, elsewhere, in_apptainer):
    for arguments in (in_apptainer, ["--config"]):
        assert "Nothing to be done" in snakemake(finished, submitter, elsewhere, "-n", *arguments, f"sweep={TINY}")


def test_the_image_has_labels_and_a_user_other_than_root(apptainer_image, base):
    command = ["apptainer", "inspect", apptainer_image]
    labels = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "org.opencontainers.image.title: separation-workflow" in labels and "separation.variant: cpu" in labels
    assert "researcher:x:1000:" in (apptainer_image / "etc/passwd").read_text()


@pytest.fixture(scope="module")
def docker(folder):
    made_once(folder, "docker-packages", lambda _: images.install_docker())
    try:
        with images.dockerd(folder / "docker") as variables:
            yield variables
    except RuntimeError as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def docker_image(docker, base, folder, session_environment):
    """The image of containers/Dockerfile, on a base built without a registry."""
    environment = {**session_environment, **docker}
    name = "lab/separation:test"
    with timed(folder, "docker image"):
        packed = subprocess.Popen(["tar", "-C", str(base), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(["docker", "import", "-", "base:test"], stdin=packed.stdout, env=environment, check=True)
        packed.stdout.close()
        assert packed.wait() == 0
        images.build(
            "docker", environment, DOCKER_IMAGE_NAME=name, BASE_IMAGE="base:test", BUILD_OPTIONS="--network host"
        )
    return name


def test_the_docker_image_has_labels_and_a_user_other_than_root(docker, docker_image, session_environment):
    command = ["docker", "inspect", "--format", "{{json .Config}}", docker_image]
    done = subprocess.run(command, env={**session_environment, **docker}, capture_output=True, text=True, check=True)
    config = json.loads(done.stdout)
    assert config["User"] == "researcher"
    assert config["Labels"]["org.opencontainers.image.version"] and config["Labels"]["separation.variant"] == "cpu"


def test_make_runs_an_experiment_inside_docker(docker, docker_image, project, elsewhere, packages):
    """`make ... in=docker` adds a point to the results of an earlier run: only that point runs, in docker."""
    edit(project.folder / TINY, ("[0.01]", "[0.01, 0.001]"))
    own = {**elsewhere, **docker, "DOCKER_IMAGE_NAME": docker_image}
    own["CONTAINER_OPTIONS"] = f"--network host --volume {packages}:{images.INSIDE}:ro"
    own["PATH"] = os.pathsep.join(
        part for part in own["PATH"].split(os.pathsep) if Path(part) != Path(sys.prefix, "bin")
    )
    done = subprocess.run(
        ["make", "experiment", "in=docker", f"yml={TINY}"],
        cwd=project.folder,
        env=own,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    checkpoints = list(Path(own["ARTIFACTS_DIRECTORY"]).glob("dpcl-*/checkpoints/best.model.pth"))
    assert len(checkpoints) == 2
    assert {path.owner() for path in checkpoints} == {Path.home().owner()}


# a browser's requests, sent from inside the container, which no other network reaches
_LOG_IN = """
import os, sys, requests
url = "http://127.0.0.1:" + os.environ["JUPYTER_HOST_PORT"]
session = requests.Session()
print(session.get(url + "/api/contents").status_code)
session.get(url + "/login")
print(session.post(url + "/login", {"_xsrf": session.cookies["_xsrf"], "password": sys.argv[1]}).status_code)
print(sorted(entry["name"] for entry in session.get(url + "/api/contents").json()["content"]))
"""


def test_notebooks_are_served_from_docker(docker, docker_image, project, packages, session_environment):
    own = {**session_environment, **docker, "DOCKER_IMAGE_NAME": docker_image, "JUPYTER_HOST_PORT": "8890"}
    own |= {"JUPYTER_PASSWORD_HASH": passwd("a good password"), "PYTHONPATH": str(ROOT / "workflow/scripts")}
    own["CONTAINER_OPTIONS"] = f"--network none --volume {packages}:{images.INSIDE}:ro"
    command = [sys.executable, "-m", "separation.commands.jupyter", "--name", "notebooks"]
    server = subprocess.Popen(command, cwd=project.folder, env=own, stderr=subprocess.PIPE, text=True)
    try:
        output = read_until_running(server)
        inside = ["docker", "exec", "notebooks", "python", "-c", _LOG_IN, "a good password"]
        done = subprocess.run(inside, env=own, capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["docker", "stop", "--time", "5", "notebooks"], env=own, capture_output=True, check=False)
        server.kill()
        server.wait()
    assert done.returncode == 0, "".join(output) + done.stderr
    refused, let_in, listed = done.stdout.splitlines()
    assert (refused, let_in) == ("403", "200")
    assert "Snakefile" in listed
