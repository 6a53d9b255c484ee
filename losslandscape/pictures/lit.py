"""Lit 3-D pictures and turntable films of a mesh, drawn off-screen by VTK.

The camera is computed, not searched: the closest position from which the whole surface is in the
picture.
"""

import io
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.pictures.mesh import (
    Mesh,
    grid_quads,
    import_pyvista,
    shading_colours,
    to_polydata,
)
from losslandscape.pictures.overwrite import MAKER, ending_of, refuse_foreign_file

VIEWS = {  # azimuth and elevation of the camera, in degrees; azimuth 0 looks from +x, -90 from -y
    "default": (-60.0, 40.0),
    "low": (-60.0, 18.0),
    "front": (-90.0, 30.0),
    "side": (0.0, 30.0),
    "top": (-90.0, 90.0),
}
VIEW_ANGLE = 20.0  # degrees, top to bottom; narrow, so that near corners don't loom
MARGIN = 0.03  # share of the picture that is left free on each side

WIDTH = 1600  # pixels; a picture without a size is as high as its content
FILM_SIZE = (480, 360)  # pixels
MAX_PIXELS = 6000  # per side: twice that is within what software OpenGL can draw
FRAMES = 48  # of a turn
FRAME_SECONDS = 0.08
CONTOURS = 14  # level lines

# turn from the camera and elevation in degrees, intensity; no elevation: that of the camera
LIGHTS = (
    (-70, 45, 0.8),  # key
    (50, 25, 0.35),  # fill
    (0, None, 0.15),  # headlight
)


@dataclass(frozen=True)
class Appearance:
    """How a picture looks: colour map of matplotlib, number of level lines, no background."""

    colour_map: str = "viridis"
    contours: int = CONTOURS
    transparent: bool = False


def lit_picture(mesh, view, size=None, look=None):
    """Picture (PIL) of a `box_mesh`.

    view: (azimuth, elevation) in degrees; size: (width, height) in pixels. Without a size it is
    WIDTH wide and as high as its content.
    """
    if size is None:
        aspect = content_aspect(np.asarray(mesh.points, float), camera_axes(*view))
        size = WIDTH, round(WIDTH / aspect)
    return _photographs(mesh, [view], size, look or Appearance(), mesh.points)[0]


def turntable(mesh, view, size=None, look=None):
    """FRAMES pictures (PIL) all around a `box_mesh`, starting from `view`.

    The camera keeps the distance that fits them all, so nothing jumps.
    """
    # what must fit into every picture: the surface at 36 angles
    points = np.asarray(mesh.points, float)
    radius = np.hypot(points[:, 0], points[:, 1])
    rings = []
    for angle in np.linspace(0, 2 * np.pi, 36, endpoint=False):
        x, y = radius * np.cos(angle), radius * np.sin(angle)
        rings.append(np.column_stack([x, y, points[:, 2]]))

    azimuth, elevation = view
    turns = np.linspace(0, 360, FRAMES, endpoint=False)
    views = [(azimuth + turn, elevation) for turn in turns]
    return _photographs(mesh, views, size or FILM_SIZE, look or Appearance(), np.concatenate(rings))


# ---------------------------------------------------------------- the camera


def camera_axes(azimuth, elevation):
    """Unit vectors (right, up, forward) of a camera looking at the middle from there (degrees)."""
    azimuth, elevation = np.radians([azimuth, elevation])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    backward = np.array([
        np.cos(elevation) * np.cos(azimuth),
        np.cos(elevation) * np.sin(azimuth),
        np.sin(elevation),
    ])
    forward = -backward
    return right, np.cross(right, forward), forward


def _half_height():
    """Half of the height that the content may fill, one unit of length in front of the camera."""
    return math.tan(math.radians(VIEW_ANGLE) / 2) * (1 - 2 * MARGIN)


def camera_position(points, axes, aspect):
    """The closest camera position (3,) from which all `points` (n, 3) are in the picture, centred.

    `axes` are those of `camera_axes`, `aspect` is width over height of the picture. A point p is
    inside when |(p - c) right| <= aspect t (p - c) forward and |(p - c) up| <= t (p - c) forward,
    with t the tangent of half the view angle: linear in the position c, so the best c is found
    without a search.
    """
    right, up, forward = axes
    depth = points @ forward
    position = np.zeros(3)
    depths = []
    for axis, tangent in ((right, _half_height() * aspect), (up, _half_height())):
        along = points @ axis
        plus = (along - tangent * depth).max()
        minus = (-along - tangent * depth).max()
        position += (plus - minus) / 2 * axis
        depths.append(-(plus + minus) / (2 * tangent))
    return position + min(depths) * forward


