"""An evaluation under way on disk, so that it can go on after being stopped."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hetmorph.evaluation.uncertainty import Curves
from hetmorph.io.atomic import write_text

EVERY = 10.0  # seconds between two writes


class Partial:
    """The rows and curves of an unfinished evaluation in one JSON file.

    Args:
        path: the file.
        settings: whatever decides the rows (model, data, convention, …), JSON values.

    Example:
        >>> partial = Partial("out/cases.partial.json", {"model": "demons"})
        >>> rows, curves = partial.read()
        >>> partial.write(rows, curves)     # after each new row: reaches the disk every ten seconds
        >>> partial.remove()                # when everything else is written
    """

    def __init__(self, path, settings: Mapping):
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))
        self._written = time.monotonic()

    def read(self) -> tuple[list[dict], Curves]:
        """What is on disk; nothing yet gives no rows and no curves.

        Raises:
            ValueError: the file is damaged, or was begun with other settings.
        """
        if not self.path.exists():
            return [], Curves()
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            before, rows, curves = stored["settings"], stored["rows"], Curves.from_state(stored["curves"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged ({error!r}); delete it to start over") from error
        names = sorted(before.keys() | self.settings.keys())
        if changed := [name for name in names if before.get(name) != self.settings.get(name)]:
            raise ValueError(f"{self.path} was begun with another {', '.join(changed)}; delete it to start over")
        return rows, curves

    def write(self, rows: Sequence[dict], curves: Curves, now: bool = False) -> None:
        """Write everything known so far, at most every ten seconds unless `now`."""
        if now or time.monotonic() - self._written > EVERY:
            write_text(
                self.path, json.dumps({"settings": self.settings, "rows": [*rows], "curves": curves.state()}) + "\n"
            )
            self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)


def fingerprint(model) -> list[list]:
    """Name, size and time of change of each file of a model on disk; empty for a classical program.

    Args:
        model: path of a file or folder; anything else is no file.
    """
    path = Path(model)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()]
