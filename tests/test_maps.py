"Whole rasters: windows must not change what a context-free model says, and files open in a GIS."
import numpy as np
import pytest
import torch

from rsssl_nb.data.rasters import InputError, open_raster, write_raster
from rsssl_nb.data.scenes import CLASSES, COLORS, make_scene
from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.evaluation.maps import blend_weights, segment, starts_of
from rsssl_nb.evaluation.scores import confusion, per_image_miou, score_rasters, scores


class Pixels(torch.nn.Module):
    "A classifier of single pixels, in a segmenter's clothes; counts its calls."
    def __init__(self, bands=4, kernel=1):
        super().__init__()
        torch.manual_seed(0)
        self.f, self.calls = torch.nn.Conv2d(bands, 6, kernel, padding=kernel // 2), 0
        self.register_buffer("mean", torch.full((bands,), 100.)); self.register_buffer("std", torch.full((bands,), 50.))
        self.classes, self.colors = list(CLASSES), list(COLORS)
    def forward(self, x): self.calls += len(x); return self.f(x)


def whole(model, scene):
    with torch.no_grad(): p = model.f((torch.as_tensor(scene.image).float()[None] - 100) / 50).argmax(1)[0].numpy()
    return np.where(scene.valid, p, 255)


@pytest.mark.parametrize("size, overlap, batch", [(64, .25, 8), (50, .5, 3), (32, 0., 1), (200, .25, 4), (300, .25, 8)])
def test_windows_do_not_change_a_pixel_model(size, overlap, batch):
    scene = make_scene(200, seed=3)
    assert (segment(Pixels(), scene, size=size, overlap=overlap, batch=batch, device="cpu") == whole(Pixels(), scene)).all()


def test_cover_is_complete():
    for length in (1, 63, 64, 65, 100, 1000):
        for overlap in (0., .25, .9):
            seen = np.zeros(max(length, 64), int)
            for s in starts_of(length, 64, overlap): seen[s:s + 64] += 1
            assert (seen[:length] > 0).all() and starts_of(length, 64, overlap)[-1] == max(0, length - 64)
    assert (blend_weights(64) > 0).all()


def test_small_context_agrees_away_from_the_rim():
    scene, model = make_scene(160, seed=2), Pixels(kernel=3)
    gap = segment(model, scene, size=64, overlap=.5, device="cpu") != whole(model, scene)
    assert gap[8:-8, 8:-8].mean() < .02


def test_windows_without_data_are_not_run():
    image = np.zeros((4, 256, 256), np.uint8); image[:, :30, :30] = 90
    model, scene = Pixels(), make_scene(256)
    scene.image = image
    found = segment(model, scene, size=64, overlap=0., device="cpu")
    assert model.calls == 1 and (found[30:] == 255).all() and (found[:30, :30] < 6).all()


def test_files_keep_place_palette_and_names(tmp_path):
    scene = make_scene(120, seed=1)
    write_raster(tmp_path / "i.tif", scene.image, scene.crs, scene.transform, 0)
    segment(Pixels(), tmp_path / "i.tif", tmp_path / "m.tif", size=64, device="cpu")
    import rasterio
    with rasterio.open(tmp_path / "m.tif") as f:
        assert (f.crs.to_string(), tuple(f.transform)[:6], f.nodata, f.dtypes[0]) == (scene.crs, tuple(scene.transform), 255, "uint8")
        assert f.colormap(1)[0][:3] == tuple(bytes.fromhex(COLORS[0][1:])) and "field" in f.tags()["CLASSES"] and f.profile["tiled"]
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["i.tif", "m.tif"]


def test_a_picture_gets_no_invented_place(tmp_path):
    from PIL import Image
    Image.fromarray(make_scene(64).image[:3].transpose(1, 2, 0)).save(tmp_path / "p.png")
    segment(Pixels(3), tmp_path / "p.png", tmp_path / "m.tif", size=32, device="cpu")
    assert open_raster(tmp_path / "m.tif").crs is None


def test_a_failing_model_leaves_nothing(tmp_path):
    class Broken(Pixels):
        def forward(self, x):
            if self.calls > 3: raise RuntimeError("no")
            return super().forward(x)
    with pytest.raises(RuntimeError): segment(Broken(), make_scene(200), tmp_path / "m.tif", size=32, batch=1, device="cpu")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="3 bands and the model reads 4"): segment(Pixels(), make_scene(64).image[:3], tmp_path / "m.tif")
    assert not list(tmp_path.iterdir())


def test_mode_and_device_are_put_back():
    model = Segmenter(Encoder(bands=4, width=8), 6).train()
    segment(model, make_scene(64), size=32, device="cpu")
    assert model.training


def test_scores_of_the_oracle():
    s = scores([[50, 10], [5, 35]])
    assert np.allclose([s["oa"], s["kappa"], s["miou"]], [.85, .6938776, .7346154]) and np.allclose(s["iou"], [.7692308, .7])
    assert np.isnan(scores([[9, 0], [0, 0]])["kappa"]) and np.isnan(scores(np.zeros((2, 2)))["oa"])
    three = scores([[50, 10, 0], [5, 35, 0], [0, 0, 0]])
    assert np.isclose(three["miou"], s["miou"]) and np.isnan(three["iou"][2])
    with pytest.raises(ValueError, match="square"): scores(np.zeros((2, 3)))


def test_confusion_and_files(tmp_path):
    t, p = np.array([[0, 1, 255], [1, 1, 0]]), np.array([[0, 0, 1], [1, 255, 1]])
    assert confusion(t, p, 2).tolist() == [[1, 1], [1, 1]]
    for bad in (7, -1):
        with pytest.raises(ValueError, match=str(bad)): confusion(t, np.where(p == 1, bad, p), 2)
    scene = make_scene(64, seed=2)
    for name in "ab": write_raster(tmp_path / f"{name}.tif", scene.labels, scene.crs, scene.transform, 255, scene.colors, scene.classes)
    found = score_rasters(tmp_path / "a.tif", tmp_path / "b.tif")
    assert found["oa"] == 1 and found["pixels"] == scene.valid.sum() and found["pixels"] + found["ignored"] == 64 * 64
    assert per_image_miou([np.eye(2)]) == 1
