"""Code and data of the user's own that are wrong, through the command line: one line, exit code 2, no file made."""

import shutil
import sys
import zlib
from pathlib import Path

import pytest

from losslandscape.data.datasets import load_dataset
from losslandscape.errors import InputError
from tests.test_hostile import assert_refused, call, contents, memory_limit  # noqa: F401

OWN = Path(__file__).parent / "mistakes.py"
FILES = {  # further files beside own.py
    "syntax.py": b"def net(:\n", "zeros.py": b"\0" * 100, "latin.py": b"# \xe9\ndef net():\n    return None\n",
    "exits.py": b"import sys\nsys.exit(0)\n", "imports.py": b"import no_such_module\n", "empty.py": b"",
    "raises.py": b"1 / 0\n", "indent.py": b"def net():\nreturn 1\n", "itself.py": b"import itself\nitself.net\n",
}


def own_py(names):
    return [f"own.py:{name}" for name in names.split()]


FLAGS = {
    "model": [
        "no.py:net", "folder.py:net", "loop.py:net", "own.py:", ":net", "own.py", ".:net", "..own:net",
        "no_such_module:net", "torch:nothing_there", "torch.nn:Linear", *(f"{name}:net" for name in FILES),
        *own_py("nothing_there text raises exits recurses nothing word net_is_a_class net.deep Noisy net_fails_later "
                "net_of_no_parameters net_of_words")],
    "model_kwargs": ["{", "[1]", "7", "null", '{"width": }', '{"width": "x"}', '{"width": -1}', '{"height": 1}',
                     '{"width": 1e400}', '{"width": 99999999999}', "width=3", '{"__class__": 1}'],
    "dataset": [
        "no.py:data", "syntax.py:data", "exits.py:data",
        *own_py("nothing_there raises asserts exits nothing word net generator spent shuffled augmented unequal empty "
                "no_batches no_examples lies_about_its_length length_fails pairs_of_words three objects "
                "without_targets ragged_targets labels_too_large labels_negative labels_are_fractions other_images "
                "fails_in_the_middle fails_at_the_third_pass")],
    "loss_name": ["no.py:loss", "syntax.py:loss", "torch.nn:NoSuchLoss", "torch.nn:Linear", "torch.nn:MSELoss",
                  *own_py("nothing_there raises exits nothing word loss_of_two loss_of_other_arguments "
                          "LossNeedsArguments net")],
    "metric": ["no.py:metric", "syntax.py:metric", "top5",
               *own_py("nothing_there raises exits nothing word loss_of_two loss_of_other_arguments")],
    "params": ["(", "[", "*", "nothing_there", "(?P<a", "\\"],
    "freeze": ["(", ".*", "+"],
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """In the working directory: own.py, and files that can't be loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    shutil.copy(OWN, tmp_path / "own.py")
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "loop.py").symlink_to("loop.py")
    return tmp_path


def own_flags(**changes):
    flags = {"model": "own.py:net", "dataset": "own.py:data", "x": "-1:1:2", "xnorm": "filter"} | changes
    return [f"--{name}={value}" for name, value in flags.items()]


def test_code_of_the_users_own_works_where_it_is_right(capfd, own):
    assert call(capfd, "plot_surface", *own_flags())[0] == 0


@pytest.mark.parametrize("flag, value", [(flag, value) for flag, values in FLAGS.items() for value in values])
def test_code_of_the_users_own_that_is_wrong_is_told_in_one_line_and_nothing_is_made(capfd, own, flag, value):
    before = contents(own)
    assert_refused(call(capfd, "plot_surface", *own_flags(**{flag: value})))
    assert contents(own) == before


def picture(path, size=(20, 20), **options):
    from PIL import Image

    Image.new("RGB", size, (10, 200, 30)).save(path, **options)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def huge_claim(path):
    """A picture of a few bytes that says it has 10^10 pixels."""
    data = bytearray(path.read_bytes())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


IMAGE_FOLDERS = {  # what is done to a good one
    "it is not there": lambda place: shutil.rmtree(place),
    "it is a file": lambda place: (shutil.rmtree(place), place.write_text("")),
    "it links to itself": lambda place: (shutil.rmtree(place), place.symlink_to(place.name)),
    "no class": lambda place: [shutil.rmtree(folder) for folder in place.iterdir()],
    "a class without images": lambda place: (place / "a" / "1.png").unlink(),
    "picture of no bytes": lambda place: (place / "a" / "1.png").write_bytes(b""),
    "picture that is text": lambda place: (place / "b" / "1.png").write_text("no picture"),
    "picture of which half is there": lambda place: truncate(place / "a" / "1.png"),
    "picture that claims to be huge": lambda place: huge_claim(place / "a" / "1.png"),
    "folder in a class": lambda place: ((place / "a" / "1.png").unlink(), (place / "a" / "1.png").mkdir()),
    "link to itself in a class": lambda place: ((place / "a" / "1.png").unlink(),
                                                   (place / "a" / "1.png").symlink_to("1.png")),
}


@pytest.mark.parametrize("case", IMAGE_FOLDERS)
def test_an_image_folder_that_is_none_is_refused(capfd, own, case):
    place = own / "images" / "train"
    for name in "ab":
        (place / name).mkdir(parents=True)
        picture(place / name / "1.png")
    IMAGE_FOLDERS[case](place)
    before = contents(own)
    flags = own_flags(dataset="imagefolder", datapath="images", model="torchvision.models:squeezenet1_1", threads=0)
    assert_refused(call(capfd, "plot_surface", *flags), "1.png" if case.startswith("picture") else "images/train")
    assert contents(own) == before


def test_a_picture_that_can_not_be_read_later_is_told_in_one_line_too(own):
    """Where the pictures do not fit into memory, other processes read them, at every pass."""
    (own / "images" / "train" / "a").mkdir(parents=True)
    for i in range(40):
        picture(own / "images" / "train" / "a" / f"{i:02}.png")
    truncate(own / "images" / "train" / "a" / "37.png")
    for threads in (0, 1):
        data = load_dataset("imagefolder", "images", splits=("train",), memory=0, threads=threads).train
        with pytest.raises(InputError, match="^can't read the picture .*37.png .*") as caught:
            list(data.batches())
        assert "\n" not in str(caught.value)


def test_classes_of_another_number_in_the_test_folder_are_refused(capfd, own):
    for folder in ("train/a", "train/b", "val/a"):
        (own / "images" / folder).mkdir(parents=True)
        picture(own / "images" / folder / "1.png")
    flags = own_flags(dataset="imagefolder", datapath="images", model="torchvision.models:squeezenet1_1", threads=0,
                      eval_set="both")
    assert_refused(call(capfd, "plot_surface", *flags), "classes")
