"""Small models with random weights, images on awkward grids, and the command."""

import numpy as np
import pytest
from click.testing import CliRunner

from hetmorph.cli.main import cli
from hetmorph.cli.outcome import FAILED_VERDICT
from hetmorph.io import Grid, read_image, write_image
from hetmorph.networks import HetVxmDense, VxmDense
from tests import anatomy
from tests.io.worlds import GRIDS_3D, moving_of
from tests.networks.models import FEATURES, lively

STACK = Grid((20, 18, 5), GRIDS_3D["oblique"].affine @ np.diag([1, 1, 2, 1]))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Paths of a 3-D model without and a 2-D model with variance, both of which move voxels."""
    folder, rng = tmp_path_factory.mktemp("models"), np.random.default_rng(0)
    for name, model in (
        ("vxm3d", VxmDense((16, 16, 16), FEATURES, int_steps=2)),
        ("het2d", HetVxmDense((16, 16), FEATURES, int_steps=2)),
    ):
        lively(model, rng, 0.3).save(folder / f"{name}.keras")
    return {path.stem: str(path) for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _eager(eager):
    """Each call of the command makes its model anew, and would make a graph of it."""


@pytest.fixture
def hetmorph():
    """Runs the command with words of any kind; the status expected is 0 unless told.

    A model of random weights is often rejected, with results written all the same: whoever expects 0 means "done".
    """

    def call(*words, status=0):
        result = CliRunner().invoke(cli, [str(word) for word in words])
        expected = (status,) if status else (0, FAILED_VERDICT)
        assert result.exit_code in expected, result.output + repr(result.exception)
        assert status == 0 or "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def volumes(tmp_path):
    """Moving and fixed volume on oblique grids of their own, labels of the moving one; the folder they are in."""
    return write_pair(tmp_path, GRIDS_3D["oblique flipped permuted"])


@pytest.fixture
def stack(tmp_path):
    return write_pair(tmp_path, STACK)


def write_pair(folder, grid):
    other = moving_of(grid)
    shift = 0.08 * anatomy.extent(grid) * np.array([1.0, -0.5, 0.3])
    write_image(folder / "f.nii.gz", anatomy.image(grid).array, grid)
    moving = anatomy.image(other, shift, about=grid).array
    write_image(folder / "m.nii.gz", 4 * moving, other, np.int16)
    write_image(folder / "l.nii.gz", anatomy.labels(other, shift, about=grid).array, other)
    return folder


def arrays(*paths):
    return [read_image(path, finite=False).array for path in paths]
