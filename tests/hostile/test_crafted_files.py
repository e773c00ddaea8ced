import resource
import time
from pathlib import Path

import pytest
import safetensors
from crafted_files import REFUSED, TAKEN, Case, container

from converter.errors import SourceError
from converter.source import open_source


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_not_plain_is_refused_in_one_line(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "crafted.safetensors"
    path.write_bytes(case())
    begun = time.process_time()
    with pytest.raises(SourceError) as caught:
        open_source(path)
    assert time.process_time() - begun < 5
    (finding,) = caught.value.findings
    assert finding.code in {"header", "json"}
    assert finding.where == str(path)
    assert "\n" not in finding.what
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
def test_an_odd_but_plain_file_is_read_as_the_library_reads_it(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "crafted.safetensors"
    path.write_bytes(case())
    theirs = dict(safetensors.deserialize(case()))  # type: ignore[no-untyped-call]
    with open_source(path) as source:
        assert source.header.keys() == theirs.keys()
        for name, spec in source.header.items():
            assert (spec.dtype, list(spec.shape)) == (theirs[name]["dtype"], theirs[name]["shape"])
            assert source.read(name) == theirs[name]["data"]


def test_a_header_of_100_megabytes_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "stuffed.safetensors"
    path.write_bytes(container(b'{"a":[' + b"1," * 49_000_000 + b"1]}"))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match="stuffed"):
        open_source(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 512 << 10
