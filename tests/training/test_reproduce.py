"""The tables: which commands they need, and what they print of known scores."""

import csv

import pytest

from hetmorph.cli import train
from training import reproduce

TABLES = ("lambda", "main", "gamma", "sigma_z", "noise")


def plan_of(table, out, *flags):
    args = reproduce.parser().parse_args(["--table", table, "--out", str(out), *flags])
    return reproduce.Plan(args, reproduce.tables(args.arch)[table])


def write_run(folder, scores, **columns):
    """A cases.csv of patients a and b with one slice each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"case_id": f"{p}0", "patient": p, "undeformed_dice_myo": 0.5, "registered_dice_myo": s, **columns}
        for p, s in zip("ab", scores, strict=True)
    ]
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.quick(*(case for table in TABLES for case in (f"8-{table}-vxm", f"2-{table}-transmorph")))
@pytest.mark.parametrize("arch", ["vxm", "transmorph"])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("batch", ["8", "2"])
def test_every_command_is_understood(table, arch, batch, tmp_path):
    """The flags are those of train.py, and each objective accepts its own."""
    plan = plan_of(table, tmp_path, "--arch", arch, "--batch-size", batch)
    jobs = [job for method in plan.table.methods for job in plan.jobs(method)]
    trainings = [job.command for job in jobs if job.command[1].endswith("train.py")]
    assert trainings
    for command in trainings:
        settings = train.configuration(train.parser().parse_args(command[2:]))
        objective = settings.objective
        resting = (objective.warm_start or 0) * settings.schedule.steps_per_epoch
        assert settings.schedule.batch_size == int(batch)
        assert settings.schedule.steps - resting == 3000  # updates of the displacement network


@pytest.mark.parametrize("table", TABLES)
def test_no_two_rows_share_a_folder_unless_they_are_the_same(table, tmp_path):
    plan = plan_of(table, tmp_path)
    commands = {}
    for method in plan.table.methods:
        for job in plan.jobs(method):
            assert commands.setdefault(job.done, job.command) == job.command
    runs = [tuple(plan.runs(method)) for method in plan.table.methods]
    assert len(set(runs)) == len(runs)


def test_tables_share_their_trainings(tmp_path):
    main, gamma, smoothness = (
        {job.done for m in plan.table.methods for job in plan.jobs(m) if "train.py" in job.command[1]}
        for plan in (plan_of(table, tmp_path, "--lambda", "0.1") for table in ("main", "gamma", "lambda"))
    )
    assert len(main & gamma) == 7  # mse and het, three seeds each, and het of blocks
    assert len(main & smoothness) == 3  # the first seed of mse, het and het of blocks, λ = 0.1


def test_the_table_says_mean_deviation_and_difference(tmp_path, capsys):
    plan = plan_of("main", tmp_path, "--seeds", "0", "1")
    mse, het = (next(m for m in plan.table.methods if m.label == name) for name in ("mse", "het"))
    for run, scores in zip(plan.runs(mse), [(0.70, 0.80), (0.72, 0.82)], strict=True):
        write_run(run, scores, registered_folds_percent=0.1)
    for run, scores in zip(plan.runs(het), [(0.75, 0.85), (0.77, 0.87)], strict=True):
        write_run(run, scores, registered_folds_percent=0.2)
    assert reproduce.main(["--table", "main", "--out", str(tmp_path), "--seeds", "0", "1", "--render"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert "| 0.500 |" in cells["undeformed"]
    assert "0.760 ± 0.014" in cells["mse"] and "0.100" in cells["mse"]
    assert "0.810 ± 0.014" in cells["het"] and "+0.0500 (" in cells["het"]
    assert "HD95" not in lines[0]  # no run has it
    assert len({line.count("|") for line in lines}) == 1
    (tex,) = (path.read_text() for path in (tmp_path / "acdc").glob("table-main-vxm-*.tex"))
    assert r"0.760 $\pm$ 0.014" in tex and r"folds \%" in tex and tex.count(r"\\") == len(lines) - 1


def test_what_is_done_is_not_run_again_and_failures_stop(tmp_path, monkeypatch):
    calls = []

    class Result:
        returncode = 3

    monkeypatch.setattr(reproduce.subprocess, "run", lambda command, env: calls.append(command) or Result())
    done, missing = tmp_path / "done.json", tmp_path / "missing.json"
    done.touch()
    jobs = [reproduce.Job(("finished",), done), reproduce.Job(("fails",), missing), reproduce.Job(("never",), missing)]
    with pytest.raises(RuntimeError, match="status 3.*fails"):
        reproduce.execute(jobs, keep_going=False)
    assert calls == [("fails",)]
    assert reproduce.execute(jobs, keep_going=True) == jobs[1:]
    assert calls[1:] == [("fails",), ("never",)]


def test_mistakes_are_named(tmp_path, capsys):
    assert reproduce.main(["--table", "main", "--only", "mes", "--out", str(tmp_path)]) == 2
    assert "no row mes; rows are\n  demons\n  bspline" in capsys.readouterr().err
    assert reproduce.main(["--table", "main", "--render", "--out", str(tmp_path)]) == 2
    assert "no row of this table is done" in capsys.readouterr().err
    for flags, message in (
        (("--known-warp", "3"), "--known-warp is for --table noise"),
        (("--passes", "0"), "--passes must be at least 1, got 0"),
        (("--updates", "0"), "--updates must be at least 1, got 0"),
        (("--resolution", "2"), "--resolution is for --table inverse and inverse-lambda"),
    ):
        assert reproduce.main(["--table", "main", "--out", str(tmp_path), *flags]) == 2
        assert message in capsys.readouterr().err
    for table, value in (("lambda", "0.1"), ("inverse-lambda", "icon=500")):
        assert reproduce.main(["--table", table, "--lambda", value, "--out", str(tmp_path)]) == 2
        assert f"--lambda has no effect on --table {table}, " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        reproduce.main(["--table", "main", "--arch", "unet"])


def test_rows_of_which_seeds_are_missing_are_named(tmp_path, capsys):
    flags = ["--table", "main", "--out", str(tmp_path), "--render"]
    plan = plan_of("main", tmp_path)
    mse, nll = (next(m for m in plan.table.methods if m.label == name) for name in ("mse", "nll"))
    for run in (*plan.runs(mse), plan.runs(nll)[0]):
        write_run(run, (0.7, 0.8))
    assert reproduce.main(flags) == 0
    printed = capsys.readouterr().out
    assert "| mse | 3 |" in printed and "| nll |" not in printed
    assert "left out: nll, 1 of 3 seeds" in printed
    assert reproduce.main([*flags, "--seeds", "0"]) == 0
    printed = capsys.readouterr().out
    assert "| nll | 1 |" in printed and "left out" not in printed
    assert len(list((tmp_path / "acdc").glob("*.md"))) == 2  # tables of other seeds have files of their own


def test_only_transmorph_is_also_integrated(tmp_path):
    labels = {arch: [m.label for m in reproduce.tables(arch)["main"].methods] for arch in reproduce.MODELS}
    assert "mse, integrated" in labels["transmorph"] and "mse, integrated" not in labels["vxm"]


def test_budgets_and_tables_of_the_same_name_have_folders_of_their_own(tmp_path):
    def folders(*flags):
        plan = plan_of("gamma", tmp_path, *flags)
        return {job.done.parent for method in plan.table.methods for job in plan.jobs(method)}

    usual = folders()
    for flags in (
        ["--lr", "1e-4"],
        ["--updates", "500"],
        ["--batch-size", "1"],
        ["--lambda", "0.3"],
        ["--arch", "transmorph"],
    ):
        assert not usual & folders(*flags), flags
    assert not folders("--data", "a/pairs.csv") & folders("--data", "b/pairs.csv")
    assert not usual & folders("--resolution", "2")


def test_lambda_of_a_row_of_its_own(tmp_path, capsys):
    plan = plan_of("noise", tmp_path, "--lambda", "0.1", "het, blocks=0.01")
    values = {m.label: plan.jobs(m)[0].command for m in plan.table.methods if not m.program}
    values = {label: command[command.index("--lambda") + 1] for label, command in values.items()}
    assert {value for label, value in values.items() if label.startswith("het, blocks, noise")} == {"0.01"}
    assert {value for label, value in values.items() if not label.startswith("het, blocks, noise")} == {"0.1"}
    for wrong, message in (("het=strong", "ROW=number"), ("hat=0.1", "no row hat")):
        assert reproduce.main(["--table", "main", "--out", str(tmp_path), "--render", "--lambda", wrong]) == 2
        assert message in capsys.readouterr().err


def test_optimising_each_pair_shares_the_training(tmp_path):
    plan = plan_of("main", tmp_path, "--lambda", "0.1", "het=0.03")
    het, further = (
        next(m for m in plan.table.methods if m.label == f"het{text}") for text in ("", reproduce.EACH_PAIR)
    )
    assert [j.done for j in plan.jobs(het)][::2] == [j.done for j in plan.jobs(further)][::2]
    assert not set(plan.runs(het)) & set(plan.runs(further))
    assert "--instance-optimise" in plan.jobs(further)[1].command


def test_lambda_is_tuned_at_a_level_of_noise(tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    args = reproduce.parser().parse_args(["--table", "lambda", "--noise", "0.1", *out])
    clean, noisy = (
        reproduce.Plan(args, reproduce.tables(noise=reproduce.Noise(level))["lambda"]) for level in ("", "0.1")
    )
    for method in noisy.table.methods:
        assert all("--noise" in job.command for job in noisy.jobs(method))
        write_run(noisy.runs(method)[0], (0.7, 0.8))
    assert not {run for m in noisy.table.methods for run in noisy.runs(m)} & {
        run for m in clean.table.methods for run in clean.runs(m)
    }
    assert reproduce.main(["--table", "lambda", "--noise", "0.1", "--render", *out]) == 0
    printed = capsys.readouterr().out
    assert "| het, λ = 0.3, noise 0.1 |" in printed and "+0.0000" in printed
    assert reproduce.main(["--table", "main", "--noise", "0.1", *out]) == 2
    assert "--noise is for --table lambda" in capsys.readouterr().err


def test_rows_of_an_artefact_are_trained_and_scored_with_it_in_folders_of_their_own(tmp_path, capsys):
    flags = ["--table", "noise", "--noise-kind", "void", "--noise-in", "moving"]
    args = reproduce.parser().parse_args([*flags, "--out", str(tmp_path)])
    plan = reproduce.Plan(args, reproduce.tables(noise=reproduce.noise_of(args))["noise"])
    labels = [method.label for method in plan.table.methods]
    assert "het, void 0.5 in the moving image" in labels and not any("0.05" in label for label in labels)
    for method in plan.table.methods:
        for job in plan.jobs(method):
            command = " ".join(job.command)
            assert "--noise-kind void --noise-in moving" in command and "-void" in str(job.done)
    assert reproduce.main([*flags, "--dry-run", "--out", str(tmp_path)]) == 0
    assert reproduce.main(["--table", "main", "--noise-kind", "void", "--out", str(tmp_path)]) == 2
    assert "--noise-kind and --noise-in are for --table noise" in capsys.readouterr().err


def test_passes_share_the_training_but_not_the_scores(tmp_path):
    once, thrice = (plan_of("main", tmp_path, "--passes", n) for n in ("1", "3"))
    het = next(m for m in once.table.methods if m.label == "het")
    assert [j.done for j in once.jobs(het)][::2] == [j.done for j in thrice.jobs(het)][::2]
    assert not set(once.runs(het)) & set(thrice.runs(het))
    demons = once.table.methods[0]
    assert once.runs(demons) == thrice.runs(demons)
