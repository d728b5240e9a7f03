"""The site: every page with its saved outputs, a reference of every public name, search; it needs no network to build or to read.

    python docs/make.py         writes _docs/site; a link that leads nowhere ends it with an error
    python -m http.server -d _docs/site -b 127.0.0.1    shows it (search wants a server, the rest opens as files)

nbdev's own `proc_nbs` puts signatures in the place of code. These pages are read for their code, so they go to Markdown as they are,
and the signatures to a reference of their own. mkdocs also loads this file, as its hook: formulas become MathML, which browsers draw by themselves.
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

from rsssl_nb.lessons import pages

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "_docs/pages"
REPO = "rsssl-nb/rsssl_nb"
INSTALL = f'#@title Run this first: it installs the package\n%pip install -q "rsssl_nb @ git+https://github.com/{REPO}"'


# --- lessons


def roomy(text):
    "Markdown as GitHub reads it, for a stricter reader: a blank line before lists and tables, folded parts read as Markdown."
    lines, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        begins = re.match(r"([-*] |\d+\. |\|)", line)
        if (
            begins
            and not fenced
            and lines
            and lines[-1].strip()
            and not re.match(r"\s|[-*] |\d+\. |\|", lines[-1])
        ):
            lines.append("")
        lines.append(line)
    return re.sub(
        r"<details>\s*<summary>(.*?)</summary>\s*",
        r'<details markdown="1"><summary>\1</summary>\n\n',
        "\n".join(lines),
    ).replace("</details>", "\n</details>\n")


def for_readers(nb):
    "A page without what only nbdev reads: `#|` lines and the cells of nothing else."
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.source = "\n".join(l for l in cell.source.splitlines() if not l.startswith("#|")).strip()
        else:
            cell.source = roomy(cell.source)
    nb.cells, nb.metadata.language_info = [c for c in nb.cells if c.source], {"name": "python"}
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

    name = path.relative_to(ROOT / "nbs").with_suffix("")
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
    return {f"{name.name[:2]} {re.search(r'^# (.+)$', text, re.M).group(1)}": f"lessons/{name}.md"}


# --- reference


def signature(thing, name):
    "`name(arguments)` as code; the name alone where Python knows no signature."
    try:
        return f"{name}{inspect.signature(thing)}"
    except (TypeError, ValueError):
        return name


def entry(module, name):
    "What the reference says of one public name."
    thing = getattr(module, name)
    if not callable(thing):
        return f"### `{name}`\n\n`{html.unescape(repr(thing))[:300]}`\n"
    parts = [f"### `{name}`", f"```python\n{signature(thing, name)}\n```", roomy(inspect.getdoc(thing) or "")]
    for method, function in vars(thing).items() if inspect.isclass(thing) else ():
        if inspect.isfunction(function) and not method.startswith("_") and function.__doc__:
            parts.append(f"`.{signature(function, method)}`: {inspect.getdoc(function)}")
    return "\n\n".join(parts) + "\n"


def write_reference(path, homes):
    "One module as Markdown: its line, its page, its public names; gives its line in the menu, or None for a module without any."
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
        f"# rsssl_nb.{dotted}\n\n> {module.__doc__}\n\n{taught}" + "\n".join(entry(module, n) for n in names),
        encoding="utf-8",
    )
    return {dotted: f"reference/{dotted}.md"}


def write_commands():
    "The command line's help, every command."
    import click

    from rsssl_nb.cli import main

    top = click.Context(main, info_name="rsssl-nb")
    texts = [("rsssl-nb", main.get_help(top))] + [
        (f"rsssl-nb {n}", c.get_help(click.Context(c, info_name=n, parent=top)))
        for n, c in main.commands.items()
    ]
    (OUT / "reference/commands.md").write_text(
        "# Commands\n\n" + "\n\n".join(f"## {n}\n\n```text\n{t}\n```" for n, t in texts), encoding="utf-8"
    )
    return {"commands": "reference/commands.md"}


# --- the whole


def write_pages():
    "All Markdown under _docs/pages; gives the menu."
    shutil.rmtree(ROOT / "_docs", ignore_errors=True)
    (OUT / "reference").mkdir(parents=True)
    shutil.copytree(ROOT / "nbs/images", OUT / "nbs/images")
    for file, title in FRONT.items():
        (OUT / file).write_text(roomy((ROOT / title).read_text(encoding="utf-8")), encoding="utf-8")
    homes = {
        m: p.relative_to(ROOT / "nbs").with_suffix("").parts
        for p in pages()
        for m in re.findall(r'"#\| (?:default_exp|export) ([\w.]+)', p.read_text(encoding="utf-8"))
    }
    folders = {}
    for page in pages():
        folders.setdefault(page.parent.name, []).append(write_lesson(page))
    modules = sorted(p for p in (ROOT / "rsssl_nb").rglob("*.py") if not p.name.startswith("_"))
    reference = [write_commands(), *filter(None, (write_reference(p, homes) for p in modules))]
    return [
        {"Home": "index.md"},
        {"Lessons": [{f.split("_", 1)[1]: lines} for f, lines in folders.items()]},
        {"Reference": reference},
        {"Teaching": "TEACHING.md"},
        {"Contributing": "CONTRIBUTING.md"},
        {"Changes": "CHANGELOG.md"},
    ]


FRONT = {
    "index.md": "README.md",
    "TEACHING.md": "TEACHING.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
}


def main():
    menu = write_pages()
    settings = ROOT / "docs/mkdocs.yml"
    made = ROOT / "_docs/mkdocs.yml"
    made.write_text(
        settings.read_text()
        .replace("../_docs/", "")
        .replace("[make.py]", f"[{json.dumps(str(Path(__file__)))}]")
        + f"nav: {json.dumps(menu)}\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(made)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    if not done.returncode:
        print(
            f"{len(pages())} lessons, {len(menu[2]['Reference'])} reference pages: {ROOT / '_docs/site/index.html'}"
        )
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
    return (
        f'<div style="overflow-x:auto">{made}{"<div align=right>(" + tag.group(1) + ")</div>" if tag else ""}</div>'
        if block
        else made
    )


if __name__ == "__main__":
    sys.exit(main())
