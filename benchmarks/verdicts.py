"""What the plain checks say of good pairs and of pairs that must fail: real hearts, and the same spoilt.

A row for each kind: ranges of similarity before and after, of SDlogJ and folds, and the verdicts counted.

Example:
    python benchmarks/verdicts.py --data-dir ACDC/training --patients 4
"""

import argparse
import collections
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import report
from common.report import table

SHIFT, NOISE = 30, 0.1  # voxels; of the range
FACTORS = (-1, 2, 3, 4, 6, 10)  # of the model's displacement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the patients, as ACDC is distributed")
    parser.add_argument("--patients", type=int, default=4, help="so many, evenly from all (default: 4)")
    args = parser.parse_args()
    sys.path.insert(0, str(report.ROOT))
    from hetmorph import evaluation, registration
    from hetmorph.cli.outcome import Outcome

    warnings.simplefilter("ignore")  # constant images are meant
    network = evaluation.load(report.ROOT / "saved_models" / "acdc_vxm_het")
    found = collections.defaultdict(list)
    for kind, moving, fixed, factor in cases(args.data_dir, args.patients):
        predictor = network if factor == 1 else scaled(network, factor)
        result = registration.register(moving, fixed, predictor)
        found[kind].append(Outcome.of(result, fixed, None, None).checks)
    columns = ("pairs", "similarity before", "after", "SDlogJ", "folds, %", "verdicts")
    print(table(columns, [(f"{kind}, {len(some)}", *row(some)) for kind, some in found.items()]))


def cases(folder: Path, count: int):
    """Kind, moving image, fixed image, and the factor on the model's displacement."""
    from hetmorph.io import read_image

    everyone = sorted(path for path in folder.glob("patient*") if path.is_dir())
    chosen = everyone[:: max(1, len(everyone) // count)][:count]
    pairs = [[read_image(path) for path in sorted(one.glob("*_frame??.nii*"))[:2]] for one in chosen]
    rng = np.random.default_rng(0)
    for number, (moving, fixed) in enumerate(pairs):
        yield "ED to ES", moving, fixed, 1
        yield "ES to ED", fixed, moving, 1
        yield "an image and itself", fixed, fixed, 1
        for kind, a, b in spoilt(moving.array, fixed.array, pairs[number - 1][1].array, rng):
            yield kind, replace(moving, array=a), replace(fixed, array=b), 1
        for factor in FACTORS:
            yield f"displacement × {factor}", moving, fixed, factor


def spoilt(moving: np.ndarray, fixed: np.ndarray, other: np.ndarray, rng):
    """Kind, moving and fixed array."""

    def noise(shape):
        return rng.random(shape)

    def noisy(image):
        return image + rng.normal(0, NOISE * image.max(), image.shape)

    side = min(moving.shape[:2])
    square = np.zeros_like(moving)
    square[:side, :side] = moving[:side, :side].swapaxes(0, 1)
    yield "noise added to both", noisy(moving), noisy(fixed)
    yield "another patient", like(other, fixed.shape), fixed
    yield "axes exchanged", square, fixed
    yield "mirrored, axis 0", moving[::-1], fixed
    yield "mirrored, axis 1", moving[:, ::-1], fixed
    yield "slices reversed", moving[..., ::-1], fixed
    yield f"{SHIFT} voxels away", np.roll(moving, SHIFT, 0), fixed
    yield "negative", moving.max() - moving, fixed
    yield "moving is noise", noise(moving.shape), fixed
    yield "fixed is noise", moving, noise(fixed.shape)
    yield "moving is constant", np.full_like(moving, 7), fixed
    yield "fixed is constant", moving, np.full_like(fixed, 7)


def like(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of an array in an image of another shape; the last slice is repeated."""
    out, size = np.zeros(shape, array.dtype), [min(a, b) for a, b in zip(array.shape[:2], shape[:2], strict=True)]
    there, here = (
        tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(of, size, strict=False))
        for of in (shape, array.shape)
    )
    out[there] = array[here][..., np.minimum(np.arange(shape[2]), array.shape[2] - 1)]
    return out


def scaled(network, factor: float):
    """A predictor of slices whose displacement is a multiple of the model's."""
    from hetmorph import evaluation

    predictor = evaluation.wrap(lambda moving, fixed: factor * network(moving, fixed).displacement)
    predictor.ndims = 2
    return predictor


def row(checks: list) -> tuple[str, ...]:
    """Ranges of the numbers, and the verdicts."""

    def span(values, decimals: int) -> str:
        ends = [f"{end:.{decimals}f}" for end in (min(values), max(values))]
        return "–".join(dict.fromkeys(ends))

    before, after = zip(*(one.similarity for one in checks), strict=True)
    flags = collections.Counter(one.flag for one in checks)
    numbers = span(before, 2), span(after, 2), span([c.sdlogj for c in checks], 2), span([c.folds for c in checks], 1)
    return *numbers, ", ".join(f"{flag} {count}" for flag, count in flags.items())


if __name__ == "__main__":
    main()
