"""The results table of a sweep and its upload: gspread's own client against a fake Google server."""

import json
import re
import zipfile
from xml.etree import ElementTree

import pandas as pd
import pytest
import tenacity

from google_server import ADDRESS, KEY, GoogleServer
from separation.analysis.summarize import collect_scores
from separation.errors import UserError
from separation.publishing.google_sheets import upload_sheet
from separation.publishing.sheet_merge import as_typed
from separation.publishing.sheet_table import COUNT, NOTES, PointFacts, sheet_table, write_csv, write_workbook
from simulated_sweep import simulate_sweep

SWEPT = {"train_config.learning_rate": [0.1, 0.0002], "train_config.sample_strategy": ["sequential", "random"]}
TABLES = {}
# the worksheet `Template` of cookiecutter-nussl
TEMPLATE = [
    ["Experiment details (all metrics are reported with mean)", *[""] * 5, "Overall", "", "", "vocals"],
    ["Experiment key", "Notes", "Train dataset", "Validation dataset", "Test dataset", "#", *["SDR", "SIR", "SAR"] * 2],
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    sweep = simulate_sweep(tmp_path_factory.mktemp("sweep"), SWEPT, num_items=8)
    collect_scores(sweep.points, sweep.score_files, sweep.files)
    return sweep


def table_of(sweep, points=None, **changes):
    """The sweep's table, or its rows for the first `points` points."""
    key = tuple(sorted(changes.items()))
    if key not in TABLES:
        facts = {}
        for number, point in enumerate(sweep.points):
            given = {"notes": "a note", "train": "toy_music", "validation": "toy_music"} | changes
            facts[point["point"]] = PointFacts(link=f"https://www.comet.com/x/{number}", **given)
        TABLES[key] = sheet_table(sweep.files.points, sweep.files.scores, facts)
    table = TABLES[key]
    return table if points is None else type(table)(table.columns, table.rows[:points])


@pytest.fixture
def google(monkeypatch):
    server = GoogleServer()
    monkeypatch.setenv("GOOGLE_API_URL", server.url)
    yield server
    server.close()


@pytest.fixture
def waits(monkeypatch):
    """The waits between attempts, in seconds; no test really waits."""
    seconds = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def upload(google, tmp_path):
    credentials = google.credentials(tmp_path)

    def run(table, worksheet="music", spreadsheet="Results", **options):
        google.calls.clear()
        return upload_sheet(
            table, credentials=credentials, spreadsheet=spreadsheet, worksheet=worksheet, **{"patience": 5.0} | options
        )

    return run


def column(sheet, title, group=None):
    """The index of the column with a title, in a group if one is given."""
    names = sheet.table()
    groups, titles = names[0], names[1]
    found, current = [], ""
    for index, name in enumerate(titles):
        current = groups[index] if index < len(groups) and groups[index] else current
        if name == title and group in (None, current):
            found.append(index)
    return found[0]


# --- the table


def test_the_table_has_one_row_per_point_with_means_and_oracles(sweep):
    table = table_of(sweep)
    assert len(table.rows) == 4
    scores = pd.read_parquet(sweep.files.scores)
    for row, point in zip(table.rows, sweep.points, strict=True):
        own = scores[scores["point"] == point["point"]]
        shown = {f"{column.group}/{column.name}": cell for column, cell in row.items()}
        assert shown["Overall/SI-SDR"] == pytest.approx(own["SI-SDR"].mean(), abs=0.005)
        assert shown["vocals/SI-SIR"] == pytest.approx(own[own["source"] == "vocals"]["SI-SIR"].mean(), abs=0.005)
        oracle = scores[scores["point"] == "ideal_binary_mask"]["SI-SDR"].mean()
        assert shown["Oracles (SI-SDR)/ideal_binary_mask"] == pytest.approx(oracle, abs=0.005)
        assert shown["Swept settings/train_config.learning_rate"] == point["swept"]["train_config.learning_rate"]
        assert row[COUNT] == 8


def test_the_csv_file_has_the_same_table_and_the_links(sweep, tmp_path):
    write_csv(table_of(sweep), tmp_path / "sheet.csv")
    csv = pd.read_csv(tmp_path / "sheet.csv")
    assert list(csv["Experiment key"]) == [point["point"] for point in sweep.points]
    assert list(csv.columns[:7]) == [*TEMPLATE[1][:6], "Overall SI-SDR"]
    assert csv["Experiment link"][3] == "https://www.comet.com/x/3"
    assert csv["train_config.learning_rate"].tolist() == [0.1, 0.1, 0.0002, 0.0002]


def test_text_stays_text_in_the_workbook(sweep, tmp_path):
    write_workbook(table_of(sweep, notes="=1+1"), tmp_path / "sheet.xlsx")
    with zipfile.ZipFile(tmp_path / "sheet.xlsx") as book:
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
        strings = ["".join(node.itertext()) for node in ElementTree.fromstring(book.read("xl/sharedStrings.xml"))]
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    assert not list(sheet.iter(f"{space}f")), "no formula"
    assert len(list(sheet.iter(f"{space}row"))) == 2 + 4
    assert len(list(sheet.iter(f"{space}hyperlink"))) == 4
    assert {"=1+1", "Experiment key", sweep.points[0]["point"]} <= set(strings)


# --- uploads


def test_a_new_worksheet_takes_five_calls(sweep, google, upload):
    receipt = upload(table_of(sweep))
    sheet = google.sheets["music"]
    assert google.count() == 5 and receipt["added"] == 4 and google.tokens == 1
    assert [row[0] for row in sheet.table()[2:]] == [
        f'=HYPERLINK("https://www.comet.com/x/{number}","{point["point"]}")'
        for number, point in enumerate(sweep.points)
    ]
    assert sheet.table()[1][:6] == TEMPLATE[1][:6]
    assert sheet.table()[2][column(sheet, "SI-SDR", "Overall")] == table_of(sweep).rows[0][("Overall", "SI-SDR")]
    assert receipt["url"].endswith(f"{KEY}/edit#gid={sheet.id}")


def test_a_copy_of_the_template_keeps_its_columns_and_gets_the_missing_ones(sweep, google, upload):
    google.add("Template", TEMPLATE, rows=1000, columns=60)
    upload(table_of(sweep), template="Template")
    sheet = google.sheets["music"]
    assert google.count() == 5
    assert sheet.table()[0][:10] == TEMPLATE[0] and sheet.table()[1][:12] == TEMPLATE[1]
    row = table_of(sweep).rows[0]
    assert sheet.table()[2][6:9] == [row["Overall", name] for name in ("SI-SDR", "SI-SIR", "SI-SAR")]
    assert sheet.table()[2][9] == row["vocals", "SI-SDR"]
    assert sheet.table()[2][column(sheet, "SI-SDR", "accompaniment")] == row["accompaniment", "SI-SDR"]
    assert google.sheets["Template"].table() == TEMPLATE


def test_uploading_the_same_table_again_writes_nothing(sweep, google, upload):
    upload(table_of(sweep))
    before = google.sheets["music"].table()
    receipt = upload(table_of(sweep))
    assert [kind for kind, _ in google.calls] == ["search", "metadata", "read"]
    assert (receipt["added"], receipt["changed"]) == (0, 0) and google.sheets["music"].table() == before


def test_new_points_add_rows_and_changed_points_rewrite_only_changed_cells(sweep, google, upload):
    upload(table_of(sweep, 2))
    receipt = upload(table_of(sweep))
    assert (receipt["added"], receipt["changed"], google.count()) == (2, 0, 4)
    google.bodies.clear()
    receipt = upload(table_of(sweep, notes="another note"))
    assert (receipt["added"], receipt["changed"]) == (0, 4)
    (written,) = [json.loads(body.split(" ", 1)[1]) for body in google.bodies if "values:batchUpdate" in body]
    assert [part["range"] for part in written["data"]] == ["'music'!B3:B6"]
    assert len(google.sheets["music"].table()) == 2 + 4


def test_columns_added_by_hand_and_sorted_rows_stay_unchanged(sweep, google, upload):
    upload(table_of(sweep, 3))
    sheet = google.sheets["music"]
    rows = sheet.table()
    width = max(map(len, rows))
    # a user's column before the metrics and one at the end, and the rows in reverse
    edited = []
    for number, row in enumerate(rows[:2] + rows[:1:-1]):
        row = row + [""] * (width - len(row))
        mine = ["", "my opinion"][number] if number < 2 else f"opinion {number}"
        edited.append([*row[:6], mine, *row[6:], "rating" if number == 1 else number])
    sheet.cells = {(r, c): v for r, row in enumerate(edited, 1) for c, v in enumerate(row, 1) if v != ""}
    receipt = upload(table_of(sweep, notes="new"))
    after = sheet.table()
    assert (receipt["added"], receipt["changed"]) == (1, 3)
    assert [row[6] for row in after[1:5]] == ["my opinion", "opinion 2", "opinion 3", "opinion 4"]
    assert [row[-1] for row in after[1:5]] == ["rating", 2, 3, 4]
    assert [row[0] for row in after[2:5]] == [row[0] for row in edited[2:5]]
    assert {row[1] for row in after[2:]} == {"new"} and len(after) == 6
    assert after[5][6] == "" and after[5][7] == table_of(sweep).rows[3]["Overall", "SI-SDR"]


def test_rows_of_other_sweeps_stay_unchanged(sweep, google, upload):
    old = ['=HYPERLINK("https://comet.ml/old"; "0123")', "mine", "a", "b", "c", 3000, 9.9, 1, 2]
    google.add("music", [*TEMPLATE, old], columns=60)
    receipt = upload(table_of(sweep))
    assert google.sheets["music"].table()[2] == old and receipt["added"] == 4


@pytest.mark.parametrize("existing", [10, 1000])
def test_the_number_of_calls_does_not_depend_on_the_number_of_rows(sweep, google, upload, existing):
    rows = [[f"dpcl-x-s0-{n:012x}", "", "", "", "", 3, 1.0, 1.0, 1.0] for n in range(existing - 2)]
    google.add("music", [*TEMPLATE, *rows], rows=1100, columns=60)
    upload(table_of(sweep))
    assert google.count() == 4 and len(google.sheets["music"].table()) == existing + 4


def test_a_full_worksheet_grows_and_a_known_spreadsheet_is_not_searched_for(sweep, google, upload):
    google.add("music", TEMPLATE, rows=4, columns=12)
    receipt = upload(table_of(sweep, notes="=1+1"))
    assert google.count() == 4 and len(google.sheets["music"].table()) == 6
    google.add("roomy", TEMPLATE, rows=100, columns=60)
    upload(table_of(sweep, notes="=1+1"), worksheet="roomy")
    assert google.sheets["music"].table() == google.sheets["roomy"].table()
    upload(table_of(sweep, notes="other"), known=receipt)
    assert [kind for kind, _ in google.calls] == ["metadata", "read", "write"]


def test_a_server_that_rejects_cells_in_batch_updates_gets_two_calls(sweep, google, upload):
    google.updates_cells = False
    google.add("music", TEMPLATE, rows=4, columns=12)
    upload(table_of(sweep))
    assert len(google.sheets["music"].table()) == 6


@pytest.mark.parametrize("spreadsheet", [KEY, f"https://docs.google.com/spreadsheets/d/{KEY}/edit#gid=0"])
def test_a_spreadsheet_may_be_given_by_key_or_address(sweep, google, upload, spreadsheet):
    upload(table_of(sweep), spreadsheet=spreadsheet)
    assert google.count("search") == 0 and len(google.sheets["music"].table()) == 6


def test_names_may_contain_quotes(sweep, google, upload):
    google.name = 'The "best" ones'
    upload(table_of(sweep), worksheet="Bob's", spreadsheet='The "best" ones')
    assert len(google.sheets["Bob's"].table()) == 6


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+49", "-x", "'quoted", "@me", "1e5", "3/4", "May 5", "TRUE", "12:30", "$5", "0123", "a note, plain"],
)
def test_text_stays_text(sweep, google, upload, text):
    upload(table_of(sweep, notes=text))
    stored = google.sheets["music"].table()[2][1]
    assert stored == text
    upload(table_of(sweep, notes=text))
    assert google.count("write") == 0


