"""The data room: where a set is found, what its splits hold, what the cache does, and what each mistake is told."""

import gzip
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from absl import logging
from array_record.python.array_record_data_source import ArrayRecordDataSource
from ml_collections import ConfigDict, config_dict
from PIL import Image
from tensorboardX.record_writer import RecordWriter, masked_crc32c

from gm_jax import data
from gm_jax.data import cache, download, embedded, prepare, shapes, tfds_decode, tfrecord
from gm_jax.data.builders import idx
from gm_jax.data.dataset import Split
from gm_jax.data.image import to_array
from gm_jax.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "tfds"
SILENCE = download.silence  # the real one; tests are otherwise offline


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home, no data directories from the environment, and a network that never answers."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.delenv("GM_JAX_CACHE", raising=False)
    monkeypatch.setattr(download, "silence", lambda url: "no network in tests")
    return home


@pytest.fixture
def warnings(monkeypatch):
    """The lines given to absl's logging.warning."""
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *arguments: lines.append(message % arguments))
    return lines


def config(name: str, **keys) -> ConfigDict:
    defaults = {"data_dir": config_dict.placeholder(str), "folder": config_dict.placeholder(str), "embedded": True}
    return ConfigDict({"name": name, **defaults, **keys})


def error(name: str, **keys) -> str:
    """The message of the UserError that loading ends with: always one line."""
    with pytest.raises(UserError) as caught:
        data.load(config(name, **keys)).split("train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, sizes=(50, 20), compress=True) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write four tiny idx files; return the images and labels of each split."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    truth = {}
    for (split, names), size in zip(idx.FILES.items(), sizes, strict=True):
        pair = rng.integers(0, 256, (size, 28, 28), np.uint8), rng.integers(0, 10, size, np.uint8)
        for name, array in zip(names, pair, strict=True):
            raw = idx_bytes(array)
            (folder / f"{name}.gz" if compress else folder / name).write_bytes(gzip.compress(raw) if compress else raw)
        truth[split] = pair
    return truth


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A data directory with a tiny fashion_mnist, prepared by the command, and what it must hold."""
    root = tmp_path_factory.mktemp("prepared")
    truth = write_idx(root / "idx")
    arguments = ["fashion_mnist", f"--data_dir={root / 'data'}", f"--source={root / 'idx'}"]
    assert prepare.main(arguments) == 0
    return root / "data", truth


@pytest.fixture
def data_dir(prepared, tmp_path):
    """A copy of the prepared directory that a test may change."""
    shutil.copytree(prepared[0], tmp_path / "data")
    return tmp_path / "data"


def entry(dataset: data.Dataset, split: str = "train") -> Path:
    """The one cache entry of a split that lies beside the files."""
    (found,) = Path(dataset.location, "gm_jax_cache").glob(f"*-{split}-*")
    return found


# Builders and prepared TFDS directories


def test_builder_round_trip(prepared, data_dir):
    """What the idx files hold is what the data set gives, in TFDS's shuffled order, labels with their images."""
    dataset = data.load(config("fashion_mnist", data_dir=str(data_dir)))
    assert (dataset.name, dataset.origin, dataset.stand_in) == ("fashion_mnist", "tfds", None)
    assert dataset.location == str(data_dir / "fashion_mnist" / "3.0.1")
    assert (dataset.sizes, dataset.image_shape) == ({"train": 50, "test": 20}, (28, 28, 1))
    assert dataset.label_names[0] == "T-shirt/top" and len(dataset.label_names) == 10
    for name, (images, labels) in prepared[1].items():
        split = dataset.split(name)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32 and split.attributes == {}
        given = {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
        assert given == {image.tobytes(): label for image, label in zip(images, labels, strict=True)}


def test_tfds_reads_what_our_builder_wrote(prepared):
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(prepared[0] / "fashion_mnist" / "3.0.1").as_data_source("test")
    images, labels = prepared[1]["test"]
    wanted = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert {example["image"].tobytes(): example["label"] for example in source} == wanted


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"\0\0\x0d\3" + raw[4:], "begins with 00000d03"),
        (lambda raw: raw[:-1], "header says"),
        (lambda raw: raw + b"\0", "header says"),
        (lambda raw: gzip.compress(raw)[:-20], "damaged gzip"),
        (lambda raw: idx_bytes(np.zeros((49, 28, 28), np.uint8)), "do not fit together"),
        (lambda raw: None, "has no file train-images-idx3-ubyte"),
    ],
)
def test_bad_idx_files(tmp_path, capsys, damage, message):
    write_idx(tmp_path / "idx", compress=False)
    path = tmp_path / "idx" / "train-images-idx3-ubyte"
    raw = damage(path.read_bytes())
    path.write_bytes(raw) if raw else path.unlink()
    assert prepare.main(["mnist", f"--data_dir={tmp_path / 'out'}", f"--source={tmp_path / 'idx'}"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert message in told and "train-images" in told
    assert not list(tmp_path.glob("out/mnist/3.0.1"))


def test_prepare_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    for name, message in {"mnsit": "'mnist'", "shapes": "nothing to prepare", "cifar10": "does not answer"}.items():
        assert prepare.main([name, f"--data_dir={tmp_path}"]) == 2
        assert message in capsys.readouterr().err
    assert prepare.main(["cifar10", f"--data_dir={tmp_path}", f"--source={tmp_path}"]) == 2
    assert "--source serves mnist" in capsys.readouterr().err
    write_idx(tmp_path / "idx")
    (tmp_path / "file").write_text("no directory")
    from gm_jax.data.builders import mnist

    def lacking(builder):
        raise ImportError("No module named 'bs4'\nmore")

    assert prepare.main(["mnist", f"--data_dir={tmp_path / 'file' / 'deep'}", f"--source={tmp_path / 'idx'}"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    monkeypatch.setattr(mnist.Mnist, "download_and_prepare", lacking)
    assert prepare.main(["mnist", f"--data_dir={tmp_path}", f"--source={tmp_path / 'idx'}"]) == 2
    assert "lacks a Python package (No module named 'bs4'): install it" in capsys.readouterr().err


def test_labels_that_are_none(tmp_path, capsys):
    write_idx(tmp_path, compress=False)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([10]))
    assert prepare.main(["mnist", f"--data_dir={tmp_path / 'out'}", f"--source={tmp_path}"]) == 2
    assert "do not fit together (images (20, 28, 28), labels (20,) up to 10)" in capsys.readouterr().err


def test_newest_version_and_direct_directories(data_dir):
    """data_dir may hold sets, or be the set's or the version's directory; 3.0.10 is newer than 3.0.2."""
    parent = data_dir / "fashion_mnist"
    for version in ("3.0.2", "3.0.10"):
        shutil.copytree(parent / "3.0.1", parent / version)
    for given, version in {data_dir: "3.0.10", parent: "3.0.10", parent / "3.0.2": "3.0.2"}.items():
        assert data.load(config("fashion_mnist", data_dir=str(given))).location == str(parent / version)


def test_directory_of_another_set(data_dir):
    """A directory that holds another set than the one asked for is not taken for it."""
    told = error("mnist", data_dir=str(data_dir / "fashion_mnist" / "3.0.1"))
    assert "it has fashion_mnist" in told


def test_environment_then_home(data_dir, home, monkeypatch):
    shutil.copytree(data_dir, home / "tensorflow_datasets")
    assert data.load(config("fashion_mnist")).location.startswith(str(home))
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert data.load(config("fashion_mnist")).location.startswith(str(data_dir))
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir / "empty"))
    assert data.load(config("fashion_mnist")).location.startswith(str(home))
    (home / "tensorflow_datasets").rename(home / "mine")
    monkeypatch.setenv("TFDS_DATA_DIR", "~/mine")
    assert data.load(config("fashion_mnist")).location.startswith(str(home / "mine"))


def test_damaged_records(data_dir):
    (path,) = data_dir.glob("*/*/*train.array_record*")
    path.write_bytes(path.read_bytes()[:1000])
    told = error("fashion_mnist", data_dir=str(data_dir))
    assert f"{path.name} in {path.parent} cannot be read" in told
    path.unlink()
    assert f"{path.name} in {path.parent} cannot be read" in error("fashion_mnist", data_dir=str(data_dir))


@pytest.fixture(scope="session")
def portraits(tmp_path_factory):
    """A set like celeb_a with a configuration, images of two sizes, nested attributes, and features to leave out."""
    import tensorflow_datasets as tfds

    class Portraits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="small"),)

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "attributes": {"Smiling": np.bool_, "hair": tfds.features.ClassLabel(names=["dark", "fair"])},
                "landmarks": {"x": np.int64},
                "person": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(6), "varied": self._generate_examples(6, varied=True)}

        def _generate_examples(self, count, varied=False):
            for i in range(count):
                picture = np.full((20, 30 + (varied and i), 3), 10 * i, np.uint8)
                picture[:, :5] = picture[:, -5:] = 255  # cut off by the central crop
                attributes = {"Smiling": i % 2 == 1, "hair": i % 3 // 2}
                image = Image.fromarray(picture)
                yield i, {"image": image, "attributes": attributes, "landmarks": {"x": i}, "person": "nobody"}

    root = tmp_path_factory.mktemp("portraits")
    Portraits(data_dir=root, file_format="array_record").download_and_prepare()
    return root


def test_attributes_and_sizes(portraits, warnings):
    """Nested bools and class labels become attributes that stay with their images; the crop is central."""
    dataset = data.load(config("portraits/small", data_dir=str(portraits), image_size=16))
    assert dataset.attribute_names == {"Smiling": ("no", "yes"), "hair": ("dark", "fair")}
    assert (dataset.label_names, dataset.image_shape) == ((), (16, 16, 3))
    split = dataset.split("varied")
    index = split.images[:, 8, 8, 0] // 10
    assert split.labels is None and sorted(index) == list(range(6))
    assert np.array_equal(split.images, np.broadcast_to(split.images[:, 8:9, 8:9], split.images.shape))
    assert split.attributes["Smiling"].tolist() == (index % 2).tolist()
    assert split.attributes["hair"].tolist() == (index % 3 // 2).tolist()
    again = data.load(config("portraits/small", data_dir=str(portraits), image_size=16)).split("varied")
    assert not warnings and again.attributes["hair"].dtype == split.attributes["hair"].dtype == np.int32


# TFRecord


def to_tfrecord(version: Path, shards=1, template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", keep=False) -> None:
    """Turn the files of a version directory into TFRecord: the same serialised examples in another library's frames."""
    path = version / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        (source,) = version.glob(f"*-{split['name']}.array_record-00000-of-00001")
        records = np.array([*ArrayRecordDataSource([str(source)])], object)
        split["filepathTemplate"] = template
        split["shardLengths"] = []
        for i, part in enumerate(np.array_split(records, shards)):
            split["shardLengths"].append(str(len(part)))
            place = {"SHARD_X_OF_Y": f"{i:05d}-of-{shards:05d}", "SHARD_INDEX": f"{i:05d}"}
            name = template.format(DATASET=info["name"], SPLIT=split["name"], FILEFORMAT="tfrecord", **place)
            (version / name).parent.mkdir(exist_ok=True)
            writer = RecordWriter(str(version / name))
            for record in part:
                writer.write(record)
            writer.close()
        if not keep:
            source.unlink()
    info |= {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"] * keep}
    path.write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("shards", "template"),
    [
        (1, "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"),
        (4, "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"),
        (8, "{SPLIT}/part-{SHARD_INDEX}"),  # six examples: two shards are empty
    ],
)
def test_tfrecord_gives_what_array_record_gives(portraits, tmp_path, shards, template):
    """Images, nested attributes and their order, from one file or several, whatever they are called."""
    shutil.copytree(portraits, tmp_path / "data", ignore=shutil.ignore_patterns("gm_jax_cache"))
    to_tfrecord(tmp_path / "data" / "portraits" / "small" / "1.0.0", shards, template)
    old, new = (
        data.load(config("portraits/small", data_dir=str(root), image_size=16))
        for root in (portraits, tmp_path / "data")
    )
    assert new.sizes == old.sizes and new.attribute_names == old.attribute_names
    for split in old.sizes:
        assert new.fingerprint(split) == old.fingerprint(split)
    assert data.load(config("portraits/small", data_dir=str(tmp_path / "data"))).image_shape == (20, 30, 3)


def test_tfrecord_has_labels_and_is_cached(data_dir, monkeypatch):
    """As older versions of TFDS describe it, too: without format and names of the files."""
    before = data.load(config("fashion_mnist", data_dir=str(data_dir)))
    sha, labels = before.fingerprint("train"), before.split("train").labels.tolist()
    to_tfrecord(data_dir / "fashion_mnist" / "3.0.1", 3)
    path = data_dir / "fashion_mnist" / "3.0.1" / "dataset_info.json"
    older = json.loads(path.read_text())
    del older["fileFormat"]
    for split in older["splits"]:
        del split["filepathTemplate"]
    path.write_text(json.dumps(older))
    monkeypatch.setattr(tfds_decode, "_CHUNK", 7)  # the last chunk is of one example
    after = data.load(config("fashion_mnist", data_dir=str(data_dir)))
    assert after.fingerprint("train") == sha and after.split("train").labels.tolist() == labels
    monkeypatch.setattr(tfrecord, "Records", lambda paths: pytest.fail("decoded again"))
    assert data.load(config("fashion_mnist", data_dir=str(data_dir))).fingerprint("train") == sha
    path = next(data_dir.glob("*/*/*train.tfrecord-00001-of-00003"))
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        data.load(config("fashion_mnist", data_dir=str(data_dir))).split("train")


def test_checksums_of_tfrecord():
    """The published value (RFC 3720, appendix B.4), and another library's at every border of the blocks."""
    (masked,) = tfrecord.masked_crc32c([np.arange(32, dtype=np.uint8)]).tolist()
    rotated = (masked - 0xA282EAD8) % 2**32
    assert (rotated >> 17 | rotated << 15) % 2**32 == 0x46DD794E
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, length, np.uint8) for length in (0, 1, 3, 4, 5, 251, 252, 253, 256, 509, 9000)]
    assert tfrecord.masked_crc32c(parts).tolist() == [masked_crc32c(part.tobytes()) for part in parts]


def flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: flipped(raw, 200), "is damaged at byte 0"),  # in the image
        (lambda raw: flipped(raw, len(raw) - 1), "is damaged at byte {last}"),
        (lambda raw: flipped(raw, 9), "is damaged at byte 0"),
        (lambda raw: flipped(raw, 0), "is cut off or damaged"),
        (lambda raw: raw[:-1], "is cut off or damaged"),
        (lambda raw: raw + b"\0" * 11, "is cut off or damaged"),
        (lambda raw: raw + raw, "hold 66 examples, dataset_info.json says 50"),
        (lambda raw: raw[: 16 + int.from_bytes(raw[:8], "little")], "hold 35 examples"),
        (lambda raw: gzip.compress(raw), "is cut off or damaged"),
        (lambda raw: b"", "empty"),
        (lambda raw: None, "No such file"),
    ],
)
def test_damaged_tfrecord(data_dir, damage, message):
    to_tfrecord(data_dir / "fashion_mnist" / "3.0.1", 3)
    path = next(data_dir.glob("*/*/*train.tfrecord-00002-of-00003"))
    whole = path.read_bytes()
    raw = damage(whole)
    path.unlink() if raw is None else path.write_bytes(raw)
    told = error("fashion_mnist", data_dir=str(data_dir))
    last = 0
    while (following := last + 16 + int.from_bytes(whole[last : last + 8], "little")) < len(whole):
        last = following
    assert message.format(last=last) in told and path.name in told and "prepare it again" in told


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda features: features.pop("label"), "it has 0 values of 'label'"),
        (lambda features: features["label"].int64_list.value.append(3), "it has 2 values of 'label'"),
        (lambda features: features.pop("image"), "it has 0 values of 'image'"),
        (lambda features: features["image"].bytes_list.value.__setitem__(0, b"no picture"), "cannot identify image"),
    ],
)
def test_examples_that_are_not_what_features_say(data_dir, damage, message):
    from tensorflow_datasets.proto import tf_example_pb2

    to_tfrecord(data_dir / "fashion_mnist" / "3.0.1")
    (path,) = data_dir.glob("*/*/*train.tfrecord*")
    (first, *others) = tfrecord.Records([path]).__getitems__(range(50))
    example = tf_example_pb2.Example.FromString(others[2])
    damage(example.features.feature)
    others[2] = example.SerializeToString()
    writer = RecordWriter(str(path))
    for record in (first, *others):
        writer.write(record)
    writer.close()
    told = error("fashion_mnist", data_dir=str(data_dir))
    assert path.name in told and f"example 3: {message}" in told


