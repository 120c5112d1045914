"""Every code block of the documentation runs, or is read by the parser of the command that it calls.

A page is played from top to bottom in a folder of its own, with the files and names that it takes for granted. Commands
of minutes are only parsed. How many blocks were run, parsed and shown stands at the end of pytest's output.
"""

import csv
import dataclasses
import importlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from hetmorph import data, evaluation, objectives, uncertainty
from hetmorph.cli.main import cli
from hetmorph.data import registry
from hetmorph.io import Grid, Image, model_grid, read_image, through_plane, write_image, write_transform
from hetmorph.networks import HetVxmDense, VxmDense
from hetmorph.serving import deploy
from tests import anatomy
from tests.cli.conftest import write_pair
from tests.convert.weights_2018 import VM2, kernels, write
from tests.data.sets import write_acdc
from tests.documentation import ROOT, Page, blocks, check, commands, flags, pages, programs, prose
from tests.io.worlds import GRIDS_3D, moving_of, smooth_transform
from tests.networks.models import FEATURES, GOLDEN, lively
from tests.serving.conftest import pair, skip_without, small_model, start

TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in pages()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with the settings and the trained model of a clone; the environment stays as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for known in (objectives.RECIPES, registry._SETS):  # a page may add to them
        for name in ("charbonnier", "discs"):
            monkeypatch.setitem(known, name, None)
            del known[name]
    os.environ["HETMORPH_XLA"] = "0"  # what is computed once need not be compiled
    Path("training").symlink_to(ROOT / "training")
    Path("saved_models").mkdir()
    Path("saved_models/acdc_vxm_het").symlink_to(ROOT / "saved_models" / "acdc_vxm_het")
    return tmp_path


def model_2d():
    return lively(HetVxmDense((16, 16), FEATURES, int_steps=1), np.random.default_rng(0), 0.3)


