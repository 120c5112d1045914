"""A table of pairs: what can be done is done, what cannot is listed, what is missing is made up for."""

import csv
import errno
import json
import os
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from hetmorph.cli.main import cli
from hetmorph.cohort import Shard
from hetmorph.io import Grid, read_image, read_transform, write_image


@pytest.fixture
def table(volumes):
    """Three pairs, the second of which has no moving image."""
    shutil.copy(volumes / "m.nii.gz", volumes / "m3.nii.gz")
    (volumes / "pairs.csv").write_text(
        "case,moving,fixed,moving_labels\none,m.nii.gz,f.nii.gz,l.nii.gz\ntwo,gone.nii.gz,f.nii.gz,\nthree,m3.nii.gz,f.nii.gz,\n"
    )
    return volumes / "pairs.csv"


def batch(hetmorph, table, models, *more, status=0):
    out = table.parent / "out"
    return hetmorph("register", "--pairs", table, "--out", out, "--model", models["vxm3d"], *more, status=status), out


def times(out):
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}


def test_the_others_are_done_and_resume_does_the_missing(hetmorph, table, models):
    result, out = batch(hetmorph, table, models, status=1)
    assert "2 of 3 pairs registered, 1 failed" in result.stdout
    assert f"failed: two: --moving {table.parent / 'gone.nii.gz'}: no such file" in result.stderr
    before = times(out)
    assert set(before) == {
        *(
            "one/moved.nii.gz",
            "one/transform.nii.gz",
            "one/labels.nii.gz",
            "three/moved.nii.gz",
            "three/transform.nii.gz",
        )
    }
    assert "go on with --resume" in batch(hetmorph, table, models, status=2)[0].stderr

    shutil.copy(table.parent / "m.nii.gz", table.parent / "gone.nii.gz")
    result, _ = batch(hetmorph, table, models, "--resume")
    assert "1 of 3 pairs registered, 2 were done before, 0 failed" in result.stdout
    after = times(out)
    assert set(after) - set(before) == {"two/moved.nii.gz", "two/transform.nii.gz"}
    assert all(after[name] == when for name, when in before.items())


def test_resume_redoes_what_was_made_otherwise(hetmorph, table, models):
    batch(hetmorph, table, models, status=1)
    result, out = batch(hetmorph, table, models, "--resume", "--spacing", 2.0, status=1)
    assert "2 of 3 pairs registered, 1 failed" in result.stdout
    before = times(out)
    (out / "one" / "moved.nii.gz").unlink()
    shutil.copy(table.parent / "f.nii.gz", table.parent / "m3.nii.gz")  # another image under the same name
    result, _ = batch(hetmorph, table, models, "--resume", "--spacing", 2.0, status=1)
    assert "2 of 3 pairs registered, 1 failed" in result.stdout
    assert all(times(out)[name] > when for name, when in before.items())
    assert read_image(out / "one" / "moved.nii.gz").array.any()


def test_a_dry_run_names_the_broken_case_and_writes_nothing(hetmorph, table, models):
    result, out = batch(hetmorph, table, models, "--dry-run", status=1)
    assert not out.exists() and "2 of 3 pairs could be registered, 1 failed" in result.stdout
    assert "failed: two" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "with the columns moving,fixed"),
        ("moving,fixed\n", "holds no row"),
    ],
)
def test_a_table_that_cannot_be_used(hetmorph, table, models, content, message):
    table.write_text(content)
    assert message in batch(hetmorph, table, models, status=2)[0].stderr


