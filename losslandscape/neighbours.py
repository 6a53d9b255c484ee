"""What a user's file imports: its own neighbours first, whatever they are called.

    neighbourhood_of("mine").load_file("mine/net.py")    # its scheduler is mine/scheduler.py

A user's scheduler.py, utils.py or tqdm.py may have the name of a module that is loaded already: of
this program, of an installed package, or of another folder of the user's. The file must get its
own, and everybody else theirs. sys.path and sys.modules give the same answer to everybody; so the
modules of a user's folder have an import statement of their own (`__import__`, which Python looks
up in the builtins of the module). It costs nothing until something is imported, and holds as well
for imports that run later: in forward(), in a data set, in other threads and forked processes.

A neighbour keeps its plain name in sys.modules where a plain import finds it, as it does for nearly
all. That way classes can be pickled, and code that imports by name gets the same module. Where the
name is taken, it is loaded as PACKAGE.NAME, of a package that stands for the folder.

Rejected: the folder at the front of sys.path while the user's code runs, with modules of the same
names set aside in sys.modules. Then torch, which imports within functions, gets the user's
inspect.py; and forward(), which others call, does not get it.
"""

import builtins
import functools
import glob
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import types
from importlib.machinery import PathFinder, SourceFileLoader

PACKAGE_FOLDER = os.path.dirname(os.path.realpath(__file__))  # of losslandscape
TOP_LEVEL = os.path.dirname(PACKAGE_FOLDER)
IS_CLONE = os.path.isfile(os.path.join(TOP_LEVEL, "plot_surface.py"))  # or is it installed?

PREFIX = "user_code_"  # of the packages that stand for folders

_neighbourhoods = {}  # folder -> Neighbourhood


def neighbourhood_of(folder):
    """The Neighbourhood of a folder: one, however often it is asked for."""
    folder = os.path.realpath(folder)
    if folder not in _neighbourhoods:
        _neighbourhoods[folder] = Neighbourhood(folder)
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    make_reachable(folder)
    return _neighbourhoods[folder]


def with_plain_names(text):
    """`text` with the names that a user knows, in place of those in sys.modules."""
    return re.sub(PREFIX + r"[0-9a-f]{8}\.", "", text)


def _short_hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Neighbourhood:
    """A folder of the user's: loads its files, which find each other."""

    def __init__(self, folder):
        self.folder = folder
        self.package = PREFIX + _short_hash(folder)
        self.builtins = {**vars(builtins), "__import__": self.import_statement}
        self._not_hidden = {}  # name -> module that a plain import gives, and rightly

    def load_file(self, path):
        """The module of a file of this folder; raises whatever the file raises when it is run."""
        self._require_package()
        stem = os.path.splitext(os.path.basename(path))[0]
        if not stem.isidentifier():  # my-net.v2.py
            stem = f"file_{_short_hash(stem)}"
        name = f"{self.package}.{stem}"
        if name in sys.modules:
            return sys.modules[name]

        loader = _Loader(name, path, self)
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where dataclasses and pickles look it up
        try:
            loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        return module

    def import_module(self, name):
        """The module `name`, of this folder where it has one; raises whatever an import raises."""
        if self._has_hidden(name):
            return importlib.import_module(f"{self.package}.{name}")
        return importlib.import_module(name)

    def import_statement(self, name, globals=None, locals=None, fromlist=(), level=0):
        """What an import statement in a file of this folder does; arguments: as of __import__."""
        if level > 0 or not self._has_hidden(name):
            return builtins.__import__(name, globals, locals, fromlist, level)

        module = builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist, 0)
        if fromlist:
            return module
        return sys.modules[f"{self.package}.{name.partition('.')[0]}"]

    def _has_hidden(self, name):
        """Is there a neighbour of that name that a plain import would not find?"""
        name = name.partition(".")[0]
        self._require_package()
        if f"{self.package}.{name}" in sys.modules:
            return True

        # imports within functions run often: look at the disk once for each module
        module = sys.modules.get(name)
        if module is not None and self._not_hidden.get(name) is module:
            return False
        is_hidden = self._look_for_hidden(name)
        if not is_hidden:
            self._not_hidden[name] = module
        return is_hidden

    def _look_for_hidden(self, name):
        """The same, found out from the disk."""
        if name in sys.builtin_module_names or name == "__main__" or not name.isidentifier():
            return False
        neighbour = PathFinder.find_spec(name, [self.folder])
        if neighbour is None:
            return False

        plain = _place_of_plain_import(name)
        if neighbour.origin is not None:
            return plain != os.path.realpath(neighbour.origin)
        # a folder without __init__.py comes last, as everywhere in Python: after what is installed
        own_folder = os.path.join(self.folder, name)
        return plain != own_folder and not (plain and is_installed(plain))

    def _require_package(self):
        """Make the package of this folder, for neighbours whose plain name is taken."""
        if self.package not in sys.modules:
            package = types.ModuleType(self.package)
            package.__path__ = [self.folder]
            sys.modules[self.package] = package


