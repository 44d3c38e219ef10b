"""Folders that diffusers' save_pretrained wrote: what is read, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core.fit.global_rng import own_randomness
from fm_core.foreign import load_diffusers
from fm_core.registry import origin

diffusers = pytest.importorskip("diffusers")

WEIGHTS = "diffusion_pytorch_model.safetensors"
UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    with own_randomness(0, torch.device("cpu")):
        return diffusers.UNet2DModel(**UNET).eval()


@pytest.fixture(scope="module")
def written(net, tmp_path_factory) -> Path:
    """A pipeline's folder."""
    where = tmp_path_factory.mktemp("saved")
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=50, beta_end=0.3, prediction_type="v_prediction")
    diffusers.DDIMPipeline(unet=net, scheduler=scheduler).save_pretrained(where)
    return where


@pytest.fixture
def saved(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "saved"))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.usefixtures("global_rng_untouched")
def test_a_pipeline_folder_becomes_a_pipeline(saved, net, x):
    pipe = load_diffusers(saved, solver="ddim", predicts="v")
    t = torch.tensor([0.0, 0.5, 0.98])
    with torch.no_grad():
        assert torch.equal(pipe.model(x, t), net(x, torch.tensor([49, 24, 0])).sample)
    assert pipe.model.predicts == ("v",)
    assert not pipe.model.net.training
    assert pipe.sample((2, 1, 8, 8), steps=4, seed=0).x.isfinite().all()


def test_reading_draws_from_no_global_generator(tmp_path):
    """Random Fourier features are drawn when such a network is made, before its weights are read."""
    with own_randomness(0, torch.device("cpu")):
        diffusers.UNet2DModel(**UNET, time_embedding_type="fourier").save_pretrained(tmp_path)
    before = torch.get_rng_state()
    load_diffusers(tmp_path, scheduler={"_class_name": "DDPMScheduler"})
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_folder_needs_its_scheduler(saved, net, x):
    """Given, or in the folder."""
    home, t = saved / "unet", torch.full((3,), 0.5)
    with pytest.raises(fm.SavedFileError, match=r"scheduler=\{'_class_name'"):
        load_diffusers(home)
    config = json.loads((saved / "scheduler" / "scheduler_config.json").read_text())
    given = load_diffusers(home, scheduler=config)
    shutil.copytree(saved / "scheduler", home / "scheduler")
    found = load_diffusers(home)
    assert torch.equal(given.model(x, t), found.model(x, t))
    assert given.path.schedule == found.path.schedule


def test_shards_are_read(saved, net, x):
    shutil.rmtree(saved / "unet")
    net.save_pretrained(saved / "unet", max_shard_size="10KB")
    assert len(list((saved / "unet").glob("*.safetensors"))) > 2
    pipe, t = load_diffusers(saved), torch.full((3,), 0.5)
    with torch.no_grad():
        assert torch.equal(pipe.model(x, t), net(x, torch.tensor([24, 24, 24])).sample)


def test_the_dtype_is_that_of_the_file(saved, net):
    shutil.rmtree(saved / "unet")
    with own_randomness(0, torch.device("cpu")):
        diffusers.UNet2DModel(**UNET).to(torch.float64).save_pretrained(saved / "unet")
    assert load_diffusers(saved).placement[1] == torch.float64
    assert load_diffusers(saved, dtype=torch.float32).placement[1] == torch.float32


def test_a_loaded_pipeline_is_known_by_names_not_by_its_folder(saved, x):
    """The registry builds the same network from the configurations alone; weights are the file's business."""
    pipe = load_diffusers(saved, solver="ddim")
    for part, kind in ((pipe.model, "model"), (pipe.path, "path")):
        spec = origin(part)
        assert (spec.kind, spec.name) == (kind, "diffusers")
        assert str(saved) not in json.dumps(dict(spec.options))
    spec = origin(pipe.model)
    again = fm.build("model", spec.name, **spec.options)
    again.net.load_state_dict(pipe.model.net.state_dict())
    t = torch.tensor([0.1, 0.5, 0.9])
    assert torch.equal(again(x, t), pipe.model(x, t))


