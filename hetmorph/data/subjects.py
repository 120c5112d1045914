"""Pairs between subjects: every subject is moving as often as fixed, and never meets itself."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import nibabel as nib
import numpy as np

from hetmorph.data.crop import fit, lost
from hetmorph.data.dataset import Subject
from hetmorph.data.normalise import minmax
from hetmorph.data.pair import Pair
from hetmorph.io import DataError, Image


def fitted_subject(name: str, image: Image, labels: np.ndarray | None, size: tuple[int, ...]) -> Subject:
    """One subject in the middle of a window of `size`, its image stretched to [0, 1] after the crop."""
    kept = None if labels is None else fit(labels, size)
    cut = 0 if labels is None else lost(labels, kept)
    axes = nib.aff2axcodes(image.affine)[: image.array.ndim] if image.oriented else None
    return Subject(name, fit(image.array, size, minmax), kept, image.spacing, cut, axes)


def misfits(subjects: Sequence[Subject]) -> dict[str, str]:
    """Why subjects cannot be paired voxel by voxel: another voxel size or other axes than most of them have."""
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


def pair_subjects(subjects: Sequence[Subject], seed: int = 0, rounds: int = 1) -> tuple[list[Pair], dict[str, int]]:
    """Pairs each subject with others round a ring.

    The subjects stand in a ring whose order comes from a hash of seed and name. In round k each is the
    fixed image to the k-th before it: n subjects give n pairs a round, each subject once moving and once
    fixed, no pair twice. `Pair.patient` is the fixed subject.

    Args:
        subjects: two or more, of one shape.
        seed: another seed gives another ring.
        rounds: 1 … n - 1.

    Returns:
        The pairs, ordered by fixed subject, and {case_id: labelled voxels that crops cut off}.

    Raises:
        DataError: too few subjects for so many rounds.
    """
    if not 1 <= rounds < len(subjects):
        raise DataError(
            f"expected more subjects than rounds of pairs, received {len(subjects)} subjects and rounds={rounds}; "
            "add subjects or ask for fewer rounds."
        )
    ring = sorted(subjects, key=lambda one: hashlib.sha256(f"{seed}/ring/{one.name}".encode()).hexdigest())
    pairs, cut = [], {}
    for place, fixed in sorted(enumerate(ring), key=lambda entry: entry[1].name):
        for step in range(1, rounds + 1):
            moving = ring[place - step]
            pair = _pair(moving, fixed)
            pairs.append(pair)
            if moving.cut + fixed.cut:
                cut[pair.case_id] = moving.cut + fixed.cut
    return pairs, cut


def _pair(moving: Subject, fixed: Subject) -> Pair:
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
