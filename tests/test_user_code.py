"""FILE.py:function and package.module:function: found, called, and explained when they fail."""

import pytest

from losslandscape import user_code
from losslandscape.errors import InputError
from tests.conftest import refused, run

GOOD = "def f(x=1):\n    return 2 * x\n\n\nclass Outer:\n    @staticmethod\n    def g():\n        return 'g'\n"


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(GOOD)
    return tmp_path / "own.py"


def test_a_function_of_a_file_and_of_a_module_are_found(own):
    assert user_code.load("--model", f"{own}:f")(x=3) == 6
    assert user_code.load("--model", f"{own}:Outer.g")() == "g"
    assert user_code.load("--model", "torch.nn:Linear").__name__ == "Linear"


def test_a_file_is_run_once_however_often_it_is_named(own):
    own.write_text(GOOD + "count = []\n\n\ndef add():\n    count.append(1)\n    return len(count)\n")
    assert [user_code.load("--model", f"{own}:add")() for _ in range(2)] == [1, 2]


def test_files_of_one_name_do_not_hide_each_other(tmp_path):
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(f"def f():\n    return {value}\n")
    assert [user_code.load("--model", f"{tmp_path / folder}/net.py:f")() for folder in "ab"] == [1, 2]


def test_a_file_can_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_own.py").write_text("VALUE = 7\n")
    (tmp_path / "own.py").write_text("from neighbour_of_own import VALUE\n\n\ndef f():\n    return VALUE\n")
    assert user_code.load("--model", f"{tmp_path}/own.py:f")() == 7


@pytest.mark.parametrize("content, name, words", [
    (None, "f", "no.py.*found none"),
    (GOOD, "h", "did you mean f|found none"),
    (GOOD, "Outre", "did you mean Outer"),
    ("x = 1\n", "x", "expected a function"),
    ("def f(:\n", "f", r"SyntaxError.*own.py, line 1"),
    ("import does_not_exist_xyz\n", "f", r"No module named.*own.py, line 1"),
    ("1 / 0\n", "f", r"ZeroDivisionError.*own.py, line 1"),
])
def test_what_can_not_be_loaded_is_said_in_one_line(tmp_path, content, name, words):
    file = tmp_path / ("own.py" if content is not None else "no.py")
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=words) as error:
        user_code.load("--model", f"{file}:{name}")
    assert "\n" not in str(error.value)


def test_a_missing_module_is_named():
    with pytest.raises(InputError, match="no_such_package"):
        user_code.load("--model", "no_such_package.models:f")


def test_an_error_within_tells_the_users_line(own):
    own.write_text("def f():\n    x = {}\n    return x['a']\n")
    with pytest.raises(InputError, match=r"KeyError: 'a' \(own.py, line 3\)"):
        user_code.call("--model", f"{own}:f", user_code.load("--model", f"{own}:f"))


def test_changed_code_has_another_hash(own):
    before = user_code.source_hash(f"{own}:f")
    own.write_text(GOOD.replace("2 * x", "3 * x"))
    assert before and user_code.source_hash(f"{own}:f") != before
    assert user_code.source_hash("torch.nn:MSELoss") == user_code.source_hash("crossentropy") == ""


def test_the_command_line_says_it_in_one_line_and_makes_nothing(tmp_path):
    (tmp_path / "own.py").write_text("def f():\n    raise RuntimeError('of the user')\n")
    done = run("plot_surface.py", "--model", f"{tmp_path}/own.py:f", "--dataset", "digits")
    assert refused(done) and "of the user (own.py, line 2)" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["own.py"]
