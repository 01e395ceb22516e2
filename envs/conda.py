"""Writes the lock as a conda environment: `make lock` calls it.

environment.yml has every line of requirements.lock but those of nussl and scaper. They ask for a package that has to
be compiled and is not needed (overrides.txt), and only `pip install --no-deps` passes over that, so
environment.post-deploy.sh installs them; Snakemake runs it by itself.
"""

from pathlib import Path

ENVS = Path(__file__).resolve().parent
WITHOUT_DEPENDENCIES = ("nussl", "scaper")

HEAD = """\
# Made by `make lock` from requirements.lock; not to be edited by hand. snakemake --sdm conda makes it for the jobs;
# by hand:
#   conda env create -f envs/environment.yml && conda activate separation && bash envs/environment.post-deploy.sh
name: separation
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python >=3.11,<3.14
  - pip
  - sox
  - pip:
"""
SCRIPT = """\
#!/usr/bin/env bash
# Made by `make lock`; not to be edited by hand. The rest of requirements.lock, in the environment that is active: these
# two ask for a package that has to be compiled and is not needed.
set -euo pipefail
python -m pip install --no-deps --disable-pip-version-check {packages}
"""


def main() -> None:
    lines = [line.strip() for line in (ENVS / "requirements.lock").read_text().splitlines()]
    pins = [line for line in lines if line and not line.startswith("#")]
    apart = [pin for pin in pins if pin.split("==")[0] in WITHOUT_DEPENDENCIES]
    listed = "".join(f'      - "{pin}"\n' for pin in pins if pin not in apart)
    (ENVS / "environment.yml").write_text(HEAD + listed)
    (ENVS / "environment.post-deploy.sh").write_text(SCRIPT.format(packages=" ".join(apart)))
    print(f"envs/environment.yml: {len(pins) - len(apart)} packages")


if __name__ == "__main__":
    main()
