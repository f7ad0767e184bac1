"""The report's page in a real browser: it asks nobody for anything, says what the tables say, and fits a phone and paper."""

from __future__ import annotations

import datetime as dt
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, QUALITY, RUNS
from etl.errors import EXIT_BAD_INPUT
from labeling.report import __main__ as report
from labeling.report.training import tracked
from model.tracking import TensorBoard
from tests.delta_data import lay, run_row
from tests.needs import require_or_skip
from tests.report_shop import CURVE, HOSTILE, HOSTILE_TERM, NEXT, SECRET, lay_down_shop
from tests.rows import DS

PHONE, DESK = {"width": 360, "height": 740}, {"width": 1200, "height": 900}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def write(root: Path, ds: dt.date, *more: str) -> Path:
    assert report.main(["--root", str(root), "--ds", str(ds), *more]) == 0
    return root / "reports" / f"ds={ds}" / "report.html"


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    lay_down_shop(root)
    return root


@pytest.fixture(scope="module")
def page_file(laid: Path) -> Path:
    return write(laid, NEXT)


@pytest.fixture
def shop(laid: Path, root: Path) -> Path:
    """A copy of the two nights for one test."""
    return shutil.copytree(laid, root, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's browser, which the packaged driver of playwright talks to."""
    require_or_skip("chromium")
    from playwright.sync_api import sync_playwright  # starts nothing where there is no browser

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(chromium: Any, page_file: Path) -> dict[str, Any]:
    """The page on a phone, and all that the browser said and asked for meanwhile."""
    page = chromium.new_page(viewport=PHONE)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    return {"page": page, "said": said, "asked": [url for url in asked if not url.startswith("data:")]}


def test_the_browser_has_nothing_to_complain_of_and_asks_for_nothing_but_the_file(opened, page_file):
    assert opened["said"] == []
    assert [url.rsplit("/", 1)[1] for url in opened["asked"]] == [page_file.name]
    pictures = opened["page"].locator("img")
    assert pictures.count() >= 8
    assert pictures.evaluate_all("all => all.filter(i => !i.naturalWidth || !i.alt).length") == 0


def test_a_page_that_asked_for_something_would_be_told_of(chromium, page_file, tmp_path):
    curious = page_file.read_text().replace("</main>", '<img src="https://canary.invalid/x.png" alt="x"></main>')
    (tmp_path / "curious.html").write_text(curious)
    said: list[str] = []
    page = chromium.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "curious.html").as_uri())
    assert "Content Security Policy" in said[0]


def test_key_numbers_are_those_of_the_tables(opened, laid):
    def table(name: str) -> pl.DataFrame:
        return pl.read_delta(str(laid / name)).filter(pl.col("ds") == NEXT)

    terms, changes, quality = table("item_terms"), table("label_changes"), table("quality")
    checks = dict(quality.select("check", "value").iter_rows())
    expected = {
        "items": table("item_categories").height,
        "with-term": terms["term_id"].is_not_null().sum() / terms["item_id"].n_unique(),
        "with-category": table("item_categories")["category_id"].is_not_null().mean(),
        "changed": changes.filter(~pl.col("what").str.ends_with("_confidence")).height,
        "calibration-error": checks["item_terms.calibration_error"],
        "psi": checks["item_terms.labels_psi"],
        "warnings": (~quality["passed"]).sum(),
        "minutes": table("runs")["seconds"].sum() / 60,
    }
    found = opened["page"].locator(".headlines data").evaluate_all("all => all.map(d => [d.id, Number(d.value)])")
    assert dict(found) == pytest.approx(expected)


def rows(opened: dict[str, Any], part: str, heading: str) -> list[list[str]]:
    """Cells of the table under a heading."""
    place = opened["page"].locator(f"#{part} h3", has_text=heading).first
    cells = "h => [...h.nextElementSibling.querySelectorAll('tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    return place.evaluate(cells)


