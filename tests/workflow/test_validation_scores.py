"""Points whose losses do not compare are chosen by a score on the validation split."""

import pandas as pd

from test_reruns import ANALYSIS, SWEEP, edit


def test_different_losses_are_compared_by_a_validation_score(project):
    edit(project, "train_config.learning_rate: [0.01, 0.001]", "dataset_config.output_type: [psa, msa]")
    loss = {"populate_cache": 3, "train_point": 1, "evaluate_point": 1, **ANALYSIS}
    assert project.planned(*SWEEP, "set=test_config.validation_metric=loss") == loss
    assert project.planned(*SWEEP) == {**loss, "evaluate_validation": 2}
    done = project.run(*SWEEP)
    assert "differ in dataset_config.output_type, so their losses do not compare" in done.stderr
    folder = project.folder / "results/sweeps/tiny_dpcl"
    points, summary = (pd.read_csv(folder / name).set_index("point") for name in ("points.csv", "summary.csv"))
    assert set(points["validation_metric"]) == {"SI-SDR"}
    for point, row in points.iterrows():
        scores = pd.read_parquet(
            project.path(f"results/artifacts/{point}/validations/{row['validation']}/scores.parquet")
        )
        assert set(scores["split"]) == {"val"}
        assert abs(scores["SI-SDR"].mean() - row["validation_score"]) < 1e-4
        assert abs(summary.loc[point, "validation_score"] - row["validation_score"]) < 1e-4
    assert summary["best"].idxmax() == points["validation_score"].idxmax()
    assert not list(project.folder.glob("results/artifacts/*/validations/*/estimates"))
    assert project.planned(*SWEEP) == {}
    next(project.folder.glob("results/artifacts/*/validations/*/scores.parquet")).unlink()
    assert project.planned(*SWEEP) == {"evaluate_validation": 1, **ANALYSIS}
