"""Patches of Snakemake that make planning of large sweeps faster.

They apply only to large sweeps and to the version they were written for, and change no decision of Snakemake.
tests/unit/planning/test_snakemake_patches.py fails when Snakemake no longer needs one of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import snakemake

VERSION = "9.27"
#: up to this many points, planning is fast enough without patches
LARGE_SWEEP_POINTS = 1000

_active = False


def patch_snakemake(points: int) -> bool:
    """Applies all patches; call it once per parse, before jobs exist.

    Args:
        points: Number of points in the sweep.

    Returns:
        Whether they apply.
    """
    global _active
    _active = points > LARGE_SWEEP_POINTS and snakemake.__version__.startswith(f"{VERSION}.")
    if _active:
        _look_up_resource_parameters_once()
        _check_scripts_once_per_rule()
    return _active


def with_known_parameters(function: Callable) -> Callable:
    """A function of a rule, with its parameters stored on it.

    Reason: Snakemake inspects the signature of such a function for every job; with the resources, this takes a quarter
    of the time of `snakemake -n` with 10,000 points.
    """
    if _active:
        _store_parameters(function, inspect.signature(function).parameters)
    return function


def _look_up_resource_parameters_once() -> None:
    """Reason: Snakemake inspects the signature of Resource.evaluate for every resource of every job."""
    from snakemake.resources import Resource

    # the parameters of a bound method, without `self`
    _store_parameters(Resource.evaluate, inspect.signature(Resource("threads", 1).evaluate).parameters)


def _check_scripts_once_per_rule() -> None:
    """Reason: Snakemake opens the script of every single job to see whether it exists."""
    from snakemake.dag import ScriptProcessor

    process_job = ScriptProcessor.process_job
    if hasattr(process_job, "__wrapped__"):
        return
    seen = set()

    @functools.wraps(process_job)
    def process_first_job(self, job):
        # a path with wildcards is a different script for each job
        script = getattr(job.rule, self.script_type, None)
        if "{" in str(script) or (self.script_type, job.rule) not in seen:
            process_job(self, job)
            seen.add((self.script_type, job.rule))

    ScriptProcessor.process_job = process_first_job


def _store_parameters(function: Callable, parameters) -> None:
    from snakemake.common import overwrite_function_params

    overwrite_function_params(function, parameters)


def end_with_job_stats(workflow) -> None:
    """Makes `snakemake -n --quiet all` stop after its table of job stats, as users of a quiet command expect.

    A setting, not a patch: without it, Snakemake continues and prints every job. It stops at the table only for --quiet
    without a value, which hides the table as well. The log handlers exist already and keep the user's setting.

    Args:
        workflow: The `workflow` of a Snakefile.
    """
    from snakemake.settings.enums import Quietness

    if workflow.output_settings.dryrun and workflow.output_settings.quiet == {Quietness.ALL}:
        workflow.output_settings.quiet = {Quietness.RULES, Quietness.PROGRESS}
