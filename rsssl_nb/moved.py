"""Where names live now: an import by an older spelling still works, and a warning says the new one.

Written by hand. A module that lost names ends in `__getattr__ = forward(__name__, {...})`.
"""

import warnings
from importlib import import_module
from operator import attrgetter


def forward(module, table):
    """A module's `__getattr__` for names that moved: `table` maps an old name to "module:name".

    Modules are named below `rsssl_nb`. The name is found at its new home, with a DeprecationWarning
    that says where; other names raise AttributeError. A function that became a method is written
    "module:Class.method".
    """

    def __getattr__(name):
        if name not in table:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = table[name].partition(":")
        cure = f"use {new} of rsssl_nb.{home}" if "." in new else f"from rsssl_nb.{home} import {new}"
        warnings.warn(
            f"{module}.{name} lives in rsssl_nb.{home} now: {cure}", DeprecationWarning, stacklevel=2
        )
        return attrgetter(new)(import_module(f"rsssl_nb.{home}"))

    return __getattr__
