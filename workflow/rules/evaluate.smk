"""From trained points and test data to scores.

In: checkpoints and the test split's mixtures. Out: ARTIFACTS/<point>/evaluations/<evaluation>/{scores.parquet,config.yml} and
ARTIFACTS/baselines/<dataset and stft>/scores.parquet, which all points share.
"""


rule evaluate_point:
    input:
        # config.yml of the point is read too, but every declared file slows down planning
        checkpoint=POINT.best_checkpoint,
        data=lambda wildcards: split_files([WORKFLOW.evaluations[wildcards.point, wildcards.evaluation][1]]),
    output:
        scores=update(EVALUATION.scores),
        config=update(EVALUATION.config),
    log:
        "logs/evaluate_point/{point}/{evaluation}.log",
    benchmark:
        "results/benchmarks/evaluate_point/{point}/{evaluation}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of("evaluate_point")
    resources:
        **resources_of("evaluate_point"),
        gpu=1 if GPUS else 0,
    params:
        spec=lambda wildcards: WORKFLOW.evaluations[wildcards.point, wildcards.evaluation][0].spec,
    message:
        message_of_points("Evaluating {wildcards.point}")
    script:
        "../scripts/evaluate_point.py"


rule evaluate_baselines:
    input:
        train=lambda wildcards: split_files([WORKFLOW.baselines[wildcards.baselines][1]]),
        test=lambda wildcards: split_files([WORKFLOW.baselines[wildcards.baselines][2]]),
    output:
        scores=update(layout.baseline_scores(ARTIFACTS, "{baselines}")),
    log:
        "logs/evaluate_baselines/{baselines}.log",
    benchmark:
        "results/benchmarks/evaluate_baselines/{baselines}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of("evaluate_baselines")
    resources:
        **resources_of("evaluate_baselines"),
    params:
        spec=lambda wildcards: WORKFLOW.baselines[wildcards.baselines][0].spec,
    message:
        "Evaluating mixture, fixed mask and oracles on {wildcards.baselines}"
    script:
        "../scripts/evaluate_baselines.py"
