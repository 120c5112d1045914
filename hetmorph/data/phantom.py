"""A beating heart that needs no files: short-axis pairs whose displacement and noise are known exactly.

The end-diastolic picture is a function of the plane, f(y), and the motion is a closed-form map of the plane,
y = x + u(x). The moving image is f on the grid and the fixed image is f(x + u(x)) on the grid, so that
without noise moved(x) = moving(x + u(x)) holds up to the interpolation of the moving image. The map is a
product of a smooth bulk motion, a twisting contraction of the left and a contraction of the right
ventricle, each one-to-one, so the field has no fold. Noise is Rician: the magnitude of a complex signal
with independent noise of standard deviation sigma(x) in both channels; where the signal exceeds about 3
sigma, sigma is the standard deviation of the image.

Reference (noise): Gudbjartsson and Patz, Magn. Reson. Med. 34, 1995, https://doi.org/10.1002/mrm.1910340618
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hetmorph.data.acdc import LABELS
from hetmorph.data.dataset import Dataset, Found, Options
from hetmorph.data.noise import rician
from hetmorph.data.pair import Pair

PATIENTS = 32
SLICES = 8
GROUPS = {  # end-diastolic cavity radius and wall (voxels of a 128 x 128 image), end-systolic share of the radius
    "normal": ((16.0, 20.0), (6.0, 8.0), (0.62, 0.72)),
    "dilated": ((19.0, 24.0), (5.0, 6.5), (0.74, 0.85)),
    "thick": ((13.0, 17.0), (8.5, 11.0), (0.60, 0.68)),
}
_NATIVE = 128
_SPACING_MM = 1.5
_SKEW = 0.25


@dataclass(frozen=True)
class Contraction:
    """A one-to-one map that pulls from farther out: ρ → ρ(1 + strength·skew·exp(-ρ²/2w²)), turned by a local twist."""

    center: np.ndarray
    strength: float
    width: float
    skew: np.ndarray
    twist: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        x, y = points[0] - float(self.center[0]), points[1] - float(self.center[1])
        squared = x * x + y * y
        bump = np.exp(squared * (-0.5 / self.width**2))
        lean = (float(self.skew[0]) * x + float(self.skew[1]) * y) / np.sqrt(squared + self.width**2)
        factor = 1 + self.strength * bump * (1 + lean)
        x, y = x * factor, y * factor
        cos, sin = np.cos(self.twist * bump), np.sin(self.twist * bump)
        return np.stack([cos * x - sin * y, sin * x + cos * y]) + self.center[:, None, None]


@dataclass(frozen=True)
class Heart:
    """One slice of one patient, in voxels of the image at hand."""

    shape: tuple[int, int]
    scale: float
    center: np.ndarray
    cavity: float
    wall: float
    lobes: np.ndarray
    toward_rv: np.ndarray
    rv: float
    papillary: np.ndarray
    bulk: np.ndarray
    left: Contraction
    right: Contraction
    waves: np.ndarray
    tissue: dict[str, float]
    coil: np.ndarray
    spot: np.ndarray
    noise: float


def patients(count: int = PATIENTS) -> dict[str, str]:
    """Names of the built-in patients and their groups."""
    groups = list(GROUPS)
    return {f"phantom{number:03d}": groups[number % len(groups)] for number in range(count)}


def read_pairs(patient: str, size: tuple[int, int] = (128, 128), seed: int = 0, noise: bool = True) -> list[Pair]:
    """All slices of one built-in patient, from base to apex."""
    number = int(patient.removeprefix("phantom"))
    return [generate(number * SLICES + index, seed, size, noise) for index in range(SLICES)]


def generate(index: int, seed: int = 0, size: tuple[int, int] = (128, 128), noise: bool = True) -> Pair:
    """Draws one pair; the same (seed, index) gives the same pair.

    Args:
        index: slice `index % 8` of patient `index // 8`.
        seed: another seed gives another population.
        size: height and width, voxels; the anatomy scales with the shorter side.
        noise: False leaves both images noiseless.

    Returns:
        A `Pair` with labels (1 RV, 2 myocardium, 3 LV), true `displacement` and the noise level `sigma`.

    Raises:
        ValueError: a side is shorter than 16 voxels, or index is negative.

    Example:
        >>> pair = generate(0, size=(96, 96))
        >>> pair.displacement.shape
        (96, 96, 2)
    """
    if len(size) != 2 or min(size) < 16 or index < 0:
        raise ValueError(f"expected index >= 0 and two sides of at least 16 voxels, received {index} and {size}.")
    number, position = divmod(index, SLICES)
    name, group = f"phantom{number:03d}", list(GROUPS)[number % len(GROUPS)]
    heart = _draw(seed, number, position, group, tuple(size))
    grid = np.indices(heart.shape).astype(np.float64)
    source = _motion(heart, grid)
    (moving, moving_labels), (fixed, fixed_labels) = _picture(heart, grid), _picture(heart, source)
    sigma, foreground = _noise_level(heart, grid), (moving != 0) | (fixed != 0)
    if noise:
        rng = np.random.default_rng([seed, number, position, 1])
        moving, fixed = (np.clip(rician(image, sigma, rng), 0, 1) for image in (moving, fixed))
    return Pair(
        case_id=f"{name}_slice{position:02d}",
        patient=name,
        slice_index=position,
        group=group,
        moving=moving.astype(np.float32),
        fixed=fixed.astype(np.float32),
        moving_labels=moving_labels,
        fixed_labels=fixed_labels,
        spacing=(_SPACING_MM / heart.scale,) * 2,
        displacement=np.moveaxis(source - grid, 0, -1).astype(np.float32),
        sigma=sigma.astype(np.float32),
        foreground=foreground,
    )


def _draw(seed: int, number: int, position: int, group: str, shape: tuple[int, int]) -> Heart:
    rng, local = np.random.default_rng([seed, number]), np.random.default_rng([seed, number, position])
    scale = min(shape) / _NATIVE
    cavity, wall, share = (rng.uniform(*limits) for limits in GROUPS[group])
    depth = position / (SLICES - 1)
    cavity *= scale * np.sqrt(1 - (0.85 * depth) ** 2)
    wall *= scale * (1 - 0.15 * depth)
    angle = rng.normal(-0.5 * np.pi, 0.5)
    toward_rv = np.array([np.cos(angle), np.sin(angle)])
    center = np.array(shape) / 2 + scale * (rng.uniform(-5, 5, 2) + depth * rng.uniform(-4, 4, 2) - 5 * toward_rv)
    rv = scale * rng.uniform(15, 20) * np.sqrt(max(0.0, 1 - (1.02 * depth) ** 2))
    bulk = scale * rng.normal(0, 1, (2, 2, 2)) * np.array([[2.0, 0.7], [0.7, 0.4]])
    return Heart(
        shape=shape,
        scale=scale,
        center=center,
        cavity=cavity,
        wall=wall,
        lobes=rng.normal(0, 0.025, (2, 2)),
        toward_rv=toward_rv,
        rv=rv,
        papillary=center[:, None] + cavity * _on_circle(angle + np.pi + rng.normal([0.9, -0.9], 0.15), 0.62),
        bulk=np.clip(bulk, -4 * scale, 4 * scale),
        left=_left(rng, center, cavity, share),
        right=_right(rng, center + toward_rv * (cavity + wall + 0.55 * rv), rv, shape),
        waves=_waves(rng, local, scale),
        tissue=_tissue(rng),
        coil=np.array(shape) * rng.uniform(0, 1, 2),
        spot=np.array(shape) * local.uniform(0.25, 0.75, 2),
        noise=rng.uniform(0.012, 0.03),
    )


def _on_circle(angles: np.ndarray, radius: float) -> np.ndarray:
    return radius * np.stack([np.cos(angles), np.sin(angles)])


def _left(rng: np.random.Generator, center: np.ndarray, cavity: float, share: float) -> Contraction:
    systolic = share * cavity
    width = systolic * rng.uniform(0.9, 1.0)
    strength = (1 / share - 1) * np.exp(systolic**2 / (2 * width**2))
    skew = _SKEW * rng.uniform(0, 1) * _on_circle(rng.uniform(0, 2 * np.pi), 1.0)
    return Contraction(center, strength, width, skew, rng.normal(0, 0.12))


def _right(rng: np.random.Generator, center: np.ndarray, rv: float, shape: tuple[int, int]) -> Contraction:
    # narrow enough that nothing is pulled in across the border of the image
    border = float(min(center.min(), (np.array(shape) - 1 - center).min()))
    width = max(min(0.7 * rv, border / 3), 1.0)
    return Contraction(center, rng.uniform(0.4, 0.9), width, np.zeros(2), 0.0)


def _tissue(rng: np.random.Generator) -> dict[str, float]:
    typical = {"blood": 0.70, "myo": 0.22, "lung": 0.06, "liver": 0.32, "muscle": 0.27, "fat": 0.55, "air": 0.02}
    return {name: float(value * rng.uniform(0.88, 1.08)) for name, value in typical.items()}


def _waves(rng: np.random.Generator, local: np.random.Generator, scale: float) -> np.ndarray:
    """Plane waves of the texture: rows of (wave number X, wave number Y, phase); wavelengths from 6 voxels up."""
    count = 8
    angle, length = rng.uniform(0, np.pi, count), max(1.0, scale) * np.geomspace(6, 30, count)
    number = 2 * np.pi / length
    return np.stack([number * np.cos(angle), number * np.sin(angle), local.uniform(0, 2 * np.pi, count)], 1)


def _motion(heart: Heart, grid: np.ndarray) -> np.ndarray:
    """Where each voxel of the fixed image comes from, `[2, H, W]`; sine modes keep the border in place."""
    modes = [np.sin(np.pi * order * np.arange(length) / (length - 1)) for length in heart.shape for order in (1, 2)]
    bulk = np.einsum("amn,mi,nj->aij", heart.bulk, np.stack(modes[:2]), np.stack(modes[2:]))
    return heart.right(heart.left(grid + bulk))


def _inside(distance: np.ndarray) -> np.ndarray:
    """Share of a voxel inside a contour at a signed distance (negative inside), a smooth step two voxels wide."""
    ramp = np.clip(0.5 - distance / 2, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _ellipse(points: np.ndarray, center: np.ndarray, axes: tuple[float, float], along: np.ndarray) -> np.ndarray:
    """About the signed distance to an ellipse whose first axis points along a unit vector."""
    # Python floats keep the arrays in single precision
    cos, sin, first, second = float(along[0]), float(along[1]), float(axes[0]), float(axes[1])
    x, y = points[0] - float(center[0]), points[1] - float(center[1])
    a, b = x * (cos / first) + y * (sin / first), y * (cos / second) - x * (sin / second)
    return (np.sqrt(a * a + b * b) - 1) * min(first, second)


def _picture(heart: Heart, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noiseless intensity and labels of the end-diastolic plane at any points `[2, …]`."""
    points = points.astype(np.float32)
    tissue, scale = heart.tissue, heart.scale
    texture = sum(np.cos(kx * points[0] + ky * points[1] + phase) for kx, ky, phase in heart.waves.tolist())
    texture /= len(heart.waves)
    image = _thorax(heart, points, texture)

    def paint(mask: np.ndarray, value: float) -> None:
        image[...] += mask * (value - image)

    endo, epi = _left_contours(heart, points)
    rv_center = heart.center + heart.toward_rv * (heart.cavity + heart.wall + 0.3 * heart.rv)
    rv = None
    paint(_inside(epi - 2 * scale), tissue["fat"] * 0.75)
    if heart.rv > 5 * scale:
        rv = _ellipse(points, rv_center, (heart.rv, 1.35 * heart.rv), heart.toward_rv)
        paint(_inside(rv - 3.5 * scale), tissue["fat"] * 0.75)
        paint(_inside(rv - 2 * scale), tissue["myo"])
        paint(_inside(rv), tissue["blood"] * 0.95)
    paint(_inside(epi), tissue["myo"])
    paint(_inside(endo), tissue["blood"])
    for muscle in heart.papillary.T:
        size = 0.16 * float(heart.cavity)
        paint(_inside(_ellipse(points, muscle, (size, size), heart.toward_rv)), tissue["myo"] * 1.15)
    labels = np.zeros(points.shape[1:], np.uint8)
    if rv is not None:
        labels[rv < 0] = 1
    labels[epi < 0] = 2
    labels[endo < 0] = 3
    return np.clip(image * (1 + 0.35 * texture), 0, 1), labels