def test_rows_that_are_broken_are_failures_and_the_others_are_done(hetmorph, table, models):
    m, f = "m.nii.gz", "f.nii.gz"
    broken = [f"{m},,a", f"{m},{f},../x", f"{m},{f},x", f"{m},{f}", f"{m},{f},b,c"]
    table.write_text("\n".join(["moving,fixed,case", f"{m},{f},x", *broken]) + "\n")
    result, out = batch(hetmorph, table, models, status=1)
    assert "1 of 6 pairs registered, 5 failed" in result.stdout
    failed = {case: row["failed"] for case, row in rows(out / "cases.csv").items()}
    assert list(failed) == ["line-0003", "line-0004", "line-0005", "line-0006", "line-0007", "x"] and not failed["x"]
    expected = {3: "the cell fixed is empty", 4: "cannot be the name of a folder", 5: "there is a case x already"}
    for line, text in (expected | dict.fromkeys((6, 7), "as many cells as the first line has")).items():
        assert f"line {line}: " in failed[f"line-{line:04d}"] and text in failed[f"line-{line:04d}"]
        assert f"failed: line-{line:04d}: " in result.stderr
    result, _ = batch(hetmorph, table, models, "--dry-run", "--resume", status=1)
    assert "0 of 6 pairs could be registered, 1 were done before, 5 failed" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--moved", "/tmp/x.nii.gz"), "results are file names inside the folder"),
        (("--moving", "m.nii.gz"), "--pairs names the inputs"),
        (
            ("--instance-optimise", 1, "--dice-weight", 1),
            "--dice-weight needs moving_labels and fixed_labels, of which no row",
        ),
        (("--instance-optimise", 1, "--conserve-mass"), "--conserve-mass needs --modality-moving ct"),
    ],
)
def test_options_that_do_not_go_with_a_table(hetmorph, table, models, words, message):
    assert message in batch(hetmorph, table, models, *words, status=2)[0].stderr


def test_the_table_of_verdicts_and_the_list_of_the_bad(hetmorph, table, models):
    """`undeformed` makes nothing more alike: to be reviewed. What was done before keeps its verdict."""
    shutil.copy(table.parent / "f.nii.gz", table.parent / "gone.nii.gz")  # of two, which is alike already
    words = ("register", "--pairs", table, "--out", table.parent / "out", "--model", "undeformed")
    result = hetmorph(*words)
    with open(table.parent / "out" / "cases.csv", newline="") as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["one", "three", "two"], "by their names, as merge writes them"
    assert [row["verdict"] for row in rows.values()] == ["review", "review", "accept"]
    assert float(rows["two"]["registered_similarity"]) == pytest.approx(1, abs=0.01)
    listed = [line.split(": ")[1] for line in result.stderr.splitlines() if line.startswith("review: ")]
    assert listed == ["one", "three"] and rows["one"]["reason"] in result.stderr and result.exit_code == 0
    told = json.loads((table.parent / "out" / "one" / "moved.json").read_text())["verdict"]
    assert (told["flag"], told["reason"]) == ("review", rows["one"]["reason"])
    result = hetmorph(*words, "--resume", "--fail-on", "review", status=3)
    assert "3 were done before" in result.stdout and "review: three: " in result.stderr
    (table.parent / "gone.nii.gz").unlink()
    hetmorph(*words, "--resume", "--fail-on", "review", status=1)  # what is missing is worse than what is bad


@pytest.mark.slow
def test_labels_steer_the_rows_that_have_them_as_they_steer_a_pair(hetmorph, tmp_path):
    """The same transform as of the pair by itself; a row without labels fails alone."""
    folder, table = tmp_path, tmp_path / "pairs.csv"
    how = "--model", "undeformed", "--instance-optimise", 1, "--instance-similarity", "mse", "--dice-weight", 5
    for name, start in (("m", 4), ("f", 5)):
        image = np.zeros((15, 14), np.uint8)
        image[start : start + 6, 3:9] = 1
        write_image(folder / f"{name}.nii.gz", gaussian_filter(100.0 * image, 1), Grid(image.shape, np.eye(4)))
        write_image(folder / f"l{name}.nii.gz", image, Grid(image.shape, np.eye(4)))
    table.write_text(
        "case,moving,fixed,moving_labels,fixed_labels\none,m.nii.gz,f.nii.gz,lm.nii.gz,lf.nii.gz\n"
        "two,m.nii.gz,f.nii.gz,,lf.nii.gz\n"
    )
    result = hetmorph("register", "--pairs", table, "--out", folder / "out", *how, status=1)
    pair = [f"--{name}={folder / path}.nii.gz" for name, path in (("moving", "m"), ("fixed", "f"), ("transform", "t"))]
    labels = "--labels-moving", folder / "lm.nii.gz", "--labels-fixed", folder / "lf.nii.gz"
    said = hetmorph("register", *pair, *labels, *how).stdout
    found, expected = (read_transform(folder / name) for name in ("out/one/transform.nii.gz", "t.nii.gz"))
    np.testing.assert_array_equal(found.displacement, expected.displacement)
    assert np.abs(found.displacement).max() > 0.1
    dice = re.search(r": (\S+) undeformed, (\S+) registered", said[said.index("Dice of label 1") :])
    told = rows(folder / "out" / "cases.csv")
    assert f"Dice, mean{dice.group()}; Dice is of labels that the optimisation was given" in result.output
    for name, value in zip(("undeformed", "registered"), dice.groups(), strict=True):
        assert float(told["one"][f"{name}_dice_mean"]) == pytest.approx(float(value), abs=6e-4)
    assert "--dice-weight needs --labels-fixed and --labels-moving" in told["two"]["failed"]


