"""report/index.html: what it shows, that it is one file, and that names in it are only text."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval_sgd_influence import COMMAND
from tests.helpers import browser
from tests.helpers.own_images import picture
from tests.helpers.runs import contents, sgd_influence
from utils.columns import IMAGE, LABEL
from utils.data.checks import DUPLICATES, QUALITY
from utils.output.folder import OutputFolder
from utils.output.paths import OutputPaths
from utils.output.ranking import overlap_by_chance, ranked
from utils.output.storage import read_csv
from utils.page.__main__ import main
from utils.page.facts import Facts
from utils.page.images import data_uris
from utils.page.page import LARGEST, page_of, write_page
from utils.page.view import _compared, method_views, percent
from utils.run.command import main as command

SCRIPT, ATTRIBUTE = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'
ODD_FILE = "'\" onload=alert(1) <b>{{ 7 * 7 }}.png"
FAST = "--model mlp --context cpu -e 2 -nt 1 --batch_size 16"
needs_browser = pytest.mark.skipif(
    not browser.PROGRAM, reason="needs Chromium (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images whose classes and names try to be HTML, by two methods."""
    root = tmp_path_factory.mktemp("page")
    rows = []
    for number in range(60):
        file = picture(root / "images" / (f"{number}.png" if number else ODD_FILE), number)
        rows.append({IMAGE: str(file), LABEL: (SCRIPT, ATTRIBUTE)[number % 2]})
    csv = root / "images" / "all <i>images.csv"
    pd.DataFrame(rows).to_csv(csv, index=False)
    output = root / "out"
    arguments = ["-o", str(output), "-ds", str(csv), *FAST.split(), "-r", "0", "3", "5"]
    assert command(COMMAND, [*arguments, "--methods", "Hara", "Random"]) == 0
    return output


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to be changed."""
    return shutil.copytree(finished, tmp_path / "out")


class Parsed(HTMLParser):
    """Elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables_in_boxes = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table" and self.elements[-1] == ("div", {"class": "scroll"}):
            self.tables_in_boxes += 1
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] not in ("script", "style"):
            self.text += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def parsed(page: Path | bytes) -> Parsed:
    html = page if isinstance(page, bytes) else page.read_bytes()
    return Parsed(html.decode("utf-8"))


def tiles_of(page: Parsed, method: str) -> list[dict[str, str | None]]:
    """The tiles of the galleries of a method."""
    found, inside = [], ""
    for tag, attributes in page.elements:
        inside = attributes.get("data-method") or inside if tag == "section" else inside
        inside = "" if attributes.get("id") == "agreement" else inside
        found += [attributes] if inside == method and "data-given" in attributes else []
    return found


# ---------------------------------------------------------------- one file, of text


def test_the_page_is_one_file_that_asks_for_nothing(finished: Path) -> None:
    content = (finished / "report" / "index.html").read_bytes()
    assert len(content) < LARGEST
    page = parsed(content)
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    html = content.decode()
    assert html.count("url(") == html.count("url(data:image/")
    assert "@import" not in html and "http://" not in html and "https://" not in html
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.tags("a"):
        assert link["href"] in {f"#{name}" for name in ids}


def test_names_of_classes_files_and_data_are_only_text(finished: Path) -> None:
    page = parsed(finished / "report" / "index.html")
    scripts = {attributes.get("type") for attributes in page.tags("script")}
    assert scripts <= {None, "application/json"}
    assert page.tags("img") == page.tags("i") == []
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert SCRIPT in page.text and ATTRIBUTE in page.text
    values = {value for _, attributes in page.elements for value in attributes.values()}
    assert {f"={SCRIPT}", f"={ATTRIBUTE}", SCRIPT, ATTRIBUTE} <= values
    copied = [attributes.get("data-copy") or "" for attributes in page.tags("button")]
    assert any(file.endswith(f"/{ODD_FILE}") for file in copied)


