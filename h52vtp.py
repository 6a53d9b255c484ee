"""A loss surface as a ParaView file, as a lit 3-D picture, and as a mesh for Blender or a 3-D printer.

    python h52vtp.py --surf_file S.h5 --surf_name train_loss --zmax 10 --log         the ParaView file (.vtp)
    python h52vtp.py --surf_file S.h5 --zmax 10 --log --png                          and a picture beside it
    python h52vtp.py --surf_file S.h5 --log --png --view top --size 1200x900         another view, another size
    python h52vtp.py --surf_file S.h5 --log --png --view=-30,55 --transparent        azimuth, elevation in degrees
    python h52vtp.py --surf_file S.h5 --log --orbit surface.gif                      a turntable, GIF or MP4
    python h52vtp.py --surf_file S.h5 --log --export stl                             obj, stl or glb

The files are named SURF_FILE_SURFNAME(_zmax=Z)(_log).vtp, .png and so on. The heights are, in this order, resampled to
N x N points by a cubic spline (--interp N), clipped at --zmax, and turned into log(z + 0.1) (--log). Quads that touch a
point without a finite value (not computed, NaN, infinite) are left out, and counted on stderr.

In pictures and meshes the surface is as high as --zscale times the longer side of its plane, whatever its values are;
the ParaView file has the values themselves. Thin dark lines are level lines at even steps of the height. Pictures need
no screen: they are drawn off-screen through EGL, OSMesa or X, whichever VTK finds.
"""

import argparse
import io
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

from losslandscape.command import Parser, natural_int, run
from losslandscape.errors import InputError
from losslandscape.files.layouts import option_suffix, read_surface, write_file

LOG_SHIFT = 0.1  # --log draws log(z + 0.1)
VIEWS = {  # azimuth and elevation of the camera, in degrees; azimuth 0 looks from +x, -90 from -y
    "default": (-60.0, 40.0),
    "low": (-60.0, 18.0),
    "front": (-90.0, 30.0),
    "side": (0.0, 30.0),
    "top": (-90.0, 90.0),
}
WIDTH, ORBIT_SIZE = 1600, (480, 360)  # pixels; a picture without --size is as high as its content
MAX_PIXELS = 6000  # per side: twice that is within what software OpenGL can draw
ZSCALE = 0.5
CONTOURS = 14
FRAMES, FRAME_SECONDS = 48, 0.08
STL_SIDE = 100.0  # STL has no unit, slicers take millimetres


# ---------------------------------------------------------------- heights


def heights(surface, name="train_loss", zmax=-1.0, log=False, interp=-1):
    """(x (nx,), y (ny,), z (ny, nx)) of a 2-D surface; NaN in z where there is no finite value.

    In this order: resampled to interp x interp points (-1: not), clipped at zmax (-1: not; +inf is clipped too), then
    log(z + 0.1). Raises InputError for a 1-D surface, for bad numbers, and for values that have no logarithm.
    """
    if surface.grid.y is None:
        raise InputError("expected a 2-D surface, got a 1-D one (no ycoordinates); draw it with plot_1D.py")
    x, y = surface.grid.x, surface.grid.y
    if len(x) < 2 or len(y) < 2:
        raise InputError(f"expected at least 2 points per axis, got {len(x)} x {len(y)}; compute a finer surface")
    if zmax != -1 and not (math.isfinite(zmax) and zmax > 0):
        raise InputError(f"expected --zmax above 0, or -1 for none, got {zmax}")
    if interp != -1 and interp < 2:
        raise InputError(f"expected --interp of at least 2 points per axis, or -1 for none, got {interp}")
    z = np.ma.filled(surface.get(name).astype(float), np.nan)  # (ny, nx), a new array
    if interp != -1:
        x, y, z = resample(x, y, z, interp)
    if zmax != -1:
        z = np.minimum(z, zmax)
    z[~(np.abs(z) <= np.finfo(np.float32).max)] = np.nan  # the files hold float32
    if log:
        if np.nanmin(z, initial=np.inf) + LOG_SHIFT <= 0:
            raise InputError(f"expected values above -{LOG_SHIFT} for --log, got {np.nanmin(z):.6g} in {name}; "
                             "leave --log out")
        z = np.log(z + LOG_SHIFT)
    return x, y, z


def resample(x, y, z, n):
    """The surface on n x n points by a spline through all points, cubic where an axis has at least 4 of them.

    The result is held within the range of the data: beside a steep wall a spline overshoots, below 0 for example. Gaps
    can't be splined: they are filled from the nearest point first, and cut out again afterwards, cell by cell.
    """
    from scipy.interpolate import NearestNDInterpolator, RectBivariateSpline, RegularGridInterpolator

    known = np.isfinite(z)
    if not known.any():
        raise InputError("expected at least one finite value to resample, found none; compute the surface first")
    if (np.diff(x) <= 0).any() or (np.diff(y) <= 0).any():
        raise InputError("expected ascending coordinates to resample; leave --interp out")
    filled = z if known.all() else NearestNDInterpolator(np.argwhere(known), z[known])(*np.indices(z.shape))
    new_x, new_y = np.linspace(x[0], x[-1], n), np.linspace(y[0], y[-1], n)
    spline = RectBivariateSpline(y, x, filled, kx=min(3, len(y) - 1), ky=min(3, len(x) - 1))
    new_z = np.clip(spline(new_y, new_x), z[known].min(), z[known].max())  # (n, n)
    points = np.stack(np.meshgrid(new_y, new_x, indexing="ij"), -1)
    for gap, value in ((z == np.inf, np.inf), (~known & (z != np.inf), np.nan)):
        if gap.any():
            new_z[RegularGridInterpolator((y, x), gap.astype(float))(points) > 1e-9] = value
    return new_x, new_y, new_z


def quads(z):
    """Corner numbers (quads, 4) of the cells of z (ny, nx) with four finite corners, and how many cells are not so.

    Cells are in row-major order; the corners are i, i+1, i+nx+1, i+nx: counterclockwise seen from above.
    """
    number = np.arange(z.size).reshape(z.shape)
    corners = np.stack([number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]], -1).reshape(-1, 4)
    whole = np.isfinite(z.ravel()[corners]).all(1)
    return corners[whole], int((~whole).sum())


def polydata(x, y, z):
    """PolyData of the surface, float32: points (x, y, z) in row-major order, quads, `zvalue` per point, `averaged
    zvalue` (the mean of the corners) per quad.

    Points without a finite z, and the quads that touch them, are left out: a NaN vertex spoils the bounds, and with
    them the view, in ParaView. Raises InputError when no quad is left.
    """
    pyvista = import_pyvista()
    corners, _ = quads(z)
    if len(corners) == 0:
        raise InputError("expected a grid cell with four finite values, found none; compute more of the surface first")
    finite = np.isfinite(z).ravel()
    xx, yy = np.meshgrid(x, y)
    points = np.column_stack([xx.ravel(), yy.ravel(), z.ravel()])[finite].astype(np.float32)
    renumbered = np.cumsum(finite) - 1
    mesh = pyvista.PolyData(points, np.insert(renumbered[corners], 0, 4, axis=1).ravel())
    mesh.point_data["zvalue"] = z.ravel()[finite].astype(np.float32)
    mesh.cell_data["averaged zvalue"] = z.ravel()[corners].mean(1).astype(np.float32)
    return mesh


# ---------------------------------------------------------------- the shape that is drawn and exported


def shape(x, y, z, zscale=ZSCALE):
    """PolyData of the surface in a box: longer side of the plane 1, centred, height from 0 to `zscale`; with normals.

    Its shape doesn't depend on the scale of the values; `zvalue` holds them.
    """
    side = max(np.ptp(x), np.ptp(y))
    low, high = np.nanmin(z), np.nanmax(z)
    scaled = (z - low) / (high - low) * zscale if high > low else z - low
    mesh = polydata((x - (x[0] + x[-1]) / 2) / side, (y - (y[0] + y[-1]) / 2) / side, scaled)
    mesh.clear_data()
    mesh = mesh.compute_normals(cell_normals=False, split_vertices=False, consistent_normals=False,
                                auto_orient_normals=False)
    mesh.point_data["zvalue"] = z[np.isfinite(z)].astype(np.float32)
    return mesh


