#!/usr/bin/env bash
# Shared build step of Dockerfile and separation.def: envs/setup.sh creates /opt/separation/.venv from the locks, as
# `make setup` does on a machine.
#   VARIANT      cpu or cuda: the expected build of torch
#   TORCH_INDEX  the package index of torch, if the configured one has the other build
#   PACKAGES     all, or none if site-packages will be mounted
set -euo pipefail
cd /opt/separation
export DEBIAN_FRONTEND=noninteractive

missing=""
for program in python3:python3 make:make git:git sox:sox; do
  command -v "${program%:*}" >/dev/null || missing="$missing ${program#*:}"
done
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
if [ -n "$missing" ]; then
  apt-get update -q
  # shellcheck disable=SC2086 # a list of words
  apt-get install -q -y --no-install-recommends $missing
fi

if [ "${PACKAGES:-all}" = none ]; then
  python3 -m venv --without-pip .venv
else
  TORCH_INDEX=${TORCH_INDEX:-} envs/setup.sh sox
  found=$(.venv/bin/python -c 'import torch; print("cuda" if torch.version.cuda else "cpu")')
  if [ "$found" != "${VARIANT:-$found}" ]; then
    echo "install: expected torch for $VARIANT, found one for $found; set TORCH_INDEX to an index that has it" >&2
    exit 1
  fi
  envs/extra.sh jupyter trackers
  # bytecode cannot be written later; a few of torch's files for other Pythons do not compile
  .venv/bin/python -m compileall -qq -j 0 .venv/lib || true
fi

# Jobs do not run as root. Notebooks and trackers need a home folder under any user id.
id researcher >/dev/null 2>&1 || useradd --no-create-home --uid 1000 --shell /bin/bash researcher
install -d -m 1777 /home/researcher
rm -rf /root/.cache /var/lib/apt/lists/* /var/cache/apt/*.bin /opt/separation/logs