def save_3d(path, kind=VxmDense, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lively(kind((16, 16, 16), FEATURES, int_steps=1, **options), np.random.default_rng(0), 0.3).save(path)


# -- one function for each page that needs more than its text -----------------------------------------------------


def readme(page):
    page.read()
    write_pair(Path(), GRIDS_3D["oblique"])
    save_3d("my.keras")
    page.run()
    assert Path("moved.nii.gz").is_file() and Path("warp.nii.gz").is_file()
    moving, fixed = np.random.default_rng(0).random((2, 1, 32, 32, 1), np.float32)
    page.names |= {"volumes": list(moving[..., 0]) + list(fixed[..., 0]), "moving": moving, "fixed": fixed}
    small = "(32, 32), nb_unet_features=FEATURES, variance_features=FEATURES, int_steps=1"
    page.names["FEATURES"] = FEATURES
    once = "epochs=1, steps_per_epoch=1"
    page.run(("(160, 192)", small), ("batch_size=8", "batch_size=1"), ("epochs=300, steps_per_epoch=100", once))
    assert page.names["displacement"].shape == (1, 32, 32, 2) and page.names["log_variance"].shape == (1, 32, 32, 1)
    page.read()
    page.run()
    assert Path("saved_models/mine/1/saved_model.pb").is_file()


def getting_started(page):
    grid = Grid((20, 18, 16), np.diag([-1.5, 1.5, 1.5, 1.0]))
    Path("nifti").mkdir()
    for patient in range(1, 7):
        for image, shift in (("a", (0.0, 0.0, 0.0)), ("b", (1.0 + 0.3 * patient, -1.0, 0.5))):
            write_image(f"nifti/p{patient}_{image}.nii.gz", anatomy.image(grid, shift).array, grid)
            write_image(f"nifti/p{patient}_{image}_seg.nii.gz", anatomy.labels(grid, shift).array, grid)
    page.run()
    assert "ok a registration with a known answer" in page.output and "FAILED" not in page.output
    page.run(("--instance-optimise 50", "--instance-optimise 3"))
    assert page.output.endswith("wrote moved.nii.gz\nwrote warp.nii.gz\n")
    page.run()
    with open("pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and all(Path(row[name]).is_file() for row in rows for name in row if name != "patient")
    page.read()  # a training; its --dry-run looks at the table that the page has written
    assert "would start: het on" in page.output
    save_3d("runs/mine/model.keras", HetVxmDense, variance_features=FEATURES)
    page.run()
    assert Path("runs/mine-test/report/index.html").is_file()
    page.run(("--draws 20", "--draws 3"))
    assert all(Path(name).is_file() for name in ("labels.nii.gz", "uncertainty.nii.gz", "p2.html"))
    page.run()
    assert Path("models/mine/1/saved_model.pb").is_file() and Path("again.nii.gz").is_file()


def command_line(page):
    write_pair(Path(), GRIDS_3D["oblique flipped permuted"])
    save_3d("models/vxm3d.keras")
    grid = Grid((20, 18, 2), np.diag([-1.5, 1.5, 8.0, 1.0]))
    cine = np.stack([anatomy.image(grid, (shift, 0.0, 0.0)).array for shift in (0.0, 1.5)], -1)
    write_image("cine.nii.gz", cine, dataclasses.replace(anatomy.image(grid), spacing=(*grid.spacing, 0.05)))
    write_image("ed_labels.nii.gz", anatomy.labels(grid).array, grid)
    Path("fixed_landmarks.csv").write_text("x,y,z\n5,60,-9\n")
    Path("pairs.csv").write_text("case,moving,fixed\none,m.nii.gz,f.nii.gz\n")
    written = ("moved", "warp", "back", "jacobian", "uncertainty", "labels", "again", "again_labels", "moved_cine")
    for name in "fm":
        image = read_image(f"{name}.nii.gz")
        write_image(f"{name}_mask.nii.gz", image.array > 0, image, np.uint8)
        Path(f"{name}_points.csv").write_text(
            "name,x,y,z\napex," + ",".join(map(str, image.grid.world([4, 6, 5]) * [-1, -1, 1]))
        )
    for name in ("sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a", "sub-02_ses-b"):
        folder = Path("study", *name.split("_"), "anat")
        folder.mkdir(parents=True)
        shutil.copy("f.nii.gz", folder / f"{name}_T1w.nii.gz")
    Path("study/dataset_description.json").write_text("{}")
    quick = ("--instance-optimise 50", "--instance-optimise 2")
    for _ in range(3):
        page.run()
    page.run(quick)
    assert "target registration error" in page.output
    page.run(quick)
    assert Path("derivatives/hetmorph/hetmorph/cases.csv").is_file()
    page.read()  # docker
    for _ in range(3):
        page.run()
    page.read()  # a shard, which is empty here
    assert Path("near_warp.nii.gz").is_file() and Path("rigid.mat").is_file()
    assert all(Path(f"{name}.nii.gz").is_file() for name in (*written, "cine_warp_frame-01"))
    assert Path("moving_landmarks.csv").is_file() and Path("curve.png").is_file()
    assert Path("results/one/moved.nii.gz").is_file() and Path("results/one/warp.nii.gz").is_file()


def files(page):
    pytest.importorskip("SimpleITK")
    grid, rng = GRIDS_3D["oblique"], np.random.default_rng(0)
    for name, one in (("fixed", grid), ("moving", moving_of(grid))):
        array = rng.normal(size=one.shape).astype(np.float32)
        write_image(f"{name}.nii.gz", array, Image(array, one.spacing, one.affine, True, Path(name)))
    write_transform("warp.nii.gz", smooth_transform(rng, grid))
    seen = model_grid(grid, spacing=(1.5, 1.5, None), slice_axis=through_plane(grid))
    page.names["displacements"] = np.ones((seen.shape[2], *seen.shape[:2], 2), np.float32)
    page.rest()
    assert page.names["transform"].displacement.shape == (*grid.shape, 3)
    assert Path("disp_0001_0002.npz").is_file() and Path("warp.h5").is_file()


def deploying(page):
    skip_without("test double")
    moving, fixed = pair((32, 32))
    page.names |= {"model": small_model(1), "better": small_model(2), "moving": moving, "fixed": fixed}
    page.read()
    page.run()
    deploy("models/heart", base_path=Path("models/heart").resolve())  # the server is in no container
    with start("test double", "models/heart") as server:
        page.run(("localhost:8500", f"127.0.0.1:{server.ports[0]}"))
    assert page.names["result"].displacement.shape == (32, 32, 2)
    page.run()
    page.read()  # ONNX, whose packages may be missing
    printed = []
    page.names["print"] = lambda check: printed.append(str(check))
    page.run()
    assert any("ok   models.config: stable is version 2" in line for line in printed)
    assert any("FAIL equals the local model" in line for line in printed), "version 2 is another model"


def data_sets(page):
    where = ("/path/to/ACDC", str(write_acdc(Path(), count=6).resolve()))
    page.run(where)
    moving, fixed = next(iter(page.names["batches"]))[0]
    assert moving.shape == fixed.shape == (8, 128, 128, 1)
    page.run(where)  # measured on the crops
    for _ in range(7):
        page.read()
    page.run(where)  # known noise and known motion
    page.rest()  # artefacts


def uncertainties(page):
    Path("runs/het/uncertainty").mkdir(parents=True)
    model = model_2d()
    model.save("runs/het/model.keras")
    calibration = uncertainty.Calibration(
        uncertainty.Combination({"equivariance": 0.5, "variance": 0.5}),
        uncertainty.Bound(2.0, 0.9, 9),
        uncertainty.Triage(1.0, 2.0, 2.0),
        {},
    )
    calibration.save("runs/het/uncertainty/calibration.json")
    moving, fixed = np.random.default_rng(0).random((2, 16, 16), np.float32)
    page.names |= {"model": model, "moving": moving, "fixed": fixed}
    page.rest()
    assert Path("std.nii.gz").is_file() and page.names["bound"].shape == (16, 16)


def reports(page):
    loaded = data.load("phantom", split="test", size=(32, 32))
    one, predictor = loaded.pairs[0], evaluation.wrap(model_2d())
    rows = evaluation.evaluate(predictor, loaded.pairs[:2], labels=loaded.labels, main=loaded.main, progress=False)
    evaluation.write_cases(Path("runs/het/test/cases.csv"), rows)
    spread = uncertainty.estimate("noise", predictor, one.moving, one.fixed, n=2)
    page.names |= {"pair": one, "predictor": predictor, "result": spread}
    page.rest()
    assert Path("case.html").is_file() and Path("index.html").is_file()


def trained(page):
    page.names |= dict(
        zip(("moving", "fixed"), np.random.default_rng(0).random((2, 1, 64, 48, 1), np.float32), strict=True)
    )
    page.rest()
    assert page.names["result"]["displacement"].shape == (1, 64, 48, 2)


def implicit(page):
    page.run(("UPDATES = 300", "UPDATES = 2"))
    assert Path("implicit.png").is_file()
    page.read()  # a training
    page.read()  # its model, optimised
    page.rest()


def many_anatomies(page):
    write_pair(Path(), GRIDS_3D["oblique"])
    for name in "fm":
        image = read_image(f"{name}.nii.gz")
        write_image(f"{name}_mask.nii.gz", image.array > 0, image, np.uint8)
        shutil.copy("l.nii.gz", f"{name}_labels.nii.gz")
    shutil.copy(GOLDEN / "unigradicon.trch", "Step_2_final.trch")
    page.run(("--to models/unigradicon", "--size 16x18x20 --to models/unigradicon"))
    page.run()
    page.run(('"Step_2_final.trch")', '"Step_2_final.trch"), (16, 18, 20)'))
    assert page.names["result"].seen.shape == (2, 16, 18, 20) and Path("masked.h5").is_file()
    page.run(("--instance-optimise 50", "--instance-optimise 1"))
    page.read()  # fine-tuning
    page.read()  # two stages
    write("cvpr2018_vm2_cc.h5", kernels(VM2, 3))
    for ours, theirs in (("m", "scan"), ("f", "atlas"), ("l", "scan_labels"), ("l", "atlas_labels")):
        shutil.copy(f"{ours}.nii.gz", f"{theirs}.nii.gz")
    page.run()
    assert "Dice, mean" in page.output and Path("labels.nii.gz").is_file()


PLAYS = {
    "README.md": readme,
    "docs/command-line.md": command_line,
    "docs/data.md": data_sets,
    "docs/deploying.md": deploying,
    "docs/files.md": files,
    "docs/getting-started.md": getting_started,
    "docs/implicit.md": implicit,
    "docs/many-anatomies.md": many_anatomies,
    "docs/reading-the-report.md": reports,
    "docs/uncertainty.md": uncertainties,
    "saved_models/README.md": trained,
}


# The README trains and the first steps optimise a pair, in graphs; each command of the others would use one once.
GRAPHS = dict.fromkeys(("README.md", "docs/getting-started.md"), pytest.mark.graph)
LONG = [f"docs/{name}.md" for name in ("getting-started", "command-line", "deploying", "implicit", "many-anatomies")]
SLOW = dict.fromkeys([*LONG, "saved_models/README.md", "docs/napari.md"], pytest.mark.slow)
MARKS = {name: [marks[name] for marks in (GRAPHS, SLOW) if name in marks] for name in TEXTS}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS[name]) for name in TEXTS])
def test_every_block_of(name, folder, record_property):
    page = Page(name)
    PLAYS.get(name, Page.rest)(page)
    assert not page.more(), f"{page.left[0].place} was neither run nor parsed"
    assert sum(page.tally.values()) == TEXTS[name].count("\n```") / 2
    for kind, count in page.tally.items():
        record_property(f"blocks {kind}", count)


