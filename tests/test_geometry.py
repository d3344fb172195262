"""minisam sharpness, landscape and toy, as a user sees them."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from minisam.analysis.curvature import eigenvalues
from minisam.cli import main
from minisam.data import synthetic
from minisam.nn import BatchLoss, Linear, Residual, Sequential, build
from minisam.study import geometry_plots
from minisam.study.geometry import mean_loss, measure, text_table, training_loss, write_json
from minisam.training import Config, Model, Prepared, load_model, save_model, train
from minisam.training.environment import environment
from minisam.training.loop import network

IMAGES = ["--dataset", "synthetic", "--images", "60"]


@cache
def few_images():
    return synthetic(300, 100)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two small trained models and the path of one."""
    folder = tmp_path_factory.mktemp("models")
    dataset = synthetic(100, 50)
    data = Prepared.of(dataset)
    for name, optimizer in {"momentum": "momentum", "sam": "sam"}.items():
        config = Config(model="cnn", optimizer=optimizer, epochs=3, batch_size=50)
        path = []
        run = train(config, data, path=path)
        model = Model(config, network(config, data), run.theta, run.stats, dataset.classes, data.normalisation)
        save_model(folder / f"{name}.npz", model)
        np.savez(folder / f"{name}-path.npz", thetas=np.array(path))
        assert len(path) == 4
        assert np.array_equal(path[-1], run.theta)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to work in, and a data set of few images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minisam.cli.options.load", lambda name, folder: few_images())


def test_sharpness_of_two_models(trained, capsys, monkeypatch):
    effort = {"samples": 4, "slices": 1, "steps": 3, "starts": 2, "directions": 5, "tolerance": 0.1}
    monkeypatch.setattr("minisam.study.geometry.measure", lambda *args: measure(*args, **effort))
    models = [str(trained / "momentum.npz"), str(trained / "sam.npz")]
    assert main(["sharpness", *models, *IMAGES, "--rho", "0.1", "--k", "2", "--out", "s"]) == 0
    out = capsys.readouterr().out
    for word in ("momentum", "sam", "eigenvalue 1 / 2", "trace ± standard error", "rise after SAM's step, rho 0.1"):
        assert word in out
    found = json.loads(Path("s/sharpness.json").read_text())
    assert text_table(found["models"]) in out
    assert "On 60 training images of synthetic, with their original labels." in out
    assert found["environment"] == environment()
    assert Path("s/sharpness.png").read_bytes().startswith(b"\x89PNG")
    for name in ("momentum", "sam"):
        one, model, images = found["models"][name], load_model(trained / f"{name}.npz"), few_images()
        objective = training_loss(model, images.x_train[:60], images.y_train[:60])
        assert one["loss"] == pytest.approx(objective.value(model.theta))
        product, other_rng = objective.hessian(model.theta), np.random.default_rng(1)
        exact = eigenvalues(product, model.theta, 2, other_rng, tolerance=0.01).values
        assert one["eigenvalues"] == pytest.approx(exact.tolist(), rel=effort["tolerance"])
        assert len(one["worst"]) == 3
        assert re.search(rf"{one['eigenvalues'][0]:.4g}", out)
        assert sum(one["density"]["weights"]) == pytest.approx(1)
        assert len(one["density"]["nodes"]) == 40 * effort["slices"]


