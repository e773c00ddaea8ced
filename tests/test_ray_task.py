"""What a worker does by itself, and what it refuses; none of it needs the engine."""

import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from toy import convert, toy_tensors, write_rules, write_source

from converter import __version__, api
from converter.errors import ConverterError, ExecutionError, SourceError, ValueRefusedError
from converter.finding import Finding
from converter.ray_task import Home, Made, Part, digest_file, here, make_part, see
from converter.shards import parts_of
from converter.source import SourceFile, open_source
from converter.spec import Header

ELSEWHERE = replace(here(), machine="elsewhere")


def parts(folder: Path, tensors: dict[str, object] | None = None) -> Iterator[Part]:
    """The parts of a conversion of the toy into ``folder / "out"``, in files of one tensor."""
    source = write_source(folder, tensors or toy_tensors())  # type: ignore[arg-type]
    plan = api.plan(source, rules=write_rules(folder), max_shard_size="16B")
    (folder / "out").mkdir()
    with open_source(source) as opened:
        seen = (see(opened.files[0]),)
        header = opened.header
    for piece in parts_of(plan):
        yield Part(piece, dict(header), seen, folder / "out", jobs=1)


def finding(answer: object, kind: type[ConverterError]) -> Finding:
    assert isinstance(answer, kind)
    (found,) = answer.findings
    return found


# What is made


def test_every_part_makes_one_file_as_the_whole_conversion_does(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    convert(tmp_path / "whole", toy_tensors(), max_shard_size="16B")
    made = [make_part(here(), part) for part in parts(tmp_path)]
    names = []
    for answer in made:
        assert isinstance(answer, Made)
        for record in answer.shards.files:
            names.append(record.name)
            whole = (tmp_path / "whole" / "out" / record.name).read_bytes()
            assert (answer.folder / record.name).read_bytes() == whole
    assert names == [path.name for path in sorted((tmp_path / "whole" / "out").glob("*-of-*"))]
    assert len(names) > 10


def test_a_part_that_is_made_again_removes_what_an_earlier_attempt_left(tmp_path: Path) -> None:
    part = list(parts(tmp_path))[3]
    first, second = make_part(here(), part), make_part(here(), part)
    assert isinstance(first, Made)
    assert isinstance(second, Made)
    assert [second.folder] == list((tmp_path / "out").iterdir())
    assert first.folder != second.folder
    assert first.shards == second.shards


def test_a_source_file_is_digested(tmp_path: Path) -> None:
    source = write_source(tmp_path, toy_tensors())
    with open_source(source) as opened:
        record = digest_file(here(), see(opened.files[0]))
        assert getattr(record, "sha256", None) == opened.sha256(opened.files[0])


# What is refused


def test_values_are_refused_as_they_are_everywhere(tmp_path: Path) -> None:
    tensors = toy_tensors()
    tensors["net.layers.1.qkv"][0, 0] = float("nan")
    answers = [make_part(ELSEWHERE, part) for part in parts(tmp_path, dict(tensors))]
    refused = [answer for answer in answers if isinstance(answer, ValueRefusedError)]
    assert len(refused) == 3, "the tensor is split into three files, and made for each"
    found = {finding(answer, ValueRefusedError) for answer in refused}
    assert [item.tensor for item in found] == ["blocks.1.q.weight"]
    assert all("elsewhere" not in str(item) for item in found)


def test_a_source_that_is_not_there_is_told_with_the_name_of_the_machine(tmp_path: Path) -> None:
    part = next(parts(tmp_path))
    (tmp_path / "toy.safetensors").unlink()
    found = finding(make_part(ELSEWHERE, part), SourceError)
    assert found.code == "absent"
    assert found.where == f"{tmp_path / 'toy.safetensors'} on {here().machine}"
    assert found.hint is not None
    assert "same path" in found.hint


def test_on_the_machine_where_it_began_it_is_told_as_without_a_cluster(tmp_path: Path) -> None:
    part = next(parts(tmp_path))
    (tmp_path / "toy.safetensors").unlink()
    with pytest.raises(SourceError) as caught, open_source(tmp_path / "toy.safetensors"):
        pass
    assert finding(make_part(here(), part), SourceError) == caught.value.findings[0]


def test_a_target_that_is_not_there_is_told_with_the_name_of_the_machine(tmp_path: Path) -> None:
    part = list(parts(tmp_path))[1]
    (tmp_path / "out").rmdir()
    found = finding(make_part(ELSEWHERE, part), ExecutionError)
    assert found.code == "io"
    assert found.where == f"{tmp_path / 'out'} on {here().machine}"
    assert not (tmp_path / "out").exists(), "it is not made, which would hide the mistake"


def test_a_file_of_another_time_is_another_file(tmp_path: Path) -> None:
    part = next(parts(tmp_path))
    os.utime(tmp_path / "toy.safetensors", (0, 0))
    for answer in (make_part(here(), part), digest_file(here(), part.files[0])):
        found = finding(answer, SourceError)
        assert found.code == "changed"
        assert found.got is not None
        assert found.got.endswith("bytes, last changed 1970-01-01 00:00:00+00:00")


def test_a_file_of_another_size_is_another_file(tmp_path: Path) -> None:
    part = next(parts(tmp_path))
    seen = part.files[0]
    other = SourceFile(seen.file.name, seen.file.path, seen.file.size_bytes + 1)
    answer = make_part(here(), replace(part, files=(replace(seen, file=other),)))
    assert finding(answer, SourceError).code == "changed"


def test_another_header_is_another_file(tmp_path: Path) -> None:
    part = next(parts(tmp_path))
    header: Header = {**part.header, "net.none": part.header["net.head"]}
    found = finding(make_part(here(), replace(part, header=header)), SourceError)
    assert (found.code, found.got) == ("changed", "net.none: absent")


@pytest.mark.parametrize("package", ["checkpoint-converter", "numpy"])
def test_another_version_makes_nothing(tmp_path: Path, package: str) -> None:
    ours = {"checkpoint-converter": __version__, "numpy": version("numpy")}
    assert here().versions == ours
    part = list(parts(tmp_path))[1]
    answer = make_part(Home("elsewhere", {**ours, package: "0.0"}), part)
    found = finding(answer, ExecutionError)
    assert (found.code, found.expected, found.got) == ("version", "0.0", ours[package])
    assert not list((tmp_path / "out").iterdir())
