"""The site: every page with its saved outputs, a reference of every public name, search.

It needs no network to build or to read.

    python docs/make.py                                 writes _docs/site; a dead link ends it with an error
    python -m http.server -d _docs/site -b 127.0.0.1    shows it (search wants a server)

nbdev's own `proc_nbs` puts signatures in the place of code. These pages are read for their code, so they go
to Markdown as they are, and the signatures to a reference of their own. mkdocs also loads this file, as its
hook: formulas become MathML, which browsers draw by themselves.
"""

import html
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rsssl_nb.lessons import describe, pages, root

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "_docs/pages"
REPO = "rsssl-nb/rsssl_nb"
SOURCE = f"git+https://github.com/{REPO}"
INSTALL = f'#@title Run this first: it installs the package\n%pip install -q "rsssl_nb @ {SOURCE}"'
FRONT = {
    "README.md": "index.md",
    "TEACHING.md": "teaching.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "results/README.md": "results.md",
    "docs/page-scores.md": "page-scores.md",
}


# --- front pages


def site_link(target, folder):
    "Where a link of a front page leads on the site: to a page of it, or to the file in the repository."
    if "://" in target or target.startswith("#"):
        return target
    path = (ROOT / folder / target).resolve().relative_to(ROOT).as_posix()
    if path in FRONT:
        return FRONT[path]
    if path.startswith("nbs/") and path.endswith(".ipynb"):
        return path.replace("nbs/", "lessons/", 1).removesuffix(".ipynb") + ".md"
    is_picture = path.startswith(("nbs/images/", "results/")) and path.endswith(".png")
    return path if is_picture else f"https://github.com/{REPO}/blob/main/{path}"


def write_front_page(file, name):
    "One of the repository's own texts, its links turned to the site, badges of other sites left out."
    text = (ROOT / file).read_text(encoding="utf-8")
    text = re.sub(r"^\[!\[.*\n", "", text, flags=re.M)
    text = re.sub(r"\]\(([^)\s]+)\)", lambda m: f"]({site_link(m[1], Path(file).parent)})", text)
    (OUT / name).write_text(roomy(text), encoding="utf-8")


# --- lessons


def roomy(text):
    """Markdown as GitHub reads it, for a stricter reader.

    A blank line before lists and tables, folded parts read as Markdown, links between pages as they become.
    """
    lines, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        begins = re.match(r"([-*] |\d+\. |\|)", line) and not fenced
        if begins and lines and lines[-1].strip() and not re.match(r"\s|[-*] |\d+\. |\|", lines[-1]):
            lines.append("")
        lines.append(line)
    text = "\n".join(lines)
    text = re.sub(r"\]\(((?:\.\./)*[\w/]+)\.ipynb\)", r"](\1.md)", text)
    text = re.sub(
        r"<details>\s*<summary>(.*?)</summary>\s*",
        r'<details markdown="1"><summary>\1</summary>\n\n',
        text,
    )
    return text.replace("</details>", "\n</details>\n")


def for_readers(nb):
    "A page without what only nbdev reads: `#|` lines and the cells of nothing else."
    for cell in nb.cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if not line.startswith("#|")]
            cell.source = "\n".join(lines).strip()
        else:
            cell.source = roomy(cell.source)
    nb.cells = [c for c in nb.cells if c.source]
    nb.metadata.language_info = {"name": "python"}
    return nb


def for_colab(nb):
    "A page that runs on Colab: a first cell that installs the package, and a machine with a GPU."
    from nbformat.v4 import new_code_cell

    nb.metadata.update(accelerator="GPU", colab={"provenance": []})
    nb.cells.insert(0, new_code_cell(INSTALL))
    return nb


def write_lesson(path):
    "One page as Markdown with its pictures, and its copy for Colab; gives its line in the menu."
    import nbformat
    from nbconvert import MarkdownExporter

    name = path.relative_to(root()).with_suffix("")
    folder = OUT / "lessons" / name.parent
    folder.mkdir(parents=True, exist_ok=True)
    text, extra = MarkdownExporter().from_notebook_node(
        for_readers(nbformat.read(path, 4)),
        {"unique_key": name.name, "output_files_dir": f"{name.name}_files"},
    )
    for file, data in extra["outputs"].items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(data)
    (folder / f"{name.name}.md").write_text(text, encoding="utf-8")
    colab = ROOT / "_docs/colab" / name.with_suffix(".ipynb")
    colab.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(for_colab(nbformat.read(path, 4)), colab)
    title = describe(path)[2]
    number = re.match(r"\d\d", name.name)
    return {f"{number[0]} {title}" if number else title: f"lessons/{name.as_posix()}.md"}