def test_descriptions_of_older_and_other_libraries(data_dir):
    """Features as TFDS described them until 2022 are read; a file that is no description is told."""
    path = data_dir / "fashion_mnist" / "3.0.1" / "features.json"
    content = {
        "image": {"type": "Image", "content": {"shape": [28, 28, 1], "dtype": "uint8", "encoding_format": "png"}},
        "label": {"type": "ClassLabel", "content": {"num_classes": 10}},
    }
    modules = {"Image": "image_feature", "ClassLabel": "class_label_feature", "FeaturesDict": "features_dict"}
    old = json.dumps({"type": "FeaturesDict", "content": content})
    for name, module in modules.items():
        old = old.replace(f'"{name}"', f'"tensorflow_datasets.core.features.{module}.{name}"')
    keys = {"data_dir": str(data_dir)}
    wanted = data.load(config("fashion_mnist", **keys))
    path.write_text(old)
    found = data.load(config("fashion_mnist", **keys))
    assert (found.image_shape, found.label_names) == (wanted.image_shape, wanted.label_names)
    path.write_text(json.dumps({"featuresDict": {"features": {"audio": {"audio": {}}}}}))
    assert "has no 8-bit feature 'image' (it has audio)" in error("fashion_mnist", **keys)
    path.write_text("[]")
    assert "features.json is not what TFDS writes" in error("fashion_mnist", **keys)
    path.write_text("{")
    assert "features.json cannot be read" in error("fashion_mnist", **keys)
    (path.parent / "dataset_info.json").write_text('{"name": "fashion_mnist", "version": "3.0.1"}')
    assert "dataset_info.json is not what TFDS writes" in error("fashion_mnist", **keys)
    (path.parent / "dataset_info.json").write_text('{"dataset_name": "fashion_mnist"}')
    assert "has no prepared data set" in error("fashion_mnist", **keys)


