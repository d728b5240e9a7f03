"Networks trained elsewhere: what they must say, what is refused, and maps equal to those of a plain loop."

import ctypes
import json
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.scenes import CLASSES, COLORS, make_scene
from rsssl_nb.data.write import write_raster, write_scene
from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.errors import InputError
from rsssl_nb.mapping.categories import write_categories
from rsssl_nb.mapping.models import ForeignModel, Passport, make_passport, open_model, read_passport
from rsssl_nb.mapping.segment import segment
from rsssl_nb.mapping.stitch import mean_of_orientations, predictor
from rsssl_nb.mapping.tiling import blend_weights, plan_windows

PASSPORT = Passport(mean=(110,) * 4, std=(45,) * 4, classes=CLASSES, colors=COLORS, window=64)


class Strided(nn.Module):
    "A network at a quarter of the image's size; `wrap` makes of its map what other libraries return."

    def __init__(self, bands=4, classes=6, wrap=lambda found: found):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(bands, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, classes, 3, padding=1))
        self.wrap = wrap

    def forward(self, images):
        return self.wrap(self.layers(images))


def plain_loop(model, scene, size, overlap=0.25):
    "The map of a model by a loop over the windows, in double precision, as one would write it by hand."
    raster = open_raster(scene)
    side = blend_weights(size, overlap).double()
    sums = torch.zeros(len(CLASSES), raster.height + size, raster.width + size, dtype=torch.float64)
    for x, y in plan_windows(raster, size, overlap).tolist():
        image = torch.as_tensor(raster.read(x, y, size, size))[None]
        weight = side[:, None] * side * ~image.isnan().all(1)[0]
        with torch.no_grad():
            shares = predictor(model)(image)[0].double()
        sums[:, y : y + size, x : x + size] += shares * weight
    found = sums[:, : raster.height, : raster.width]
    return np.where(found.sum(0) > 0, found.argmax(0), 255)


@pytest.mark.parametrize(
    "wrap",
    [lambda m: m, lambda m: {"out": m, "aux": m * 0}, lambda m: [m, m * 0], lambda m: (m,)],
    ids=["tensor", "dict", "list", "tuple"],
)
def test_a_foreign_map_is_the_plain_loop(wrap):
    scene, model = make_scene(200, seed=3), ForeignModel(Strided(wrap=wrap), PASSPORT)
    found = segment(model, scene, size=64, device="cpu")
    assert (found == plain_loop(model, scene, 64)).mean() > 0.9999 and len(np.unique(found)) > 2


def test_away_from_seams_a_network_of_small_context_equals_one_pass():
    scene, model = make_scene(192, seed=3), ForeignModel(Strided(), PASSPORT)
    found = segment(model, scene, size=64, overlap=0.5, device="cpu")
    image = torch.as_tensor(open_raster(scene).read(0, 0, 192, 192))[None]
    with torch.no_grad():
        whole = predictor(model)(image).argmax(1)[0].numpy()
    assert (found == whole)[scene.valid][8:-8].mean() > 0.97


def networks_of_other_libraries(bands=4, classes=6):
    "DeepLabV3, a U-Net and an encoder with a linear head, as three libraries build them; weights are random."
    vision = pytest.importorskip("torchvision.models.segmentation")
    smp = pytest.importorskip("segmentation_models_pytorch")
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    deeplab = vision.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)
    deeplab.backbone["0"][0] = nn.Conv2d(bands, 16, 3, 2, 1, bias=False)
    shape = dict(encoder_depth=3, decoder_channels=(32, 16, 8), in_channels=bands, classes=classes)
    unet = smp.Unet("resnet18", encoder_weights=None, **shape)
    features = timm.create_model("resnet18", features_only=True, in_chans=bands, out_indices=(2,))
    linear = nn.Sequential(features, Linear(features.feature_info.channels()[0]))
    return dict(torchvision=deeplab, smp=unet, timm=linear)


