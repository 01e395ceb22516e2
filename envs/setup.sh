#!/usr/bin/env bash
# Creates .venv from envs/requirements.lock and installs, or asks for, the system programs given as arguments:
#   envs/setup.sh sox dot
# PYTHON       the interpreter to use                     (default: the first of python3, python3.13 ... 3.11 that works)
# TORCH_INDEX  the package index of torch, for another build than that of the configured index
# A second run finds its stamp and ends at once; the next run repairs an interrupted one. Progress goes to stderr, the
# output of pip and apt to logs/setup.log. Works with bash 3.2 (macOS).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lock=envs/requirements.lock
log=logs/setup.log
stamp=.venv/setup.stamp           # written last: what .venv was built from
unfinished=.venv/setup.unfinished # exists while packages are being installed
wheels=.venv/wheels
# these would mix other packages into the environment, or install elsewhere
unset PYTHONPATH PYTHONHOME
# without bytecode, every process would compile what it imports: a training job for six seconds
unset PYTHONDONTWRITEBYTECODE
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

report() { printf '%s\n' "$*" >&2; }
stop() { report "setup: $*" && exit 1; }
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT # Ctrl-C does not reach downloads in the background
trap 'exit 130' INT TERM

# step TEXT COMMAND...: runs the command and prints one line with its seconds; on failure also the end of the log
step() {
  local text=$1 start=$SECONDS
  shift
  mkdir -p logs
  printf '\n== %s\n' "$text" >>"$log"
  printf '%s ... ' "$text" >&2
  if ! "$@" >>"$log" 2>&1 </dev/null; then
    report "failed"
    tail -n 12 "$log" | sed 's/^/    /' >&2
    stop "$text failed; the full output is in $log"
  fi
  report "$((SECONDS - start)) s"
}

may_use_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q || true # one broken index may not matter: the next line shows
  apt-get install -q -y --no-install-recommends "$@"
}

