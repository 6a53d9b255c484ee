"""The command line gives the losses that libraries give; all rows: benchmarks/libraries.py.

Takes about 30 s on one core.
"""

import runpy

import pytest

from tests.conftest import ROOT

SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "libraries.py"), run_name="libraries")


@pytest.mark.parametrize("name", ["LoraOntoBase", "TimmAverage", "FsdpWhole", "WebShards"])
def test_the_loss_is_what_the_library_says_of_its_file(name, tmp_path):
    case = SCRIPT["CASES"][name]
    for package in case.packages:
        pytest.importorskip(package)
    result = SCRIPT["measure_quietly"](case, tmp_path / "case")
    assert result["expected"], result