# --- reference


def parameters(thing):
    "The parameters of a function or a class, and what it gives; none where Python knows no signature."
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return [], inspect.Signature.empty
    return list(found.parameters.values()), found.return_annotation


def written_type(annotation):
    "An annotation as it is written in the source."
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:rsssl_nb|collections|pathlib|torch|numpy|typing)(?:\.\w+)*\.(?=\w)", "", text)


def default_of(parameter):
    "A parameter's default as code; nothing where there is none."
    text = "" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
    return text if len(text) <= 60 else f"{text[:57]}..."


def signature(thing, name):
    "`name(arguments)` as code, an argument a line where one line is too long; types stand in the table."
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    words, named = [], False
    for parameter in parameters(thing)[0]:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not named:
            words += ["*"] if not any(word.startswith("*") for word in words) else []
            named = True
        default = default_of(parameter)
        words.append(stars.get(parameter.kind, "") + parameter.name + (f"={default}" if default else ""))
    if not callable(thing):
        return name
    line = f"{name}({', '.join(words)})"
    return line if len(line) <= 88 else f"{name}(\n    " + ",\n    ".join(words) + ",\n)"


def parameter_table(thing):
    "A Markdown table of the parameters with types and defaults; empty without a typed one."
    found, gives = parameters(thing)
    rows = [(p.name, written_type(p.annotation), default_of(p)) for p in found if p.name != "self"]

    def cell(text):
        return f"`{text}`".replace("|", "\\|") if text else ""

    typed = any(kind for _, kind, _ in rows)
    lines = ["| parameter | type | default |", "| --- | --- | --- |"] if typed else []
    lines += [f"| `{name}` | {cell(kind)} | {cell(default)} |" for name, kind, default in rows if typed]
    if gives is not inspect.Signature.empty and not inspect.isclass(thing):
        lines += ["", f"Gives `{written_type(gives)}`."]
    return "\n".join(lines).strip("\n")


def entry(module, name):
    "What the reference says of one public name."
    thing = getattr(module, name)
    if not callable(thing):
        return f"### `{name}`\n\n`{html.unescape(repr(thing))[:300]}`\n"
    parts = [
        f"### `{name}`",
        f"```python\n{signature(thing, name)}\n```",
        roomy(fenced_examples(inspect.getdoc(thing) or "")),
        parameter_table(thing),
    ]
    for method, function in vars(thing).items() if inspect.isclass(thing) else ():
        if inspect.isfunction(function) and not method.startswith("_") and function.__doc__:
            arguments = " ".join(signature(function, method).split())
            parts.append(f"`.{arguments}`: {inspect.getdoc(function)}")
    return "\n\n".join(filter(None, parts)) + "\n"


def fenced_examples(text):
    "A docstring whose examples, lines from >>> to the next empty one, stand in fences."
    return re.sub(r"(?m)^>>> (?:.+\n?)+", lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)


def called_first(names):
    "Names in the order of a page: those that `dir(rsssl_nb)` offers before the others."
    import rsssl_nb

    return sorted(names, key=lambda name: name not in rsssl_nb.__all__)


def write_reference(path, homes):
    """One module as Markdown: its line, its page, its public names.

    Gives its line in the menu, or None for a module without public names.
    """
    dotted = ".".join(path.relative_to(ROOT / "rsssl_nb").with_suffix("").parts)
    module = importlib.import_module(f"rsssl_nb.{dotted}")
    names = getattr(module, "__all__", None)
    if not names:
        return None
    taught = (
        f"Taught on [{homes[dotted][-1]}](../lessons/{'/'.join(homes[dotted])}.md).\n\n"
        if dotted in homes
        else ""
    )
    (OUT / "reference" / f"{dotted}.md").write_text(
        f"# rsssl_nb.{dotted}\n\n> {module.__doc__}\n\n{taught}"
        + "\n".join(entry(module, n) for n in called_first(names)),
        encoding="utf-8",
    )
    return {dotted: f"reference/{dotted}.md"}