def test_features(tmp_path):
    """Class labels and bools in sorted order, the whole path where a name is ambiguous; what cannot be used is told."""
    label = {"classLabel": {"numClasses": "2"}}
    bool_tensor = {"tensor": {"dtype": "bool", "shape": {}}}
    bools = {"tensor": {"dtype": "bool", "shape": {"dimensions": ["2"]}}}
    image = {"dtype": "uint8", "shape": {"dimensions": ["-1", "8", "4"]}}
    features = {
        "z": bool_tensor,
        "label": label,
        "b": {"featuresDict": {"features": {"kind": label, "bools": bools}}},
        "a": {
            "featuresDict": {"features": {"kind": bool_tensor, "deep": {"featuresDict": {"features": {"er": label}}}}}
        },
    }

    def read(**changed):
        content = {"featuresDict": {"features": {**features, "image": {"image": {**image, **changed}}}}}
        (tmp_path / "features.json").write_text(json.dumps(content))
        return tfds_decode.read_features(tmp_path)

    (tmp_path / "b-kind.labels.txt").write_text("cat\n dog \n\n")
    found = read()
    assert (found.image_shape, found.label_names) == ((-1, 8, 4), ("0", "1"))
    numbers, truth = ("0", "1"), ("no", "yes")
    kinds = {"a/deep/er": numbers, "a/kind": truth, "b/kind": ("cat", "dog"), "z": truth}
    assert found.attributes == kinds and list(found.attributes) == sorted(kinds)
    assert [found.attribute_name(path) for path in kinds] == ["er", "a/kind", "b/kind", "z"]
    features["label"] = bool_tensor
    assert read().label_names is None and read().attributes["label"] == truth
    with pytest.raises(UserError, match="no 8-bit feature 'image'"):
        read(dtype="uint16")
    with pytest.raises(UserError, match=r"the shape \(8, 8, 2\), not 1, 3 or 4 channels"):
        read(shape={"dimensions": ["8", "8", "2"]})


def change_features(version: Path, change) -> None:
    """Apply `change` to the dictionary of features in `features.json`."""
    content = json.loads((version / "features.json").read_text())
    change(content["featuresDict"]["features"])
    (version / "features.json").write_text(json.dumps(content))


def test_stated_and_found_sizes(data_dir):
    """An image_size keeps the channels; a size that is not stated is found in the first image."""
    assert data.load(config("fashion_mnist", data_dir=str(data_dir), image_size=14)).image_shape == (14, 14, 1)
    version = data_dir / "fashion_mnist" / "3.0.1"
    change_features(version, lambda features: features["image"]["image"]["shape"]["dimensions"].__setitem__(1, "-1"))
    assert data.load(config("fashion_mnist", data_dir=str(data_dir))).image_shape == (28, 28, 1)
    to_tfrecord(version)
    (path,) = version.glob("*train.tfrecord*")
    writer = RecordWriter(str(path))
    for _ in range(50):
        writer.write(b"")
    writer.close()
    assert f"{path.name} in {version} cannot be read (example 0: it has 0 values of 'image')" in error(
        "fashion_mnist", data_dir=str(data_dir)
    )
    info = json.loads((version / "dataset_info.json").read_text())
    info["splits"] = [{"name": "train"}]
    (version / "dataset_info.json").write_text(json.dumps(info))
    assert "has no examples" in error("fashion_mnist", data_dir=str(data_dir))


