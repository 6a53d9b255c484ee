"""What a user's function depends on in source code: its own text, and what that uses.

    digest_of("mine.py", "net")     of net, and of the helpers, constants and neighbours it uses

Comments, docstrings and formatting don't count, nor do functions that are not used. Names are
followed through the syntax tree, without running anything: from a function to the names of the file
that it uses, and through imports to the user's other files, but not to installed packages.

Rather too much is taken than too little. Statements that act when a file is loaded
(`torch.manual_seed(0)`, a function with a decorator of the user's own) always count, and where
names are looked up by their text (globals(), exec), the whole file does.
"""

import ast
import hashlib
import os
import symtable
from dataclasses import dataclass
from importlib.machinery import PathFinder

from losslandscape.neighbours import is_installed

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Delete)
MAX_BYTES = 2**20  # of source of a user's that are read: some seconds
LOOKUPS_BY_TEXT = {"globals", "locals", "vars", "eval", "exec", "__import__"}

# fields of a syntax tree that say nothing about what the code does
SILENT_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}


def digest_of(path, name):
    """SHA-256 of the source that `name` of the file at `path` depends on, 64 hexadecimal digits.

    name: may have dots (Outer.method); the whole of Outer counts. Raises SyntaxError, ValueError,
    RecursionError or OSError where a file can't be parsed, and where there is too much.
    """
    path = os.path.realpath(path)
    walk = _Walk(path)
    walk.require(walk.open(path), name.partition(".")[0])
    return walk.digest()


# ---------------------------------------------------------------- from name to name


class _Walk:
    """The statements that are reached from the names of a file, in all files of a user."""

    def __init__(self, path):
        self._first = path
        self._sources = {}  # path -> _Source
        self._bytes = 0  # of them
        self._files = {}  # (folder, module) -> path of the user's file, or None
        self._required = set()  # (path, name)
        self._reached = set()  # (path, number of a statement)

    def open(self, path):
        """The _Source of a file; what it does when it is loaded is reached."""
        if path in self._sources:
            return self._sources[path]
        self._bytes += os.path.getsize(path)
        if self._bytes > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes of source are imported")
        source = self._sources[path] = _Source(path)

        for number in source.actions:
            self._reach(source, number)
        for place in source.places:
            self._module(source, place)
        return source

    def require(self, source, name):
        """Reach `name` of a file from outside; the whole file where no statement binds it."""
        if (source.path, name) in self._required:
            return
        self._required.add((source.path, name))
        numbers = source.binding.get(name, range(len(source.statements)))
        for number in numbers:
            self._reach(source, number)

        # what the file has only imported
        for place in source.places:
            if name == place.name or name not in source.binding:
                self._follow(source, place, set())

    def digest(self):
        """SHA-256 of the statements that were reached, in the order of each file."""
        texts = []
        for path, number in sorted(self._reached, key=lambda each: (self._label(each[0]), each[1])):
            texts.append(f"{self._label(path)}: {_plain(self._sources[path].statements[number])}")
        return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()

    def _label(self, path):
        """A file's name that is the same wherever the user's folder lies; '' for the first file."""
        if path == self._first:
            return ""
        below = os.path.relpath(path, os.path.dirname(self._first))
        if below.startswith(os.pardir):
            return os.path.basename(path)
        return below

    def _reach(self, source, number):
        """Take in a statement, and all that it uses."""
        if (source.path, number) in self._reached:
            return
        self._reached.add((source.path, number))
        statement = source.statements[number]
        names = _global_names(statement)

        for name in names & source.binding.keys():
            for each in source.binding[name]:
                self._reach(source, each)
        if names & LOOKUPS_BY_TEXT:
            self.require(source, None)

        # what is imported: an import at the top of the file brings nothing by itself
        if isinstance(statement, IMPORTS):
            return
        attributes = _attributes_by_name(statement)
        for place in _places(statement):
            self._follow(source, place, attributes.get(place.name, set()))
        for place in source.places:
            if place.name in names:
                self._follow(source, place, attributes.get(place.name, set()))
            elif place.name == "*":
                self._follow_star(source, place, names)

    def _follow(self, source, place, attributes):
        """Reach what an import brings from a file of the user's.

        attributes: the names that are used of a module; empty for all of it.
        """
        module = self._module(source, place)
        if module is not None and place.attribute in (None, "*"):
            self._require_all(module, attributes)
            return
        if place.attribute is None:
            return

        # `from package import name`: a module of the package, or a name in it
        submodule = self._module(source, place.of_submodule())
        if submodule is not None:
            self._require_all(submodule, attributes)
        elif module is not None:
            self.require(module, place.attribute)

    def _follow_star(self, source, place, names):
        """Reach those of `names` that `from module import *` brings, from however far."""
        places, seen = [(source, place)], set()
        while places:
            module = self._module(*places.pop())
            if module is None or module.path in seen:
                continue
            seen.add(module.path)
            for name in names & module.binding.keys():
                self.require(module, name)
            places += [(module, further) for further in module.places if further.name == "*"]

    def _require_all(self, module, attributes):
        for name in attributes or [None]:
            self.require(module, name)

    def _module(self, source, place):
        """The _Source of an imported module of the user's; None for others."""
        folder = os.path.dirname(source.path)
        if place.level == 0:
            starts = [os.path.dirname(self._first), None]  # None: wherever Python looks
        else:
            for _ in range(place.level - 1):
                folder = os.path.dirname(folder)
            starts = [folder]

        for start in starts:
            path = self._own_file_of(place.module, start)
            if path is not None:
                return self.open(path)
        return None

    def _own_file_of(self, module, folder):
        """As `_file_of`, None for installed modules; the disk is asked once for each."""
        key = folder, module
        if key not in self._files:
            path = _file_of(module, folder)
            if path is not None:
                path = None if is_installed(path) else os.path.realpath(path)
            self._files[key] = path
        return self._files[key]


