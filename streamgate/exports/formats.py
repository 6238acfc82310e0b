"""The export formats, one function each. The functions use constant memory; identical results give identical bytes."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any

from streamgate.errors import UsageError
from streamgate.exports.table import FURTHER_CROPS, Column, Kind, Row, columns_of, row_of, texts_joined
from streamgate.exports.targets import new_file, new_folder
from streamgate.store import files
from streamgate.store.folder import RunFolder
from streamgate.store.jsonlines import SCHEMA, Record, dumps

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of cells that spreadsheets treat as a formula, including the full-width forms."""
ROWS_A_GROUP = 4096
"""Number of rows per row group of a Parquet file. While a file is written, one row group is held in memory."""

ROWS_WITH_IMAGES = 64
"""Number of rows per row group if the rows contain pictures; such a group has about 30 MB, as `datasets` recommends."""
PICTURE_COLUMNS = ("image", *(f"image_{name}" for name in FURTHER_CROPS))

_OLD_HEADERS = ",".join(column.name for column in columns_of()[:6]).encode()
"""The first bytes of every CSV file that any version of streamgate wrote."""
_CROP_COLUMNS = [column for column in columns_of() if column.path[0] == "crops"]


_SPLIT_WORD = re.compile(
    r"(?<![^-._ 0-9/])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?![^-._ 0-9/])"
)
"""Words in a path that `datasets` (data_files.py, SPLIT_KEYWORDS) interprets as the name of a split."""


def write_csv(
    folder: RunFolder, target: Path, *, overwrite: bool = False, warn: Callable[[str], None] = lambda words: None
) -> int:
    """Write `target` as CSV (header line, UTF-8, LF). Null becomes an empty cell; reasons are separated by spaces.

    Text that a spreadsheet would treat as a formula is prefixed with an apostrophe, and `warn` is then called once.
    Returns the number of rows. Raises UsageError, ResultsError and SinkError.
    """
    count = quoted = 0
    columns = _columns(folder)
    with new_file(target, overwrite=overwrite, is_ours=is_our_csv) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
        writer = csv.DictWriter(text, [column.name for column in columns], lineterminator="\n")
        writer.writeheader()
        for record in _records(folder):
            row = texts_joined(row_of(record, columns))
            formulas = {name for name, value in row.items() if isinstance(value, str) and value.startswith(FORMULA)}
            writer.writerow({**row, **{name: f"'{row[name]}" for name in formulas}})
            count += 1
            quoted += len(formulas)
        text.detach()
    if quoted:
        cells = "1 cell that begins" if quoted == 1 else f"{quoted} cells that begin"
        warn(f"{cells} like a formula got an apostrophe (') as prefix, so that spreadsheets do not evaluate the text")
    return count


def is_our_csv(file: IO[bytes]) -> bool:
    """Whether an open file is a CSV file written by `write_csv`."""
    return file.read(len(_OLD_HEADERS)) == _OLD_HEADERS


def is_our_parquet(file: IO[bytes]) -> bool:
    """Whether an open file is a Parquet file written by `write_parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return b"streamgate.schema" in (pq.read_schema(file).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def write_parquet(
    folder: RunFolder, target: Path, *, overwrite: bool = False, images: bool = False
) -> int:
    """Write `target` as Parquet (zstd), one row per face; the file's metadata contains `streamgate.schema`.

    With `images`, the picture columns contain the files themselves, as {bytes, path}, and the metadata declares this
    for `datasets`, so that `load_dataset("parquet", data_files=...)` returns pictures. Returns the number of rows.
    Raises UsageError (also if pyarrow is missing), ResultsError and SinkError.
    """
    columns = _columns(folder)
    schema = parquet_schema(columns, images=images)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = set(PICTURE_COLUMNS) if images else set()

    def row(record: Record) -> Row:
        values = row_of(record, columns)
        return values | {name: _embedded(folder, values[name]) for name in pictures}

    count = 0
    with (
        new_file(target, overwrite=overwrite, is_ours=is_our_parquet) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        rows_a_group = ROWS_WITH_IMAGES if images else ROWS_A_GROUP
        for rows in _groups(map(row, _records(folder)), rows_a_group):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def parquet_schema(columns: Iterable[Column], *, images: bool = False) -> Any:
    """The schema of a Parquet file with these columns; with `images`, it includes the pictures themselves.

    Raises UsageError if pyarrow is missing.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise UsageError("Parquet needs pyarrow: pip install 'streamgate[data]'") from None
    kinds: Mapping[Kind, Any] = {
        "text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(),
        "texts": pa.list_(pa.string()),
    }  # fmt: skip
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"streamgate.schema": str(SCHEMA)}
    if images:
        metadata["huggingface"] = dumps({"info": {"features": _features(columns)}})
    fields = [
        (column.name, picture if images and column.name in PICTURE_COLUMNS else kinds[column.kind])
        for column in columns
    ]
    return pa.schema(fields, metadata=metadata)