@pytest.mark.parametrize(("eta", "ball"), [(None, "rho 0.05"), (0.01, "ASAM's rho 0.05")])
def test_the_printed_table_has_every_number_in_its_row(eta, ball):
    one = {"loss": 0.12345, "gradient norm": 0.98765, "rho": 0.05, "eta": eta, "eigenvalues": [9.0, 4.0, 2.0]}
    one |= {"trace": 30.126, "trace error": 1.26, "one step": 0.01, "worst": [0.015, 0.02], "random": [1e-3, 3e-3]}
    other = one | {"eigenvalues": [9.0, 4.0, 0.0], "loss": 2.0}
    lines = text_table({"first": one, "a second one": other}).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [re.split(" {3,}", line.strip()) for line in lines] == [
        ["first", "a second one"],
        ["loss, nats", "0.1235", "2"],
        ["gradient norm", "0.988", "0.988"],
        ["eigenvalue 1", "9", "9"],
        ["eigenvalue 2", "4", "4"],
        ["eigenvalue 3", "2", "0"],
        ["eigenvalue 1 / 3", "4.5", "–"],
        ["trace ± standard error", "30.13 ± 1.3", "30.13 ± 1.3"],
        [f"rise after SAM's step, {ball}", "0.01", "0.01"],
        ["largest rise found in 2 steps", "0.02", "0.02"],
        ["random directions: mean rise", "0.002", "0.002"],
        ["largest of 2", "0.003", "0.003"],
    ]


def test_a_files_name_is_one_line_of_the_table():
    """Otherwise a name could add lines of its own to the results."""
    found = {"eigenvalues": [2.0, 1.0], "trace error": 0.0, "worst": [1.0], "random": [1.0], "eta": None}
    found |= dict.fromkeys(("loss", "gradient norm", "rho", "trace", "one step"), 1.0)
    plain, forged = (text_table({name: found}) for name in ("sam", "sam\nloss, nats   0"))
    assert forged.count("\n") == plain.count("\n")
    assert "sam loss, nats 0" in forged.splitlines()[0]


def test_the_loss_is_evaluations_whatever_fits_in_memory(monkeypatch):
    monkeypatch.setattr("minisam.study.geometry.BATCH", 20)
    net, data = build("vgg", (32, 32, 3), 10), Prepared.of(few_images().first(30))
    theta, v = net.init(np.random.default_rng(0)), np.random.default_rng(1).standard_normal(net.n_params)
    stats, v = net.init_stats() + np.float32(0.5), v.astype(np.float32)
    whole = BatchLoss(net, data.x_train, data.y_train, stats=stats)
    products = []
    for memory in (1 << 40, 1):
        monkeypatch.setattr("minisam.study.geometry.MEMORY", memory)
        loss = mean_loss(net, data.x_train, data.y_train, stats)
        assert (len(loss.objectives), loss.recompute) == (2, memory == 1)
        assert loss.value(theta) == pytest.approx(whole.value(theta), rel=1e-5)
        products.append(loss.hessian(theta)(v))
    np.testing.assert_array_equal(*products)


def test_what_is_inside_a_residual_block_needs_memory_too(monkeypatch):
    x, y = np.zeros((10, 4), np.float32), np.zeros(10, np.int64)
    monkeypatch.setattr("minisam.study.geometry.MEMORY", 2 * 10 * (4 + 4) * 4)  # bytes, as much as one layer needs
    for layer, recompute in ((Linear(4, 4), False), (Residual([Linear(4, 4)]), True)):
        assert mean_loss(Sequential([layer], (4,)), x, y, None).recompute is recompute


@pytest.mark.parametrize("along", ["random", "eigenvectors", "path"])
def test_landscapes_are_kept_and_continued(trained, along, capsys, monkeypatch):
    words = ["landscape", str(trained / "sam.npz"), *IMAGES, "--along", along, "--points", "4", "--out", "l"]
    words += ["--path", str(trained / "sam-path.npz")] if along == "path" else []
    assert main(words) == 0
    file = Path(f"l/landscape-{along}.npz")
    with np.load(file) as kept:
        whole = dict(kept)
    assert whole["losses"].shape == (4, 4)
    assert np.isfinite(whole["losses"]).all()
    for i, ends in enumerate((whole["a"], whole["b"])):
        low, high = (whole["path"][:, i].min(), whole["path"][:, i].max()) if along == "path" else (-1, 1)
        margin = 0.15 * (high - low) if along == "path" else 0  # the whole path is seen, and what is around it
        assert [ends[0], ends[-1]] == pytest.approx([low - margin, high + margin])
    assert Path(f"l/landscape-{along}.png").read_bytes().startswith(b"\x89PNG")
    whole["losses"][2:] = np.nan  # as an interruption leaves it
    whole["losses"][0] = 1.0
    np.savez(file, **whole)
    assert main(words) == 0
    with np.load(file) as kept:
        assert np.isfinite(kept["losses"]).all()
        assert (kept["losses"][0] == 1).all()  # not computed again
    capsys.readouterr()
    assert main([*words, "--images", "59"]) == 1
    assert "holds another landscape" in capsys.readouterr().err
    other = str(trained / "momentum.npz")
    assert main([*words[:1], other, *words[2:]]) == 1
    err = capsys.readouterr().err
    assert ("has the path of another training" if along == "path" else "holds another landscape") in err


