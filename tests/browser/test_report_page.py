"""The page as a browser has it: nothing is fetched, nothing complains, nothing runs over."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import chromium
import pytest
from pages import hostile, layered, manifest, stats, tensor, verified
from toy import convert, toy_tensors
from toy_bundle import convert_toys, write_toys

from converter import api
from converter.page.render import render

SECTIONS = ["findings", "provenance", "lineage", "weights", "left-out", "tensors"]
SIZES = {"desk": (1200, 900), "tablet": (768, 1024), "phone": (390, 844), "small": (320, 640)}

# What would be read aloud of each picture, and which headings there are, in their order.
UNNAMED = """[...document.querySelectorAll('svg[role=img], [role=img], [role=region]')]
  .filter(e => !(e.getAttribute('aria-label') || '').trim()).length"""
BARE_SVG = "document.querySelectorAll('svg:not([role=img]):not([aria-hidden=true])').length"
HEADINGS = "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])"
# Elements that stick out of the window, but for those that may be scrolled by themselves.
STICKING_OUT = """[...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !e.closest('.scroll');
}).map(e => e.tagName + '.' + (e.className.baseVal ?? e.className))"""
# Texts of the lineage that run over the edge of their picture, or into each other.
OVERLAPPING = """(() => {
  const found = [];
  for (const svg of document.querySelectorAll('svg.lineage')) {
    if (!svg.getBoundingClientRect().width) continue;
    const frame = svg.viewBox.baseVal;
    const boxes = [...svg.querySelectorAll('text')].map(t => [t.getBBox(), t.textContent]);
    for (const [b, text] of boxes)
      if (b.x < -1 || b.x + b.width > frame.width + 1 || b.y < -1) found.push(text);
    for (let i = 0; i < boxes.length; i++)
      for (let j = i + 1; j < boxes.length; j++) {
        const [a, b] = [boxes[i][0], boxes[j][0]];
        const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
        const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
        if (across > 1 && down > 4) found.push(boxes[i][1] + ' | ' + boxes[j][1]);
      }
  }
  return found;
})()"""


@pytest.fixture(scope="module")
def page() -> Iterator[chromium.Page]:
    program = chromium.find()
    if program is None:
        why = "no Chromium is found; on Debian: apt-get install chromium"
        if os.environ.get("BROWSER_TESTS") == "required":
            pytest.fail(why)
        pytest.skip(why)
    with chromium.opened(program) as opened:
        yield opened


@pytest.fixture(scope="module")
def toy_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    convert(folder, toy_tensors())
    return api.report(folder / "out", folder / "report.html", values=True, jobs=1).out


@pytest.fixture(scope="module")
def bundle_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    write_toys(folder)
    convert_toys(folder)
    return api.report(folder / "out", folder / "report.html", jobs=1).out


@pytest.fixture(scope="module")
def long_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page with long names, many layers, warnings and outliers; return its path."""
    long = "encoder.transformer_block_with_a_long_name.attention.output_projection"
    split = {"split": {"dim": 0, "sizes": [64, 64, 64, 64, 64, 64, 64, 64]}}
    tensors = [
        *layered(48),
        *(tensor(f"{long}.{i}.{long}.weight", 64, 64) for i in range(12)),
        *(
            tensor(f"{long}.{i}.part_{leaf}", 8, 8, sources=[f"{long}.{i}.fused"], steps=[split])
            for i in range(3)
            for leaf in "abcdefgh"
        ),
        tensor("layers.48.fc1.weight", 256, 64, statistics=stats(0, 5, nonfinite=3)),
    ]
    path = tmp_path_factory.mktemp("long") / "report.html"
    path.write_text(render(verified(manifest(*tensors))), encoding="utf-8")
    return path


@pytest.fixture(params=["toy_page", "bundle_page", "long_page"])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_the_browser_of_these_tests_tells_what_a_page_complains_of_and_asks_for(
    page: chromium.Page, tmp_path: Path
) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<!doctype html><script>console.error('oh'); throw 1</script>"
        "<img src='absent.png'><div style='width:3000px; height:9px'></div>"
    )
    page.size(390, 844)
    page.open(path)
    complaints = " ".join(page.complaints())
    for method in ("consoleAPICalled", "exceptionThrown", "entryAdded"):
        assert method in complaints
    assert len(page.requests()) == 2
    assert page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert page.evaluate(STICKING_OUT)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dark", [False, True], ids=["day", "night"])
