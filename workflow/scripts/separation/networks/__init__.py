"""The networks that are trained.

In: a model_config. Out: torch modules.
"""