def test_a_line_between_two_solutions(trained, capsys):
    models = [str(trained / "momentum.npz"), str(trained / "sam.npz")]
    assert main(["landscape", *models, *IMAGES, "--points", "5", "--out", "l"]) == 0
    images, ends = few_images(), [load_model(path) for path in models]
    with np.load("l/line.npz") as kept:
        assert kept["t"].tolist() == [-0.5, 0.0, 0.5, 1.0, 1.5]
        at_ends = [training_loss(ends[0], images.x_train[:60], images.y_train[:60]).value(m.theta) for m in ends]
        assert kept["names"].tolist() == ["training images", "test images"]
        np.testing.assert_allclose(kept["losses"][0, [1, 3]], at_ends, rtol=1e-4)
        at_ends = [training_loss(ends[0], images.x_test[:60], images.y_test[:60]).value(m.theta) for m in ends]
        np.testing.assert_allclose(kept["losses"][1, [1, 3]], at_ends, rtol=1e-4)
    assert Path("l/line.png").read_bytes().startswith(b"\x89PNG")
    shown = f"On 60 training images of synthetic: {Path('l/line.png')}, and its numbers beside it\n"
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("along", ["random", "eigenvectors"])
def test_lines_around_two_solutions(trained, along):
    models = [str(trained / "momentum.npz"), str(trained / "sam.npz")]
    options = ["--along", along, "--points", "3", "--radius", "0.5"]
    assert main(["landscape", *models, *IMAGES, "--line", *options, "--out", "l"]) == 0
    with np.load(f"l/line-{along}.npz") as kept:
        assert kept["t"].tolist() == [-0.5, 0, 0.5]
        assert kept["names"].tolist() == ["momentum", "sam"]
        for name, losses in zip(kept["names"], kept["losses"], strict=True):
            model, images = load_model(trained / f"{name}.npz"), few_images()
            here = training_loss(model, images.x_train[:60], images.y_train[:60]).value(model.theta)
            assert losses[1] == pytest.approx(here)
            assert losses.min() == losses[1]
    assert Path(f"l/line-{along}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["line", "line-random"])
def test_a_model_of_the_same_name_is_not_replaced_by_a_curve(trained, name, capsys):
    models = [Path(f"{name}.npz"), Path("sam.npz")]
    for model in models:
        model.write_bytes((trained / "sam.npz").read_bytes())
    how = ["--line"] if name == "line-random" else []
    words = ["landscape", *map(str, models), *IMAGES, *how, "--points", "2"]
    assert main([*words, "--out", "."]) == 1
    assert f"{name}.npz holds no losses, but theta" in capsys.readouterr().err
    assert models[0].read_bytes() == models[1].read_bytes()
    assert main([*words, "--out", "l"]) == main([*words, "--out", "l"]) == 0  # earlier curves are replaced


@pytest.mark.parametrize("n", [1, 300])
def test_one_image_is_enough_and_all_are_not_too_many(trained, n):
    words = ["landscape", str(trained / "sam.npz"), "--line", "--points", "2", "--dataset", "synthetic", "--out", "l"]
    assert main([*words, "--images", str(n)]) == 0


def test_toys_are_drawn(capsys, monkeypatch):
    monkeypatch.setattr("minisam.study.toy_plots.STEPS", 6)
    assert main(["toy", "--out", "t"]) == 0
    assert Path("t/toy.png").read_bytes().startswith(b"\x89PNG")
    assert Path("t/toy.gif").read_bytes().startswith(b"GIF8")
    shown = f"Paths in {Path('t/toy.png')}, SAM's race against GD in {Path('t/toy.gif')}\n"
    assert capsys.readouterr().out == shown
    for words, numbers in ((["--rho", "0.1"], (0.004, 0.1)), (["--lr", "0.001"], (0.001, 0.8))):
        with monkeypatch.context() as patch:
            patch.setattr("minisam.study.toy_plots.races", lambda *given: pytest.fail(f"with {given}"))
            with pytest.raises(pytest.fail.Exception, match=re.escape(f"with {numbers}")):
                main(["toy", "--out", "t", *words])
    for words, message in ((["--rho", "-1"], "rho must be a finite number ≥ 0"), (["--lr", "0"], "lr must be")):
        assert main(["toy", "--out", "t", *words]) == 1
        assert f"error: {message}" in capsys.readouterr().err


def test_toys_that_could_not_be_kept_are_not_drawn(capsys, monkeypatch):
    monkeypatch.setattr("minisam.study.toy_plots.toys", lambda _: pytest.fail("drawn"))
    Path("file").write_bytes(b"")
    assert main(["toy", "--out", "file/t"]) == 1
    assert f"can't write to output folder {Path('file/t')}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("toy --out .", "toy.png"),
        ("toy --out .", "toy.gif"),
        ("toy --html --out .", "playground.html"),
        ("sharpness {sam} --out .", "sharpness.json"),
        ("sharpness {sam} --out .", "sharpness.png"),
        ("landscape {sam} --out .", "landscape-random.png"),
        ("landscape {sam} --line --out .", "line-random.png"),
        ("landscape {sam} {other} --out .", "line.png"),
    ],
)
def test_a_file_of_another_kind_is_not_replaced(trained, words, output, capsys):
    (trained / "other.npz").write_bytes((trained / "sam.npz").read_bytes())
    words = words.format(sam=trained / "sam.npz", other=trained / "other.npz").split()
    for make in (lambda file: file.write_text("mine"), lambda file: (file.unlink(), file.mkdir())):
        make(Path(output))
        assert main([*words, *(IMAGES if words[0] != "toy" else [])]) == 1
        assert re.search(rf"error: .*{output}\b.*: choose another --out", capsys.readouterr().err)
        assert [file.name for file in Path().iterdir()] == [output]