def write_commands():
    "The command line's help, every command."
    import click

    from rsssl_nb.cli import main

    top = click.Context(main, info_name="rsssl-nb")
    texts = {"rsssl-nb": main.get_help(top)}
    for name, command in main.commands.items():
        texts[f"rsssl-nb {name}"] = command.get_help(click.Context(command, info_name=name, parent=top))
    parts = [f"## {name}\n\n```text\n{text}\n```" for name, text in texts.items()]
    (OUT / "reference/commands.md").write_text("# Commands\n\n" + "\n\n".join(parts), encoding="utf-8")
    return {"commands": "reference/commands.md"}


# --- the whole


def write_pages():
    "All Markdown under _docs/pages; gives the menu."
    shutil.rmtree(ROOT / "_docs", ignore_errors=True)
    (OUT / "reference").mkdir(parents=True)
    shutil.copytree(ROOT / "nbs/images", OUT / "nbs/images")
    (OUT / "results").mkdir()
    for picture in (ROOT / "results").glob("*.png"):
        shutil.copy(picture, OUT / "results")
    for file, name in FRONT.items():
        write_front_page(file, name)
    homes = {}
    for page in pages():
        for module in re.findall(r'"#\| default_exp ([\w.]+)', page.read_text(encoding="utf-8")):
            homes[module] = page.relative_to(root()).with_suffix("").parts
    rooms = {}
    for page in pages():
        room, *package = page.relative_to(root()).parent.parts
        rooms.setdefault(room, {}).setdefault("/".join(package), []).append(write_lesson(page))
    modules = sorted(p for p in (ROOT / "rsssl_nb").rglob("*.py") if not p.name.startswith("_"))
    reference = [write_commands(), *filter(None, (write_reference(p, homes) for p in modules))]
    return [
        {"Home": "index.md"},
        {"Lessons": [{room: room_menu(packages)} for room, packages in rooms.items()]},
        {"Reference": reference},
        {"Results": "results.md"},
        {"Teaching": "teaching.md"},
        {"Contributing": ["contributing.md", {"Scores of the pages": "page-scores.md"}]},
        {"Changes": "changes.md"},
    ]


def room_menu(packages):
    "A room's lines in the menu: its pages, and of the library a fold for each package."
    lines = list(packages.pop("", []))
    return lines + [{package: found} for package, found in sorted(packages.items())]


def main():
    menu = write_pages()
    settings = ROOT / "docs/mkdocs.yml"
    made = ROOT / "_docs/mkdocs.yml"
    text = settings.read_text(encoding="utf-8").replace("../_docs/", "")
    text = text.replace("[make.py]", f"[{json.dumps(str(Path(__file__)))}]")
    made.write_text(f"{text}nav: {json.dumps(menu)}\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(made)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    if not done.returncode:
        index = ROOT / "_docs/site/index.html"
        print(f"{len(pages())} lessons, {len(menu[2]['Reference'])} reference pages: {index}")
    return done.returncode


def on_page_content(content, **_):
    "mkdocs's hook: each formula as MathML."
    return re.sub(
        r'<(span|div) class="arithmatex">(.*?)</\1>',
        lambda m: mathml(html.unescape(m.group(2))),
        content,
        flags=re.S,
    )


def mathml(tex):
    "A formula between its \\\\( \\\\) or \\\\[ \\\\] as MathML; a \\\\tag stands behind it."
    from latex2mathml.converter import convert

    body, block = tex.strip()[2:-2], tex.strip().startswith("\\[")
    tag = re.search(r"\\tag\{(.*?)\}", body)
    body = re.sub(r"\\tag\{.*?\}|\\[bB]igg?[lr]?(?![a-z])", "", body)
    made = convert(body, display="block" if block else "inline")
    if not block:
        return made
    number = f"<div align=right>({tag.group(1)})</div>" if tag else ""
    return f'<div style="overflow-x:auto">{made}{number}</div>'


if __name__ == "__main__":
    sys.exit(main())