def test_changed_features_are_not_served_stale(data_dir, portraits, tmp_path):
    keys = {"data_dir": str(data_dir)}
    assert data.load(config("fashion_mnist", **keys)).split("train").labels is not None
    change_features(data_dir / "fashion_mnist" / "3.0.1", lambda features: features.pop("label"))
    assert data.load(config("fashion_mnist", **keys)).split("train").labels is None
    shutil.copytree(portraits, tmp_path / "portraits")
    keys = {"data_dir": str(tmp_path / "portraits"), "image_size": 16}
    assert list(data.load(config("portraits/small", **keys)).split("train").attributes) == ["Smiling", "hair"]
    version = tmp_path / "portraits" / "portraits" / "small" / "1.0.0"
    change_features(version, lambda features: features["attributes"]["featuresDict"]["features"].pop("hair"))
    assert list(data.load(config("portraits/small", **keys)).split("train").attributes) == ["Smiling"]


def test_formats(data_dir):
    """Both formats: array_record is read. Neither: one line with the command."""
    version = data_dir / "fashion_mnist" / "3.0.1"
    to_tfrecord(version, keep=True)
    for path in version.glob("*tfrecord*"):
        path.unlink()
    assert len(data.load(config("fashion_mnist", data_dir=str(data_dir))).split("train")) == 50
    path = version / "dataset_info.json"
    whole = json.loads(path.read_text())
    for file_format in ("riegeli", "parquet"):
        path.write_text(json.dumps(whole | {"fileFormat": file_format, "alternativeFileFormats": []}))
        told = error("fashion_mnist", data_dir=str(data_dir))
        assert f"is prepared as {file_format}, gm_jax reads array_record and tfrecord" in told
        assert "python -m gm_jax.data.prepare fashion_mnist" in told


def test_sizes_that_vary_need_an_image_size(portraits):
    dataset = data.load(config("portraits/small", data_dir=str(portraits)))
    assert dataset.split("train").images.shape == (6, 20, 30, 3)
    with pytest.raises(UserError, match=r"^images of .* vary in size \(30x20 and 3[1-5]x20\): give .*image_size"):
        dataset.split("varied")


def test_a_configuration_is_asked_for(portraits):
    assert "portraits/small" in error("portraits", data_dir=str(portraits))
    assert "such as 'cycle_gan/" in error("cycle_gan")
    assert "(did you mean 'cycle_gan/horse2zebra'?)" in error("cycle_gan/horse2zebr")


# The order of the search, stand-ins and mistakes


def test_stand_in_is_announced(warnings):
    for name, words in {"mnist": "MNIST was not found", "fashion_mnist": "digits, not clothes"}.items():
        warnings.clear()
        dataset = data.load(config(name))
        assert (dataset.name, dataset.origin, dataset.requested) == ("digits", "embedded", name)
        assert "1,797" in dataset.stand_in and words in dataset.stand_in
        (line,) = warnings
        assert line.startswith(dataset.stand_in) and "no network in tests" in line and "data_dir" in line
    dataset = data.load(config("mnist", image_size=32))
    assert dataset.image_shape == (32, 32, 1) and "32x32" in dataset.stand_in


def test_stand_in_forbidden(data_dir):
    assert "embedded=False" in error("mnist", embedded=False)
    told = error("mnist", data_dir=str(data_dir))
    assert "it has fashion_mnist (did you mean 'fashion_mnist'?)" in told and "does not answer" in told
    assert "no prepared data set" in error("mnist", data_dir=str(data_dir / "nowhere"))
    assert "does not answer" in error("cifar10")


def test_misspelt_names(monkeypatch, data_dir):
    """One line with the nearest name, before the network is asked or a stand-in is thought of."""
    monkeypatch.setattr(download, "silence", lambda url: pytest.fail("asked the network"))
    for name, meant in {"mnsit": "mnist", "MNIST": "mnist", "shape": "shapes", "cifar": "cifar10"}.items():
        assert f"(did you mean '{meant}'?)" in error(name)
    assert "(did you mean 'fashion_mnist'?)" in error("fashion_minst", data_dir=str(data_dir))
    assert "did you mean" not in error("zzzzqqqq")


def test_embedded_and_folder_exclude_each_other(tmp_path):
    assert "dataset.name" in error("shapes", folder=str(tmp_path))


def test_silent_host_is_given_up_in_time(monkeypatch):
    """A host that takes the connection and says nothing, one that refuses it, and a name that is never looked up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        start = time.monotonic()
        assert SILENCE(address, 0.3)
        assert time.monotonic() - start < 1.5
    assert SILENCE(address, 2)

    def lookup(*arguments, **keywords):
        time.sleep(3)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", lookup)
    start = time.monotonic()
    assert "nothing within 0.3 s" in SILENCE(address, 0.3)
    assert time.monotonic() - start < 1.5


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host on this machine that serves tiny idx files as MNIST: the folder it serves."""
    import tensorflow_datasets as tfds

    from gm_jax.data.builders import mnist

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        truth = write_idx(tmp_path / "served")
        infos = {
            url + path.name: tfds.download.checksums.UrlInfo(path.stat().st_size, sha256(path), path.name)
            for path in (tmp_path / "served").iterdir()
        }
        monkeypatch.setattr(download, "silence", SILENCE)
        monkeypatch.setattr(mnist.Mnist, "URL", url)
        monkeypatch.setattr(mnist.Mnist, "url_infos", infos)
        yield tmp_path / "served", truth
        server.shutdown()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_download(host, tmp_path, monkeypatch):
    """From a host that answers: the set ends as a prepared TFDS directory."""
    dataset = data.load(config("mnist", data_dir=str(tmp_path / "data")))
    assert (dataset.origin, dataset.stand_in) == ("tfds", None)
    assert sorted(map(bytes, dataset.split("test").images)) == sorted(map(bytes, host[1]["test"][0]))
    assert data.load(config("mnist", data_dir=str(tmp_path / "data"))).location == dataset.location
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "first"))
    assert data.load(config("mnist")).location.startswith(str(tmp_path / "first"))


def test_download_that_fails(host, tmp_path):
    """A changed file is refused; a missing one counts as no answer."""
    write_idx(host[0], sizes=(40, 20))
    assert "checksum" in error("mnist", data_dir=str(tmp_path / "data"))
    for path in host[0].iterdir():
        path.unlink()
    assert "HTTP status 404" in error("mnist", data_dir=str(tmp_path / "other"))


def test_tensorflow_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(download, "silence", lambda url: None)
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None)
    assert "pip install tensorflow-cpu" in error("cifar10")
    assert "downloaded by hand, see https://www.tensorflow.org/datasets/catalog/" in error("imagenet2012")


# The cache


def test_cache_is_used_and_needs_no_tfds(data_dir):
    first = data.load(config("fashion_mnist", data_dir=str(data_dir)))
    sha = first.fingerprint("train")
    pixels = np.array(first.split("train").images)
    program = (
        "import sys; from ml_collections import ConfigDict; from gm_jax import data;"
        f"keys = dict(name='fashion_mnist', data_dir={str(data_dir)!r}, folder=None, embedded=True);"
        "d = data.load(ConfigDict(keys));"
        "print(d.fingerprint('train'), type(d.split('train').images).__name__, d.split('train').images.sum());"
        "assert not {'tensorflow_datasets', 'PIL', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(data.__file__).parents[2]
    )
    assert ran.stdout.split() == [sha, "memmap", str(pixels.sum())], ran.stderr
    with pytest.raises(ValueError, match="read-only"):
        data.load(config("fashion_mnist", data_dir=str(data_dir))).split("train").images[0] = 0


def damage_bit(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-7] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("images.npy", damage_bit),
        ("labels.npy", damage_bit),
        ("images.npy", lambda path: path.write_bytes(path.read_bytes()[:-100])),
        ("images.npy", lambda path: path.write_bytes(path.read_bytes() + b"more")),
        ("images.npy", lambda path: path.write_bytes(b"x" * path.stat().st_size)),
        ("images.npy", Path.unlink),
        ("meta.json", lambda path: path.write_text("{")),
        ("meta.json", lambda path: path.write_text("[]")),
        ("meta.json", lambda path: path.write_text(path.read_text().replace('"shape"', '"shapf"'))),
        ("labels.npy", lambda path: path.write_bytes(path.read_bytes().replace(b")", b"("))),
    ],
)
def test_damaged_cache_is_rebuilt_with_a_warning(data_dir, warnings, file, damage):
    dataset = data.load(config("fashion_mnist", data_dir=str(data_dir)))
    sha, pixels = dataset.fingerprint("train"), np.array(dataset.split("train").images)
    damage(entry(dataset) / file)
    again = data.load(config("fashion_mnist", data_dir=str(data_dir)))
    assert again.fingerprint("train") == sha and np.array_equal(again.split("train").images, pixels)
    assert len(warnings) == 1 and "damaged" in warnings[0]
    data.load(config("fashion_mnist", data_dir=str(data_dir))).split("train")
    assert len(warnings) == 1  # mended for good
    assert [path.name for path in entry(dataset).parent.iterdir()] == [entry(dataset).name]


def test_image_shape_of_a_damaged_cache_is_not_believed(tmp_path, warnings):
    write_folder(tmp_path / "cats", {"1.png": 1})
    sha = data.load(config("cats", folder=str(tmp_path / "cats"))).fingerprint("all")
    (path,) = Path("~/.cache/gm_jax/data").expanduser().glob("cats-all-*/meta.json")
    path.write_text(re.sub(r'("shape": \[\s+1,\s+)8', r"\g<1>9", path.read_text()))
    assert data.load(config("cats", folder=str(tmp_path / "cats"))).fingerprint("all") == sha
    assert "images.npy holds (1, 8, 8, 3)" in warnings[0]


def test_flipped_bit_is_found_in_a_large_cache(tmp_path, monkeypatch, warnings):
    """320 MB, mostly a hole; hashing them takes too long for a test, so that their sum stands for the checksum."""
    monkeypatch.setattr(Split, "fingerprint", lambda split: str(split.images[-1, -1].sum()))
    one = cache.Cache("one", {}, {}, beside=tmp_path)
    shape = (5, 2**13, 2**13, 1)
    one.load("train", shape, lambda images: (None, {}))
    with open(next(tmp_path.glob("gm_jax_cache/*/images.npy")), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    assert one.load("train", shape, lambda images: (None, {}))[1] == "0" and "checksum differs" in warnings[0]


def test_slow_verification_is_announced(data_dir, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda message, *arguments: lines.append(message % arguments))
    data.load(config("fashion_mnist", data_dir=str(data_dir))).split("train")  # builds the cache
    for limit, announced in {cache.SLOW_BYTES: False, 50 * 28 * 28 - 1: True}.items():
        monkeypatch.setattr(cache, "SLOW_BYTES", limit)
        data.load(config("fashion_mnist", data_dir=str(data_dir))).split("train")
        assert any("Verifying" in line for line in lines) == announced


def test_entry_of_another_format_or_shape_is_rebuilt(tmp_path, monkeypatch):
    one = cache.Cache("a/set", {}, {}, beside=tmp_path)
    filled = []

    def load(count):
        split, _ = one.load("train", (count, 4, 4, 1), lambda images: filled.append(count) or (None, {}))
        assert len(split) == count

    for count in (3, 3, 2, 2):
        load(count)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    load(2)
    assert filled == [3, 2, 2]
    (directory,) = (tmp_path / "gm_jax_cache").iterdir()
    assert directory.name.startswith("a-set-train-") and directory.stat().st_mode & 0o777 == 0o755


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    one = cache.Cache("one", {}, {}, beside=tmp_path)
    one.load("train", (3, 4, 4, 1), lambda images: (None, {}))
    (directory,) = (tmp_path / "gm_jax_cache").iterdir()
    for suffix, hours in {"old": 25, "new": 23}.items():
        left = directory.with_name(f".{directory.name}.{suffix}")
        left.mkdir()
        os.utime(left, (time.time() - 3600 * hours,) * 2)
    one.load("train", (2, 4, 4, 1), lambda images: (None, {}))
    assert {path.name for path in directory.parent.iterdir()} == {directory.name, f".{directory.name}.new"}


def test_fingerprint_never_changes():
    """Users' workdirs have recorded it."""
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    labels = np.array([1, 0], np.int32)
    split = Split(images, labels, {"b": labels, "a": 2 * labels})
    assert split.fingerprint() == "ba02556f9524d7b444b8cb7e32a6426697dd18ce3b841755c2553c2ef9e74639"
    assert Split(images, None, {}).fingerprint() == "914c9f9e2f18c6ecbfa61c1b5f9c05e53eaf29515fdc44b01f00837e69cee2d1"


def test_changed_source_is_not_served_stale(tmp_path):
    paths = write_folder(tmp_path / "pictures", {"a.png": 10, "b.png": 20})
    keys = {"folder": str(tmp_path / "pictures")}
    before = data.load(config("mine", **keys))
    assert before.split("train").images[0, 0, 0].tolist() == [10, 0, 0]
    Image.new("RGB", (8, 8), (99, 0, 0)).save(paths[0])
    os.utime(paths[0], ns=(0, 0))
    after = data.load(config("mine", **keys))
    assert after.split("train").images[0, 0, 0].tolist() == [99, 0, 0]
    assert before.fingerprint("train") != after.fingerprint("train")
    assert before.split("train").images[0, 0, 0].tolist() == [10, 0, 0]  # an open memory map stays whole
    Image.new("RGB", (8, 8), (77, 0, 0)).save(paths[0], compress_level=0)
    os.utime(paths[0], ns=(0, 0))  # another size at the same time
    assert data.load(config("mine", **keys)).split("train").images[0, 0, 0].tolist() == [77, 0, 0]


def test_cache_places(data_dir, home, monkeypatch, warnings):
    """Beside the files; in the home where they are read-only; in $GM_JAX_CACHE; nowhere."""

    def load():
        return data.load(config("fashion_mnist", data_dir=str(data_dir))).fingerprint("train")

    version = data_dir / "fashion_mnist" / "3.0.1"
    version.chmod(0o555)
    sha = load()
    assert not (version / "gm_jax_cache").exists() and len(list((home / ".cache/gm_jax/data").iterdir())) == 1
    monkeypatch.setenv("GM_JAX_CACHE", str(home / "own"))
    assert load() == sha and len(list((home / "own").iterdir())) == 1
    (home / "locked").mkdir(mode=0o555)
    monkeypatch.setenv("GM_JAX_CACHE", str(home / "locked"))
    with pytest.raises(UserError, match="cannot be written"):
        load()
    monkeypatch.setenv("GM_JAX_CACHE", str(home / "full"))
    full = shutil.disk_usage(home)._replace(free=50 * 28 * 28)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="or is full"):
        patch.setattr(shutil, "disk_usage", lambda path: full)
        load()
    monkeypatch.delenv("GM_JAX_CACHE")
    monkeypatch.setenv("HOME", str(home / "locked"))
    assert not warnings and load() == sha and "every start" in warnings[0]
    monkeypatch.setenv("HOME", str(home))
    version.chmod(0o755)
    assert load() == sha and not (version / "gm_jax_cache").exists()  # found where it was


