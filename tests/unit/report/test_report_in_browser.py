"""The report in a real browser, if one is installed."""

import json

import pytest
from test_render import PROVENANCE, copy_of, prepare, render

from browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found")
SHOWN = (
    """[...document.querySelectorAll("tr[data-point]:not([hidden]) .rank")].map((cell) => parseInt(cell.textContent))"""
)
# Description of the focused element
FOCUS = """(() => {
    const at = document.activeElement, text = at.innerText || at.getAttribute("aria-label") || at.id;
    return `${at.tagName.toLowerCase()} ${text.trim()}`;
})()"""
CONTRAST = """(() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const linear = (c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
        const [r, g, b] = numbers(colour).map((c) => linear(c / 255));
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = (at) => {
        for (; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor, alpha = numbers(colour)[3] ?? 1;
            if (alpha > .5) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const worst = [];
    const words = "p, h1, h2, h3, th, td, dt, dd, li, a, label, button, summary, figcaption";
    for (const at of document.querySelectorAll(words)) {
        if (!at.innerText?.trim() || !at.offsetParent) continue;
        const [one, other] = [light(getComputedStyle(at).color), light(behind(at))];
        const contrast = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
        if (contrast < 4.5) worst.push(`${at.tagName} ${at.innerText.slice(0, 30)} ${contrast.toFixed(1)}`);
    }
    return worst;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def report(drawn_sweep, tmp_path_factory):
    sweep = copy_of(drawn_sweep, tmp_path_factory.mktemp("sweep") / "copy")
    render(sweep, PROVENANCE)
    return sweep.files.report


@pytest.fixture
def page(browser, report):
    """The report in a desktop window."""
    browser.look(1280)
    browser.open(report)
    return browser


def drawn(page):
    page.wait_for("document.documentElement.dataset.drawn")


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_any_width_in_light_and_dark(browser, report, width, dark):
    browser.look(width, dark=dark)
    browser.open(report)
    drawn(browser)
    figures, charts = browser.ask('["figure.chart", ".plot svg"].map((name) => document.querySelectorAll(name).length)')
    assert charts == figures > 8
    assert browser.ask("document.documentElement.scrollWidth <= window.innerWidth")
    # Nothing exceeds the window, except in scrollable regions
    assert (
        browser.ask("""[...document.querySelectorAll("main *")].filter((at) => !at.closest(".scroll, pre") &&
        at.getBoundingClientRect().right > window.innerWidth + 1).map((at) => at.outerHTML.slice(0, 80))""")
        == []
    )
    assert browser.ask(CONTRAST) == []
    assert browser.complaints == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data", "blob"}
    assert len([url for url in browser.requests if url.startswith("file:")]) == 1


def test_dark_mode_applies_to_page_and_charts(browser, report):
    light = []
    for dark in (False, True):
        browser.look(1280, dark=dark)
        browser.open(report)
        drawn(browser)
        light.append(browser.ask("""["body", ".plot svg"].map((name) => {
            const at = document.querySelector(name), own = getComputedStyle(at).backgroundColor;
            return Math.max(...own.match(/\\d+/g).slice(0, 3).map(Number));
        })"""))  # fmt: skip
    assert min(light[0]) > 240
    assert max(light[1]) < 40


def test_clicks_on_a_heading_sort_and_reverse(page):
    values = """[...document.querySelectorAll("tr[data-point] td.main")].map((cell) => Number(cell.dataset.sort))"""
    page.ask('document.querySelector("th.main .sort").click()')
    falling = page.ask(values)
    assert falling == sorted(falling, reverse=True)
    assert page.ask('document.querySelector("th.main").getAttribute("aria-sort")') == "descending"
    page.ask('document.querySelector("th.main .sort").click()')
    assert page.ask(values) == falling[::-1]
    # Numbers sort by size, not as words: 0.0001 before 0.001 before 0.01
    page.ask("document.querySelector(\"th[title='train_config.learning_rate'] .sort\").click()")
    rates = page.ask("""[...document.querySelectorAll("tr[data-point]")].map((row) => Number(row.dataset.key0))""")
    assert rates == sorted(rates)


def test_search_and_lists_filter_points(page):
    page.ask('document.getElementById("search").focus()')
    for letter in "random":
        page.press(letter)
    assert page.ask("document.getElementById('shown').textContent") == "4 of 8 points"
    page.ask("""(() => { const choice = document.querySelector("[data-filter=key0]");
        choice.value = "0.01"; choice.dispatchEvent(new Event("change")); })()""")
    assert page.ask(SHOWN) == [2]
    # A filter stays through sorting
    page.ask('document.querySelector("th.main .sort").click()')
    assert page.ask(SHOWN) == [2]


def test_everything_is_reachable_by_keyboard(page):
    reached = []
    for _ in range(60):
        page.press("Tab")
        reached.append(page.ask(FOCUS))
        outline = page.ask("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or reached[-1].startswith(("input", "select")), reached[-1]
        if reached[-1].startswith("button SI-SDRi"):
            break
    assert reached[0] == "a Skip to the verdict"
    assert {"input search", "input all-columns"} <= set(reached)
    assert sum(name.startswith("select") for name in reached) == 2
    before = page.ask(SHOWN)
    page.press("Enter")
    assert page.ask(SHOWN)[0] == 2 != before[0]
    page.ask('document.getElementById("all-columns").focus()')
    hidden = "getComputedStyle(document.querySelector('th.extra')).display"
    assert page.ask(hidden) == "none"
    page.press(" ")
    assert page.ask(hidden) == "table-cell"


def test_fields_have_labels_and_tables_have_headings(page):
    assert page.ask("""[...document.querySelectorAll("input, select")].filter((at) => !at.labels.length).length""") == 0
    assert page.ask("""[...document.querySelectorAll(".sort, .save")].every((at) => at.tagName === "BUTTON")""")
    assert page.ask("""[...document.querySelectorAll("table")].every((at) => at.querySelector("th[scope=col]"))""")
    assert page.ask("""[...document.querySelectorAll(".scroll")].every((at) => at.tabIndex === 0 &&
        (at.getAttribute("aria-label") || document.getElementById(at.getAttribute("aria-labelledby"))))""")


def test_clips_play_one_at_a_time(page):
    played = page.ask("""(async () => {
        const players = [...document.querySelectorAll("audio")], heard = [];
        for (const player of players) {
            player.playbackRate = 16;
            await player.play();
            await new Promise((done) => ["ended", "error"].forEach((name) => player.addEventListener(name, done)));
            heard.push([player.duration, player.error?.message, players.filter((other) => !other.paused).length]);
        }
        return heard;
    })()""")
    assert len(played) == 3 * 5
    assert all(found == [0.5, None, 0] for found in played)
    page.ask("""(async () => {
        const [one, other] = document.querySelectorAll("audio");
        one.playbackRate = other.playbackRate = 1;
        await one.play();
        await other.play();
    })()""")
    players = '[...document.querySelectorAll("audio")].slice(0, 2)'
    assert page.ask(f"{players}.map((player) => player.paused)") == [True, False]


def test_links_and_downloads_work(page):
    links = page.ask('[...document.querySelectorAll("a[href]")].map((link) => link.getAttribute("href"))')
    assert len(links) > 10
    for link in links:
        assert link.startswith(("#", "data:text/csv"))
        if link.startswith("#"):
            assert page.ask(f"document.getElementById({json.dumps(link[1:])}) !== null"), link
    page.ask("""document.querySelector("nav a[href='#made']").click()""")
    page.wait_for("document.getElementById('made').getBoundingClientRect().top < window.innerHeight")


def test_charts_are_saved_with_a_white_background_in_dark_mode(browser, report):
    browser.look(1280, dark=True)
    browser.open(report)
    saved = browser.ask("""(async () => {
        const blobs = [], links = [];
        URL.createObjectURL = (blob) => (blobs.push(blob), "blob:kept");
        HTMLAnchorElement.prototype.click = function () { links.push(this.download); };
        document.querySelector("#figure-validation_loss .save").click();
        while (!links.length) await new Promise((done) => requestAnimationFrame(done));
        return [links[0], await blobs[0].text()];
    })()""")
    assert saved[0] == "validation_loss.svg"
    assert saved[1].startswith("<svg")
    assert "#ffffff" in saved[1] or 'fill="white"' in saved[1]


@pytest.mark.parametrize(("num_points", "most_bytes"), [(40, 8e6), pytest.param(200, 12e6, marks=pytest.mark.slow)])
def test_large_reports_open_without_errors_and_stay_small(browser, tmp_path, num_points, most_bytes):
    swept = {
        "train_config.learning_rate": [0.1 / 2**n for n in range(num_points // 20)],
        "train_config.batch_size": [4, 8, 16, 32, 64],
    }
    swept["model_config.modules.stack.args.num_layers"] = [1, 2, 3, 4]
    sweep = prepare(tmp_path, swept, draw=True, num_items=12, num_songs=4, num_epochs=60, seconds=30)
    render(sweep)
    # Distributions are drawn from quantiles, which leaves room for the audio of 200 points
    assert sweep.files.report.stat().st_size < most_bytes
    browser.look(1280)
    browser.open(sweep.files.report)
    assert browser.ask("document.querySelectorAll('tr[data-point]').length") == num_points
    first = "document.querySelector('audio')"
    assert browser.ask(f"{first}.play().then(() => {first}.duration)") == 20
    drawn(browser)
    assert browser.complaints == []