def test_plain_words_are_written_without_an_apostrophe():
    for text in ("toy_music", "dpcl-toy_music-s0-0123456789ab", "Notes on reverberation", "toy_music-0123456789ab"):
        assert as_typed(text) == text


def test_values_that_are_not_finite_or_too_long_are_uploaded(sweep, google, upload):
    table = table_of(sweep, notes="x" * 60_000)
    nan, infinite = [dict(row) for row in table.rows[:2]]
    nan["Overall", "SI-SDR"], infinite["Overall", "SI-SDR"] = None, float("-inf")
    upload(type(table)(table.columns, (nan, infinite)))
    sheet = google.sheets["music"]
    position = column(sheet, "SI-SDR", "Overall")
    assert [row[position] for row in sheet.table()[2:]] == ["", "-inf"]
    assert 49_000 < len(sheet.table()[2][column(sheet, NOTES.name)]) <= 50_000
    upload(type(table)(table.columns, (nan, infinite)))
    assert google.count("write") == 0


def test_a_worksheet_with_other_content_stays_unchanged(sweep, google, upload):
    google.add("music", [["Shopping list"], ["milk"]])
    with pytest.raises(UserError, match="expected a column 'Experiment key'"):
        upload(table_of(sweep))
    assert google.sheets["music"].table() == [["Shopping list"], ["milk"]]


