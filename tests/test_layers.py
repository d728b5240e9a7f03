"The one-way import graph, one door per heavy package, and what a plain import loads."

import ast
import builtins
import dis
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import rsssl_nb

PACKAGE = Path(rsssl_nb.__file__).parent
LAYERS = (
    "moved errors notebook signals files confusion colours figures check data views networks encoders "
    "tensors layouts weights objectives methods training mapping "
    "evaluation explain widgets lessons doctor cli"
).split()
DOORS = {
    "torchvision": {"encoders"},
    "timm": {"networks"},
    "captum": {"explain.attribution"},
    "rasterio": {"data.gdal", "data.write", "mapping.polygons"},
    "pyogrio": {"mapping.polygons"},
    "onnx": {"mapping.onnx"},
    "onnxruntime": {"mapping.onnx"},
    "onnxscript": {"mapping.onnx"},
    "accelerate": {"training"},
    "matplotlib": {"figures"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "nbdev": set(),
    "fastcore": set(),
    "IPython": {"notebook"},
    "sklearn": set(),
    "skimage": set(),
}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.stem not in ("_modidx", "__init__", "__main__"))


def dotted(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path):
    "(module, level) of every import in a file, at any depth; relative ones resolved."
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((a.name, node) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ("rsssl_nb." + dotted(path)).split(".")[: -node.level] if node.level else []
            yield ".".join([*base, *(node.module or "").split(".")]).strip("."), node


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_downward(path):
    here = LAYERS.index(dotted(path).split(".")[0])
    for name, node in imports(path):
        if not name.startswith("rsssl_nb.") or name == "rsssl_nb.cli":
            continue
        layer = name.split(".")[1]
        assert LAYERS.index(layer) <= here, f"{dotted(path)} line {node.lineno} imports {name}, a later layer"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_heavy_packages_have_one_door(path):
    for name, node in imports(path):
        doors = DOORS.get(name.split(".")[0])
        if doors is None:
            continue
        assert any(dotted(path) == d or dotted(path).startswith(d + ".") for d in doors), (
            f"{dotted(path)} line {node.lineno} imports {name}; its door is {doors or 'closed'}"
        )


def globals_read(code):
    "Every global name that code, or a function within it, looks up."
    for line in dis.get_instructions(code):
        if line.opname == "LOAD_GLOBAL":
            yield line.argval
    for inner in code.co_consts:
        if hasattr(inner, "co_code"):
            yield from globals_read(inner)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_function_reads_a_name_that_only_its_page_has(path):
    there = {*vars(importlib.import_module(f"rsssl_nb.{dotted(path)}")), *dir(builtins)}
    assert not set(globals_read(compile(path.read_text(), str(path), "exec"))) - there


def loaded(code, *names):
    "Which of the packages are in sys.modules after running the code in a fresh interpreter."
    out = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nimport sys; print([n for n in {list(names)!r} if n in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return ast.literal_eval(out.strip().splitlines()[-1])


def test_a_plain_import_is_light():
    assert loaded("import rsssl_nb", "torch", "numpy", *DOORS) == []
    assert loaded("import rsssl_nb.errors, rsssl_nb.files, rsssl_nb.moved", "torch", "numpy", *DOORS) == []


def test_the_data_modules_need_no_torch():
    modules = "pool statistics labels check shapes splits datasets download scenes"
    code = "import " + ", ".join(f"rsssl_nb.data.{name}" for name in modules.split())
    assert loaded(code, "torch", "rasterio") == []


@pytest.mark.parametrize(
    "module",
    [
        "methods.simclr",
        "views.pairs",
        "objectives.nce",
        "data.scenes",
        "encoders",
        "training.pretrain",
        "mapping.segment",
        "mapping.embed",
        "data.pool",
        "data.labels",
        "data.statistics",
        "data.shapes",
        "data.datasets",
        "explain.attribution",
        "explain.neighbours",
    ],
)
def test_doors_stay_shut_until_used(module):
    assert (
        loaded(
            f"import rsssl_nb.{module}",
            "torchvision",
            "captum",
            "rasterio",
            "accelerate",
            "matplotlib",
            "ipywidgets",
            "anywidget",
        )
        == []
    )


def test_an_encoder_does_not_load_torchs_compiler():
    encoder = "import torch\nfrom rsssl_nb.encoders import Encoder\nEncoder('resnet18', 4, 8, 8)"
    assert loaded(encoder, "torch._dynamo", "sympy") == []
    late = "from torchvision.ops.roi_align import is_compile_supported as ask\nask('cpu')"
    aligned = (
        "import torchvision as tv\nmeans = tv.ops.roi_align(torch.ones(1, 1, 8, 8), torch.zeros(1, 5), 2)\n"
        "assert means.mean() == 1"
    )
    assert loaded("\n".join([encoder, late, aligned]), "torch._dynamo") == ["torch._dynamo"]


def test_the_dashboards_first_tab_loads_what_it_shows_and_no_more():
    first = "from rsssl_nb.widgets.dashboard import dashboard\ndashboard(None, ['random'])"
    assert loaded(first, "captum", "timm", "accelerate", "torch._dynamo", "sympy") == []


def test_public_names_are_listed_and_load_when_touched():
    names = (
        "Scene make_scene open_raster two_views Encoder SimCLR GLCNet FALSE GraSS SSCCL "
        "pretrain finetune segment embed scores load export shipped explore_pair explore_temperature "
        "explore_regions explore_negatives explore_matches explore_saliency explore_labels"
    ).split()
    assert rsssl_nb.__all__ == names and dir(rsssl_nb) == sorted(["__version__", *names])
    assert all(callable(getattr(rsssl_nb, name)) for name in names)
    assert loaded("from rsssl_nb import make_scene", "torchvision", "rasterio") == []
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        getattr(rsssl_nb, "nope")  # noqa: B009
