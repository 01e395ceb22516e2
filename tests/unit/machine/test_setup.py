"""Installation: the lock, envs/setup.sh, the Makefile's targets and the environment file.

envs/setup.sh runs in its own folder with stand-ins for Python, pip and apt that record their calls: nothing is
downloaded and nothing outside the folder is changed.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
LOCK = ROOT / "envs" / "requirements.lock"
EXTRAS = ("jupyter", "trackers", "pesq", "networks")  # installed when they are used, and for the tests
TOOLS = ["bash", "awk", "cat", "cp", "cut", "date", "dirname", "env", "flock", "grep", "head", "kill", "mkdir", "mv"]
TOOLS += ["rm", "sed", "sha256sum", "tail", "touch"]
PROGRAMS = ["python", "snakemake", "snakefmt", "ruff", "codespell", "tensorboard", "shellcheck"]

PYTHON_STAND_IN = f"""#!{shutil.which("bash")}
# $RECORD gets one line per call; $BREAK makes calls that contain it fail
[ "$1" = - ] && exec {sys.executable} "$@"
[ "$1" = --version ] && exec echo "Python 3.x"
[ "$1 $3" = "-m --version" ] || echo "${{PYTHONDONTWRITEBYTECODE:+not compiled: }}$*" >>"$RECORD"
case "$*" in
  *"${{BREAK:-nothing breaks}}"*) echo "stand-in: no $BREAK today"; exit 1 ;;
  "-c import sys"*) echo "$0" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
