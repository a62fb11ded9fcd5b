"""A MONAI bundle's configuration, read without running it.

MONAI's own parser evaluates ``$`` expressions as Python. Here only this is understood: values; ``@section``
and ``@section#part``; classes of MONAI's networks, transforms and inferers by name; and ``$`` expressions of
numbers, texts, lists, sums and number formats. Anything else is refused with its place, unless the user
trusts the bundle.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.learning.bundle_config import FLOOR, LINEAR

CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
MODULES = ("monai.networks.nets", "monai.transforms", "monai.inferers")
OURS = {
    "medseg.learning.unet.UNet": ("medseg.learning.unet", "UNet"),
    "medseg.learning.residual_unet.ResidualUNet": ("medseg.learning.residual_unet", "ResidualUNet"),
    "medseg.learning.bundle.network_from_plan": ("medseg.learning.bundle", "network_from_plan"),
}
CODE = re.compile(r"Lambda|TorchVision|Torchio|TorchIO|CuCIM|Save|Write|Delay")
"""Names of transforms that run what they are handed, or write."""
_REFERENCE = re.compile(r"@([A-Za-z_]\w*(?:(?:#|::)\w+)*)")
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Reader:
    """The sections of a configuration as objects, each made once.

    Parameters
    ----------
    config : mapping
    trust : bool
        Let MONAI's parser run everything, code included.
    """

    def __init__(self, config: Mapping[str, Any], *, trust: bool = False) -> None:
        self.config, self.trust = config, trust
        self._made: dict[str, Any] = {}
        self._open: list[str] = []

    def section(self, name: str) -> Any:
        """The object of a section, such as ``network_def`` or ``postprocessing#transforms``.

        Raises
        ------
        MedsegError
            There is no such section, it refers to itself, or it needs code.
        """
        name = name.replace("::", "#")
        if name in self._open:
            raise MedsegError("the bundle's configuration refers to itself", evidence=" -> ".join(self._open))
        if name not in self._made:
            self._open.append(name)
            self._made[name] = self._value(self._raw(name), name)
            self._open.pop()
        return self._made[name]

    def _raw(self, name: str) -> Any:
        found: Any = self.config
        for part in name.split("#"):
            key: Any = int(part) if isinstance(found, list) and part.isdigit() else part
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError) as error:
                raise MedsegError(f"the bundle's configuration has no '{name}'") from error
        return found

    def _value(self, raw: Any, place: str) -> Any:
        if isinstance(raw, str):
            return self._text(raw, place)
        if isinstance(raw, list):
            there = ((i, part) for i, part in enumerate(raw) if not self._left_out(part))
            return [self._value(part, f"{place}#{i}") for i, part in there]
        if isinstance(raw, Mapping) and "_target_" in raw:
            return self._instance(raw, place)
        if isinstance(raw, Mapping):
            return {k: self._value(v, f"{place}#{k}") for k, v in raw.items()}
        return raw

    def _left_out(self, part: Any) -> bool:
        """Steps that write files, and those that are switched off."""
        target = str(part.get("_target_", "")) if isinstance(part, Mapping) else ""
        off = isinstance(part, Mapping) and part.get("_disabled_") in (True, "$True", "true")
        return off or target.rpartition(".")[2].startswith("SaveImage")

    def _text(self, raw: str, place: str) -> Any:
        if raw.startswith("$"):
            return self._expression(raw, place)
        if raw.startswith("%"):
            _refused(raw, place)
        whole = _REFERENCE.fullmatch(raw)
        return self.section(whole[1]) if whole else raw

    def _instance(self, raw: Mapping[str, Any], place: str) -> Any:
        target = str(raw["_target_"])
        if known := _KNOWN.get(str(raw.get("func"))):
            return _ours(raw, known)
        if raw.get("_mode_", "default") != "default":
            _refused(f"_mode_ {raw['_mode_']}", place)
        kind = _class_of(target, place)
        arguments = {k: self._value(v, f"{place}#{k}") for k, v in raw.items() if not k.startswith("_")}
        if arguments.get("pretrained"):
            arguments["pretrained"] = False  # the weights come from the bundle; nothing is downloaded
        try:
            return kind(**arguments)
        except Exception as error:
            raise MedsegError(
                f"the bundle's '{place}' cannot be made with this version of MONAI",
                evidence=f"{target}: {type(error).__name__}: {error}",
            ) from error

    def _expression(self, raw: str, place: str) -> Any:
        """A ``$`` expression of plain values; references stand for what they refer to."""
        names: dict[str, Any] = {}

        def named(found: re.Match[str]) -> str:
            name = f"_ref{len(names)}"
            names[name] = self.section(found[1])
            return name

        try:
            tree = ast.parse(_REFERENCE.sub(named, raw[1:].strip()), mode="eval")
        except SyntaxError:
            _refused(raw, place)
        return _computed(tree.body, names, raw, place)


def read_config(folder: Path) -> dict[str, Any]:
    """The inference configuration of a bundle, as plain data.

    Raises
    ------
    MedsegError
        None there, or none that can be read.
    """
    import yaml

    for name in CONFIGS:
        if (folder / name).is_file():
            try:
                found = yaml.safe_load((folder / name).read_text(encoding="utf-8"))  # JSON is YAML
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise MedsegError(
                    "the bundle's configuration cannot be read", file=str(folder / name)
                ) from error
            if isinstance(found, dict):
                return found | {"bundle_root": str(folder)}
    raise MedsegError("the bundle has no configuration for inference", file=str(folder), evidence=CONFIGS[0])


def _computed(node: ast.AST, names: Mapping[str, Any], raw: str, place: str) -> Any:
    def part(inner: ast.AST) -> Any:
        return _computed(inner, names, raw, place)

    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        found = [part(x) for x in node.elts]
        return found if isinstance(node, ast.List) else tuple(found)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](part(node.left), part(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        return -part(node.operand) if isinstance(node.op, ast.USub) else not part(node.operand)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return _number_format(node.value.id, node.attr, raw, place)
    return _refused(raw, place)


def _number_format(module: str, name: str, raw: str, place: str) -> Any:
    """``torch.float32``, ``np.uint8``, ..."""
    if module in ("torch", "np", "numpy") and re.fullmatch(r"(u?int|float)(8|16|32|64)|bool|long|half", name):
        return getattr(import_module("torch" if module == "torch" else "numpy"), name)
    return _refused(raw, place)


def _class_of(target: str, place: str) -> Any:
    if target in OURS:
        module, name = OURS[target]
        return getattr(import_module(module), name)
    module, _, name = target.rpartition(".")
    if CODE.search(name) or (module and not module.startswith(tuple(MODULES))):
        _refused(target, place)
    for home in (import_module(m) for m in MODULES):
        found = getattr(home, name, None)
        if isinstance(found, type):
            return found
    return _refused(target, place)


def _floor(x: Any) -> Any:
    return x - x.amin(dim=tuple(range(1, x.ndim)), keepdim=True)


def _linear(x: Any) -> Any:
    from monai.transforms.utils import convert_applied_interp_mode

    x.applied_operations[:] = convert_applied_interp_mode(x.applied_operations, "bilinear")
    return x


_KNOWN = {FLOOR: _floor, LINEAR: _linear}
"""Expressions that our own bundles hold, and the functions that do the same."""


def _ours(raw: Mapping[str, Any], function: Any) -> Any:
    from monai.transforms.utility.dictionary import Lambdad

    overwrite = raw.get("overwrite", True)
    return Lambdad(keys=raw.get("keys", "image"), func=function, overwrite=overwrite)


def _refused(what: str, place: str) -> Any:
    raise MedsegError(
        "the bundle's configuration would run code, which is not done unasked",
        evidence=f"{place}: {what[:120]}",
        mend="read the configuration, and give trust=true if you trust who wrote it",
    )