def _place_of_plain_import(name):
    """The file that `import NAME` gives; the folder, where that has no __init__.py; or None."""
    module = sys.modules.get(name)
    if module is not None:
        place = getattr(module, "__file__", None)
        folders = getattr(module, "__path__", [])
    else:
        spec = importlib.util.find_spec(name)
        if spec is None:
            return None
        place = spec.origin
        folders = spec.submodule_search_locations or []

    if place is None:
        place = next(iter(folders), "")
    return os.path.realpath(place)


class _Loader(SourceFileLoader):
    """Runs a file with the import statement of its neighbourhood."""

    def __init__(self, name, path, neighbourhood):
        super().__init__(name, path)
        self.neighbourhood = neighbourhood

    def exec_module(self, module):
        module.__dict__["__builtins__"] = self.neighbourhood.builtins
        super().exec_module(module)


class _Finder:
    """First in sys.meta_path: finds what Python finds, and gives users' files the loader above."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        first_part = name.partition(".")[0]
        if not first_part.startswith(PREFIX) and not _is_a_neighbour(first_part):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader or is_installed(spec.origin):
            return None

        neighbourhood = _neighbourhoods.get(_folder_of_top_level(name, spec))
        if neighbourhood is None:
            return None
        spec.loader = _Loader(name, spec.origin, neighbourhood)
        return spec


def _is_a_neighbour(name):
    """Has any of the users' folders a module of this name? For most imports the answer is no."""
    if name in sys.builtin_module_names:
        return False
    folders = list(_neighbourhoods)  # another thread may add one
    return any(PathFinder.find_spec(name, [folder]) is not None for folder in folders)


def _folder_of_top_level(name, spec):
    """The folder in which the first part of a dotted name stands."""
    folder = os.path.dirname(os.path.realpath(spec.origin))
    levels = name.count(".")
    if spec.submodule_search_locations is not None:  # its file is in a folder of its own
        levels += 1
    if name.startswith(PREFIX):
        levels -= 1
    for _ in range(levels):
        folder = os.path.dirname(folder)
    return folder


# ---------------------------------------------------------------- whose code is it?


def is_installed(path):
    """Does a file belong to Python, to an installed package or to this one?"""
    if path.startswith("<"):  # <frozen importlib._bootstrap>, <string>
        return True
    path = os.path.realpath(path)
    parts = path.split(os.sep)
    if "site-packages" in parts or "dist-packages" in parts:
        return True

    folders = [PACKAGE_FOLDER, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    # where pip install --target put packages
    folders += [entry for entry in sys.path if entry not in _neighbourhoods and _has_packages(entry)]
    return any(path.startswith(os.path.realpath(folder) + os.sep) for folder in folders)


@functools.cache
def _has_packages(folder):
    """Did pip install packages into this folder?"""
    return bool(glob.glob(os.path.join(glob.escape(folder), "*.dist-info")))


def make_reachable(folder):
    """Put a folder at the end of sys.path, but before the top level of this clone.

    For what imports by name: pickles, registries. A script that is started from the clone has the
    clone's top level at the front of sys.path, with scheduler.py, net_plotter.py and cifar10/.
    """
    if folder not in sys.path:
        sys.path.append(folder)
    if not IS_CLONE or folder == TOP_LEVEL:
        return
    top_level = [entry for entry in sys.path if os.path.realpath(entry) == TOP_LEVEL]
    others = [entry for entry in sys.path if entry not in top_level]
    sys.path[:] = others + top_level