esac
"""


def normalized(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(*extras):
    text = "".join((ROOT / "envs" / f"{name}.lock").read_text() for name in ("requirements", *extras))
    lines = [line.split(";")[0].strip() for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


# --- the lock


def test_every_line_of_the_lock_pins_one_version():
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 100
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.+!]+( ; .+)?", line)] == []


def test_the_lock_has_no_cuda_packages_and_nothing_to_compile():
    unwanted = re.compile(r"nvidia|cuda|cu1\d|cudnn|triton|soxbindings")
    assert [name for name in locked() if unwanted.search(name)] == []


def test_every_requirement_is_in_the_lock():
    text = (ROOT / "envs" / "requirements.in").read_text()
    named = re.findall(r"^([A-Za-z0-9_.-]+)", text, flags=re.MULTILINE)
    assert {normalized(name) for name in named} <= {normalized(name) for name in locked()}


@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_add_to_the_lock_without_changing_it(extra):
    lines = [line for line in (ROOT / "envs" / f"{extra}.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.+!]+( ; .+)?", line)] == []
    names = {normalized(line.split("==")[0]) for line in lines}
    assert not names & {normalized(name) for name in locked()}
    wanted = re.findall(r"^([A-Za-z0-9_.-]+)", (ROOT / "envs" / f"{extra}.in").read_text(), flags=re.MULTILINE)
    assert wanted and {normalized(name) for name in wanted} <= names


def imported_by(path):
    """Top-level names of the modules that a Python or Snakemake file imports."""
    text = path.read_text()
    if path.suffix != ".py":
        return set(re.findall(r"^\s*(?:import|from) ([A-Za-z_]\w*)", text, flags=re.MULTILINE))
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_every_package_that_the_workflow_imports_is_in_the_lock():
    files = [
        path
        for folder in ("workflow", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".smk"}
    ]
    own = {path.stem for path in files} | {path.parent.name for path in files}
    known = {normalized(name) for name in locked(*EXTRAS)}
    installed = packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported_by(path) - own - sys.stdlib_module_names
        if not known & {normalized(package) for package in installed.get(name, [name])}
    }
    assert files
    assert missing == set()


# --- envs/setup.sh


class Machine:
    """A folder with envs/setup.sh and a small lock, and a PATH of fake programs."""

    def __init__(self, folder):
        self.folder = folder
        self.repository = folder / "repository"
        self.programs = folder / "bin"
        self.record = folder / "calls.txt"
        (self.repository / "envs").mkdir(parents=True)
        self.programs.mkdir()
        shutil.copy(ROOT / "envs" / "setup.sh", self.repository / "envs" / "setup.sh")
        self.write_lock("alpha==1.0", "beta==2.0", "gamma==3.0 ; sys_platform == 'never'", "torch==9.9")
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.programs / tool).symlink_to(found)
        self.add_program("python3", PYTHON_STAND_IN)
        self.add_program("sox")
        self.be_user(1000)

    def write_lock(self, *lines):
        (self.repository / "envs" / "requirements.lock").write_text("# head\n" + "".join(f"{line}\n" for line in lines))

    def add_program(self, name, text="#!/bin/sh\n"):
        path = self.programs / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def be_user(self, number):
        self.add_program("id", f"#!/bin/sh\necho {number}\n")

    def environment(self, **variables):
        return {"PATH": str(self.programs), "HOME": str(self.folder), "RECORD": str(self.record), **variables}

    def set_up(self, *programs, **variables):
        """Runs envs/setup.sh; returns its exit code, its output and its calls of Python."""
        self.record.write_text("")
        done = subprocess.run(
            ["bash", "envs/setup.sh", *(programs or ["sox"])],
            cwd=self.repository,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        assert done.stdout == "", "stdout belongs to the command that runs after set-up"
        return done.returncode, done.stderr, self.record.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def recreated(calls):
    return any(call.startswith("-m venv") for call in calls)


def pip_calls(calls, command):
    return [call for call in calls if call.startswith(f"-m pip {command} ")]


def test_setup_installs_the_lock_without_dependencies_and_torch_with_them(machine):
    code, output, calls = machine.set_up()
    assert code == 0, output
    assert recreated(calls)
    assert all("--no-deps" in call for call in pip_calls(calls, "wheel"))
    packages, torch = pip_calls(calls, "install")
    assert "--no-deps" in packages
    assert "torch" not in packages
    assert "torch==9.9" in torch
    assert "--no-deps" not in torch
    assert "installing 2 packages" in output, "packages for other systems are neither counted nor downloaded"


def test_setup_compiles_what_is_imported_whatever_the_users_environment(machine):
    code, output, calls = machine.set_up(PYTHONDONTWRITEBYTECODE="1")
    assert code == 0, output
    assert any(call.startswith("-c import torch") for call in calls)
    assert not [call for call in calls if call.startswith("not compiled")]


def test_a_second_setup_does_nothing(machine):
    machine.set_up()
    before = {path: path.stat().st_mtime_ns for path in (machine.repository / ".venv").rglob("*")}
    code, output, calls = machine.set_up()
    assert (code, output, calls) == (0, "environment: up to date\n", [])
    assert {path: path.stat().st_mtime_ns for path in (machine.repository / ".venv").rglob("*")} == before


@pytest.mark.parametrize("broken", ["venv .venv", "pip wheel", "--no-index", "torch==9.9"])
def test_a_failed_setup_names_its_log_and_the_next_one_repairs_it(machine, broken):
    code, output, _ = machine.set_up(BREAK=broken)
    assert code == 1
    assert f"stand-in: no {broken} today" in output
    assert output.endswith("failed; the full output is in logs/setup.log\n")
    code, output, calls = machine.set_up()
    assert code == 0, output
    assert recreated(calls)
    assert "an earlier setup did not finish" in output
    assert machine.set_up()[2] == []


def test_a_package_that_fails_to_import_stops_setup_and_keeps_the_environment(machine):
    code, output, _ = machine.set_up(BREAK="import torch")
    assert code == 1
    assert "stand-in: no import torch today" in output
    code, output, calls = machine.set_up()
    assert code == 0, output
    assert not recreated(calls)
    assert machine.set_up()[2] == []


def test_a_changed_lock_is_installed_into_the_existing_environment(machine):
    machine.set_up()
    machine.write_lock("alpha==1.1", "torch==9.9")
    code, output, calls = machine.set_up()
    assert code == 0, output
    assert not recreated(calls)
    assert pip_calls(calls, "install")


def test_a_failed_download_keeps_the_working_environment(machine):
    machine.set_up()
    machine.write_lock("alpha==1.1", "torch==9.9")
    code, _, calls = machine.set_up(BREAK="pip wheel")
    assert code == 1
    assert pip_calls(calls, "install") == []
    assert not recreated(machine.set_up()[2])


def test_an_environment_created_by_hand_is_kept(machine):
    machine.set_up()
    (machine.repository / ".venv" / "setup.stamp").unlink()
    (machine.repository / ".venv" / "mine").touch()
    code, output, calls = machine.set_up()
    assert code == 0, output
    assert not recreated(calls)
    assert (machine.repository / ".venv" / "mine").exists()


def test_a_moved_repository_gets_a_new_environment(machine):
    machine.set_up()
    machine.repository = machine.repository.rename(machine.folder / "elsewhere")
    code, output, calls = machine.set_up()
    assert code == 0, output
    assert recreated(calls)
    assert "the folder has moved" in output


def test_torch_index_is_used_only_for_torch_and_not_recorded(machine):
    index = "https://user:secret@example.org/cpu"
    code, output, calls = machine.set_up(TORCH_INDEX=index)
    assert code == 0, output
    with_index = [call for call in calls if index in call]
    assert with_index == [call for call in pip_calls(calls, "install") if "torch==9.9" in call]
    assert "secret" not in output + (machine.repository / ".venv" / "setup.stamp").read_text()
    assert machine.set_up(TORCH_INDEX=index)[2] == []
    assert machine.set_up()[2] == [], "the index need not be named again"
    other = machine.set_up(TORCH_INDEX="https://example.org/cuda")[2]
    assert any("--force-reinstall" in call and "torch==9.9" in call for call in other)
    assert not recreated(other)


@pytest.mark.parametrize(("program", "package"), [("sox", "sox"), ("dot", "graphviz")])
def test_a_missing_program_is_reported_in_one_line_with_install_commands(machine, program, package):
    (machine.programs / program).unlink(missing_ok=True)
    code, output, calls = machine.set_up(program)
    assert (code, calls) == (1, [])
    assert output.count("\n") == 1
    for manager in ("apt", "dnf", "brew"):
        assert f"{manager} install {package}" in output


def test_missing_programs_are_installed_for_root_on_debian(machine):
    (machine.programs / "sox").unlink()
    machine.be_user(0)
    machine.add_program("apt-get", '#!/bin/sh\necho "apt-get $* ${DEBIAN_FRONTEND}" >>"$RECORD"\n')
    code, output, calls = machine.set_up()
    assert code == 0, output
    assert calls[:2] == [
        "apt-get update -q noninteractive",
        "apt-get install -q -y --no-install-recommends sox noninteractive",
    ]


def test_setup_without_a_supported_python_names_the_supported_ones(machine):
    (machine.programs / "python3").unlink()
    code, output, _ = machine.set_up()
    assert code == 1
    assert output.count("\n") == 1
    assert "Python 3.11 to 3.13" in output
    assert "apt install python3-venv" in output
    assert not (machine.repository / ".venv").exists()


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_a_second_setup_at_the_same_time_waits(machine):
    machine.record.write_text("")
    both = [
        subprocess.Popen(
            ["bash", "envs/setup.sh", "sox"], cwd=machine.repository, env=machine.environment(), stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    output = [process.communicate(timeout=60)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], output
    assert sum(call.startswith("-m venv") for call in machine.record.read_text().splitlines()) == 1


# --- the Makefile


def make(folder, *arguments, **variables):
    # an outer make passes its flags and variables to this one
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "ENV_FILE"))}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def targets():
    return re.findall(r"^([a-z][a-z_-]*):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.fixture
def stand_ins(tmp_path):
    """A copy of the Makefile whose programs print their name, $PROBE and their arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    programs = [tmp_path / "envs" / "setup.sh", tmp_path / "envs" / "extra.sh"]
    programs += [tmp_path / ".venv" / "bin" / name for name in PROGRAMS]
    for path in programs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#!/bin/sh\necho "$(basename "$0")[$PROBE] $*"\n')
        path.chmod(0o755)
    return tmp_path