def test_nothing_is_fetched_and_nothing_complains_and_nothing_runs_over(
    page: chromium.Page, path: Path, size: str, dark: bool
) -> None:
    width, height = SIZES[size]
    page.size(width, height, mobile=width < 700)
    page.dark(on=dark)
    page.open(path)
    assert page.complaints() == []
    assert page.requests() == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(STICKING_OUT) == []
    assert page.evaluate(OVERLAPPING) == []


def test_all_sections_are_there_and_can_be_reached(page: chromium.Page, toy_page: Path) -> None:
    page.size(*SIZES["desk"])
    page.open(toy_page)
    for section in SECTIONS:
        assert page.evaluate(f"document.querySelector('#{section}').offsetHeight") > 30
    links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert links == SECTIONS


def test_members_of_a_bundle_can_be_reached(page: chromium.Page, bundle_page: Path) -> None:
    page.size(*SIZES["phone"])
    page.open(bundle_page)
    links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash)")
    assert links == ["#bundle", "#left-member", "#right-member"]
    for link in links:
        assert page.evaluate(f"!!document.querySelector('{link}')")


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_one_picture_of_each_lineage_is_shown(
    page: chromium.Page, long_page: Path, size: str
) -> None:
    page.size(*SIZES[size])
    page.open(long_page)
    shown = "[...document.querySelectorAll('svg.lineage')].filter(e => e.clientWidth)"
    kinds = page.evaluate(f"{shown}.map(e => e.classList[1])")
    assert set(kinds) == {"wide" if size == "desk" else "narrow"}
    assert len(kinds) == page.evaluate("document.querySelectorAll('figure.lane').length")


def test_tensors_are_folded_and_open_on_a_click(page: chromium.Page, toy_page: Path) -> None:
    page.size(*SIZES["phone"])
    page.open(toy_page)
    row = "document.querySelector('details tbody tr')"
    assert page.evaluate(f"{row}.checkVisibility()") is False
    page.evaluate("document.querySelectorAll('summary').forEach(e => e.click())")
    assert page.evaluate(f"{row}.checkVisibility()") is True
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(STICKING_OUT) == []


def test_pictures_have_names_and_headings_leave_no_level_out(
    page: chromium.Page, path: Path
) -> None:
    page.size(*SIZES["desk"])
    page.open(path)
    assert page.evaluate("document.querySelectorAll('[role=img]').length") > 5
    assert page.evaluate(UNNAMED) == 0
    assert page.evaluate(BARE_SVG) == 0
    headings = page.evaluate(HEADINGS)
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))


def test_texts_of_strangers_do_nothing(page: chromium.Page, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(render(verified(hostile())), encoding="utf-8")
    page.size(*SIZES["desk"])
    page.open(path)
    assert page.complaints() == []
    assert page.requests() == [path.as_uri()]
    foreign = "script,img,iframe,object,embed,form,base,meta[http-equiv=refresh],a[href^='java' i]"
    assert page.evaluate(f"document.querySelectorAll(`{foreign}`).length") == 0
    handlers = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
    assert page.evaluate(f"{handlers}.filter(name => name.startsWith('on'))") == []
    assert page.evaluate("document.body.textContent.includes('<img src=x onerror=alert(1)>')")


def test_a_script_would_be_refused_by_the_page_itself(
    page: chromium.Page, toy_page: Path, tmp_path: Path
) -> None:
    path = tmp_path / "injected.html"
    injected = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'></main>"
    path.write_text(toy_page.read_text().replace("</main>", injected))
    page.open(path)
    assert page.evaluate("window.ran ?? null") is None
    assert "Content Security Policy" in " ".join(page.complaints())


def test_it_can_be_printed(page: chromium.Page, path: Path) -> None:
    page.size(*SIZES["phone"])
    page.dark(on=True)
    page.open(path)
    page.do("Emulation.setEmulatedMedia", media="print")
    page.size(700, 900)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    pdf = page.pdf()
    page.do("Emulation.setEmulatedMedia", media="")
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 20_000


def test_a_page_with_differences_says_so_in_the_colour_of_errors(
    page: chromium.Page, toy_page: Path, tmp_path: Path
) -> None:
    from converter.finding import Finding

    about = replace(verified(manifest(*layered(2))), findings=(Finding("size", "it is short"),))
    path = tmp_path / "bad.html"
    path.write_text(render(about), encoding="utf-8")
    page.dark(on=False)
    colour = "getComputedStyle(document.querySelector('.verdict strong')).color"
    page.open(path)
    bad = page.evaluate(colour)
    page.open(toy_page)
    assert bad == "rgb(179, 34, 27)" != page.evaluate(colour)