def content_aspect(points, axes):
    """Width over height of the picture that the points (n, 3) fill, from 0.5 to 3."""
    right, up, forward = axes
    aspect = 1.5
    # the camera depends on the aspect and the aspect on the camera: a contraction
    for _ in range(8):
        relative = points - camera_position(points, axes, aspect)
        depth = relative @ forward
        width = np.ptp(relative @ right / depth)
        height = max(np.ptp(relative @ up / depth), 1e-9)
        aspect = min(max(width / height, 0.5), 3.0)
    return aspect


# ---------------------------------------------------------------- drawing


def require_rendering():
    """Raise InputError where VTK can't draw: it would end the process by a segmentation fault."""
    from vtkmodules import vtkRenderingOpenGL2  # noqa: F401  registers the windows
    from vtkmodules.vtkCommonCore import vtkLogger
    from vtkmodules.vtkRenderingCore import vtkRenderWindow

    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)  # a missing X server is no news
    if vtkRenderWindow().GetClassName() == "vtkEGLRenderWindow":
        return  # VTK has opened EGL to find that out

    # the other windows crash only when they draw: try it in a process of its own
    probe = ("import pyvista; plotter = pyvista.Plotter(off_screen=True, window_size=(16, 16)); "
             "plotter.screenshot(None, return_img=True)")
    if subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode != 0:
        raise InputError("VTK found no way to draw on this machine; install libEGL (Debian: apt "
                         "install libegl1 libgl1-mesa-dri) or libOSMesa (apt install libosmesa6), "
                         "with vtk 9.4 or newer")


def refine(mesh, cells=300):
    """The same surface with every quad as a bilinear patch of k x k quads, about `cells` a side.

    A quad that is drawn as two triangles shows the diagonal that was chosen; a patch has no
    favoured diagonal. The corners stay the points of the data; normals are interpolated, so that
    the shading is smooth.
    """
    k = max(1, round(cells / math.sqrt(len(mesh.quads))))
    points_per_patch = (k + 1) ** 2

    # weights of the four corners at each point of a patch
    v, u = np.meshgrid(*[np.linspace(0, 1, k + 1)] * 2, indexing="ij")
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], -1).reshape(-1, 4)

    # points, normals and values of all patches: the weighted corners
    corners = np.column_stack([mesh.points, mesh.normals, mesh.values.astype(np.float32)])  # (n, 7)
    fine = np.einsum("pc,qcd->qpd", weights, corners[mesh.quads]).reshape(-1, 7)
    length = np.linalg.norm(fine[:, 3:6], axis=1, keepdims=True)
    normals = fine[:, 3:6] / np.where(length > 0, length, 1)

    # each patch has points of its own, numbered after those of the patches before it
    patch, _ = grid_quads(np.zeros((k + 1, k + 1)))
    first_point = np.arange(len(mesh.quads))[:, None, None] * points_per_patch
    quads = (patch + first_point).reshape(-1, 4)
    return Mesh(fine[:, :3], quads, fine[:, 6], normals)