@pytest.mark.long
@pytest.mark.parametrize("library", ["torchvision", "smp", "timm"])
def test_networks_of_other_libraries_map(library):
    scene = make_scene(160, seed=2)
    foreign = ForeignModel(networks_of_other_libraries()[library], PASSPORT)
    foreign.check_window(64)
    found = segment(foreign, scene, size=64, device="cpu")
    assert (found == plain_loop(foreign, scene, 64)).mean() > 0.999


@pytest.mark.long
@pytest.mark.parametrize("library", ["smp", "timm"])
def test_away_from_seams_other_libraries_equal_one_pass_over_the_whole_image(library):
    """Pixels that one window shows lie a quarter of it, 80 pixels, or more from its edges: farther than these
    networks look. DeepLabV3 pools the whole window, and has no such place.
    """
    size, side = 320, 560
    scene = make_scene(side, seed=3)
    foreign = ForeignModel(networks_of_other_libraries()[library], PASSPORT)
    found = segment(foreign, scene, size=size, device="cpu")
    image = torch.as_tensor(open_raster(scene).read(0, 0, side, side))[None]
    with torch.no_grad():
        whole = predictor(foreign)(image).argmax(1)[0].numpy()
    shown = np.zeros((side, side), int)
    for x, y in plan_windows(open_raster(scene), size, 0.25).tolist():
        shown[y : y + size, x : x + size] += 1
    once = (shown == 1) & scene.valid
    assert once.mean() > 0.3 and len(np.unique(found[once])) > 1
    assert (found == whole)[once].mean() > 0.9999


class Linear(nn.Module):
    "A linear head on the last of a list of maps."

    def __init__(self, dim):
        super().__init__()
        self.head = nn.Conv2d(dim, 6, 1)

    def forward(self, maps):
        return self.head(maps[-1])


def test_shares_and_one_channel_become_logits():
    image = torch.randn(1, 4, 32, 32)
    network = Strided()
    logits = ForeignModel(network, PASSPORT)(image)
    network.wrap = lambda found: found.softmax(1)
    shares = ForeignModel(network, Passport(mean=(0,) * 4, std=(1,) * 4, output="probabilities"))(image)
    assert (logits.softmax(1) - shares.softmax(1)).abs().max() < 0.05  # enlarged before or after the softmax
    assert shares.softmax(1).sum(1).sub(1).abs().max() < 1e-5
    one = Strided(classes=1)
    yes = one(image)
    two = ForeignModel(one, Passport(mean=(0,) * 4, std=(1,) * 4, classes=("no", "yes")))
    two.check_window(32)
    expected = nn.functional.interpolate(yes, (32, 32), mode="bilinear").sigmoid()[:, 0]
    torch.testing.assert_close(two(image).softmax(1)[:, 1], expected)


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(mean=None), "does not say the mean.*not guessed"),
        (dict(std=None), "does not say the std"),
        (dict(mean=[1, 2]), "mean has 2 values and std 4"),
        (dict(std=[1, 1, 0, 1]), "above 0"),
        (dict(mean=[1, 2, float("nan"), 4]), "finite"),
        (dict(mean="abc"), "no list of numbers"),
        (dict(classes="water"), "one text"),
        (dict(classes=["a", "a"]), "must differ"),
        (dict(classes=["a", "b"], colors=["#ffffff"]), "1 colours for 2 classes"),
        (dict(window=4), "8 to 8192"),
        (dict(window=64.5), "8 to 8192"),
        (dict(output="softmax"), "logits or probabilities"),
        (dict(bands=["r"]), "1 names for 4 bands"),
        (dict(scale=3), "'scale' is not known"),
    ],
)
def test_a_passport_that_cannot_be_is_named(change, says):
    with pytest.raises(InputError, match=says) as told:
        make_passport({**dict(mean=[0] * 4, std=[1] * 4), **change}, "net.onnx")
    assert str(told.value).startswith("net.onnx")


@pytest.mark.parametrize("text, says", [("[1]", "an object"), ("{", "no JSON"), (None, "cannot be read")])
def test_a_passport_file_is_an_object(tmp_path, text, says):
    if text:
        (tmp_path / "p.json").write_text(text)
    with pytest.raises(InputError, match=says):
        read_passport(tmp_path / "p.json")


