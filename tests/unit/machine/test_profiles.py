"""Profiles: keys known to Snakemake and its plugins, and resources by rule."""

import re
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser

from separation.errors import UserError
from separation.experiment import schema
from separation.experiment.config import load_settings
from separation.files.yaml_reader import read_yaml

ROOT = Path(__file__).resolve().parents[3]
PROFILES = sorted(path.parent.name for path in ROOT.glob("profiles/*/config.yaml"))
NOT_RUN = {"kubernetes", "lsf", "sge"}
# options of plugins that are not in the lock, as `snakemake --help` lists them if they are installed
PLUGINS = {
    # snakemake-executor-plugin-kubernetes 0.5.1
    "kubernetes": {
        *("kubernetes-cpu-scalar", "kubernetes-namespace", "kubernetes-omit-job-cleanup", "kubernetes-privileged"),
        *("kubernetes-persistent-volumes", "kubernetes-service-account-name"),
    },
    # snakemake-executor-plugin-cluster-generic 1.0.9
    "sge": {
        *("cluster-generic-cancel-cmd", "cluster-generic-cancel-nargs", "cluster-generic-sidecar-cmd"),
        *("cluster-generic-status-cmd", "cluster-generic-submit-cmd"),
    },
}


@pytest.fixture(scope="module")
def options():
    """All options of Snakemake and the plugins of the lock."""
    return {name for action in get_argument_parser()._actions for name in action.option_strings}


def content(profile):
    return yaml.safe_load((ROOT / "profiles" / profile / "config.yaml").read_text())


def rules():
    """Names of the rules that do work; the tracker rules count as one."""
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    return {*re.findall(r"(?m)^rule (\w+):", text), "sync_tracker"}


def test_all_profiles_exist():
    assert {"default", "local", "local-gpu", "slurm"} | NOT_RUN == set(PROFILES)


@pytest.mark.parametrize("profile", PROFILES)
def test_snakemake_knows_every_key_of_a_profile(profile, options):
    known = options | {f"--{name}" for name in PLUGINS.get(profile, ())}
    assert {f"--{key}" for key in content(profile)} <= known


@pytest.mark.parametrize("profile", sorted({*PROFILES} - {"default"}))
def test_no_profile_repeats_a_key_of_the_default(profile):
    # the default's would win
    assert not content(profile).keys() & content("default").keys()


def test_profiles_that_are_tested_are_found_by_name_and_the_others_by_path():
    links = {path.name for path in ROOT.iterdir() if path.is_symlink() and (path / "config.yaml").is_file()}
    assert links == set(PROFILES) - {"default"} - NOT_RUN


@pytest.mark.parametrize("profile", sorted({*PROFILES} - {"default", "local"}))
def test_config_files_of_profiles_are_valid(profile):
    (file,) = content(profile)["configfile"]
    schema.check(read_yaml(ROOT / file), "config")


@pytest.mark.parametrize("profile", PROFILES)
def test_untested_profiles_are_marked(profile):
    first = (ROOT / "profiles" / profile / "config.yaml").read_text().splitlines()[0]
    assert first.startswith("# NOT RUN") == (profile in NOT_RUN)


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_name_existing_rules(profile):
    assert set(content(profile).get("set-resources", {})) <= rules()


def test_every_rule_has_default_resources():
    shards = {"resample_shard", "mix_shard"}
    defaults = load_settings({}, {}).resources
    assert set(defaults) == rules() - shards
    assert all(set(resources) == {"threads", "mem_mb", "runtime"} for resources in defaults.values())


def test_changing_one_resource_keeps_the_others():
    settings = load_settings({"resources": {"train_point": {"mem_mb": 9000}}}, {})
    assert settings.resources["train_point"] == {"threads": 1, "mem_mb": 9000, "runtime": 1440}


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"train_points": {"mem_mb": 1}}, "resources.train_points: unknown key; did you mean 'train_point'?"),
        ({"train_point": {"memory": 1}}, "resources.train_point.memory: unknown key"),
        ({"train_point": {"mem_mb": "8GB"}}, "resources.train_point.mem_mb: expected a whole number, found '8GB'"),
        ({"train_point": {"runtime": 0}}, "resources.train_point.runtime: expected at least 1, found 0"),
    ],
)
def test_mistakes_in_resources_are_reported_in_one_line(resources, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load_settings({"resources": resources}, {})
