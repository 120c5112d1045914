"""Learn from patients what bounds the error of a model, and which cases to accept, review or reject.

Each image is warped by known random transforms of four kinds and registered again: fixed(x) = moving(τ(x)). So the
error of the displacement u is known at every voxel. Direction: u lies on the grid of the fixed image and pulls,
moved(x) = moving(x + u(x)). The patients are divided by themselves: a third of them choose the combination of the maps
of uncertainty, on the others bound and limits are calibrated. Bounds and errors are in voxels.

Writes one file. Beside the model, as calibration.json, evaluate --report, report and register --report find it by
themselves. Printed is how bound and limits do on each patient when they come from the others.

Examples:
    hetmorph calibrate --data pairs.csv --model runs/mine/model.keras --out runs/mine/calibration.json
    hetmorph calibrate --data acdc --data-dir ~/ACDC --model acdc_vxm_het --split train val --every 10 --out c.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hetmorph.cli.names import CALIBRATED, DATASETS, ESTIMATES, KINDS, REGIONS


def parser(prog: str = "hetmorph calibrate") -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = result.add_argument
    add("--data", required=True, help=f"data set: {', '.join(DATASETS)}; or a table of pairs, pairs.csv")
    add("--data-dir", type=Path, help="its folder (default: environment variable HETMORPH_DATA)")
    add("--model", required=True, help="as for evaluate")
    add("--out", required=True, type=Path, help="file to write, calibration.json")
    add(
        "--split",
        nargs="+",
        default=["all"],
        choices=("train", "val", "test", "all"),
        help="patients, by the division that the model was trained by (default: all found)",
    )
    add("--split-file", type=Path, help="splits.json of that division (default: the one beside --model)")
    add(
        "--estimates",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"maps to combine, of {', '.join(ESTIMATES)} (default: {', '.join(CALIBRATED)}, the "
        "last of a model that predicts it); one alone leaves nothing to choose, and every patient to the bound",
    )
    add("--draws", type=int, default=50, help="registrations of an estimate that draws (default: 50)")
    add("--every", type=int, default=1, metavar="K", help="take every K-th pair of a split (default: 1)")
    add("--kinds", nargs="+", default=KINDS, choices=KINDS, help="of transforms (default: all)")
    add(
        "--region",
        default="foreground",
        choices=REGIONS,
        help="voxels that count: where an image is not 0, or where the fixed one is labelled (default: foreground)",
    )
    add("--coverage", type=float, default=0.9, help="share of the voxels the bound is to hold (default: 0.9)")
    add("--tolerance", type=float, default=2.0, help="mean error above which a case is bad, voxels (default: 2)")
    add("--crop", help="how the images are cut (default: as the model's run, or the set's own)")
    add("--size", type=int, nargs="+", metavar="N", help="voxels along each axis (default: likewise)")
    add("--noise", type=float, help="mean level of Rician noise added after warping (default: likewise, or none)")
    add("--rounds", type=int, help="sets of subjects: how often each is moving and fixed")
    add("--passes", type=int, default=1, help="how often a .keras model is applied to what it has moved (default: 1)")
    add("--skip-bad", action="store_true", help="go on without the cases whose files are bad")
    add("--dry-run", action="store_true", help="read and check everything, write nothing")
    add("--seed", type=int, default=0, help="of transforms, draws, noise and the division (default: 0)")
    # What `evaluate`, whose functions read the run, asks of its command line besides.
    result.set_defaults(known_warp=None)
    return result