@pytest.mark.parametrize(
    "network, passport, size, says",
    [
        (Strided(3), PASSPORT, 64, "cannot read a window of 4 bands"),
        (Strided(), Passport((0,) * 4, (1,) * 4, ("a", "b")), 64, "gives 6 classes and its passport names 2"),
        (Strided(), PASSPORT, 66, "no whole stride"),
        (Strided(wrap=lambda m: m.mean((2, 3))), PASSPORT, 64, r"gives \(1, 6\).*before argmax"),
        (Strided(wrap=lambda m: m.argmax(1)), PASSPORT, 64, "int64.*before argmax"),
        (Strided(wrap=lambda m: {"masks": m}), PASSPORT, 64, "gives NoneType"),
        (Strided(classes=300), Passport((0,) * 4, (1,) * 4), 64, "254 at most"),
        (Strided(wrap=lambda m: 1 / 0), PASSPORT, 64, "division by zero"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*give images of the same units")
def test_what_does_not_fit_is_said_before_the_first_window(tmp_path, network, passport, size, says):
    with pytest.raises(InputError, match=says):
        segment(
            ForeignModel(network, passport, "net"),
            make_scene(80),
            tmp_path / "m.tif",
            size=size,
            device="cpu",
        )
    assert not list(tmp_path.iterdir())


def test_a_network_without_a_passport_is_asked_for_one():
    with pytest.raises(InputError, match="Strided does not say the mean.*ForeignModel"):
        segment(Strided(), make_scene(64))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_files_that_run_code_are_refused_and_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Trap(), tmp_path / "trap.pt")
    torch.jit.script(nn.Conv2d(3, 2, 1)).save(tmp_path / "script.ts")
    torch.export.save(
        torch.export.export(nn.Conv2d(3, 2, 1).eval(), (torch.zeros(1, 3, 8, 8),)), tmp_path / "e.pt2"
    )
    for name in ("trap.pt", "script.ts", "e.pt2"):
        with pytest.raises(InputError, match="not opened.*ONNX"):
            open_model(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="does not exist"):
        open_model(tmp_path / "none.pt")


# ---------------------------------------------------------------- several processes

JOB = """
import sys
sys.path.insert(0, sys.argv[1])
from test_foreign import PASSPORT, Strided
from rsssl_nb.mapping.models import ForeignModel
from rsssl_nb.mapping.segment import segment
segment(ForeignModel(Strided(), PASSPORT), sys.argv[2], sys.argv[3], size=64, device="cpu")
"""
STARTS = dict(
    torchrun=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    accelerate=("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"),
)


@pytest.mark.long
@pytest.mark.parametrize("start", STARTS)
def test_a_foreign_network_in_two_processes_gives_the_bytes_of_one(tmp_path, start):
    image, _ = write_scene(make_scene(330, seed=4), tmp_path)
    (tmp_path / "job.py").write_text(JOB)
    command = [sys.executable, *STARTS[start], tmp_path / "job.py", Path(__file__).parent, image]
    done = subprocess.run(
        [*map(str, command), str(tmp_path / "two.tif")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    segment(ForeignModel(Strided(), PASSPORT), image, tmp_path / "one.tif", size=64, device="cpu")
    assert (tmp_path / "two.tif").read_bytes() == (tmp_path / "one.tif").read_bytes()


# ---------------------------------------------------------------- eight orientations


def test_eight_orientations_are_the_mean_of_those_by_hand():
    torch.manual_seed(1)
    predict = predictor(ForeignModel(Strided(), PASSPORT))
    image = torch.rand(2, 4, 64, 64) * 200
    with torch.no_grad():
        by_hand = [torch.rot90(predict(torch.rot90(image, k, (2, 3))), -k, (2, 3)) for k in range(4)] + [
            torch.rot90(predict(torch.rot90(image.transpose(2, 3), k, (2, 3))), -k, (2, 3)).transpose(2, 3)
            for k in range(4)
        ]
        found = mean_of_orientations(predict)(image)
        torch.testing.assert_close(found, torch.stack(by_hand).mean(0))
        turned = mean_of_orientations(predict)(image.rot90(1, (2, 3))).rot90(-1, (2, 3))
    torch.testing.assert_close(found, turned)


def test_a_map_begun_with_tta_is_not_continued_without(tmp_path):
    class Stopping(Strided):
        calls = 0

        def forward(self, images):
            self.calls += 1
            if self.calls > 100:
                raise KeyboardInterrupt
            return super().forward(images)

    scene = make_scene(300, seed=1)
    with pytest.raises(KeyboardInterrupt):
        segment(
            ForeignModel(Stopping(), PASSPORT), scene, tmp_path / "m.tif", size=64, device="cpu", tta=True
        )
    with pytest.raises(InputError, match="another tta"):
        segment(
            ForeignModel(Strided(), PASSPORT), scene, tmp_path / "m.tif", size=64, device="cpu", resume=True
        )
    segment(
        ForeignModel(Strided(), PASSPORT),
        scene,
        tmp_path / "m.tif",
        size=64,
        device="cpu",
        resume=True,
        tta=True,
    )
    whole = segment(ForeignModel(Strided(), PASSPORT), scene, size=64, device="cpu", tta=True)
    with rasterio.open(tmp_path / "m.tif") as file:
        assert (file.read(1) == whole).all()


# ---------------------------------------------------------------- ONNX


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "An untrained segmenter and its ONNX file."
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from rsssl_nb.mapping.onnx import export_onnx

    torch.manual_seed(0)
    model = Segmenter(Encoder(bands=4, width=16), 6)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model.mean.copy_(torch.tensor([100.0, 90, 80, 120]))
    model.std.copy_(torch.tensor([40.0, 50, 60, 30]))
    model.classes, model.colors, model.size = list(CLASSES), list(COLORS), 128
    model.train()
    path = export_onnx(model, tmp_path_factory.mktemp("onnx") / "s.onnx", resolution=50)
    assert model.training
    return model.eval(), path


def deepness_reads(path):
    "A file's metadata as the plug-in's documents and code read it: {name: value}."
    import onnxruntime

    found = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    return {
        "model_type": str(json.loads(found["model_type"])).capitalize(),
        "class_names": [
            v for _, v in sorted(json.loads(found["class_names"]).items(), key=lambda kv: int(kv[0]))
        ],
        "resolution": float(json.loads(found["resolution"])),
        "tiles_size": int(json.loads(found["tiles_size"])),
        "tile_size": int(json.loads(found["tile_size"])),
        "tiles_overlap": int(json.loads(found["tiles_overlap"])),
        "standardization_mean": [float(x) for x in json.loads(found["standardization_mean"])],
        "standardization_std": [float(x) for x in json.loads(found["standardization_std"])],
    }


def test_deepness_finds_what_it_documents(exported):
    model, path = exported
    found = deepness_reads(path)
    assert found["model_type"] == "Segmentor" and found["class_names"] == list(CLASSES)
    assert (found["resolution"], found["tiles_size"], found["tile_size"], found["tiles_overlap"]) == (
        50,
        128,
        128,
        25,
    )
    image = torch.as_tensor(make_scene(96, seed=1).image)[None]
    ours = (image.float() - model.mean.view(-1, 1, 1)) / model.std.view(-1, 1, 1)
    mean, std = (torch.tensor(found[f"standardization_{k}"]).view(-1, 1, 1) for k in ("mean", "std"))
    torch.testing.assert_close((image.float() / 255 - mean) / std, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 4, 128, 128), (3, 4, 97, 131), (2, 4, 256, 64)])
def test_onnx_says_what_torch_says(exported, shape):
    from rsssl_nb.mapping.onnx import OnnxNetwork

    model, path = exported
    images = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = OnnxNetwork(path)(images)
        expected = model(images).softmax(1)
    assert found.shape == expected.shape and (found - expected).abs().max() < 1e-4
    assert (found.sum(1) - 1).abs().max() < 1e-5


def test_an_exported_run_maps_as_the_run(exported):
    model, path = exported
    scene = make_scene(256, seed=2)
    back = open_model(path)
    assert (back.classes, back.colors, back.size) == (list(CLASSES), list(COLORS), 128)
    found = segment(back, scene, size=128, device="cpu")
    assert (found == segment(model, scene, size=128, device="cpu")).mean() > 0.9999


@pytest.mark.long
def test_onnx_of_a_fine_tuned_run_says_the_same_of_a_real_tile(tmp_path, imagery):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from rsssl_nb.data.statistics import normalise
    from rsssl_nb.mapping.onnx import OnnxNetwork, export_onnx
    from rsssl_nb.training.finetune import finetune, load_segmenter

    dubai = imagery / "dubai"
    seen = [sorted((dubai / f"val/{kind}").iterdir())[:2] for kind in ("images", "labels")]
    options = dict(width=8, size=128, steps=40, batch=8, fraction=1.0, precision="no", device="cpu")
    finetune("random", *seen, tmp_path / "run", classes=dubai / "classes.json", progress=False, **options)
    model, _ = load_segmenter(tmp_path / "run")
    logits = export_onnx(tmp_path / "run", tmp_path / "l.onnx", output="logits")
    tile = sorted((dubai / "test/images").iterdir())[0]
    raster = open_raster(tile)
    for height, width in ((raster.height, raster.width), (256, 256), (131, 203)):
        image = normalise(torch.as_tensor(raster.read(0, 0, width, height))[None], model.mean, model.std)
        with torch.no_grad():
            ours, theirs = model(image), OnnxNetwork(logits)(image)
        assert (ours - theirs).abs().max() <= 1e-4
        assert (ours.argmax(1) == theirs.argmax(1)).float().mean() >= 0.9999
    shares = export_onnx(tmp_path / "run", tmp_path / "p.onnx")
    mapped = segment(model, tile, size=128, device="cpu")
    assert len(np.unique(mapped)) > 1
    for path in (logits, shares):
        assert (segment(open_model(path), tile, size=128, device="cpu") == mapped).mean() >= 0.9999


def test_a_json_beside_and_options_win_over_the_file(exported, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(exported[1].read_bytes())
    (tmp_path / "net.json").write_text(json.dumps(dict(window=96, classes=list("abcdef"), colors=[])))
    model = open_model(path, mean=[1, 2, 3, 4])
    assert (model.size, model.classes, model.colors, model.mean.tolist()) == (
        96,
        list("abcdef"),
        None,
        [1, 2, 3, 4],
    )
    assert model.std.tolist() == [40, 50, 60, 30]
    (tmp_path / "other.json").write_text(json.dumps(dict(std=[9] * 4)))
    assert open_model(path, tmp_path / "other.json").std.tolist() == [9] * 4


def tiny(path, operator="Neg", location=None, shape=("b", 3, "h", "w"), outside_graph=False):
    "An ONNX file of one node."
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    if location is not None:
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, list(shape)) for n in ("x", "y")]
    nodes = [onnx.helper.make_node(operator, ["x"], ["y"])]
    if outside_graph:
        nodes.append(onnx.helper.make_node("Constant", [], ["c"], value=weight))
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [] if outside_graph else [weight])
    onnx.save(onnx.helper.make_model(graph), path)
    return path


