"""Scoring of trained points and baselines.

In: a checkpoint and a test split. Out: scores.parquet and the estimates that are kept.
"""
