"""From mixtures to training features.

In: DATA/<dataset>/<split>/manifest.json. Out: CACHE/<cache>/<split>.json, the manifest of <split>.zarr. The arrays
may be pruned while the manifest stays: a job that needs them fills the cache again.
"""


rule populate_cache:
    input:
        data=lambda wildcards: split_files([WORKFLOW.caches[wildcards.cache, wildcards.split][1]]),
    output:
        manifest=update(layout.cache_manifest(CACHE, "{cache}", "{split}")),
    log:
        "logs/populate_cache/{cache}/{split}.log",
    benchmark:
        "results/benchmarks/populate_cache/{cache}/{split}.tsv"
    conda:
        ENVIRONMENT
    threads: cache_workers
    resources:
        **resources_of("populate_cache", threads=cache_workers),
    params:
        spec=lambda wildcards: WORKFLOW.caches[wildcards.cache, wildcards.split][0].spec,
    message:
        "Filling the cache {wildcards.cache}, {wildcards.split}"
    script:
        "../scripts/populate_cache.py"