@pytest.mark.parametrize("constant", [False, True], ids=["initializer", "constant"])
@pytest.mark.parametrize("location", ["../../secret", "/etc/hostname", "link/secret"])
def test_weights_outside_the_folder_are_refused(tmp_path, location, constant):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"1234")
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    path = tiny(tmp_path / "in" / "net.onnx", location=location, outside_graph=constant)
    with pytest.raises(InputError, match="outside its own folder"):
        open_model(path, mean=[0] * 3, std=[1] * 3)


def test_other_files_that_are_no_network(tmp_path):
    with pytest.raises(InputError, match="which is not beside it"):
        open_model(tiny(tmp_path / "a.onnx", location="gone.bin"), mean=[0] * 3, std=[1] * 3)
    with pytest.raises(InputError, match="standard operators"):
        open_model(tiny(tmp_path / "b.onnx", operator="Frobnicate"), mean=[0] * 3, std=[1] * 3)
    (tmp_path / "c.onnx").write_text("no")
    with pytest.raises(InputError, match="no ONNX file"):
        open_model(tmp_path / "c.onnx")
    (tmp_path / "d.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="no network|no ONNX"):
        open_model(tmp_path / "d.onnx")
    with pytest.raises(InputError, match="does not exist"):
        open_model(tmp_path / "e.onnx")
    with pytest.raises(InputError, match="does not say the mean"):
        open_model(tiny(tmp_path / "f.onnx"))
    with pytest.raises(InputError, match="one input"):
        open_model(tiny(tmp_path / "g.onnx", shape=("b", 3)), mean=[0] * 3, std=[1] * 3)


@pytest.mark.filterwarnings("ignore:.*give images of the same units")
def test_a_file_of_fixed_size_says_its_window_and_bands(tmp_path):
    model = open_model(tiny(tmp_path / "n.onnx", shape=(1, 3, 64, 64)), mean=[0] * 3, std=[1] * 3)
    assert model.size == 64
    image = np.random.default_rng(0).integers(1, 255, (3, 100, 130)).astype(np.uint8)
    found = segment(model, image, size=64, batch=4, device="cpu")  # one window at a time, whatever the batch
    whole = (-torch.as_tensor(image).float()).softmax(0).argmax(0).numpy()
    assert (found == whole).mean() > 0.99
    with pytest.raises(InputError, match="reads windows of 64 x 64, not 32"):
        segment(model, image, size=32, device="cpu")
    model = open_model(tmp_path / "n.onnx", mean=[0] * 4, std=[1] * 4)
    with pytest.raises(InputError, match="reads 3 bands and its passport gives mean and std of 4"):
        segment(model, make_scene(80), size=64, device="cpu")


# ---------------------------------------------------------------- polygons


def read_layer(path):
    pyogrio = pytest.importorskip("pyogrio")
    meta, _, shapes, columns = pyogrio.raw.read(path)
    return meta, shapes, dict(zip(meta["fields"], columns))


def rings_of(shape):
    (n,), at, rings = struct.unpack_from("<I", shape, 5), 9, []
    for _ in range(n):
        (m,) = struct.unpack_from("<I", shape, at)
        rings.append(np.frombuffer(shape, "<f8", 2 * m, at + 4).reshape(-1, 2))
        at += 4 + 16 * m
    return rings


def gdal_judges(path):
    "What GDAL itself measures of the polygons: {class: (area, whether all are valid)}."
    pyogrio = pytest.importorskip("pyogrio")
    asked = "SELECT class, SUM(ST_Area(geom)), MIN(ST_IsValid(geom)) FROM classes GROUP BY class"
    columns = pyogrio.raw.read(path, sql=asked, sql_dialect="SQLITE")[3]
    return {int(k): (float(area), bool(valid)) for k, area, valid in zip(*columns)}


@pytest.mark.parametrize("transform", [(0.5, 0, 412000, 0, -0.5, 5650000), (0.3, 0.4, 1e5, 0.4, -0.3, 4e6)])
def test_polygons_cover_the_classes_exactly(tmp_path, transform):
    pytest.importorskip("pyogrio")
    from rasterio.features import rasterize

    from rsssl_nb.mapping.polygons import write_polygons

    labels = make_scene(160, seed=5).labels.copy()
    labels[np.random.default_rng(0).random(labels.shape) < 0.05] = 255
    path = write_raster(tmp_path / "m.tif", labels, "EPSG:32633", transform, 255, COLORS, CLASSES)
    meta, shapes, columns = read_layer(write_polygons(path, tmp_path / "m.gpkg"))
    pixel = abs(transform[0] * transform[4] - transform[1] * transform[3])
    for k, name in enumerate(CLASSES):
        here = columns["class"] == k
        assert columns["area"][here].sum() == pytest.approx((labels == k).sum() * pixel)
        assert set(columns["name"][here]) <= {name}
    assert rasterio.crs.CRS.from_user_input(meta["crs"]).to_epsg() == 32633
    back = rasterize(
        (
            (dict(type="Polygon", coordinates=[r.tolist() for r in rings_of(s)]), int(k))
            for s, k in zip(shapes, columns["class"])
        ),
        labels.shape,
        fill=255,
        transform=rasterio.Affine(*transform),
        dtype=np.uint8,
    )
    assert (back == labels).all()
    corners = [ring for shape in shapes for ring in rings_of(shape)]
    for ring in corners:  # no point in the middle of a straight edge
        steps = np.diff(np.vstack([ring, ring[1]]), axis=0)
        turns = steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]
        assert (np.abs(turns) > 1e-9).all()
    judged = gdal_judges(tmp_path / "m.gpkg")
    assert sorted(judged) == np.unique(labels[labels != 255]).tolist()
    for k, (area, valid) in judged.items():
        assert valid and area == pytest.approx((labels == k).sum() * pixel)