def test_churn_is_told_by_kind_and_by_cause(opened):
    beside = {row[0]: row[1] for row in rows(opened, "churn", "best term")}
    assert beside == {
        "the same": "77", "another": "1", "one now, none before": "0", "none now, one before": "1", "new item": "0",
        "item gone": "1",
    }  # fmt: skip
    causes = {(row[0], row[1]): row[2] for row in rows(opened, "churn", "by cause")}
    assert causes == {
        ("gone", "gone_item"): "1", ("term", "clicks"): "1", ("term", "title"): "1", ("term_confidence", "clicks"): "2",
    }  # fmt: skip


def test_movers_are_those_that_gained_and_lost_items(opened):
    assert rows(opened, "movers", "Best terms") == [[HOSTILE_TERM, "0", "1", "+1"], ["kettle", "80", "77", "-3"]]


def test_checks_that_did_not_pass_stand_first_and_say_so_in_words(opened):
    found = rows(opened, "gates", "checks of run")
    assert [row[:2] for row in found[:2]] == [["item_terms.labels_psi", "warning"], ["item_categories.abstention", "passed"]]
    assert opened["page"].locator("header .result").text_content() == "warning"
    assert opened["page"].locator("#gates td code").first.text_content() == "labeller train"


def test_the_calibration_curve_is_of_the_held_out_clicks(opened):
    found = rows(opened, "calibration", "Stated and clicked")
    cases = [int(row[3]) for row in found]
    assert sum(cases) == 78  # of 79 items one has no term
    # Every fourth item was clicked for another term, and i02 has one that nobody clicked it for.
    assert sum(round(float(row[1]) * count) for row, count in zip(found, cases, strict=True)) == 79 - 20 - 2
    assert opened["page"].locator("#calibration img").get_attribute("alt").startswith("Reliability diagram: stated 0.75")


def test_what_a_title_or_a_term_brings_is_shown_as_text_and_does_nothing(opened):
    page = opened["page"]
    samples = page.locator("#samples").inner_text()
    assert HOSTILE_TERM in page.locator("#movers").inner_text()
    assert page.title() == f"Labels of {NEXT}: warning"
    assert page.locator("script").count() == 0
    assert page.locator("img:not([src^='data:'])").count() == 0
    assert all(title in samples for title in HOSTILE)


def test_no_query_is_on_the_page(page_file):
    assert SECRET not in page_file.read_text()


def test_a_phone_scrolls_inside_of_tables_and_never_the_page(opened):
    page = opened["page"]
    assert page.evaluate(OVERFLOW) == 0
    assert page.locator(".scroll").evaluate_all("all => all.some(s => s.scrollWidth > s.clientWidth)")
    hidden = page.locator(".scroll").evaluate_all(
        "all => all.filter(s => s.tabIndex !== 0 || !s.ariaLabelledByElements).length"
    )
    assert hidden == 0


def test_headings_and_tables_are_marked_up_for_readers_who_do_not_see_them(opened):
    page = opened["page"]
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.locator("thead th:not([scope=col]), tbody th:not([scope=row])").count() == 0
    ids = page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("html").get_attribute("lang") == "en"


CONTRAST = """() => {
  const light = c => { const v = c / 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 };
  const lum = rgb => { const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number).map(light);
    return .2126 * r + .7152 * g + .0722 * b };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!c.endsWith(', 0)')) return c } return 'rgb(255, 255, 255)' };
  return [...document.querySelectorAll('body *')].filter(e => e.innerText).map(e => {
    const [a, b] = [getComputedStyle(e).color, ground(e)].map(lum).sort((x, y) => y - x);
    return (a + .05) / (b + .05) }).reduce((x, y) => Math.min(x, y)) }"""
