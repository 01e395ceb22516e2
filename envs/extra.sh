#!/usr/bin/env bash
# Installs optional packages into .venv: envs/extra.sh jupyter|trackers|pesq|networks...
# Each name installs the exact versions in envs/<name>.lock. A second run ends at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

# pesq has no wheels and is compiled from C
needs_compiler() {
  local headers
  headers=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"] + "/Python.h")')
  command -v cc >/dev/null && [ -f "$headers" ] && return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -q || true; apt-get install -q -y --no-install-recommends gcc libc6-dev python3-dev; } >>logs/extra.log 2>&1 </dev/null
    [ -f "$headers" ] && return 0
  fi
  echo "extra: $1 needs a C compiler and Python's headers; install them with 'apt install gcc python3-dev' or 'dnf install gcc python3-devel'" >&2
  exit 1
}

for name in "$@"; do
  lock=envs/$name.lock stamp=.venv/extra.$name.stamp
  [ -f "$lock" ] || { echo "extra: no such file: $lock" >&2 && exit 1; }
  cmp -s "$lock" "$stamp" && continue
  started=$SECONDS
  printf 'installing the packages for %s ... ' "$name" >&2
  mkdir -p logs && : >logs/extra.log
  [ "$name" != pesq ] || needs_compiler "$name"
  if ! .venv/bin/python -m pip install --no-deps --no-compile --no-warn-conflicts -r "$lock" >>logs/extra.log 2>&1 </dev/null; then
    echo failed >&2
    tail -n 5 logs/extra.log >&2
    echo "extra: the full output is in logs/extra.log" >&2
    exit 1
  fi
  cp "$lock" "$stamp"
  echo "$((SECONDS - started)) s" >&2
done