def test_polygons_of_noise_touch_at_corners_and_stay_valid(tmp_path):
    pytest.importorskip("pyogrio")
    from rsssl_nb.mapping.polygons import write_polygons

    labels = np.random.default_rng(1).integers(0, 3, (90, 70)).astype(np.uint8)
    path = write_raster(tmp_path / "m.tif", labels, "EPSG:32633", (0.5, 0, 412000, 0, -0.5, 5650000), 255)
    judged = gdal_judges(write_polygons(path, tmp_path / "m.gpkg"))
    assert judged == {k: (pytest.approx((labels == k).sum() / 4), True) for k in range(3)}


@pytest.mark.long
def test_polygons_of_a_real_map(tmp_path, imagery):
    pytest.importorskip("pyogrio")
    from rsssl_nb.mapping.polygons import write_polygons

    tile = sorted((imagery / "dubai/test/labels").glob("*.png"))[0]
    labels = np.nan_to_num(open_raster(tile).read(0, 0, 509, 500)[0], nan=255).astype(np.uint8)
    path = write_raster(tmp_path / "m.tif", labels, "EPSG:32640", (0.5, 0, 33e4, 0, -0.5, 278e4), 255)
    judged = gdal_judges(write_polygons(path, tmp_path / "m.gpkg"))
    found = {k: int((labels == k).sum()) for k in np.unique(labels[labels != 255]).tolist()}
    assert len(found) > 2 and judged == {k: (pytest.approx(n / 4), True) for k, n in found.items()}


