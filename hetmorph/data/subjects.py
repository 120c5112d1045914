"""Pairs between subjects: every subject is moving as often as fixed, and never meets itself."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import nibabel as nib
import numpy as np

from hetmorph.data.crop import fit_all
from hetmorph.data.dataset import Subject
from hetmorph.data.pair import Pair
from hetmorph.io import DataError, Image


def fitted_subject(name: str, image: Image, labels: np.ndarray | None, size: tuple[int, ...]) -> Subject:
    """One subject in the middle of a window of `size`, its image stretched to [0, 1] after the crop."""
    [array], [kept], cut = fit_all([image.array], [labels], size)
    axes = nib.aff2axcodes(image.affine)[: image.array.ndim] if image.oriented else None
    return Subject(name, array, kept, image.spacing, cut, axes)


def misfits(subjects: Sequence[Subject]) -> dict[str, str]:
    """Why subjects cannot be paired voxel by voxel: another voxel size or other axes than most of them have."""
    if not subjects:
        return {}
    reasons = {}
    spacings = np.array([one.spacing for one in subjects])
    close = [np.isclose(spacings, spacing, rtol=0.01, atol=0).all(1) for spacing in spacings]
    most = max(close, key=np.count_nonzero)
    [(axes, _)] = Counter(one.axes for one in subjects if one.axes).most_common(1) or [(None, 0)]
    for one, fits in zip(subjects, most, strict=True):
        if not fits:
            usual = subjects[int(np.argmax(most))].spacing
            reasons[one.name] = f"{one.name}: expected spacing {usual} mm as most subjects have, received {one.spacing}"
        elif one.axes and one.axes != axes:
            reasons[one.name] = f"{one.name}: expected axes {axes} as most subjects have, received {one.axes}"
    return {name: f"{reason}; resample it or leave it out (--skip-bad)." for name, reason in reasons.items()}


def ring(names: Sequence[str], seed: int = 0, rounds: int = 1) -> list[tuple[str, str]]:
    """Pairs each subject with others round a ring.

    The subjects stand in a ring whose order comes from a hash of seed and name. In round k each is the
    fixed image to the k-th before it: n subjects give n pairs a round, each subject once moving and once
    fixed, no pair twice.

    Args:
        names: names of two or more subjects.
        seed: another seed gives another ring.
        rounds: 1 … n - 1.

    Returns:
        (moving, fixed) of each pair, ordered by the fixed subject.

    Raises:
        DataError: too few subjects for so many rounds.
    """
    if not 1 <= rounds < len(names):
        raise DataError(
            f"expected more subjects than rounds of pairs, received {len(names)} subjects and rounds={rounds}; "
            "add subjects or ask for fewer rounds."
        )
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/ring/{name}".encode()).hexdigest())
    places = sorted(enumerate(order), key=lambda entry: entry[1])
    return [(order[place - step], fixed) for place, fixed in places for step in range(1, rounds + 1)]


def pair_of(moving: Subject, fixed: Subject) -> Pair:
    """The pair of two subjects; its `patient` is the fixed one."""
    return Pair(
        case_id=f"{moving.name}_to_{fixed.name}",
        patient=fixed.name,
        slice_index=None,
        group=None,
        moving=moving.image,
        fixed=fixed.image,
        moving_labels=moving.labels,
        fixed_labels=fixed.labels,
        spacing=fixed.spacing,
    )