def _file_of(module, folder):
    """The source file of a dotted module name, looked for in a folder; None where there is none.

    folder: None for the folders of sys.path. module: '' for the package that the folder is.
    """
    if not module:
        file = os.path.join(folder, "__init__.py")
        return file if os.path.isfile(file) else None

    folders, file = None if folder is None else [folder], None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, folders)
        if spec is None:
            return None
        file, folders = spec.origin, spec.submodule_search_locations or []
    if file is not None and file.endswith(".py"):
        return file
    return None


# ---------------------------------------------------------------- one file


class _Source:
    """The statements of a file.

    binding: {name: numbers of the statements that bind or change it}. actions: numbers of the
    statements that act when the file is loaded. places: [_Place] of its imports at the top level.
    """

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            tree = ast.parse(file.read())

        self.statements, self.actions, self.places = [], [], []
        self.binding = {}
        for statement in tree.body:
            for each in _separate_imports(statement):
                self._add(each)
        self.actions += self._decorated()

    def _add(self, statement):
        if _is_constant(statement) or _is_only_for_scripts(statement):
            return
        number = len(self.statements)
        self.statements.append(statement)
        for name in _bound_names(statement):
            self.binding.setdefault(name, []).append(number)

        for node in _outside_functions(statement):
            if isinstance(node, IMPORTS):
                self.places += _places(node)
            if isinstance(node, ast.Expr) and not _is_constant(node):
                self.actions.append(number)

    def _decorated(self):
        """Numbers of the definitions with a decorator of the user's own: it may register them."""
        numbers = []
        for number, statement in enumerate(self.statements):
            for decorator in getattr(statement, "decorator_list", []):
                root = _root(decorator)
                if root in self.binding and not self._is_of_installed(root):
                    numbers.append(number)
        return numbers

    def _is_of_installed(self, name):
        """Does a name come from an installed package, as far as the import says?"""
        for place in self.places:
            if place.name == name and place.level == 0:
                file = _file_of(place.module.partition(".")[0], os.path.dirname(self.path))
                return file is None
        return False