def test_least_area_empty_maps_and_other_files(tmp_path):
    pytest.importorskip("pyogrio")
    from rsssl_nb.mapping.polygons import write_polygons

    labels = np.full((40, 40), 255, np.uint8)
    labels[2:4, 2:4], labels[10:30, 10:30], labels[15:20, 15:20] = 1, 2, 0
    path = write_raster(tmp_path / "m.tif", labels, None, None, 255)
    _, shapes, columns = read_layer(write_polygons(path, tmp_path / "all.gpkg"))
    assert dict(zip(columns["class"].tolist(), columns["pixels"].tolist())) == {1: 4, 2: 375, 0: 25}
    _, _, columns = read_layer(write_polygons(path, tmp_path / "few.gpkg", least_area=25))
    assert sorted(columns["class"]) == [0, 2]
    empty = write_raster(
        tmp_path / "e.tif", np.full((9, 9), 255, np.uint8), "EPSG:4326", (1, 0, 0, 0, -1, 0), 255
    )
    with pytest.warns(UserWarning, match="no region"):
        out = write_polygons(empty, tmp_path / "e.gpkg")
    meta, shapes, _ = read_layer(out)
    assert (
        len(shapes) == 0
        and meta["crs"] == "EPSG:4326"
        and list(meta["fields"]) == ["class", "name", "pixels", "area"]
    )
    image, _ = write_scene(make_scene(64), tmp_path)
    for args, says in [
        ((image, tmp_path / "i.gpkg"), "no label map"),
        ((path, tmp_path / "x.shp"), "does not end in .gpkg"),
        ((path, tmp_path / "x.gpkg", -1), "0 or more"),
        ((path, tmp_path / "m.tif" / "x.gpkg"), "cannot be written"),
    ]:
        with pytest.raises(InputError, match=says):
            write_polygons(*args)
    assert not list(tmp_path.glob("*.part*")) and not list(tmp_path.glob(".*part*"))


