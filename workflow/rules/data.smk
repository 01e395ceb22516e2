"""From a recipe to mixtures.

In: config/datasets/<dataset>.yml. Out: DATA/<source>/{fetched,organized_*,resampled_*}/manifest.json and
DATA/<dataset>/<split>/manifest.json, each beside the audio that it lists.
"""


rule fetch_source:
    output:
        manifest=update(f"{DATA}/{{source}}/fetched/manifest.json"),
    log:
        "logs/fetch_source/{source}.log",
    benchmark:
        "results/benchmarks/fetch_source/{source}.tsv"
    threads: asked("fetch_source", "threads", 2)
    resources:
        mem_mb=asked("fetch_source", "mem_mb", 2000),
        runtime=asked("fetch_source", "runtime", 60),
    params:
        spec=lambda wildcards: WORK.sources[wildcards.source].spec,
    message:
        "Fetching the source {wildcards.source}"
    script:
        "../scripts/fetch_source.py"


rule organize_source:
    input:
        fetched=f"{DATA}/{{source}}/fetched/manifest.json",
    output:
        manifest=update(f"{DATA}/{{source}}/{{organized}}/manifest.json"),
    log:
        "logs/organize_source/{source}/{organized}.log",
    benchmark:
        "results/benchmarks/organize_source/{source}/{organized}.tsv"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        spec=lambda wildcards: WORK.organized[wildcards.source, wildcards.organized].spec,
    message:
        "Organizing {wildcards.source} by class"
    script:
        "../scripts/organize_source.py"


rule resample_source:
    input:
        organized=lambda wildcards: "{}/{}/{}/manifest.json".format(
            DATA, wildcards.source, WORK.resampled[wildcards.source, wildcards.resampled][0]
        ),
    output:
        manifest=update(f"{DATA}/{{source}}/{{resampled}}/manifest.json"),
    log:
        "logs/resample_source/{source}/{resampled}.log",
    benchmark:
        "results/benchmarks/resample_source/{source}/{resampled}.tsv"
    threads: asked("resample_source", "threads", 2)
    resources:
        mem_mb=asked("resample_source", "mem_mb", 2000),
        runtime=asked("resample_source", "runtime", 60),
    params:
        spec=lambda wildcards: WORK.resampled[wildcards.source, wildcards.resampled][1].spec,
    message:
        "Resampling {wildcards.source}"
    script:
        "../scripts/resample_source.py"


rule mix_dataset:
    input:
        resampled=lambda wildcards: "{}/{}/{}/manifest.json".format(
            DATA, WORK.datasets[wildcards.dataset].source, WORK.datasets[wildcards.dataset].resampled
        ),
    output:
        manifest=update(f"{DATA}/{{dataset}}/{{split}}/manifest.json"),
    log:
        "logs/mix_dataset/{dataset}/{split}.log",
    benchmark:
        "results/benchmarks/mix_dataset/{dataset}/{split}.tsv"
    threads: asked("mix_dataset", "threads", 2)
    resources:
        mem_mb=asked("mix_dataset", "mem_mb", 2000),
        runtime=asked("mix_dataset", "runtime", 240),
    params:
        spec=lambda wildcards: WORK.mixtures[wildcards.dataset, wildcards.split].spec,
    message:
        "Mixing {wildcards.dataset}, {wildcards.split}"
    script:
        "../scripts/mix_dataset.py"