def test_every_play_is_of_a_page():
    assert set(PLAYS) <= set(TEXTS)


# -- what the text says beside its blocks -------------------------------------------------------------------------


def spans(text):
    """What stands between single backticks, line breaks as spaces."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))]


# Flags of programs by others: a server, pip, VoxelMorph's scripts.
FOREIGN = {"--port", "--rest_api_port", "--no-deps", "--all", "--dir"}
OF_VOXELMORPH = {"docs/voxelmorph.md"}


def known_flags(span):
    """Flags of the program that a span begins with; of all programs where it names none."""
    words = span.split()
    if words[0] == "hetmorph" and len(words) > 1 and words[1] in cli.commands:
        return flags(words[1])
    script = next(
        (name for name in programs() if Path(name).name == Path(words[0 if words[0] != "python" else 1]).name), None
    )
    if script is not None:
        return flags(script)
    return frozenset().union(*map(flags, programs())) | {"--debug"} | FOREIGN


@pytest.mark.parametrize("page", [page for page in TEXTS if page not in OF_VOXELMORPH])
def test_flags_in_the_text_exist(page):
    named = [(flag, span) for span in spans(TEXTS[page]) for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)]
    assert [(flag, span) for flag, span in named if flag not in known_flags(span)] == []


@pytest.mark.parametrize("page", TEXTS)
def test_targets_and_extras_in_the_text_exist(page):
    for span in spans(TEXTS[page]):
        if re.match(r"(make|pip install|bash) ", span):
            check(commands(span)[0])


@pytest.mark.parametrize("page", TEXTS)
def test_names_in_the_text_exist(page):
    """`hetmorph.…`, modules and attributes; files of the repository, from its top or from the package's."""
    for span in spans(TEXTS[page]):
        if dotted := re.match(r"hetmorph(\.[A-Za-z_]\w*)+", span):
            assert resolved(dotted.group()), f"{page}: {span}"
        if re.fullmatch(r"\.?[\w-]+(/[\w.-]+)+\.(py|yaml|md)", span) and not span.startswith("runs/"):
            assert (ROOT / span).exists() or (ROOT / "hetmorph" / span).exists(), f"{page}: {span}"


