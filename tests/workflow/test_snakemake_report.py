"""`snakemake --report`: a sweep's report and tables in Snakemake's page, in a browser if one is installed."""

import pytest

from browser import CHROMIUM, Browser
from projects import TINY

CLICK = """(() => {
    const fitting = [...document.querySelectorAll("a, td, li, span")].filter((at) => at.innerText?.trim() === WORDS);
    fitting.at(-1)?.click();
    return fitting.length;
})()"""


@pytest.fixture(scope="module")
def report(finished):
    path = finished.folder / "snakemake_report.html"
    finished.run("--report", path.name, "--config", f"sweep={TINY}")
    return path


def test_the_page_is_one_file_with_the_sweeps_report_and_tables(report):
    text = report.read_text(encoding="utf-8")
    for words in ("results/sweeps/tiny_dpcl/report.html", "Paired comparisons", "Points and baselines", "side by side"):
        assert words in text
    assert "The best setting or network is chosen on validation and reported on test." in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found")
def test_the_sweeps_report_opens_in_the_page(report, tmp_path):
    with Browser(tmp_path) as browser:
        browser.look(1280)
        browser.load(report)
        for words in ("Results", "Sweeps"):
            browser.wait_for(CLICK.replace("WORDS", repr(words)))
        browser.wait_for("document.querySelectorAll('a[iconname=eye]').length > 0")
        browser.ask("[...document.querySelectorAll('a[iconname=eye]')].at(-1).click()")
        browser.wait_for("document.querySelector('iframe')?.src.startsWith('data:text/html')")
        assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []
