"""A surface as a mesh: points, quads and values, and the files that hold it.

surface -> `surface_heights` (resampled, clipped, logarithm) -> `surface_mesh`, or `box_mesh` of
fixed proportions -> bytes of a file: `vtp_bytes` for ParaView, `MESH_WRITERS` for Blender and 3-D
printers.

The meshes are plain NumPy arrays. PyVista and VTK are imported where a file is made.
"""

import json
import math
import os
import struct
import tempfile
from dataclasses import dataclass, replace

import numpy as np

from losslandscape.errors import InputError
from losslandscape.pictures.extremes import FLOAT32_RESOLUTION, refuse_undrawable_axes

FLOAT32_LARGEST = 1e37  # of coordinates and heights; differences of float32 overflow beyond
LOG_SHIFT = 0.1  # the logarithm that is drawn is log(z + 0.1)
SHORTEST_SIDE = 0.1  # of a plane in a box, relative to its longer side
ZSCALE = 0.5  # height of the box, relative to the longer side of the plane
STL_SIDE = 100.0  # longer side of a print; STL has no unit, slicers take millimetres
STL_BASE = 0.04  # thickness below the lowest point of a print, relative to the longer side


# ---------------------------------------------------------------- heights over the plane


@dataclass(frozen=True)
class Heights:
    """Heights over a grid of the plane: x (nx,), y (ny,), z (ny, nx); NaN for no finite value."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    @property
    def finite(self):
        """Mask (ny, nx) of the points that have a height."""
        return np.isfinite(self.z)


def surface_heights(surface, name="train_loss", zmax=None, log=False, interp=None):
    """Heights of the values `name` of a 2-D surface.

    In this order: resampled to interp x interp points, clipped at zmax (an infinite value too),
    then log(z + 0.1). Raises InputError for a 1-D surface, for bad numbers, and for values without
    a logarithm.
    """
    _check_heights_request(surface, zmax, interp)

    z = np.ma.filled(surface.get(name).astype(float), np.nan)  # (ny, nx), a new array
    heights = Heights(surface.grid.x, surface.grid.y, z)
    if interp is not None:
        heights = resample(heights, interp)
    z = heights.z
    lowest = z.min(initial=np.inf, where=np.isfinite(z))
    if zmax is not None:
        if zmax <= lowest < np.inf:
            raise InputError(f"expected --zmax above the lowest {name}, {lowest:.6g}, "
                             f"got {zmax:g}; nothing would be left to see")
        z = np.minimum(z, zmax)

    if log:
        if lowest + LOG_SHIFT <= 0:
            raise InputError(f"expected values above -{LOG_SHIFT} for --log, got {lowest:.6g} "
                             f"in {name}; leave --log out")
        with np.errstate(invalid="ignore"):  # of -inf, which has no height either
            z = np.log(z + LOG_SHIFT)

    # the files hold float32: what is beyond it counts as infinite
    z = np.where(np.abs(z) <= FLOAT32_LARGEST, z, np.nan)
    return Heights(heights.x, heights.y, z)


def _check_heights_request(surface, zmax, interp):
    x, y = surface.grid.x, surface.grid.y
    if y is None:
        raise InputError("expected a 2-D surface, got a 1-D one (no ycoordinates); "
                         "draw it with plot_1D.py")
    if len(x) < 2 or len(y) < 2:
        raise InputError(f"expected at least 2 points per axis, got {len(x)} x {len(y)}; "
                         "compute a finer surface")
    refuse_undrawable_axes(surface, "the surface", FLOAT32_RESOLUTION, FLOAT32_LARGEST)
    if zmax is not None and not math.isfinite(zmax):
        raise InputError(f"expected a finite --zmax, or -1 for none, got {zmax}")
    if interp is not None and interp < 2:
        raise InputError("expected --interp of at least 2 points per axis, or -1 for none, "
                         f"got {interp}")


def resample(heights, n):
    """The heights on n x n points, by a spline through all points.

    It is cubic where an axis has at least 4 points, and held within the range of the data: beside a
    steep wall a spline overshoots, below 0 for example. A spline needs a value everywhere, so gaps
    are filled from the nearest point first, and cut out again afterwards, cell by cell. Raises
    InputError without a finite value, or where coordinates don't increase.
    """
    from scipy.interpolate import (
        NearestNDInterpolator,
        RectBivariateSpline,
        RegularGridInterpolator,
    )

    x, y, z = heights.x, heights.y, heights.z
    finite = heights.finite
    if not finite.any():
        raise InputError("expected at least one finite value to resample, found none; "
                         "compute the surface first")
    if (np.diff(x) <= 0).any() or (np.diff(y) <= 0).any():
        raise InputError("expected ascending coordinates to resample; leave --interp out")

    # the spline
    filled = z
    if not finite.all():
        filled = NearestNDInterpolator(np.argwhere(finite), z[finite])(*np.indices(z.shape))
    new_x = np.linspace(x[0], x[-1], n)
    new_y = np.linspace(y[0], y[-1], n)
    spline = RectBivariateSpline(y, x, filled, kx=min(3, len(y) - 1), ky=min(3, len(x) - 1))
    new_z = np.clip(spline(new_y, new_x), z[finite].min(), z[finite].max())  # (n, n)

    # cut out what lies in a cell that touches a gap: there the interpolated mask is above 0
    new_points = np.stack(np.meshgrid(new_y, new_x, indexing="ij"), -1)  # (n, n, 2)
    infinite = z == np.inf
    for gap, value in ((infinite, np.inf), (~finite & ~infinite, np.nan)):
        if gap.any():
            share = RegularGridInterpolator((y, x), gap.astype(float))(new_points)
            new_z[share > 1e-9] = value
    return Heights(new_x, new_y, new_z)


# ---------------------------------------------------------------- the mesh


@dataclass(frozen=True)
class Mesh:
    """A surface of quads over the plane, in the form that every writer and the pictures take."""

    points: np.ndarray  # (n, 3)
    quads: np.ndarray  # (m, 4) numbers of points, counterclockwise seen from above
    values: np.ndarray  # (n,) of the surface, whatever height the points have
    normals: np.ndarray | None = None  # (n, 3) of length 1, pointing up


def grid_quads(z):
    """(corners (m, 4), left_out): cells of z (ny, nx) with four finite corners; how many others.

    Cells are in row-major order; the corners are i, i+1, i+nx+1, i+nx: counterclockwise seen from
    above.
    """
    number = np.arange(z.size).reshape(z.shape)
    corners = np.stack([number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]], -1)
    corners = corners.reshape(-1, 4)
    whole = np.isfinite(z.ravel()[corners]).all(1)
    return corners[whole], int((~whole).sum())


def surface_mesh(heights):
    """Mesh of the points (x, y, z) with a finite z, float32, in row-major order.

    Other points, and the quads that touch them, are left out: a NaN vertex spoils the bounds, and
    with them the view, in ParaView. Raises InputError when no quad is left.
    """
    quads, _ = grid_quads(heights.z)
    if len(quads) == 0:
        raise InputError("expected a grid cell with four finite values of at most "
                         f"{FLOAT32_LARGEST:g}, found none; compute more of the surface, "
                         "or take --log where values are larger")

    finite = heights.finite.ravel()
    x, y = np.meshgrid(heights.x, heights.y)
    points = np.column_stack([x.ravel(), y.ravel(), heights.z.ravel()])
    new_number = np.cumsum(finite) - 1
    return Mesh(points[finite].astype(np.float32), new_number[quads], heights.z.ravel()[finite])


def box_mesh(heights, zscale=ZSCALE):
    """Mesh with normals, in a box: longer side of the plane 1, centred, height from 0 to `zscale`.

    Its shape doesn't depend on the scale of the values; `values` holds them.
    """
    x, y, z = heights.x, heights.y, heights.z
    longer_side = max(np.ptp(x), np.ptp(y))
    low, high = np.nanmin(z, initial=np.inf), np.nanmax(z, initial=-np.inf)
    if high > low:
        height = (z - low) / (high - low) * zscale
    else:
        height = z - low

    mesh = surface_mesh(Heights(_box_axis(x, longer_side), _box_axis(y, longer_side), height))
    return replace(mesh, values=z[heights.finite], normals=_point_normals(mesh))


def _box_axis(axis, longer_side):
    """An axis (n,) of the plane in a box: centred, its length relative to the longer side.

    A side far shorter than the other is drawn as SHORTEST_SIDE, or the surface would be a line.
    """
    length = axis[-1] - axis[0]
    centred = (axis - (axis[0] + axis[-1]) / 2) / length
    return centred * max(length / longer_side, SHORTEST_SIDE)


def _point_normals(mesh):
    """Unit normals (n, 3) of the points: the mean of those of the quads around each."""
    with_normals = to_polydata(mesh).compute_normals(
        cell_normals=False, split_vertices=False, consistent_normals=False,
        auto_orient_normals=False)
    return np.asarray(with_normals.point_data["Normals"])


# ---------------------------------------------------------------- PyVista


def import_pyvista():
    try:
        import pyvista
    except ImportError as error:
        raise InputError(f"this needs PyVista, which can't be imported ({error}); "
                         "pip install pyvista") from None
    return pyvista


def to_polydata(mesh):
    """PyVista's PolyData of a mesh: `zvalue` per point, and `Normals` if the mesh has them."""
    pyvista = import_pyvista()
    faces = np.insert(mesh.quads, 0, 4, axis=1)  # VTK wants the number of corners before each face
    polydata = pyvista.PolyData(mesh.points, faces.ravel())
    if mesh.normals is not None:
        polydata.point_data["Normals"] = mesh.normals
        polydata.point_data.active_normals_name = "Normals"
    polydata.point_data["zvalue"] = mesh.values
    return polydata


