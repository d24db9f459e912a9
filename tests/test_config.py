"""Configurations from files and options: typed, refused in one line, written back with their comments."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from facecomp.records.files import InputError
from facecomp.training import config as module
from facecomp.training.config import (
    KeyMap,
    config_id,
    config_yaml,
    from_command_line,
    make_config,
    read_config,
    read_published,
    read_yaml,
    to_mapping,
    write_config,
)
from facecomp.training.schedules import cosine, parameter_groups, piecewise, set_rate


@dataclass(frozen=True)
class Model:
    width: int = 64  # channels of the first layer
    sizes: tuple[int, ...] = (5, 3)  # windows
    jitter: dict[str, float] | None = None  # by name


@dataclass(frozen=True)
class Config:
    """Settings of a test."""

    person: str  # folder name: "of the person" # 1
    rate: float = 8e-5  # of the first epochs
    weight: tuple[float, ...] | None = None
    start: Path | None = None  # checkpoint to start from
    mode: Literal["compat", "corrected"] = "corrected"  # behaviour
    colour: bool = True  # or grey
    model: Model = field(default_factory=Model)

    def __post_init__(self):
        if self.rate <= 0:
            raise InputError(f"rate {self.rate}: above 0")


# ---------------------------------------------------------------- values


def test_sources_win_in_order(tmp_path):
    (tmp_path / "a.yaml").write_text("person: a\nrate: 1e-3\nmodel:\n  width: 3\n")
    (tmp_path / "b.yaml").write_text("rate: 2e-3\nmodel:\n")
    args = ["--config", f"{tmp_path}/a.yaml", f"--config={tmp_path}/b.yaml"]
    assert from_command_line(Config, args) == Config("a", 2e-3, model=Model(3))
    args += ["--rate", "3e-3", "--model.sizes", "[1, 2, 3]", "--weight=[1]", "--colour", "false"]
    expected = Config("a", 3e-3, (1.0,), colour=False, model=Model(3, (1, 2, 3)))
    assert from_command_line(Config, args) == expected


def test_texts_that_look_like_numbers_stay_texts_on_the_command_line():
    assert from_command_line(Config, ["--person", "001"]).person == "001"
    assert from_command_line(Config, ["--person=None", "--start", "null"]).start is None
    assert from_command_line(Config, ["--person", "x", "--start", "a/b.pt"]).start == Path("a/b.pt")


WRONG = {
    "unknown": ({"persom": "a"}, "unknown key persom; the nearest known one is person"),
    "unknown inside": (
        {"person": "a", "model": {"wdth": 1}},
        "unknown key model.wdth; the nearest known one is model.width",
    ),
    "far away": ({"zzz": 1}, "unknown key zzz; the nearest known one is "),
    "missing": ({}, 'person is missing (folder name: "of the person" # 1)'),
    "type": ({"person": "a", "rate": "fast"}, "rate: expected float, got fast"),
    "none": ({"person": None}, "person: expected str, got None"),
    "choice": (
        {"person": "a", "mode": "old"},
        "mode: expected Literal['compat', 'corrected'], got old",
    ),
    "tuple": ({"person": "a", "model": {"sizes": [1, "b"]}}, "model.sizes"),
    "no section": ({"person": "a", "model": 3}, "unknown key model"),
    "rule": ({"person": "a", "rate": -1}, "rate -1.0: above 0"),
}


@pytest.mark.parametrize("how", WRONG)
def test_wrong_values_are_refused_in_one_line(how):
    values, words = WRONG[how]
    with pytest.raises(InputError) as error:
        make_config(Config, values, "run.yaml")
    assert str(error.value).startswith("run.yaml: ") and words in str(error.value)
    assert "\n" not in str(error.value)


OPTIONS = {
    "unknown": (["--persom", "a"], "unknown key persom; the nearest known one is person"),
    "unknown with value": (["--model.with=3"], "nearest known one is model.width"),
    "no value": (["--person"], "expected one argument"),
    "no file name": (["--config"], "expected one argument"),
    "stray": (["--person", "a", "stray"], "unrecognized arguments: stray"),
    "type": (["--person", "a", "--model.width", "1.5"], "model.width"),
    "absent file": (["--config", "absent.yaml"], "absent.yaml: cannot be read"),
    "published not offered": (["--published-config", "a.yaml"], "unknown key published-config"),
}


@pytest.mark.parametrize("how", OPTIONS)
def test_wrong_options_are_refused_in_one_line_and_exit_nothing(how):
    args, words = OPTIONS[how]
    with pytest.raises(InputError) as error:
        from_command_line(Config, args)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_help_shows_the_comments(capsys):
    with pytest.raises(SystemExit) as end:
        from_command_line(Config, ["--help"], KeyMap({}), prog="train")
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "channels of the first layer" in said and "--published-config" in said
    assert "must be given" in said and "Settings of a test." in said


# ---------------------------------------------------------------- YAML

FILES = {
    "twice": ("rate: 1\nrate: 2\n", "line 2: rate is given twice"),
    "twice inside": ("model:\n  width: 1\n  width: 2\n", "line 3: model.width is given twice"),
    "twice in a list": ("a:\n - {b: 1, b: 2}\n", "a.b is given twice"),
    "broken": ("rate: [1", "is not YAML"),
    "object": ("a: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    "list": ("- 1\n", "holds a list"),
    "number as key": ("1: 2\n", "put it in quotes"),
    "date that is none": ("a: 2001-99-99\n", "is not YAML"),
    "deep": ("a: " + "[" * 3000, "is not YAML"),
    "two": ("a: 1\n---\nb: 2\n", "is not YAML"),
}


@pytest.mark.parametrize("how", FILES)
def test_yaml_that_is_refused(how, tmp_path):
    text, words = FILES[how]
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_yaml(path)
    assert str(error.value).startswith(str(path)) and words in str(error.value)


def test_yaml_that_is_no_text_and_an_empty_one(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not YAML"):
        read_yaml(path)
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("y") / "a.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        assert isinstance(read_yaml(path), dict)
    except InputError as error:
        assert "\n" not in str(error)


# ---------------------------------------------------------------- the file beside the run


@given(
    st.builds(
        Config,
        person=st.text(max_size=10),
        rate=st.floats(1e-300, 1e300),
        weight=st.none() | st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
        start=st.none() | st.just(Path("a b/c.pt")),
        mode=st.sampled_from(["compat", "corrected"]),
        colour=st.booleans(),
        model=st.builds(
            Model,
            width=st.integers(),
            sizes=st.lists(st.integers(), max_size=3).map(tuple),
            jitter=st.none() | st.dictionaries(st.sampled_from("ab"), st.floats(0, 1), min_size=1),
        ),
    )
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_written_configuration_is_read_back(tmp_path_factory, config):
    path = write_config(config, tmp_path_factory.mktemp("c") / "config.yaml")
    assert read_config(Config, path) == config
    assert config_id(read_config(Config, path)) == config_id(config)


def test_the_file_has_the_comments():
    text = config_yaml(Config("a"))
    assert "rate: 8.0e-05  # of the first epochs" in text
    assert "  width: 64  # channels of the first layer" in text
    assert yaml.safe_load(text) == to_mapping(Config("a"))
    assert config_id(Config("a")) != config_id(Config("b"))


def test_a_class_without_source_has_no_comments(monkeypatch):
    def no_source(_):
        raise OSError

    monkeypatch.setattr(module.inspect, "getsource", no_source)
    assert "#" not in config_yaml(Config("a"))


# ---------------------------------------------------------------- published files


def weights(value):
    """The published 'None', number or list of one or two numbers."""
    value = value if isinstance(value, list) else [value]
    if len(value) > 2:
        raise InputError(f"{value}: one or two numbers")
    return None if value == [None] else [float(part) for part in value]


FLAT = KeyMap(
    names={
        "persons_to_train": "person",
        "initial_lrate": "rate",
        "loadmodel": "start",
        "neu_face_loss_weight": "weight",
    },
    ignored={"num_workers": "workers change nothing"},
    convert={"persons_to_train": lambda value: value[0], "neu_face_loss_weight": weights},
)
TEXT = """persons_to_train: [SN001, SN002]
initial_lrate: 8e-5
loadmodel: None
neu_face_loss_weight: None
num_workers: 12
"""


def published(tmp_path, text: str, keys: KeyMap = FLAT) -> tuple[Config, list[str]]:
    path, said = tmp_path / "training_arguments.yaml", []
    path.write_text(text)
    return from_command_line(Config, ["--published-config", str(path)], keys, say=said.append), said


def test_a_published_flat_file_is_accepted_as_it_is(tmp_path):
    config, said = published(tmp_path, TEXT)
    assert config == Config("SN001", 8e-5, None, None)
    assert len(said) == 1 and "no effect: num_workers (workers change nothing)" in said[0]
    text = TEXT.replace("weight: None", "weight: [1, 0.5]").replace("model: None", "model: ./a.tar")
    config, _ = published(tmp_path, text)
    assert (config.weight, config.start) == ((1.0, 0.5), Path("a.tar"))
    assert published(tmp_path, TEXT.replace("weight: None", "weight: 2"))[0].weight == (2.0,)


WRONG_PUBLISHED = {
    "unknown": (TEXT + "epoch: 3\n", "unknown key epoch; the nearest known one is "),
    "near": (TEXT.replace("loadmodel", "load_model"), "the nearest known one is loadmodel"),
    "missing": (TEXT.replace("loadmodel: None\n", ""), "loadmodel missing"),
    "converter": (
        TEXT.replace("weight: None", "weight: [1, 2, 3]"),
        "weight: [1, 2, 3]: one or two",
    ),
    "value": (TEXT.replace("weight: None", "weight: heavy"), "'heavy' does not fit"),
    "type": (TEXT.replace("8e-5", "fast"), "rate: expected float, got fast"),
}


@pytest.mark.parametrize("how", WRONG_PUBLISHED)
def test_wrong_published_files_are_refused(how, tmp_path):
    text, words = WRONG_PUBLISHED[how]
    with pytest.raises(InputError) as error:
        published(tmp_path, text)
    assert words in str(error.value) and "training_arguments.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_sections_any_case_and_whole_mappings(tmp_path):
    keys = KeyMap(
        names={
            "data.person": "person",
            "model.width": "model.width",
            "model.jitter": "model.jitter",
        },
        required=False,
        any_case=True,
    )
    path = tmp_path / "a.yaml"
    path.write_text("DATA:\n  Person: a\nmodel:\n  WIDTH: 3\n  jitter:\n    hue: 0.1\n")
    values = read_published(path, keys)
    config = make_config(Config, values)
    assert config == Config("a", model=Model(3, jitter={"hue": 0.1}))


def test_options_win_over_published_files(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(TEXT)
    args = ["--rate", "1e-2", "--published-config", str(path)]
    assert from_command_line(Config, args, FLAT, say=lambda _: None).rate == 1e-2


# ---------------------------------------------------------------- schedules


def test_schedules_refuse_what_is_outside():
    for wrong in ([], [(2, 1.0), (1, 2.0)], [(1, 1.0), (1, 2.0)]):
        with pytest.raises(InputError, match="points"):
            piecewise(3, wrong)
    for step, warmup in ((-1, 0), (10, 0), (0, 11)):
        with pytest.raises(InputError, match="within a run of 10 steps"):
            cosine(step, 1.0, 0.0, 10, warmup)
    assert cosine(0, 1.0, 0.1, 10, warmup=1) == 0.0  # one step of warm-up: its first end
    assert [cosine(s, 0.05, 0.05, 5) for s in range(5)] == [0.05] * 5


def test_groups_leave_out_frozen_parameters_and_rates_follow_the_scale():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    model[0].weight.requires_grad = False
    groups = parameter_groups(model, 0.1)
    assert [(g["names"], g["weight_decay"]) for g in groups] == [
        (["0.bias", "1.weight", "1.bias"], 0.0)
    ]
    groups[0]["lr_scale"] = 0.5
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    set_rate(optimizer, 0.2, weight_decay=0.3)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (
        0.1,
        0.0,
    )
