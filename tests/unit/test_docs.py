"""README, CHANGELOG and docs: links work, lines and tables are readable, named files exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "workflow" / "scripts" / "separation"
ROOMS = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
# their tables are generated
GENERATED = {"metrics.md", "reference.md"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose_of(page):
    """The numbered lines of a page outside of fenced blocks."""
    fenced = False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors_of(page):
    """The anchors of a page's headings, as on GitHub and GitLab."""
    titles = [line.lstrip("#").strip() for _, line in prose_of(page) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_links_and_anchors_have_targets(page):
    broken = []
    for number, line in prose_of(page):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            path, _, anchor = target.partition("#")
            file = (page.parent / path) if path else page
            if not re.match(r"https?:", target) and not (file.exists() and (not anchor or anchor in anchors_of(file))):
                broken.append(f"{page.name}:{number}: {target}")
    assert broken == []


@pages
def test_lines_have_at_most_100_characters(page):
    # a link's address cannot be wrapped
    long = [number for number, line in prose_of(page) if len(re.sub(r"\]\([^)]*\)", "]", line)) > 100]
    assert page.name in GENERATED or long == []


@pages
def test_tables_have_at_most_four_columns(page):
    wide = [number for number, line in prose_of(page) if line.startswith("|-") and line.count("|") > 5]
    assert page.name in GENERATED or wide == []


@pages
def test_a_page_has_one_title(page):
    assert len([line for _, line in prose_of(page) if line.startswith("# ")]) == 1


def test_every_page_is_listed_in_the_readme():
    readme = PAGES[0].read_text()
    assert [page.name for page in PAGES[2:] if f"](docs/{page.name})" not in readme] == []


@pages
def test_files_and_modules_in_a_page_exist(page):
    text = page.read_text()
    files = re.findall(
        r"\b((?:workflow|tests/(?:unit|workflow|services)|benchmarks|envs|profiles)/[\w/.-]+\.\w+)", text
    )
    # files of a room (`files/layout.py`) and modules (separation.analysis.statistics)
    inside = [name for name in re.findall(r"`(\w+/[\w/]+\.py)`", text) if name.split("/")[0] in ROOMS]
    modules = [name for name in re.findall(r"\bseparation\.(\w+\.\w+)", text) if name.split(".")[0] in ROOMS]
    paths = [ROOT / name for name in files]
    paths += [LIBRARY / name for name in inside] + [LIBRARY / f"{name.replace('.', '/')}.py" for name in modules]
    assert [str(path.relative_to(ROOT)) for path in paths if not path.exists()] == []


@pages
def test_make_commands_in_a_page_exist(page):
    targets = re.findall(r"^([a-z_-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"(?:^    |`)make ([a-z_-]+)", page.read_text(), flags=re.MULTILINE)
    old = {"pipeline", "run"} if page.name == "migration.md" else set()
    assert set(named) - set(targets) - old == set()


def test_the_page_about_the_code_lists_every_room():
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "code.md").read_text(), flags=re.MULTILINE)
    assert set(listed) == ROOMS
