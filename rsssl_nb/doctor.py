"""What `rsssl-nb doctor` checks of an installation: the packages, the GPU, Jupyter's kernel and the folder.

Written by hand. `examine` yields one `Finding` a check; each fault comes with its cure.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PYTHON = Path(sys.executable).name
PIP = f"{PYTHON} -m pip install"
PACKAGES = ("numpy", "scipy", "matplotlib", "captum", "accelerate", "safetensors", "ipywidgets", "anywidget")


class Finding(NamedTuple):
    "One line of the doctor's table."

    state: str  # ok, note or FAULT
    what: str
    found: str
    cure: str = ""

    def __str__(self):
        line = f"{self.state:6} {self.what:14} {self.found}"
        return f"{line}\n{'':21} -> {self.cure}" if self.cure else line


def examine(tell=None):
    """Yields a `Finding` for each thing that the package, the lessons and the widgets need.

    `tell(name)` hears of each check before it begins.
    """
    for what, test, cure in checks():
        if tell:
            tell(what)
        yield probe(what, test, cure)


def checks():
    "Yields each check as (what, test, cure)."
    yield "python", python_version, ""
    yield (
        "torch pair",
        torch_pair,
        f"{PIP} --force-reinstall torch torchvision   (both from one index, in one command)",
    )
    yield "GPU", accelerator, ""
    yield "rasters", gdal, f"{PIP} --force-reinstall rasterio"
    yield (
        "coordinates",
        coordinates,
        "unset PROJ_DATA, PROJ_LIB and GDAL_DATA: they name the database of another installation",
    )
    yield "figures", backend, "unset MPLBACKEND, or set it to agg"
    for name in PACKAGES:
        yield name, lambda name=name: version_of(name), f"{PIP} --upgrade {name}"
    yield "jupyterlab", laboratory, f"{PIP} --upgrade jupyterlab"
    if find_spec("jupyterlab"):
        yield (
            "widget manager",
            widget_manager,
            f"{PIP} --force-reinstall jupyterlab_widgets ipywidgets, and reload the page",
        )
        yield (
            "kernel",
            kernel_reply,
            f"{PYTHON} -m ipykernel install --sys-prefix; a firewall or proxy must leave 127.0.0.1 alone; "
            "on a busy machine ask again",
        )
    yield "write access", writable, "choose a folder you may write to, or free some space"


def probe(what, test, cure=""):
    """The `Finding` of a test: its own, or ok with what it returns.

    FAULT with the error and the cure when it raises.
    """
    try:
        found = test()
        return found if isinstance(found, Finding) else Finding("ok", what, str(found))
    except Exception as error:
        first_line = str(error).splitlines()[0][:150] if str(error) else ""
        return Finding("FAULT", what, f"{type(error).__name__}: {first_line}", cure)


# --- packages and hardware


def python_version():
    "Python's version."
    return sys.version.split()[0]


def version_of(name):
    "The version of a package, by importing it; ValueError when this package needs a newer one."
    from packaging.requirements import Requirement

    import_module(name)
    found = version(name)
    needed = next((r for r in map(Requirement, requires("rsssl_nb")) if r.name == name), None)
    if needed and not needed.specifier.contains(found, prereleases=True):
        raise ValueError(f"version {found}, but rsssl_nb needs {needed}")
    return found


def torch_pair():
    "Torch's and torchvision's versions, after torchvision's compiled operators answered."
    import torch

    torchvision = import_module("torchvision")
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def accelerator():
    "The `Finding` on the GPU: none is a note, no fault; a card that torch does not see comes with its cure."
    import torch

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    if device:
        name = torch.cuda.get_device_name() if device == "cuda" else "mps (Apple)"
        return probe("GPU", lambda: computes(device, name), "another build of torch, or --device cpu")
    if shutil.which("nvidia-smi"):
        return Finding(
            "note",
            "GPU",
            f"a card, which torch {torch.__version__} does not see",
            "update the NVIDIA driver, or install torch's CUDA build: https://pytorch.org/get-started",
        )
    return Finding(
        "note",
        "GPU",
        "none",
        "nothing to mend: all pages run on two cores; long training wants a machine with one",
    )


def computes(device, name):
    "The name of a device, after it has multiplied two matrices; ValueError for a wrong product."
    import torch

    a = torch.arange(4096.0).view(64, 64) % 7
    if not torch.allclose((a.to(device) @ a.to(device)).cpu(), a @ a):
        raise ValueError(f"{name} multiplies wrongly")
    return f"{name}, and it computes"


def backend():
    "Matplotlib's backend, after it could be loaded."
    pyplot = import_module("matplotlib.pyplot")
    pyplot.close(pyplot.figure())
    return pyplot.get_backend()


def coordinates():
    "That PROJ places a point: UTM's middle meridian at the equator."
    crs = import_module("rasterio.crs").CRS.from_epsg(32633)
    (x,), (y,) = import_module("rasterio.warp").transform(crs, "EPSG:4326", [500000], [0])
    if abs(x - 15) > 1e-6 or abs(y) > 1e-6:
        raise ValueError(f"EPSG:32633 is placed at {x}, {y} and not at 15, 0")
    return "PROJ places EPSG:32633"


def gdal():
    "Rasterio's and GDAL's versions."
    rasterio = import_module("rasterio")
    return f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}"


# --- Jupyter


def laboratory():
    "JupyterLab's version; none is a note, no fault: scripts need none."
    if find_spec("jupyterlab"):
        return version_of("jupyterlab")
    cure = f"nothing to mend for scripts; for lessons and widgets {PIP} 'rsssl_nb[lab]'"
    return Finding("note", "jupyterlab", "none", cure)


def widget_manager():
    "The version of JupyterLab's widget manager; FileNotFoundError when JupyterLab has none."
    from jupyter_core.paths import jupyter_path

    name = "@jupyter-widgets/jupyterlab-manager"
    found = [p for folder in jupyter_path("labextensions") for p in Path(folder).glob(f"{name}/package.json")]
    if not found:
        raise FileNotFoundError(f"JupyterLab has no {name}: panels stay blank")
    return json.loads(found[0].read_text(encoding="utf-8"))["version"]


def kernel_reply(seconds=60):
    """The version of this package in Jupyter's kernel `python3`, as the kernel says it over its websocket.

    A Jupyter server is started for it on this machine's loopback address, and stopped again.
    """
    import asyncio
    import secrets
    import socket
    import tempfile

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    token = secrets.token_hex(16)
    options = ("open_browser=False", "ip=127.0.0.1", "allow_root=True", f"port={port}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", *(f"--ServerApp.{option}" for option in options)],
            env={**os.environ, "JUPYTER_TOKEN": token},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return asyncio.run(asyncio.wait_for(ask_kernel(server, f"127.0.0.1:{port}", token), seconds))
        except TimeoutError:
            raise TimeoutError(f"no answer within {seconds} s") from None
        finally:
            server.terminate()
            server.wait()


async def ask_kernel(server, host, token):
    "Starts a kernel on a Jupyter server, has it import this package and gives its answer as a sentence."
    import asyncio

    from tornado.httpclient import AsyncHTTPClient, HTTPRequest
    from tornado.websocket import websocket_connect

    auth = {"Authorization": f"token {token}"}
    while True:
        if server.poll() is not None:
            raise OSError("the Jupyter server ended at once; jupyter server says why")
        try:
            request = HTTPRequest(f"http://{host}/api/kernels", "POST", auth, "{}")
            made = await AsyncHTTPClient().fetch(request)
            break
        except OSError:
            await asyncio.sleep(0.2)
    kernel = json.loads(made.body)["id"]
    channels = HTTPRequest(f"ws://{host}/api/kernels/{kernel}/channels", headers=auth)
    socket = await websocket_connect(channels)
    await socket.write_message(json.dumps(execute_request("import rsssl_nb", "rsssl_nb.__version__")))
    while True:
        reply = json.loads(await socket.read_message())
        if reply["header"]["msg_type"] == "execute_reply":
            break
    content = reply["content"]
    if content["status"] != "ok":
        raise ImportError(f"the kernel python3 says {content['ename']}: {content['evalue']}")
    found = ast.literal_eval(content["user_expressions"]["version"]["data"]["text/plain"])
    return f"python3 answers over its websocket, with rsssl_nb {found}"


def execute_request(code, expression):
    "Jupyter's message that runs code and asks for an expression's value as `version`."
    header = dict(
        msg_id="ask", msg_type="execute_request", version="5.3", username="", session="doctor", date=""
    )
    content = dict(
        code=code,
        silent=False,
        store_history=False,
        user_expressions={"version": expression},
        allow_stdin=False,
        stop_on_error=True,
    )
    return dict(channel="shell", header=header, parent_header={}, metadata={}, content=content)


# --- the folder


def writable():
    "That a file can be written here, and the space that is left."
    import tempfile

    with tempfile.TemporaryFile(dir="."):
        free = shutil.disk_usage(".").free
    if free < 1e9:
        raise OSError(f"only {free / 1e6:.0f} MB are free in the current folder")
    return f"the current folder, {free / 1e9:.0f} GB free"
