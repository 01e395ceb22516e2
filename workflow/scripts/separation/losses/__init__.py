"""The losses that networks are trained on.

In: a loss_function list. Out: one differentiable loss over a batch.
"""
