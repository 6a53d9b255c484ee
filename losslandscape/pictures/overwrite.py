"""An output file may replace an older one of its own kind that this program made, and nothing else.

    refuse_foreign_file("film.gif", "gif", chosen=True)     before the work: --orbit film.gif
    replace_outputs({"S.h5.vtp": contents, ...})            all files are checked, then written

Every command that draws or exports writes through these. Where the user has chosen the name, the
older file must have the mark that this program leaves in its files. Names that the program chooses
itself, beside a surface, were those of its older versions and of the original too, whose files have
no mark: there the same format is enough.
"""

import os
from dataclasses import dataclass

from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.files.opening import open_regular

MAKER = "losslandscape"  # the mark: PDF and SVG call it creator, PNG software, GIF and MP4 comment
MAX_BYTES = 2**28  # of a file in which the mark is looked for; outputs are far smaller


@dataclass(frozen=True)
class OutputKind:
    """How to know the files of a kind, and what they are in words, with an article."""

    words: str
    beginnings: tuple
    mark: bytes = b""

    def may_be_replaced(self, contents, chosen):
        """Whether an output may take the place of these contents; chosen: the user chose the name."""
        is_of_this_format = contents.startswith(self.beginnings)
        return is_of_this_format and (not chosen or self.mark in contents)


# a page has its mark at the beginning; those of version 1 have none, but a policy of their own
PAGE_BEGINNINGS = (
    b'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    b'<meta name="generator" content="losslandscape',
    b'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    b'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    b'<meta http-equiv="Content-Security-Policy" '
    b"content=\"default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';\n "
    b"style-src 'unsafe-inline'; img-src data: blob:; worker-src blob:; "
    b"form-action 'none'; base-uri 'none'\">\n<title>",
)
MP4_BEGINNINGS = tuple(bytes([0, 0, 0, size]) + b"ftyp" for size in range(16, 64))

OUTPUT_KINDS = {  # by ending; no user chooses the names of the last four
    "pdf": OutputKind("a figure of this program", (b"%PDF-",), b"/Creator (losslandscape)"),
    "png": OutputKind("a picture of this program", (b"\x89PNG",), b"Software\0losslandscape"),
    "svg": OutputKind("a figure of this program", (b"<?xml", b"<svg"), b"losslandscape</dc:title>"),
    "gif": OutputKind("a film of this program", (b"GIF8",), b"\x21\xfe\x0dlosslandscape"),
    "mp4": OutputKind("a film of this program", MP4_BEGINNINGS, b"losslandscape"),
    "html": OutputKind("an older page of this command", PAGE_BEGINNINGS),
    "vtp": OutputKind("a ParaView file", (b"<?xml", b"<VTKFile")),
    "obj": OutputKind("a mesh", (b"#", b"v ")),
    "stl": OutputKind("a mesh", (b"Visualization Toolkit", b"solid")),
    "glb": OutputKind("a mesh", (b"glTF",)),
}


def refuse_foreign_file(path, ending, chosen=False):
    """Raise InputError if there is something at `path` that an output must not replace.

    ending: of OUTPUT_KINDS, whatever the path ends in; chosen: the user has chosen the name.
    """
    if not os.path.exists(path):
        return
    try:
        with open_regular(path, "give another name") as f:
            contents = f.read(MAX_BYTES)
    except OSError as error:
        raise InputError(f"can't read {path}, which would be replaced ({error.strerror}); "
                         "give another name") from None

    kind = OUTPUT_KINDS[ending]
    if contents and not kind.may_be_replaced(contents, chosen):
        raise InputError(f"expected the name of a new file, or of {kind.words} to replace, "
                         f"got {path}, which is something else; give another name")


def ending_of(path):
    """'png' of 'Picture.PNG'."""
    return os.path.splitext(path)[1].lower().removeprefix(".")


def replace_outputs(files):
    """Write the files, {path: bytes}; InputError, and nothing is written, if one is foreign."""
    for path in files:
        refuse_foreign_file(path, ending_of(path))
    for path, contents in files.items():
        write_file(path, contents)
