"""Laws of refusals: one printable line, whatever stands in file names and files."""

import pickle

import pytest

from losslandscape.errors import InputError
from losslandscape.files.lock import TakenOver


@pytest.mark.parametrize("kind", [InputError, TakenOver])
def test_a_refusal_is_one_printable_line(kind):
    error = kind("can't read a\nerror: b\r\x1b[2J\x07\udcff\x9b.h5; give ö山")
    assert str(error) == "can't read a?error: b??[2J???.h5; give ö山"


def test_a_refusal_is_the_same_on_every_rank():
    error = InputError("expected a\tb, got c")
    error.agreed = True
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InputError and copy.args == error.args and copy.agreed
