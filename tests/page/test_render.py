import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pages import DIGEST, HOSTILE, hostile, layered, manifest, stats, tensor, verified

from converter.errors import MismatchError
from converter.finding import Finding
from converter.manifest import DropRecord, StandInRecord, Statistics
from converter.page.render import render
from converter.verify import Verification

VOID = {"meta", "link", "img", "br", "hr", "input", "base"}


class Read(HTMLParser):
    """The elements and attributes of a page; every element that opens has to close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


@pytest.fixture(scope="module")
def page() -> str:
    return render(
        verified(
            manifest(
                *layered(6),
                tensor("norm.weight", 64, sources=()),
                dropped=[DropRecord("old.mask", "F32", (4,), "rebuilt", "lower_triangular")],
                stand_ins=[StandInRecord("norm.weight", "ones", ("old.norm",))],
                aliases={"head.weight": "embedding.weight"},
            )
        )
    )


def test_a_page_is_whole_html(page: str) -> None:
    read = Read(page)
    assert page.startswith("<!doctype html>")
    assert read.open == []
    ids = [value for name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {"findings", "provenance", "lineage", "weights", "left-out", "tensors"} <= set(ids)


def test_every_link_leads_to_a_place_on_the_page(page: str) -> None:
    read = Read(page)
    ids = {value for name, value in read.attributes if name == "id"}
    links = [value for name, value in read.attributes if name == "href"]
    assert len(links) > 5
    for link in links:
        assert link is not None
        assert link.startswith("data:") or link.removeprefix("#") in ids


def test_a_page_holds_no_script_and_forbids_every_access(page: str) -> None:
    read = Read(page)
    assert not {"script", "iframe", "object", "embed", "form", "base", "img"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    policies = [value or "" for name, value in read.attributes if name == "content"]
    assert any(policy.startswith("default-src 'none'; ") for policy in policies)
    assert not re.search(r"(?:https?:)?//[a-z]", page.replace("http://www.w3.org/2000/svg", ""))
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", page)
    assert "@import" not in page


def test_everything_that_a_manifest_says_is_on_the_page(page: str) -> None:
    text = Read(page).text
    for said in (
        "A toy",
        "nowhere",
        "rms_norm",
        "toy.yaml",
        "source.safetensors",
        DIGEST,
        "checkpoint-converter 1.2.3, numpy 2.0",
        "layers.{0..5}.fc2.weight",
        "old.layers.3.fc2.weight",
        "old.mask",
        "rebuilt",
        "lower_triangular",
        "filled with ones",
        "head.weight",
        "3 tensors of the source are out of scope",
        "Its structure holds.",
    ):
        assert said in text, said
    for record in layered(6):
        assert record.name in text
        assert record.sha256 in text


def test_texts_of_strangers_stay_texts() -> None:
    made = hostile()
    page = render(verified(made))
    read = Read(page)
    assert HOSTILE in read.text
    assert not {"script", "img"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert read.tags.count("style") == 1


def test_texts_of_strangers_in_findings_stay_texts() -> None:
    finding = Finding(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    read = Read(render(replace(verified(manifest(tensor("w", 4))), findings=(finding,))))
    assert HOSTILE in read.text
    assert not {"script", "img"} & set(read.tags)


def test_characters_that_steer_the_eye_are_escaped() -> None:
    page = render(verified(manifest(tensor("w", 4, sources=["evil\u202egnp.exe\u200b"]))))
    assert "\u202e" not in page
    assert "evil\\u202egnp.exe\\u200b" in page


def test_the_same_manifest_gives_the_same_page(page: str) -> None:
    about = verified(manifest(*layered(3)))
    assert render(about) == render(about)


def test_a_page_does_not_say_where_the_directory_lay() -> None:
    finding = Finding("extra", "a file that is not listed", str(Path("/secret/out/x.txt")))
    about = replace(verified(manifest(tensor("w", 4))), findings=(finding,))
    page = render(replace(about, directory=Path("/secret/out")))
    assert "secret" not in page
    assert "x.txt" in page


def test_differences_are_said_first() -> None:
    finding = Finding("differs", "totals differs", "manifest.json", expected="1", got="2")
    page = render(replace(verified(manifest(tensor("w", 4))), findings=(finding,)))
    text = Read(page).text
    assert "1 difference." in text
    assert "Its structure holds" not in text
    places = [text.index(said) for said in ("1 difference.", "totals differs", "Converted by")]
    assert places == sorted(places)


def test_a_check_of_every_byte_is_said_to_be_one() -> None:
    about = replace(verified(manifest(tensor("w", 4))), data_bytes=16)
    assert "Every byte is what the manifest says: 16 B of data" in Read(render(about)).text


def test_suspicious_weights_are_warned_of_and_outliers_are_told() -> None:
    fresh = [tensor(f"layers.{i}.w", 64, 64, statistics=stats(0, 0.02)) for i in range(8)]
    odd = tensor("layers.8.w", 64, 64, statistics=stats(0, 0.5))
    text = Read(render(verified(manifest(*fresh, odd)))).text
    assert "most matrices have mean 0 and one common standard deviation" in text
    assert "std 0.5 is 25 of the median of its kind" in text


@pytest.mark.parametrize("std", [1.7e308, 5e-324, 0.0])
def test_statistics_at_the_ends_of_what_a_number_can_be_have_a_page(std: float) -> None:
    extreme = Statistics(-1.7e308, std, -1.7e308, 1.7e308, 0)
    layers = [tensor(f"layers.{i}.w", 64, 64, statistics=extreme) for i in range(6)]
    usual = [tensor(f"layers.{i}.v", 64, 64, statistics=stats(0.1)) for i in range(5)]
    page = render(verified(manifest(*layers, *usual, replace(layers[0], name="layers.5.v"))))
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+|[a-z]+nan", "", Read(page).text.lower())


def test_a_model_without_tensors_has_a_page() -> None:
    assert "No tensor has statistics." in render(verified(manifest()))


def test_without_a_manifest_there_is_no_page() -> None:
    finding = Finding("missing", "not a canonical directory")
    with pytest.raises(MismatchError, match="not a canonical directory"):
        render(Verification(Path("x"), None, (finding,), 0))


def test_a_page_about_thousands_of_tensors_stays_small() -> None:
    kinds = [f"{letter}.weight" for letter in "abcdefghijklmnopq"]
    tensors = [tensor(f"layers.{i}.{kind}", 64, 64) for i in range(120) for kind in kinds]
    page = render(verified(manifest(*tensors)))
    assert len(page) < 1000 * len(tensors)
    assert page.count("<details>") == len(kinds)


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours. Source: WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        digits = colour if len(colour) == 6 else "".join(c + c for c in colour)
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_all_text_can_be_told_from_what_is_behind_it_by_day_night_and_on_paper(page: str) -> None:
    palettes = re.findall(r":root\{([^}]*)\}", page)
    assert len(palettes) == 3
    for palette in palettes:
        colours = dict(re.findall(r"--([a-z0-9-]+):#([0-9a-f]{3,6})(?=[;]|$)", palette))
        for ink in ("ink", "muted", "accent", "good", "warn", "bad"):
            for behind in ("paper", "raised"):
                assert contrast(colours[ink], colours[behind]) >= 4.5, (ink, behind)
        for ink in ("good", "warn", "bad"):
            assert contrast(colours[ink], colours[f"{ink}-soft"]) >= 4.5
            assert contrast(colours["muted"], colours[f"{ink}-soft"]) >= 4.5