# --- errors


@pytest.mark.parametrize("fault", [429, 500, 503, "drop", "drop after", (403, "Quota", "rateLimitExceeded")])
@pytest.mark.parametrize("where", ["search", "metadata", "update", "read", "write"])
def test_a_transient_error_is_retried_and_rows_appear_once(sweep, google, upload, waits, where, fault):
    google.add("Template", TEMPLATE, columns=60)
    google.faults.append((where, fault))
    upload(table_of(sweep), template="Template")
    assert google.faults == [] and len(google.sheets["music"].table()) == 6
    assert [sheet.title for sheet in google.sheets.values()] == ["Template", "music"]


def test_retries_end_when_patience_runs_out(sweep, google, upload, waits):
    google.faults += [("read", 503)] * 1000
    google.add("music", TEMPLATE)
    with pytest.raises(UserError, match=r"still rejects requests \(HTTP 503.*can be repeated"):
        upload(table_of(sweep), patience=60)
    assert sum(waits) <= 60 and 3 <= len(waits) < 20


@pytest.mark.parametrize(
    ("where", "fault", "message"),
    [
        ("metadata", (403, "The caller does not have permission", "PERMISSION_DENIED"), f"share it with {ADDRESS}"),
        ("write", (403, "You are trying to edit a protected cell"), "protected cell"),
        ("metadata", 404, f"share it with {ADDRESS}"),
        ("metadata", 401, "does not accept the key"),
        ("write", (400, "Invalid data"), "HTTP 400: Invalid data"),
        ("token", (400, "invalid_grant"), "does not accept the key"),
    ],
)
def test_a_permanent_error_is_explained_in_one_line(sweep, google, upload, waits, where, fault, message):
    google.add("music", TEMPLATE, columns=60)
    google.faults += [(where, fault)] * 10
    with pytest.raises(UserError) as caught:
        upload(table_of(sweep))
    assert message in str(caught.value) and "\n" not in str(caught.value) and sum(waits) == 0


def test_a_spreadsheet_that_is_not_shared_is_explained(sweep, upload):
    with pytest.raises(UserError, match=re.escape(f"no spreadsheet of this name is shared with {ADDRESS}")):
        upload(table_of(sweep), spreadsheet="Elsewhere")


def test_an_unreachable_server_is_explained(sweep, google, upload, waits):
    google.close()
    with pytest.raises(UserError, match="cannot be reached"):
        upload(table_of(sweep))


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"client_email": "a", "token_uri": "b", "private_key": "hidden"}']
)
def test_the_error_about_a_wrong_key_file_does_not_quote_it(sweep, tmp_path, content):
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(UserError, match="expected the JSON key file of a Google service account") as caught:
        upload_sheet(table_of(sweep), credentials=path, spreadsheet="a", worksheet="b")
    assert "hidden" not in str(caught.value)


def test_a_missing_key_file_is_an_error(sweep, tmp_path):
    with pytest.raises(UserError, match="No such file"):
        upload_sheet(table_of(sweep), credentials=tmp_path / "no.json", spreadsheet="a", worksheet="b")