def shading_colours(name):
    """Matplotlib's colour map `name` without its darkest part.

    Shading darkens the rest, and black hides shape. InputError for a name that matplotlib lacks.
    """
    import matplotlib
    from matplotlib.colors import ListedColormap

    if name not in matplotlib.colormaps:
        raise InputError("expected a colour map of matplotlib, such as viridis or cividis, "
                         f"got {name!r}")
    return ListedColormap(matplotlib.colormaps[name](np.linspace(0.15, 1, 256)))


# ---------------------------------------------------------------- files


def vtp_bytes(mesh):
    """ParaView file, float32: points with `zvalue`, quads with `averaged zvalue` of corners."""
    polydata = to_polydata(replace(mesh, values=mesh.values.astype(np.float32)))
    polydata.cell_data["averaged zvalue"] = mesh.values[mesh.quads].mean(1).astype(np.float32)
    return _written(polydata.save, ".vtp")


def obj_bytes(mesh, colour_map):
    """Wavefront OBJ: quads and normals, y up; OBJ has no colours."""
    from vtkmodules.vtkIOGeometry import vtkOBJWriter

    def write(path):
        writer = vtkOBJWriter()
        writer.SetFileName(path)
        writer.SetInputData(to_polydata(_y_up(mesh)))
        writer.Write()

    return _written(write, ".obj")


