"Page hygiene, read from the notebooks' JSON: what a machine can check of a good page."

import base64
import importlib
import io
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import nbformat  # noqa: E402
from pages import stamp  # noqa: E402

import rsssl_nb  # noqa: E402
from rsssl_nb.lessons import ROOMS, directives, exercises, pages, root  # noqa: E402

PAGES = pages()
NAMES = {p: p.relative_to(root()).with_suffix("").as_posix() for p in PAGES}
ROOM = {p: name.split("/")[0] for p, name in NAMES.items()}
COURSE = [p for p in PAGES if ROOM[p] == "course"]
LIBRARY = [p for p in PAGES if ROOM[p] == "library"]
read = {p: nbformat.read(p, 4) for p in PAGES}


def each(pages):
    return pytest.mark.parametrize("path", pages, ids=NAMES.get)


def code(path):
    return [c for c in read[path].cells if c.cell_type == "code" and c.source.strip()]


def prose(path):
    return "\n".join(c.source for c in read[path].cells if c.cell_type == "markdown")


def outputs(path):
    return [o for c in code(path) for o in c.outputs]


def default_exp(path):
    return [m for c in code(path) for m in re.findall(r"^#\| default_exp (\S+)", c.source, re.M)]


# --- the house: where a page stands, what it builds, what it needs


def called(path):
    "The names by which texts may call a page: `views/pairs`, `moco`; of the course with or without number."
    name = NAMES[path].removeprefix("library/")
    short = name.split("/", 1)[-1] if ROOM[path] != "library" else name
    return {name, short, re.sub(r"^\d\d_", "", short)}


def page_called(name):
    "The one page that a text calls so."
    found = [p for p in PAGES if name in called(p)]
    assert len(found) == 1, f"`{name}` names {len(found)} pages: {[NAMES[p] for p in found]}"
    return found[0]


def needs(path):
    "The pages that a page's contract line says it needs."
    line = re.search(r"Needs (.*?)\d+ min to read", prose(path)).group(1)
    return [page_called(name) for name in re.findall(r"`([^`]+)`", line)]


def imported(path):
    "The pages whose modules a page imports."
    homes = {module: p for p in PAGES for module in default_exp(p)}
    modules = {m for c in code(path) for m in re.findall(r"from rsssl_nb\.([\w.]+) import", c.source)}
    return {homes[m] for m in modules if m in homes} - {path}


def test_pages_stand_in_rooms_and_only_the_course_is_numbered():
    assert set(ROOM.values()) <= set(ROOMS)
    for path, name in NAMES.items():
        _, *folders, last = name.split("/")
        assert ROOM[path] == "library" or not folders, f"{name}: only the library has folders"
        numbered = re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", last) is not None
        assert numbered == (ROOM[path] == "course"), f"{name}: the course is numbered, nothing else"


def test_each_module_has_one_page():
    homes = [m for p in PAGES for m in default_exp(p)]
    assert len(homes) == len(set(homes)), "two pages with one default_exp: one of them would vanish"


@each(LIBRARY)
def test_a_library_page_stands_where_its_module_does(path):
    assert default_exp(path) == [NAMES[path].removeprefix("library/").replace("/", ".")]


def test_the_course_is_the_chain_of_its_next_links():
    chain = []
    for path in COURSE:
        line = re.search(r"^\*?Next:.*", prose(path), re.M).group(0)
        chain.append([link for link in re.findall(r"\]\(([\w./]+\.ipynb)\)", line) if "/" not in link])
    assert chain == [*([p.name] for p in COURSE[1:]), []]


@each(COURSE)
def test_a_course_page_needs_the_pages_before_it_and_machinery(path):
    """Of the course only earlier pages; besides, library pages, which must not lead to a later page either.

    What a page imports from the course, its contract line names.
    """
    before = set(COURSE[: COURSE.index(path)])
    asked = set(needs(path))
    assert {NAMES[p] for p in asked - before - set(LIBRARY)} == set(), "neither earlier nor machinery"
    taken = imported(path)
    assert {NAMES[p] for p in taken - before - set(LIBRARY)} == set(), "imports neither earlier nor machinery"
    assert {NAMES[p] for p in taken & before - asked} == set(), "imported, and not named by the contract line"
    behind, todo = set(), list(asked)
    while todo:
        page = todo.pop()
        if page not in behind:
            behind.add(page)
            todo += needs(page)
    assert {NAMES[p] for p in behind & set(COURSE) - before} == set(), "needed through the machinery"


@each(PAGES)
def test_a_page_imports_names_from_where_they_live(path):
    pattern = r"^from (rsssl_nb\.[\w.]+) import (?:\(([^)]*)\)|(.+))"
    moved = []
    for c in code(path):
        for module, several, one in re.findall(pattern, c.source, re.M):
            names = [name.split(" as ")[0].strip() for name in (several or one).split(",") if name.strip()]
            held = vars(importlib.import_module(module))
            if module.removeprefix("rsssl_nb.") not in default_exp(path):
                moved += [f"{module}.{name}" for name in names if name not in held]
    assert moved == [], "import them from where they live now"


@each(PAGES)
def test_texts_call_pages_by_their_names(path):
    text = prose(path)
    assert re.findall(r".*\b[Pp]ages? \d\d?\b.*", text) == [], "a page by its number of an earlier version"
    one = re.findall(r"\b[Pp]age `([^`]+)`", text)
    several = re.findall(r"\b[Pp]ages ((?:`[^`]+`(?:, and |, | and | or | to )?)+)", text)
    for name in [*one, *(name for names in several for name in re.findall(r"`([^`]+)`", names))]:
        page_called(name)


