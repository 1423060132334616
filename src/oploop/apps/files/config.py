"""What a user says of files in `oploop.yml`: where they are, which make a stream, what is written and under which names."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from oploop.apps.base import AddresslessConfig
from oploop.apps.declared import Part, Texts
from oploop.apps.formats import PACKED, Format, format_of
from oploop.records import ColumnType, FieldType

FILE, ROW = "_file", "_row"
PLACES = re.compile(r"\{(\w+)\}")
OURS = ("step", "date", "sync")  #: what a path may name beside fields


class Formed(Part):
    """What is of a format: that which is said, or the one that the files' names tell."""

    format: Format | None = None

    @abstractmethod
    def named(self) -> str:
        """The files' names, as far as they are known."""

    @model_validator(mode="after")
    def _of_a_format(self) -> Self:
        if self.format is None and format_of(self.named()) is None:
            raise ValueError(f"{self.named()!r} does not tell the format: add `format: csv`, jsonl or parquet")
        return self

    @property
    def made_of(self) -> Format:
        """The format of the files."""
        found = self.format or format_of(self.named())
        assert found is not None
        return found


class StreamSpec(Formed):
    """Files that make one stream. Without `key` a row is known by its file and its number there."""

    files: str = Field(min_length=1)
    key: Texts = []
    columns: dict[str, ColumnType] = {}
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    on_gone: Literal["keep", "delete"] = "keep"

    @field_validator("encoding")
    @classmethod
    def _an_encoding(cls, value: str) -> str:
        import codecs

        try:
            return codecs.lookup(value).name
        except LookupError:
            raise ValueError(f"{value!r} is no encoding: utf-8, latin-1, cp1252, ...") from None

    @model_validator(mode="after")
    def _fits_together(self) -> StreamSpec:
        if self.key and self.on_gone == "delete":
            raise ValueError("on_gone: delete needs rows that are known by their file; remove `key`, or keep them")
        for name in (FILE, ROW):
            if name in self.columns:
                raise ValueError(f"{name!r} is a column of oploop's own")
        return self

    def named(self) -> str:
        return self.files


class ObjectSpec(Formed):
    """What is exported. One file a step (and partition), under a name that the step gives."""

    path: str = Field(min_length=1)
    fields: dict[str, FieldType] = Field(min_length=1)
    rows: int = Field(default=50_000, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _fits_together(self) -> ObjectSpec:
        named = PLACES.findall(self.path)
        if "step" not in named:
            raise ValueError("path must hold {step}, so that a step that is sent again writes the same file")
        if "{step}" not in self.path.rpartition("/")[2]:
            raise ValueError("{step} belongs into the file's name, after the last slash")
        for name in named:
            if name not in OURS and name not in self.fields:
                raise ValueError(f"path names {{{name}}}, which is none of the fields, nor step, date, sync")
        if re.search(r"(^|/)\.\.?(/|$)|^/|\\", self.path):
            raise ValueError("path is relative to url, without . and ..")
        if any(self.path.endswith(e) for e in PACKED if e != ".gz"):
            raise ValueError("files are packed with gzip (.gz) or not at all")
        if "_op" in self.fields:
            raise ValueError("'_op' is a column of oploop's own")
        return self

    def named(self) -> str:
        return self.path


class FilesConfig(AddresslessConfig):
    """Keys of files in `oploop.yml`."""

    instead = "files: url is where they are"

    #: a folder (relative to the project) or any fsspec URL
    url: str = Field(
        min_length=1, json_schema_extra={"path": True}, description="a folder, or s3://..., gs://..., sftp://..."
    )
    #: what fsspec's filesystem takes, credentials among it; shown nowhere
    options: dict[str, JsonValue] = Field(default={}, repr=False)
    streams: dict[str, StreamSpec] = {}
    objects: dict[str, ObjectSpec] = {}

    @model_validator(mode="after")
    def _either(self) -> FilesConfig:
        if not self.streams and not self.objects:
            raise ValueError("needs streams (to read) or objects (to write), or both")
        return self
