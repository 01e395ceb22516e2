"""From a recipe to mixtures.

In: config/datasets/<dataset>.yml. Out: DATA/<source>/{fetched,organized_*,resampled_*}/manifest.json and
DATA/<dataset>/<split>/manifest.json, each beside its audio. Large sources and datasets are resampled and mixed in shards,
one job each; resample_source and mix_dataset then join their records.
"""


rule run_script:
    output:
        manifest=update(layout.source_manifest(DATA, "{source}", "script")),
    log:
        "logs/run_script/{source}.log",
    benchmark:
        "results/benchmarks/run_script/{source}.tsv"
    group:
        "source"
    conda:
        ENVIRONMENT
    threads: threads_of("run_script")
    resources:
        **resources_of("run_script"),
    params:
        spec=lambda wildcards: WORKFLOW.sources[wildcards.source].spec,
    message:
        "Running the script of {wildcards.source}"
    script:
        "../scripts/run_script.py"


rule fetch_source:
    input:
        script=script_manifest,
    output:
        manifest=update(layout.source_manifest(DATA, "{source}", "fetched")),
    log:
        "logs/fetch_source/{source}.log",
    benchmark:
        "results/benchmarks/fetch_source/{source}.tsv"
    group:
        "source"
    conda:
        ENVIRONMENT
    threads: threads_of("fetch_source")
    resources:
        **resources_of("fetch_source"),
    params:
        spec=lambda wildcards: WORKFLOW.sources[wildcards.source].spec,
    message:
        "Fetching the source {wildcards.source}"
    script:
        "../scripts/fetch_source.py"


rule organize_source:
    input:
        fetched=layout.source_manifest(DATA, "{source}", "fetched"),
    output:
        manifest=update(layout.source_manifest(DATA, "{source}", "{organized}")),
    log:
        "logs/organize_source/{source}/{organized}.log",
    benchmark:
        "results/benchmarks/organize_source/{source}/{organized}.tsv"
    group:
        "source"
    conda:
        ENVIRONMENT
    threads: threads_of("organize_source")
    resources:
        **resources_of("organize_source"),
    params:
        spec=lambda wildcards: WORKFLOW.organized[wildcards.source, wildcards.organized].spec,
    message:
        "Organizing {wildcards.source} by class"
    script:
        "../scripts/organize_source.py"


rule resample_shard:
    input:
        organized=organized_manifest,
    output:
        # a record for this clone; the shard itself is in DATA, where other clones find it
        shard=temp("results/shards/{source}/{resampled}/{shard}.json"),
    log:
        "logs/resample_shard/{source}/{resampled}/{shard}.log",
    benchmark:
        "results/benchmarks/resample_shard/{source}/{resampled}/{shard}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of("resample_source")
    resources:
        **resources_of("resample_source"),
    params:
        spec=lambda wildcards: WORKFLOW.resampled[wildcards.source, wildcards.resampled][1].spec,
        part=lambda wildcards: (int(wildcards.shard), WORKFLOW.shards[wildcards.source, wildcards.resampled]),
    message:
        "Resampling {wildcards.source}, shard {wildcards.shard}"
    script:
        "../scripts/resample_shard.py"


rule resample_source:
    input:
        organized=organized_manifest,
        shards=lambda wildcards: shard_records(
            f"{wildcards.source}/{wildcards.resampled}",
            WORKFLOW.shards[wildcards.source, wildcards.resampled],
        ),
    output:
        manifest=update(layout.source_manifest(DATA, "{source}", "{resampled}")),
    log:
        "logs/resample_source/{source}/{resampled}.log",
    benchmark:
        "results/benchmarks/resample_source/{source}/{resampled}.tsv"
    group:
        "source"
    conda:
        ENVIRONMENT
    threads: threads_of("resample_source")
    resources:
        **resources_of("resample_source"),
    params:
        spec=lambda wildcards: WORKFLOW.resampled[wildcards.source, wildcards.resampled][1].spec,
    message:
        "Resampling {wildcards.source}"
    script:
        "../scripts/resample_source.py"


rule mix_shard:
    input:
        resampled=resampled_manifest,
    output:
        shard=temp("results/shards/{dataset}/{split}/{shard}.json"),
    log:
        "logs/mix_shard/{dataset}/{split}/{shard}.log",
    benchmark:
        "results/benchmarks/mix_shard/{dataset}/{split}/{shard}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of("mix_dataset")
    resources:
        **resources_of("mix_dataset"),
    params:
        spec=lambda wildcards: WORKFLOW.mixtures[wildcards.dataset, wildcards.split].spec,
        mixtures=lambda wildcards: WORKFLOW.mixtures_of_shard(wildcards.dataset, wildcards.split, int(wildcards.shard)),
    message:
        "Mixing {wildcards.dataset}, {wildcards.split}, shard {wildcards.shard}"
    script:
        "../scripts/mix_shard.py"


rule mix_dataset:
    input:
        resampled=resampled_manifest,
        shards=lambda wildcards: shard_records(
            f"{wildcards.dataset}/{wildcards.split}",
            WORKFLOW.shards[wildcards.dataset, wildcards.split],
        ),
    output:
        manifest=update(layout.split_manifest(DATA, "{dataset}", "{split}")),
    log:
        "logs/mix_dataset/{dataset}/{split}.log",
    benchmark:
        "results/benchmarks/mix_dataset/{dataset}/{split}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of("mix_dataset")
    resources:
        **resources_of("mix_dataset"),
    params:
        spec=lambda wildcards: WORKFLOW.mixtures[wildcards.dataset, wildcards.split].spec,
    message:
        "Mixing {wildcards.dataset}, {wildcards.split}"
    script:
        "../scripts/mix_dataset.py"
