"""Codecs."""

from __future__ import annotations

import importlib.util

import pytest

from kvstore.errors import FormatVersionError, MissingCodecError
from kvstore.tables.compression import codec_of

MODULES = {"zlib": "zlib", "zstd": "zstandard", "lz4": "lz4"}


@pytest.fixture(params=MODULES)
def codec(request):
    if importlib.util.find_spec(MODULES[request.param]) is None:
        pytest.skip(f"{MODULES[request.param]} is not installed")
    return codec_of(request.param)


DATA = b"one two three " * 100


def test_there_and_back(codec):
    packed = codec.compress(DATA)
    assert len(packed) < len(DATA)
    assert codec.decompress(packed, len(DATA)) == DATA


def test_another_length(codec):
    packed = codec.compress(DATA)
    for length in (0, 1, len(DATA) - 1):
        found = codec.decompress(packed, length)
        assert found is None or len(found) != length


def test_what_is_no_such_data(codec):
    packed = codec.compress(DATA)
    for wrong in (b"", b"\xff" * 20, packed[:-1], packed + b"more"):
        assert codec.decompress(wrong, len(DATA)) != DATA


def test_a_bomb_is_not_unpacked(codec):
    packed = codec.compress(bytes(10 << 20))
    found = codec.decompress(packed, 1000)
    assert found is None or len(found) <= 1001


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_a_missing_package_names_its_extra(name, monkeypatch):
    def refuse(module):
        raise ImportError(module)

    monkeypatch.setattr("kvstore.tables.compression.import_module", refuse)
    with pytest.raises(MissingCodecError, match=rf"kvstore\[{name}\]"):
        codec_of(name)


def test_none_and_unknown():
    assert codec_of(None) is None
    with pytest.raises(FormatVersionError, match="rot13"):
        codec_of("rot13")
