"""Key columns of scores.parquet, and the baselines that are rows of it."""

from __future__ import annotations

# One row has the scores of one estimate. Metrics and mixing conditions are in the columns that follow
SCORE_KEYS = ("point", "evaluation", "dataset", "split", "item", "source")
# Estimates of different points are compared on the same unit
UNIT = ["dataset", "split", "item", "source"]
# Values of the column `point` that are not points, with their names in tables and charts
BASELINES = {
    "mixture": "Mixture (nothing done)",
    "fixed_mask": "Fixed mask",
    "ideal_binary_mask": "Ideal binary mask",
    "ideal_ratio_mask": "Ideal ratio mask",
    "phase_sensitive_mask": "Phase-sensitive mask",
}
# The baseline that `oracle_share` is measured against
ORACLE = "ideal_binary_mask"
