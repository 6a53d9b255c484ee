"""Laws of the journal of a large surface file: whole lines of the same origin count, and nothing is lost."""

import os
import zlib

import numpy as np
import pytest

from losslandscape.files import journal as journal_module
from losslandscape.files import store as store_module
from losslandscape.files.grid import Grid
from losslandscape.files.layouts import read_surface
from tests.stores import MADE_FROM, crash, files_of_at_most, hidden, large, store, values_of


def journal_with(folder, monkeypatch, points=(4, 1, 5)):
    """A killed job of a large file has left these points in its journal, saved one by one; the path of that."""
    clock = [1000.0]
    monkeypatch.setattr(store_module.time, "monotonic", lambda: clock[0])
    running = large(folder / "s.h5")
    for point in points:
        running.record(point, values_of(point) | {"train_acc": np.nan})
        clock[0] += 5
        running.save()
    crash(folder)
    assert not read_surface(folder / "s.h5").computed["train_loss"].any()
    return next(folder.glob(".*.journal"))


def test_what_a_killed_job_of_a_large_file_has_left_is_taken_up(tmp_path, monkeypatch):
    journal = journal_with(tmp_path, monkeypatch)
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == [0, 2, 3] and not journal.exists()
    found = read_surface(tmp_path / "s.h5")  # from now on it is in the file itself
    assert found.values["train_loss"].flat[5] == 50 and np.isnan(found.values["train_acc"].flat[5])
    again.close()
    assert hidden(tmp_path) == []


def test_the_file_follows_its_journal(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(store_module.time, "monotonic", lambda: clock[0])
    running = large(tmp_path / "s.h5")
    for point in range(2):
        running.record(point, values_of(point))
        clock[0] += 5
        running.save()
    assert read_surface(tmp_path / "s.h5").computed["train_loss"].sum() == 0
    running.record(2, values_of(2))
    clock[0] += 2000  # half a percent of the time
    running.save()
    assert read_surface(tmp_path / "s.h5").computed["train_loss"].sum() == 3
    assert not list(tmp_path.glob(".*.journal"))
    running.close()


@pytest.mark.parametrize("left", [-1, -3, -40, 120, 5, 0])
def test_of_a_journal_that_was_cut_off_whole_lines_count(tmp_path, monkeypatch, left):
    journal = journal_with(tmp_path, monkeypatch)
    whole = journal.read_bytes()
    journal.write_bytes(whole[:left])
    lines = max(0, whole[:left].count(b"\n") - 1)
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == sorted({0, 1, 2, 3, 4, 5} - set([4, 1, 5][:lines]))
    again.close()


NESTED = b"[" * 10**5


@pytest.mark.parametrize("damage", [b"", b"\n", b"\x00" * 100, b"00000000 [1, {}]\n", b"x" * 10000, bytes(range(256)),
                                    f"{zlib.crc32(NESTED):08x} ".encode() + NESTED + b"\n"], ids=lambda b: repr(b[:9]))
def test_a_journal_that_is_none_is_not_read(tmp_path, monkeypatch, damage):
    journal = journal_with(tmp_path, monkeypatch)
    journal.write_bytes(damage)
    again = store(tmp_path / "s.h5")
    assert len(again.missing()) == 6 and not journal.exists()
    again.close()


def test_a_journal_of_something_else_is_not_mixed_in(tmp_path, monkeypatch):
    """The surface was deleted and is made anew: from another checkpoint, on another grid, or just anew."""
    other_grid = Grid.parse("-1:2:3", "-1:1:2")
    for change in ({"provenance": MADE_FROM | {"checkpoint": "b" * 64}}, {"grid": other_grid}, {}):
        journal = journal_with(tmp_path, monkeypatch)
        os.unlink(tmp_path / "s.h5")
        if change:
            store(tmp_path / "other.h5", **change).close()
            os.rename(tmp_path / "other.h5", tmp_path / "s.h5")
        again = store(tmp_path / "s.h5", **change)
        assert len(again.missing()) == 6 and not journal.exists()
        again.close()
        os.unlink(tmp_path / "s.h5")


def test_a_full_disk_under_the_journal_loses_nothing(tmp_path, monkeypatch, capsys):
    clock = [1000.0]
    monkeypatch.setattr(store_module.time, "monotonic", lambda: clock[0])
    running = large(tmp_path / "s.h5")
    for point in range(5):
        running.record(point, values_of(point))
        clock[0] += 5
        size = running._journal._size
        with files_of_at_most(size + 10 if point in (2, 3) else 10**6):
            running.save()
    assert capsys.readouterr().err.count("warning: ") == 1
    crash(tmp_path)
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == [5]
    again.close()


def whole(*contents):
    return "".join(journal_module._line_of(content) for content in contents).encode()


HEAD = {"grid": [[3, -1.0, 1.0], [2, -1.0, 1.0]], "from": MADE_FROM}


@pytest.mark.parametrize("head", [None, 5, [], {}, {"grid": HEAD["grid"]}, HEAD | {"from": [1]}, HEAD | {"grid": 1}])
def test_a_journal_whose_first_line_is_none_is_not_read(tmp_path, monkeypatch, head):
    journal = journal_with(tmp_path, monkeypatch)
    journal.write_bytes(whole(head, [0, values_of(0)]))
    again = store(tmp_path / "s.h5")
    assert len(again.missing()) == 6
    again.close()


@pytest.mark.parametrize("content", [1, [], [1], [1, 2, 3], ["a", {}], [6, {}], [-1, {}], [0.5, {}], [1, [2.0]],
                                     [1, {"train_loss": "x"}], [1, {"train_loss": None}], {"a": 1}, [True, {}],
                                     [1, {"train_loss": True}], [1, {"train_loss": 10**400}],
                                     [1, {"train_loss": 1.0, "a": [[]]}]])
def test_a_line_that_is_no_result_does_not_count_though_it_is_whole(tmp_path, monkeypatch, content):
    journal = journal_with(tmp_path, monkeypatch)
    journal.write_bytes(whole(HEAD, [0, values_of(0)], content, [2, values_of(2)]))
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == [1, 3, 4, 5]
    again.close()


def test_a_line_without_end_is_not_read_to_its_end(tmp_path, monkeypatch):
    journal = journal_with(tmp_path, monkeypatch)
    journal.write_bytes(whole(HEAD, [0, values_of(0)], [1, {"x" * 10**6: 1.0}]))
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == [1, 2, 3, 4, 5]
    again.close()


def test_values_that_the_surface_does_not_have_are_left_out(tmp_path, monkeypatch):
    journal = journal_with(tmp_path, monkeypatch)
    journal.write_bytes(whole(HEAD, [0, values_of(0) | {"other": 1.0}]))
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == [1, 2, 3, 4, 5] and "other" not in again.surface.values
    again.close()