def stl_bytes(mesh, colour_map):
    """Binary STL for printing: a closed solid with a flat base, z up, longer side 100 mm."""
    # pull a copy of the surface down; the points of the surface itself come first
    solid = to_polydata(mesh).extrude((0, 0, -1), capping=True).triangulate()

    # flatten the copy to a base, and set the base on the ground
    low = mesh.points[:, 2].min()
    points = solid.points.copy()
    points[len(mesh.points) :, 2] = low - STL_BASE
    points[:, 2] += STL_BASE - low
    solid.points = points * STL_SIDE

    # slicers want every facet to point outwards
    solid = solid.clean().compute_normals(
        cell_normals=True, point_normals=False, auto_orient_normals=True)
    return _written(solid.save, ".stl")


def glb_bytes(mesh, colour_map):
    """Binary glTF 2.0: triangles, normals, a colour per point, y up. VTK writes only text."""
    turned = _y_up(mesh)
    triangles = to_polydata(turned).triangulate().faces.reshape(-1, 4)[:, 1:]  # (triangles, 3)

    # glTF's numbers for types and for the buffers of a graphics card
    float32, uint32, vertices, elements = 5126, 5125, 34962, 34963
    blocks = [  # array, component type, element type, target
        (turned.points.astype("<f4"), float32, "VEC3", vertices),
        (turned.normals.astype("<f4"), float32, "VEC3", vertices),
        (_linear_colours(mesh.values, colour_map).astype("<f4"), float32, "VEC4", vertices),
        (triangles.astype("<u4"), uint32, "SCALAR", elements),
    ]

    # one buffer holds all blocks: a view says where a block lies, an accessor how to read it
    views, accessors = [], []
    offset = 0
    for number, (array, component, element, target) in enumerate(blocks):
        count = len(array)
        if element == "SCALAR":
            count = array.size
        views.append({
            "buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target,
        })
        accessors.append({
            "bufferView": number, "componentType": component, "type": element, "count": count,
        })
        offset += array.nbytes
    accessors[0] |= {"min": turned.points.min(0).tolist(), "max": turned.points.max(0).tolist()}

    attributes = {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}
    roughness = {"metallicFactor": 0, "roughnessFactor": 0.7}
    material = {"doubleSided": True, "pbrMetallicRoughness": roughness}
    scene = {
        "asset": {"version": "2.0", "generator": "h52vtp.py"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "loss surface"}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 3, "material": 0}]}],
        "materials": [material],
        "bufferViews": views,
        "accessors": accessors,
        "buffers": [{"byteLength": offset}],
    }
    return _glb_container(scene, b"".join(array.tobytes() for array, *_ in blocks))


def _glb_container(scene, binary):
    """The bytes of a .glb file: a header, the scene as JSON, the buffer; both padded to 4 bytes."""
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    header = struct.pack("<4sII", b"glTF", 2, total)
    text_header = struct.pack("<I4s", len(text), b"JSON")
    binary_header = struct.pack("<I4s", len(binary), b"BIN\0")
    return header + text_header + text + binary_header + binary


def _linear_colours(values, colour_map):
    """Colours (n, 4) of the values in linear light, as glTF has them; maps are sRGB."""
    share = (values - values.min()) / (np.ptp(values) or 1)
    colours = shading_colours(colour_map)(share)
    srgb = colours[:, :3]
    colours[:, :3] = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return colours


def _y_up(mesh):
    """The mesh with y up, as OBJ and glTF have it: (x, y, z) becomes (x, z, -y)."""
    sign = np.float32([1, 1, -1])
    points = mesh.points[:, [0, 2, 1]] * sign
    normals = mesh.normals[:, [0, 2, 1]] * sign
    return replace(mesh, points=points, normals=normals)


def _written(write, extension):
    """The bytes that `write(path)` puts into a file: VTK writes to files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mesh" + extension)
        write(path)
        with open(path, "rb") as f:
            return f.read()


# each: (mesh, colour map) -> bytes
MESH_WRITERS = {"obj": obj_bytes, "stl": stl_bytes, "glb": glb_bytes}