@dataclass(frozen=True)
class _Place:
    """What an import statement binds: a module, or an attribute of one."""

    name: str  # in the file; '*' for all names
    module: str
    attribute: str | None = None
    level: int = 0  # dots of a relative import

    def of_submodule(self):
        """The same, where the attribute is a module of a package."""
        module = ".".join(part for part in (self.module, self.attribute) if part)
        return _Place(self.name, module, None, self.level)


def _places(statement):
    """[_Place] of all imports within a statement, functions included."""
    places = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                places.append(_Place(name, alias.name))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = alias.asname or alias.name
                places.append(_Place(name, node.module or "", alias.name, node.level))
    return places


def _separate_imports(statement):
    """A statement; one that imports several things as one for each."""
    if not isinstance(statement, IMPORTS):
        return [statement]
    separate = []
    for alias in statement.names:
        fields = dict(ast.iter_fields(statement)) | {"names": [alias]}
        separate.append(ast.copy_location(type(statement)(**fields), statement))
    return separate


# ---------------------------------------------------------------- one statement


def _outside_functions(statement):
    """The nodes of a statement that run when the file is loaded, but for the bodies of classes."""
    yield statement
    if isinstance(statement, (*DEFINITIONS, ast.Lambda)):
        return
    for child in ast.iter_child_nodes(statement):
        yield from _outside_functions(child)


def _bound_names(statement):
    """The names that a statement binds in its file, or whose values it changes."""
    names = set()
    for node in _outside_functions(statement):
        if isinstance(node, DEFINITIONS):
            names.add(node.name)
        elif isinstance(node, IMPORTS):
            names |= {place.name for place in _places(node)}
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            if not isinstance(node.ctx, ast.Load):  # NETS["a"] = ..., Net.forward = ...
                names.add(_root(node))

    # functions that change a variable of the file
    for node in ast.walk(statement):
        if isinstance(node, ast.Global):
            names |= set(node.names)
    return names


def _root(node):
    """'a' of a.b[c].d(): the name that an expression begins with; '' for others."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", "")


def _global_names(statement):
    """The names of the file (or of Python) that a statement uses: not its local variables."""
    names = set()
    tables = [symtable.symtable(ast.unparse(statement), "<source>", "exec")]
    is_file = True
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() or is_file:
                names.add(symbol.get_name())
        is_file = False
    return names


def _attributes_by_name(statement):
    """{name: attributes that a statement uses of it}; empty where it also uses it otherwise."""
    attributes, uses = {}, {}
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            uses[node.id] = uses.get(node.id, 0) + 1
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = node.value.id
            uses[name] = uses.get(name, 0) - 1
            attributes.setdefault(name, set()).add(node.attr)
    return {name: each for name, each in attributes.items() if uses[name] == 0}


def _is_constant(node):
    """Is it a docstring, or another expression that does nothing?"""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_only_for_scripts(statement):
    """Is it `if __name__ == "__main__":`, without else?"""
    if not isinstance(statement, ast.If) or statement.orelse:
        return False
    test = statement.test
    return isinstance(test, ast.Compare) and getattr(test.left, "id", "") == "__name__"


def _plain(node):
    """The text of a syntax tree without what does nothing; the same in all versions of Python."""
    if isinstance(node, list):
        return "[" + ",".join(_plain(each) for each in node if not _is_constant(each)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)

    parts = []
    for field, value in ast.iter_fields(node):
        if field not in SILENT_FIELDS and value is not None and value != []:
            parts.append(f"{field}={_plain(value)}")
    # the value None is no lack of one
    if isinstance(node, ast.Constant):
        parts = [repr(node.value)]
    return f"{type(node).__name__}({','.join(parts)})"
