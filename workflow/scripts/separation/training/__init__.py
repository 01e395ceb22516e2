"""Training of one point.

In: a point's options, caches or mixtures. Out: checkpoints, history, event log, resumable state.
"""
