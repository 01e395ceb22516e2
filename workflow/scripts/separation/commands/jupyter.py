"""Notebook server in .venv or in the container image: `make jupyter`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from separation.errors import UserError
from separation.experiment.config import default_config
from separation.files.layout import DIRECTORY_VARIABLES

CONFIG = Path(__file__).with_name("jupyter_config.py")
PORT = "8890"
# argon2 as Jupyter writes it today, or the older form of cookiecutter-nussl: algorithm, salt, digest
_HASH = re.compile(r"argon2:\$argon2\S+|sha1:[0-9a-f]+:[0-9a-f]{40}|sha(224|256|384|512):[0-9a-f]+:[0-9a-f]+")


def check_environment(environment: Mapping[str, str]) -> None:
    """Checks the variables that configure the server.

    Raises:
        UserError: A variable is not valid; the message does not quote a password or its hash.
    """
    port = environment.get("JUPYTER_HOST_PORT") or PORT
    if not (port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"expected a port, found '{port}'", key="JUPYTER_HOST_PORT")
    password = environment.get("JUPYTER_PASSWORD_HASH")
    if password and not _HASH.fullmatch(password):
        raise UserError(
            "expected a hash such as argon2:... or sha1:<salt>:<digest>; create one with: "
            "python -c 'from jupyter_server.auth import passwd; print(passwd())'",
            key="JUPYTER_PASSWORD_HASH",
        )


def in_venv(environment: Mapping[str, str], gpus: str | None) -> tuple[list[str], dict[str, str]]:
    """The command that serves notebooks in this environment, and its environment variables."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise UserError("jupyterlab is not installed; envs/extra.sh jupyter installs it")
    variables = dict(environment)
    if gpus is not None:
        variables["CUDA_VISIBLE_DEVICES"] = gpus
    library = str(CONFIG.parents[1])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [library, environment.get("PYTHONPATH")]))
    return [sys.executable, "-m", "jupyterlab", f"--config={CONFIG}"], variables


def in_container(environment: Mapping[str, str], gpus: str | None, name: str) -> tuple[list[str], dict[str, str]]:
    """The command that serves notebooks in a container of the image DOCKER_IMAGE_NAME, and its environment variables.

    The repository and the three directories are mounted at the same paths as on this machine, so that every other
    command finds the files that a notebook writes. Variables are passed by name: no command line shows their values.
    CONTAINER_OPTIONS holds more options of `run`.
    """
    program = next((found for tool in ("docker", "podman") if (found := shutil.which(tool))), None)
    if program is None:
        raise UserError("no docker or podman on this machine; omit name= to serve from .venv", key="name")
    code = str(Path(environment.get("CODE_DIRECTORY") or os.getcwd()).absolute())
    port = environment.get("JUPYTER_HOST_PORT") or PORT
    # files that notebooks write belong to this user
    user = f"{os.getuid()}:{os.getgid()}"
    command = [program, "run", "--rm", "--interactive", "--name", name, "--user", user, "--env", "HOME=/tmp"]
    if program.endswith("podman") and os.getuid() != 0:
        command += ["--userns", "keep-id"]
    if gpus:
        command += ["--gpus", f'"device={gpus}"']
    command += ["--publish", f"{environment.get('JUPYTER_HOST_IP') or '127.0.0.1'}:{port}:{port}"]
    mounted = [code]
    for variable in DIRECTORY_VARIABLES.values():
        folder = environment.get(variable)
        if folder:
            command += ["--env", variable]
            path = str(Path(folder).absolute())
            if not any(Path(path).is_relative_to(other) for other in mounted):
                mounted.append(path)
    for path in mounted:
        command += ["--volume", f"{path}:{path}"]
    for variable in ("JUPYTER_PASSWORD_HASH", "JUPYTER_HOST_PORT", "JUPYTER_HOST_IP", "PYTHONPATH"):
        command += ["--env", variable]
    command += shlex.split(environment.get("CONTAINER_OPTIONS") or "")
    image = environment.get("DOCKER_IMAGE_NAME") or default_config()["container"].removeprefix("docker://")
    config = (
        CONFIG if CONFIG.is_relative_to(code) else Path(code) / "workflow/scripts/separation/commands/jupyter_config.py"
    )
    command += ["--workdir", code, image, "python", "-m", "jupyterlab", f"--config={config}"]
    # inside, the server listens on all addresses; --publish above limits who can reach it
    variables = {**environment, "JUPYTER_HOST_PORT": port, "JUPYTER_HOST_IP": "0.0.0.0"}
    variables["PYTHONPATH"] = str(Path(code) / "workflow/scripts")
    return command, variables


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make jupyter`; replaces the process with the server."""
    parser = argparse.ArgumentParser(prog="jupyter", description="Serve notebooks.")
    parser.add_argument("--gpus", default=None, help="GPUs visible to notebooks, such as 0 or 0,1")
    parser.add_argument("--name", default=None, help="serve from a new container with this name")
    options = parser.parse_args(arguments)
    try:
        check_environment(os.environ)
        if options.name:
            command, variables = in_container(os.environ, options.gpus, options.name)
        else:
            command, variables = in_venv(os.environ, options.gpus)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    os.execvpe(command[0], command, variables)


if __name__ == "__main__":
    sys.exit(main())
