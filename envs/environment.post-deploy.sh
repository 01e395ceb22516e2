#!/usr/bin/env bash
# Made by `make lock`; not to be edited by hand. The rest of requirements.lock, in the environment that is active: these
# two ask for a package that has to be compiled and is not needed.
set -euo pipefail
python -m pip install --no-deps --disable-pip-version-check nussl==1.1.9 scaper==1.6.5
