"""Compiled functions are kept with the environment, where all clones find them."""

import sys
import types

import pytest

from separation.machine import jit_cache
from separation.machine.jit import jit

MODULE = "def double(value):\n    return 2 * value\n"


@pytest.fixture
def compiled_in(tmp_path, monkeypatch):
    """Compiles the function of a module as a job in that clone does; the number of cache hits and misses."""
    monkeypatch.setattr(jit_cache, "FOLDER", tmp_path / "environment" / "cache")

    def compile_in(clone, text=MODULE):
        path = tmp_path / clone / "loops.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        module = types.ModuleType("loops")
        monkeypatch.setitem(sys.modules, "loops", module)
        exec(compile(text, str(path), "exec"), vars(module))
        function = jit_cache.compile_cached(module.double)
        assert function(2) == (4 if text == MODULE else 6)
        return sum(function.stats.cache_hits.values()), sum(function.stats.cache_misses.values())

    return compile_in


def test_another_clone_finds_what_one_has_compiled(compiled_in, tmp_path):
    assert compiled_in("clone") == (0, 1)
    assert compiled_in("clone") == (1, 0)
    assert compiled_in("another") == (1, 0)
    assert [*tmp_path.glob("*/__pycache__/*.nbc")] == []


def test_changed_code_is_compiled_again_and_does_not_displace_the_old(compiled_in):
    assert compiled_in("clone") == (0, 1)
    assert compiled_in("another", MODULE.replace("2", "3")) == (0, 1)
    assert compiled_in("clone") == (1, 0)


def test_beside_an_environment_that_is_read_only_the_clone_keeps_it(compiled_in, tmp_path):
    (tmp_path / "environment").touch()  # no folder can be made below a file, not even by root
    assert compiled_in("clone") == (0, 1)
    assert compiled_in("clone") == (1, 0)
    assert [*tmp_path.glob("clone/__pycache__/*.nbc")]


def test_without_any_writable_folder_each_process_compiles(compiled_in, tmp_path, monkeypatch):
    monkeypatch.setattr(jit_cache, "_LOCATORS", (f"{jit_cache.__name__}.EnvironmentLocator",))
    (tmp_path / "environment").touch()
    assert compiled_in("clone") == (0, 1)
    assert compiled_in("clone") == (0, 1)


@pytest.mark.usefixtures("compiled_in")
def test_a_compiled_function_keeps_its_name_and_result():
    @jit
    def half(value):
        """Half."""
        return value / 2

    assert (half(3.0), half.__name__, half.__doc__) == (1.5, "half", "Half.")
