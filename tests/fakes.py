"""Archives as they are downloaded, with the official folders and names, made of small scenes: what the
readers read is real, what is in it is not.
"""

import numpy as np
from PIL import Image

from rsssl_nb.data.datasets import DEEPGLOBE, ISPRS, LOVEDA, POTSDAM, VAIHINGEN
from rsssl_nb.data.write import rgb, write_raster

SIZE = 24


def save(path, array, **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **kw)


def picture(seed, bands=3):
    array = np.random.default_rng(seed).integers(1, 255, (SIZE, SIZE, bands), dtype=np.uint8)
    return array if bands > 1 else array[..., 0]


def classes(seed, n):
    "Class numbers in stripes, every class present."
    return ((np.arange(SIZE)[:, None] // 3 + np.arange(SIZE)[None] * 0 + seed) % n).astype(np.uint8)


def painted(numbers, colors):
    return np.array([rgb(c) for c in colors], np.uint8)[numbers]


def seamed(colours):
    "A label picture with black seams, as in the copies without boundaries."
    colours = colours.copy()
    colours[::3] = 0
    return colours


def fake_potsdam(root, tiles=None, bands="RGBIR"):
    "`4_Ortho_RGBIR` and both label folders; all 38 tiles, or some."
    home = {"RGB": "2_Ortho_RGB", "IRRG": "3_Ortho_IRRG", "RGBIR": "4_Ortho_RGBIR"}[bands]
    for i, n in enumerate(tiles or [n for numbers in POTSDAM.values() for n in numbers]):
        save(root / home / f"top_potsdam_{n}_{bands}.tif", picture(i, len(bands) - (bands == "RGBIR")))
        colours = painted(classes(i, 6), ISPRS.colors)
        save(root / f"5_Labels_all/top_potsdam_{n}_label.tif", colours)
        save(root / f"5_Labels_all_noBoundary/top_potsdam_{n}_label_noBoundary.tif", seamed(colours))
    return root


def fake_vaihingen(root):
    """`top/`, `dsm/`, the participants' labels, and the complete ground truth, which has the images' own
    names.
    """
    for i, n in enumerate([n for numbers in VAIHINGEN.values() for n in numbers]):
        save(root / f"top/top_mosaic_09cm_area{n}.tif", picture(i))
        save(root / f"dsm/dsm_09cm_matching_area{n}.tif", picture(i, 1))
        colours = painted(classes(i, 6), ISPRS.colors)
        save(
            root / f"ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/top_mosaic_09cm_area{n}.tif",
            colours,
        )
        eroded = root / "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE"
        save(eroded / f"top_mosaic_09cm_area{n}_noBoundary.tif", seamed(colours))
        if n in VAIHINGEN["train"]:
            save(root / f"gts_for_participants/top_mosaic_09cm_area{n}.tif", colours)
    return root


def fake_loveda(root, per=2):
    "Train, Val and Test, each Urban and Rural; numbers run on, as in the archive."
    n = 0
    for split in ("Train", "Val", "Test"):
        for part in ("Rural", "Urban"):
            for _ in range(per):
                save(root / f"{split}/{part}/images_png/{n}.png", picture(n))
                if split != "Test":
                    save(root / f"{split}/{part}/masks_png/{n}.png", classes(n, len(LOVEDA.names) + 1))
                n += 1
    return root


def fake_deepglobe(root, n=3):
    "`train/*_sat.jpg` and `*_mask.png`, with colours a little off, and unlabelled valid and test images."
    for i in range(n):
        save(root / f"train/{100 + i}_sat.jpg", picture(i), quality=95)
        exact = painted(classes(i, 7), (*DEEPGLOBE.colors, "#000000")).astype(int)
        save(
            root / f"train/{100 + i}_mask.png",
            np.abs(exact - np.random.default_rng(i).integers(0, 100, exact.shape)).astype(np.uint8),
        )
    for split in ("valid", "test"):
        save(root / f"{split}/{len(split)}00_sat.jpg", picture(9))
    return root


def fake_flair(root):
    """The four archives unpacked: `flair_aerial_train` and `flair_labels_train`, `flair_1_aerial_test` and
    `flair_1_labels_test`; domains, zones, five bands, classes 1 to 19.
    """
    zones = {
        "D004_2021/Z10_AU": 883,
        "D004_2021/Z12_UU": 1119,
        "D031_2019/Z4_UU": 20203,
        "D064_2021/Z1_UN": 1,
    }
    for i, (zone, number) in enumerate(zones.items()):
        part = "1_{}_test" if zone.startswith("D064") else "{}_train"
        images = root / f"flair_{part.format('aerial')}" / zone / "img"
        masks = root / f"flair_{part.format('labels')}" / zone / "msk"
        place = ("EPSG:2154", (0.2, 0, 9e5 + 1000 * i, 0, -0.2, 6.5e6))
        for k in range(2):
            name = f"{number + k:06d}.tif"
            write_raster(images / f"IMG_{name}", picture(i, 5).transpose(2, 0, 1), *place)
            write_raster(masks / f"MSK_{name}", 1 + classes(i + k, 19), *place)
    return root