def test_train_keeps_its_path(capsys):
    words = ["train", "--dataset", "synthetic", "--n-train", "100", "--epochs", "2", "--path", "p.npz"]
    assert main(words) == 0
    with np.load("p.npz") as kept:
        assert kept["thetas"].shape == (3, 820_874)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sharpness missing.npz", "missing.npz"),
        ("sharpness foreign.npz", "foreign.npz is not a minisam model"),
        ("sharpness letters.npz", r"the model knows 10 classes \(a, …\), synthetic has 10 classes \(disc, …\)"),
        ("sharpness diverged.npz", "expected finite weights, .* SAM.* diverged"),
        ("sharpness {sam} --k 90000", r"k must be at most steps \(200\)"),
        ("sharpness {sam} --rho 0", "rho must be a finite number above 0"),
        ("sharpness {sam} --images 301", r"--images must be 1 to 300 \(all there are\), got 301"),
        ("sharpness {sam} --images 0", r"--images must be 1 to 300 \(all there are\), got 0"),
        ("landscape {sam} --along path", "along the path needs --path"),
        ("landscape {sam} --along path --path {short}", r"expected a path of weights \(n, \d+\) float32, got \(3, 5\)"),
        ("landscape {sam} --line --along path", "expected directions random or eigenvectors, got path"),
        ("landscape {sam} --along path --path foreign.npz", "foreign.npz holds no thetas, but theta$"),
        ("landscape {sam} --along path --path names.npz", "names.npz: expected thetas of numbers, got dtype <U1"),
        ("landscape {sam} --along path --path nan.npz", "expected a path of finite weights, got NaN"),
        ("landscape {sam} --along path --path text.npz", "text.npz is damaged, or no .npz file"),
        ("landscape vgg.npz {sam} --line --points 0", "points must be"),
        ("landscape vgg.npz vgg2.npz", "between networks with BatchNorm there are no running statistics"),
        ("landscape {sam} --points 0", "points must be an integer ≥ 2"),
        ("landscape {sam} --points 1", "points must be an integer ≥ 2, got 1"),
        ("landscape {sam} vgg.npz --along random", "--along would change nothing"),
        ("landscape {sam} vgg.npz --radius 1", "--radius would change nothing"),
        ("landscape {sam} vgg.npz --path {short}", "--path would change nothing"),
        ("landscape {sam} --path {short}", "--path would change nothing"),
        ("landscape {sam} --along path --path {short} --radius 1", "--radius would change nothing"),
        ("landscape {sam} --along path --path other.npz", "other.npz has the path of another training: .*sam.npz is"),
        ("sharpness {sam} --eta -1", "eta must be a finite number above 0, got -1"),
        ("sharpness {sam} {sam}", "expected different models, got .*sam.npz, .*sam.npz"),
        ("landscape {sam} vgg.npz vgg2.npz", "expected one model, or two of the same network, or --line"),
    ],
)
def test_bad_input_is_one_line(trained, words, message, capsys):
    np.savez("foreign.npz", theta=np.zeros(3))
    Path("text.npz").write_text("not arrays")
    np.savez("short.npz", thetas=np.zeros((3, 5), np.float32))
    model = load_model(trained / "sam.npz")
    np.savez("other.npz", thetas=np.zeros((3, len(model.theta)), np.float32))
    np.savez("names.npz", thetas=np.full((3, len(model.theta)), "a"))
    np.savez("nan.npz", thetas=np.stack([np.full_like(model.theta, np.nan), model.theta]))
    vgg = build("vgg", (32, 32, 3), 10)
    parts = {"net": vgg, "theta": vgg.init(np.random.default_rng(0)), "stats": vgg.init_stats()}
    for file in ("vgg.npz", "vgg2.npz"):
        save_model(file, Model(**(vars(model) | parts | {"config": Config(model="vgg")})))
    save_model("letters.npz", Model(**(vars(model) | {"classes": tuple("abcdefghij")})))
    save_model("diverged.npz", Model(**(vars(model) | {"theta": np.full_like(model.theta, np.nan)})))
    words = words.format(sam=trained / "sam.npz", short="short.npz").split()
    assert main([*words, *(IMAGES if "--images" not in words else IMAGES[:2])]) == 1
    err = capsys.readouterr().err
    assert re.search(rf"(?<!\w){message}", err)
    assert len(err.strip().splitlines()) == 1
    assert not list(Path().glob("minisam-results/**/*.*"))


def test_an_infinite_number_is_valid_json(tmp_path):
    write_json(tmp_path / "s.json", {"m": {"worst": [1.5, float("inf"), -float("inf")]}})
    found = json.loads((tmp_path / "s.json").read_text(), parse_constant=pytest.fail)
    assert found["models"]["m"]["worst"] == [1.5, "Infinity", "-Infinity"]


def test_a_model_whose_name_begins_with_an_underscore_has_its_line_in_the_legend():
    t = np.arange(3.0)
    (ax,) = geometry_plots.line(t, {"_under": t, "other": t}, {}).axes
    assert [text.get_text().strip() for text in ax.get_legend().get_texts()][:2] == ["_under", "other"]