def resolved(dotted):
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def anchors(text):
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", prose(TEXTS[page])):
        if target.startswith("http"):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {target}#{anchor}"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/command-line.md", cli.commands),
        ("docs/data.md", data.datasets()),
        ("docs/evaluation.md", evaluation.PROGRAMS),
        ("docs/objectives.md", objectives.RECIPES),
        ("docs/uncertainty.md", uncertainty.ESTIMATES),
    ],
)
def test_lists_are_complete(page, names):
    assert [name for name in names if f"`{name}`" not in TEXTS[page]] == []


def test_every_page_is_linked_from_the_readme():
    assert [page for page in TEXTS if page.startswith("docs/") and f"]({page}" not in TEXTS["README.md"]] == []


# -- the checks themselves can fail -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hetmorph registre --moving a", "no such verb"),
        ("hetmorph register --movin a", "No such option"),
        ("hetmorph evaluate --data acdc --model m", "required: --out"),
        ("hetmorph export --model m", "Missing option '--out'"),
        ("python training/train.py --data acdc --epoch-count 3", "unrecognized arguments"),
        ("python training/train.py --objective mse --gamma 2", "no effect on objective mse"),
        ("python training/trains.py", "no such file"),
        ("python benchmarks/kernels.py --round 2", "unrecognized arguments"),
        ("python -c 1", "no script of ours"),
        ("make demos", "no such target"),
        ('pip install ".[report]"', "no such extra"),
        (
            "python training/evaluate.py --data acdc --out o --model saved_models/acdc",
            "no such file: saved_models/acdc",
        ),
        ("elastix -f a", "unknown program"),
        ("hetmorph doctor | tail", "not understood"),
    ],
)
def test_a_wrong_command_is_found(line, reason, folder):
    with pytest.raises(ValueError, match=re.escape(reason)):
        check(commands(line)[0])


def test_a_block_that_nobody_runs_is_found(folder):
    page = Page("docs/architecture.md")
    page.left = blocks("```yaml\na: 1\n```\n")
    with pytest.raises(AssertionError, match="'yaml' is neither run nor one of"):
        page.rest()
    with pytest.raises(ValueError, match="nothing closes"):
        blocks("```python\n1\n")
    assert not resolved("hetmorph.io.read_imag") and resolved("hetmorph.io.images.read_image")


@pytest.mark.slow
def test_the_api_reference_has_every_public_name_and_no_warning(tmp_path):
    """`make docs`; a warning is an error in the tests."""
    pdoc = pytest.importorskip("pdoc", reason="pip install pdoc")
    from tests.test_docstrings import PUBLIC

    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc("hetmorph", output_directory=tmp_path)
    written = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    for name in PUBLIC:
        module, _, last = name.rpartition(".")
        own = tmp_path / f"{name.replace('.', '/')}.html"
        page = tmp_path / f"{module.replace('.', '/')}.html"
        assert own in written or f'id="{last}"' in written[page], name
