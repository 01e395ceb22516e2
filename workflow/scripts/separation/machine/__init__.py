"""Resources of a machine for jobs: devices, processes, threads, signals.

In: environment variables and resources of a job. Out: leased GPUs, worker pools, a job's log.
"""
