"The door: files that are not what they say, remote paths, folders, handles."

from pathlib import Path

import numpy as np
import pytest
from odd_rasters import PLACE, noise, says
from PIL import Image

from rsssl_nb.data.gdal import find_rasters
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.write import write_raster


def test_many_files_keep_few_handles(tmp_path):
    from rsssl_nb.data.gdal import OPEN

    files = [write_raster(tmp_path / f"{i:03}.tif", noise(1, 16, 16, seed=i)) for i in range(80)]
    rasters = [open_raster(f) for f in files]
    for i, r in enumerate(rasters):
        np.testing.assert_array_equal(r.read(0, 0, 16, 16), noise(1, 16, 16, seed=i))
    assert len(OPEN.files) <= 64


def test_a_replaced_file_is_read_anew(tmp_path):
    path = tmp_path / "a.tif"
    open_raster(write_raster(path, noise(1, 16, 16))).read(0, 0, 16, 16)
    write_raster(path, noise(2, 20, 20, seed=9))
    np.testing.assert_array_equal(open_raster(path).read(0, 0, 20, 20), noise(2, 20, 20, seed=9))


def test_files_that_are_not_what_they_say(tmp_path):
    (tmp_path / "lfs.tif").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "none.jpg").write_bytes(b"")
    (tmp_path / "vrt.tif").write_text("<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>")
    with says("lfs.tif", "git lfs pull"):
        open_raster(tmp_path / "lfs.tif")
    with says("is empty (0 bytes)"):
        open_raster(tmp_path / "none.jpg")
    for name in ("text.png", "vrt.tif"):
        with says(name, "no TIFF, PNG or JPEG"):
            open_raster(tmp_path / name)
    with says("does not exist"):
        open_raster(tmp_path / "missing.tif")
    with says("is a folder"):
        open_raster(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "/vsicurl/https://example.org/a.tif",
        "https://example.org/a.tif",
        "s3://bucket/a.tif",
        "/vsizip/a.zip/b.tif",
        Path("s3://bucket/a.tif"),
    ],
)
def test_remote_paths_are_refused(path):
    with says("remote or virtual", "allow_remote"):
        open_raster(path)
    with says("remote or virtual"):
        find_rasters([path])


def test_virtual_paths_open_when_asked(tmp_path):
    import zipfile

    write_raster(tmp_path / "a.tif", noise(1, 20, 20))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.write(tmp_path / "a.tif", "a.tif")
    raster = open_raster(f"/vsizip/{tmp_path}/a.zip/a.tif", allow_remote=True)
    np.testing.assert_array_equal(raster.read(0, 0, 20, 20), noise(1, 20, 20))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
def test_truncated_files_name_themselves(tmp_path, share):
    for name, save in (
        ("a.tif", lambda p: write_raster(p, noise(3, 300, 300), *PLACE, 0)),
        ("a.png", lambda p: Image.fromarray(noise(300, 300, 3)).save(p)),
        ("a.jpg", lambda p: Image.fromarray(noise(300, 300, 3)).save(p, quality=95)),
    ):
        save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
        with says(name, "damaged or cut short"):
            open_raster(tmp_path / name).read(0, 0, 300, 300)


def test_find_rasters(tmp_path):
    for name in ("b/2.tif", "b/1.TIF", ".hidden/x.tif", "b/.part.tif", "b/notes.txt", "c/d/3.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in find_rasters(tmp_path)] == ["1.TIF", "2.tif", "3.tif"]
    assert [p.name for p in find_rasters([tmp_path / "b", tmp_path / "b/2.tif"])] == ["1.TIF", "2.tif"]
