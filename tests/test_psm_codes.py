"""Codes and neutral faces of a trained model, their files and receipts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from facecomp.psm.codes import (
    code_table,
    encode,
    load_model,
    neutral_faces,
    neutral_sheet,
    read_codes,
    width_of,
    write_codes,
)
from facecomp.psm.networks import build_networks
from facecomp.psm.runs import embed_receipt, newest_model, why_not_done, write_embed_receipt
from facecomp.psm.training import Frames, save_published
from facecomp.psm.transforms import normalise
from facecomp.records.files import InputError


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (9, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def saved(folder: Path, width: int = 16, epoch: int = 3, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    return save_published(build_networks(width), folder, epoch)


@pytest.mark.parametrize("width", [4, 16])
def test_a_model_is_loaded_at_its_own_width(tmp_path, width, pixels):
    path = saved(tmp_path, width)
    assert width_of(path) == width
    torch.manual_seed(0)
    wanted = build_networks(width)
    with torch.no_grad():
        code = wanted.encoder(normalise(pixels)).flatten(1).numpy()
    np.testing.assert_allclose(encode(load_model(path), pixels), code, atol=1e-6)


def test_codes_do_not_depend_on_the_batch(tmp_path, pixels):
    networks = load_model(saved(tmp_path))
    whole = encode(networks, pixels)
    for size in (1, 4, 9, 100):
        np.testing.assert_allclose(encode(networks, pixels, size), whole, atol=1e-5)
    assert encode(networks, pixels[:0]).shape == (0, 256)
    assert not any(p.requires_grad for p in networks.encoder.parameters())


def test_neutral_faces_are_repeatable_and_the_published_noise_is_an_option(tmp_path, pixels):
    networks = load_model(saved(tmp_path))
    still = neutral_faces(networks, pixels)
    assert still.shape == (9, 64, 64, 3) and still.dtype == np.uint8
    np.testing.assert_array_equal(still, neutral_faces(networks, pixels))
    noisy = [neutral_faces(networks, pixels, noise=True, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert (noisy[0] == noisy[1]).all() and (noisy[0] != noisy[2]).any() and (noisy[0] != still).any()


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 3, 64, 64)])
def test_frames_of_another_form_are_refused(tmp_path, wrong):
    with pytest.raises(InputError, match="uint8"):
        encode(load_model(saved(tmp_path)), wrong)


def test_files_that_are_no_model_are_refused(tmp_path):
    path = tmp_path / "ExpCode_1.tar"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="no motion encoder"):
        load_model(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty file"):
        load_model(path)
    with pytest.raises(InputError, match="train first"):
        newest_model(tmp_path / "nowhere")


def test_tables_of_codes(tmp_path):
    codes = np.random.default_rng(0).uniform(-1, 1, (4, 256)).astype(np.float32)
    table = code_table([f"frame{k}.jpg" for k in range(4)], codes)
    again = read_codes(write_codes(tmp_path / "codes.parquet", table))
    assert list(again["frame"]) == [f"frame{k}.jpg" for k in range(4)]
    np.testing.assert_array_equal(again.iloc[:, 1:].to_numpy(), codes)
    with pytest.raises(InputError, match="4 frames|3 frames"):
        code_table(["a"] * 3, codes)
    write_codes(tmp_path / "other.parquet", again.iloc[:, :5])
    with pytest.raises(InputError, match="5 columns"):
        read_codes(tmp_path / "other.parquet")


def test_an_embedding_is_stale_when_its_model_is_another(tmp_path, pixels):
    folder = tmp_path / "PSM" / "SN001"
    model = saved(folder)
    frames = Frames(pixels, (0,), (9,), tuple(f"frame{k}.jpg" for k in range(9)))
    table = write_codes(folder / "embedding" / "codes.parquet", code_table(frames.names, encode(load_model(model), pixels)))
    sheet = neutral_sheet(load_model(model), pixels, folder / "embedding" / "codes.png", ["SYNTHETIC"])
    asked = {"participant": "SN001", "approach": "PSM", "out": str(tmp_path), "data": "", "checkpoint": ""}
    assert write_embed_receipt(model, frames, [table, sheet], "SN001", "synthetic") == embed_receipt(asked)
    assert why_not_done(embed_receipt(asked), asked) == ""
    assert "data is real" in why_not_done(embed_receipt(asked), asked | {"data": "/data"})
    saved(folder, epoch=10, seed=1)
    assert "ExpCode_10.tar" in why_not_done(embed_receipt(asked), asked)


def test_the_embedding_notebook_by_papermill(tmp_path):
    from conftest import ROOT

    from facecomp.records.batch import NotebookRun, run_notebook

    asked = {"participant": "SN001", "out": str(tmp_path), "frames": 20}  # without a model: one is trained first
    receipt = embed_receipt({"approach": "PSM", **asked})
    outcome = run_notebook(NotebookRun(ROOT / "nbs/psm/run_embed.ipynb", tmp_path / "out.ipynb", (receipt,), asked))
    assert outcome.ok, outcome.error
    assert len(read_codes(next(receipt.parent.glob("codes_*.parquet")))) == 20
    trained = tmp_path / "PSM" / "SN001" / "train.receipt.json"
    defaults = {"epochs": 3, "batch_size": 8, "width": 8, "vgg": "random", "mode": "corrected", "seed": 2}
    assert why_not_done(trained, asked | defaults | {"approach": "PSM", "initial_lrate": 8e-5}) == ""
