"""The names of files. They are made and read in this module, so that no two places disagree.

    direction file   MODEL_FILE_weights_xignore=biasbn_xnorm=filter.h5, ..._idx=N.h5 for repeat N
    surface file     DIRECTION_FILE_[-1.0,1.0,51]x[-1.0,1.0,51].h5, ..._option=value.h5
    summary          SURFACE_FILE_repeats=K.h5
    picture          SURFACE_FILE_train_loss_2dcontour.pdf
    PCA              RUN_FOLDER/PCA_weights_ignore=biasbn_save_epoch=1/directions.h5
    projection       DIRECTION_FILE_proj_cos.h5, of several runs DIRECTION_FILE_RUN_proj_cos.h5
    record           RUN_FOLDER/epoch=12.pt, or step=3400.pt
    lock, journal    .0123456789abcdef.lock, hidden in the folder of the surface file
    samples          SURFACE_FILE_samples.bin
    stand-in         losslandscape-0123456789abcdef.h5, a surface file in TMPDIR or the home folder

Names of the original program are kept byte for byte. A part that it did not know is there only
where its option is set. Names that file systems can't hold (more than 255 bytes) are shortened: the
model files to their beginning, `~` and the hash of the whole; see `shortened`.
"""

import hashlib
import os
import re
from dataclasses import dataclass, replace

LONGEST_NAME = 255  # bytes that file systems allow
SHORT_STEM = 100  # bytes of a shortened stem; the grid, options and the kind of a picture follow
SHORT_OPTIONS = 40
SHORT_DIRECTION = 140  # of a direction file in the name of a projection
SHORTEST_BEGINNING = 30
LONGEST_ENDING = 8  # of exported files, with the dot
JOINT_LABELS_LENGTH = 180


def option_suffix(*parts):
    """'_name=value' for every (name, value) whose value is set, '_name' where it is True."""
    suffix = ""
    for name, value in parts:
        if value is True:
            suffix += f"_{name}"
        elif value:
            suffix += f"_{name}={value}"
    return suffix


# ---------------------------------------------------------------- names that are too long


def shortened(text, room):
    """`text`; where it takes more than `room` bytes, its beginning, ~ and the hash of the whole."""
    encoded = os.fsencode(text)
    if len(encoded) <= room:
        return text
    mark = f"~{hashlib.sha256(encoded).hexdigest()[:12]}"
    return encoded[: room - len(mark)].decode("utf-8", "ignore") + mark


def fits_file_system(name):
    """May a file have this name? `name` has no folder."""
    return len(os.fsencode(name)) <= LONGEST_NAME


def _extended(path, suffix):
    """PATH + suffix, with the path's last part shortened where the name would be too long."""
    folder, base = os.path.split(path)
    room = LONGEST_NAME - len(os.fsencode(suffix))
    return os.path.join(folder, shortened(base, max(room, SHORTEST_BEGINNING)) + suffix)


def in_folder(path, folder):
    """The path of a file in another folder, where one is named."""
    if not folder:
        return path
    return os.path.join(folder, os.path.basename(path))


# ---------------------------------------------------------------- direction files


DIRECTION_NAME = re.compile(
    r"(?P<stem> .*? ) (?P<idx> (?: _idx=[1-9][0-9]* )? ) \.h5", re.VERBOSE | re.DOTALL)


def direction_file_name(*choices, **named_choices):
    """Name of the direction file of a plot; choices: as of `whole_direction_name`."""
    whole = whole_direction_name(*choices, **named_choices)
    folder, base = os.path.split(whole)
    if fits_file_system(base):
        return whole
    return os.path.join(folder, _with_short_stem(base))


def _with_short_stem(direction_base):
    """The name of a direction file with a short stem; its end stays, so that it can be parsed."""
    match = DIRECTION_NAME.fullmatch(direction_base)
    if match is None:  # a file of the user's
        return shortened(direction_base, SHORT_STEM)
    return f"{shortened(match['stem'], SHORT_STEM)}{match['idx']}.h5"


