#!/usr/bin/env bash
# What Dockerfile and separation.def have in common: the environment in /opt/separation/.venv, made by envs/setup.sh from the
# locks as `make setup` makes it on a machine.
#   VARIANT      cpu or cuda: the build of torch that is expected
#   TORCH_INDEX  the package index that torch comes from, where the configured one gives the other build
#   PACKAGES     all, or none where site-packages will be mounted
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
    echo "install: expected torch for $VARIANT, found one for $found; name an index that has it in TORCH_INDEX" >&2
    exit 1
  fi
  envs/extra.sh jupyter trackers
  # nobody can write compiled files later; a few that torch has for other Pythons do not compile
  .venv/bin/python -m compileall -qq -j 0 .venv/lib || true
fi

# Jobs are not root. Notebooks and trackers want a home, whoever they run as.
id researcher >/dev/null 2>&1 || useradd --no-create-home --uid 1000 --shell /bin/bash researcher
install -d -m 1777 /home/researcher
rm -rf /root/.cache /var/lib/apt/lists/* /var/cache/apt/*.bin /opt/separation/logs
