"""An output file may replace an older one of its own kind, and nothing else."""

import os

from losslandscape.errors import InputError

FIRST_BYTES = 2000  # are enough to recognize a file by


def refuse_other_kind(path, is_own_kind, kind):
    """Raise InputError if something is at `path` that isn't a file of this kind.

    is_own_kind: from the first bytes of a file to whether it may be replaced; kind: in words, with
    an article.
    """
    if not os.path.lexists(path):
        return

    own_kind = False
    if os.path.isfile(path):
        try:
            with open(path, "rb") as f:
                own_kind = is_own_kind(f.read(FIRST_BYTES))
        except OSError as error:
            raise InputError(f"can't read {path}, which would be replaced ({error.strerror}); "
                             "give another name") from None
    if not own_kind:
        raise InputError(f"expected the name of a new file, or of {kind} to replace, got {path}, "
                         "which is something else; give another name")