def test_make_and_make_help_list_every_target():
    listed = [line.split()[0] for line in make(ROOT, "help").stdout.splitlines()]
    assert {"setup", "demo", "test", "lint", "plan", "experiment"} <= set(listed)
    assert listed == targets()
    assert make(ROOT).stdout == make(ROOT, "help").stdout


def test_commands_of_make_write_bytecode(stand_ins):
    (stand_ins / "mine_local.sh").write_text('export PROBE="${PYTHONDONTWRITEBYTECODE:-written}"\n')
    done = make(stand_ins, "experiment", "yml=a.yml", ENV_FILE="mine_local.sh", PYTHONDONTWRITEBYTECODE="1")
    assert "snakemake[written]" in done.stdout


@pytest.mark.parametrize(
    "target",
    ["setup", "demo", "test", "lint", "plan", "prune", "status", "tensorboard", "experiment", "sync", "jupyter"],
)
def test_variables_of_the_environment_file_reach_commands(target, stand_ins):
    (stand_ins / "mine_local.sh").write_text('export PROBE="from the file"\n')
    done = make(stand_ins, target, "yml=a.yml", ENV_FILE="mine_local.sh")
    assert done.returncode == 0, done.stderr
    output = [line for line in done.stdout.splitlines() if "[" in line]
    assert output
    assert [line for line in output if "[from the file]" not in line] == []