# ---------------------------------------------------------------- what a GIS shows


def gdal_tells(path):
    "Category names, palette and attribute table of a raster's first band, asked of GDAL's C interface."
    folder = Path(rasterio.__file__).parents[1] / "rasterio.libs"
    library = next(iter(folder.glob("libgdal*")), None)
    if library is None:
        pytest.skip("rasterio brings no GDAL library of its own here")
    gdal = ctypes.CDLL(str(library))
    for name in (
        "GDALOpen",
        "GDALGetRasterBand",
        "GDALGetRasterCategoryNames",
        "GDALGetDefaultRAT",
        "GDALRATGetValueAsString",
        "GDALGetRasterColorTable",
        "GDALRATGetNameOfCol",
    ):
        getattr(gdal, name).restype = ctypes.c_void_p
    gdal.GDALAllRegister()
    pointer = ctypes.c_void_p
    data = pointer(gdal.GDALOpen(str(path).encode(), 0))
    band = pointer(gdal.GDALGetRasterBand(data, 1))
    table = pointer(gdal.GDALGetDefaultRAT(band))  # first: GTiff's names come with the rest of the sidecar
    names = ctypes.cast(gdal.GDALGetRasterCategoryNames(band), ctypes.POINTER(ctypes.c_char_p))
    found = []
    while names and names[len(found)]:
        found.append(names[len(found)].decode())
    rows = []
    if table:
        for row in range(gdal.GDALRATGetRowCount(table)):
            cells = [
                ctypes.string_at(gdal.GDALRATGetValueAsString(table, row, column)).decode()
                for column in range(gdal.GDALRATGetColumnCount(table))
            ]
            rows.append(cells)
    uses = (
        [gdal.GDALRATGetUsageOfCol(table, i) for i in range(gdal.GDALRATGetColumnCount(table))]
        if table
        else []
    )
    colours = pointer(gdal.GDALGetRasterColorTable(band))
    entries = gdal.GDALGetColorEntryCount(colours) if colours else 0
    gdal.GDALClose(data)
    return found, rows, uses, entries


