"""File names as BIDS derivatives have them, for the results of one registration.

Transforms are called `from-<moving>_to-<fixed>_mode-image_xfm`, as in the derivatives of fMRIPrep: applied to images,
they bring what is in the space *from* into the space *to*.

Reference: Gorgolewski et al., Scientific Data 2016, doi:10.1038/sdata.2016.44; bids-specification.readthedocs.io.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from hetmorph.io.atomic import stem_of, write_text
from hetmorph.version import __version__

_ENTITY = re.compile(r"[a-z]+-[a-zA-Z0-9]+")


def bids_names(moving: Path | str, fixed_space: str = "fixed", moving_space: str = "moving") -> dict[str, str]:
    """Names, without folder, of everything that a registration may write.

    Args:
        moving: path of the moving image; if it is a BIDS name, its entities are kept, else `sub-` and what is left of
            its name.
        fixed_space, moving_space: labels of the two images, letters and digits.

    Returns:
        Names by what they hold: "moved", "labels", "transform", "inverse", "jacobian", "uncertainty", "variance",
        "report".

    Raises:
        ValueError: a label with other characters, or two equal ones.

    Example:
        >>> bids_names("sub-01_frame-ES_cine.nii.gz", "ED", "ES")["transform"]
        'sub-01_frame-ES_from-ES_to-ED_mode-image_xfm.nii.gz'
    """
    for label in (fixed_space, moving_space):
        if not re.fullmatch(r"[a-zA-Z0-9]+", label):
            raise ValueError(f"a BIDS label has letters and digits only, received {label!r}")
    if fixed_space == moving_space:
        raise ValueError(f"moving and fixed image need different labels, both are {fixed_space!r}")
    entities, kind = _parts(moving)
    there = f"{entities}_space-{fixed_space}"
    back, forth = f"from-{fixed_space}_to-{moving_space}", f"from-{moving_space}_to-{fixed_space}"
    return {
        "moved": f"{there}_desc-moved_{kind}.nii.gz",
        "labels": f"{there}_desc-moved_dseg.nii.gz",
        "transform": f"{entities}_{forth}_mode-image_xfm.nii.gz",
        "inverse": f"{entities}_{back}_mode-image_xfm.nii.gz",
        "jacobian": f"{there}_desc-jacobian_{kind}.nii.gz",
        "uncertainty": f"{there}_desc-uncertainty_{kind}.nii.gz",
        "variance": f"{there}_desc-variance_{kind}.nii.gz",
        "report": f"{entities}_desc-registration_report.html",
    }


def describe_dataset(folder: Path | str) -> Path | None:
    """Writes `dataset_description.json`, without which a folder is no BIDS data set, into a folder that has none.

    Args:
        folder: where the derivatives lie.

    Returns:
        Its path, or None where there was one before.
    """
    path = Path(folder) / "dataset_description.json"
    if path.exists():
        return None
    made_by = {"Name": "hetmorph", "Version": __version__}
    entries = {"Name": "Registrations", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": [made_by]}
    return write_text(path, json.dumps(entries, indent=2) + "\n")


def _parts(path: Path | str) -> tuple[str, str]:
    """Entities, and the suffix that says what kind of image it is."""
    name = stem_of(path) or Path(path).name
    *entities, kind = name.split("_")
    known = [one for one in entities if _ENTITY.fullmatch(one) and not one.startswith(("space-", "desc-"))]
    if known and known[0].startswith("sub-") and kind.isalnum():
        return "_".join(known), kind
    return f"sub-{re.sub('[^a-zA-Z0-9]', '', name) or 'unknown'}", "image"