def test_pickles_are_refused_with_the_way_out(saved, tmp_path):
    """A folder with a pickle alone; the pickle would write a file if it were opened."""
    home, mark = saved / "unet", tmp_path / "opened"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (mark,))

    (home / WEIGHTS).unlink()
    (home / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(fm.SavedFileError, match="pickles only") as raised:
        load_diffusers(saved)
    assert not mark.exists()
    assert "use_safetensors=False).save_pretrained(" in str(raised.value)


@pytest.mark.parametrize("name", ["../stolen.safetensors", "weights.bin", "absent.safetensors"])
def test_an_index_names_safetensors_beside_it_alone(saved, name):
    home = saved / "unet"
    (home / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"conv_in.weight": name}}))
    (saved / "stolen.safetensors").write_bytes((home / WEIGHTS).read_bytes())
    (home / "weights.bin").write_bytes(b"")
    with pytest.raises(fm.SavedFileError, match="names the shard"):
        load_diffusers(saved)


def test_classes_that_are_not_on_the_list_are_refused(saved):
    edit(saved / "unet" / "config.json", _class_name="UNet2dModel")
    with pytest.raises(fm.UnknownNameError, match="did you mean 'UNet2DModel'"):
        load_diffusers(saved)
    edit(saved / "unet" / "config.json", _class_name="DiffusionPipeline")
    with pytest.raises(fm.UnknownNameError, match="not among the diffusers networks"):
        load_diffusers(saved)


def test_weights_must_fit_the_configuration(saved):
    config = saved / "unet" / "config.json"
    edit(config, layers_per_block=2)
    with pytest.raises(fm.SavedFileError, match="missing in the file"):
        load_diffusers(saved)
    edit(config, layers_per_block=1, add_attention=False)
    with pytest.raises(fm.SavedFileError, match="not in the network"):
        load_diffusers(saved)
    edit(config, add_attention=True, block_out_channels=[16, 8])
    with pytest.raises(fm.SavedFileError, match="cannot be read as a UNet2DModel"):
        load_diffusers(saved)
    edit(config, block_out_channels=[8, 8], quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(fm.SavedFileError, match="no 'quantization_config'"):
        load_diffusers(saved)


def test_damaged_files_are_named(saved):
    weights = saved / "unet" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(fm.SavedFileError, match="is no safetensors file"):
        load_diffusers(saved)
    weights.unlink()
    with pytest.raises(fm.SavedFileError, match="no weights at all"):
        load_diffusers(saved)
    (saved / "unet" / "config.json").write_text("{")
    with pytest.raises(fm.SavedFileError, match=r"config\.json cannot be read as JSON"):
        load_diffusers(saved)


def test_what_is_no_folder_of_diffusers_is_refused(tmp_path):
    with pytest.raises(fm.SavedFileError, match="nothing is fetched"):
        load_diffusers("google/ddpm-cifar10-32")
    with pytest.raises(fm.SavedFileError, match=r"neither model_index\.json"):
        load_diffusers(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "A"], "transformer": ["d", "B"]}))
    with pytest.raises(fm.SavedFileError, match="names 2 networks"):
        load_diffusers(tmp_path)


def test_declaring_another_prediction_or_schedule_is_refused(saved):
    with pytest.raises(fm.PredictionError, match=r"predicts 'v'.*'noise' was declared"):
        load_diffusers(saved, predicts="noise")
    with pytest.raises(fm.CompatError, match="trained on another path"):
        load_diffusers(saved, path="cosine")
    edit(saved / "scheduler" / "scheduler_config.json", prediction_type="epsilon", rescale_betas_zero_snr=True)
    with pytest.raises(fm.CompatError, match="refuses"):
        load_diffusers(saved)


def test_a_dit_of_old_is_read_by_its_old_name(tmp_path):
    with own_randomness(0, torch.device("cpu")):
        net = diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=4,
            in_channels=2,
            out_channels=4,
            num_layers=1,
            sample_size=4,
            norm_num_groups=2,
            num_embeds_ada_norm=5,
        ).eval()
    net.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", _class_name="Transformer2DModel", use_linear_projection=False, caption_channels=None)
    pipe = load_diffusers(tmp_path, scheduler={"_class_name": "DDIMScheduler"}, solver="ddim")
    out = pipe.sample((2, 2, 4, 4), steps=3, seed=0, cond=torch.tensor([0, 4]))
    assert out.x.shape == (2, 2, 4, 4)
    assert origin(pipe.model).options["architecture"] == "DiTTransformer2DModel"
