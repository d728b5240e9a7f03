"""Where names live now: an import by an older spelling still works, and a warning says the new one.

Written by hand. A module that lost names ends in `__getattr__ = forward(__name__, {...})`.
"""
import warnings
from importlib import import_module


def forward(module, table):
    """A module's `__getattr__` for names that moved: `table` maps an old name to "module:name" below `rsssl_nb`.

    The name is found at its new home, with a DeprecationWarning that says where; other names raise
    AttributeError.
    """

    def __getattr__(name):
        if name not in table:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = table[name].partition(":")
        warnings.warn(
            f"{module}.{name} lives in rsssl_nb.{home} now: from rsssl_nb.{home} import {new}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(f"rsssl_nb.{home}"), new)

    return __getattr__
