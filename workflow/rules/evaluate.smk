"""From a trained point, and from the data alone, to scores.

In: checkpoints and the test split's mixtures. Out: ARTIFACTS/<point>/evaluations/<evaluation>/{scores.parquet,config.yml} and
ARTIFACTS/baselines/<dataset and stft>/scores.parquet, which all points share.
"""


rule evaluate_point:
    input:
        # the point's config.yml lies beside it, and every file asked for makes planning slower
        checkpoint=f"{ARTIFACTS}/{{point}}/checkpoints/best.model.pth",
        data=lambda wildcards: split_files([WORK.evaluations[wildcards.point, wildcards.evaluation][1]]),
    output:
        scores=update(f"{ARTIFACTS}/{{point}}/evaluations/{{evaluation}}/scores.parquet"),
        config=update(f"{ARTIFACTS}/{{point}}/evaluations/{{evaluation}}/config.yml"),
    log:
        "logs/evaluate_point/{point}/{evaluation}.log",
    benchmark:
        "results/benchmarks/evaluate_point/{point}/{evaluation}.tsv"
    conda:
        ENVIRONMENT
    threads: asked("evaluate_point", "threads")
    resources:
        mem_mb=memory("evaluate_point"),
        runtime=asked("evaluate_point", "runtime"),
        cpus_per_task=asked("evaluate_point", "threads"),
        gpu=1 if GPUS else 0,
    params:
        spec=lambda wildcards: WORK.evaluations[wildcards.point, wildcards.evaluation][0].spec,
    message:
        said_of_points("Evaluating {wildcards.point}")
    script:
        "../scripts/evaluate_point.py"


rule evaluate_baselines:
    input:
        train=lambda wildcards: split_files([WORK.baselines[wildcards.baselines][1]]),
        test=lambda wildcards: split_files([WORK.baselines[wildcards.baselines][2]]),
    output:
        scores=update(f"{ARTIFACTS}/baselines/{{baselines}}/scores.parquet"),
    log:
        "logs/evaluate_baselines/{baselines}.log",
    benchmark:
        "results/benchmarks/evaluate_baselines/{baselines}.tsv"
    conda:
        ENVIRONMENT
    threads: asked("evaluate_baselines", "threads")
    resources:
        mem_mb=memory("evaluate_baselines"),
        runtime=asked("evaluate_baselines", "runtime"),
        cpus_per_task=asked("evaluate_baselines", "threads"),
    params:
        spec=lambda wildcards: WORK.baselines[wildcards.baselines][0].spec,
    message:
        "Evaluating mixture, fixed mask and oracles on {wildcards.baselines}"
    script:
        "../scripts/evaluate_baselines.py"