def whole_direction_name(
    model_file, dir_type, x, y=None, same_dir=False, params="", freeze="", idx=0,
    checkpoint_key="",
):
    """Name of the direction file of a plot around `model_file`, however long.

    x, y: the axes, with `norm`, `ignore` and `model_file`; y is None for a 1-D plot.
    params, freeze: regular expressions that choose the parameters. idx: number of the repeat.
    checkpoint_key: which weights of the model files.
    """
    name = _pair_stem(model_file, x.model_file)
    if y and y.model_file:
        name += "_" + _label_beside(model_file, y.model_file)
    name += "_" + dir_type

    name += option_suffix(("xignore", x.ignore), ("xnorm", x.norm))
    if y:
        name += option_suffix(("yignore", y.ignore), ("ynorm", y.norm), ("same_dir", same_dir))
    name += option_suffix(("params", plain_pattern(params)), ("freeze", plain_pattern(freeze)))
    name += option_suffix(("key", plain_pattern(checkpoint_key)))
    return name + option_suffix(("idx", idx)) + ".h5"


def plain_pattern(pattern):
    """A regular expression as a part of a file name; where it had to be changed, with its hash."""
    plain = re.sub(r"[^\w.,^$+-]+", "-", pattern)[:40]
    if plain == pattern:
        return plain
    return f"{plain}-{hashlib.sha256(pattern.encode()).hexdigest()[:6]}"


def _pair_stem(file1, file2):
    """MODEL_FILE, or both files where x runs from one to the other.

    In one folder: FILE1_BASE2. In two: DIR1_BASE1_DIR2_BASE2 with DIR2 below the longest common
    folder, so that r/a/m.t7 and r/b/m.t7 give r/a_m.t7_b_m.t7, which lies in the common folder.
    """
    if not file2:
        return file1

    folder, base = os.path.split(file1)
    if folder == os.path.dirname(file2):
        return f"{file1}_{os.path.basename(file2)}"
    return f"{_joined(folder, base)}_{_label_beside(file1, file2)}"


def _label_beside(origin, file):
    """BASE of a file in the folder of `origin`, else DIR_BASE.

    DIR is the folder below the longest common one.
    """
    folder, base = os.path.split(file)
    if folder == os.path.dirname(origin):
        return base

    common = os.path.commonprefix([origin, file]).rpartition("/")[0]
    below = folder[len(common):].strip("/").replace("/", "_")
    return _joined(below, base)


def _joined(*parts):
    return "_".join(part for part in parts if part)


# ---------------------------------------------------------------- surface files and their repeats


def surface_file_name(dir_file, grid_text, options=()):
    """Name of the surface file: the direction file, the grid, and what is not at its default.

    grid_text: '[xmin,xmax,xnum]', in 2-D followed by 'x[ymin,ymax,ynum]'; options: (name, value)
    pairs, see `option_suffix`.
    """
    whole = whole_surface_name(dir_file, grid_text, options)
    if fits_file_system(os.path.basename(whole)):
        return whole
    folder, base = os.path.split(dir_file)
    suffix = option_suffix(*options)
    name = f"{_with_short_stem(base)}_{grid_text}{suffix}.h5"
    if not fits_file_system(name):
        short_suffix = shortened(suffix, SHORT_OPTIONS)
        name = f"{_with_short_stem(base)}_{grid_text}{short_suffix}.h5"
    return os.path.join(folder, name)


def whole_surface_name(dir_file, grid_text, options=()):
    """The same, however long."""
    return f"{dir_file}_{grid_text}{option_suffix(*options)}.h5"


