#!/usr/bin/env bash
# Makes .venv from envs/requirements.lock and sees to the system programs named as arguments:
#   envs/setup.sh sox dot
# PYTHON       the interpreter to use                     (default: the first of python3, python3.13 ... 3.11 that serves)
# TORCH_INDEX  the package index that torch comes from, for a build other than the configured index gives
# A second run finds its stamp and ends at once; an interrupted one is made good by the next. Progress goes to stderr,
# what pip and apt say to logs/setup.log. Bash 3.2 (macOS) is enough.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lock=envs/requirements.lock
log=logs/setup.log
stamp=.venv/setup.stamp           # written last: what .venv was made from
unfinished=.venv/setup.unfinished # there while packages are being written
wheels=.venv/wheels
# these would reach into, or away from, the environment made here
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }
stop() { say "setup: $*" && exit 1; }
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT # downloads run in the background, where Ctrl-C does not reach them
trap 'exit 130' INT TERM

# step TEXT COMMAND...: one line with the seconds it took; on failure the end of the log and its name
step() {
  local text=$1 start=$SECONDS
  shift
  mkdir -p logs
  printf '\n== %s\n' "$text" >>"$log"
  printf '%s ... ' "$text" >&2
  if ! "$@" >>"$log" 2>&1 </dev/null; then
    say "failed"
    tail -n 12 "$log" | sed 's/^/    /' >&2
    stop "$text failed; the whole output is in $log"
  fi
  say "$((SECONDS - start)) s"
}

may_use_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q || true # one index out of order need not matter: the next line tells
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
  may_use_apt || stop "missing: $missing; install with 'apt install $missing', 'dnf install $missing' or 'brew install $missing', then run again"
  # shellcheck disable=SC2086 # a list of words
  step "installing $missing" apt_install $missing
}

# The real interpreter behind a name, where it serves: the lock has wheels for 3.11 to 3.13, and Debian keeps ensurepip
# apart in python3-venv. (The name may be that of an environment we are about to replace.)
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
  stop "no Python 3.11 to 3.13 with venv${PYTHON:+ at PYTHON=$PYTHON}; install with 'apt install python3-venv', 'dnf install python3.12' or 'brew install python@3.12', or name one: PYTHON=..."
}

fingerprint() { { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1; }
# only its hash is kept: the address may hold a password
index_fingerprint() { [ -z "${TORCH_INDEX:-}" ] || printf '%s' "$TORCH_INDEX" | fingerprint; }
venv_path() { (cd .venv && pwd -P); }

# What the stamp tells: made_from, made_at, made_index; empty without a stamp.
read_stamp() {
  made_from="" made_at="" made_index=""
  # shellcheck disable=SC2015 # reading may meet the end of the file
  [ -f "$stamp" ] && { read -r made_from && read -r made_at && read -r made_index; } <"$stamp" || true
}

up_to_date() {
  read_stamp
  [ "$made_from" = "$wanted" ] && [ -x .venv/bin/python ] && [ "$made_at" = "$(venv_path)" ] &&
    { [ -z "${TORCH_INDEX:-}" ] || [ "$made_index" = "$(index_fingerprint)" ]; }
}

# Why .venv cannot be kept, in words; silent where it can.
unusable() {
  [ -e .venv ] || return 0
  if [ -e "$unfinished" ]; then
    echo "an earlier set-up did not finish"
  elif [ -n "$made_at" ] && [ "$made_at" != "$(venv_path)" ]; then
    echo "the folder has moved"
  elif ! interpreter .venv/bin/python >/dev/null || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "the Python in it does not serve"
  fi
}

make_venv() {
  rm -rf .venv && mkdir .venv && touch "$unfinished" && "$python" -m venv .venv
}

# The lines of the lock that .venv does not hold yet, torch and those for other systems aside.
missing_packages() {
  .venv/bin/python - "$lock" <<'PY'
import sys
from importlib.metadata import PackageNotFoundError, version
from pip._vendor.packaging.requirements import Requirement  # the one parser that a bare environment has

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

# pip looks up and fetches one package after the other; four of them at once take a third of the time.
# (--use-pep517: one package is an sdist without pyproject.toml, for which an older pip would want `wheel` installed.)
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
  # once more, so that the cause stands at the end of the log
  for part in $failed; do grep -h -A 3 -E '^ *(ERROR|error)' "$wheels/$part.log" || tail -n 5 "$wheels/$part.log"; done
  [ -z "$failed" ]
}

# Byte-compiling everything would take longer than installing it; check_imports compiles what is used.
install_packages() {
  .venv/bin/python -m pip install --no-deps --no-compile --no-warn-conflicts --no-index --find-links "$wheels" \
    -r "$wheels/packages.txt"
}

# After the rest, so that what torch asks for is there in the locked versions and only its build's own parts (CUDA, or
# none) are added. An index named anew replaces the build that is there.
install_torch() {
  if [ -z "${TORCH_INDEX:-}" ]; then
    .venv/bin/python -m pip install --no-compile --no-warn-conflicts "torch==$torch"
  else
    .venv/bin/python -m pip install --no-compile --no-warn-conflicts --index-url "$TORCH_INDEX" --no-deps --force-reinstall "torch==$torch" &&
      .venv/bin/python -m pip install --no-compile --no-warn-conflicts --index-url "$TORCH_INDEX" "torch==$torch"
  fi
}

# Tells a broken system early, and compiles what runs later: in two processes, because that is most of the work.
check_imports() {
  .venv/bin/python -c 'import torch, torch.utils.tensorboard, ignite, gpytorch, tensorboard.main' &
  .venv/bin/python -c 'import snakemake.cli, pandas, pyarrow.parquet, altair, vl_convert, matplotlib.pyplot, zarr,\
 librosa, numba, scipy.signal, sklearn.cluster, soundfile, soxr, jams, mir_eval, midirenderer, mido, pretty_midi,\
 jsonschema, filelock, jinja2, rich.progress, pytest, snakefmt.snakefmt' && wait $!
}

require_programs "$@"
wanted=$(cat "$lock" envs/setup.sh | fingerprint)
torch=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' "$lock")
if up_to_date; then say "environment: up to date" && exit 0; fi

if command -v flock >/dev/null; then # on this very file, which is always there
  exec 9<envs/setup.sh
  flock -n 9 || { say "another set-up is at work here; waiting for it" && flock 9 || true; }
  if up_to_date; then say "environment: up to date" && exit 0; fi
fi

mkdir -p logs && : >"$log"
reason=$(unusable)
if [ -n "$reason" ] || [ ! -e .venv ]; then
  choose_python
  step "making .venv with $("$python" --version)${reason:+ (anew: $reason)}" make_venv
  made_index=""
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
[ -n "${TORCH_INDEX:-}" ] && made_index=$(index_fingerprint)
printf '%s\n%s\n%s\n' "$wanted" "$(venv_path)" "$made_index" >"$stamp.new" && mv "$stamp.new" "$stamp"
say "environment: ready after $SECONDS s"
