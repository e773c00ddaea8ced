"""A bundle file that is wrong by itself: exit 3, with file and line, and all that is wrong."""

from pathlib import Path
from textwrap import dedent

import pytest

from converter import api
from converter.errors import RuleError
from converter.finding import Finding
from converter.rules import bundle_file

GOOD = """
    format: 1
    bundle: pair
    title: A pair
    sources:
      lm: {file: lm.safetensors}
      decoder: {file: some/decoder.safetensors, source_prefix: net.}
    members:
      lm: {source: lm, model: soprano-lm}
      decoder: {source: decoder, model: soprano-decoder}
    agree:
      - that: lm.hidden == decoder.input
        because: one reads the other
    """


def write(folder: Path, text: str) -> Path:
    path = folder / "pair.yaml"
    path.write_text(dedent(text).lstrip("\n"))
    return path


def faults(folder: Path, old: str, new: str) -> list[tuple[int, Finding]]:
    """Return the findings of lint for an edited file, each with its line."""
    assert old in GOOD
    found = api.lint(write(folder, GOOD.replace(old, new)))
    for finding in found:
        assert str(finding.where).startswith(f"{folder / 'pair.yaml'}:")
    return [(int(str(finding.where).rpartition(":")[2]), finding) for finding in found]


def test_a_bundle_file_says_what_it_says(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert api.lint(path) == ()
    bundle = bundle_file.load(path)
    assert bundle.sources["decoder"].source_prefix == "net."
    assert bundle.members_of("decoder") == ["decoder"]
    assert bundle.members["lm"].model == "soprano-lm"
    assert [item.that.text for item in bundle.agree] == ["lm.hidden == decoder.input"]


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("format: 1", "format: 2", 1, "format does not fit the schema"),
        ("title: A pair", "titel: A pair", 3, "the file has no field 'titel'"),
        ("{file: lm.safetensors}", "{file: /lm.safetensors}", 5, "does not fit the schema"),
        ("{file: lm.safetensors}", "{file: ../lm.safetensors}", 5, "does not fit the schema"),
        ("{file: lm.safetensors}", "{file: some/decoder.safetensors}", 6, "two sources are one"),
        ("lm: {source: lm", "Lm: {source: lm", 8, "does not fit the schema"),
        ("lm: {source: lm", "../lm: {source: lm", 8, "does not fit the schema"),
        ("lm: {source: lm, model: soprano-lm}", "lm: {source: lm}", 8, "lacks the field 'model'"),
        ("soprano-lm}", "soprano-lm, rules: a.yaml}", 8, "does not fit the schema"),
        ("soprano-lm}", "soprano-lm, dtype: BF16}", 8, "has no field 'dtype'"),
        ("soprano-lm}", "soprano-ml}", 8, "a model that does not come with this package"),
        ("model: soprano-lm}", "rules: absent.yaml}", 8, "there is no such rule file"),
        ("soprano-lm}", "soprano-lm, variant: [full]}", 8, "soprano-lm has no variant 'full'"),
        ("soprano-lm}", "soprano-lm, dims: {layer: 2}}", 8, "soprano-lm has no dim 'layer'"),
        ("{source: lm,", "{source: ml,", 8, "reads a source that the bundle does not list"),
        ("lm.hidden ==", "lm.hidden = ", 11, "is not an integer expression"),
        ("lm.hidden ==", "ml.hidden ==", 11, "mentions a member that the bundle does not have"),
        ("lm.hidden ==", "lm.hiden ==", 11, "mentions what lm does not have"),
        ("lm.hidden ==", "hidden ==", 11, "a condition between members that names none"),
        ("lm.hidden ==", "lm.audio ==", 11, "has no value: they are of different kinds"),
        ("lm.hidden ==", "lm.layers ==", 11, "members do not agree"),
        ("because: one reads the other", "reason: none", 12, "has no field 'reason'"),
        ("title: A pair", "title: &a A pair", 3, "anchor"),
    ],
)
def test_a_fault_is_told_with_its_line(
    old: str, new: str, line: int, what: str, tmp_path: Path
) -> None:
    found = faults(tmp_path, old, new)
    assert (line, True) in [(number, what in finding.what) for number, finding in found]


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("soprano-lm}", "soprano-ml}", "did you mean 'soprano-lm'?"),
        ("source: decoder", "source: decode", "did you mean 'decoder'?"),
        ("decoder.input", "decodr.input", "did you mean 'decoder'?"),
        ("decoder.input", "decoder.inputs", "did you mean 'decoder.input'?"),
    ],
)
def test_what_may_have_been_meant_is_said(old: str, new: str, hint: str, tmp_path: Path) -> None:
    assert hint in [finding.hint for _, finding in faults(tmp_path, old, new)]


def test_all_faults_are_told_in_one_run(tmp_path: Path) -> None:
    text = GOOD.replace("source: lm", "source: ml").replace("decoder.input", "decodr.input")
    with pytest.raises(RuleError) as caught:
        bundle_file.load(write(tmp_path, text))
    whats = [finding.what for finding in caught.value.findings]
    assert len(whats) == 3
    assert whats[1] == "a source that no member reads"


def test_faults_of_all_members_are_told_in_one_run(tmp_path: Path) -> None:
    text = GOOD.replace("soprano-lm}", "soprano-ml}").replace("decoder}", "decoder, variant: [x]}")
    assert [finding.code for finding in api.lint(write(tmp_path, text))] == [
        "unknown-model",
        "usage",
    ]


def test_dims_that_break_a_requirement_are_the_file_s_own_fault(tmp_path: Path) -> None:
    found = api.lint(write(tmp_path, GOOD.replace("soprano-lm}", "soprano-lm, dims: {heads: 0}}")))
    assert found[0].code == "require"
    assert found[0].what.startswith("lm: the dims break a requirement")
    with pytest.raises(RuleError):
        api.plan_bundle(str(tmp_path / "pair.yaml"), tmp_path)


def test_rules_of_one_s_own_lie_beside_the_bundle_file(tmp_path: Path) -> None:
    (tmp_path / "my").mkdir()
    rules = "format: 1\nmodel: mine\ntitle: Mine\norigin: here\ndtypes: [F32]\ndims: {hidden: 4}\n"
    (tmp_path / "my" / "mine.yaml").write_text(
        f"{rules}rules:\n  - from: a\n    to: {{b: [hidden]}}\n"
    )
    text = GOOD.replace("model: soprano-lm}", "rules: my/mine.yaml, dims: {hidden: 512}}")
    assert api.lint(write(tmp_path, text)) == ()


def test_what_is_no_bundle_file_is_linted_as_a_rule_file(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("model: x\n")
    assert any("'format'" in finding.what for finding in api.lint(tmp_path / "x.yaml"))
    assert "cannot be read" in api.lint(tmp_path / "absent.yaml")[0].what


@pytest.mark.parametrize("path", api.bundle_paths(), ids=lambda path: path.stem)
def test_a_shipped_bundle_bears_the_name_of_its_file_and_has_no_fault(path: Path) -> None:
    assert bundle_file.load(path).bundle == path.stem
    assert api.lint(path) == ()