def test_no_directive_leaked_into_a_module():
    package = Path(rsssl_nb.__file__).parent
    found = {
        p.relative_to(package).as_posix(): re.findall(r"^\s*#\|.*", p.read_text(encoding="utf-8"), re.M)
        for p in package.rglob("*.py")
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


# --- a page


@each(PAGES)
def test_opening(path):
    titles = re.findall(r"^# .+", re.sub(r"```.*?```", "", prose(path), flags=re.S), re.M)
    assert len(titles) == 1, titles
    assert re.search(r"^# .+\n+> .+", prose(path), re.M), "the title is followed by one quoted line"
    contract = re.search(r"\d+ min to read, \d+ s to run", prose(path))
    assert contract, "contract line with minutes and seconds"


@each(PAGES)
def test_imports_stand_alone(path):
    for c in code(path):
        source = re.sub(r'"""(.|\n)*?"""', '""', c.source)
        body = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        forwards = any(line.startswith("__getattr__ = forward(") for line in body)
        if not forwards and any(re.match(r"(import|from) ", line) for line in body):
            text = re.sub(r"\([^)]*\)", "()", "\n".join(body))
            # names that the module also offers stand beside what brings them
            text = re.sub(r"^_all_ \+?= \[.*?\]", "", text, flags=re.M | re.S)
            mixed = [line for line in text.splitlines() if line and not re.match(r"(import|from) ", line)]
            assert mixed == [], f"imports mixed with code: {body[:3]}"


@each(PAGES)
def test_outputs_are_saved_and_tidy(path):
    assert path.stat().st_size <= 500_000, f"{path.stat().st_size} bytes"
    # a library page may consist of pins alone
    assert ROOM[path] == "library" or not code(path) or outputs(path), "no outputs saved: make refresh"
    for o in outputs(path):
        assert o.output_type != "error" and o.get("name") != "stderr", o
        assert "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
        assert not re.search(
            r"(/home/|/root/|/work/|/tmp/|/Users/)",
            json.dumps({k: v for k, v in o.items() if "image/png" not in o.get("data", {})}),
        ), "a path of this machine"
    assert "widgets" not in read[path].metadata


@each(PAGES)
def test_pictures_are_of_80_dpi(path):
    for data in (o["data"]["image/png"] for o in outputs(path) if "image/png" in o.get("data", {})):
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert round(picture.info.get("dpi", (80, 80))[0]) <= 80 and picture.width <= 14 * 80, (
            picture.info.get("dpi"),
            picture.width,
        )


def test_half_of_the_pages_are_under_150_kb():
    assert sorted(p.stat().st_size for p in PAGES)[len(PAGES) // 2] < 150_000


def test_cleaning_keeps_what_colab_and_the_stamp_need():
    from fastcore.nbio import dict2nb
    from nbdev.clean import clean_nb
    from nbdev.config import get_config

    nb = dict2nb(
        json.loads(PAGES[0].read_text())
        | {"metadata": {"accelerator": "GPU", "colab": {"provenance": []}, "rsssl": {"stamp": "x"}, "odd": 1}}
    )
    clean_nb(nb, allowed_metadata_keys=get_config().allowed_metadata_keys)
    assert {"accelerator", "colab", "rsssl"} <= set(nb.metadata) and "odd" not in nb.metadata


@each(PAGES)
def test_outputs_belong_to_this_code(path):
    assert read[path].metadata.get("rsssl", {}).get("stamp") == stamp(read[path]), (
        "code changed since its outputs were made: make refresh"
    )


SUITE = "\n".join(p.read_text(encoding="utf-8") for p in sorted(Path(__file__).parent.glob("*.py")))
PACKAGE = Path(__file__).resolve().parents[1] / "rsssl_nb"
MODULES = "\n".join(
    re.sub(r"__all__ = \[.*?\]", "", p.read_text(encoding="utf-8"), flags=re.S)
    for p in sorted(PACKAGE.rglob("*.py"))
    if p.name != "_modidx.py"
)


def package_without(name):
    "The package's text without the definition of a name and without lists of exports."
    return re.sub(rf"^(def|class) {name}\b", "", MODULES, flags=re.M)


@each(PAGES)
def test_exported_names_are_used(path):
    cells = code(path)
    exported = [
        (i, name)
        for i, c in enumerate(cells)
        if any(d.startswith("export") for d in directives(c.source))
        for name in re.findall(r"^(?:def|class) ([A-Za-z]\w*)", c.source, re.M)
    ]
    for i, name in exported:
        # on a library page a helper may also be used by what is exported with it
        where = cells if ROOM[path] == "library" else cells[i + 1 :]
        text = re.sub(rf"^(def|class) {name}\b", "", "\n".join(c.source for c in where), flags=re.M)
        used = re.search(rf"\b{name}\b", text) or re.search(rf"\b{name}\b", SUITE + package_without(name))
        assert used, f"{name} is exported and used neither on its page, nor in the package, nor in the suite"


ASKING = [p for p in PAGES if ROOM[p] in ("course", "gallery", "evidence", "explore")]


@each(ASKING)
def test_a_page_that_teaches_asks(path):
    assert "Predict" in prose(path), "no prediction before a result"
    assert exercises(read[path].cells), "no exercise with check and folded solution"


@each(PAGES)
def test_exercises_are_complete(path):
    for name, stub, solution in exercises(read[path].cells).values():
        assert re.search(r"^    \.\.\.  # your turn$", stub, re.M), f"{name}: a body on a line of its own"
        assert solution and f"def {name}(" in solution, name


@each(LIBRARY)
def test_a_library_page_is_reference(path):
    assert not re.search(r"\*\*Predict", prose(path)), "predictions belong to the course"
    assert exercises(read[path].cells) == {}, "exercises belong to the course"
