"""From trained points and test data to scores.

In: checkpoints and the test split's mixtures. Out: ARTIFACTS/<point>/evaluations/<evaluation>/{scores.parquet,config.yml} and
ARTIFACTS/baselines/<dataset and stft>/scores.parquet, which all points share. Where points are chosen by a score on the
validation split: ARTIFACTS/<point>/validations/<evaluation>/{scores.parquet,config.yml}. For other programs'
estimates: ARTIFACTS/systems/<system>/scores.parquet.
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


# the same work on the validation split, by one metric and without audio
rule evaluate_validation:
    input:
        checkpoint=POINT.best_checkpoint,
        data=lambda wildcards: split_files([WORKFLOW.validations[wildcards.point, wildcards.evaluation][1]]),
    output:
        scores=update(VALIDATION.scores),
        config=update(VALIDATION.config),
    log:
        "logs/evaluate_validation/{point}/{evaluation}.log",
    benchmark:
        "results/benchmarks/evaluate_validation/{point}/{evaluation}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of("evaluate_validation")
    resources:
        **resources_of("evaluate_validation"),
        gpu=1 if GPUS else 0,
    params:
        spec=lambda wildcards: WORKFLOW.validations[wildcards.point, wildcards.evaluation][0].spec,
    message:
        message_of_points("Scoring {wildcards.point} on the validation split")
    script:
        "../scripts/evaluate_validation.py"


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


rule score_system:
    input:
        data=lambda wildcards: split_files([WORKFLOW.systems[wildcards.system][1]]),
    output:
        scores=update(layout.system_scores(ARTIFACTS, "{system}")),
    log:
        "logs/score_system/{system}.log",
    benchmark:
        "results/benchmarks/score_system/{system}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of("score_system")
    resources:
        **resources_of("score_system"),
    params:
        spec=lambda wildcards: WORKFLOW.systems[wildcards.system][0].spec,
    message:
        "Scoring the estimates of {wildcards.system}"
    script:
        "../scripts/score_system.py"