def test_every_image_of_a_gallery_is_there_with_what_the_model_says(finished: Path) -> None:
    page = parsed(finished / "report" / "index.html")
    n_train = len(read_csv(finished / "influence/Hara/influence_hara_0.csv"))
    assert len(tiles_of(page, "Hara")) == len(tiles_of(page, "Random")) == n_train
    printed = read_csv(finished / "summary/predictions.csv")
    assert len(printed) == n_train
    assert printed["confidence"].between(0.5, 1).all()
    assert "image not found" not in page.text
    assert "Hara: most harmful" in page.text and "Random: first in a random order" in page.text
    for quantity in ("predicted change of the validation loss", "place in a random order, from 0"):
        assert f"Column influence of its files: {quantity}" in page.text


def test_the_page_says_how_it_was_made(finished: Path) -> None:
    text = parsed(finished / "report" / "index.html").text
    (run,) = json.loads((finished / "runs.json").read_text())
    assert run["command"] in text
    assert "'" in run["command"] and run["seconds"] > 0 and run["written"] > 0
    for words in ("nnabla", "1.39.0", "n_epochs", "seeds of the trials", "infl_results_sgd/"):
        assert words in text


# ---------------------------------------------------------------- afterwards


def test_afterwards_the_same_page_is_made_from_the_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = folder / "report" / "index.html"
    before = page.read_bytes()
    shutil.rmtree(page.parent)
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(page.resolve())
    assert page.read_bytes() == before


def test_no_report_leaves_it_out_and_nothing_else(folder: Path, finished: Path) -> None:
    output = folder.parent / "without"
    small = "-ds digits -e 1 -nt 1 -r 0 --n_train 30 --n_val 20 --n_test 20 --model mlp"
    assert sgd_influence(output, "--methods Random --no_report", small) == 0
    assert not (output / "report").exists()
    assert main([str(output)]) == 0
    text = parsed(output / "report" / "index.html").text
    assert "Nothing was removed in this run" in text
    assert "Only one method scored the images" in text
    assert "--no_report" in text


def test_images_that_are_gone_are_named(folder: Path) -> None:
    table = read_csv(folder / "influence/Hara/influence_hara_0.csv")
    gone = table[IMAGE][0]
    os.rename(gone, f"{gone}.away")
    try:
        page = parsed(write_page(OutputFolder(folder)))
    finally:
        os.rename(f"{gone}.away", gone)
    assert "1 image could not be read" in page.text
    assert gone in page.text
    assert "image not found" in page.text


def test_galleries_are_thinned_and_that_is_said(folder: Path) -> None:
    facts = Facts.read(OutputPaths(folder))
    whole = page_of(facts)
    thinned = page_of(facts, len(whole) - 1)
    assert len(thinned) < len(whole)
    assert "only the 20 worst and the 10 best images" in parsed(thinned).text
    assert len(tiles_of(parsed(thinned), "Hara")) == 30
    assert "To stay below 5 MB" not in parsed(whole).text


def recommends(out: Path, text: str) -> None:
    """Write a recommendation as a hand would."""
    (out / "summary" / "recommendation.json").write_text(text)


def changed(field: str, value: Any) -> str:
    """A recommendation with a field of its verdict changed."""
    whole = {"version": 2, "rule": "", "what_if": "", "validation": "", "methods": {}}
    return json.dumps(whole | {"overall": VERDICT | {field: value}})


def spoiled_count(folder: Path) -> None:
    """A number of images of a class that is none."""
    row = dict.fromkeys(QUALITY, "") | {"fact": "images", "value": "many"}
    pd.DataFrame([row]).to_csv(folder / "summary/image_quality.csv", index=False)


