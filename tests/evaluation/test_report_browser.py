"""The report in a browser: no complaint, nothing fetched, cases walked and marked by keys, marks saved."""

from __future__ import annotations

import pytest
import yaml

from medseg.data.review import read_marks
from medseg.evaluation.report.page import render_report
from tests.browser import browsing, chromium
from tests.evaluation.test_report import context

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
MARKS = "document.getElementById('marks-text').value"
HERE = "document.querySelector('.here').dataset.case"

SIFT = """(() => {
  const list = document.querySelector('[data-filter=kind]');
  list.value = 'worst';
  list.dispatchEvent(new Event('change'));
})()"""
LEFT = "[...document.querySelectorAll('article.case')].filter(a => !a.hidden).map(a => a.dataset.case)"


def test_cases_are_walked_and_marked_by_keys_and_the_marks_come_out_as_yaml(tmp_path):
    hostile = "case1'\"</script><b>: {x"
    known = context()
    rows = [r | {"case": hostile} if r["case"] == "case1" else r for r in known.rows]
    overlays = [o if o.case != "case1" else type(o)(**{**vars(o), "case": hostile}) for o in known.overlays]
    page = render_report(context(rows=rows, overlays=tuple(overlays)), tmp_path)
    with browsing(tmp_path) as tab:
        tab.open(page.as_uri())
        order = tab.ask("[...document.querySelectorAll('article.case')].map(a => a.dataset.case)")
        assert hostile in order
        tab.press("ArrowRight", "f", "n")
        tab.call("Input.insertText", text='wrong "side"\\: p f x')
        tab.press("Escape", "ArrowRight", "x", "ArrowRight", "p", "p", "ArrowLeft")
        assert tab.ask(HERE) == order[1]
        (tmp_path / "marks.yaml").write_text(tab.ask(MARKS))
        assert read_marks(tmp_path / "marks.yaml") == {order[0]: "fail", order[1]: "fix"}
        assert yaml.safe_load(tab.ask(MARKS))["marks"][0]["note"] == 'wrong "side"\\: p f x'
        for case in order:
            tab.ask(f"[...document.querySelectorAll('article.case')][{order.index(case)}].click()")
            tab.press("p")
        (tmp_path / "marks.yaml").write_text(tab.ask(MARKS))
        assert read_marks(tmp_path / "marks.yaml") == dict.fromkeys(order, "pass")
        tab.open("about:blank")
        tab.open(page.as_uri())
        assert yaml.safe_load(tab.ask(MARKS))["marks"][0]["mark"] == "pass"  # kept over a reload
        tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        tab.press("s")
        saved = tab.wait_for(lambda: list((tmp_path / "saved").glob("marks.yaml")))
        assert read_marks(saved[0]) == dict.fromkeys(order, "pass")
        tab.ask(SIFT)
        assert tab.ask(LEFT) == order[:2]
        assert tab.problems == []
        assert [a for a in tab.asked if not a.startswith(("data:", "file:", "blob:"))] == []


def test_the_page_is_whole_without_its_script_and_prints_without_its_tools(tmp_path):
    page = render_report(context(), tmp_path)
    with browsing(tmp_path) as tab:
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.open(page.as_uri())
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
        seen = "getComputedStyle(document.querySelector('{}')).display"
        assert tab.ask(seen.format(".triage")) == "none"
        assert tab.ask(seen.format("article.case")) == "block"
        tab.call("Emulation.setEmulatedMedia", media="print")
        assert [tab.ask(seen.format(s)) for s in ("nav", "#gallery", "#tally")] == ["none"] * 3
        assert tab.ask("document.documentElement.scrollWidth <= innerWidth + 1")
        assert tab.problems == []
