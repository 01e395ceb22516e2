"""From features to a trained point.

In: the caches of the training and validation splits, or the mixtures if the experiment has no cache.
Out: ARTIFACTS/<point>/{config.yml,history.csv,checkpoints/}; TensorBoard events and the state to resume from beside them.
"""


rule train_point:
    input:
        training_inputs,
    output:
        config=update(POINT.config),
        history=update(POINT.history),
        best=update(POINT.best_checkpoint),
        latest=update(POINT.latest_checkpoint),
    log:
        "logs/train_point/{point}.log",
    benchmark:
        "results/benchmarks/train_point/{point}.tsv"
    conda:
        ENVIRONMENT
    threads: training_threads
    resources:
        **resources_of("train_point", threads=training_threads),
        # all processes of a training run on one machine
        nodes=1,
        gpu=processes_of if GPUS else 0,
    params:
        spec=lambda wildcards: WORKFLOW.trainings[wildcards.point].spec,
    message:
        message_of_points("Training {wildcards.point}")
    script:
        "../scripts/train_point.py"
