"""`hetmorph register` with masks of the image loss and landmarks: what they change, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from hetmorph.io import Grid, Image, Transform, read_image, read_transform, write_image
from hetmorph.registration import Guidance
from tests import anatomy

OPTIMISED = ("--instance-optimise", 12)
LABELS = ("--labels-moving", "{}/l.nii.gz", "--labels-fixed", "{}/other.nii.gz")


def run(hetmorph, folder, model, *more, **status):
    pair = ("--moving", folder / "m.nii.gz", "--fixed", folder / "f.nii.gz", "--transform", folder / "t.nii.gz")
    return hetmorph("register", *pair, "--model", model, *more, **status)


def write_points(path, places, names=None):
    """A table in LPS of places, RAS."""
    names = names or [f"p{number}" for number in range(len(places))]
    rows = (",".join([name, *map(str, place)]) for name, place in zip(names, places * [-1, -1, 1], strict=True))
    path.write_text("name,x,y,z\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def landmarks(stack):
    """The centre of the object in either image, and a voxel beside it, in the same slices of the fixed image."""
    grid, inside = read_image(stack / "f.nii.gz").grid, np.array([[9.0, 9, 2], [12, 7, 1]])
    shift = grid.linear @ [1.5, -1.0, 0.0]
    points = ("--points-fixed", write_points(stack / "pf.csv", grid.world(inside)))
    return *points, "--points-moving", write_points(stack / "pm.csv", grid.world(inside) + shift)


@pytest.mark.slow
@pytest.mark.graph  # hundreds of evaluations of one function
@pytest.mark.parametrize("model", ["undeformed", "het2d"])
def test_landmarks_come_together_and_it_is_told(hetmorph, stack, models, landmarks, model):
    """In a volume, and slice by slice; the numbers are those of the transform that is written."""
    said = run(hetmorph, stack, models.get(model, model), *landmarks, *OPTIMISED, "--points-weight", 1).stdout
    line = re.search(r"target registration error (\S+) mm undeformed.*?(\S+) mm registered \(mean of 2;", said)
    before, after = map(float, line.groups())
    entries = json.loads((stack / "t.json").read_text())
    told, transform = entries["landmarks"], read_transform(stack / "t.nii.gz")
    assert after < 0.5 * before and told["unit"] == "mm" and told["weight"] == 1
    fixed, moving = (np.loadtxt(stack / f"{x}.csv", skiprows=1, delimiter=",", usecols=(1, 2, 3)) for x in ("pf", "pm"))
    missed = np.linalg.norm(transform.world(fixed * [-1, -1, 1]) - moving * [-1, -1, 1], axis=-1)
    np.testing.assert_allclose(told["each"]["registered"], missed, atol=1e-3)
    assert told["mean"]["undeformed"] == pytest.approx(before, abs=6e-3) and missed.mean() == pytest.approx(
        after, abs=6e-3
    )
    assert entries["inputs"]["points-fixed"] == str(stack / "pf.csv")


def test_points_of_no_weight_are_only_measured(hetmorph, stack, landmarks):
    said = run(hetmorph, stack, "undeformed", *landmarks, "--points-weight", 0).stdout
    told = json.loads((stack / "t.json").read_text())["landmarks"]
    assert "of points that the registration did not know" in said
    assert told["mean"]["registered"] == told["mean"]["undeformed"] > 0


@pytest.mark.slow
@pytest.mark.graph
def test_what_lies_outside_the_masks_changes_nothing(hetmorph, stack):
    fixed, moving = read_image(stack / "f.nii.gz"), read_image(stack / "m.nii.gz")
    rng = np.random.default_rng(0)
    for name, image in (("f", fixed), ("m", moving)):
        mask = np.zeros(image.grid.shape, np.uint8)
        mask[3:-3, 2:-4, 1:] = 1
        write_image(stack / f"mask_{name}.nii.gz", mask, image, np.uint8)
        # of the extremes that each image has in its mask: what a model sees is scaled to the brightest voxel
        noise = rng.uniform(image.array[mask > 0].min(), image.array[mask > 0].max(), mask.shape)
        for number in (0, 1):
            # a voxel more: images are resampled before they are compared
            near = binary_dilation(mask, iterations=2)
            filled = np.where(near, image.array, image.array[mask > 0].mean() if number else noise)
            write_image(stack / f"{name}{number}.nii.gz", filled, image, np.float32)
    masks = ("--mask-fixed", stack / "mask_f.nii.gz", "--mask-moving", stack / "mask_m.nii.gz")
    found = []
    for number in (0, 1):
        for name in "mf":
            (stack / f"{name}{number}.nii.gz").replace(stack / f"{name}.nii.gz")
        run(hetmorph, stack, "undeformed", *masks, *OPTIMISED)
        found.append(read_transform(stack / "t.nii.gz").displacement)
    assert np.abs(found[0]).max() > 0.3
    np.testing.assert_allclose(*found, atol=2e-3)


@pytest.mark.slow
def test_labels_steer_by_a_weight_and_it_is_told(hetmorph, stack):
    """On any grid of their own; the images alone bring their Dice to 0.74."""
    fixed = read_image(stack / "f.nii.gz")
    finer = Grid((40, 36, 5), fixed.grid.affine @ np.diag([0.5, 0.5, 1, 1]))
    write_image(stack / "lf.nii.gz", anatomy.labels(finer).array, finer)
    labels = ("--labels-moving", stack / "l.nii.gz", "--labels-fixed", stack / "lf.nii.gz", "--instance-optimise", 3)
    said = run(hetmorph, stack, "undeformed", *labels, "--dice-weight", 5).stdout
    before, after = map(float, re.search(r"Dice, mean: (\S+) undeformed, (\S+) registered", said).groups())
    assert "Dice is of labels that the optimisation was given" in said and before < 0.6 and after > 0.85
    assert json.loads((stack / "t.json").read_text())["settings"]["dice_weight"] == 5


def test_guidance_goes_through_an_initial_transform_and_spacing():
    """On the voxels that a model sees: as they lie in the fixed image, and before the initial transform."""
    grid = Grid((14, 12), np.diag([-2.0, 3.0, 1.0, 1.0]))
    fixed = Image(np.ones(grid.shape), grid.spacing, grid.affine, True, Path("f"))
    initial = Transform(np.full((*grid.shape, 2), [1.0, -0.5]), grid)
    finer = Grid((28, 24), np.diag([-1.0, 1.5, 1.0, 1.0]))
    places = grid.world(np.array([[4.0, 5.0], [8.0, 3.0]]))
    guide = Guidance(None, None, places, places, 0.5).on(finer, fixed, fixed, initial)
    np.testing.assert_allclose(guide.points_fixed, [[8, 10], [16, 6]], atol=1e-6)
    np.testing.assert_allclose(guide.points_moving, [[6, 11], [14, 7]], atol=1e-6)
    assert guide.weight == 0.5 and guide.spacing == (1, 1.5)


def test_volumes_are_those_of_the_moving_image():
    """What an initial transform did to them counts, of a reflection, too."""
    grid = Grid((8, 7, 6), np.diag([2.0, 3.0, 1.0, 1.0]))
    fixed, initial = Image(np.ones(grid.shape), grid.spacing, grid.affine, True, Path("f")), np.zeros((*grid.shape, 3))
    initial[..., 0], initial[..., 2] = 0.5 * np.arange(8)[:, None, None], -2 * np.arange(6)
    for transform, volume in ((None, 1.0), (Transform(initial, grid), 1.5)):
        guide = Guidance(conserve_mass=True).on(grid, fixed, fixed, transform)
        np.testing.assert_allclose(guide.volume, np.full(grid.shape, volume), rtol=1e-5)


CT = ("--modality-moving", "ct", "--modality-fixed", "ct")
MASS = ("--conserve-mass", *OPTIMISED, *CT)


@pytest.mark.slow
@pytest.mark.graph
def test_mass_is_conserved_and_it_is_told(hetmorph, volumes):
    """Another answer than without; the intensities of the moved image stay those of the moving one."""
    for name in "mf":
        image = read_image(volumes / f"{name}.nii.gz")
        units = 1600 * (image.array - image.array.min()) / np.ptp(image.array) - 1000
        write_image(volumes / f"{name}.nii.gz", units, image, np.float32)
    found, moved = [], ("--moved", volumes / "moved.nii.gz", "--instance-similarity", "mse", "--instance-window", 0)
    for words in ((*CT, *OPTIMISED), MASS):
        run(hetmorph, volumes, "undeformed", *words, *moved)
        found.append(read_transform(volumes / "t.nii.gz").displacement)
    assert np.abs(found[0] - found[1]).max() > 0.1
    assert read_image(volumes / "moved.nii.gz").array.max() <= 600
    assert json.loads((volumes / "t.json").read_text())["settings"]["conserve_mass"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (MASS, "mass is conserved by models of volumes; this one takes them slice by slice"),
        (("--conserve-mass", *OPTIMISED), "--conserve-mass needs --modality-moving ct and --modality-fixed ct"),
        ((*MASS[:-1], "mri"), "--conserve-mass needs --modality-moving ct and --modality-fixed ct"),
        ((*MASS, "--ct-window", "-200", "300"), "--ct-window that begins at -1000 Hounsfield units, air"),
        (("--conserve-mass", *CT), "--conserve-mass steers the optimisation of a pair, and needs --instance-optimise"),
        ((*MASS, "--uncertainty", "{}/u.nii.gz"), "--uncertainty registers again without --conserve-mass"),
        (("--mask-fixed", "{}/mask.nii.gz"), "--mask-fixed steers the optimisation of a pair, and needs --affine or"),
        (("--points-fixed", "{}/pf.csv", *OPTIMISED), "--points-fixed and --points-moving belong together"),
        (("--points-weight", "1", *OPTIMISED), "--points-weight has no effect without --points-fixed"),
        (("--mask-moving", "{}/none.nii.gz", *OPTIMISED), "--mask-moving {}/none.nii.gz: no such file"),
        (("--mask-fixed", "{}/empty.nii.gz", *OPTIMISED), "{}/empty.nii.gz: the mask is empty"),
        (
            ("--mask-fixed", "{}/mask.nii.gz", *OPTIMISED),
            "mask.nii.gz: expected a mask on the grid of {}/f.nii.gz, 20 × 18",
        ),
        (
            ("--mask-fixed", "{}/mask.nii.gz", "--affine", "rigid"),
            "mask.nii.gz: expected a mask on the grid of {}/f.nii.gz, 20 × 18",
        ),
        (("POINTS", "{}/one.csv", *OPTIMISED), "pf.csv holds 2 points, {}/one.csv 1: expected the same in both"),
        (("POINTS", "{}/renamed.csv", *OPTIMISED), "received 'p0' and 'apex' as number 1"),
        (("POINTS", "{}/pm.csv"), "--points-weight 0 only measures"),
        (("POINTS", "{}/pm.csv", *OPTIMISED, "--uncertainty", "{}/u.nii.gz"), "--uncertainty registers again without"),
        (("POINTS", "{}/far.csv", *OPTIMISED), "nothing moves across the slices of a 2-D model"),
        (("--dice-weight", "1", *OPTIMISED), "--dice-weight needs --labels-fixed and --labels-moving"),
        ((*LABELS, "--dice-weight", "1"), "--dice-weight steers the optimisation of a pair, and needs --instance-opt"),
        (
            (*LABELS, "--dice-weight", "1", *OPTIMISED),
            "{}/l.nii.gz: the labels have no structure in common",
        ),
        (
            (*LABELS, "--dice-weight", "1", *OPTIMISED, "--uncertainty", "{}/u.nii.gz"),
            "--uncertainty registers again without --dice-weight",
        ),
        (
            (*OPTIMISED, "--instance-similarity", "ngf", "--instance-window", "5"),
            "--instance-window 5 has no effect with",
        ),
        (("--instance-similarity", "ngf"), "no effect without --instance-optimise"),
    ],
)
def test_a_mistake_is_named_in_one_line(hetmorph, stack, models, landmarks, words, message):
    fixed = read_image(stack / "f.nii.gz")
    write_image(stack / "empty.nii.gz", np.zeros(fixed.grid.shape), fixed, np.uint8)
    write_image(stack / "mask.nii.gz", np.ones((6, 5, 4)), Grid((6, 5, 4), fixed.affine), np.uint8)
    write_image(stack / "other.nii.gz", np.full(fixed.grid.shape, 77), fixed, np.uint8)
    places = fixed.grid.world(np.array([[9.0, 9, 2], [12, 7, 1]]))
    write_points(stack / "one.csv", places[:1])
    write_points(stack / "renamed.csv", places, ["apex", "p1"])
    write_points(stack / "far.csv", places + fixed.grid.linear @ [0, 0, 2.0])
    if words[0] == "POINTS":
        words = ("--points-fixed", "{}/pf.csv", "--points-moving", *words[1:])
    typed = (str(word).format(stack) for word in words)
    result = run(hetmorph, stack, models["het2d"], *typed, status=2)
    assert message.format(stack) in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (stack / "t.nii.gz").exists()