def test_failed_decoding_leaves_nothing(tmp_path):
    def fill(images):
        images[0] = 1
        raise RuntimeError

    one = cache.Cache("one", {}, {}, beside=tmp_path)
    with pytest.raises(RuntimeError):
        one.load("train", (2, 4, 4, 1), fill)
    assert list((tmp_path / "gm_jax_cache").iterdir()) == []


def test_many_at_once(tmp_path, warnings):
    """Loaders that race for one entry all get the right pixels and leave one entry."""
    one = cache.Cache("one", {}, {}, beside=tmp_path)
    barrier = threading.Barrier(8)

    def fill(images):
        barrier.wait(10)  # all of them found no cache
        images[...] = 7
        return None, {}

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: one.load("train", (3, 4, 4, 1), fill), range(8)))
    assert all((split.images == 7).all() and split.images.shape == (3, 4, 4, 1) for split, _ in results)
    assert len({sha for _, sha in results}) == 1
    assert len(list((tmp_path / "gm_jax_cache").iterdir())) == 1 and not warnings


def test_splits_that_are_not_there(data_dir):
    dataset = data.load(config("fashion_mnist", data_dir=str(data_dir)))
    with pytest.raises(UserError, match=r"no split 'tset' \(did you mean 'test'\?\): it has train, test"):
        dataset.split("tset")
    with pytest.raises(UserError, match="no split"):
        dataset.fingerprint("validation")


# Embedded sets


def test_digits():
    from sklearn.datasets import load_digits

    dataset = data.load(config("digits"))
    train, test = dataset.split("train"), dataset.split("test")
    assert (dataset.sizes, dataset.stand_in, dataset.location) == ({"train": 1500, "test": 297}, None, "scikit-learn")
    assert train.images.shape == (1500, 28, 28, 1) and test.images.shape == (297, 28, 28, 1)
    every = load_digits()
    for label in range(10):
        counts = (train.labels == label).sum(), (test.labels == label).sum()
        assert sum(counts) == (every.target == label).sum() and counts[1] in (29, 30)
    # Shrunk again, each image is nearest to an original of its own class: right pixels, right label, right way up.
    small = test.images[:, 2:26, 2:26, 0].reshape(297, 8, 3, 8, 3).mean((2, 4)).reshape(297, 64)
    original = every.data * (255 / 16)
    nearest = np.argmin(((small[:, None] - original[None]) ** 2).sum(-1), axis=1)
    assert (every.target[nearest] == test.labels).mean() > 0.99
    assert abs(small.mean() / original[nearest].mean() - 1) < 0.02
    assert data.load(config("digits", image_size=32)).split("test").images.shape == (297, 32, 32, 1)


def test_shapes_attributes_are_true():
    """Colour, place, area and outline, measured in the pixels, are what the attributes say."""
    dataset = data.load(config("shapes", num_images=600, image_size=64))
    split = dataset.split("train")
    assert split.images.shape == (600, 64, 64, 3) and dataset.sizes == {"train": 600, "test": 120}
    assert np.array_equal(split.labels, split.attributes["shape"]) and dataset.label_names[1] == "square"
    grid = np.arange(64)
    for i, image in enumerate(split.images.astype(float)):
        true = {name: dataset.attribute_names[name][values[i]] for name, values in split.attributes.items()}
        colour = shapes.COLOURS[split.attributes["colour"][i]]
        cover = np.abs(image - shapes.BACKGROUND).sum(-1) / np.abs(colour - shapes.BACKGROUND).sum()
        area = cover.sum()
        y, x = (cover.sum(1) * grid).sum() / area, (cover.sum(0) * grid).sum() / area
        assert image[round(y), round(x)].tolist() == colour.tolist()
        assert (y < 31.5) == (true["vertical"] == "top") and (x < 31.5) == (true["horizontal"] == "left")
        assert (area > 320) == (true["size"] == "large")
        assert cover[0].max() == cover[-1].max() == cover[:, 0].max() == cover[:, -1].max() == 0
        # The farthest point over the radius of the circle of the same area: 1, sqrt(pi / 2), sqrt(4 pi / sqrt(27)).
        rows, columns = np.nonzero(cover > 0.5)
        reach = np.sqrt(((rows - y) ** 2 + (columns - x) ** 2).max() * np.pi / area)
        assert dataset.label_names[np.digitize(reach, (1.07, 1.3))] == true["shape"]
    for name, values in split.attributes.items():
        counts = np.bincount(values, minlength=len(dataset.attribute_names[name]))
        assert counts.min() > 0.6 * 600 / len(counts)


def test_changed_code_never_meets_an_old_cache(monkeypatch):
    """The cache of either embedded set depends on the code that makes it."""
    made = []
    draw, split = shapes.draw, embedded._digits_split
    monkeypatch.setattr(shapes, "draw", lambda *arguments: made.append("shapes") or draw(*arguments))
    monkeypatch.setattr(embedded, "_digits_split", lambda name: made.append("digits") or split(name))
    for changed in (None, None, embedded.__file__, shapes.__file__):
        monkeypatch.setattr(embedded, "_checksum", lambda file, changed=changed: int(file == changed))
        data.load(config("digits", image_size=16)).split("test")
        data.load(config("shapes", num_images=5)).split("train")
    assert made == ["digits", "shapes", "digits", "digits", "shapes"]


