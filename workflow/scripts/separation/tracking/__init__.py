"""Experiment trackers, fed from the event logs of points.

In: event logs. Out: runs on comet.ml, Weights & Biases, MLflow and TensorBoard.
"""
