"""File names as BIDS derivatives have them, for the results of one registration.

Transforms are called `from-<moving>_to-<fixed>_mode-image_xfm`, as in the derivatives of fMRIPrep: applied to images,
they bring what is in the space *from* into the space *to*.

Reference: Gorgolewski et al., Scientific Data 2016, doi:10.1038/sdata.2016.44; bids-specification.readthedocs.io.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from hetmorph.io.atomic import stem_of, write_text
from hetmorph.version import __version__

DESCRIPTION = "dataset_description.json"

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


def describe_dataset(folder: Path | str, source: Path | str | None = None) -> Path | None:
    """Writes `dataset_description.json`, without which a folder is no BIDS data set, into a folder that has none.

    Args:
        folder: where the derivatives lie.
        source: the data set that they are made of, which sidecars call `bids:raw:`.

    Returns:
        Its path, or None where there was one before.
    """
    path = Path(folder) / DESCRIPTION
    if path.exists():
        return None
    made_by = {"Name": "hetmorph", "Version": __version__}
    entries = {"Name": "Registrations", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": [made_by]}
    if source is not None:
        address = Path(source).resolve().as_uri()
        entries |= {"SourceDatasets": [{"URL": address}], "DatasetLinks": {"raw": address}}
    return write_text(path, json.dumps(entries, indent=2) + "\n")


def follow_ups(
    root: Path | str, suffix: str = "T1w", datatype: str = "anat", participants: Sequence[str] | None = None
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Pairs of images of one participant: that of the first session, and that of each later one.

    Only images that differ in nothing but the session belong together: those of one acquisition, one run.

    Args:
        root: a BIDS data set.
        suffix: what the images are of, the last word of their names.
        datatype: folder that they lie in.
        participants: labels of those wanted, with or without `sub-`; None takes all.

    Returns:
        `{name of the later image: (first, later)}`, and a sentence on each participant that has no such pair.

    Raises:
        ValueError: no BIDS data set, or labels that it has not.

    Example:
        >>> pairs, without = follow_ups("study", "T1w")
    """
    root = Path(root)
    if not (root / DESCRIPTION).is_file():
        raise ValueError(f"{root}: expected a BIDS data set, which has a {DESCRIPTION}")
    there = {path.name: path for path in sorted(root.glob("sub-*")) if path.is_dir()}
    wanted = [*there] if participants is None else [f"sub-{label.removeprefix('sub-')}" for label in participants]
    if unknown := [name for name in wanted if name not in there]:
        raise ValueError(f"{root}: has no {', '.join(unknown)}; there are {', '.join(there) or 'no participants'}")
    pairs, without = {}, []
    for name in dict.fromkeys(wanted):
        series: dict[str, list[Path]] = {}
        for path in sorted(there[name].glob(f"ses-*/{datatype}/{name}_ses-*_{suffix}.nii*")):
            series.setdefault(re.sub("_ses-[^_]+", "", stem_of(path)), []).append(path)
        found = {stem_of(later): (images[0], later) for images in series.values() for later in images[1:]}
        if not found:
            without.append(f"{name}: no two sessions with a {suffix} image of the same name in {datatype}")
        pairs |= found
    return pairs, without


def session_of(path: Path | str) -> str:
    """The label of the session in a BIDS name, of letters and digits."""
    return re.sub("[^a-zA-Z0-9]", "", re.search("_ses-([^_]+)", Path(path).name)[1])


def _parts(path: Path | str) -> tuple[str, str]:
    """Entities, and the suffix that says what kind of image it is."""
    name = stem_of(path) or Path(path).name
    *entities, kind = name.split("_")
    known = [one for one in entities if _ENTITY.fullmatch(one) and not one.startswith(("space-", "desc-"))]
    if known and known[0].startswith("sub-") and kind.isalnum():
        return "_".join(known), kind
    return f"sub-{re.sub('[^a-zA-Z0-9]', '', name) or 'unknown'}", "image"
