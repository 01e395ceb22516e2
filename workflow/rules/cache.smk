"""From mixtures to training features.

In: DATA/<dataset>/<split>/manifest.json. Out: CACHE/<cache>/<split>.json, the manifest of <split>.zarr beside it. The
arrays may be pruned while the manifest stays: whoever needs them fills them again.
"""


rule populate_cache:
    input:
        data=lambda wildcards: split_files([WORK.caches[wildcards.cache, wildcards.split][1]]),
    output:
        manifest=update(f"{CACHE}/{{cache}}/{{split}}.json"),
    log:
        "logs/populate_cache/{cache}/{split}.log",
    benchmark:
        "results/benchmarks/populate_cache/{cache}/{split}.tsv"
    conda:
        ENVIRONMENT
    threads: cache_workers
    resources:
        mem_mb=memory("populate_cache"),
        runtime=asked("populate_cache", "runtime"),
        cpus_per_task=cache_workers,
    params:
        spec=lambda wildcards: WORK.caches[wildcards.cache, wildcards.split][0].spec,
    message:
        "Filling the cache {wildcards.cache}, {wildcards.split}"
    script:
        "../scripts/populate_cache.py"
