"""Results as JSON, and as a table between two marks of docs/benchmarks.md."""

import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def save(
    name: str, results: list[dict], text: str, command: str, page: Path | None = PAGE, device: str | None = None
) -> None:
    """Write results/<name>.json, and the text into the page's section of that name.

    Args:
        name: of the file and the section.
        results: of the file.
        text: of the section.
        command: that gave them.
        page: what holds the section, if it has one; None leaves all pages.
        device: what computed, if it was not the processor.
    """
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    about = {"command": command, "processor": processor(), "python": platform.python_version()}
    about |= {"device": device} if device else {}
    (folder / f"{name}.json").write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    if page is None:
        return
    start, end = f"<!-- {name}: written by the command below -->", f"<!-- end of {name} -->"
    content = page.read_text()
    if start not in content:
        print(f"{page.name} has no section of {name}: left as it is", file=sys.stderr)
        return
    before, rest = content.split(start)
    after = rest.split(end)[1]
    page.write_text(f"{before}{start}\n`{command}`, {device or processor()}\n\n{text}\n{end}{after}")


def processor() -> str:
    """Name of the processor and number of cores, as the system gives them."""
    listing = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    facts = dict(line.split(":", 1) for line in listing.splitlines() if ":" in line)
    return f"{facts.get('Model name', platform.machine()).strip()}, {facts.get('CPU(s)', '?').strip()} cores"


def graphics() -> str:
    """Name of the first GPU, as its driver gives it."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        listing = ""
    return next(iter(listing.splitlines()), "").strip() or "a GPU"
