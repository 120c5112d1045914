"""Fields of other programs: what their vectors mean, against SimpleITK or the layout that their sources state."""

import struct

import nibabel as nib
import numpy as np
import pytest

from hetmorph.io import DataError, Grid, convert, read_chain, read_transform, transform_points, write_transform
from hetmorph.io.vectors import CONVENTIONS
from tests.io.worlds import GRIDS_2D, GRIDS_3D, moving_of, smooth_transform

GRID = GRIDS_3D["oblique flipped permuted"]
RAS_TO_LPS = np.array([-1, -1, 1])


@pytest.fixture
def transform(rng):
    return smooth_transform(rng, GRID)


def ras(transform):
    """Displacements in RAS mm, `[*S, 3]`."""
    return transform.displacement @ transform.grid.affine[:3, :3].T


def places(transform):
    """Where each voxel goes, RAS mm."""
    return transform.grid.world(transform.grid.indices()) + ras(transform)


def save(path, vectors, intent=0, name="", p1=0, unit="mm", affine=GRID.affine):
    nifti = nib.Nifti1Image(vectors.astype(np.float32), affine)
    nifti.header.set_intent(intent, name=name)
    nifti.header["intent_p1"] = p1
    nifti.header.set_xyzt_units(unit)
    nib.save(nifti, path)
    return path


def as_five(vectors):
    return vectors[:, :, :, None]


def same(got, transform, atol=1e-4):
    assert got.grid.same(transform.grid)
    np.testing.assert_allclose(got.displacement, transform.displacement, atol=atol)


@pytest.mark.parametrize(("intent", "sign"), [(1006, 1), (1007, RAS_TO_LPS)])
def test_the_intent_tells_the_frame_as_simpleitk_takes_it(tmp_path, rng, transform, intent, sign):
    """ITK turns displacements (1006) from RAS to LPS as it reads them, vectors (1007) not."""
    path = save(tmp_path / "warp.nii.gz", as_five(ras(transform) * sign), intent)
    got = read_transform(path)
    same(got, transform)
    assert f"intent {intent}" in got.understood and ("RAS" if intent == 1006 else "LPS") in got.understood
    sitk = pytest.importorskip("SimpleITK")
    if tuple(map(int, sitk.Version_ITKVersionString().split(".")[:2])) < (5, 4):
        pytest.skip("ITK knows displacements since 5.4")
    theirs = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    points = GRID.world(rng.uniform(1, np.array(GRID.shape) - 2, (30, 3))) * RAS_TO_LPS
    np.testing.assert_allclose([theirs.TransformPoint(p) for p in points], transform_points(got, points), atol=1e-3)


def test_a_field_of_a_picture_meets_a_volume_of_one_slice(tmp_path, rng):
    plane = GRIDS_2D["oblique"]
    flat = smooth_transform(rng, plane)
    slice_ = Grid((*plane.shape, 1), plane.affine)
    lifted = read_transform(write_transform(tmp_path / "flat.nii.gz", flat), slice_)
    np.testing.assert_allclose(lifted.displacement[:, :, 0, :2], flat.displacement, atol=1e-5)
    assert lifted.grid.same(slice_) and not lifted.displacement[..., 2].any()
    back = read_transform(write_transform(tmp_path / "slice.nii.gz", lifted), plane)
    np.testing.assert_allclose(back.displacement, flat.displacement, atol=1e-5)


