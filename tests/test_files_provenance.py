"""Laws of the provenance: what matters is compared, and what is read is checked."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import losslandscape
from losslandscape.errors import InputError
from losslandscape.files import provenance as module
from losslandscape.files.layouts import read_surface, write_surface
from losslandscape.files.provenance import MATTERS, circumstances, from_json, refuse_mismatch, version
from tests.stores import surface

# ---------------------------------------------------------------- compared


@pytest.mark.parametrize("key", MATTERS)
def test_everything_that_matters_is_compared(key):
    with pytest.raises(InputError, match=re.escape(MATTERS[key])):
        refuse_mismatch("s.h5", {key: "one"}, {key: "other"})
    refuse_mismatch("s.h5", {key: "one"}, {key: "one", "command": "any"})
    refuse_mismatch("s.h5", {}, {key: "one"})  # a file of the original records nothing


def test_the_difference_is_said_in_one_line_whatever_stands_in_the_file():
    with pytest.raises(InputError) as caught:
        refuse_mismatch("s.h5", {"model": "a\nb\033[2J"}, {"model": "m"})
    assert "model (a?b?[2J in the file, m now)" in str(caught.value)


# ---------------------------------------------------------------- recorded


def test_the_circumstances_are_recorded_and_can_be_read_back(tmp_path):
    recorded = circumstances()
    assert recorded["versions"]["losslandscape"] == version()
    assert {"python", "torch", "numpy", "h5py"} <= recorded["versions"].keys()
    write_surface(tmp_path / "s.h5", surface(provenance=recorded))
    assert read_surface(tmp_path / "s.h5").provenance == recorded


COMMIT = "0123456789abcdef" * 2 + "01234567"


def clone(folder, head="ref: refs/heads/main", **files):
    """The part of a clone that says what is checked out; names of files with __ for /."""
    (folder / "HEAD").parent.mkdir(parents=True, exist_ok=True)
    (folder / "HEAD").write_text(head + "\n")
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("packed_refs", "packed-refs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


@pytest.mark.parametrize("head, files", [
    ("ref: refs/heads/main", {"refs__heads__main": COMMIT}),
    ("ref: refs/heads/a/b", {"refs__heads__a__b": COMMIT}),
    ("ref: refs/heads/main", {"packed_refs": f"# pack-refs\n{'f' * 40} refs/heads/mai\n{COMMIT} refs/heads/main"}),
    (COMMIT, {}),  # no branch
])
def test_a_clone_says_its_commit_with_the_version(tmp_path, monkeypatch, head, files):
    clone(tmp_path / ".git", head, **files)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "losslandscape" / "files" / "provenance.py"))
    assert version() == f"{losslandscape.__version__} (commit 0123456)"


def test_a_work_tree_says_its_commit_too(tmp_path, monkeypatch):
    clone(tmp_path / "main" / ".git", refs__heads__topic=COMMIT)
    clone(tmp_path / "main" / ".git" / "worktrees" / "w", "ref: refs/heads/topic", commondir="../..")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / ".git").write_text(f"gitdir: {tmp_path}/main/.git/worktrees/w\n")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "w" / "losslandscape" / "files" / "provenance.py"))
    assert version().endswith("(commit 0123456)")


@pytest.mark.parametrize("head, files", [
    (None, {}),  # installed, no clone
    ("", {}),
    ("ref: refs/heads/main", {}),
    ("ref: refs/heads/main", {"refs__heads__main": "no commit"}),
    ("ref: refs/heads/main", {"refs__heads__main__more": COMMIT}),
    ("ref: ../../../etc/passwd", {}),
    ("ref: \0", {}),
])
def test_where_no_commit_is_known_the_version_stands_alone(tmp_path, monkeypatch, head, files):
    if head is not None:
        clone(tmp_path / ".git", head, **files)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "losslandscape" / "files" / "provenance.py"))
    assert version() == losslandscape.__version__


# ---------------------------------------------------------------- checked


def nested(depth):
    return "[" * depth + "]" * depth


BAD = {
    "no JSON": "{",
    "not an object": "[1]",
    "no text": "3",
    "nested 900 deep": f'{{"own": {nested(900)}}}',
    "nested so deep that it can't be parsed": f'{{"own": {nested(10**5)}}}',
    "objects nested 100 deep": '{"a": ' * 100 + "1" + "}" * 100,
    "a number of too many digits": '{"own": %s}' % ("9" * 5000),
    "endless": '{"own": "%s"}' % ("x" * 10**7),
    **{f"batch size {value}": f'{{"batch_size": {value}}}'
       for value in ("-5", "0", '"32"', "[32]", "NaN", "Infinity", "32.0", "true", "null", "{}", "1" + "0" * 30)},
    "batch size of several lines": '{"batch_size": "a\\nb"}',
    "batch size of the Hessian": '{"hessian_batch_size": -1}',
    "the model is a number": '{"model": 5}',
    "the hash is a list": '{"checkpoint": ["a"]}',
    "the tolerance is NaN": '{"hessian_tol": NaN}',
    "the notes are a list": '{"centre": [1]}',
    "a note is a number": '{"centre": {"top_3": 1}}',
    "a note is empty": '{"centre": {"top_3": {}}}',
    "eigenvalues are text": '{"centre": {"top_3": {"values": ["a"], "residuals": [0], "converged": true}}}',
    "no residuals": '{"centre": {"top_3": {"values": [1], "residuals": [], "converged": false}}}',
    "the trace has no error": '{"centre": {"trace": {"value": 1, "samples": 3}}}',
    "versions are text": '{"versions": "1"}',
    "repeats are negative": '{"repeats": -1}',
    "repeats are numbers": '{"repeats": [1, 2]}',
    "the evaluation is text": '{"evaluation": "x"}',
    "the spread is text": '{"spread": {"train_loss": "x"}}',
}


@pytest.mark.parametrize("case", BAD)
def test_a_provenance_that_can_not_be_used_is_refused_in_one_line(case):
    with pytest.raises(InputError, match="s.h5") as caught:
        from_json(BAD[case], "s.h5")
    assert len(str(caught.value)) < 300 and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("provenance", [
    {},
    {"batch_size": 32, "hessian_batch_size": 1, "hessian_tol": 0.01},
    {"model": "m", "own": [1, {"a": [None, float("nan")]}]},
    {"repeats": ["a.h5", "b.h5"], "spread": {"train_loss": float("nan")}},
    {"repeats": 5, "evaluation": {}},
    {"centre": {"trace_samples=4": {"value": 1.5, "standard_error": 0.5, "samples": 4},
                "top_2": {"values": [3.0, float("nan")], "residuals": [0.0, 0.1], "converged": False}}},
])
def test_what_we_record_is_read_back(provenance):
    text = json.dumps(provenance)
    assert json.dumps(from_json(text, "s.h5")) == text


@given(st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.one_of(st.text(), st.sampled_from([*module.ENTRIES])),
                                                             inner))))
def test_any_json_is_refused_or_read_and_nothing_else_happens(value):
    try:
        assert isinstance(from_json(json.dumps(value), "s.h5"), dict)
    except InputError as error:
        assert "s.h5" in str(error)


def test_a_surface_file_with_such_a_provenance_is_neither_read_nor_written(tmp_path):
    write_surface(tmp_path / "s.h5", surface())
    before = (tmp_path / "s.h5").read_bytes()
    with pytest.raises(InputError, match="positive integer as 'batch_size' in the provenance of .*s.h5, got -5"):
        write_surface(tmp_path / "s.h5", surface(provenance={"batch_size": -5}))
    assert (tmp_path / "s.h5").read_bytes() == before
