"""A fit of several modalities: what it leaves in a MuData, and in each of its modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._said import said
from sc_ldvae.record._any_record import AnyRecord
from sc_ldvae.record._entry import Sizes, checked, double, text, whole
from sc_ldvae.record._keys import DEFAULT, Keys
from sc_ldvae.record._plain import checksum, plain
from sc_ldvae.record._read import intact
from sc_ldvae.record._record import Record
from sc_ldvae.record._sealed import SCHEMA_VERSION, version_of
from sc_ldvae.record._sealed import checked as checked_record

if TYPE_CHECKING:
    from mudata import MuData
    from numpy.typing import NDArray

VIEWS = "views"
_KEYS = {
    name: text() for name in ("uns", "latent", "variance", "loadings", "loadings_se", "library", "held_out", "fit")
}
_ENTRIES = {
    "schema_version": whole(),
    "modalities": text("modalities", distinct=True),
    "weights": double("modalities", least=0),
    "hide_modality": double(least=0, most=1),
    "explained_deviance": double("latent"),
    "total_explained_deviance": double(),
    "checksum": text(),
}


@dataclass(frozen=True)
class JointRecord(AnyRecord):
    """A fit of several modalities as it was read from a MuData.

    For each modality it holds a :class:`Record` of its own, which the modality has, too: what the fit is where nothing
    else is known of the cells.
    """

    keys: Keys
    content: Mapping[str, Any]

    @cached_property
    def views(self) -> dict[str, Record]:
        """Records of the modalities, in the order of the fit."""
        return {name: Record(self.keys, self.content[VIEWS][name]) for name in self.modalities}

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities, in the order of the fit."""
        names: list[str] = self.content["modalities"].tolist()
        return names

    @property
    def rotation(self) -> NDArray[np.float64] | None:
        """As :attr:`Record.rotation`."""
        return self.first.rotation

    @property
    def composition(self) -> bool:
        """Whether a cell's factors are shares of one ('ln')."""
        return self.first.composition

    @property
    def weights(self) -> tuple[float, ...]:
        """What the log-likelihood of each modality was multiplied by in training."""
        return tuple(self.content["weights"].tolist())

    @property
    def hide_modality(self) -> float:
        """Share of the cells that showed one of their modalities alone, in each step."""
        share: float = self.content["hide_modality"]
        return share

    @property
    def fingerprint(self) -> str:
        """Tells this fit from every other one."""
        return blake2b("".join(view.fingerprint for view in self.views.values()).encode(), digest_size=8).hexdigest()

    def content_for(self, keys: Keys) -> dict[str, Any]:
        """The content for other keys or another object, sharing nothing with this one."""
        views = {name: view.content_for(keys) for name, view in self.views.items()}
        own = {name: self.content[name] for name in _ENTRIES if name in self.content}
        return sealed_joint(own, keys, views)


def sealed_joint(content: Mapping[str, Any], keys: Keys, views: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a joint fit as it is written, from records of its modalities in their order."""
    whole_content = dict(content) | {
        "schema_version": SCHEMA_VERSION,
        "keys": keys.to_dict(),
        "modalities": np.array(list(views), dtype=str),
        VIEWS: dict(views),
    }
    whole_content.pop("checksum", None)
    return whole_content | {"checksum": _checksum(whole_content)}


def joint_fits_in(mdata: MuData) -> dict[str, Mapping[str, Any]]:
    """Content of every joint fit in uns, by its key, as it stands there."""
    entries = {name: value for name, value in mdata.uns.items() if isinstance(value, Mapping)}
    return {name: value for name, value in entries.items() if {"schema_version", VIEWS} <= set(value)}


def read_joint(mdata: MuData, key: str = DEFAULT) -> JointRecord:
    """The joint fit stored in ``mdata.uns[key]``.

    Raises
    ------
    ValueError
        If there is none, if a newer version of the package wrote it, or if it is not what was written.
    """
    fits = joint_fits_in(mdata)
    if key not in fits:
        found = ", ".join(map(said, fits)) or "none"
        msg = (
            f"uns[{key!r}] of the MuData holds no joint fit. Fit one with sc_ldvae.tl.ldvae(modalities=), name it with "
            f"key=, or name the modality that was fitted alone (modality=). Joint fits here: {found}."
        )
        raise ValueError(msg)
    content = intact(key, fits[key], _checked)
    return JointRecord(Keys.from_dict(content["keys"]), content)


def _checked(stored: Mapping[str, Any]) -> dict[str, Any]:
    number = version_of(stored)
    if number > SCHEMA_VERSION:
        # As of one modality: nobody knows what else is in it.
        return {"schema_version": number}
    given = {name: plain(value, str(name)) for name, value in stored.items() if name != VIEWS}
    sizes = Sizes()
    content = checked(given, "", _ENTRIES, sizes)
    if not isinstance(given.get("keys"), Mapping):
        msg = "'keys' is no dict"
        raise ValueError(msg)  # noqa: TRY004  no argument: an entry is damaged
    content["keys"] = checked(given["keys"], "keys/", _KEYS, sizes)
    names = content["modalities"].tolist()
    views = stored[VIEWS] if isinstance(stored[VIEWS], Mapping) else {}
    missing = [name for name in names if not isinstance(views.get(name), Mapping)]
    if missing:
        msg = f"'{VIEWS}/{missing[0]}' is missing"
        raise ValueError(msg)
    content[VIEWS] = {name: checked_record(views[name]) for name in names}
    newest = max((view["schema_version"] for view in content[VIEWS].values()), default=number)
    if newest > SCHEMA_VERSION:
        return {"schema_version": newest}
    widths = {view["decoder"]["loadings"].shape[1] for view in content[VIEWS].values()}
    if widths != {sizes["latent"]}:
        msg = "its modalities have other numbers of factors"
        raise ValueError(msg)
    if content["checksum"] != _checksum(content):
        msg = "its values are not those that were written"
        raise ValueError(msg)
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    """Of all but itself; of the modalities, those that they have themselves."""
    own = {name: value for name, value in content.items() if name not in {"checksum", VIEWS}}
    return checksum(own | {VIEWS: {name: view["checksum"] for name, view in content[VIEWS].items()}})