def refine(mesh, cells=300):
    """The same surface with every quad as a bilinear patch of k x k quads, about `cells` along the longer side.

    A quad that is drawn as two triangles shows the diagonal that was chosen; a patch has no favoured diagonal. The
    corners stay the points of the data; normals are interpolated, so that the shading is smooth.
    """
    pyvista = import_pyvista()
    corners = mesh.faces.reshape(-1, 5)[:, 1:]
    data = np.column_stack([mesh.points, mesh.point_data["Normals"], mesh.point_data["zvalue"]])  # (points, 7)
    k = max(1, round(cells / math.sqrt(len(corners))))
    v, u = np.meshgrid(*[np.linspace(0, 1, k + 1)] * 2, indexing="ij")
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], -1).reshape(-1, 4)
    fine = np.einsum("pc,qcd->qpd", weights, data[corners]).reshape(-1, 7)
    patch, _ = quads(np.zeros((k + 1, k + 1)))
    patches = (patch + np.arange(len(corners))[:, None, None] * (k + 1) ** 2).reshape(-1, 4)
    result = pyvista.PolyData(fine[:, :3], np.insert(patches, 0, 4, axis=1).ravel())
    length = np.linalg.norm(fine[:, 3:6], axis=1, keepdims=True)
    result.point_data["Normals"] = fine[:, 3:6] / np.where(length > 0, length, 1)
    result.point_data.active_normals_name = "Normals"
    result.point_data["zvalue"] = fine[:, 6]
    return result


def colours(name):
    """Colour map `name` of matplotlib without its darkest part: shading darkens what is left, and black hides shape."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    if name not in matplotlib.colormaps:
        raise InputError(f"expected a colour map of matplotlib, such as viridis or cividis, got {name!r}")
    return ListedColormap(matplotlib.colormaps[name](np.linspace(0.15, 1, 256)))


# ---------------------------------------------------------------- pictures


def import_pyvista():
    try:
        import pyvista
    except ImportError as error:
        raise InputError(f"this needs PyVista, which can't be imported ({error}); pip install pyvista") from None
    return pyvista


def require_rendering():
    """Raise InputError where VTK can't draw. VTK itself would end the process with a segmentation fault."""
    from vtkmodules import vtkRenderingOpenGL2  # noqa: F401  registers the windows
    from vtkmodules.vtkCommonCore import vtkLogger
    from vtkmodules.vtkRenderingCore import vtkRenderWindow

    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)  # a missing X server is no news
    if vtkRenderWindow().GetClassName() == "vtkEGLRenderWindow":
        return  # VTK has made a context to find that out
    # the other windows crash only when they draw: try it in a process of its own
    probe = "import pyvista; pyvista.Plotter(off_screen=True, window_size=(16, 16)).screenshot(None, return_img=True)"
    if subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode != 0:
        raise InputError("VTK found no way to draw on this machine; install libEGL (Debian: apt install libegl1 "
                         "libgl1-mesa-dri) or libOSMesa (apt install libosmesa6), with vtk 9.4 or newer")


def camera_axes(azimuth, elevation):
    """Unit vectors (right, up, forward) of a camera that looks at the middle from that direction (degrees)."""
    a, e = np.radians([azimuth, elevation])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    forward = -np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    return right, np.cross(right, forward), forward


VIEW_ANGLE = 20.0  # degrees, top to bottom; narrow, so that near corners don't loom
MARGIN = 0.03  # share of the picture that is left free on each side


def _tangent():
    return math.tan(math.radians(VIEW_ANGLE) / 2) * (1 - 2 * MARGIN)


def camera_position(points, basis, aspect):
    """The closest camera position from which all `points` (n, 3) are in the picture, and centred in it.

    A point p is inside when |(p - c) right| <= aspect t (p - c) forward and |(p - c) up| <= t (p - c) forward, with t
    the tangent of half the view angle: linear in the position c, so the best c is found without a search.
    """
    right, up, forward = (points @ vector for vector in basis)
    position = np.zeros(3)
    depths = []
    for along, vector, t in ((right, basis[0], _tangent() * aspect), (up, basis[1], _tangent())):
        plus, minus = (along - t * forward).max(), (-along - t * forward).max()
        position += (plus - minus) / 2 * vector
        depths.append(-(plus + minus) / (2 * t))
    return position + min(depths) * basis[2]


def content_aspect(points, basis):
    """Width over height of the picture that the points fill."""
    aspect = 1.5
    for _ in range(8):  # the camera depends on the aspect and the aspect on the camera: a contraction
        relative = points - camera_position(points, basis, aspect)
        depth = relative @ basis[2]
        aspect = np.ptp(relative @ basis[0] / depth) / max(np.ptp(relative @ basis[1] / depth), 1e-9)
        aspect = min(max(aspect, 0.5), 3.0)
    return aspect