def test_labels_of_a_table_are_scored(hetmorph, table, models):
    """Of the fixed image alone they say nothing, and stop nothing."""
    table.write_text(
        "case,moving,fixed,moving_labels,fixed_labels\none,m.nii.gz,f.nii.gz,l.nii.gz,l.nii.gz\n"
        "two,m.nii.gz,f.nii.gz,,l.nii.gz\n"
    )
    _, out = batch(hetmorph, table, models)
    told = rows(out / "cases.csv")
    assert 0 < float(told["one"]["registered_dice_mean"]) < 1 and not told["two"]["registered_dice_mean"]


def rows(path):
    with path.open(newline="") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def test_shards_do_every_case_once_and_are_merged(hetmorph, table, models):
    table.write_text(table.read_text().replace("three,", "third,"))
    for number in (1, 2):  # "one" and "two" are in the first, "third" is in the second
        result, out = batch(hetmorph, table, models, "--shard", f"{number}/2", status=2 - number)
    assert not (out / "cases.csv").exists()
    assert set(rows(out / "cases-1-of-2.csv")) == {"one", "two"} and set(rows(out / "cases-2-of-2.csv")) == {"third"}
    merged = hetmorph("merge", "--out", out, status=1).stdout
    assert f"wrote {out / 'cases.csv'}: 3 cases of 2 shards, 1 failed" in merged
    assert (
        set(rows(out / "cases.csv")) == {"one", "two", "third"}
        and "no such file" in rows(out / "cases.csv")["two"]["failed"]
    )
    before = times(out)
    batch(hetmorph, table, models, "--shard", "1/2", "--resume", status=1)
    assert times(out) == before


def test_a_killed_process_leaves_nothing_that_is_taken_for_done(hetmorph, table, models, monkeypatch):
    """It was killed while it made `one` anew, with other settings: neither the old record nor half a file counts."""
    batch(hetmorph, table, models, status=1)
    out = table.parent / "out"
    parts = [out / "one" / ".0123456789ab.nii.gz", out / "one" / ".mine.nii.gz"]
    for part in parts:
        part.write_bytes(b"half")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hetmorph.cli.register_pair.write_way", killed)
        batch(hetmorph, table, models, "--resume", "--spacing", 2.0, status=130)
    assert not (out / "one" / "registration.json").exists() and [p.exists() for p in parts] == [False, True]
    result, _ = batch(hetmorph, table, models, "--resume", status=1)
    assert "1 of 3 pairs registered, 1 were done before, 1 failed" in result.stdout


def test_a_full_disk_ends_the_run_and_resume_goes_on(hetmorph, table, models, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "transform.nii.gz")

    with monkeypatch.context() as patched:
        patched.setattr("hetmorph.cli.register_pair.write_way", full)
        result, out = batch(hetmorph, table, models, status=2)
    assert "stopped after 0 of 3 pairs: [Errno 28] No space left on device: 'transform.nii.gz'" in result.stderr
    assert "goes on with --resume" in result.stderr and not [*out.rglob("*.json"), *out.rglob(".*")]
    assert "2 of 3 pairs registered, 1 failed" in batch(hetmorph, table, models, "--resume", status=1)[0].stdout


