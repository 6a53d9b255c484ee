"""The gallery: its data are those of Fashion-MNIST, its pictures are small, its commands name flags that exist."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from losslandscape.data.splits import Split
from tests.conftest import ROOT, flags_of

sys.path.insert(0, str(ROOT / "docs"))
import small_fashion


def test_half_the_size_means_the_mean_of_four_pixels_without_border_and_repeated_channels():
    grey = torch.arange(28 * 28, dtype=torch.float32).reshape(1, 1, 28, 28) / 28**2
    inputs = torch.nn.functional.pad(grey, (2, 2, 2, 2)).expand(3, 3, 32, 32)
    images, labels = small_fashion.half_size(Split(inputs, torch.arange(3)), 2)
    assert images.shape == (2, 14, 14) and images.dtype == np.uint8 and labels.tolist() == [0, 1]
    four = grey[0, 0].numpy()[:2, :2].mean(), grey[0, 0].numpy()[-2:, -2:].mean()
    assert (images[0, 0, 0], images[0, -1, -1]) == tuple(np.round(255 * np.array(four)))


def test_pictures_are_a_few_hundred_kilobytes_at_most():
    pictures = [path for path in (ROOT / "docs").iterdir() if path.suffix in (".png", ".gif")]
    assert len(pictures) >= 8 and all(path.stat().st_size < 300_000 for path in pictures)


def test_every_picture_of_the_docs_is_made_by_the_makefile():
    shown = set(re.findall(r"docs/\w+\.(?:png|gif)", (ROOT / "README.md").read_text()))
    for page in (ROOT / "docs").glob("*.md"):
        shown |= {f"docs/{name}" for name in re.findall(r"[(\"](\w+\.(?:png|gif))", page.read_text())}
    assert len(shown) >= 8
    made = (ROOT / "Makefile").read_text().replace("docs/$$m.png", "docs/resnet56.png docs/resnet56_noshort.png")
    assert shown <= set(re.findall(r"docs/\w+\.(?:png|gif)", made))
    assert all(os.path.exists(ROOT / path) for path in shown)


@pytest.mark.parametrize("script", ["plot_surface.py", "plot_1D.py", "plot_2D.py", "plot_trajectory.py", "h52vtp.py",
                                    "plot_hessian_eigen.py"])
def test_the_commands_of_the_makefile_use_flags_that_exist(script):
    done = subprocess.run(["make", "-n", "gallery"], cwd=ROOT, capture_output=True, text=True)
    commands = re.findall(rf"python {script} ([^&|;]*)", done.stdout.replace("\\\n", " "))
    flags = {flag for command in commands for flag in re.findall(r"(?<!\S)--\w+", command.partition("\n")[0])}
    assert flags and flags <= flags_of(script), flags