def _photographs(mesh, views, size, look, framed):
    """Pictures (PIL) of the mesh from each view, drawn at twice the size and averaged down.

    `framed` are the points (n, 3) that must fit into every picture.
    """
    from PIL import Image

    framed = np.asarray(framed, float)
    plotter = _scene(mesh, size, look)
    pictures = []
    for view in views:
        _place_lights(plotter, view)
        _place_camera(plotter, view, framed, size[0] / size[1])
        plotter.render()  # screenshot() alone would return the first picture again
        pixels = plotter.screenshot(None, return_img=True, transparent_background=look.transparent)
        pictures.append(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    plotter.close()
    return pictures


def _scene(mesh, size, look):
    """A plotter with the surface and its level lines, on white, as yet without lights."""
    pyvista = import_pyvista()
    require_rendering()
    drawn_size = [2 * side for side in size]
    plotter = pyvista.Plotter(off_screen=True, window_size=drawn_size, lighting="none")
    plotter.background_color = "white"

    surface = to_polydata(refine(mesh))
    plotter.add_mesh(
        surface, scalars="zvalue", cmap=shading_colours(look.colour_map),
        interpolate_before_map=True, smooth_shading=True, show_scalar_bar=False,
        ambient=0.35, diffuse=0.75, specular=0.1, specular_power=12,
    )  # fmt: skip

    low, high = surface.get_data_range("zvalue")
    if look.contours > 0 and high > low:
        levels = np.linspace(low, high, look.contours + 2)[1:-1]
        lines = surface.contour(levels, scalars="zvalue")
        width = max(1.5, size[0] / 600)
        actor = plotter.add_mesh(
            lines, color="black", opacity=0.35, line_width=width, lighting=False)

        # pulled towards the camera, or the surface that they lie in would swallow half of them
        actor.mapper.SetResolveCoincidentTopologyToPolygonOffset()
        actor.mapper.SetRelativeCoincidentTopologyLineOffsetParameters(-4, -60)

    # dark in the corners, where little light comes in
    plotter.enable_ssao(radius=0.15, bias=0.015, kernel_size=128, blur=True)
    return plotter


def _place_lights(plotter, view):
    """Key light, fill light and headlight; they turn with the camera."""
    pyvista = import_pyvista()
    azimuth, elevation = view
    plotter.renderer.remove_all_lights()
    for turn, height, intensity in LIGHTS:
        if height is None:
            height = elevation
        _, _, forward = camera_axes(azimuth + turn, height)
        light = pyvista.Light(light_type="scene light", intensity=intensity)
        light.positional = False
        light.position = -10 * forward
        light.focal_point = (0, 0, 0)
        plotter.add_light(light)


def _place_camera(plotter, view, framed, aspect):
    """The camera in the direction `view`, as near as the points `framed` (n, 3) allow."""
    axes = camera_axes(*view)
    _, up, forward = axes
    position = camera_position(framed, axes, aspect)
    depth = (framed - position) @ forward

    camera = plotter.camera
    camera.position = position
    camera.focal_point = position + forward * depth.mean()
    camera.up = up
    camera.view_angle = VIEW_ANGLE
    camera.clipping_range = max(depth.min() - 0.1, 0.01), depth.max() + 0.1


# ---------------------------------------------------------------- films


def png_bytes(picture):
    """The bytes of a PNG file of a picture (PIL)."""
    from PIL.PngImagePlugin import PngInfo

    maker = PngInfo()
    maker.add_text("Software", MAKER)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, pnginfo=maker)
    return buffer.getvalue()


def gif_bytes(frames):
    """The bytes of an endless GIF of pictures (PIL).

    One palette for all frames, taken from several of them: colours don't flicker.
    """
    from PIL import Image

    # the palette of a strip of frames, one below the other
    width, height = frames[0].size
    sample = frames[:: max(1, len(frames) // 6)]
    strip = Image.new("RGB", (width, height * len(sample)))
    for number, frame in enumerate(sample):
        strip.paste(frame, (0, number * height))
    palette = strip.quantize(128)

    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    milliseconds = round(1000 * FRAME_SECONDS)
    indexed[0].save(
        buffer, "GIF", save_all=True, append_images=indexed[1:], duration=milliseconds, loop=0,
        comment=MAKER.encode())
    return buffer.getvalue()


def mp4_bytes(frames):
    """The bytes of an H.264 film of pictures (PIL); needs imageio-ffmpeg."""
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "film.mp4")
        writer = imageio_ffmpeg.write_frames(
            path, frames[0].size, fps=1 / FRAME_SECONDS, macro_block_size=2,
            output_params=["-metadata", f"comment={MAKER}"])
        writer.send(None)
        for frame in frames:
            writer.send(frame.tobytes())
        writer.close()
        with open(path, "rb") as f:
            return f.read()


FILM_WRITERS = {"gif": gif_bytes, "mp4": mp4_bytes}  # each: frames -> bytes


def film_writer(path):
    """The writer for the film file `path`, by its ending; InputError before anything is drawn."""
    ending = ending_of(path)
    if ending not in FILM_WRITERS:
        raise InputError(f"expected --orbit FILE.gif or FILE.mp4, got {path!r}")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise InputError(f"expected --orbit in a folder that exists, got {path!r}; "
                         "make the folder first")
    refuse_foreign_file(path, ending, chosen=True)
    if ending == "mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise InputError("MP4 needs imageio-ffmpeg; pip install imageio-ffmpeg, "
                             "or take a .gif") from None
    return FILM_WRITERS[ending]
