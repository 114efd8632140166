"""The verdict on labels and the review of suspects on the page."""

from __future__ import annotations

import json
import shutil
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers import browser
from tests.helpers.labels import issue, verdict_of, write_label_check
from tests.helpers.own_images import picture
from tests.helpers.runs import sgd_influence
from utils.columns import IMAGE, LABEL, ROW, SET
from utils.data.decisions import COLUMNS, DECISION, NEW_CLASS, NEW_LABEL, read_decisions
from utils.data.label_table import IS_ISSUE, PREDICTED, SCORE, read_class_names, read_label_issues
from utils.errors import UserError
from utils.output.folder import OutputFolder
from utils.output.paths import OutputPaths
from utils.page import review
from utils.page.facts import Facts
from utils.page.page import LARGEST, page_of, write_page
from utils.page.review import Review

N, N_SUSPECTS = 320, 310
ODD = 'it\'s, "quoted" <script>alert(1)</script> & möre'
needs_browser = pytest.mark.skipif(
    not browser.PROGRAM, reason="needs Chromium (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run whose label check found 310 suspects among 320 images."""
    root = tmp_path_factory.mktemp("review")
    output = root / "out"
    small = "-ds digits -e 1 -nt 1 -r 0 --n_train 30 --n_val 20 --n_test 20 --model mlp"
    assert sgd_influence(output, "--methods Random --no_report", small) == 0
    rows = []
    for number in range(N):
        name = f"{number} {ODD}.png".replace("/", "") if number < 3 else f"{number}.png"
        file = picture(root / "images" / name, number)
        suspect = {"predicted": (number + 1) % 10} if number < N_SUSPECTS else {}
        part = "test" if number % 10 == 9 else "training"
        rows.append(issue(str(file), number % 10, number, part, score=number / N, **suspect))
    write_label_check(output, rows)
    write_page(OutputFolder(output))
    return output


@pytest.fixture
def folder(checked: Path, tmp_path: Path) -> Path:
    """A copy of it to be changed."""
    return shutil.copytree(checked, tmp_path / "out")


def text_of(page: bytes | Path) -> str:
    """The text of a page outside scripts and styles, words by single blanks."""

    class Text(HTMLParser):
        text, tag = "", ""

        def handle_starttag(self, tag, attrs):
            self.tag = tag

        def handle_endtag(self, tag):
            self.tag = ""

        def handle_data(self, data):
            self.text += "" if self.tag in ("script", "style") else data

    parser = Text()
    parser.feed((page if isinstance(page, bytes) else page.read_bytes()).decode())
    return " ".join(parser.text.split())


def page_text(folder: Path, **changed) -> str:
    """The text of the page with another verdict."""
    paths = OutputPaths(folder)
    table = read_label_issues(paths)
    paths.label_verdict.write_text(json.dumps(verdict_of(table, **changed)))
    return text_of(page_of(Facts.read(paths)))


# ---------------------------------------------------------------- the verdict


def test_both_verdicts_come_first(checked: Path) -> None:
    html = (checked / "report/index.html").read_text()
    labels, removal = html.index('id="label-verdict"'), html.index('id="verdict"')
    assert labels < removal < html.index("<h2")
    text = text_of(checked / "report/index.html")
    assert "About 310 of 320 labels look wrong (95 % interval 248 to 372); review these." in text
    assert (
        "31 of those marked are test images. The interval is wide, because few images are" in text
    )


def test_a_lower_bound_is_called_one(folder: Path) -> None:
    text = page_text(folder, at_least=True, reason="the net is poor, train longer")
    assert "At least 248 of 320 labels look wrong, and up to 372 may be; 310 are marked." in text
    assert "31 of those marked are test images. The net is poor, train longer." in text
    assert "interval 248" not in text


def test_no_suspect_is_no_wrong_label(folder: Path) -> None:
    clean = {"n_issues": 0, "n_issues_test": 0, "given_to_suggested": [], "low": 0, "high": 0}
    text = page_text(folder, **clean, suspicious_classes=[])
    assert "None of 320 labels looks wrong." in text
    assert "No label looks wrong, so no label is suggested." in text


def test_labels_that_were_not_judged_are_not_called_right(folder: Path) -> None:
    none = {"n_issues": 0, "n_issues_test": 0, "given_to_suggested": [], "low": 0, "high": 320}
    text = page_text(folder, **none, suspicious_classes=[], at_least=True, reason="poor net")
    assert "Not judged." in text
    assert "The labels were not judged, so no label is suggested." in text
    assert "No label looks wrong" not in text


def test_few_images_whose_labels_may_all_be_wrong_are_judged(folder: Path) -> None:
    text = page_text(folder, low=2, high=320, at_least=True, reason="poor net")
    assert "Not judged" not in text
    assert "up to 320 may be" in text


def test_classes_of_suspects_and_harmful_options_are_warned_of(folder: Path) -> None:
    text = page_text(folder, suspicious_classes=[3, 7], harmful_options="cosine harms it")
    assert "More than half of the labels of each of 3, 7 look wrong: look at the class" in text
    assert "Cosine harms it." in text


def test_a_folder_without_a_label_check_says_so(folder: Path) -> None:
    shutil.rmtree(folder / "labels")
    page = page_of(Facts.read(OutputPaths(folder)))
    assert "Labels were not checked." in text_of(page)
    assert b"review-data" not in page


def test_names_in_the_data_of_the_review_are_only_text(checked: Path) -> None:
    html = (checked / "report/index.html").read_text()
    assert "<script>alert" not in html
    assert html.count("<script") == 3  # the data, and two scripts that the policy knows
    assert html.count("'sha256-") == 2


# ---------------------------------------------------------------- what fits


def decide(folder: Path, rows: pd.DataFrame, decision: str = "keep") -> None:
    """Put decisions on some rows of the table into the folder."""
    table = rows[[IMAGE, LABEL, SET, ROW]].assign(**{DECISION: decision, NEW_LABEL: ""})
    table.to_csv(OutputPaths(folder).decisions, index=False)


def test_suspects_that_do_not_fit_are_counted_and_come_next(folder: Path) -> None:
    facts = Facts.read(OutputPaths(folder))
    first = Review.of(facts, 20_000)
    assert first and 0 < len(first.rows) < 100
    assert first.n_left == N_SUSPECTS - len(first.rows)
    assert first.rows[ROW].tolist() == list(range(len(first.rows)))  # the most suspicious
    decide(folder, first.rows)
    second = Review.of(Facts.read(OutputPaths(folder)), 20_000)
    assert second and second.rows[ROW].tolist()[0] == len(first.rows)
    assert second.n_left == N_SUSPECTS - len(first.rows) - len(second.rows)


def test_the_page_says_how_many_suspects_are_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.page.review.MOST", 100)
    text = text_of(page_of(Facts.read(OutputPaths(folder))))
    assert "210 more suspects do not fit into this page." in text
    assert "The page has 100 of 320 images" in text


def test_a_page_of_thousands_of_photographs_stays_small(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "data:image/jpeg;base64," + "A" * 40_000  # of a large and busy photograph
    monkeypatch.setattr("utils.page.review.thumbnail_uri", lambda file: uri)
    page = page_of(Facts.read(OutputPaths(folder)))
    assert 0.8 * LARGEST < len(page) < LARGEST
    assert "more suspects do not fit into this page" in text_of(page)


# ---------------------------------------------------------------- in a browser


KEYS = {"k": "KeyK", "r": "KeyR", "x": "KeyX", "u": "KeyU", "c": "KeyC"}


def press(page: browser.Page, key: str) -> None:
    """Press a key as a person does."""
    code = {"key": key, "code": KEYS.get(key, key)}
    text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
    page.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
    page.call("Input.dispatchKeyEvent", type="keyUp", **code)


def text_in(page: browser.Page, element: str) -> str:
    return page.evaluate(f"document.getElementById('{element}').textContent")


def wait_until(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + browser.LONGEST
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


def download(page: browser.Page, folder: Path) -> pd.DataFrame:
    """Click on download, and read what came."""
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.evaluate("document.getElementById('r-download').click()")
    csv = folder / "decisions.csv"
    wait_until(csv.exists)
    return pd.read_csv(csv, dtype=str, keep_default_na=False)


def reload(page: browser.Page) -> None:
    page.evaluate("window.before = true")
    page.call("Page.reload")
    wait_until(lambda: page.evaluate("!window.before && document.readyState === 'complete'"))


@needs_browser
def test_300_decisions_by_keyboard_reload_export_and_import(checked: Path, tmp_path: Path) -> None:
    page_file, sequence = checked / "report/index.html", "rkrrxrkrrr" * 30
    with browser.opened(page_file) as page:
        page.evaluate("document.getElementById('review-card').focus()")
        for key in sequence:
            press(page, key)
        assert "300 of 310 suspects" in text_in(page, "r-counts")
        reload(page)
        counts = text_in(page, "r-counts")
        assert "300 of 310 suspects on this page decided" in counts
        assert "60 keep, 210 relabel, 30 remove" in counts
        assert text_in(page, "r-place") == "Image 301 of 310"  # the first undecided one
        csv = download(page, tmp_path)
        assert (tmp_path / "decisions.csv").read_bytes().startswith(BOM_UTF8)  # for Excel, for ö
        assert page.logged == []
    names = {"k": "keep", "r": "relabel", "x": "remove"}
    table = pd.read_csv(checked / "labels/label_issues.csv").head(300)
    table[DECISION] = [names[key] for key in sequence]
    expected = table.sort_values(by=[SET, ROW], key=lambda c: c.replace({"training": "a"}))
    assert list(csv) == [*COLUMNS, NEW_CLASS]
    for column in (IMAGE, LABEL, SET, ROW, DECISION):
        assert csv[column].tolist() == expected[column].astype(str).tolist()
    relabelled = csv[DECISION] == "relabel"
    suggested = expected[PREDICTED].astype(str).tolist()
    assert csv[NEW_LABEL].tolist() == [
        label if new else "" for label, new in zip(suggested, relabelled, strict=True)
    ]
    issues, classes = read_label_issues(OutputPaths(checked)), {k: str(k) for k in range(10)}
    assert len(read_decisions(tmp_path / "decisions.csv", issues, classes)) == 300
    with browser.opened(page_file) as page:  # a browser that knows nothing
        assert "0 of 310 suspects" in text_in(page, "r-counts")
        choose_file(page, tmp_path / "decisions.csv")
        wait_until(lambda: "300 decisions loaded" in text_in(page, "r-message"))
        assert text_in(page, "r-counts") == counts
        (tmp_path / "again").mkdir()
        assert download(page, tmp_path / "again").equals(csv)
        assert page.logged == []


def choose_file(page: browser.Page, file: Path) -> None:
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#r-file-chosen")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)


@needs_browser
def test_filters_another_class_undo_and_files_that_do_not_fit(
    checked: Path, tmp_path: Path
) -> None:
    with browser.opened(checked / "report/index.html", width=390) as page:

        def choose(select: str, value: str) -> None:
            element = f"document.getElementById('{select}')"
            page.evaluate(f"{element}.value = '{value}'")
            page.evaluate(f"{element}.dispatchEvent(new Event('change'))")

        press(page, "k")  # the focus is elsewhere
        assert "0 of 310" in text_in(page, "r-counts")
        choose("r-set", "test")
        assert text_in(page, "r-place") == "Image 1 of 31"
        choose("r-set", "")
        choose("r-pair", "4 5")
        assert text_in(page, "r-place") == "Image 1 of 31"
        assert text_in(page, "r-label") == "4"
        page.evaluate("document.getElementById('review-card').focus()")
        press(page, "c")
        page.evaluate("document.getElementById('r-class').value = '8'")
        page.evaluate("window.dispatchEvent(new Event('focus'))")  # after a look elsewhere
        press(page, "Enter")
        assert text_in(page, "r-place") == "Image 2 of 31"
        press(page, "ArrowLeft")
        assert text_in(page, "r-decided") == "relabel as 8"
        choose("r-decision", "relabel")
        assert text_in(page, "r-place") == "Image 1 of 1"
        page.evaluate("document.getElementById('review-card').focus()")
        press(page, "u")
        assert text_in(page, "r-decided") == "none yet"
        choose("r-pair", "")
        assert text_in(page, "r-place") == "No image passes the filters."
        choose("r-decision", "")
        choose("r-which", "others")
        assert text_in(page, "r-place") == "Image 1 of 10"
        wrong = tmp_path / "wrong.csv"
        wrong.write_text("x:image,y:label\n")
        choose_file(page, wrong)
        wait_until(
            lambda: "wrong.csv was not loaded: the header must be" in text_in(page, "r-message")
        )
        image = read_label_issues(OutputPaths(checked)).head(1)[[IMAGE, LABEL, SET, ROW]]
        new = {DECISION: "relabel", NEW_LABEL: (image[LABEL] + 1) % 10, NEW_CLASS: "zebra"}
        other = tmp_path / "other.csv"
        image.assign(**new).to_csv(other, index=False)
        choose_file(page, other)
        wait_until(lambda: "here, not zebra." in text_in(page, "r-message"))
        gone = image.assign(**{IMAGE: "/away/gone.png", DECISION: "remove", NEW_LABEL: ""})
        gone.to_csv(other, index=False)
        choose_file(page, other)
        wait_until(lambda: "/away/gone.png is another image" in text_in(page, "r-message"))
        moved = gone.assign(**{IMAGE: "/away" + image[IMAGE]})
        moved.to_csv(other, index=False)
        choose_file(page, other)
        wait_until(lambda: "1 decision loaded" in text_in(page, "r-message"))
        loaded, undone = download(page, tmp_path).to_dict("records")
        assert (loaded[DECISION], undone[DECISION]) == ("remove", "undo")
        assert loaded[IMAGE] == moved[IMAGE].item()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.logged == []


@needs_browser
def test_decisions_in_the_folder_are_known_to_the_page(folder: Path) -> None:
    decide(folder, read_label_issues(OutputPaths(folder)).head(7), "remove")
    with browser.opened(write_page(OutputFolder(folder))) as page:
        assert "7 of 310 suspects" in text_in(page, "r-counts")
        assert "7 remove" in text_in(page, "r-counts")
        page.evaluate("document.querySelector('#r-strip button').click()")
        press(page, "u")
        assert "6 remove" in text_in(page, "r-counts")
        csv = download(page, folder)
        assert csv[DECISION].tolist() == ["undo"] + ["remove"] * 6
        choose_file(page, OutputPaths(folder).decisions)
        loaded = "7 decisions loaded from decisions.csv; 0 others replaced."
        wait_until(lambda: text_in(page, "r-message") == loaded)
        assert "7 remove" in text_in(page, "r-counts")
        blank = folder / "blank.csv"
        blank.write_text(",".join(COLUMNS) + "\n/a.png,0,training,0,,\n")
        choose_file(page, blank)
        loaded = "0 decisions loaded from blank.csv; 0 others replaced."
        wait_until(lambda: text_in(page, "r-message") == loaded)


@needs_browser
def test_decisions_that_came_into_the_folder_later_replace_those_of_the_browser(
    folder: Path,
) -> None:
    worst = read_label_issues(OutputPaths(folder)).head(3)
    decide(folder, worst.head(1))
    with browser.opened(write_page(OutputFolder(folder))) as page:
        page.evaluate("document.getElementById('review-card').focus()")
        press(page, "x")  # the second and the third image; the first is decided on
        press(page, "x")
        decide(folder, worst.head(2), "remove")  # somebody else's, of the first one too
        write_page(OutputFolder(folder))
        reload(page)
        assert "0 keep, 0 relabel, 3 remove" in text_in(page, "r-counts")
        assert text_in(page, "r-message") == ""
        decide(folder, worst.iloc[[2]])
        write_page(OutputFolder(folder))
        reload(page)
        assert "1 keep, 0 relabel, 1 remove" in text_in(page, "r-counts")
        replaced = "Newer decisions in the output folder replace 1 of this browser."
        assert text_in(page, "r-message") == replaced


@needs_browser
def test_an_undo_after_the_decision_was_applied_holds(folder: Path) -> None:
    """On the page that was open meanwhile, and on the one written with the decision in it."""
    worst = read_label_issues(OutputPaths(folder)).head(1)
    with browser.opened(write_page(OutputFolder(folder))) as page:
        page.evaluate("document.getElementById('review-card').focus()")
        press(page, "x")
        decide(folder, worst, "remove")  # as `python -m utils.review` does
        press(page, "ArrowLeft")
        press(page, "u")
        assert download(page, folder)[DECISION].tolist() == ["undo"]
        (folder / "decisions.csv").unlink()
        write_page(OutputFolder(folder))
        reload(page)
        assert "0 keep, 0 relabel, 0 remove" in text_in(page, "r-counts")
        assert text_in(page, "r-message") == ""
        assert download(page, folder)[DECISION].tolist() == ["undo"]
        assert page.logged == []


@needs_browser
def test_decisions_as_pages_kept_them_before_are_known(checked: Path) -> None:
    with browser.opened(checked / "report/index.html") as page:
        page.evaluate("document.getElementById('review-card').focus()")
        for key in "xkxu":
            press(page, key)
        earlier = """
            (() => {
              const key = Object.keys(localStorage).find((name) => name.includes("decisions"));
              const [one, two] = JSON.parse(localStorage.getItem(key));
              const old = [[one[0], one[1], ""], [two[0], null, ""]];
              localStorage.setItem(key, JSON.stringify(old));
            })()"""
        page.evaluate(earlier)
        reload(page)
        assert "0 keep, 0 relabel, 1 remove" in text_in(page, "r-counts")
        page.evaluate("document.getElementById('review-card').focus()")
        press(page, "k")
        reload(page)
        assert "1 keep, 0 relabel, 1 remove" in text_in(page, "r-counts")
        assert page.logged == []


@needs_browser
def test_two_tabs_do_not_lose_decisions(checked: Path, tmp_path: Path) -> None:
    page_file = checked / "report/index.html"
    with browser.opened(page_file) as page:
        first = page.session

        def decide_as(session: str | None, keys: Iterable[str]) -> None:
            page.session = session
            page.evaluate("document.getElementById('review-card').focus()")
            for key in keys:
                press(page, key)

        decide_as(first, "xx")
        page.open(page_file)
        second = page.session
        assert "2 remove" in text_in(page, "r-counts")
        decide_as(second, "kkk")
        decide_as(first, ["ArrowRight"] * 3 + ["x"])
        assert "3 keep, 0 relabel, 3 remove" in text_in(page, "r-counts")
        decide_as(second, ["ArrowRight", "k"])
        assert len(download(page, tmp_path)) == 7
        reload(page)
        assert "4 keep, 0 relabel, 3 remove" in text_in(page, "r-counts")
        assert page.logged == []


# ---------------------------------------------------------------- decisions.csv


def test_the_page_does_without_decisions_that_it_cannot_use(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decide(folder, read_label_issues(OutputPaths(folder)).head(3), "dance")
    text = text_of(page_of(Facts.read(OutputPaths(folder))))
    line = "The page does not use these decisions: " + str(OutputPaths(folder).decisions)
    assert f"{line}: row 2: decision 'dance'; it must be one of" in text
    assert line in caplog.text
    assert "images are decided on" not in text


def test_images_of_a_data_set_that_was_moved_are_known(tmp_path: Path) -> None:
    issues = pd.DataFrame({SET: ["training"], ROW: [4], IMAGE: ["/new/cat/a.png"], LABEL: [0]})
    csv, names = tmp_path / "decisions.csv", {0: "cat", 1: "dog"}

    def given(image: str, row: int = 4, label: int = 0) -> pd.DataFrame:
        csv.write_text(f"{','.join(COLUMNS)}\n{image},{label},training,{row},remove,\n")
        return read_decisions(csv, issues, names)

    for image in ("/old/cat/a.png", "cat/a.png"):
        assert given(image)[IMAGE].tolist() == ["/new/cat/a.png"]
    other = str(picture(tmp_path / "cat/a.png"))  # of another data set, which is there
    for image, row in ((other, 4), ("/o/cat/b.png", 4), ("/o/dog/a.png", 4), ("/o/cat/a.png", 5)):
        with pytest.raises(UserError, match=r"is not in labels/label_issues\.csv; copy x:image"):
            given(image, row)
    with pytest.raises(UserError, match="y:label is 1"):
        given("/old/cat/a.png", label=1)


def test_a_page_knows_the_decisions_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    decided = pd.DataFrame({IMAGE: ["/ä" * 100] * 9})
    assert len(review._fitting_known(decided)) == 9
    monkeypatch.setattr(review, "KNOWN", 4 * (300 + review.PER_KNOWN))
    assert len(review._fitting_known(decided)) == 4
    assert review._fitting_known(decided.head(0)).empty


@pytest.mark.parametrize(
    ("change", "printed"),
    [
        ({IMAGE: "/none.png"}, "image '/none.png' is not in labels/label_issues.csv"),
        ({ROW: "x"}, "row 'x'; it must be a whole number"),
        ({ROW: "99999"}, "in labels/label_issues.csv, not row 99999 of training"),
        ({SET: "tests"}, "set 'tests'; it must be one of training, validation, test"),
        ({LABEL: "7"}, "y:label is 7, in labels/label_issues.csv it is 3"),
        ({DECISION: "drop"}, "decision 'drop'; it must be one of keep, relabel, remove"),
        ({DECISION: "relabel", NEW_LABEL: "10"}, "new_label 10: no such class; summary/classes"),
        ({DECISION: "", NEW_LABEL: "4"}, "decision ''; it must be one of keep, relabel"),
        ({DECISION: "relabel", NEW_LABEL: "-1"}, "new_label '-1'; it must be a whole number"),
        ({DECISION: "relabel", NEW_LABEL: ""}, "new_label ''; it must be a whole number"),
        ({DECISION: "relabel", NEW_LABEL: "3"}, "new_label 3 is the label it has"),
        ({DECISION: "keep", NEW_LABEL: "4"}, "decision keep with new_label '4'"),
    ],
)
def test_a_row_of_decisions_that_cannot_be_followed_is_named(
    checked: Path, tmp_path: Path, change: dict[str, str], printed: str
) -> None:
    issues = read_label_issues(OutputPaths(checked))
    rows = issues[[IMAGE, LABEL, SET, ROW]].astype(str).head(4)
    rows = rows.assign(**{DECISION: "keep", NEW_LABEL: ""})
    assert rows[ROW][3] == "3"
    for name, value in change.items():
        rows.loc[3, name] = value
    csv = tmp_path / "decisions.csv"
    rows.to_csv(csv, index=False)
    names = read_class_names(OutputPaths(checked).classes)
    with pytest.raises(UserError) as error:
        read_decisions(csv, issues, names)
    assert str(error.value).startswith(f"{csv}: row 5: ")
    assert printed in str(error.value)


def test_an_image_is_decided_on_once(checked: Path, tmp_path: Path) -> None:
    issues = read_label_issues(OutputPaths(checked))
    rows = issues[[IMAGE, LABEL, SET, ROW]].iloc[[0, 1, 0]]
    csv = tmp_path / "decisions.csv"
    rows.assign(**{DECISION: "keep", NEW_LABEL: ""}).to_csv(csv, index=False)
    with pytest.raises(UserError, match="row 4: row 2 decides on this image too; leave out one"):
        read_decisions(csv, issues, {})


def test_the_name_of_a_class_gets_its_label(tmp_path: Path) -> None:
    issues = pd.DataFrame({SET: ["training"], ROW: [0], IMAGE: ["/a.png"], LABEL: [0]})
    csv = tmp_path / "decisions.csv"

    def given(new: str) -> pd.DataFrame:
        csv.write_text(f"{','.join(COLUMNS)}\n/a.png,0,training,0,relabel,{new}\n")
        return read_decisions(csv, issues, {0: "cat", 1: "dog", 2: "1"})

    with pytest.raises(UserError, match=r"'dog' is the name of a class; give .* class, 1$"):
        given("dog")
    assert given("1")[NEW_LABEL].item() == 1  # a label before a name


def test_an_image_in_another_row_now_is_known_by_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when an image before it was taken out; one that is listed twice is not certain."""
    csv = tmp_path / "decisions.csv"
    csv.write_text(f"{','.join(COLUMNS)}\n/b.png,1,training,1,remove,\n/c.png,1,training,2,keep,\n")
    issues = pd.DataFrame({IMAGE: ["/b.png", "/c.png", "/d.png"], LABEL: 1, SET: "training"})
    issues[ROW] = range(3)
    found = read_decisions(csv, issues, {1: "dog"})
    assert found[[IMAGE, ROW]].values.tolist() == [["/b.png", 0], ["/c.png", 1]]
    assert "2 images are in other rows than when they were decided on" in caplog.text
    assert len(read_decisions(csv, issues.head(2), {1: "dog"}, applied=True)) == 2
    with pytest.raises(UserError, match="not row 2 of training; correct set and row"):
        read_decisions(csv, issues.head(2), {1: "dog"})
    twice = issues.assign(**{IMAGE: ["/b.png", "/c.png", "/b.png"]})
    with pytest.raises(UserError, match=r"row 0 of training and row 2 of training in .*, not row"):
        read_decisions(csv, twice, {1: "dog"})


def test_a_new_label_that_means_another_class_now_is_refused(tmp_path: Path) -> None:
    """As after a class folder more; a file without the name of the class has nothing to compare."""
    issues = pd.DataFrame({SET: ["training"], ROW: [0], IMAGE: ["/a.png"], LABEL: [0]})
    csv = tmp_path / "decisions.csv"
    csv.write_text(f"{','.join(COLUMNS)},{NEW_CLASS}\n/a.png,0,training,0,relabel,2, fly\n")
    assert read_decisions(csv, issues, {0: "ant", 1: "bee", 2: "fly"})[NEW_LABEL].item() == 2
    with pytest.raises(UserError, match="row 2: new_label 2 is the class 'cat', but new_class is"):
        read_decisions(csv, issues, {0: "ant", 1: "bee", 2: "cat", 3: "fly"})
    csv.write_text(f"{','.join(COLUMNS)},{NEW_CLASS}\n/a.png,0,training,0,relabel,2,\n")
    assert read_decisions(csv, issues, {0: "ant", 1: "bee", 2: "cat"})[NEW_LABEL].item() == 2


def test_applied_decisions_that_were_carried_out_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The image was removed from the data set, or has got the label; all other decisions hold."""
    images = [str(picture(tmp_path / f"cat/{name}.png")) for name in "abcd"]
    issues = pd.DataFrame(
        {SET: ["training"] * 4, ROW: [0, 1, 2, 3], IMAGE: images, LABEL: [0, 1, 0, 0]},
    )
    csv = tmp_path / "decisions.csv"
    rows = (
        f"{images[0]},0,training,0,keep,", f"{images[1]},0,training,1,relabel,1",
        f"{tmp_path}/cat/gone.png,0,training,2,remove,", f"{images[2]},0,training,3,remove,",
        f"{images[3]},0,training,3,relabel,7",
    )  # fmt: skip
    csv.write_text("\n".join([",".join(COLUMNS), *rows, ""]))
    held = read_decisions(csv, issues, {0: "cat", 1: "dog"}, applied=True)
    assert held[[IMAGE, DECISION]].to_numpy().tolist() == [
        [images[0], "keep"], [images[2], "remove"],
    ]  # fmt: skip
    assert "3 decisions skipped: the image, or its new class, is gone, or the image" in caplog.text
    assert "have no decision" not in caplog.text
    with pytest.raises(UserError, match="row 3: y:label is 0, in labels/label_issues"):
        read_decisions(csv, issues, {0: "cat", 1: "dog"})


def test_a_file_of_another_system_has_its_rows(tmp_path: Path) -> None:
    """Lines that end in a carriage return alone; and a wrong header is no file without rows."""
    issues = pd.DataFrame({SET: ["training"], ROW: [0], IMAGE: ["/a.png"], LABEL: [0]})
    csv = tmp_path / "decisions.csv"
    csv.write_bytes((",".join(COLUMNS) + "\r/a.png,0,training,0,keep,\r").encode())
    assert len(read_decisions(csv, issues, {0: "cat"})) == 1
    csv.write_text(",".join(COLUMNS) + "\n")
    assert read_decisions(csv, issues, {0: "cat"}).empty
    csv.write_text(";".join(COLUMNS) + "\n")
    with pytest.raises(UserError, match="separated by semicolons"):
        read_decisions(csv, issues, {0: "cat"})


def test_what_is_no_file_of_decisions_gets_a_fitting_remedy(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.touch()
    for path, line in (
        (empty, "is empty; save it from the page again, or give it x:image,y:label,set,row,"),
        (tmp_path, "a folder, not a file; give decisions.csv, as the page saves it"),
    ):
        with pytest.raises(UserError) as error:
            read_decisions(path, pd.DataFrame(), {})
        assert str(error.value).startswith(f"{path}: {line}")


def test_a_table_that_is_not_whole_is_one_line(folder: Path) -> None:
    paths = OutputPaths(folder)
    table = pd.read_csv(paths.label_issues)
    table.drop(columns=IS_ISSUE).to_csv(paths.label_issues, index=False)
    with pytest.raises(UserError, match=r"label_issues\.csv: is incomplete .no column is_"):
        read_label_issues(paths)
    table.assign(**{SCORE: "much"}).to_csv(paths.label_issues, index=False)
    with pytest.raises(UserError, match=r"label_issues\.csv: cannot be used"):
        read_label_issues(paths)