"""Least contrast of a text with what is behind it (WCAG 2)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_either_scheme(chromium, page_file, scheme):
    page = chromium.new_page(color_scheme=scheme)
    page.goto(page_file.as_uri())
    assert page.evaluate(CONTRAST) >= 4.5


def test_it_prints_without_navigation_and_without_loss_at_the_margin(chromium, page_file, tmp_path):
    page = chromium.new_page(viewport={"width": 720, "height": 900})
    page.goto(page_file.as_uri())
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.evaluate(OVERFLOW) == 0
    wide = page.locator(".scroll").evaluate_all("all => all.filter(s => s.scrollWidth > s.clientWidth + 1).length")
    assert wide == 0
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") > 2


def test_the_same_tables_make_the_same_page(shop, page_file):
    root = str(page_file.parents[2])
    assert write(shop, NEXT).read_text().replace(str(shop), root) == page_file.read_text()


# ---------------------------------------------------------------- what is missing is said in words


def test_the_first_night_has_nothing_to_compare_with_and_says_so(laid):
    text = write(laid, DS).read_text()
    for said in (
        f"item_terms has no day before {DS}", "nobody can have moved", "Nothing to compare with yet",
        "before: not on record", "label_changes has nothing of this day",
    ):  # fmt: skip
        assert said in text


def test_a_bundle_that_is_gone_takes_its_training_and_its_curve_with_it(shop):
    shutil.rmtree(shop / "bundles")
    text = write(shop, NEXT).read_text()
    assert "is gone, and its training" in text
    assert "is gone, and with it how queries are compared" in text


def test_a_warehouse_without_taxonomy_has_terms_alone(shop):
    for name in ("taxonomy", "item_categories"):
        shutil.rmtree(shop / name)
    (shop / "warehouse.toml").write_text('[warehouse]\nabsent = ["taxonomy"]\n')
    text = write(shop, NEXT).read_text()
    assert "No categories: the warehouse declares its taxonomy absent." in text
    assert '<data class="number" id="with-term"' in text
    assert 'id="with-category"' not in text


def test_a_warehouse_without_vocabulary_has_categories_alone(shop):
    for name in ("vocabulary", "item_terms"):
        shutil.rmtree(shop / name)
    (shop / "warehouse.toml").write_text('[warehouse]\nabsent = ["vocabulary"]\n')
    text = write(shop, NEXT).read_text()
    assert "No terms: the warehouse declares its vocabulary absent." in text
    assert 'id="with-term"' not in text


def test_labels_that_no_run_is_on_record_of_are_shown_all_the_same(shop):
    for name in ("runs", "quality", "label_changes", "pairs"):
        shutil.rmtree(shop / name)
    text = write(shop, NEXT).read_text()
    for said in ("quality has no audit of this run", "runs has no stage of this day", f"pairs has no clicks of {NEXT}"):
        assert said in text
    assert 'id="items" value="79"' in text


# ---------------------------------------------------------------- a night that is not live


def refuse(shop: Path, published: bool) -> None:
    """Stage a run of the second night in which all items have lost their term, and an audit that refuses it."""
    again = {"run_id": f"{NEXT}-r2"}
    for name, table in (("item_terms", ITEM_TERMS), ("item_categories", ITEM_CATEGORIES)):
        rows = pl.read_delta(str(shop / name)).filter(pl.col("ds") == NEXT).to_dicts()
        lost = dict.fromkeys(("term_id", "term", "probability")) | {"rank": 0, "reason": "low_probability"}
        lay(shop / "staging" / name, table, [row | again | (lost if table is ITEM_TERMS else {}) for row in rows])
        if not published:
            DeltaTable(str(shop / name)).delete(f"ds = '{NEXT}'")
    if not published:
        DeltaTable(str(shop / "runs")).delete(f"ds = '{NEXT}' AND stage = 'publish'")
    DeltaTable(str(shop / "runs")).delete(f"ds = '{NEXT}' AND stage = 'audit'")
    at = dt.datetime.combine(NEXT + dt.timedelta(days=2), dt.time(), dt.UTC)
    lay(shop / "runs", RUNS, [run_row("audit", NEXT, counts='{"failed": 1}', finished_at=at) | again])
    check = {"check": "item_terms.abstention", "hard": True, "value": 1.0, "expected": "at most 0.5", "passed": False}
    lay(shop / "quality", QUALITY, [{"ds": NEXT, **check, **again}])


@pytest.mark.parametrize("published", [False, True])
def test_a_night_that_its_audit_refused_shows_what_is_staged_and_why_it_stays_there(shop, published, capsys):
    refuse(shop, published)
    text = write(shop, NEXT).read_text()
    for said in (
        f"Labels of {NEXT}: failed", f"Run {NEXT}-r2 with", "it is staged only, and what was live before stays live",
        "item_<wbr>terms.<wbr>abstention", 'id="with-term" value="0.0"', "1 checks of run",
    ):  # fmt: skip
        assert said in text
    assert (shop / "reports" / f"ds={NEXT}" / "report.md").read_text().startswith(f"# Labels of {NEXT}, staged only\n")
    asked = re.findall(r"-c '(import polars as pl; print\(.*\))'", capsys.readouterr().out)[-1]
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert "item_terms.abstention" in told.stdout


def test_a_refused_rerun_whose_staging_upkeep_has_emptied_shows_what_was_published(shop):
    refuse(shop, published=True)
    shutil.rmtree(shop / "staging")
    write(shop, NEXT)
    assert (shop / "reports" / f"ds={NEXT}" / "report.md").read_text().startswith(f"# Labels of {NEXT}\n")


def test_a_day_without_any_labels_is_refused_by_name(shop, capsys):
    assert report.main(["--root", str(shop), "--ds", "2024-06-01"]) == EXIT_BAD_INPUT
    assert "holds no labels for 2024-06-01" in capsys.readouterr().err


# ---------------------------------------------------------------- how it is laid down

FILES = ("report.json", "report.md", "report.html", "categories_risk.png")


def write_truth(root: Path) -> None:
    for table, column, value in (("item_terms", "term_id", "t1"), ("item_categories", "category_id", "h1")):
        (root / "truth" / table).mkdir(parents=True)
        rows = {"item_id": ["i00", "i01"], column: [value, value], "lacks_term": [True, False]}
        pl.DataFrame(rows).write_parquet(root / "truth" / table / "part.parquet")
    (root / "truth" / "oracle.json").write_text("{}")


def test_links_in_the_place_of_its_files_are_replaced_and_not_written_through(shop, tmp_path):
    write_truth(shop)
    outside, directory = tmp_path / "outside", shop / "reports" / f"ds={NEXT}"
    outside.write_text("mine")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name in (*FILES, ".report.html", ".report.json.tmp"):
        (directory / name).symlink_to(outside)
    write(shop, NEXT)
    assert outside.read_text() == "mine"
    for name in FILES:
        assert not (directory / name).is_symlink()
        assert (directory / name).stat().st_size > 1_000


def test_a_report_for_which_there_is_no_room_leaves_the_one_before(shop):
    directory = write(shop, NEXT).parent
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    command = [sys.executable, "-m", "labeling.report", "--root", str(shop), "--ds", str(NEXT), "--items", "3"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))  # noqa: E731 (of the other process alone)
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert "File too large" in done.stderr
    assert done.returncode != 0
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


# ---------------------------------------------------------------- curves of a training


def curves_of(directory: Path, losses: list[float]) -> dict[str, Any]:
    writer = TensorBoard(directory)
    writer.open(0, {}, {})
    for (step, _), loss in zip(CURVE, losses, strict=True):
        writer.log(step, {"loss": loss, "alignment": loss / 5})
    writer.close(failed=False)
    return tracked(directory, ("alignment", "uniformity"), [(step, loss) for step, loss in CURVE])


def test_tensorboards_curves_are_drawn_if_they_are_of_this_bundles_training(tmp_path):
    assert curves_of(tmp_path / "own", [6.0, 3.5, 2.25]) == {
        "alignment": [(20, pytest.approx(1.2)), (40, pytest.approx(0.7)), (60, pytest.approx(0.45))]
    }
    assert curves_of(tmp_path / "another", [6.0, 3.5, 2.5]) == {}
    assert tracked(tmp_path / "nothing", ("alignment",), []) == {}