def photographs(mesh, directions, size, cmap="viridis", contours=CONTOURS, transparent=False, framed=None):
    """Pictures (PIL) of `shape(...)` from each (azimuth, elevation), drawn at twice the size and averaged down.

    `framed`: the points (n, 3) that must fit into every picture; by default those of the surface.
    """
    from PIL import Image

    pyvista = import_pyvista()
    require_rendering()
    fine = refine(mesh)
    points = np.asarray(mesh.points, float) if framed is None else framed
    plotter = pyvista.Plotter(off_screen=True, window_size=[2 * side for side in size], lighting="none")
    plotter.background_color = "white"
    plotter.add_mesh(
        fine, scalars="zvalue", cmap=colours(cmap), interpolate_before_map=True, smooth_shading=True,
        show_scalar_bar=False, ambient=0.35, diffuse=0.75, specular=0.1, specular_power=12,
    )
    low, high = fine.get_data_range("zvalue")
    if contours and high > low:
        lines = fine.contour(np.linspace(low, high, contours + 2)[1:-1], scalars="zvalue")
        width = max(1.5, size[0] / 600)
        actor = plotter.add_mesh(lines, color="black", opacity=0.35, line_width=width, lighting=False)
        # pulled towards the camera, or the surface that they lie in would swallow half of them
        actor.mapper.SetResolveCoincidentTopologyToPolygonOffset()
        actor.mapper.SetRelativeCoincidentTopologyLineOffsetParameters(-4, -60)
    plotter.enable_ssao(radius=0.15, bias=0.015, kernel_size=128, blur=True)
    pictures = []
    for azimuth, elevation in directions:
        plotter.renderer.remove_all_lights()
        for turn, height, intensity in ((-70, 45, 0.8), (50, 25, 0.35), (0, elevation, 0.15)):  # key, fill, headlight
            light = pyvista.Light(light_type="scene light", intensity=intensity)
            light.positional = False
            light.position = -10 * camera_axes(azimuth + turn, height)[2]
            light.focal_point = (0, 0, 0)
            plotter.add_light(light)
        basis = camera_axes(azimuth, elevation)
        position = camera_position(points, basis, size[0] / size[1])
        depth = (points - position) @ basis[2]
        camera = plotter.camera
        camera.position, camera.focal_point, camera.up = position, position + basis[2] * depth.mean(), basis[1]
        camera.view_angle = VIEW_ANGLE
        camera.clipping_range = max(depth.min() - 0.1, 0.01), depth.max() + 0.1
        plotter.render()  # screenshot() alone would return the first picture again
        pixels = plotter.screenshot(None, return_img=True, transparent_background=transparent)
        pictures.append(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    plotter.close()
    return pictures


def picture(mesh, view, size=None, **look):
    """One picture from view = (azimuth, elevation); without a size it is WIDTH wide and as high as its content."""
    if size is None:
        size = WIDTH, round(WIDTH / content_aspect(np.asarray(mesh.points, float), camera_axes(*view)))
    return photographs(mesh, [view], size, **look)[0]


def turntable(mesh, view, size=ORBIT_SIZE, **look):
    """FRAMES pictures all around, starting from `view`; what is framed fits all of them, so nothing jumps."""
    points = np.asarray(mesh.points, float)
    radius = np.hypot(points[:, 0], points[:, 1])
    ring = [np.column_stack([radius * np.cos(a), radius * np.sin(a), points[:, 2]])
            for a in np.linspace(0, 2 * np.pi, 36, endpoint=False)]
    directions = [(view[0] + turn, view[1]) for turn in np.linspace(0, 360, FRAMES, endpoint=False)]
    return photographs(mesh, directions, size, framed=np.concatenate(ring), **look)


def gif(frames):
    """Bytes of an endless GIF. One palette for all frames, taken from several of them: colours don't flicker."""
    from PIL import Image

    width, height = frames[0].size
    sample = frames[:: max(1, len(frames) // 6)]
    strip = Image.new("RGB", (width, height * len(sample)))
    for i, frame in enumerate(sample):
        strip.paste(frame, (0, i * height))
    palette = strip.quantize(128)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    milliseconds = round(1000 * FRAME_SECONDS)
    indexed[0].save(buffer, "GIF", save_all=True, append_images=indexed[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def mp4(frames):
    """Bytes of an H.264 film; needs imageio-ffmpeg."""
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "film.mp4")
        writer = imageio_ffmpeg.write_frames(path, frames[0].size, fps=1 / FRAME_SECONDS, macro_block_size=2)
        writer.send(None)
        for frame in frames:
            writer.send(frame.tobytes())
        writer.close()
        with open(path, "rb") as f:
            return f.read()


FILMS = {".gif": gif, ".mp4": mp4}


# ---------------------------------------------------------------- files


def saved(mesh, extension):
    """The bytes of the file that VTK writes for `mesh`."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mesh" + extension)
        mesh.save(path)
        with open(path, "rb") as f:
            return f.read()


def upright(mesh):
    """The mesh with y up, as OBJ and glTF have it: (x, y, z) becomes (x, z, -y)."""
    turned = mesh.copy()
    turned.points = mesh.points[:, [0, 2, 1]] * np.float32([1, 1, -1])
    if "Normals" in mesh.point_data:
        turned.point_data["Normals"] = mesh.point_data["Normals"][:, [0, 2, 1]] * np.float32([1, 1, -1])
    return turned


def obj(mesh, cmap):
    """Wavefront OBJ: quads and normals, y up."""
    from vtkmodules.vtkIOGeometry import vtkOBJWriter

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mesh.obj")
        writer = vtkOBJWriter()
        writer.SetFileName(path)
        writer.SetInputData(upright(mesh))
        writer.Write()
        with open(path, "rb") as f:
            return f.read()


def stl(mesh, cmap):
    """Binary STL for printing: a closed solid with a flat base, z up, longer side 100 mm."""
    low = mesh.points[:, 2].min()
    thickness = 0.04
    solid = mesh.extrude((0, 0, -1), capping=True).triangulate()
    points = solid.points.copy()  # the upper copies of the points come first
    points[mesh.n_points :, 2] = low - thickness
    points[:, 2] += thickness - low
    solid.points = points * STL_SIDE
    solid = solid.clean().compute_normals(cell_normals=True, point_normals=False, auto_orient_normals=True)  # outwards
    return saved(solid, ".stl")


def glb(mesh, cmap):
    """Binary glTF 2.0: triangles with normals and one colour per vertex, y up. VTK writes glTF only as text."""
    turned = upright(mesh)
    z = mesh.point_data["zvalue"].astype(float)
    shade = colours(cmap)((z - z.min()) / (np.ptp(z) or 1))
    shade[:, :3] = np.where(shade[:, :3] <= 0.04045, shade[:, :3] / 12.92, ((shade[:, :3] + 0.055) / 1.055) ** 2.4)
    triangles = turned.triangulate().faces.reshape(-1, 4)[:, 1:]
    float32, uint32 = 5126, 5125
    blocks = [  # array, component type, element type, GPU target
        (turned.points.astype("<f4"), float32, "VEC3", 34962),
        (turned.point_data["Normals"].astype("<f4"), float32, "VEC3", 34962),
        (shade.astype("<f4"), float32, "VEC4", 34962),  # glTF colours are linear, not sRGB
        (triangles.astype("<u4"), uint32, "SCALAR", 34963),
    ]
    views, accessors, offset = [], [], 0
    for i, (array, component, element, target) in enumerate(blocks):
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target})
        accessors.append({"bufferView": i, "componentType": component, "type": element,
                          "count": array.size if element == "SCALAR" else len(array)})
        offset += array.nbytes
    accessors[0] |= {"min": turned.points.min(0).tolist(), "max": turned.points.max(0).tolist()}
    attributes = {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}
    text = json.dumps({
        "asset": {"version": "2.0", "generator": "h52vtp.py"},
        "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "name": "loss surface"}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 3, "material": 0}]}],
        "materials": [{"doubleSided": True, "pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 0.7}}],
        "bufferViews": views, "accessors": accessors, "buffers": [{"byteLength": offset}],
    }).encode()
    text += b" " * (-len(text) % 4)
    data = b"".join(array.tobytes() for array, *_ in blocks)
    return (struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(data))
            + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data)


EXPORTS = {"obj": obj, "stl": stl, "glb": glb}


# ---------------------------------------------------------------- the command


def view_direction(text):
    """argparse type: a name of VIEWS, or AZIMUTH,ELEVATION in degrees."""
    if text in VIEWS:
        return VIEWS[text]
    try:
        azimuth, elevation = (float(part) for part in text.split(","))
    except ValueError:
        azimuth = elevation = math.nan
    if not (math.isfinite(azimuth) and -90 <= elevation <= 90):
        raise argparse.ArgumentTypeError(
            f"expected {', '.join(VIEWS)} or AZIMUTH,ELEVATION in degrees, such as --view=-60,40; got {text!r}")
    return azimuth, elevation


def pixel_size(text):
    """argparse type: WIDTHxHEIGHT in pixels."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and all(16 <= int(n) <= MAX_PIXELS for n in (width, height))):
        raise argparse.ArgumentTypeError(
            f"expected WIDTHxHEIGHT, each from 16 to {MAX_PIXELS} pixels, such as 1600x1200; got {text!r}")
    return int(width), int(height)


def positive_float(text):
    """argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def note(text):
    print(f"note: {text}", file=sys.stderr)


def main(argv=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surf_file", "-f", required=True, help="a 2-D surface file")
    parser.add_argument("--surf_name", default="", help="which values: train_loss, test_loss, train_err, ... (default: "
                                                        "train_loss, or what the file has)")
    parser.add_argument("--zmax", type=float, default=-1, help="clip the heights here (-1: no)")
    parser.add_argument("--interp", type=int, default=-1, metavar="N", help="resample to N x N points (-1: no)")
    parser.add_argument("--log", action="store_true", help="heights are log(z + 0.1)")
    parser.add_argument("--png", action="store_true", help="draw a lit picture")
    parser.add_argument("--orbit", metavar="FILE", help="write a turntable to FILE.gif or FILE.mp4")
    parser.add_argument("--export", choices=EXPORTS, help="write a mesh: obj, stl (a solid for printing) or glb")
    parser.add_argument("--zscale", type=positive_float, default=ZSCALE,
                        help="height of picture and mesh, relative to the longer side of the plane")
    parser.add_argument("--view", type=view_direction, default="default",
                        help=f"{', '.join(VIEWS)}, or --view=AZIMUTH,ELEVATION in degrees")
    parser.add_argument("--size", type=pixel_size, help=f"WIDTHxHEIGHT (default: {WIDTH} wide, as high as needed; "
                                                        f"orbit: {ORBIT_SIZE[0]}x{ORBIT_SIZE[1]})")
    parser.add_argument("--cmap", default="viridis", help="colour map of matplotlib")
    parser.add_argument("--contours", type=natural_int, default=CONTOURS, help="level lines on the surface (0: none)")
    parser.add_argument("--transparent", action="store_true", help="picture without background")
    args = parser.parse_args(argv)

    film = None
    if args.orbit:
        extension = os.path.splitext(args.orbit)[1].lower()
        if extension not in FILMS:
            raise InputError(f"expected --orbit FILE.gif or FILE.mp4, got {args.orbit!r}")
        if not os.path.isdir(os.path.dirname(args.orbit) or "."):
            raise InputError(f"expected --orbit in a folder that exists, got {args.orbit!r}; make the folder first")
        film = FILMS[extension]
        if film is mp4:
            try:
                import imageio_ffmpeg  # noqa: F401  asked for before anything is drawn
            except ImportError:
                raise InputError("MP4 needs imageio-ffmpeg; pip install imageio-ffmpeg, or take a .gif") from None
    if args.png or film or args.export:
        colours(args.cmap)  # a wrong name is found before the work, not after it
    surface = read_surface(args.surf_file)
    name = args.surf_name or surface.main_name
    x, y, z = heights(surface, name, args.zmax, args.log, args.interp)
    stem = (f"{args.surf_file}_{name}"
            + option_suffix(("zmax", args.zmax if args.zmax != -1 else None), ("log", args.log)))

    # everything is made before anything is written: an error leaves no file behind
    files = {stem + ".vtp": saved(polydata(x, y, z), ".vtp")}
    left_out = quads(z)[1]
    if left_out:
        note(f"{left_out} of {(len(x) - 1) * (len(y) - 1)} quads are left out: they touch "
             f"{int(np.isnan(z).sum())} points that are not computed, NaN or infinite")
    if args.png or film or args.export:
        mesh = shape(x, y, z, args.zscale)
        spread = (np.nanquantile(z, 0.9) - np.nanmin(z)) / (np.ptp(z[np.isfinite(z)]) or 1)
        if 0 < spread < 0.2:
            note(f"nine tenths of the points lie in the lowest {100 * spread:.2g} % of the height; "
                 "--log or --zmax shows them")
    if args.export:
        files[f"{stem}.{args.export}"] = EXPORTS[args.export](mesh, args.cmap)
    look = {"cmap": args.cmap, "contours": args.contours}
    if args.png:
        buffer = io.BytesIO()
        drawn = picture(mesh, args.view, args.size, transparent=args.transparent, **look)
        drawn.save(buffer, "PNG", optimize=True)
        files[stem + ".png"] = buffer.getvalue()
    if film:
        files[args.orbit] = film(turntable(mesh, args.view, args.size or ORBIT_SIZE, **look))
    for path, image in files.items():
        write_file(path, image)
        print(path)


if __name__ == "__main__":
    run(main)
