"""The machine: its GPUs, processes, threads, signals and environment check.

In: environment variables and resources of a job. Out: leased GPUs, worker pools, a job's log.
"""