def test_a_nifti_field_may_be_in_two_files(tmp_path, transform):
    nifti = nib.Nifti1Pair(as_five(ras(transform)).astype(np.float32), GRID.affine)
    nifti.header.set_intent(1006)
    nib.save(nifti, tmp_path / "warp.img")
    for name in ("warp.img", "warp.hdr"):
        same(read_transform(tmp_path / name), transform)
    nib.save(nib.AnalyzeImage(np.ones((4, 5, 6), np.float32), np.eye(4)), tmp_path / "old.img")
    with pytest.raises(DataError, match="Analyze"):
        read_transform(tmp_path / "old.img")


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("grid", [GRID, GRIDS_2D["oblique flipped"]], ids=["3-D", "2-D"])
def test_images_of_vectors_are_those_of_itk(tmp_path, rng, grid, suffix):
    """As demons, elastix and Slicer write them."""
    sitk = pytest.importorskip("SimpleITK")
    n, transform = grid.ndim, smooth_transform(rng, grid)
    lps = (transform.displacement @ grid.linear.T * RAS_TO_LPS)[..., :n]
    image = sitk.GetImageFromArray(np.swapaxes(lps, 0, n - 1).copy(), isVector=True)
    affine = np.diag([*RAS_TO_LPS, 1]) @ grid.affine
    image.SetSpacing(grid.spacing)
    image.SetDirection((affine[:n, :n] / grid.spacing).ravel().tolist())
    image.SetOrigin(affine[:n, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / f"warp{suffix}"))
    theirs = sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))
    got = read_transform(tmp_path / f"warp{suffix}")
    points = (grid.world(rng.uniform(1, np.array(grid.shape) - 2, (30, n))) * RAS_TO_LPS)[:, :n]
    np.testing.assert_allclose([theirs.TransformPoint(p) for p in points], transform_points(got, points), atol=1e-4)
    np.testing.assert_allclose(
        read_transform(tmp_path / f"warp{suffix}", grid).displacement, got.displacement, atol=1e-4
    )
    inverse = read_chain([f"[{tmp_path / f'warp{suffix}'},inverse]"], grid)
    np.testing.assert_allclose(transform_points(inverse, transform_points(got, points)), points, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "kind", "absolute"), [("Mapping", 0, True), ("NREG_TRANS", 0, True), ("NREG_TRANS", 1, False)]
)
def test_fields_of_spm_and_niftyreg_are_ras(tmp_path, transform, name, kind, absolute):
    """Both have the intent of ITK's, and another meaning: SPM's y_ fields and deformations hold places."""
    vectors = places(transform) if absolute else ras(transform)
    got = read_transform(save(tmp_path / "y.nii", as_five(vectors), 1007, name, kind))
    same(got, transform)
    assert ("places" in got.understood) == absolute


def test_splines_and_velocities_of_niftyreg_are_named(tmp_path, transform):
    for kind in (2, 3, 5):
        path = save(tmp_path / "cpp.nii", as_five(ras(transform)), 1007, "NREG_TRANS", kind)
        with pytest.raises(DataError, match="a transform of NiftyReg of kind"):
            read_transform(path)


def geometry(grid, named, shear):
    """FreeSurfer's VOL_GEOM: valid, shape, voxel size, directions, centre, perhaps shears; the name of a file."""
    centre = grid.affine[:3, :3] @ (np.array(grid.shape) / 2) + grid.affine[:3, 3]
    directions = (grid.affine[:3, :3] / grid.spacing).T.ravel()
    numbers = [*grid.spacing, *directions, *centre, *[0.0] * shear]
    name = struct.pack(">i", 9) + b"/some/mri" if named else b"/some/mri".ljust(512, b"\0")
    return struct.pack(f">4i{len(numbers)}f", 1, *grid.shape, *numbers) + name


def tags(form, moving, named, shear=0):
    """The tags of a warp that goes from GRID to `moving`: geometries, and which of the four forms it has."""
    both = geometry(moving, named, shear) + geometry(GRID, named, shear)
    length = struct.pack(">q", len(both)) if named or shear else b""
    meta = struct.pack(">iqiif", 13, 12, form, 1, 0.0)
    return struct.pack(">i", 15 if shear else 10) + length + both + meta


def of_form(form, transform, moving):
    """What the four forms hold: places and displacements in voxels of the moving image, the same in RAS mm."""
    voxels = moving.index(places(transform))
    return [voxels, voxels - GRID.indices(), places(transform), ras(transform)][form]


@pytest.mark.parametrize("shear", [0, 3])
@pytest.mark.parametrize("form", range(4))
def test_the_four_forms_of_a_freesurfer_mgz(tmp_path, transform, form, shear):
    """SynthMorph writes displacements in RAS mm (3), mri_warp_convert places in voxels (0), unless told."""
    moving = moving_of(GRID)
    content = nib.MGHImage(of_form(form, transform, moving).astype(np.float32), GRID.affine).to_bytes()
    voxels = content[: 284 + 4 * 3 * np.prod(GRID.shape)]
    pedir = struct.pack(">iq", 41, 7) + b"UNKNOWN"
    version = struct.pack(">i", (6 << 8) | 1)  # the intent of a warp
    (tmp_path / "warp.mgh").write_bytes(version + voxels[4:] + bytes(20) + pedir + tags(form, moving, False, shear))
    got = read_transform(tmp_path / "warp.mgh")
    same(got, transform, 1e-3)
    assert ("voxel" in got.understood) == (form < 2) and "warp of FreeSurfer" in got.understood


