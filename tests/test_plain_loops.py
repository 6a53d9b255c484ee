"""The value at any point is what the user's own PyTorch loop gives there, or the run is refused.

The cases are in plain_loops.py, the paths through the program in loop_paths.py. Cases of libraries
that are not installed are skipped.
"""

import json
import re

import pytest

from losslandscape.errors import InputError
from losslandscape.weight_space import directions_hash
from tests.conftest import run
from tests.loop_paths import PATHS, command_line, exceeding, origin_of, result_of
from tests.plain_loops import CASES
from tests.test_mpi import SEVERAL

ON_TWO_RANKS = (
    "Cnn", "ComplexWeights", "SeedsItself", "WeightedClasses", "Contrastive", "PaddedLanguageModel",
    "Padding", "NoiseWithSeed")


def runs(refused):
    """(case, path) of all cases that are refused, or of those that are not."""
    return [
        pytest.param(case, path, id=f"{name}-{path}")
        for name, case in CASES.items() if bool(case.refused) == refused
        for path in case.paths]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of a case, in which all its paths leave their files."""
    of_cases = {}

    def folder(case):
        if case not in of_cases:
            of_cases[case] = tmp_path_factory.mktemp(case.__name__)
        return of_cases[case]

    return folder


def import_libraries(case):
    for package in case.needs:
        pytest.importorskip(package)


@pytest.mark.parametrize("case, path", runs(refused=False))
def test_a_surface_holds_the_values_of_the_users_own_loop(case, path, folders):
    import_libraries(case)
    results = PATHS[path](case, folders(case))
    for result in results:
        assert not exceeding(case, result)


@pytest.mark.parametrize("case, path", runs(refused=True))
def test_what_has_no_such_value_is_refused_and_nothing_is_written(case, path, folders, capsys):
    import_libraries(case)
    folder = folders(case)
    if case.has_file:
        origin_of(case, folder)
    before = sorted(folder.iterdir())

    if path == "interface":
        with pytest.raises(InputError) as error:
            PATHS[path](case, folder)
        assert len(str(error.value).splitlines()) == 1
        return

    with pytest.raises(SystemExit) as ended:
        PATHS[path](case, folder)
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and last_line.startswith("error: ")
    assert re.search(case.refused, last_line), last_line
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "repeated" in case.paths])
def test_repeats_are_planes_that_differ(name, tmp_path):
    first, second = PATHS["repeated"](CASES[name], tmp_path)
    assert directions_hash(first.directions) != directions_hash(second.directions)


def test_two_ranks_give_the_values_of_the_users_own_loop(tmp_path):
    """All in one job: starting ranks is what takes the time."""
    lines = []
    for name in ON_TWO_RANKS:
        folder = tmp_path / name
        folder.mkdir()
        origin_of(CASES[name], folder)
        lines.append([*command_line(CASES[name], folder), "--surf_file", str(folder / "ranks.h5")])

    done = run("-c", SEVERAL, json.dumps(lines), ranks=2)
    assert done.returncode == 0, done.stderr
    for name in ON_TWO_RANKS:
        result = result_of(CASES[name], tmp_path / name / "ranks.h5")
        assert not exceeding(CASES[name], result), name