def write_imagefolder(folder: RunFolder, target: Path, *, overwrite: bool = False) -> int:
    """Write `target` as a Hugging Face imagefolder: the crops in their folders, and `metadata.jsonl`.

    The rows of `metadata.jsonl` are those of the other tables, with `file_name` instead of `image` and
    `arcface_file_name` instead of `image_arcface` (from which `datasets` makes a picture column `arcface`). Columns for
    crops that no face has are left out. All rows belong to one split, `train`: the folder of a source `screen_test` is
    named `screen_Test`, because `datasets` would otherwise load only paths that contain `test` or `val`. Returns the
    number of rows. Raises UsageError, ResultsError and SinkError.
    """
    count = 0
    columns = _columns(folder)
    there = {name for record in folder.faces() for name in _pictures(record)}
    with (
        new_folder(target, "imagefolder", overwrite=overwrite) as staging,
        files.sink_errors(target),
        open(staging / "metadata.jsonl", "xb") as lines,
    ):
        for record in _records(folder):
            row = texts_joined(row_of(record, columns))
            # `datasets` calls the loaded picture "image", so the path must have another name.
            names = {"file_name": _of_no_split(row.pop("image"))}
            for name in FURTHER_CROPS:
                path = row.pop(f"image_{name}")
                if name in there:
                    names[f"{name}_file_name"] = path and _of_no_split(path)
            row = names | row
            for image in _pictures(record).values():
                _copy(folder, image, staging / _of_no_split(image))
            lines.write(dumps(row).encode() + b"\n")
            count += 1
    return count


def write_webdataset(
    folder: RunFolder, target: Path, *, overwrite: bool = False, shard_bytes: int = 1_000_000_000
) -> int:
    """Write `target` as WebDataset shards `faces-000000.tar` ...: one sample per face, with its crops and its record.

    The key is the path of the FFHQ crop without suffix. Fields are `png` (or `jpg`, `webp`), `json`, and, for
    other crops, names such as `arcface.png`. A shard has at most `shard_bytes`, unless a single sample is larger.
    Returns the number of samples. Raises UsageError, ResultsError and SinkError.
    """
    count = shards = 0
    tar: tarfile.TarFile | None = None
    with (
        new_folder(target, "webdataset", overwrite=overwrite) as staging,
        files.sink_errors(target),
        ExitStack() as opened,
    ):
        for record in _records(folder):
            sample = _sample(folder, record)
            size = sum(tarfile.BLOCKSIZE + -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for _, data in sample)
            if tar is None or (tar.offset and tar.offset + size + tarfile.RECORDSIZE > shard_bytes):
                opened.close()
                file = opened.enter_context(open(staging / f"faces-{shards:06d}.tar", "xb"))
                tar = opened.enter_context(tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT))
                shards += 1
            for name, data in sample:
                # Time and owner are left out, so that the bytes depend only on the samples.
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))
            count += 1
    return count


def _columns(folder: RunFolder) -> tuple[Column, ...]:
    return columns_of(next(folder.faces(), None))


def _records(folder: RunFolder) -> Iterator[Record]:
    """The records, with `person_name` if the user has named the person."""
    names = folder.person_names()
    for record in folder.faces():
        name = names.get(record["person_id"] or "")
        yield record if name is None else {**record, "person_name": name}


def _sample(folder: RunFolder, record: Record) -> list[tuple[str, bytes]]:
    """The names and contents of the files of one sample."""
    key = record["image"].rpartition(".")[0]
    pictures = [(name, picture_of(folder, name)) for name in _pictures(record).values()]
    return [*pictures, (f"{key}.json", dumps(record).encode())]


def _of_no_split(path: str) -> str:
    """`path`, with words capitalised if `datasets` (which is case-sensitive) would read them as the name of a split."""
    return _SPLIT_WORD.sub(lambda word: word[0].capitalize(), path)


def _pictures(record: Record) -> dict[str, str]:
    """The paths of a record's pictures by crop, `image` first. Raises ResultsError."""
    row = row_of(record, _CROP_COLUMNS)
    further = {name: row[f"image_{name}"] for name in FURTHER_CROPS}
    return {"ffhq": record["image"], **{name: path for name, path in further.items() if path is not None}}


def picture_of(folder: RunFolder, name: str) -> bytes:
    """The content of a picture that a record names. Raises ResultsError if it is missing or cannot be read."""
    try:
        return folder.content(name)
    except FileNotFoundError:
        raise folder.error(name, "is missing") from None
    except OSError as error:
        raise folder.error(name, f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise folder.error(name, str(error)) from None


def _copy(folder: RunFolder, name: str, target: Path) -> None:
    data = picture_of(folder, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Copied instead of linked, because editing the export must not change the results.
    target.write_bytes(data)


def _groups(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rows = iter(rows)
    while group := list(islice(rows, size)):
        yield group


def _embedded(folder: RunFolder, path: str | None) -> Row | None:
    """A picture in the form in which `datasets` stores it in a table. Raises ResultsError."""
    return None if path is None else {"bytes": picture_of(folder, path), "path": path}


def _features(columns: Iterable[Column]) -> dict[str, Any]:
    """The columns, including pictures, as features of `datasets`."""
    values: Mapping[Kind, str] = {"text": "string", "int": "int64", "float": "float64", "bool": "bool"}
    found: dict[str, Any] = {}
    for column in columns:
        if column.name in PICTURE_COLUMNS:
            found[column.name] = {"_type": "Image"}
        elif column.kind == "texts":
            found[column.name] = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}
        else:
            found[column.name] = {"dtype": values[column.kind], "_type": "Value"}
    return found

