"Reads settings.ini, the one place for name, version and requirements."

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
NAMES = "lab data interop imagenet onnx polygons bench docs dev".split()
extras = {name: cfg[f"{name}_requirements"].split() for name in NAMES}


class BuildWithLessons(build_py):
    """Also copies the pages into the package that is built: they exist once in the source tree, and once in
    the wheel.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        shutil.rmtree(Path(self.build_lib) / "rsssl_nb/nbs", ignore_errors=True)
        shutil.copytree(
            here / "nbs",
            Path(self.build_lib) / "rsssl_nb/nbs",
            ignore=shutil.ignore_patterns(".*", "_proc", "*.part"),
        )
        kept = Path(self.build_lib) / "rsssl_nb/results"  # what the evidence pages read
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for rows in (here / "results").glob("*.json"):
            shutil.copy(rows, kept)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    packages=find_packages(include=["rsssl_nb", "rsssl_nb.*"]),
    package_data={"rsssl_nb": ["py.typed", "checkpoints/*", "widgets/*.js", "widgets/*.css"]},
    cmdclass={"build_py": BuildWithLessons},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": ["rsssl_nb=rsssl_nb._modidx:d"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    zip_safe=False,
)