@dataclass(frozen=True)
class SurfaceName:
    """The parts of a surface file's name, without folder: STEM[_idx=N].h5_GRID[OPTIONS].h5"""

    stem: str
    grid: str  # '[-1.0,1.0,51]', in 2-D '[-1.0,1.0,51]x[-1.0,1.0,51]'
    options: str = ""  # '_option=value', one after the other
    idx: int = 0  # number of the repeat

    def __str__(self):
        return f"{self.stem}{option_suffix(('idx', self.idx))}.h5_{self.grid}{self.options}.h5"

    @classmethod
    def parse(cls, name):
        """The parts of a file's name, or None where it is no surface file's."""
        match = SURFACE_NAME.fullmatch(name)
        if match is None or is_summary_name(name):
            return None
        return cls(match["stem"], match["grid"], match["options"], int(match["idx"] or 0))

    @property
    def is_1d(self):
        return "]x[" not in self.grid

    def is_repeat_of(self, other):
        """Are they of one experiment, whatever their numbers and whichever had to be shortened?"""
        return self._short() == replace(other, idx=self.idx)._short()

    def _short(self):
        return replace(self, stem=short_stem(self.stem),
                       options=shortened(self.options, SHORT_OPTIONS))


def short_stem(stem):
    """The stem of a surface's name as it stands in a name that had to be shortened."""
    return shortened(stem, SHORT_STEM)


SURFACE_NAME = re.compile(
    r"""(?P<stem> .*? ) (?: _idx=(?P<idx>[1-9][0-9]*) )?
        \.h5_ (?P<grid> \[[^\[\]]*\] (?: x\[[^\[\]]*\] )? )
        (?P<options> (?: (?! \.h5_\[ ) . )* ) \.h5""",
    re.VERBOSE | re.DOTALL,
)


def surface_names_in(folder):
    """[SurfaceName] of the surface files in a folder, sorted; '' is the current folder."""
    names = (SurfaceName.parse(name) for name in sorted(os.listdir(folder or ".")))
    return [name for name in names if name is not None]


def repeats_of(surface_file):
    """The files of the repeats of a surface (--idx 1, 2, ...) that exist, in order: {idx: path}.

    `..._xnorm=filter.h5_[-1.0,1.0,51].h5` has the repeats
    `..._xnorm=filter_idx=N.h5_[-1.0,1.0,51].h5`.
    """
    folder, base = os.path.split(surface_file)
    experiment = SurfaceName.parse(base)
    if experiment is None:
        return {}

    repeats = {}
    for name in surface_names_in(folder):
        if name.is_repeat_of(experiment):
            repeats[name.idx] = os.path.join(folder, str(name))
    return dict(sorted(repeats.items()))


def summary_file_name(first_surface_file, count):
    """Name of the summary of `count` repeats."""
    return _extended(first_surface_file, f"_repeats={count}.h5")


def is_summary_name(path):
    """Is this the name of a summary of repeats?"""
    return re.search(r"_repeats=[0-9]+\.h5\Z", path) is not None


def picture_file_name(data_file, kind, file_format, surf_name=""):
    """DATA_FILE_SURFNAME_KIND.FORMAT, or DATA_FILE_KIND.FORMAT where it is of several values."""
    return _extended(data_file, f"_{_joined(surf_name, kind)}.{file_format}")


def export_stem(surface_file, surf_name, zmax=None, log=False):
    """SURFACE_FILE_SURFNAME_zmax=Z_log: the names of exports without their ending."""
    suffix = f"_{surf_name}" + option_suffix(("zmax", zmax), ("log", log))
    with_room = _extended(surface_file, suffix + "." * LONGEST_ENDING)
    return with_room[:-LONGEST_ENDING]


# ---------------------------------------------------------------- paths of training runs


def pca_file_name(folder, dir_type, ignore, save_epoch, labels=(), checkpoint_key=""):
    """Name of the direction file of a PCA.

    folder: of the run, or the common one of several. labels: short names of several runs.
    """
    name = f"PCA_{dir_type}" + option_suffix(("ignore", ignore), ("save_epoch", save_epoch))
    name += option_suffix(("key", plain_pattern(checkpoint_key)))
    if labels:
        joint = "+".join(labels)
        if len(joint) > JOINT_LABELS_LENGTH:
            joint = f"{len(labels)}-runs-{hashlib.sha256(joint.encode()).hexdigest()[:10]}"
        name += f"_joint={joint}"
    return os.path.join(folder, shortened(name, LONGEST_NAME), "directions.h5")


