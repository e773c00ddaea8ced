import inspect
from pathlib import Path
from typing import Any

import pytest
from toy import one, toy_tensors, write_rules, write_source

from converter import api, resources
from converter.errors import ConverterError, RuleError, SourceError, UsageError

HEADERS = Path(__file__).parent / "headers"
ABSENT = Path("absent.safetensors")


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write_rules(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path, toy_tensors())


def test_everything_says_what_it_does() -> None:
    public = [item for name, item in vars(api).items() if not name.startswith("_")]
    functions = [
        item
        for item in public
        if inspect.isfunction(item) and item.__module__.startswith(api.__name__)
    ]
    assert {"convert", "plan", "verify", "lint", "inspect", "models"} <= {
        function.__name__ for function in functions
    }
    assert all(function.__doc__ for function in functions)


# What is asked for must exist before anything is opened


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "exactly one of a model and a rule file"),
        ({"model": "dit", "rules": "dit.yaml"}, "exactly one of a model and a rule file"),
        ({"model": "ditt"}, "unknown model"),
        ({"model": "dit", "variant": ("large",)}, "dit has no variant 'large'"),
        ({"model": "dit", "variant": "large"}, "dit has no variant 'large'"),
        ({"model": "dit", "dims": {"depth": 13}}, "dit has no dim 'depth'"),
        ({"model": "dit", "dims": {"layers": [13]}}, "of another kind"),
        ({"model": "dit", "dtype": "int8"}, "not a floating dtype"),
        ({"model": "dit", "dtype": "f4"}, "not a floating dtype that can be cast to"),
        ({"model": "dit", "max_shard_size": "big"}, "not a size"),
    ],
)
def test_what_does_not_exist_is_told_before_the_source_is_looked_for(
    options: dict[str, Any], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        api.plan(ABSENT, **options)
    with pytest.raises(UsageError, match=what):
        api.convert(ABSENT, "out", **options)


def test_an_argument_that_does_not_exist_is_an_error_not_a_wish(
    source: Path, rules: Path, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="no argument 'varaint'"):
        api.convert(source, tmp_path / "out", rules=rules, varaint="legacy")  # type: ignore[call-arg]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jobs", [0, -1])
def test_work_needs_a_worker(source: Path, rules: Path, tmp_path: Path, jobs: int) -> None:
    with pytest.raises(UsageError, match="number of workers"):
        api.convert(source, tmp_path / "out", rules=rules, jobs=jobs)
    with pytest.raises(UsageError, match="number of workers"):
        api.verify(tmp_path, jobs=jobs)


def test_an_absent_source_is_told_when_all_else_is_right(rules: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        api.plan(ABSENT, rules=rules)


# Choices


def test_variants_are_given_as_text_or_as_a_sequence() -> None:
    header = HEADERS / "bert-base-uncased.json"
    text = api.plan(header, model="bert", variant="legacy,pretraining,base")
    sequence = api.plan(header, model="bert", variant=["pretraining", "base", "legacy"])
    assert text.settings == sequence.settings


@pytest.mark.parametrize("name", ["bf16", "BF16", "Bf16"])
def test_a_dtype_is_known_whatever_its_case(source: Path, rules: Path, name: str) -> None:
    assert api.plan(source, rules=rules, dtype=name).targets["embedding.weight"].dtype == "BF16"


def test_paths_may_be_text(source: Path, rules: Path, tmp_path: Path) -> None:
    api.convert(str(source), str(tmp_path / "out"), rules=str(rules))
    assert api.verify(str(tmp_path / "out")).holds
    assert api.inspect(str(source)).nbytes
    assert api.lint(str(rules)) == ()


# Rule files


def test_the_models_of_the_package_are_found_by_name() -> None:
    assert [rule_file.model for rule_file in api.models()] == list(resources.rule_files())
    assert api.model("dit").title == "IndexTTS2 S2Mel flow-matching transformer"
    with pytest.raises(UsageError, match="unknown model"):
        api.model("dti")


def test_every_rule_file_of_the_package_is_without_fault() -> None:
    assert {path.stem: api.lint(path) for path in api.rule_paths()} == {
        path.stem: () for path in api.rule_paths()
    }


def test_a_fault_under_one_variant_is_found_by_lint(tmp_path: Path) -> None:
    text = one("F32", "[hidden]") + (
        "dims: {hidden: 4, heads: 2}\n"
        "require: [{that: hidden % heads == 0, because: heads are equal}]\n"
        "variants: {size: {small: {}, odd: {dims: {heads: 3}}}}\n"
    )
    (finding,) = api.lint(write_rules(tmp_path, text))
    assert "heads are equal" in finding.what
    assert str(finding.where).startswith(str(tmp_path / "toy.yaml") + ":")


def test_a_rule_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (finding,) = api.lint(tmp_path / "absent.yaml")
    assert "cannot be read" in finding.what
    with pytest.raises(RuleError):
        api.plan(ABSENT, rules=tmp_path / "absent.yaml")


def test_errors_of_the_library_are_those_of_the_command_line() -> None:
    with pytest.raises(ConverterError) as caught:
        api.plan(HEADERS / "gpt2.json", model="dit")
    assert caught.value.exit_code == 5
    assert "none of the 239 tensors" in str(caught.value)