def test_shapes_are_a_function_of_split_and_index(warnings):
    """A longer split begins with the shorter one; 64 pixels show the same scenes; test differs from train."""
    few, many, large = (
        data.load(config("shapes", **keys))
        for keys in ({"num_images": 20}, {"num_images": 50}, {"num_images": 20, "image_size": 64})
    )
    assert np.array_equal(few.split("train").images, many.split("train").images[:20])
    halved = large.split("train").images.reshape(20, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(halved - few.split("train").images).mean() < 0.5 < 5 < np.abs(np.diff(halved, axis=0)).mean()
    assert not np.array_equal(few.split("test").images, few.split("train").images[:4])
    assert few.split("train").attributes["colour"][:8].tolist() == [4, 5, 5, 4, 1, 1, 0, 1]  # on every machine
    assert not warnings  # each has a cache of its own


def test_image_sizes_out_of_range():
    assert "16 to 256" in error("digits", image_size=15) and "16 to 256" in error("shapes", image_size=257)
    assert [data.load(config("digits", image_size=size)).image_shape[0] for size in (16, 256)] == [16, 256]
    assert "positive" in error("mnist", image_size=0) and "num_images" in error("shapes", num_images=1)


# Folders


def write_folder(root: Path, reds: dict[str, int], size=(8, 8), mode="RGB") -> list[Path]:
    """Write one plain picture per relative path, told apart by its red (or grey) value."""
    for name, red in reds.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, (red, 0, 0) if mode == "RGB" else red).save(root / name)
    return [root / name for name in reds]


def test_folder_with_splits_and_classes(tmp_path):
    root = tmp_path / "cats"
    write_folder(root / "train", {"tabby/1.png": 1, "black/2.bmp": 2, "black/deep/3.PNG": 3, ".hidden.png": 9})
    write_folder(root / "train" / ".hidden", {"5.png": 5})
    write_folder(root / "test", {"tabby/4.webp": 0})
    (root / "train" / "notes.txt").write_text("no image")
    dataset = data.load(config("anything", folder=str(root)))
    assert (dataset.name, dataset.origin, dataset.requested) == ("cats", "folder", "anything")
    assert dataset.label_names == ("black", "tabby") and dataset.sizes == {"train": 3, "test": 1}
    train = dataset.split("train")
    assert dict(zip(train.images[:, 0, 0, 0], train.labels, strict=True)) == {1: 1, 2: 0, 3: 0}
    assert dataset.split("test").labels.tolist() == [1] and dataset.split("test").labels.dtype == np.int32


def test_folder_without_splits_is_divided_by_name(tmp_path):
    names = {f"{i}.png": i for i in range(200)}
    write_folder(tmp_path / "one", names)
    dataset = data.load(config("one", folder=str(tmp_path / "one")))
    assert dataset.label_names == () and dataset.split("train").labels is None
    assert list(dataset.sizes) == ["train", "test", "all"] and dataset.sizes["all"] == 200
    assert dataset.sizes["train"] + dataset.sizes["test"] == 200 and 8 <= dataset.sizes["test"] <= 35
    in_test = set(dataset.split("test").images[:, 0, 0, 0])
    assert not in_test & set(dataset.split("train").images[:, 0, 0, 0])
    write_folder(tmp_path / "two", {name: red for name, red in names.items() if red % 2})  # the same names elsewhere
    half = data.load(config("two", folder=str(tmp_path / "two")))
    assert set(half.split("test").images[:, 0, 0, 0]) == {red for red in in_test if red % 2}


def test_all_images_of_a_folder_are_a_split(tmp_path, monkeypatch, home):
    """In sorted order; each is opened for its header and once to decode it; only where the folder has no splits."""
    write_folder(tmp_path / "cats", {f"{name}/{red}.png": red for red, name in enumerate(["tabby", "black"] * 10)})
    opened = []
    image_open = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or image_open(path))
    every = data.load(config("cats", folder=str(tmp_path / "cats"))).split("all")
    reds = every.images[:, 0, 0, 0].tolist()
    assert reds == sorted(range(20), key=lambda red: (red % 2 == 0, str(red))) and len(opened) == 40
    assert every.labels.tolist() == [0] * 10 + [1] * 10
    assert len(list((home / ".cache/gm_jax/data").iterdir())) == 1
    write_folder(tmp_path / "dogs", {"train/1.png": 1, "test/2.png": 2})
    with pytest.raises(UserError, match=r"no split 'all'.*: it has train, test"):
        data.load(config("dogs", folder=str(tmp_path / "dogs"))).split("all")


def test_links_to_folders(tmp_path, warnings):
    """Every folder counts once: where it lies, else at the first link; a loop ends; every other link is told."""
    root = tmp_path / "cats"
    write_folder(root, {"tabby/1.png": 1, "tabby/kittens/2.png": 2})
    write_folder(tmp_path / "elsewhere", {"3.png": 3, "deep/4.png": 4})
    for link, target in {
        "black": tmp_path / "elsewhere",
        "white": tmp_path / "elsewhere",
        "tabby/all": root,
        "tabby/deep/self": root / "tabby" / "deep",
        "kittens": root / "tabby" / "kittens",
    }.items():
        (root / link).parent.mkdir(exist_ok=True)
        (root / link).symlink_to(target)
    dataset = data.load(config("cats", folder=str(root)))
    split = dataset.split("all")
    labels = [dataset.label_names[label] for label in split.labels]
    assert list(zip(split.images[:, 0, 0, 0], labels, strict=True)) == [
        (3, "black"),
        (4, "black"),
        (1, "tabby"),
        (2, "tabby"),
    ]
    pairs = {("white", "black"), ("kittens", "tabby/kittens"), ("tabby/all", ""), ("tabby/deep/self", "tabby/deep")}
    told = {
        f"{root / link} is the same folder as {root / first}: its images count once, there." for link, first in pairs
    }
    assert set(warnings) == told and len(warnings) == 4


def test_link_to_the_outside_of_a_folder(tmp_path, warnings):
    """A folder that holds the data set itself is followed, and its part that counts already left out."""
    write_folder(tmp_path, {"cats/tabby/1.png": 1, "black/2.png": 2})
    (tmp_path / "cats" / "all").symlink_to(tmp_path)
    dataset = data.load(config("cats", folder=str(tmp_path / "cats")))
    assert (dataset.label_names, dataset.sizes["all"]) == (("all", "tabby"), 2)
    assert len(warnings) == 1 and "cats/all/cats is the same folder" in warnings[0]


def test_names_of_split_folders(tmp_path, warnings):
    """In any case; without a folder for training, too, if all images lie in such folders; what lies outside is told."""
    names = ("train", "test", "val", "validation", "trainA", "trainB", "testA", "testB")
    write_folder(tmp_path / "zero", {f"{name}/1.png": 1 for name in names})
    assert data.load(config("x", folder=str(tmp_path / "zero"))).sizes == dict.fromkeys(names, 1)
    write_folder(tmp_path / "one", {"Train/1.png": 1, "TEST/2.png": 2})
    assert data.load(config("x", folder=str(tmp_path / "one"))).sizes == {"train": 1, "test": 1}
    write_folder(tmp_path / "two", {"testA/1.png": 1, "val/2.png": 2})
    assert "no split 'train': it has val, testA" in error("x", folder=str(tmp_path / "two"))
    write_folder(tmp_path / "three", {"test/1.png": 1, "tabby/2.png": 2})
    (tmp_path / "three" / "train").write_text("a file")
    assert data.load(config("x", folder=str(tmp_path / "three"))).label_names == ("tabby", "test")
    assert not warnings
    write_folder(tmp_path / "four", {"trainB/1.png": 1, "2.png": 2})
    write_folder(tmp_path / "four", {"extra/3.png": 3}, size=(9, 9))
    assert data.load(config("x", folder=str(tmp_path / "four"))).sizes == {"trainB": 1}
    assert warnings[0].startswith(f"2 images of {tmp_path / 'four'} lie outside its folders trainB and are left out")


