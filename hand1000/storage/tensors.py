"""A dataclass of arrays and JSON values that is saved as two files: safetensors and JSON, never a pickle."""

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_type_hints

from pydantic import TypeAdapter
from safetensors import SafetensorError

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.storage.files import read_json, write_bytes, write_json
from hand1000.storage.tensor_rows import TensorRows

_LIBRARIES = {"ndarray": "safetensors.numpy", "Tensor": "safetensors.torch"}


class TensorRecord:
    """Base of a dataclass whose `np.ndarray` or `torch.Tensor` fields go to `<stem>.safetensors`.

    All other fields go to `<stem>.json`; a record without any has no such file. One record holds arrays of one library
    only; an optional one that is None is in no file. A subclass names the files by `stem`, which an error also calls
    the record, and gives the `remedy` for a missing or damaged file, the end of the error's sentence. The fields
    `by_rows` of a loaded record stay in the file until their rows are used (`TensorRows`).
    """

    _stem: ClassVar[str]
    _remedy: ClassVar[str]
    _by_rows: ClassVar[Collection[str]]

    def __init_subclass__(cls, *, stem: str, remedy: str, by_rows: Collection[str] = ()) -> None:
        super().__init_subclass__()
        cls._stem, cls._remedy, cls._by_rows = stem, remedy, by_rows

    def save(self, directory: Path) -> None:
        """Write the record's files into `directory`."""
        library, values = self._schema()
        arrays = {name: value for name, value in vars(self).items() if name not in values and value is not None}
        tensors = {name: _contiguous(value) for name, value in arrays.items()}
        write_bytes(self.tensor_path(directory), library.save(tensors))
        self.save_values(directory)

    def save_values(self, directory: Path) -> None:
        """Write the fields that are no arrays, if there are any, where the arrays are written already."""
        _, values = self._schema()
        if values:
            self._write_values(directory, {name: getattr(self, name) for name in values})

    @classmethod
    def tensor_path(cls, directory: Path) -> Path:
        """Return the path of the arrays."""
        return directory / f"{cls._stem}.safetensors"

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            Hand1000Error: A file is missing or malformed.
        """
        path = cls.tensor_path(directory)
        library, types = cls._schema()
        values = cls._read_values(directory) if types else {}
        try:
            values = {name: TypeAdapter(kind).validate_python(values[name]) for name, kind in types.items()}
            arrays = cls._read_by_rows(path) if cls._by_rows else library.load_file(path)
            record = cls(**arrays, **values)
            record._validate()
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise Hand1000Error(f"{path}: not valid {cls._stem}: {one_line(error)}; {cls._remedy}") from error
        return record

    @classmethod
    def _read_by_rows(cls, path: Path) -> dict[str, Any]:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return {
                name: TensorRows.open(path, name) if name in cls._by_rows else file.get_tensor(name).clone()
                for name in file.keys()  # noqa: SIM118 (not a dictionary)
            }

    def _validate(self) -> None:
        """Raise ValueError if the fields of a loaded record contradict each other."""

    def _write_values(self, directory: Path, values: dict[str, Any]) -> None:
        write_json(directory / f"{self._stem}.json", values)

    @classmethod
    def _read_values(cls, directory: Path) -> dict[str, Any]:
        return read_json(directory / f"{cls._stem}.json")

    @classmethod
    def _schema(cls) -> tuple[Any, dict[str, Any]]:
        """The safetensors module that saves the arrays, and the types of the other fields by name."""
        types = {name: kind for name, kind in get_type_hints(cls).items() if not name.startswith("_")}
        kinds = {name: (get_args(kind) or (kind,))[0] for name, kind in types.items()}
        arrays = {name: kind.__name__ for name, kind in kinds.items() if getattr(kind, "__name__", "") in _LIBRARIES}
        (kind,) = set(arrays.values())
        return import_module(_LIBRARIES[kind]), {name: types[name] for name in types if name not in arrays}


def _contiguous(array: Any) -> Any:
    """The array with its elements in row-major order, as safetensors writes them."""
    if hasattr(array, "contiguous"):
        return array.contiguous()
    return array if array.flags.c_contiguous else array.copy(order="C")