@pytest.mark.parametrize(
    ("spoil", "printed"),
    [
        (lambda out: shutil.rmtree(out), "no such folder"),
        (lambda out: (out / "manifest.json").unlink(), "holds no run"),
        (lambda out: (out / "summary/summary.csv").unlink(), "its run is not finished"),
        (lambda out: (out / "summary/summary.csv").write_text(""), "summary.csv: cannot be read"),
        (lambda out: (out / "summary/summary.csv").write_text("a\n1\n"), "no column val_loss"),
        (lambda out: (out / "summary/classes.csv").write_text("a\n1\n"), "no column label"),
        (lambda out: (out / "summary/predictions.csv").write_text("a\n1\n"), "no column x:image"),
        (lambda out: (out / "summary/duplicates.csv").write_text("a\n1\n"), "no column group"),
        (lambda out: spoiled_count(out), "image_quality.csv: is incomplete"),
        (lambda out: recommends(out, '{"version": 2}'), "json: is incomplete (rule is missing)"),
        (lambda out: recommends(out, "[]"), "recommendation.json: cannot be read"),
        (lambda out: recommends(out, changed("n", "some")), "recommendation.json: cannot be read"),
        (lambda out: recommends(out, changed("reason", 5)), "recommendation.json: cannot be"),
        (lambda out: recommends(out, changed("test_accuracy", "")), "recommendation.json: cannot"),
    ],
)
def test_what_is_no_finished_run_is_said_in_one_line(
    spoil, printed: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(folder)
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("python -m utils.page: error: ") and printed in line


def test_a_rerun_into_the_folder_leaves_the_results_as_they_are(
    folder: Path, finished: Path
) -> None:
    write_page(OutputFolder(folder))
    assert contents(folder) == contents(finished)
    assert (folder / "manifest.json").read_bytes() == (finished / "manifest.json").read_bytes()


# ---------------------------------------------------------------- what the other stages found


VERDICT = {
    "method": "Hara", "n": 3, "reason": "It gains <b>more</b> than noise.", "n_trials": 2,
    "trials_disagree": "1 of 2 trials loses", "expected_gain_points": 1.25,
    "interval_points": [0.5, 2.0], "test_accuracy": 0.875, "test_accuracy_no_removal": 0.8612,
    "test_gain_points": 1.38, "test_interval_points": [-0.1, 2.5], "best_tried": None,
}  # fmt: skip
NONE: dict[str, Any] = VERDICT | {
    "method": None, "n": 0, "expected_gain_points": 0.0, "interval_points": [0.0, 0.0],
    "best_tried": {"method": "Hara", "n": 5, "expected_gain_points": 0.4,
                   "interval_points": [-0.2, 0.9], "test_accuracy": 0.86, "test_gain_points": -0.1,
                   "test_interval_points": [-0.7, 0.4]},
}  # fmt: skip


GAINS = {"Hara": [{"n": 3, "points": 1.5, "interval_points": [0.5, 2.5]}], "Random": []}


def recommend(folder: Path, overall: dict, what_if: str = "", validation: str = "") -> Parsed:
    """The page of the folder with another recommendation."""
    methods = {"Hara": VERDICT, "Random": NONE | {"method": "Random"}}
    value = {"version": 2, "rule": "The rule.", "measure": "val_probability", "what_if": what_if}
    value |= {"validation": validation, "overall": overall, "methods": methods, "gains": GAINS}
    OutputFolder(folder).save_json(value, folder / "summary" / "recommendation.json")
    return parsed(write_page(OutputFolder(folder)))


def test_the_verdict_to_remove(folder: Path) -> None:
    text = recommend(folder, VERDICT).text
    for words in (
        "Remove the 3 images that Hara ranks worst.", "87.50%", "86.12%",
        "+1.38", "95 % interval −0.10 to +2.50", "+1.25", "95 % interval +0.50 to +2.00",
        "1 of 2 trials loses", "The rule.", "Validation loss",
        "the mean probability of the validation labels decides",
        "It gains <b>more</b> than noise.", "Mean probability of the validation labels (decides)",
        "Hara, n = 3: 1.5 points", "Mean of 2 trials; band: 95 % interval",
    ):  # fmt: skip
        assert words in text


def test_the_verdict_to_remove_none(folder: Path) -> None:
    text = recommend(folder, NONE).text
    assert "Remove none." in text
    assert "changes by +0.40 (−0.20 to +0.90) points, test accuracy by −0.10 (" in text
    assert "with these images removed" not in text


def test_ours_bears_the_name_of_its_author_on_the_page(folder: Path) -> None:
    text = recommend(folder, VERDICT | {"method": "Ours"}).text
    assert "Remove the 3 images that Ours (Suzuki) ranks worst." in text


def test_the_closest_candidate_is_named_once_on_the_card(folder: Path) -> None:
    best = NONE["best_tried"] | {"method": "Hara_exact", "n": 1000}
    reason = "Hara_exact n = 1000 came closest: too little"
    page = recommend(folder, NONE | {"reason": reason, "best_tried": best})
    card = page.text.partition("Accuracy against")[0]
    assert "Hara exact n = 1000 came closest: too little." in card
    assert "Validation accuracy changes by +0.40" in card
    assert "Hara_exact" not in card and "Closest candidate" not in card
    other = recommend(folder, NONE | {"reason": "nothing helps", "best_tried": best})
    assert "Closest candidate: Hara exact, n = 1,000; validation accuracy" in other.text


@pytest.mark.parametrize(("rows", "words"), [("0,0.98,0", "It says nothing"), ("0,0.98,1", "0.98")])
def test_the_smoothness_of_a_training_that_learnt_nothing(
    rows: str, words: str, folder: Path
) -> None:
    header = "method,seed,group,kind,size,predicted,true\nHara,0,random 1,random,3,0.1,0.2\n"
    (folder / "summary/verification.csv").write_text(header)
    (folder / "summary/smoothness.csv").write_text(f"seed,smoothness,learnt\n{rows}\n")
    text = parsed(write_page(OutputFolder(folder))).text
    assert words in text
    assert ("It says nothing" in text) == rows.endswith("0")


def test_an_interval_of_no_width_is_left_out(folder: Path) -> None:
    nothing = {"expected_gain_points": 0.0, "interval_points": [0.0, 0.0]}
    text = recommend(folder, NONE | {"best_tried": {**NONE["best_tried"], **nothing}}).text
    assert "changes by 0 points, test accuracy by −0.10 (−0.70 to +0.40)." in text


def test_a_run_without_removals_recommends_nothing(tmp_path: Path) -> None:
    assert sgd_influence(tmp_path, "-r 0 --model mlp --methods Random") == 0
    text = parsed(tmp_path / "report/index.html").text
    assert "Nothing was removed, so nothing is recommended." in text
    assert "Remove none" not in text
    assert "What each method would remove" not in text


def test_a_what_if_is_said(folder: Path) -> None:
    assert "Not for use." in recommend(folder, VERDICT, "not for use").text
    assert "Not for use." not in recommend(folder, VERDICT).text


def test_validation_images_of_the_same_data_are_said(folder: Path) -> None:
    for verdict in (VERDICT, NONE):
        assert "Of the same data." in recommend(folder, verdict, "", "of the same data").text


def test_a_recommendation_of_another_version_counts_as_none(folder: Path) -> None:
    OutputFolder(folder).save_json({"version": 99}, folder / "summary" / "recommendation.json")
    text = parsed(write_page(OutputFolder(folder))).text
    assert "No recommendation is recorded in this folder." in text


def test_labels_by_models_trained_without_the_image_go_first(folder: Path) -> None:
    ranking = read_csv(folder / "influence/Hara/influence_hara_0.csv").head(3)
    removed = ranking[[IMAGE, LABEL, "influence"]].assign(rank=[1, 2, 3])
    removed["suggested_label"] = [1 - removed[LABEL][0], removed[LABEL][1], None]
    removed["confidence"] = [0.9876, 0.51, None]
    (folder / "cleansed").mkdir(exist_ok=True)
    removed.to_csv(folder / "cleansed/Hara_removed_3.csv", index=False)
    text = recommend(folder, VERDICT).text
    assert "98.8\xa0%\xa0*" in text and "51\xa0%\xa0*" in text
    assert "classes of the 3 worst" in text


def forget_which_list_is_the_last(paths: OutputPaths) -> None:
    """As earlier versions wrote it: the largest list counts."""
    value = json.loads(paths.recommendation.read_text("utf-8"))
    del value["cleansed"]
    paths.recommendation.write_text(json.dumps(value), "utf-8")


def test_lists_that_a_person_changed_beyond_use_are_passed_over(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths, ranking = OutputPaths(folder), read_csv(folder / "influence/Hara/influence_hara_0.csv")
    forget_which_list_is_the_last(paths)
    removed = ranking[[IMAGE, LABEL, "influence"]].head(3).assign(rank=[1, 2, 3], confidence=0.9)
    paths.removed("Hara", 3).parent.mkdir(exist_ok=True)
    for n, label, separator in ((3, 1, ","), (5, "dog", ","), (7, 1, ";")):
        table = removed.assign(suggested_label=label)
        table.to_csv(paths.removed("Hara", n), index=False, sep=separator)
    facts = Facts.read(paths)
    assert facts.removed_files["Hara"] == paths.removed("Hara", 3)
    for n in (5, 7):
        assert f"{paths.removed('Hara', n)}: was edited and cannot be read" in caplog.text
    assert "cleansed/Hara_removed_3.csv" in parsed(write_page(OutputFolder(folder))).text


def test_a_card_shows_what_the_models_of_its_own_method_predict(folder: Path) -> None:
    paths = OutputPaths(folder)
    forget_which_list_is_the_last(paths)
    first = read_csv(paths.influence("Hara", 0)).head(2)
    for method, confidences in (("Hara", [0.91, None]), ("Random", [0.52, 0.53])):
        removed = first[[IMAGE, LABEL, "influence"]].assign(rank=[1, 2])
        removed = removed.assign(suggested_label=1, confidence=confidences)
        paths.removed(method, 2).parent.mkdir(exist_ok=True)
        removed.to_csv(paths.removed(method, 2), index=False)
    facts = Facts.read(paths)
    printed = {
        view.name: {
            tile.file: (tile.confidence, tile.left_out) for tile in (*view.harmful, *view.helpful)
        }
        for view in method_views(facts, 40, 20)
    }
    final = read_csv(paths.predictions).set_index(IMAGE)["confidence"]
    for number, file in enumerate(first[IMAGE]):
        own = ("91\xa0%", True), (percent(final[file]), False)
        assert printed["Hara"][file] == own[number]
        assert printed["Random"][file] == (("52\xa0%", "53\xa0%")[number], True)


def test_methods_that_neither_agree_nor_dispute_show_no_images() -> None:
    places = pd.DataFrame({"Hara": np.arange(10) / 10, "AUM": np.roll(np.arange(10), 3) / 10})
    assert _compared(places, 1) == ([], [0])
    assert _compared(places.assign(AUM=places["Hara"]), 2) == ([0, 1], [])
    assert _compared(places.assign(AUM=0.45), 1) == ([], [])
    agreed, disputed = _compared(places, 5)
    assert agreed == [3, 4] and set(disputed) == {0, 1, 2, 6, 7}


def test_flipped_labels_are_counted_among_the_worst(folder: Path) -> None:
    worst = read_csv(folder / "influence/Hara/influence_hara_0.csv").head(5)
    flipped = worst[["datasource_index", IMAGE]].assign(
        label=1 - worst[LABEL], flipped_to=worst[LABEL], seed=0
    )
    flipped.iloc[[0, 4]].to_csv(folder / "summary/flipped_labels.csv", index=False)
    text = parsed(write_page(OutputFolder(folder))).text
    n_images = len(read_csv(folder / "influence/Hara/influence_hara_0.csv"))
    assert f"2 of the {n_images} images have a label that was flipped on purpose" in text
    numbers = " ".join(text.split("Flipped labels among the worst")[-1].split())
    assert "3 1 " in numbers and "5 2 " in numbers
    assert text.count("flipped, was ") == 4  # two images, in the galleries of two methods


# ---------------------------------------------------------------- copies and facts


def test_copies_are_shown_side_by_side(folder: Path) -> None:
    files = read_csv(folder / "influence/Hara/influence_hara_0.csv")[IMAGE]
    pair = [1, "two labels", 0, files[0], "5", SCRIPT, "training", files[1], "9", "b", "test"]
    pd.DataFrame([pair], columns=DUPLICATES).to_csv(folder / "summary/duplicates.csv", index=False)
    page = parsed(write_page(OutputFolder(folder)))
    (both,) = [number for number, (_, a) in enumerate(page.elements) if a.get("class") == "both"]
    pictures = [a["class"] for _, a in page.elements[both:] if "pic " in (a.get("class") or "")]
    assert len(set(pictures[:2])) == 2
    text = " ".join(page.text.split())
    assert "The same picture under two labels: 1 pair One of the two labels is wrong." in text
    assert f"given {SCRIPT} training row 5" in text and "given b test row 9" in text
    assert "the same pixels" in text


def test_similar_pictures_are_not_called_the_same(folder: Path) -> None:
    files = read_csv(folder / "influence/Hara/influence_hara_0.csv")[IMAGE]
    ends = [files[0], "5", SCRIPT, "training", files[1], "9", "b", "test"]
    kinds = [(0, 2), (1, 1), (4, 14)]  # distance, pairs
    rows = [[1, "two labels", distance, *ends] for distance, n in kinds for _ in range(n)]
    pd.DataFrame(rows, columns=DUPLICATES).to_csv(folder / "summary/duplicates.csv", index=False)
    text = " ".join(parsed(write_page(OutputFolder(folder))).text.split())
    assert "The same picture under two labels: 2 pairs" in text
    assert "Similar pictures under two labels: 15 pairs" in text
    assert text.count("the same pixels") == 2 + 1  # a pair each, and the explanation
    assert text.count("The first 12 pairs are shown.") == 1


def test_every_table_scrolls_within_its_box(folder: Path) -> None:
    page = parsed(write_page(OutputFolder(folder)))
    assert len(page.tags("table")) > 5
    assert page.tables_in_boxes == len(page.tags("table"))


def test_an_interval_that_is_not_there_has_no_name(folder: Path) -> None:
    none = {"interval_points": [0.5, 0.5], "test_interval_points": [0.0, 0.0]}
    text = recommend(folder, VERDICT | none).text
    assert "95 % interval" not in text.split("Mean of 2 trials; band: 95 % interval")[0]
    assert "test gain (points of accuracy)" in text


def test_images_that_facts_hold_for_are_shown(folder: Path) -> None:
    file = read_csv(folder / "influence/Hara/influence_hara_0.csv")[IMAGE][0]
    rows = [["images", "30", "", "nan", "training", *[""] * 4]]
    rows += [["odd size", "346", "<= 16 or >= 64", "nan", "training", file, "2", "400", "300"]] * 13
    pd.DataFrame(rows, columns=QUALITY).to_csv(folder / "summary/image_quality.csv", index=False)
    text = " ".join(parsed(write_page(OutputFolder(folder))).text.split())
    assert "class training nan 30" in text
    assert "Odd size: 13 images" in text and "Limit: ≤ 16 or ≥ 64. The first 12 are shown." in text
    assert text.count("346 · nan") == 12


def test_a_run_without_checks_has_neither(folder: Path) -> None:
    (folder / "summary/duplicates.csv").unlink()
    (folder / "summary/image_quality.csv").unlink()
    text = parsed(write_page(OutputFolder(folder))).text
    assert "Facts about the images" not in text and "Copies" not in text


# ---------------------------------------------------------------- rankings and pictures


def test_places_over_trials_are_mean_rank_fractions() -> None:
    first, second = (
        pd.DataFrame({IMAGE: list(names), LABEL: 0, "influence": values}, index=map(ord, names))
        for names, values in (("abcd", [-4.0, -3, 1, 2]), ("ecab", [-1.0, 0, 3, 5]))
    )
    joined = ranked([first, second]).set_index(IMAGE)
    assert joined["place"].to_dict() == {
        "a": 0.25, "b": 0.5, "c": 0.375, "d": 0.75, "e": 0.0
    }  # fmt: skip
    assert list(joined.index) == ["e", "a", "c", "b", "d"]
    assert joined.loc["a", "influence"] == -0.5
    assert joined["rank"].tolist() == [1, 2, 3, 4, 5]


def test_overlap_by_chance_counts_images_of_few_trials_as_often_as_they_come_first() -> None:
    assert overlap_by_chance(np.full(1000, 2), 100) == 0.1
    n_trials = np.repeat([1, 4], [500, 500])
    rng, overlaps = np.random.default_rng(1), []
    for _ in range(200):
        first = [set(np.argsort([rng.random(n).mean() for n in n_trials])[:100]) for _ in range(2)]
        overlaps.append(len(first[0] & first[1]) / 100)
    assert np.mean(overlaps) > 0.15
    assert overlap_by_chance(n_trials, 100) == pytest.approx(np.mean(overlaps), abs=0.01)


def test_small_pictures_stay_exact_and_large_ones_become_small(tmp_path: Path) -> None:
    small = picture(tmp_path / "small.png")
    large = picture(tmp_path / "large.png", size=(900, 600))
    uris = data_uris([str(small), str(large), str(tmp_path / "none.png")])
    assert uris[str(small)].startswith("data:image/png;base64,")
    assert uris[str(large)].startswith("data:image/jpeg;base64,")
    assert len(uris[str(large)]) < 30_000
    assert uris[str(tmp_path / "none.png")] == ""


# ---------------------------------------------------------------- in a browser


@pytest.fixture(params=[(1280, False), (1280, True), (390, False), (390, True)], ids=str)
def opened(request: pytest.FixtureRequest, finished: Path) -> Iterator[browser.Page]:
    width, dark = request.param
    with browser.opened(finished / "report" / "index.html", width, dark) as page:
        yield page


@needs_browser
def test_it_opens_without_an_error_and_fits(opened: browser.Page, tmp_path: Path) -> None:
    assert opened.logged == []
    assert [url for url in opened.requested if not url.startswith("data:image/")][1:] == []
    width = opened.evaluate("innerWidth")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def visible(method: str, given: str = "") -> str:
    """An expression: how many tiles of a method, and of one class, are seen."""
    return (
        f"[...document.querySelectorAll('[data-method=\"{method}\"] [data-given]')].filter("
        f"t => t.offsetParent && (!{json.dumps(given)} || t.dataset.given === "
        f"{json.dumps(given)})).length"
    )


def choose(select: str, value: str) -> str:
    """An expression that chooses a value as a person does."""
    return (
        f"(s => {{ s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')) }})"
        f"(document.getElementById('{select}'))"
    )


@needs_browser
def test_the_filters_work(finished: Path) -> None:
    with browser.opened(finished / "report" / "index.html") as page:
        everything = page.evaluate(visible("Hara"))
        of_class = page.evaluate(visible("Hara", SCRIPT))
        assert page.evaluate(visible("Random")) == 0
        assert 0 < of_class < everything
        page.evaluate(choose("given", f"={SCRIPT}"))
        assert page.evaluate(visible("Hara")) == of_class
        assert page.evaluate("document.getElementById('copied').textContent") == (
            f"{of_class} images shown"
        )
        page.evaluate(choose("method", "Random"))
        assert page.evaluate(visible("Hara")) == 0
        assert page.evaluate(visible("Random")) == page.evaluate(visible("Random", SCRIPT)) > 0
        page.evaluate(choose("given", ""))
        assert page.evaluate(visible("Random")) == everything
        assert page.logged == []


@needs_browser
def test_paths_are_copied(finished: Path) -> None:
    with browser.opened(finished / "report" / "index.html") as page:
        page.evaluate("navigator.clipboard.writeText = async (text) => { window.text = text }")
        page.evaluate(choose("given", f"={SCRIPT}"))
        page.evaluate("document.getElementById('all').click()")
        table = read_csv(finished / "influence/Hara/influence_hara_0.csv")
        assert set(page.evaluate("window.text").split("\n")) == set(table[table[LABEL] == 1][IMAGE])
        page.evaluate("document.querySelector('[data-method=Hara] [data-copy]').click()")
        assert page.evaluate("window.text") == table[IMAGE][0]


@needs_browser
def test_the_pictures_are_drawn(finished: Path) -> None:
    with browser.opened(finished / "report" / "index.html") as page:
        drawn = "getComputedStyle(document.querySelector('.pic'))"
        assert page.evaluate(f"{drawn}.backgroundImage").startswith('url("data:image/png;base64,')
        assert page.evaluate(f"{drawn}.imageRendering") == "pixelated"


@needs_browser
def test_a_script_that_got_in_would_not_run(folder: Path) -> None:
    page = folder / "report" / "index.html"
    html = page.read_text().replace("</main>", "<script>document.title='run'</script></main>")
    page.write_text(html)
    with browser.opened(page) as opened_page:
        assert opened_page.evaluate("document.title") != "run"
        assert "Content Security Policy" in " ".join(opened_page.logged)
