"""The workflow in its container image: built without a registry, run by apptainer here and on Slurm, and by docker.

The base is built from Debian's packages, and the packages of envs/requirements.lock are mounted into the image, because
installing them would take minutes. The rest of the Dockerfile and of the apptainer definition is as users have it.
Jobs start from an environment without torch: those that finish ran in the image.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from jupyter_server.auth import passwd

import images
from notebook_server import read_until_running
from projects import ROOT, TINY, Project

INSIDE = "/opt/separation/.venv/lib/python3.11/site-packages"
FOLDERS = ("DATA_DIRECTORY", "CACHE_DIRECTORY", "ARTIFACTS_DIRECTORY")


@pytest.fixture(scope="module")
def public_folder():
    """A folder that other users may read, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="images-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def packages():
    """The site-packages of this environment, if they fit the image's Python."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("images: the packages of this Python do not fit Debian 12's, which is 3.11")
    return sysconfig.get_path("purelib")


@pytest.fixture(scope="module")
def base(public_folder):
    why = images.make_base(public_folder / "base")
    if why:
        pytest.skip(why)
    return public_folder / "base"


def build(program, environment, **variables):
    options = {"cwd": ROOT, "env": {**environment, "PACKAGES": "none", "VARIANT": "cpu", **variables}}
    if program != "apptainer":
        options["capture_output"] = True
    run = images.build_here if program == "apptainer" else subprocess.run
    done = run(["containers/build.sh", program], text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def apptainer_image(public_folder, base, session_environment):
    """The image of containers/separation.def, as a folder."""
    why = images.install_apptainer()
    if why:
        pytest.skip(why)
    image = public_folder / "image.sif"
    variables = {"BOOTSTRAP": "localimage", "BASE_IMAGE": str(base), "BUILD_OPTIONS": "--sandbox"}
    build("apptainer", session_environment, DOCKER_IMAGE_NAME=str(image), **variables)
    return image


@pytest.fixture(scope="module")
def elsewhere(public_folder, session_environment):
    """DATA, CACHE and ARTIFACTS outside the repository."""
    return {
        **session_environment,
        **{name: str(public_folder / "shared" / name.split("_")[0].lower()) for name in FOLDERS},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project.clone(tmp_path_factory.mktemp("containers"))
    for part in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / part, project.folder)
    for part in ("containers", "envs"):
        shutil.copytree(ROOT / part, project.folder / part, dirs_exist_ok=True)
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
def in_apptainer(apptainer_image, packages):
    """The arguments with which jobs run in the image."""
    return [
        "--sdm",
        "apptainer",
        f"--apptainer-args=--bind {packages}:{INSIDE}",
        "--config",
        f"container={apptainer_image}",
    ]


@pytest.fixture(scope="module")
def finished(project, submitter, elsewhere, in_apptainer):
    """The tiny experiment up to its report, by apptainer."""
    snakemake(project, submitter, elsewhere, "--profile", "local", *in_apptainer, f"sweep={TINY}")
    return project


def test_the_whole_workflow_runs_in_apptainer_with_folders_outside_the_repository(finished, elsewhere):
    assert (finished.folder / "results/sweeps/tiny_dpcl/report.html").stat().st_size > 0
    assert len(list(Path(elsewhere["ARTIFACTS_DIRECTORY"]).glob("dpcl-*/checkpoints/best.model.pth"))) == 2
    assert not (finished.folder / "results/data").exists()


def test_switching_the_container_on_or_off_plans_nothing(finished, submitter, elsewhere, in_apptainer):
    for arguments in (in_apptainer, ["--config"]):
        assert "Nothing to be done" in snakemake(finished, submitter, elsewhere, "-n", *arguments, f"sweep={TINY}")


def test_the_image_has_labels_and_a_user_other_than_root(apptainer_image, base):
    command = ["apptainer", "inspect", apptainer_image]
    labels = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "org.opencontainers.image.title: separation-workflow" in labels and "separation.variant: cpu" in labels
    assert "researcher:x:1000:" in (apptainer_image / "etc/passwd").read_text()


def test_jobs_of_slurm_run_in_apptainer(finished, slurm, submitter, elsewhere, in_apptainer):
    experiment = finished.folder / TINY
    before = experiment.read_text()
    experiment.write_text(before.replace("[0.01, 0.001]", "[0.01, 0.001, 0.1]"))
    try:
        snakemake(
            *(finished, submitter, {**elsewhere, **slurm.variables}, "--profile", "slurm", "--latency-wait", "10"),
            *("--slurm-init-seconds-before-status-checks", "2"),
            *(*in_apptainer, f"sweep={TINY}"),
        )
    finally:
        experiment.write_text(before)
    assert len(list(Path(elsewhere["ARTIFACTS_DIRECTORY"]).glob("dpcl-*/checkpoints/best.model.pth"))) == 3
    assert slurm.queued() == []


@pytest.fixture(scope="module")
def docker(public_folder):
    folder = public_folder / "docker"
    folder.mkdir()
    try:
        with images.dockerd(folder) as variables:
            yield variables
    except RuntimeError as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def docker_image(docker, base, session_environment):
    """The image of containers/Dockerfile, on a base built without a registry."""
    environment = {**session_environment, **docker}
    packed = subprocess.Popen(["tar", "-C", str(base), "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(["docker", "import", "-", "base:test"], stdin=packed.stdout, env=environment, check=True)
    packed.stdout.close()
    assert packed.wait() == 0
    name = "lab/separation:test"
    build("docker", environment, DOCKER_IMAGE_NAME=name, BASE_IMAGE="base:test", BUILD_OPTIONS="--network host")
    return name


def test_the_docker_image_has_labels_and_a_user_other_than_root(docker, docker_image, session_environment):
    command = ["docker", "inspect", "--format", "{{json .Config}}", docker_image]
    done = subprocess.run(command, env={**session_environment, **docker}, capture_output=True, text=True, check=True)
    config = json.loads(done.stdout)
    assert config["User"] == "researcher"
    assert config["Labels"]["org.opencontainers.image.version"] and config["Labels"]["separation.variant"] == "cpu"


def test_make_runs_an_experiment_inside_docker(docker, docker_image, project, elsewhere, packages):
    """`make ... in=docker` reuses the mixtures and caches of an earlier run; the rest runs in docker."""
    own = {**elsewhere, **docker, "DOCKER_IMAGE_NAME": docker_image}
    own["ARTIFACTS_DIRECTORY"] = f"{elsewhere['ARTIFACTS_DIRECTORY']}-docker"
    own["CONTAINER_OPTIONS"] = f"--network host --volume {packages}:{INSIDE}:ro"
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
    own["CONTAINER_OPTIONS"] = f"--network none --volume {packages}:{INSIDE}:ro"
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