def test_gdal_reads_names_palette_and_table(tmp_path):
    scene = make_scene(100, seed=2)
    segment(ForeignModel(Strided(), PASSPORT), scene, tmp_path / "m.tif", size=64, device="cpu")
    names, rows, uses, entries = gdal_tells(tmp_path / "m.tif")
    assert names == list(CLASSES) and entries == 256
    assert [row[:2] for row in rows] == [[str(i), name] for i, name in enumerate(CLASSES)]
    assert [tuple(map(int, row[2:])) for row in rows] == [tuple(bytes.fromhex(c[1:])) for c in COLORS]
    assert uses == [5, 2, 6, 7, 8]  # GFU_MinMax, GFU_Name, GFU_Red, GFU_Green, GFU_Blue


def test_names_with_signs_of_xml(tmp_path):
    path = write_raster(tmp_path / "m.tif", np.zeros((8, 8), np.uint8), nodata=255)
    write_categories(path, ("a < b & c", "Wald \u00fc"))
    names, rows, uses, _ = gdal_tells(path)
    assert names == ["a < b & c", "Wald \u00fc"] and uses == [5, 2] and rows[1] == ["1", "Wald \u00fc"]


def test_sidecars_of_an_overwritten_map_go_with_it(tmp_path):
    scene = make_scene(100, seed=2)
    for ending in (".aux.xml", ".ovr", ".msk"):
        (tmp_path / f"m.tif{ending}").write_text("old")
    nameless = ForeignModel(Strided(), Passport(mean=(0,) * 4, std=(1,) * 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        segment(nameless, scene, tmp_path / "m.tif", size=64, device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["m.tif"]
