"""What a machine gives to jobs: devices, processes, threads, signals.

In: environment variables and resources of a job. Out: leased GPUs, worker pools, a job's log.
"""
