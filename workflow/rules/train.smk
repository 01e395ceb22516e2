"""From features to a trained point.

In: the caches of the training and validation splits, or the mixtures where the experiment has no cache.
Out: ARTIFACTS/<point>/{config.yml,history.csv,checkpoints/}; TensorBoard events and the state to resume from beside them.
"""


rule train_point:
    input:
        training_inputs,
    output:
        config=update(f"{ARTIFACTS}/{{point}}/config.yml"),
        history=update(f"{ARTIFACTS}/{{point}}/history.csv"),
        best=update(f"{ARTIFACTS}/{{point}}/checkpoints/best.model.pth"),
        latest=update(f"{ARTIFACTS}/{{point}}/checkpoints/latest.model.pth"),
    log:
        "logs/train_point/{point}.log",
    benchmark:
        "results/benchmarks/train_point/{point}.tsv"
    conda:
        ENVIRONMENT
    threads: training_threads
    resources:
        mem_mb=memory("train_point"),
        runtime=asked("train_point", "runtime"),
        cpus_per_task=training_threads,
        # all processes of a training on one machine
        nodes=1,
        gpu=processes_of if GPUS else 0,
    params:
        spec=lambda wildcards: WORK.trainings[wildcards.point].spec,
    message:
        said_of_points("Training {wildcards.point}")
    script:
        "../scripts/train_point.py"
