"""Fixtures that catch figures instead of writing them, for test files that say

    pytest_plugins = "tests.caught_figures"
"""

import pytest

from losslandscape.pictures import style, surfaces


@pytest.fixture
def drawn(monkeypatch):
    """{ending of the file name: Figure}; figures are caught instead of written."""
    caught = {}
    monkeypatch.setattr(style, "save_figure", lambda figure, path: caught.update({path.rpartition("_")[2]: figure}))
    return caught


@pytest.fixture
def drawn_files(monkeypatch):
    """{path: Figure}; figures are caught instead of written."""
    caught = {}
    monkeypatch.setattr(style, "save_figure", lambda figure, path: caught.update({path: figure}))
    return caught


@pytest.fixture
def only(monkeypatch):
    """Draw only some of the four figures, to save time."""

    def keep(*kinds):
        monkeypatch.setattr(surfaces, "FIGURES", {kind: surfaces.FIGURES[kind] for kind in kinds})

    return keep
