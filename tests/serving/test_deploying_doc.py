"""The code of docs/deploying.md runs, on the test double."""

import re
from pathlib import Path

from hetmorph.serving import deploy
from tests.serving.conftest import pair, skip_without, small_model, start

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/deploying.md").read_text("utf-8"), re.S)


def test_every_block_runs(tmp_path, monkeypatch, capsys):
    skip_without("test double")
    monkeypatch.chdir(tmp_path)
    moving, fixed = pair((32, 32))
    names = {"model": small_model(1), "better": small_model(2), "moving": moving, "fixed": fixed}
    export, client, switch, check = BLOCKS
    exec(export, names)
    deploy("models/heart", base_path=tmp_path / "models" / "heart")  # the server is in no container
    with start("test double", "models/heart") as server:
        assert "localhost:8500" in client
        exec(client.replace("localhost:8500", f"127.0.0.1:{server.ports[0]}"), names)
    assert names["result"].displacement.shape == (32, 32, 2)
    exec(switch, names)
    exec(check, names)
    printed = capsys.readouterr().out
    assert "ok   models.config: stable is version 2" in printed
    assert "FAIL equals the local model" in printed, "version 2 is another model"