def test_an_error_that_nobody_thought_of_does_not_end_the_others(hetmorph, table, models, monkeypatch):
    def odd(case, *_):
        raise KeyError(case)

    monkeypatch.setattr("hetmorph.cli.batch._registered", odd)
    result, out = batch(hetmorph, table, models, status=1)
    assert re.search(r"failed: one: unexpected KeyError: 'one' \(test_batch.py, line \d+\)", result.stderr)
    assert "unexpected KeyError: 'three'" in rows(out / "cases.csv")["three"]["failed"]


@pytest.mark.slow
def test_in_turn_in_parts_and_by_workers_the_results_are_the_same_bit_for_bit(hetmorph, table, models):
    pytest.importorskip("distributed")
    ways = {"loop": [], "workers": ["--workers", 2], "parts": []}
    for way, words in ways.items():
        own = ("register", "--pairs", table, "--out", table.parent / way, "--model", models["vxm3d"], *words)
        for part in (["--shard", "1/2"], ["--shard", "2/2"]) if way == "parts" else ([],):
            assert CliRunner().invoke(cli, [str(word) for word in (*own, *part)]).exit_code in (0, 1, 3)
    hetmorph("merge", "--out", table.parent / "parts", status=1)
    loop, *others = (table.parent / way for way in ways)
    images = sorted(path.relative_to(loop) for path in loop.rglob("*.nii.gz"))
    assert len(images) == 5
    for other in others:
        assert (other / "cases.csv").read_bytes() == (loop / "cases.csv").read_bytes()
        assert sorted(path.relative_to(other) for path in other.rglob("*.nii.gz")) == images
        assert all((other / image).read_bytes() == (loop / image).read_bytes() for image in images)
        assert not [*other.rglob(".*"), *other.rglob("*.jsonl")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", 0), "0 is not in the range x>=1"),
        (("--scheduler", "here"), "expected tcp://host:port or slurm, received here"),
        (("--scheduler", "slurm"), "--scheduler slurm needs --workers"),
        (("--scheduler", "tcp://127.0.0.1:8786", "--workers", 2), "are there: give one"),
    ],
)
def test_workers_that_cannot_be(hetmorph, table, models, words, message):
    result, out = batch(hetmorph, table, models, *words, status=2)
    assert message in result.stderr and not out.exists()


def test_workers_are_of_a_table(hetmorph, volumes):
    pair = ("register", "--moving", volumes / "m.nii.gz", "--fixed", volumes / "f.nii.gz", "--workers", 2)
    assert "--workers and --scheduler are for --pairs" in hetmorph(*pair, status=2).stderr


def test_a_case_stays_in_its_shard_whatever_else_is_in_the_table():
    names = [f"case-{number}" for number in range(200)]
    parts = [Shard(number, 3).cases(names) for number in (1, 2, 3)]
    assert sorted(sum(parts, [])) == sorted(names) and min(map(len, parts)) > 40
    assert Shard(2, 3).cases(names[50:60]) == [name for name in parts[1] if name in names[50:60]]
    assert [len(Shard(number, 3).cases(["one", "two", "three"])) for number in (1, 2, 3)] == [0, 0, 3]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "a/b"])
def test_a_shard_that_there_is_not(hetmorph, table, models, shard):
    result, out = batch(hetmorph, table, models, "--shard", shard, status=2)
    assert f"expected I/N with I from 1 to N, such as 2/5, received {shard}" in result.stderr and not out.exists()


@pytest.mark.parametrize(
    "names,message",
    [
        ([], "found none"),
        (["cases-1-of-2.csv"], "found none of cases-2-of-2.csv"),
        (["cases-1-of-2.csv", "cases-1-of-3.csv"], "found those of 2 and of 3 shards"),
    ],
)
def test_tables_that_are_not_those_of_one_division(hetmorph, tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_text("case_id,failed\na,\n")
    assert message in hetmorph("merge", "--out", tmp_path, status=2).stderr
    assert not (tmp_path / "cases.csv").exists()
