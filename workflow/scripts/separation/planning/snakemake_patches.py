"""What makes planning of many jobs slow in Snakemake, and is not needed, is left out.

Lookups whose answer is the same for every job are made once; they are a quarter of the time of `snakemake -n` of a
sweep of 10,000 points. Nothing that Snakemake decides is changed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

from snakemake import dag
from snakemake.common import overwrite_function_params
from snakemake.resources import Resource
from snakemake.settings.enums import Quietness


def known(function: Callable) -> Callable:
    """The same function; Snakemake finds its parameters beside it instead of looking them up for each job."""
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


def make_lookups_once() -> None:
    """To be called once, before there are jobs.

    Snakemake 9.27 takes the signature of Resource.evaluate for every resource of every job, and opens the script of
    every single job to see whether it is there (dag.ScriptProcessor; a Snakemake without it is left as it is).
    """
    # as each resource's own method has them, without `self`
    overwrite_function_params(Resource.evaluate, inspect.signature(Resource("threads", 1).evaluate).parameters)
    processor = getattr(dag, "ScriptProcessor", None)
    if processor is None or hasattr(processor.process_job, "__wrapped__"):
        return
    process_job = processor.process_job
    seen = set()

    @functools.wraps(process_job)
    def process_first_job(self, job):
        # a path with wildcards is another script for each job
        script = getattr(job.rule, self.script_type, None)
        if "{" in str(script) or (self.script_type, job.rule) not in seen:
            process_job(self, job)
            seen.add((self.script_type, job.rule))

    processor.process_job = process_first_job


def end_with_job_stats(workflow) -> None:
    """`snakemake -n --quiet all` ends with its table of job stats, as a quiet command is expected to.

    Snakemake 9.27 goes on to print every job; it only stops there for --quiet without a word, which hides the table as
    well. The handlers of the log, which have been set up already, keep to what was asked for.

    Args:
        workflow: the `workflow` of a Snakefile.
    """
    if workflow.output_settings.dryrun and workflow.output_settings.quiet == {Quietness.ALL}:
        workflow.output_settings.quiet = {Quietness.RULES, Quietness.PROGRESS}
