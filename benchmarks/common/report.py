"""Results as JSON, and as a table between two marks of docs/benchmarks.md."""

import json
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def save(name: str, results: list[dict], text: str, command: str, page: Path | None = PAGE) -> None:
    """Write results/<name>.json, and the text into the page's section of that name."""
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    about = {"command": command, "processor": processor(), "python": platform.python_version()}
    (folder / f"{name}.json").write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    if page is None:
        return
    start, end = f"<!-- {name}: written by the command below -->", f"<!-- end of {name} -->"
    content = page.read_text()
    before, rest = content.split(start)
    after = rest.split(end)[1]
    page.write_text(f"{before}{start}\n`{command}`, {processor()}\n\n{text}\n{end}{after}")


def processor() -> str:
    """Name of the processor and number of cores, as the system gives them."""
    listing = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    facts = dict(line.split(":", 1) for line in listing.splitlines() if ":" in line)
    return f"{facts.get('Model name', platform.machine()).strip()}, {facts.get('CPU(s)', '?').strip()} cores"