def test_folder_channels(tmp_path):
    root = tmp_path / "grey"
    write_folder(root, {"a.png": 50, "b.jpg": 60}, mode="L")
    assert data.load(config("grey", folder=str(root))).split("train").images.shape[1:] == (8, 8, 1)
    write_folder(root, {"c.png": 70})
    images = data.load(config("grey", folder=str(root))).split("train").images
    assert images[0, 0, 0].tolist() == [50, 50, 50] and images[2, 0, 0].tolist() == [70, 0, 0]


def test_transparent_pixels_are_laid_over_white(tmp_path):
    """Unless the result has an alpha channel; grey ones stay grey."""
    Image.new("LA", (8, 8), (200, 0)).save(tmp_path / "a.png")
    assert data.load(config("x", folder=str(tmp_path))).image_shape == (8, 8, 1)
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear.save(tmp_path / "b.png")
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "c.png", transparency=(200, 0, 0))
    assert (data.load(config("x", folder=str(tmp_path))).split("all").images == 255).all()
    assert to_array(clear, 4, None)[0, 0].tolist() == [200, 0, 0, 0]


def test_shrinking_averages_pixels():
    board = Image.fromarray(np.indices((16, 24)).sum(0).astype(np.uint8) % 2 * 255)
    small = to_array(board, 1, 4).astype(int)
    assert small.shape == (4, 4, 1) and np.abs(small - 127.5).max() < 30


def test_exif_orientation(tmp_path):
    """Stored lying down with the tag "turn by 90 degrees", it comes out upright."""
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:, :8] = 200  # the left half, which is up once turned
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = data.load(config("x", folder=str(tmp_path))).split("train").images[0]
    assert image.shape == (16, 8, 3) and image[:6].min() > 150 and image[10:].max() < 50


def test_folder_of_several_sizes(tmp_path, warnings):
    write_folder(tmp_path, {"a.png": 10})
    write_folder(tmp_path, {"b.png": 20}, size=(12, 10))
    told = error("x", folder=str(tmp_path))
    assert "a.png is 8x8" in told and "b.png is 12x10" in told and "image_size" in told
    images = data.load(config("x", folder=str(tmp_path), image_size=6)).split("train").images
    assert images.shape == (2, 6, 6, 3) and images[:, 3, 3, 0].tolist() == [10, 20]
    assert data.load(config("x", folder=str(tmp_path), image_size=4)).split("train").images.shape == (2, 4, 4, 3)
    assert len(list(Path("~/.cache/gm_jax/data").expanduser().iterdir())) == 2 and not warnings


def test_folder_mistakes(tmp_path):
    assert "has no images" in error("x", folder=str(tmp_path))
    (path,) = write_folder(tmp_path, {"a.png": 10}, size=(64, 64))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert "a.png cannot be read" in error("x", folder=str(tmp_path))
    Image.new("I;16", (8, 8)).save(path)
    assert "8 bits" in error("x", folder=str(tmp_path))
    write_folder(tmp_path, {"a.png": 10, "class/b.png": 10})
    assert "class folder" in error("x", folder=str(tmp_path))


def test_odd_files_of_a_folder_are_told(tmp_path):
    """One line that names the file, whatever it is, and no file is waited for."""
    (good,) = write_folder(tmp_path, {"a.png": 1})
    path = tmp_path / "\u00fc b \u6f22.png"
    for make in (
        lambda: path.write_bytes(b""),
        lambda: path.write_text("a text"),
        lambda: path.symlink_to(tmp_path / "nowhere.png"),
        lambda: os.mkfifo(path),
        lambda: path.write_bytes(flipped(good.read_bytes(), 45)),  # in the compressed pixels
    ):
        make()
        assert str(path) in error("x", folder=str(tmp_path))
        path.unlink()
    good.rename(path)
    assert len(data.load(config("x", folder=str(tmp_path))).split("all")) == 1


def test_odd_images_of_a_folder_are_read(tmp_path, warnings):
    """CMYK, palettes, a wrong suffix and a nonsensical orientation; other formats are left out with a warning."""
    red = Image.new("RGB", (16, 8), (250, 0, 0))
    nonsense = Image.Exif()
    nonsense[0x0112] = 9
    red.convert("CMYK").save(tmp_path / "1.jpg", quality=95)
    red.quantize(2).save(tmp_path / "2.png")
    red.save(tmp_path / "3.jpeg", format="png", exif=nonsense)
    red.save(tmp_path / "4.gif")
    images = data.load(config("x", folder=str(tmp_path))).split("all").images
    assert images.shape == (3, 8, 16, 3) and np.abs(images - np.float32([250, 0, 0])).max() < 10
    assert len(warnings) == 1 and f"1 images are left out, such as {tmp_path / '4.gif'}" in warnings[0]


def test_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a/1.png": 1, "b/2.png": 2})
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert f"{tmp_path / 'b'} cannot be read (Permission denied)" in error("x", folder=str(tmp_path))


def test_names_that_are_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xe9"
    write_folder(tmp_path, {"1.png": 1})
    os.mkdir(folder)
    try:
        os.rename(tmp_path / "1.png", folder + b"/\xe9.png")
    except OSError:
        pytest.skip("this file system takes no such names")
    for _ in range(2):  # decoded, then from the cache
        dataset = data.load(config("x", folder=str(tmp_path)))
        assert dataset.split("all").images[0, 0, 0].tolist() == [1, 0, 0] and dataset.label_names == ("\udce9",)


def test_directories_that_are_none(tmp_path, capsys):
    (path,) = write_folder(tmp_path, {"a.png": 1})
    for place in (path, tmp_path / "nowhere", "~nobodyhere"):
        assert "is not a directory" in error("x", folder=str(place))
    assert "is not a directory" in error("mnist", data_dir=str(path))
    assert prepare.main(["mnist", f"--data_dir={path}"]) == 2
    assert "is not a directory" in capsys.readouterr().err


def test_empty_split_of_a_folder(tmp_path):
    write_folder(tmp_path, {"train/a.png": 1})
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match="is empty"):
        data.load(config("x", folder=str(tmp_path))).split("test")


def test_folder_starts_warm_without_decoding(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a.png": 1, "b.png": 2})
    sha = data.load(config("x", folder=str(tmp_path))).fingerprint("train")
    monkeypatch.setattr(Image, "open", lambda *arguments: pytest.fail("opened an image"))
    assert data.load(config("x", folder=str(tmp_path))).fingerprint("train") == sha


# Real sets


@pytest.mark.skipif(not SHARED.is_dir(), reason="no prepared real data sets in ../shared/tfds")
def test_real_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("GM_JAX_CACHE", str(tmp_path / "cache"))
    mnist = data.load(config("mnist", data_dir=str(SHARED)))
    assert mnist.sizes == {"train": 60000, "test": 10000} and len(mnist.label_names) == 10
    test = mnist.split("test")
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    faces = data.load(config("faces64", data_dir=str(SHARED)))
    assert faces.split("test").images.shape == (1305, 64, 64, 3) and faces.label_names[4] == "happiness"
    assert (faces.split("test").labels == 4).sum() == 576
    told = error("faces46", data_dir=str(SHARED))
    assert "(did you mean 'faces64'?)" in told
