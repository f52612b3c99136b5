"""The pages are true: the tree is the one on disk, every pointer into a page has its heading, every named file is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {".venv", ".git", "outputs", "data", "build", "dist", "thirdparty"}


def texts(*suffixes: str) -> list[Path]:
    """Every text of the repository with one of the suffixes."""
    found = (path for suffix in suffixes for path in ROOT.rglob(f"*{suffix}"))
    return sorted(p for p in found if p.relative_to(ROOT).parts[0] not in SKIPPED)


def modules(folder: Path) -> str:
    """Its modules by name, as a line of the tree has them."""
    return " ".join(sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__"))


def tree_on_disk() -> dict[str, str]:
    """Folder -> its modules."""
    folders = [ROOT / "cocoer", *(p for p in sorted((ROOT / "cocoer").rglob("*")) if p.is_dir() and modules(p))]
    return {f"{p.relative_to(ROOT).as_posix()}/": modules(p) for p in folders}


def write_tree() -> None:
    """The tree in CONTRIBUTING.md as the disk has it: `python tests/test_docs.py`."""
    page = ROOT / "CONTRIBUTING.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("```tree\n")
    lines = "\n".join(f"{place:30}{names}" for place, names in tree_on_disk().items())
    page.write_text(f"{before}```tree\n{lines}\n```{rest.partition('```')[2]}", encoding="utf-8")


def test_the_tree_in_contributing_is_the_tree_on_disk() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    written = {}
    for line in page.split("```tree\n")[1].split("```")[0].splitlines():
        place, _, rest = line.partition(" ")
        written[place] = rest.strip()
    assert written == tree_on_disk(), "CONTRIBUTING.md: its tree is old; write it with `python tests/test_docs.py`"


def anchor(heading: str) -> str:
    """The name that a heading's link has: lower case, marks gone, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_every_pointer_into_a_page_has_its_heading() -> None:
    headings = {
        page.relative_to(ROOT).as_posix(): {
            anchor(line.lstrip("#")) for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("#")
        }
        for page in texts(".md")
    }
    wrong = []
    for path in texts(".py", ".md", ".yaml"):
        text = path.read_text(encoding="utf-8")
        for page, name in re.findall(r"\b(docs/[\w/]+\.md)#([\w-]+)", text):
            if name not in headings.get(page, ()):
                wrong.append(f"{path.relative_to(ROOT)}: {page}#{name}")
        if path.suffix == ".md":
            for target, name in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", text):
                page = (path.parent / target).resolve().relative_to(ROOT).as_posix() if target else None
                known = headings.get(page or path.relative_to(ROOT).as_posix(), set())
                if name not in known:
                    wrong.append(f"{path.relative_to(ROOT)}: {target}#{name}")
    assert not wrong


@pytest.mark.parametrize("words", ["design " + "section", "data formats " + "section"])
def test_no_text_cites_a_document_that_is_not_here(words: str) -> None:
    assert not [
        p
        for p in texts(".py", ".md", ".yaml", ".toml")
        if p != Path(__file__) and words in p.read_text("utf-8").lower()
    ]


def functions(module: Path) -> set[str]:
    """Its functions by name, methods as Class.method."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    methods = {f"{c.name}.{f.name}" for c in classes for f in c.body if isinstance(f, ast.FunctionDef)}
    return methods | {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_walks_name_functions_of_six_files_at_most_and_never_go_back() -> None:
    figure = (ROOT / "docs/method.md").read_text(encoding="utf-8").split("```mermaid\n")[1].split("```")[0]
    walks = [re.findall(r'"([\w.]+)<br/>([\w/]+\.py)"', part) for part in figure.split("subgraph")[1:]]
    assert len(walks) == 4
    for walk in walks:
        files = [file for _, file in walk]
        assert 2 <= len(files) <= 6 and len(set(files)) == len(files), files
        for function, file in walk:
            assert function in functions(ROOT / "cocoer" / file), f"{file} has no {function}"


def test_every_step_of_the_method_is_where_its_table_says() -> None:
    page = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.split("## The equations")[1].split("\n## ")[0].splitlines() if "`" in line]
    assert len(rows) > 10
    for row in rows:
        last = ""
        for name in re.findall(r"`([\w.]+)`", row[3]):
            module, _, thing = name.rpartition(".")
            last = module or last
            found = (ROOT / "cocoer/model" / f"{last or thing}.py").read_text(encoding="utf-8")
            assert not module or re.search(rf"^(?:def|class) {thing}\b", found, re.MULTILINE), name


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "MODEL_CARD.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_every_file_of_ours_that_a_page_names_is_there(page: str) -> None:
    path = ROOT / page if (ROOT / page).is_file() else ROOT / "docs" / page
    files = {p.relative_to(ROOT).as_posix() for p in texts(".py", ".sh")}
    for name in re.findall(r"`((?:[\w]+/)*[\w]+\.(?:py|sh))`", path.read_text(encoding="utf-8")):
        assert any(file == name or file.endswith(f"/{name}") for file in files), f"{page} names {name}"


if __name__ == "__main__":
    write_tree()