require_programs() {
  local program missing=""
  for program in "$@"; do
    command -v "$program" >/dev/null && continue
    [ "$program" = dot ] && program=graphviz
    missing="$missing $program"
  done
  [ -n "$missing" ] || return 0
  missing=${missing# }
  may_use_apt || stop "missing: $missing; install it with 'apt install $missing', 'dnf install $missing' or 'brew install $missing', then run again"
  # shellcheck disable=SC2086 # a list of words
  step "installing $missing" apt_install $missing
}

# Prints the real interpreter behind a name, if it works: the lock has wheels for 3.11 to 3.13, and Debian has ensurepip
# only in python3-venv. (The name may belong to an environment that is about to be replaced.)
interpreter() {
  "$1" -c 'import sys, venv, ensurepip
(3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit(1)
print(getattr(sys, "_base_executable", None) or sys.executable)' 2>/dev/null
}

find_python() {
  local name
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    interpreter "$name" && return 0
  done
  return 1
}

choose_python() {
  python=$(find_python) && return 0
  if [ -z "${PYTHON:-}" ] && may_use_apt; then
    step "installing python3-venv" apt_install python3-venv
    python=$(find_python) && return 0
  fi
  stop "no Python 3.11 to 3.13 with venv${PYTHON:+ at PYTHON=$PYTHON}; install one with 'apt install python3-venv', 'dnf install python3.12' or 'brew install python@3.12', or set PYTHON=..."
}

fingerprint() { { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1; }
# only the hash is stored: the address may contain a password
index_fingerprint() { [ -z "${TORCH_INDEX:-}" ] || printf '%s' "$TORCH_INDEX" | fingerprint; }
venv_path() { (cd .venv && pwd -P); }

# Reads the stamp into built_from, built_at, built_index; empty without a stamp.
read_stamp() {
  built_from="" built_at="" built_index=""
  # shellcheck disable=SC2015 # the file may be shorter
  [ -f "$stamp" ] && { read -r built_from && read -r built_at && read -r built_index; } <"$stamp" || true
}

up_to_date() {
  read_stamp
  [ "$built_from" = "$wanted" ] && [ -x .venv/bin/python ] && [ "$built_at" = "$(venv_path)" ] &&
    { [ -z "${TORCH_INDEX:-}" ] || [ "$built_index" = "$(index_fingerprint)" ]; }
}

# Prints why .venv cannot be kept; nothing if it can.
unusable() {
  [ -e .venv ] || return 0
  if [ -e "$unfinished" ]; then
    echo "an earlier setup did not finish"
  elif [ -n "$built_at" ] && [ "$built_at" != "$(venv_path)" ]; then
    echo "the folder has moved"
  elif ! interpreter .venv/bin/python >/dev/null || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "its Python does not work"
  fi
}

make_venv() {
  rm -rf .venv && mkdir .venv && touch "$unfinished" && "$python" -m venv .venv
}

# Prints the lines of the lock that .venv lacks, except torch and those for other systems.
missing_packages() {
  .venv/bin/python - "$lock" <<'PY'
import sys
from importlib.metadata import PackageNotFoundError, version
from pip._vendor.packaging.requirements import Requirement  # the only parser in an empty environment

for line in map(str.strip, open(sys.argv[1])):
    if line.startswith("#") or not line:
        continue
    requirement = Requirement(line)
    if requirement.name == "torch" or (requirement.marker and not requirement.marker.evaluate()):
        continue
    try:
        wanted = not requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        wanted = True
    if wanted:
        print(line)
PY
}

# pip looks up and downloads packages one by one; four processes take a third of the time.
# (--use-pep517: one package is an sdist without pyproject.toml, for which an older pip would need `wheel`.)
download() {
  local part job failed="" jobs=()
  for part in 0 1 2 3; do
    awk -v part=$part 'NR % 4 == part' "$wheels/packages.txt" >"$wheels/$part.txt"
    [ -s "$wheels/$part.txt" ] || continue
    .venv/bin/python -m pip wheel --no-deps --use-pep517 --wheel-dir "$wheels" -r "$wheels/$part.txt" >"$wheels/$part.log" 2>&1 &
    jobs+=("$part:$!")
  done
  for job in "${jobs[@]}"; do wait "${job#*:}" || failed="$failed ${job%:*}"; done
  cat "$wheels"/?.log
  # repeat the errors, so that the log ends with the cause
  for part in $failed; do grep -h -A 3 -E '^ *(ERROR|error)' "$wheels/$part.log" || tail -n 5 "$wheels/$part.log"; done
  [ -z "$failed" ]
}

# Compiling everything to bytecode would take longer than installing it; check_imports compiles what is used.
install_packages() {
  .venv/bin/python -m pip install --no-deps --no-compile --no-warn-conflicts --no-index --find-links "$wheels" \
    -r "$wheels/packages.txt"
}

# After the rest, so that torch's requirements already exist in the locked versions and only the parts of its build (CUDA,
# or none) are added. A new index replaces the installed build.
install_torch() {
  if [ -z "${TORCH_INDEX:-}" ]; then
    .venv/bin/python -m pip install --no-compile --no-warn-conflicts "torch==$torch"
  else
    .venv/bin/python -m pip install --no-compile --no-warn-conflicts --index-url "$TORCH_INDEX" --no-deps --force-reinstall "torch==$torch" &&
      .venv/bin/python -m pip install --no-compile --no-warn-conflicts --index-url "$TORCH_INDEX" "torch==$torch"
  fi
}

# Finds a broken system early, and compiles what runs later; in two processes, because this is most of the work.
check_imports() {
  .venv/bin/python -c 'import torch, torch.utils.tensorboard, ignite, gpytorch, tensorboard.main' &
  .venv/bin/python -c 'import snakemake.cli, snakemake.report.html_reporter, smart_open, pandas, pyarrow.parquet, altair, vl_convert, matplotlib.pyplot, zarr,\
 librosa, numba, scipy.signal, sklearn.cluster, soundfile, soxr, jams, mir_eval, midirenderer, mido, pretty_midi,\
 jsonschema, filelock, jinja2, rich.progress, pytest, snakefmt.snakefmt' && wait $!
}

require_programs "$@"
wanted=$(cat "$lock" envs/setup.sh | fingerprint)
torch=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' "$lock")
if up_to_date; then report "environment: up to date" && exit 0; fi

if command -v flock >/dev/null; then # on this file, which always exists
  exec 9<envs/setup.sh
  if ! flock -n 9; then
    report "another setup is running here; waiting for it"
    flock 9
  fi
  if up_to_date; then report "environment: up to date" && exit 0; fi
fi

mkdir -p logs && : >"$log"
reason=$(unusable)
if [ -n "$reason" ] || [ ! -e .venv ]; then
  choose_python
  step "creating .venv with $("$python" --version)${reason:+ (rebuilding: $reason)}" make_venv
  built_index=""
fi
rm -rf "$wheels" && mkdir "$wheels"
missing_packages >"$wheels/packages.txt"
count=$(grep -c . "$wheels/packages.txt" || true)
[ "$count" = 0 ] || step "downloading $count packages" download
touch "$unfinished" && rm -f "$stamp"
[ "$count" = 0 ] || step "installing $count packages" install_packages
step "installing torch $torch" install_torch
rm -rf "$wheels" "$unfinished"
step "checking that everything imports" check_imports
[ -n "${TORCH_INDEX:-}" ] && built_index=$(index_fingerprint)
printf '%s\n%s\n%s\n' "$wanted" "$(venv_path)" "$built_index" >"$stamp.new" && mv "$stamp.new" "$stamp"
report "environment: ready after $SECONDS s"