def run_labels(folders):
    """A short name for each training run: its folder, seen from the common one."""
    if len(folders) == 1:
        return [_last_folder(folders[0])]

    common = common_folder(folders)
    labels = []
    for folder in folders:
        below = os.path.relpath(folder, common)
        if below == ".":
            labels.append(_last_folder(folder))
        else:
            labels.append(below.replace(os.sep, "_"))

    if len(set(labels)) < len(labels):  # a_b and a/b
        labels = [f"{i}_{label}" for i, label in enumerate(labels, 1)]
    return labels


def common_folder(folders):
    """The folder that all of them lie in, absolute where one of them is; a single one as it is."""
    if len(folders) == 1:
        return folders[0]
    common = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    if any(os.path.isabs(folder) for folder in folders):
        return common
    return os.path.relpath(common)


def _last_folder(folder):
    return os.path.basename(os.path.abspath(folder))


def projection_file_names(dir_file, labels):
    """Names of the projections of all runs into the plane of `dir_file`.

    labels: as `run_labels` gives them.
    """
    if len(labels) == 1:
        return [projection_file_name(dir_file)]
    return [projection_file_name(dir_file, label) for label in labels]


def projection_file_name(dir_file, run=""):
    """Name of the projection of a run into the plane of `dir_file`.

    run: its short name, where there are several.
    """
    name = f"{_joined(dir_file, run)}_proj_cos.h5"
    folder, base = os.path.split(dir_file)
    if not fits_file_system(os.path.basename(name)):
        short_base, short_run = shortened(base, SHORT_DIRECTION), shortened(run, SHORT_STEM)
        name = os.path.join(folder, f"{_joined(short_base, short_run)}_proj_cos.h5")
    return name


def projections_of(dir_file):
    """The projection files of a direction file that exist, sorted: one for each run."""
    folder, base = os.path.split(dir_file)
    if not os.path.isdir(folder or "."):
        return []
    beginnings = f"({re.escape(base)}|{re.escape(shortened(base, SHORT_DIRECTION))})"
    pattern = re.compile(beginnings + r"(_.+)?_proj_cos\.h5", re.DOTALL)
    names = [name for name in os.listdir(folder or ".") if pattern.fullmatch(name)]
    return sorted(os.path.join(folder, name) for name in names)


# ---------------------------------------------------------------- records of a training

RECORD_UNITS = ("epoch", "step")


def record_file_name(unit, number):
    """Name of a checkpoint of a recorder: 'epoch=12.pt', 'step=3400.pt'."""
    return f"{unit}={number}.pt"


def recorded_numbers(folder, unit):
    """The numbers of the records of a folder, sorted."""
    pattern = re.compile(rf"{unit}=([0-9]+)\.pt")
    matches = (pattern.fullmatch(name) for name in os.listdir(folder))
    return sorted(int(match[1]) for match in matches if match)


# ---------------------------------------------------------------- hidden files


def hidden_file_beside(target, kind):
    """Path of a hidden file beside `target`.

    Its name is short, for that of `target` may be as long as the file system allows, and the same
    for all links to the file.
    """
    folder, base = os.path.split(os.path.realpath(target))
    return os.path.join(folder, f".{hashlib.sha256(os.fsencode(base)).hexdigest()[:16]}.{kind}")


def lock_path(target):
    """Path of the lock of a surface file."""
    return hidden_file_beside(target, "lock")


def journal_path(target):
    """Path of the journal of a surface file."""
    return hidden_file_beside(target, "journal")


def samples_path(surface_file):
    """Path of what was measured of single samples for a surface that is estimated."""
    return f"{surface_file}_samples.bin"


def fallback_name(identity):
    """Name of a file that stands in for a surface file in another folder.

    identity: a text that says which surface file, and from what its results were computed.
    """
    return f"losslandscape-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.h5"
