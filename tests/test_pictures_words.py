"""Words of figures: names of values, numbers, shares, and what tells files apart."""

import pytest

from losslandscape.errors import InputError
from losslandscape.pictures.words import (
    distinct_names,
    heading,
    labels_for,
    number,
    percent,
    plain_name,
)


@pytest.mark.parametrize("name, words", [
    ("train_loss", "train loss"), ("test_acc", "test accuracy (%)"), ("train_err", "train error (%)"),
    ("train_acc_low", "train accuracy, lower quartile (%)"), ("train_loss_iqr", "train loss, interquartile range"),
    ("max_eig", "largest eigenvalue"), ("train_top5_acc", "train top5 acc"), ("train_my_err", "train my err"),
    ("energy", "energy"),
])  # fmt: skip
def test_values_are_called_by_plain_names_with_a_unit_where_it_is_known(name, words):
    assert plain_name(name) == words


def test_a_heading_leaves_out_what_is_empty_and_keeps_the_end_of_what_is_too_long():
    assert heading("resnet56", "", "train loss") == "resnet56, train loss"
    assert heading("a" * 30, "b" * 30) == "a" * 30 + ",\n" + "b" * 30
    assert heading("x" * 60 + "END", longest=10).endswith("xxxxxxEND")


def test_the_users_labels_are_one_per_file():
    assert labels_for(["a.h5", "b.h5"], ["one", "two"]) == ["one", "two"]
    assert labels_for(["a.h5", "b.h5"], ()) == ["a", "b"]
    with pytest.raises(InputError, match="one label per file, got 1 for 2"):
        labels_for(["a.h5", "b.h5"], ["one"])


@pytest.mark.parametrize("paths, names", [
    (["a/m_bs=128/x.h5", "a/m_bs=8192/x.h5"], ["bs=128", "bs=8192"]),
    (["resnet56_w.h5", "resnet56_noshort_w.h5"], ["resnet56", "resnet56_noshort"]),
    (["a.h5", "b.h5"], ["a", "b"]),
    (["same.h5", "same.h5"], ["same", "same"]),
    (["x/a.h5_[-1.0,1.0,5].h5", "x/a.h5_[-2.0,2.0,5].h5"], ["[-1.0,1.0,5]", "[-2.0,2.0,5]"]),
])  # fmt: skip
def test_names_are_what_tells_the_files_apart(paths, names):
    assert distinct_names(paths) == names


@pytest.mark.parametrize("value, text", [
    (0, "0"), (0.5, "0.5"), (120, "120"), (5000, "5000"), (-0.25, "\N{MINUS SIGN}0.25"), (0.001, "0.001"),
    (1e4, "$10^{4}$"), (2e5, r"$2{\times}10^{5}$"), (1e-6, "$10^{-6}$"), (3e-4, r"$3{\times}10^{-4}$"),
])  # fmt: skip
def test_numbers_are_short_at_any_size(value, text):
    assert number(value) == text


@pytest.mark.parametrize("share, text", [
    (0.5, "50 %"), (0.9999, "99 %"), (49 / 2601, "1.8 %"), (0.02, "2 %"), (0.29, "29 %"), (1e-5, "0.001 %"),
])  # fmt: skip
def test_a_share_is_never_rounded_to_all_or_nothing(share, text):
    assert percent(share) == text
