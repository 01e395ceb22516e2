"""Dry runs in forked processes show what those in new processes do."""

import os
import re
import subprocess

import pytest

import dry_runs
from projects import TINY, UNSET, new_process

PRINTED = "print('the library of', __file__, file=__import__('sys').stderr)\n"


def shown(done: subprocess.CompletedProcess) -> tuple:
    """Exit code and output, without what differs between two runs.

    These are times, random ids, the order of words, because Snakemake prints sets in any order, and the folder in which
    Snakemake was imported.
    """
    changing = r"\d\d:\d\d:\d\d|[0-9a-f]{8}-[0-9a-f-]{27}|Run directory: .*|[,;]"
    return done.returncode, *(sorted(re.sub(changing, "", text).split()) for text in (done.stdout, done.stderr))


@pytest.mark.parametrize("arguments", [("--config", f"sweep={TINY}"), ("train", "--config", "swep=x"), ("--jobs", "x")])
def test_a_forked_process_prints_and_returns_what_a_new_one_does(fresh, arguments):
    library = fresh.folder / "workflow/scripts/separation/planning/expansion.py"
    library.write_text(library.read_text() + PRINTED)
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    new = new_process(["-n", *arguments], fresh.folder, environment)
    forked = dry_runs.snakemake(["-n", *arguments], fresh.folder, environment)
    assert shown(forked) == shown(new)
    assert ("x" in arguments) != (f"the library of {library}" in forked.stderr)