@pytest.mark.parametrize("five", [False, True])
@pytest.mark.parametrize("form", range(4))
def test_the_four_forms_of_a_freesurfer_nifti(tmp_path, transform, form, five):
    moving = moving_of(GRID)
    vectors = of_form(form, transform, moving)
    nifti = nib.Nifti1Image((as_five(vectors) if five else vectors).astype(np.float32), GRID.affine)
    nifti.header.set_intent(1006)
    end = struct.pack(">iq", -1, 1) + b"*"
    content = b">" + struct.pack(">HB", 6, 1) + tags(form, moving, True, 3) + end
    nifti.header.extensions.append(nib.nifti1.Nifti1Extension(14, content))
    nib.save(nifti, tmp_path / "warp.nii.gz")
    same(read_transform(tmp_path / "warp.nii.gz"), transform, 1e-3)


def test_places_in_voxels_of_an_unknown_image_ask_for_it(tmp_path, transform):
    moving = moving_of(GRID)
    content = nib.MGHImage(of_form(0, transform, moving).astype(np.float32), GRID.affine).to_bytes()
    (tmp_path / "warp.mgz").write_bytes(content + struct.pack(">iqiif", 13, 12, 0, 1, 0.0))
    with pytest.raises(DataError, match="give that image"):
        read_transform(tmp_path / "warp.mgz")
    same(read_transform(tmp_path / "warp.mgz", moving=moving), transform, 1e-3)


def write_open(path, transform, convention, what):
    """A field that does not say what its vectors are, or says what programs take in different ways."""
    vectors = {
        "lps": ras(transform) * RAS_TO_LPS,
        "ras": ras(transform),
        "voxel": transform.displacement,
    }[convention]
    if what == "mgz":
        nib.save(nib.MGHImage(vectors.astype(np.float32), GRID.affine), path)
    elif what == "nrrd":
        write_nrrd(path, vectors)
    elif what == "micron":
        save(path, as_five(vectors), 1007, unit="micron", affine=np.diag([1e3, 1e3, 1e3, 1]) @ GRID.affine)
    elif what == "afni":
        nifti = nib.Nifti1Image(as_five(vectors).astype(np.float32), GRID.affine)
        nifti.header.set_intent(1006)
        nifti.header.extensions.append(nib.nifti1.Nifti1Extension("afni", b"<AFNI_attributes/>"))
        nib.save(nifti, path)
    else:
        save(path, vectors if what == "4-D 1007" else as_five(vectors), 1007 if what == "4-D 1007" else 0)


def write_nrrd(path, vectors):
    """Vectors in the space RAS, of which ITK turns the grid and not the vectors."""
    rows = " ".join(f"({','.join(f'{x:.9g}' for x in column)})" for column in GRID.affine[:3, :3].T)
    header = f"""NRRD0004
type: float
dimension: 4
space: right-anterior-superior
sizes: 3 {" ".join(map(str, GRID.shape))}
space directions: none {rows}
kinds: vector domain domain domain
endian: little
encoding: raw
space origin: ({",".join(f"{x:.9g}" for x in GRID.affine[:3, 3])})

"""
    path.write_bytes(header.encode() + vectors.astype("<f4").transpose(3, 0, 1, 2).tobytes("F"))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("what", "suffix"),
    [
        ("mgz", ".mgz"),
        ("nrrd", ".nrrd"),
        ("micron", ".nii.gz"),
        ("afni", ".nii.gz"),
        ("4-D 1007", ".nii.gz"),
        ("no intent", ".nii.gz"),
    ],
)
def test_what_is_left_open_is_refused_until_it_is_said(tmp_path, transform, convention, what, suffix):
    if what == "nrrd":
        pytest.importorskip("SimpleITK")
    path = tmp_path / f"warp{suffix}"
    write_open(path, transform, convention, what)
    with pytest.raises(DataError, match=r"field_convention.*lps or ras, in mm, or voxel"):
        read_transform(path)
    got = read_transform(path, field_convention=convention)
    same(got, transform)
    assert "field convention" in got.understood
    again = convert(path, tmp_path / "own.nii.gz", provenance={}, field_convention=convention)
    same(read_transform(again), transform)
    assert "field convention" in (tmp_path / "own.json").read_text()