def test_a_missing_environment_file_is_an_error(stand_ins):
    done = make(stand_ins, "setup", ENV_FILE="config/environment/nowhere_local.sh")
    assert done.returncode != 0
    assert "config/environment/nowhere_local.sh" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "snakemake --profile local --config sweep=a.yml"),
        (["num_gpus=0", "num_jobs=3"], "snakemake --profile local --jobs 3 --config sweep=a.yml"),
        (["num_gpus=4", "num_jobs=1"], "snakemake --profile local-gpu --resources gpu=4 --jobs 1 --config sweep=a.yml"),
    ],
)
def test_make_experiment_prints_and_runs_the_snakemake_command(arguments, command, stand_ins):
    done = make(stand_ins, "experiment", "yml=a.yml", *arguments)
    assert done.stdout.splitlines()[1:] == [command, command.replace("snakemake", "snakemake[]", 1)]


def test_make_experiment_without_a_file_prints_its_usage(stand_ins):
    done = make(stand_ins, "experiment")
    assert done.returncode != 0
    assert "make experiment yml=" in done.stderr


def test_make_clean_keeps_results_and_private_files(stand_ins):
    kept = [stand_ins / name for name in ("results/artifacts/point/config.yml", "private/key.json", ".snakemake/log/a")]
    for path in [*kept, stand_ins / "tests" / "__pycache__" / "a.pyc", stand_ins / "workflow" / "a.smk"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert make(stand_ins, "clean").returncode == 0
    assert all(path.exists() for path in kept)
    assert not (stand_ins / ".venv").exists()
    assert not (stand_ins / "tests" / "__pycache__").exists()


# --- the environment file, continuous integration, hooks


def test_the_environment_file_sets_defaults_and_keeps_existing_values():
    text = (ROOT / "config" / "environment" / "default.sh").read_text()
    names = [
        *("DATA_DIRECTORY", "CACHE_DIRECTORY", "ARTIFACTS_DIRECTORY", "CODE_DIRECTORY", "DOCKER_IMAGE_NAME"),
        *("JUPYTER_HOST_PORT", "JUPYTER_PASSWORD_HASH", "TENSORBOARD_HOST_PORT"),
        *("PATH_TO_GOOGLE_CREDENTIALS", "COMET_API_KEY"),
    ]
    assert [name for name in names if not re.search(rf"^(# )?export {name}=", text, flags=re.MULTILINE)] == []
    done = subprocess.run(
        ["bash", "-euc", 'source config/environment/default.sh; echo "$DATA_DIRECTORY $CACHE_DIRECTORY"; env'],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "CACHE_DIRECTORY": "/scratch/cache"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "results/data /scratch/cache"
    assert "COMET_API_KEY" not in done.stdout, "an empty key is not a key"


def test_continuous_integration_runs_every_step_and_fails_with_it(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    steps = ["_setup-tests", "test", "test-slow", "test-services"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}

    def run(failing=None):
        lines = [f"{step}:\n\t@echo ran {step}{'; false' if step == failing else ''}\n" for step in steps]
        (tmp_path / "Makefile").write_text("".join(lines))
        done = subprocess.run([tmp_path / ".ci" / "run"], env=environment, capture_output=True, text=True)
        return done.returncode, re.findall(r"^ran (.*)$", done.stdout, flags=re.MULTILINE)

    assert run() == (0, steps)
    for count, step in enumerate(steps, start=1):
        code, ran = run(failing=step)
        assert code != 0 and ran == steps[:count]


def test_commit_hooks_run_the_linters_and_find_private_keys():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = re.search(r"^lint:.*?(?=^\.PHONY)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE | re.DOTALL)[0]
    entries = {hook["id"]: hook["entry"] for hook in hooks}
    assert {entry.split("/")[-1].split()[0] for name, entry in entries.items() if name != "private-keys"} == set(
        re.findall(r"\b(ruff|snakefmt|snakemake|codespell)\b(?= -| check| format|$)", lint, flags=re.MULTILINE)
    )
    private = re.compile(entries["private-keys"])
    assert private.search("-----BEGIN RSA " + "PRIVATE KEY-----")
    assert private.search('"private_' + 'key": "-----BEGIN')
    assert not private.search((ROOT / ".pre-commit-config.yaml").read_text())