def _left_contours(heart: Heart, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances to the inner and outer contour of the left ventricle, slightly lobed circles."""
    x, y = points[0] - float(heart.center[0]), points[1] - float(heart.center[1])
    radius = np.sqrt(x * x + y * y)
    safe = np.maximum(radius, 1e-3)
    cos, sin = x / safe, y / safe
    (a, b), (c, d) = heart.lobes.tolist()
    lobed = (
        a * (cos**2 - sin**2) + b * 2 * sin * cos + c * cos * (cos**2 - 3 * sin**2) + d * sin * (3 * cos**2 - sin**2)
    )
    uneven = 1 + 0.15 * (cos * float(heart.toward_rv[0]) + sin * float(heart.toward_rv[1]))
    endo = radius - heart.cavity * (1 + lobed)
    return endo, endo - heart.wall * uneven


def _thorax(heart: Heart, points: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """What surrounds the heart: muscle, dark lungs with vessels, liver, aorta, the chest wall's bright fat, air."""
    tissue, scale = heart.tissue, heart.scale
    ahead = heart.toward_rv
    aside = np.array([-ahead[1], ahead[0]])
    image = np.full(points.shape[1:], tissue["muscle"], np.float32)

    def place(forward: float, sideways: float) -> np.ndarray:
        return heart.center + scale * (forward * ahead + sideways * aside)

    def paint(distance: np.ndarray, value: np.ndarray | float) -> None:
        image[...] += _inside(distance) * (value - image)

    lung = tissue["lung"] + 0.8 * np.clip(texture - 0.3, 0, 0.3)
    paint(_ellipse(points, place(-38, -30), (34 * scale, 44 * scale), ahead), lung)
    paint(_ellipse(points, place(30, -52), (44 * scale, 28 * scale), ahead), lung)
    paint(_ellipse(points, place(8, 62), (52 * scale, 36 * scale), ahead), tissue["liver"])
    paint(_ellipse(points, place(-44, 22), (7 * scale, 7 * scale), ahead), tissue["blood"] * 0.9)
    body = _ellipse(points, place(-30, 0), (86 * scale, 130 * scale), ahead)
    paint(-(body + 9 * scale), tissue["fat"])
    paint(-body, tissue["air"])
    return image


def _noise_level(heart: Heart, grid: np.ndarray) -> np.ndarray:
    """sigma grows with the distance from the coil and is highest in a random spot."""
    side = min(heart.shape)
    far = ((grid - heart.coil[:, None, None]) ** 2).sum(0) / side**2
    spot = np.exp(-((grid - heart.spot[:, None, None]) ** 2).sum(0) / (2 * (0.12 * side) ** 2))
    return heart.noise * (0.7 + 0.8 * np.minimum(far, 1.5) + 1.8 * spot)


def _read(name: str, options: Options) -> tuple[list[Pair], dict[str, int]]:
    pairs = read_pairs(name, options.size, noise=not options.clean)
    return [replace(pair, sigma=None) for pair in pairs] if options.clean else pairs, {}


DATASET = Dataset(
    name="phantom",
    labels=LABELS,
    main="myo",
    size=(128, 128),
    crops=("paper",),  # drawn as that crop shows a heart
    find=lambda _: Found({name: name for name in patients()}),
    read=_read,
    group=patients().get,
    files=False,
)
