"""The documentation is true: its commands run, its options are there, its links lead somewhere."""

from __future__ import annotations

import importlib
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import nnabla as nn
import numpy as np
import pytest

import eval_influence_functions
import eval_sgd_influence
import utils
from benchmarks.make_archives import write_cifar10, write_mnist
from benchmarks.reproduction_tables import filled
from docs.option_table import option_table
from tests.helpers.nnp import CLASSES, SIDE, save_model
from tests.helpers.own_images import class_folders, rows_of
from utils.data.datasets import DATASETS
from utils.methods import METHODS
from utils.options import build_parser
from utils.review.__main__ import parser as review_parser
from utils.run.command import main
from utils.training.models import MODELS
from utils.training.network import Network
from utils.training.nnp_save import nnp_of

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
README, OWN_DATA = ROOT / "README.md", ROOT / "docs" / "your_own_data.md"
OPTIONS = ROOT / "docs" / "options.md"
BY_SCRIPT = {module.COMMAND.program: module.COMMAND
             for module in (eval_sgd_influence, eval_influence_functions)}  # fmt: skip

COMMAND_LINE = re.compile(r"python (eval_\w+\.py[^`#\n]*)")
BENCHMARK_LINE = re.compile(r"python (benchmarks/\w+\.py)([^`#\n]*)")
CLUSTER = re.compile(r"--dask_scheduler (\$\(.*\)|\S+)")
"""What needs machines that the reader of a page has; the rest of the command is run without."""
MAKE_LINE = re.compile(r"^ {4}make ([\w-]+)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)")
ROW = re.compile(r"^([A-Z][A-Za-z ]{13}) (?=\S)", re.MULTILINE)
"""A row of the opening block: its name takes 15 columns."""

