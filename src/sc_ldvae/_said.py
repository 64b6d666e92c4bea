"""How sentences write what somebody passed, or keeps in an object."""

from __future__ import annotations

from typing import Any

import numpy as np


def of_python(value: Any) -> Any:  # noqa: ANN401  whatever was passed
    """NumPy's numbers and texts as Python's, also within lists, tuples, sets and dicts; all else as it is."""
    if isinstance(value, np.longdouble):
        # Its own item is no number of Python.
        return float(value)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in {list, tuple, set, frozenset}:
        return type(value)(map(of_python, value))
    if type(value) is dict:
        return {of_python(key): of_python(one) for key, one in value.items()}
    return value


def said(value: object) -> str:
    """As Python writes it, where NumPy from version 2 on writes ``np.str_('ISG15')``.

    Examples
    --------
    >>> import numpy as np
    >>> said(np.str_("ISG15")), said([np.int64(3)])
    ("'ISG15'", '[3]')
    """
    if isinstance(value, np.ndarray) and value.dtype == object:
        # It writes each of its values as NumPy does.
        value = value.tolist()
    return repr(of_python(value))