def test_voxels_or_millimetres_without_a_word_are_a_choice_too(tmp_path, transform):
    """A NIfTI (X, Y, Z, 3) without intent, as SynthMorph has written RAS mm with a unit of time."""
    path = save(tmp_path / "warp.nii.gz", ras(transform))
    nifti = nib.load(path)
    nifti.header.set_xyzt_units("mm", "sec")
    nib.save(nib.Nifti1Image(nifti.get_fdata(dtype=np.float32), nifti.affine, nifti.header), tmp_path / "sec.nii.gz")
    with pytest.raises(DataError, match="field_convention"):
        read_transform(tmp_path / "sec.nii.gz")
    same(read_transform(tmp_path / "sec.nii.gz", field_convention="ras"), transform)


def test_an_unknown_convention_and_colours_are_refused(tmp_path, rng):
    sitk = pytest.importorskip("SimpleITK")
    path = str(tmp_path / "rgb.mha")
    sitk.WriteImage(sitk.GetImageFromArray(rng.integers(0, 9, (4, 5, 6, 3)).astype(np.uint8), isVector=True), path)
    with pytest.raises(DataError, match="received 3 of uint8"):
        read_transform(path)
    sitk.WriteImage(sitk.GetImageFromArray(rng.normal(size=(4, 5, 6))), path)
    with pytest.raises(DataError, match="expected displacements"):
        read_transform(path)
    with pytest.raises(ValueError, match="one of lps, ras, voxel"):
        read_transform(path, field_convention="rai")


ELASTIX = '(Transform "BSplineTransform")\n(NumberOfParameters 6)\n(TransformParameters 0 0 0 0 0 0)\n'
FLIRT = "1  0  0  3.5  \n0  1  0  -2e-05  \n0  0  1  0  \n0  0  0  1  \n"
LTA = "# transform file x.lta\n# created by FreeSurfer\n\ntype      = 1 # LINEAR_RAS_TO_RAS\nnxforms   = 1\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("TransformParameters.0.txt", ELASTIX, "elastix; transformix -def all"),
        ("flirt.mat", FLIRT, "FSL's flirt.*c3d_affine_tool"),
        ("aladin.txt", FLIRT, "bare matrix"),
        ("a.aff12.txt", " ".join(FLIRT.split()[:12]), "AFNI"),
        ("a.txt", LTA, "FreeSurfer; lta_convert"),
        ("a.lta", LTA, "FreeSurfer; lta_convert"),
        ("a.xfm", "MNI Transform File\n", "MINC"),
        ("a.tfm", "MNI Transform File\n", "MINC"),
        ("a.m3z", "?", "FreeSurfer; mri_warp_convert"),
        ("subject_sn.mat", "MATLAB 5.0 MAT-file, Platform: GLNXA64", "SPM"),
        ("a.aff12.1D", "1 0 0 0", "AFNI"),
        ("anat_WARP+tlrc.HEAD", "type = string-attribute", "AFNI"),
    ],
)
def test_transforms_of_other_programs_are_named_and_not_called_damaged(tmp_path, name, content, message):
    pytest.importorskip("SimpleITK")
    (tmp_path / name).write_text(content)
    for read in (read_transform, lambda path: read_chain([f"[{path},inverse]"], GRID)):
        with pytest.raises(DataError, match=message) as error:
            read(tmp_path / name)
        assert "damaged" not in str(error.value) and name in str(error.value)


@pytest.mark.parametrize("intent", [2006, 2007, 2016])
def test_fields_of_fsl_are_named(tmp_path, transform, intent):
    for vectors in (ras(transform), as_five(ras(transform))):
        with pytest.raises(DataError, match=rf"intent {intent} is .*FSL.*wb_command"):
            read_transform(save(tmp_path / "fnirt.nii.gz", vectors, intent))