SMALLER = (
    "-e 1 -nt 1 -r 0 2 --n_train 20 --n_val 10 --n_test 10 --batch_size 12 --image_size 8 "
    "-o results --data_dir archives --allow_unverified_data --context cpu"
)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands of all pages, each once, without the folder that some leave to the reader."""
    pages = (re.sub(r"\\\n *", "", text_of(page)) for page in PAGES)
    found = (CLUSTER.sub("", line) for page in pages for line in COMMAND_LINE.findall(page))
    return sorted({" ".join(line.replace("CACHE", "recompute").split()) for line in found})


def smaller(command: str) -> list[str]:
    """The command's arguments, with options appended that make it take a second."""
    arguments = shlex.split(command)[1:] + SMALLER.split()
    arguments += [] if "--model" in command else ["--model", "mlp"]
    return arguments + (["--verify", "6"] if "--verify" in command else [])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who reads the pages: what they name lies there, but smaller."""
    folder = tmp_path_factory.mktemp("reader")
    archives = folder / "archives"
    archives.mkdir()
    rng, labels = np.random.default_rng(0), np.arange(60) % 10
    for side, write in ((28, write_mnist), (32, write_cifar10)):
        shape = (60, side, side) if side == 28 else (60, side, side, 3)
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        write((images[:40], labels[:40]), (images[40:], labels[40:]), archives)
    for name in ("pictures", "photos"):
        class_folders(folder / name, per_class=40)
    class_folders(folder / "images", per_class=40)
    for number, name in enumerate(("train", "valid", "test")):
        rows = [f"../images/{row}" for row in rows_of(60)[20 * number : 20 * number + 20]]
        (folder / "lists").mkdir(exist_ok=True)
        (folder / "lists" / f"{name}.csv").write_text("\n".join(["x:image,y:label", *rows, ""]))
    (folder / "nets.py").write_text(code_block(OWN_DATA, "def small("))
    save_model(folder / "net.nnp", MODELS["mlp"], channels=3, classes=2)
    return folder


def code_block(page: Path, part: str) -> str:
    """The indented block of a page that holds `part`."""
    blocks = re.findall(r"(?:^ {4}.*\n|^\n)+", text_of(page), re.MULTILINE)
    block = next(block for block in blocks if part in block)
    code = re.split(r"^ {4}python ", block, maxsplit=1, flags=re.MULTILINE)[0]
    return re.sub(r"^ {4}", "", code, flags=re.MULTILINE).strip() + "\n"


@pytest.mark.parametrize("command", commands())
def test_command_runs(
    command: str, reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for there in reader.iterdir():
        (tmp_path / there.name).symlink_to(there)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    assert main(BY_SCRIPT[command.split()[0]], smaller(command)) == 0
    assert (tmp_path / "results" / "summary" / "summary.csv").exists()
    assert (tmp_path / "results" / "fig" / "result.png").exists()


def test_commands_of_both_pages_are_found() -> None:
    for page in (README, OWN_DATA):
        assert len(COMMAND_LINE.findall(text_of(page))) >= 3


def test_a_command_with_an_option_that_is_gone_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(eval_sgd_influence.COMMAND, smaller("eval_sgd_influence.py --gone"))
    assert ended.value.code == 2
    assert "--gone" in capsys.readouterr().err


def test_sample_output_has_the_rows_of_a_run(
    reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    command = f"eval_sgd_influence.py -ds {reader / 'pictures'}"
    assert main(eval_sgd_influence.COMMAND, smaller(command)) == 0
    printed, shown = capsys.readouterr().out, code_block(OWN_DATA, "Data set ")
    assert ROW.findall(shown) == ROW.findall(printed)
    assert len(ROW.findall(printed)) > 10
    assert [
        line.partition(":")[0] for line in shown.splitlines() if "Used (estimated)" in line
    ] == [line.partition(":")[0] for line in printed.splitlines() if "Used (estimated)" in line]


def test_the_trained_net_is_loaded_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(MODELS["mlp"], (1, SIDE, SIDE), CLASSES)
    (tmp_path / "final_model.nnp").write_bytes(nnp_of(network, network.state()))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?NnpLoader.*?)```", text_of(OWN_DATA), re.DOTALL)
    images = np.random.default_rng(0).standard_normal((16, 1, SIDE, SIDE)).astype(np.float32)
    known: dict[str, Any] = {"images": images}
    exec(code, known)
    logits = network.logits(nn.Variable.from_numpy_array(images), test=True)
    logits.forward()
    assert known["net"].outputs["y"].d == pytest.approx(logits.d, abs=1e-6)


# ---------------------------------------------------------------- options


def option_strings() -> set[str]:
    """All names of options of both commands, but for the help."""
    parsers = [build_parser(command) for command in BY_SCRIPT.values()]
    names = {name for parser in parsers for name in parser._option_string_actions}
    return names - {"-h", "--help"}


def test_options_of_the_tables_are_in_the_help() -> None:
    tables = text_of(README) + text_of(OPTIONS)
    rows = re.findall(r"^\| (`-[^|]*)\|", tables, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", row)}
    assert len(named) > 30
    assert named <= option_strings()


def test_option_table_is_up_to_date() -> None:
    text = text_of(OPTIONS)
    assert filled(text, {"options": option_table()}) == text, "run python docs/option_table.py"


def test_options_of_the_help_are_in_the_pages() -> None:
    pages = "\n".join(text_of(page) for page in PAGES if page.name != "CHANGELOG.md")
    named = set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", pages))
    assert {name for name in option_strings() if name.startswith("--")} <= named


def test_backticked_options_of_the_pages_are_in_some_help() -> None:
    known = option_strings() | {name for script in benchmarks() for name in options_of(script)}
    known |= {name for action in review_parser()._actions for name in action.option_strings}
    for page in PAGES:
        named = set(re.findall(r"`(--[a-zA-Z][\w-]*)", text_of(page)))
        assert named - known <= {"--help"}, page.name


# ---------------------------------------------------------------- other commands, links


def benchmarks() -> list[str]:
    """The scripts that the pages run."""
    return sorted({script for page in PAGES for script, _ in benchmark_lines(page)})


def benchmark_lines(page: Path) -> list[tuple[str, str]]:
    return BENCHMARK_LINE.findall(text_of(page))


_HELP: dict[str, set[str]] = {}


def options_of(script: str) -> set[str]:
    """The long options that `script --help` names; the script must be there."""
    if script not in _HELP:
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
            patch.setattr(sys, "argv", [script, "--help"])
            patch.setattr(sys, "path", list(sys.path))
            with pytest.raises(SystemExit, match=r"^0$"):
                runpy.run_path(str(ROOT / script), run_name="__main__")
        _HELP[script] = set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", printed.getvalue()))
    return _HELP[script]


def test_benchmarks_have_the_options_that_the_pages_give_them() -> None:
    lines = [line for page in PAGES for line in benchmark_lines(page)]
    assert lines
    for script, arguments in lines:
        assert set(re.findall(r"--[a-zA-Z][\w-]*", arguments)) <= options_of(script), script


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^([\w-]+):(?!=)", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {name for page in PAGES for name in MAKE_LINE.findall(text_of(page))}
    assert {"demo", "test"} <= named <= targets


def test_modules_of_utils_itself_are_named() -> None:
    modules = {path.name for path in (ROOT / "utils").glob("*.py")} - {"__init__.py"}
    for text in (utils.__doc__ or "", (ROOT / "CONTRIBUTING.md").read_text()):
        assert [name for name in sorted(modules) if name not in text] == []


def test_links_lead_somewhere() -> None:
    n_links = 0
    for page in PAGES:
        for target, heading in LINK.findall(text_of(page)):
            if re.match(r"\w+:", target):
                continue
            n_links += 1
            path = page.parent / target
            assert path.exists(), f"{page.name}: {target}"
            assert not heading or heading in headings(path), f"{page.name}: {target}#{heading}"
    assert n_links > 20


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# ---------------------------------------------------------------- the examples of CONTRIBUTING.md

SMALL = "-e 1 -nt 1 -r 0 2 --n_train 20 --n_val 10 --n_test 10 --batch_size 12 -o out --context cpu"
EXAMPLES = {
    "gradient_product": "-ds digits --model mlp --methods Gradient_product Random --verify 6",
    "zero_one": "-ds zero_one --model mlp --methods Random",
    "two_layers": "-ds digits --model two_layers --methods Hara",
}
"""Per module of the page, what is run with it."""


@pytest.fixture
def own_tables() -> Iterator[None]:
    """The tables of methods, data sets and models are afterwards as they were."""
    tables: list[dict[str, Any]] = [METHODS, DATASETS, MODELS]
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def examples() -> dict[str, str]:
    """The code of CONTRIBUTING.md by the name of its module."""
    blocks = re.findall(
        r"```python\n# (\w+)\.py\n(.*?)```", text_of(ROOT / "CONTRIBUTING.md"), re.DOTALL
    )
    return dict(blocks)


def test_files_that_the_pages_name_are_there() -> None:
    folders = "utils|sgd_influence|influence_functions|tests|benchmarks|docs"
    path = re.compile(rf"`((?:{folders})/[\w/.]+)`")
    named = {(page.name, name) for page in PAGES for name in path.findall(text_of(page))}
    assert len(named) > 20
    assert [(page, name) for page, name in named if not (ROOT / name).exists()] == []


def test_every_example_is_run() -> None:
    assert set(examples()) == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.usefixtures("own_tables")
def test_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{name}.py").write_text(examples()[name], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module(name)
    arguments = [*EXAMPLES[name].split(), *SMALL.split()]
    assert main(eval_sgd_influence.COMMAND, arguments) == 0
    assert (tmp_path / "out" / "summary" / "summary.csv").exists()
